"""The README and the cache's README: their Python runs, and they leave no command out."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import click
import pytest

from gelkit.cli import main

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(main.commands)


def _code(page: str, heading: str) -> str:
    """Return the first indented block under a heading."""
    section = (ROOT / page).read_text().partition(f"## {heading}\n")[2]
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", section, re.MULTILINE)
    return dedent(next(block for block in blocks if block.strip()))


@pytest.mark.exhaustive("documentation")
@pytest.mark.usefixtures("pretrained")
def test_the_python_of_the_readme_runs(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone who pastes the README into a notebook would get an error."""
    monkeypatch.chdir(samples.parent)
    names: dict[str, object] = {}
    exec(compile(_code("README.md", "From Python"), "README.md", "exec"), names)
    assert names["embeddings"].values.shape == (20, 512)
    assert names["head"].predict(names["embeddings"].values, verbose=0).shape == (20, 2)
    assert list(names["table"]["model_id"]) == [1, 2, 3, 4]

    exec(compile(_code("features/README.md", "Read one with h5py alone"), "README", "exec"), names)
    assert names["embeddings"].shape == (20, 512)
    assert len(set(names["sha256"])) == 20


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(command: str) -> None:
    """A command could not be found, or would have to be guessed."""
    context = click.Context(main.commands[command], info_name=f"gelkit {command}")
    text = main.commands[command].get_help(context)
    assert re.search(rf"Examples?:\n\s+gelkit {command}", text)
    undescribed = [
        parameter.name
        for parameter in main.commands[command].params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert undescribed == []
    assert f"gelkit {command}" in (ROOT / "README.md").read_text()


def test_the_changelog_names_the_version() -> None:
    """A user could not tell what changed in what is installed."""
    import gelkit

    assert f"## {gelkit.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version = {gelkit.__version__}" in (ROOT / "setup.cfg").read_text()
    assert f"version: {gelkit.__version__}" in (ROOT / "CITATION.cff").read_text()
