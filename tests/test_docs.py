"""The documentation: what its pages show runs, and does what they show."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from PIL import Image

import gelkit
from gelkit.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))

LANGUAGES = {
    "python": "runs in the page's namespace",
    "console": "runs in a shell, each `$` line",
    "text": "what the block before it prints; with a caption, a file that is made",
}

NOT_RUN = {
    "pip install": "installs packages",
    "OMP_NUM_THREADS=1 python benchmarks/": "takes half an hour",
    "py -m venv": "needs Windows",
    "gels\\Scripts": "needs Windows",
    "unzip": "what Colab sends is not here",
    "sbatch": "needs SLURM",
    "gelkit cache merge features_1": "needs what three machines have made",
    "gelkit features my_gels": "the weights would have to be downloaded",
    "gelkit heads my_gels": "trains for the three backbones",
    "gelkit evaluate ": "reports on these",
    "gelkit report": "takes as long as evaluate, which has written one",
}
"""How commands may begin that are shown in blocks marked ``not-run``, and why they cannot run."""

NEEDED = {
    "backbones.md": "timm",
    "predict.md": "onnxscript",
    "cache.md": "pyarrow",
    "cluster.md": "ray",
    "remote.md": "moto",
}
"""Packages of extras that pages cannot run without."""

FENCE = re.compile(
    r"^(?P<indent> *)```(?:\{code-block\} )?(?P<language>\S+)(?: .*)?\n"
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


def notebook_cells() -> list[str]:
    """Return the code of the notebook for Colab, but for what is marked to need Colab."""
    cells = json.loads((DOCS / "colab.ipynb").read_text())["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and "not-run" not in cell["metadata"].get("tags", ())
    ]


def commands_of(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output that is shown of it."""
    _, *pieces = re.split(r"^\$ ", block.text.replace("\\\n", " "), flags=re.MULTILINE)
    return [(command, output) for command, _, output in (its.partition("\n") for its in pieces)]


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
    names = ("monday_1", "monday_2", "tuesday_1", "tuesday_2")
    pictures = [Image.open(path).convert("L") for path in sorted(drawn.glob("*.png"))[:4]]
    for name, picture in zip(names, pictures, strict=True):
        picture.save(folder / f"{name}.png")
    pictures[0].save(folder / "exposures.tif", save_all=True, append_images=pictures[:1])


def run_page(page: str, folder: Path, environment: dict[str, str]) -> None:
    """Run what a page shows, in its order, and compare what it says of that."""
    names: dict[str, Any] = {}
    printed = ""
    for block in read_blocks(page):
        if block.file is not None:
            Path(block.file).write_text(block.text)
        elif block.language == "text":
            require_shown(block.text, printed)
        elif block.runs and block.language == "python":
            printed = run_python(block, names)
        elif block.runs:
            for command, shown in commands_of(block):
                run_command(command, shown, folder, environment)


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
    kept = {
        name: os.environ[name] for name in ("GELKIT_NOTES", "HOME", "LANG") if name in os.environ
    }
    return kept | {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TORCH_HOME": str(home),
        "HF_HOME": str(folder / "hub"),
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


@pytest.mark.exhaustive("documentation")
@pytest.mark.parametrize("page", [page for page in PAGES if page != "tpu.md" and read_blocks(page)])
def test_what_a_page_shows_runs(page: str, workplace: Path, environment: dict[str, str]) -> None:
    """Someone who copies a page, block by block, would get an error, or another answer."""
    if page in NEEDED and find_spec(NEEDED[page]) is None:
        pytest.skip(f"{NEEDED[page]} is not installed")
    run_page(page, workplace, environment)


@pytest.mark.exhaustive("documentation")
@pytest.mark.skipif(find_spec("torch_xla") is None, reason="torch_xla is not installed")
def test_the_notebook_runs_and_then_its_page(workplace: Path, environment: dict[str, str]) -> None:
    """Someone in Colab would get an error, or bring home what cannot be read."""
    names: dict[str, Any] = {}
    for source in notebook_cells():
        if source.startswith("!"):
            command = source[1:].replace("--hardware tpu", "--hardware tpu --emulate-tpu")
            run_command(command, "", workplace, environment)
        else:
            exec(source, names)
    shutil.unpack_archive("features.zip", "from_colab")
    for folder in Path("features").glob("*-tpu-*"):
        shutil.rmtree(folder)
    emulated = gelkit.RecipeOptions(emulate_tpu=True)
    brought = gelkit.load("my_gels", hardware="tpu", cache="from_colab/features", options=emulated)
    assert brought.values.shape == (24, 512)
    run_page("tpu.md", workplace, environment)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_kind_that_is_tried(page: str) -> None:
    """A page could show what was never tried, without a mark that says so."""
    blocks = read_blocks(page)
    assert {block.language for block in blocks} <= set(LANGUAGES)
    text = (DOCS / page).read_text()
    assert len(re.findall("^ *```", text, re.MULTILINE)) == 2 * len(FENCE.findall(text))
    for before, block in pairwise([None, *blocks]):
        if block.language == "console":
            assert commands_of(block), f"line {block.line}: expected commands"
        if block.language == "text" and block.file is None:
            assert before is not None, f"line {block.line}: expected a Python block before it"
            assert before.language == "python", f"line {block.line}: expected Python before it"


def test_what_does_not_run_has_a_reason() -> None:
    """A block could be spared from being tried because it is wrong."""
    spared = {
        command
        for page in PAGES
        for block in read_blocks(page)
        if not block.runs and block.language != "text"
        for command, _ in commands_of(block)
    }
    unexplained = {its for its in spared if not any(map(its.startswith, NOT_RUN))}
    assert unexplained == set()


@pytest.mark.parametrize("command", sorted(set(main.commands) - {"cache"}))
def test_every_command_is_shown(command: str) -> None:
    """A command could not be found by someone who reads about a task."""
    assert any(f"$ gelkit {command}" in (DOCS / page).read_text() for page in PAGES)


@pytest.mark.parametrize("name", gelkit.__all__)
def test_every_public_name_is_described(name: str) -> None:
    """A name could not be looked up."""
    assert re.search(rf":: gelkit\.{name}$", (DOCS / "api.md").read_text(), re.MULTILINE)


@pytest.mark.exhaustive("documentation")
@pytest.mark.skipif(find_spec("furo") is None, reason="the extra docs is not installed")
def test_the_site_builds(tmp_path: Path) -> None:
    """A page or a link would be missing from the site, or a docstring be shown garbled."""
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet"]
    run = subprocess.run(
        [*build, "--doctree-dir", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert {path.stem for path in (tmp_path / "html").glob("*.html")} >= {
        Path(page).stem for page in PAGES
    }
