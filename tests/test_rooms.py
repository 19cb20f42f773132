"""The rooms: who may import whom, and which few modules may import the heavy packages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gelkit"
MODULES = sorted(PACKAGE.rglob("*.py"))

ROOMS = ("images", "features", "heads", "analyses", "report", "commands", "cli")
"""A room may import itself and those before it, but analyses and report not each other."""

DOORS = {
    "torch": (
        "features/agreement",
        "features/first_layer",
        "features/freezing",
        "features/frozen",
        "features/facts",
        "features/own_networks",
        "features/plain_layers",
        "features/timm_models",
        "features/torchvision_models",
        "features/torchvision_weights",
        "features/weights",
        "features/devices",
        "features/fusion",
        "features/hardware",
        "features/winograd",
        "features/xla",
        "features/diagnosis",
        "features/embeddings",
        "heads/architectures",
        "heads/stacked_layers",
        "heads/stacking",
        "heads/training",
        "analyses/export",
    ),
    "torchvision": ("features/torchvision_models",),
    "timm": ("features/plain_layers", "features/timm_models"),
    "torch_tpu": ("features/devices", "features/hardware"),
    "torch_xla": ("features/xla",),
    "h5py": ("features/shards", "features/salvage"),
    "openvino": ("features/devices",),
    "ray": ("features/clusters",),
    "keras": ("heads/architectures", "heads/training", "analyses/export"),
    "fsspec": ("stores",),
    "fcntl": ("systems",),
    "psutil": ("systems",),
    "resource": ("systems",),
    "click": (
        "cli",
        "commands/console",
        "commands/options",
        "commands/pictures",
        "commands/reuse",
        "commands/stages",
        "commands/upkeep",
    ),
    "platformdirs": ("notes",),
    "tqdm": ("commands/console",),
    "tifffile": ("images/tiffs",),
    "imagecodecs": ("images/pictures",),
    "pillow_heif": ("images/heif",),
    "jinja2": ("report/page",),
    "matplotlib": ("report/plots/canvas",),
}


def _name(module: Path) -> str:
    return module.relative_to(PACKAGE).with_suffix("").as_posix()


def _imports(module: Path) -> Iterator[str]:
    """Yield the dotted names that a module imports, except for type checking alone."""
    tree = ast.parse(module.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_no_room_imports_upwards(module: Path) -> None:
    """A change in a later room would break an earlier one."""
    own = _name(module).split("/")[0]
    if own not in ROOMS:
        return
    allowed = ROOMS[: ROOMS.index(own) + 1]
    if own == "report":
        allowed = tuple(room for room in allowed if room != "analyses")
    imported = {name.split(".")[1] for name in _imports(module) if name.startswith("gelkit.")}
    assert (imported & set(ROOMS)) <= set(allowed)


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_heavy_packages_have_few_doors(module: Path) -> None:
    """A stray import would make every command slow, or need a package that is optional."""
    imported = {name.split(".")[0] for name in _imports(module)}
    strays = {p for p in imported & set(DOORS) if _name(module) not in DOORS[p]}
    assert strays == set()


OF_ONE_SYSTEM = re.compile(r"sys\.platform|os\.name\b|platform\.system\(|\"/(?:proc|sys|dev)/")
"""What only some systems have, or by which one asks which system this is."""

DOORS_OF_SYSTEMS = {"systems", "children", "features/xla"}
"""TPUs are Linux'."""


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_only_one_place_knows_which_system_this_is(module: Path) -> None:
    """What was tried on Linux would fail elsewhere, where nobody of us looks."""
    if _name(module) not in DOORS_OF_SYSTEMS:
        assert OF_ONE_SYSTEM.findall(module.read_text(encoding="utf-8")) == []


def test_importing_is_light() -> None:
    """``gelkit --help`` and ``import gelkit`` would take seconds, or pick a Keras backend."""
    program = (
        "import sys, os, gelkit, gelkit.cli\n"
        "heavy = {'torch', 'torchvision', 'torch_xla', 'keras', 'sklearn', 'pandas', 'scipy'}\n"
        "heavy |= {'fsspec', 's3fs', 'gcsfs'}\n"
        "print(sorted(heavy & set(sys.modules)), 'KERAS_BACKEND' in os.environ)"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout.strip() == "[] False"


def test_every_public_name_is_there() -> None:
    """A name in the list of public names could not be imported."""
    import gelkit

    missing = [name for name in gelkit.__all__ if not hasattr(gelkit, name)]
    assert missing == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = gelkit.nonsense
