"""The documentation: what its pages show runs, and does what they show."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from PIL import Image

import gelkit

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))

LANGUAGES = {
    "python": "runs in the page's namespace",
    "console": "runs in a shell, each `$` line",
    "text": "what the block before it prints; with a caption, a file that is made",
}

NOT_RUN = {
    "pip install": "installs packages",
    "git clone": "needs the repository's address",
    "make": "installs packages",
    "gelkit features my_gels  ": "vgg16's weights alone are half a gigabyte",
    "gelkit doctor  ": "measures for a minute",
    "unzip": "what Colab has sent is not here",
}
"""How the command of a block that is marked ``not-run`` may begin, and why it cannot run here."""


"""Commands that pages show, marked ``not-run``, before the door has them."""

NEEDED = {"tpu.md": "torch_xla", "predict.md": "onnxruntime", "cache.md": "pyarrow"}
"""Packages of extras that pages cannot run without."""

FENCE = re.compile(
    r"^(?P<indent> *)```(?:\{code-block\} )?(?P<language>\S+)\n"
    r"(?P<options>(?: *:[\w-]+:.*\n)*)(?P<text>[\s\S]*?)^(?P=indent)```$",
    re.MULTILINE,
)
"""A fenced block of a page, with MyST's options; of ``{directives}`` code-block alone is code."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

COMMAND = """#!/bin/sh
exec "{python}" -c '
import dataclasses, sys
from gelkit.cli import main
from gelkit.features.backbones import BACKBONES
url = "http://127.0.0.1:9/models/{weights}"
BACKBONES["resnet18"] = dataclasses.replace(BACKBONES["resnet18"], weights_url=url)
main(prog_name="gelkit")
' "$@"
"""
"""The command ``gelkit`` of this very environment, whose ImageNet weights need no network."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    options: str
    text: str

    @property
    def runs(self) -> bool:
        """Whether the block can be executed here."""
        return self.language in ("python", "console") and ":class: not-run" not in self.options

    @property
    def file(self) -> str | None:
        """The name of the file that it shows, if it is one."""
        found = re.search(r":caption: (\S+)", self.options)
        return found[1] if found else None


def read_blocks(page: str) -> list[Block]:
    """Return a page's fenced blocks, in order."""
    text = (DOCS / page).read_text()
    return [
        Block(
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            options=found["options"],
            text=dedent(found["text"]),
        )
        for found in FENCE.finditer(text)
        if not found["language"].startswith("{")
    ]


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output that is shown of it."""
    lines = re.split(r"^\$ ", block.text.replace("\\\n", " "), flags=re.MULTILINE)
    return [(command, output) for command, _, output in (its.partition("\n") for its in lines[1:])]


def require_shown(shown: str, printed: str) -> None:
    """Compare what a page shows with what was printed, as doctest does; ``...`` stands for any."""
    if not doctest.OutputChecker().check_output(shown, printed, FLAGS):
        pytest.fail(f"The page shows\n{shown}\nbut what is printed is\n{printed}", pytrace=False)


def run_python(block: Block, names: dict[str, Any]) -> str:
    """Return what a block prints, with the value of its last expression as a notebook shows it."""
    tree = ast.parse("\n" * block.line + block.text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "page", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "page", "eval"), names)
            if value is not None:
                print(repr(value))
    return printed.getvalue()


def run_command(command: str, shown: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a command in a shell; it fails if, and only if, an error is shown."""
    run = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if (run.returncode != 0) is not ("Error: " in shown):
        pytest.fail(f"$ {command}\nended with {run.returncode}:\n{run.stdout}", pytrace=False)
    if shown:
        require_shown(shown, run.stdout)


def make_scans(drawn: Path, folder: Path) -> None:
    """Make the files that the pages' manifests name."""
    folder.mkdir()
    pictures = [Image.open(path).convert("L") for path in sorted(drawn.glob("*.png"))[:4]]
    for picture, day in zip(
        pictures, ("monday_1", "monday_2", "tuesday_1", "tuesday_2"), strict=True
    ):
        picture.save(folder / f"{day}.png")
    pictures[0].save(folder / "exposures.tif", save_all=True, append_images=pictures[:1])


@pytest.fixture(scope="module")
def environment(
    torch_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the environment in which ``gelkit`` and ``python`` are those of this process."""
    folder = tmp_path_factory.mktemp("bin")
    home, weights = torch_home
    command = folder / "gelkit"
    command.write_text(COMMAND.format(python=sys.executable, weights=weights))
    command.chmod(0o755)
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return kept | {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TORCH_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture(scope="module")
def example(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the images, embeddings and results that the pages take for granted."""
    folder = tmp_path_factory.mktemp("example")
    gelkit.draw_samples(folder / "my_gels", count=24)
    gelkit.draw_samples(folder / "more_gels", count=12, seed=1)
    make_scans(folder / "my_gels" / "gel", folder / "scans")
    for command in ("features my_gels", "heads my_gels --hardware cpu"):
        run_command(f"gelkit {command} --backbone resnet18", "", folder, environment)
    return folder


@pytest.fixture
def workplace(
    example: Path, pretrained: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a copy of :func:`example`, in which the test works."""
    shutil.copytree(example, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("page", [page for page in PAGES if any(read_blocks(page))])
def test_what_a_page_shows_runs(page: str, workplace: Path, environment: dict[str, str]) -> None:
    """Someone who copies a page, block by block, would get an error, or another answer."""
    if page in NEEDED and find_spec(NEEDED[page]) is None:
        pytest.skip(f"{NEEDED[page]} is not installed")
    names: dict[str, Any] = {}
    printed = None
    for block in read_blocks(page):
        if block.file is not None:
            Path(block.file).write_text(block.text)
        elif block.language == "text" and printed is not None:
            require_shown(block.text, printed)
        printed = run_python(block, names) if block.runs and block.language == "python" else None
        if block.runs and block.language == "console":
            for command, shown in commands_of(block):
                run_command(command, shown, workplace, environment)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_tested(page: str) -> None:
    """A block could show what was never tried, without a mark that says so."""
    blocks = read_blocks(page)
    assert {block.language for block in blocks} <= set(LANGUAGES)
    assert [b.line for b in blocks if b.language == "console" and not commands_of(b)] == []
    not_run = [b for b in blocks if ":class: not-run" in b.options]
    assert [b.line for b in not_run if b.language != "console"] == []
