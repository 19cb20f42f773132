"""Weights: fetched once, verified before they are opened, and never something else."""

from __future__ import annotations

import dataclasses
import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from gelkit.errors import UsageError
from gelkit.features.backbones import BACKBONES, Backbone
from gelkit.features.freezing import freeze
from gelkit.features.weights import find_weights, identify_weights, load_weights
from gelkit.features.weights_files import WeightsError

RESNET = BACKBONES["resnet18"]


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a weights file of a resnet18 that this test made."""
    model, _ = load_weights(RESNET, "random", seed=11)
    path = tmp_path_factory.mktemp("trained") / "resnet18.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a folder from a local address; yield both."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def torch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give torch a download folder of its own; return where weights go in it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def _row(address: str, content: bytes) -> Backbone:
    """Return a row whose weights file is named by the hash of ``content``."""
    digits = sha256(content).hexdigest()[:8]
    return dataclasses.replace(RESNET, weights_url=f"{address}/resnet18-{digits}.pth")


def _put(folder: Path, row: Backbone, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / row.weights_url.rpartition("/")[2]
    path.write_bytes(content)
    return path


def test_the_right_file_is_fetched_once(
    served: tuple[Path, str], trained: Path, torch_folder: Path
) -> None:
    """ImageNet weights could not be had, or would be downloaded for every run."""
    content = trained.read_bytes()
    row = _row(served[1], content)
    served_file = _put(served[0], row, content)
    model, digest = load_weights(row, "imagenet")
    assert digest == sha256(content).hexdigest()
    saved = torch.load(trained, weights_only=True)
    assert all(torch.equal(tensor, saved[key]) for key, tensor in model.state_dict().items())
    served_file.unlink()
    again, _ = load_weights(row, "imagenet")
    assert torch.equal(again.fc.weight, model.fc.weight)
    assert [path.name for path in torch_folder.iterdir()] == [served_file.name]


@pytest.mark.parametrize("served_bytes", [slice(None, -100), slice(0, 0), slice(50, None)])
def test_a_wrong_download_is_refused_and_not_kept(
    served_bytes: slice, served: tuple[Path, str], trained: Path, torch_folder: Path
) -> None:
    """A truncated or exchanged file would be opened now, or by the next run."""
    content = trained.read_bytes()
    row = _row(served[1], content)
    _put(served[0], row, content[served_bytes])
    with pytest.raises(WeightsError, match="Expected to download"):
        load_weights(row, "imagenet")
    assert list(torch_folder.iterdir()) == []


def test_without_a_network_the_message_names_the_remedies() -> None:
    """A user offline would see a URLError, or get random weights."""
    row = _row("http://127.0.0.1:9", b"never served")
    with pytest.raises(
        WeightsError, match=r"--weights-dir \(gelkit doctor .* lists all files\), or"
    ):
        load_weights(row, "imagenet")


class _Malice:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.proof),)


def test_a_planted_file_is_not_opened(tmp_path: Path, torch_folder: Path) -> None:
    """A file that someone put into torch's folder would be executed."""
    row = _row("http://127.0.0.1:9", b"the real one")
    planted = pickle.dumps(_Malice(tmp_path / "executed"), protocol=2)
    path = _put(torch_folder, row, planted)
    with pytest.raises(WeightsError, match="It was not opened"):
        load_weights(row, "imagenet")
    by_path = path.rename(tmp_path / "planted.pth")
    with pytest.raises(WeightsError, match="Expected the weights of resnet18"):
        load_weights(row, str(by_path))
    assert not (tmp_path / "executed").exists()


def test_a_folder_of_weights_is_used_alone(tmp_path: Path, trained: Path) -> None:
    """A machine without a network could not use files that were brought to it."""
    row = _row("http://127.0.0.1:9", trained.read_bytes())
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(row, "imagenet", weights_dir=tmp_path)
    path = _put(tmp_path, row, trained.read_bytes())
    assert find_weights(row, "imagenet", tmp_path) == path
    assert (
        load_weights(row, "imagenet", weights_dir=tmp_path)[1]
        == sha256(trained.read_bytes()).hexdigest()
    )


def test_a_damaged_file_is_replaced_where_it_came_from(tmp_path: Path, torch_folder: Path) -> None:
    """Someone without a network would delete the file and wait for a download."""
    row = _row("http://127.0.0.1:9", b"the real one")
    _put(tmp_path / "brought", row, b"the real o")
    with pytest.raises(WeightsError, match=rf"opened\. Copy it anew from {row.weights_url}$"):
        load_weights(row, "imagenet", weights_dir=tmp_path / "brought")
    _put(torch_folder, row, b"the real o")
    with pytest.raises(WeightsError, match=rf"run again to download {row.weights_url}$"):
        load_weights(row, "imagenet")


def test_a_file_of_another_model_is_refused(trained: Path) -> None:
    """Weights of another architecture would be half loaded."""
    with pytest.raises(WeightsError, match="Give a file that matches the backbone"):
        load_weights(BACKBONES["mobilenet-v3"], str(trained))
    assert load_weights(RESNET, str(trained))[0].fc.out_features == 1000


@pytest.mark.exhaustive("exhaustive grids")
def test_random_weights_are_the_same_for_the_same_seed() -> None:
    """A demonstration could not be repeated, or would change the user's random numbers."""
    row = BACKBONES["mobilenet-v3"]
    before = torch.get_rng_state()
    first, second, other = (load_weights(row, "random", seed)[0] for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    same = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert not torch.equal(first.classifier[3].weight, other.classifier[3].weight)
    views = torch.randint(0, 256, (4, 1, 224, 224)).float()
    with torch.no_grad():
        spread = freeze(first, row)(views).std(dim=0).mean()
    assert float(spread) > 1e-3  # uncalibrated, it is 1e-9


def test_weights_are_identified_without_having_them(trained: Path) -> None:
    """A cached run would need the weights files."""
    assert identify_weights(RESNET, "imagenet").sha256 == "f37072fd"
    assert identify_weights(RESNET, "IMAGENET1K_V1") == identify_weights(RESNET, "imagenet")
    assert identify_weights(RESNET, "random", 3).seed == 3
    by_path = identify_weights(RESNET, str(trained))
    assert by_path.sha256 == sha256(trained.read_bytes()).hexdigest()
    assert identify_weights(BACKBONES["mobilenet-v3"], "IMAGENET1K_V2").name.endswith("K_V2")
    with pytest.raises(UsageError, match="IMAGENET1K_V1"):
        identify_weights(RESNET, "imagnet")
    with pytest.raises(WeightsError, match="No such file"):
        identify_weights(RESNET, "nowhere/weights.pth")


def test_float_weights_survive_exactly(trained: Path) -> None:
    """Loading would round what was saved."""
    saved = torch.load(trained, weights_only=True)["conv1.weight"]
    assert np.array_equal(load_weights(RESNET, str(trained))[0].conv1.weight.detach(), saved)
