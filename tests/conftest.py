"""What the tests share: Keras' backend, a drawn sample set, weights that need no network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")


@pytest.fixture(scope="session", autouse=True)
def _notes_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what gelkit notes for its user away from whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GELKIT_NOTES", str(tmp_path_factory.mktemp("notes")))
        yield


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 20 synthetic images in two classes."""
    import gelkit

    folder = tmp_path_factory.mktemp("data") / "my_gels"
    gelkit.draw_samples(folder, count=20)
    return folder


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a download folder of torch that holds weights of a resnet18, and their file name."""
    import torch

    from gelkit.features.backbones import get_backbone
    from gelkit.features.weights import load_weights

    home = tmp_path_factory.mktemp("torch")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    model, _ = load_weights(get_backbone("resnet18"), "random", seed=7)
    torch.save(model.state_dict(), folder / "new.pth")
    digits = sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    return home, (folder / "new.pth").rename(folder / f"resnet18-{digits}.pth").name


@pytest.fixture
def pretrained(torch_home: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``imagenet`` weights of resnet18 those of :func:`torch_home`, as if downloaded."""
    from gelkit.features.backbones import BACKBONES

    home, file = torch_home
    monkeypatch.setenv("TORCH_HOME", str(home))
    row = dataclasses.replace(
        BACKBONES["resnet18"], weights_url=f"http://127.0.0.1:9/models/{file}"
    )
    monkeypatch.setitem(BACKBONES, "resnet18", row)
