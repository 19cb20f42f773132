"""Networks of one's own: registered or installed, they work in workers and are named in recipes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gelkit
from gelkit.errors import UsageError
from gelkit.features import own_networks
from gelkit.features.backbones import get_backbone
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import CacheError
from gelkit.features.weights import load_weights

SCRIPT = """
import json, sys
import torch
from torch import nn
import gelkit

def build():
    class Little(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 8, stride=8)

        def forward(self, pictures):
            if pictures.sum() > 1e9:  # cannot be traced
                raise ValueError
            return self.conv(pictures).relu().mean((2, 3))

    return Little()

data, cache, engine = sys.argv[1:]
gelkit.register_backbone("little", build, version="2.1", input_size=96, interpolation="bicubic")
found = gelkit.extract(
    data, backbone="little", cache=cache, workforce=gelkit.Workforce(workers=2, engine=engine)
)
print(json.dumps({
    "shape": found.values.shape,
    "version": found.recipe.backbone_version,
    "shown": [found.recipe.view_size, found.recipe.interpolation],
    "folder": found.recipe.folder_name,
}))
"""
"""A program, whose functions no worker can import."""

MODULE = """
import torch
from torch import nn
import gelkit

def build():
    return nn.Sequential(nn.Conv2d(3, 7, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten())

gelkit.register_backbone({registered!r}, build, version="1", mean=(.5, .5, .5), std=(.5, .5, .5))
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give each test a registry of its own."""
    mine: dict[str, Any] = {}
    monkeypatch.setattr(own_networks, "_registered", mine)
    return mine


def _build() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten())


ENGINES = [
    "local",
    pytest.param(
        "ray",
        marks=[
            pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray"),
            pytest.mark.exhaustive("clusters"),
        ],
    ),
]


@pytest.mark.parametrize(
    "is_imported",
    [
        pytest.param(False, id="its own"),
        pytest.param(
            True, id="of a file beside it", marks=pytest.mark.exhaustive("exhaustive grids")
        ),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_of_a_program_works_in_workers(
    engine: str, is_imported: bool, samples: Path, tmp_path: Path
) -> None:
    """A network of a notebook could be built nowhere but in the notebook itself."""
    before, _, after = SCRIPT.partition("data, cache, engine")
    (tmp_path / "beside.py").write_text(before)
    imported = "import json, sys, gelkit\nfrom beside import build\ndata, cache, engine"
    (tmp_path / "program.py").write_text(
        f"{imported if is_imported else SCRIPT}" + (after if is_imported else "")
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "program.py", samples, tmp_path / "cache", engine],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(gelkit.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["shape"] == [20, 5]
    assert said["version"] == "2.1"
    assert said["shown"] == [96, "bicubic"]
    assert said["folder"].startswith("little-built-cpu-")


def _install(folder: Path, name: str, registered: str) -> None:
    """Put a package that offers a network where Python finds it."""
    (folder / "offering.py").write_text(MODULE.format(registered=registered))
    about = folder / "offering-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[gelkit.backbones]\n{name} = offering\n")


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "installed").mkdir()
    return tmp_path / "installed"


def _gelkit(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            "from gelkit.cli import main; main(prog_name='gelkit')",
            *map(str, words),
        ],
        env=os.environ | {"PYTHONPATH": f"{folder}:{Path(gelkit.__file__).parents[1]}"},
        cwd=folder.parent,
        capture_output=True,
        text=True,
    )


@pytest.mark.exhaustive("exhaustive grids")
def test_a_network_of_an_installed_package_works_in_every_command(
    samples: Path, tmp_path: Path
) -> None:
    """A laboratory's own network could be used in a notebook alone."""
    folder = _folder(tmp_path)
    _install(folder, "offered", "offered")
    run = _gelkit(folder, "features", samples, "--backbone", "offered")
    assert run.returncode == 0, run.stderr
    assert "20 x 7 in features/offered-built-cpu-" in run.stdout
    again = _gelkit(folder, "features", samples, "--backbone", "offered")
    assert "20 x 7" in again.stdout


@pytest.mark.exhaustive("fault states")
def test_a_package_that_does_not_register_its_network_is_named(
    samples: Path, tmp_path: Path
) -> None:
    """A user would be told that there is no such network, though it is installed."""
    folder = _folder(tmp_path)
    _install(folder, "offered", "something_else")
    run = _gelkit(folder, "features", samples, "--backbone", "offered")
    assert run.returncode == 1
    assert "Expected the package offering to register the network offered" in run.stderr


def test_the_owners_version_makes_another_cache() -> None:
    """Embeddings of a network that was trained further would be mixed with the old ones."""
    recipes = []
    for version in ("1", "2"):
        gelkit.register_backbone("mine", _build, version=version)
        recipes.append(make_recipe("mine", "cpu"))
    assert recipes[0].differences(recipes[1]) == "backbone_version: '1' here, '2' there"
    assert get_backbone("mine").width == 4


@pytest.mark.exhaustive("fault states")
def test_another_network_under_the_same_version_is_noticed(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who forgets to give another version would mix the embeddings of two networks."""
    catalog = gelkit.read_catalog(samples)
    few = gelkit.Catalog(catalog.name, catalog.images[:4])
    gelkit.register_backbone("mine", _build, version="1")
    first = gelkit.extract(few, backbone="mine", cache=tmp_path)
    provenance = load_weights(get_backbone("mine"), "pretrained")[1]
    assert len(provenance) == 64
    assert load_weights(get_backbone("mine"), "pretrained")[1] == provenance

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    gelkit.register_backbone("mine", build, version="1")
    with pytest.raises(CacheError, match="Register it under another version"):
        gelkit.extract(catalog, backbone="mine", cache=tmp_path)
    assert first.values.shape == (4, 4)


def test_a_file_goes_into_a_network_of_ones_own(tmp_path: Path) -> None:
    """Several trainings of one network would each need a function of their own."""
    gelkit.register_backbone("mine", _build, version="1")
    row = get_backbone("mine")
    state = {name: torch.full_like(its, 2) for name, its in _build().state_dict().items()}
    torch.save(state, tmp_path / "mine.pth")
    model, _ = load_weights(row, str(tmp_path / "mine.pth"))
    assert all(torch.equal(its, state[name]) for name, its in model.state_dict().items())
    with pytest.raises(UsageError, match="brings its weights"):
        make_recipe("mine", "cpu", RecipeOptions(weights="random"))


def test_a_row_travels_to_another_process() -> None:
    """Workers would be sent what they cannot read."""
    scale = 3.0
    gelkit.register_backbone("mine", lambda: nn.Conv2d(3, int(scale), 1), version="1")
    row = own_networks._registered["mine"]
    received = pickle.loads(pickle.dumps(row))
    assert received.own.version == "1"
    assert received.own.build().out_channels == 3


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a row of the table": ({"name": "resnet18"}, "a name that no other network has"),
    "torchvision's": ({"name": "convnext_tiny"}, "a name that no other network has"),
    "timm's": ({"name": "timm/mine"}, "a name that no other network has"),
    "no version": ({"version": ""}, "Expected a version"),
    "an unknown interpolation": ({"interpolation": "cubic"}, "bilinear, bicubic, lanczos, nearest"),
    "one channel": ({"mean": (0.5,)}, "mean and std of 3 channels. Received: 1 and 3"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_registered_is_refused(change: dict[str, Any], message: str) -> None:
    """A network would hide another, or fail when the first image is embedded."""
    with pytest.raises(UsageError, match=message):
        gelkit.register_backbone(**{"name": "mine", "build": _build, "version": "1"} | change)


WRONG_FUNCTIONS: dict[str, tuple[Any, str]] = {
    "no module": (lambda: "network", "to return a torch.nn.Module. Received: str"),
    "pictures": (lambda: nn.Conv2d(3, 4, 1), "gives a vector for each picture"),
    "other pictures": (lambda: nn.Conv2d(4, 4, 1), "Expected mine to take pictures of 224 x 224"),
}


@pytest.mark.parametrize(("build", "message"), WRONG_FUNCTIONS.values(), ids=WRONG_FUNCTIONS)
def test_a_function_that_gives_no_network_is_refused(build: Any, message: str) -> None:
    """A worker would fail with a traceback that names no network."""
    gelkit.register_backbone("mine", build, version="1")
    with pytest.raises(UsageError, match=message):
        get_backbone("mine")
