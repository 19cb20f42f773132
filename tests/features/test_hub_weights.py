"""The hub's weights: pinned at first use, verified before they are opened, found offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import COMMIT, Hub, serving

from gelkit.errors import UsageError
from gelkit.features.backbones import get_backbone
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.weights import identify_weights, load_weights
from gelkit.features.weights_files import WeightsError

pytestmark = pytest.mark.skipif(
    find_spec("timm") is None or find_spec("huggingface_hub") is None, reason="needs the extra timm"
)

NAME = "timm/test_vit.r160_in1k"
REPOSITORY = "timm/test_vit.r160_in1k"
FILE = "model.safetensors"

PROGRAM = """
import json, sys, torch
from gelkit.errors import GelkitError
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.weights import load_weights
from pathlib import Path
name, what, folder = sys.argv[1:]
folder = Path(folder) if folder else None
try:
    recipe = make_recipe(name, "cpu", RecipeOptions(weights_dir=folder))
    said = {"sha256": recipe.weights_sha256, "revision": recipe.weights_revision,
            "folder": recipe.folder_name, "imports timm": "timm" in sys.modules}
    if what == "load":
        model, said["loaded"] = load_weights(recipe.network, "pretrained", 0, folder)
        said["sum"] = float(sum(p.double().sum() for p in model.state_dict().values()))
except GelkitError as error:
    said = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(said))
"""
"""huggingface_hub reads the environment when it is imported: each run is a process of its own."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, float]:
    """Return a weights file of a small vision transformer, and the sum of all its numbers."""
    from safetensors.torch import save_file

    model, _ = load_weights(get_backbone(NAME), "random", seed=11)
    path = tmp_path_factory.mktemp("trained") / FILE
    save_file({name: its.contiguous() for name, its in model.state_dict().items()}, path)
    return path.read_bytes(), float(sum(its.double().sum() for its in model.state_dict().values()))


@pytest.fixture
def hub(trained: tuple[bytes, float]) -> Iterator[Hub]:
    """Serve the weights as the hub does."""
    with serving(Hub({f"{REPOSITORY}/{FILE}": trained[0]})) as served:
        yield served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return where this user's notes and the hub's cache are."""
    return tmp_path / "home"


def _run(
    home: Path, endpoint: str, what: str = "load", folder: Path | str = "", **environment: str
) -> dict[str, Any]:
    """Return what a new process finds, on a machine that knows a hub's address."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, NAME, what, str(folder)],
        env=os.environ
        | {
            "GELKIT_NOTES": str(home / "notes"),
            "HF_HOME": str(home / "hub"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_HUB_DISABLE_XET": "1",
        }
        | environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    said: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return said


NOWHERE = "http://127.0.0.1:9"


@pytest.mark.exhaustive("exhaustive grids")
def test_weights_are_fetched_once_and_named_by_commit_and_hash(
    hub: Hub, home: Path, trained: tuple[bytes, float]
) -> None:
    """DINOv2 could not be had, or nobody could tell afterwards which."""
    digest = sha256(trained[0]).hexdigest()
    said = _run(home, hub.address)
    assert said["sha256"] == said["loaded"] == digest
    assert said["revision"] == f"{REPOSITORY}@{COMMIT}/{FILE}"
    assert said["sum"] == pytest.approx(trained[1], rel=1e-12)
    assert said["folder"].startswith("timm-test_vit.r160_in1k-r160_in1k-cpu-")
    asked = len(hub.asked)
    assert _run(home, NOWHERE) == said | {"imports timm": False}
    assert len(hub.asked) == asked


@pytest.mark.exhaustive("fault states")
def test_a_recipe_costs_one_small_request_and_then_none(hub: Hub, home: Path) -> None:
    """Naming a cache would download a gigabyte, or need a network for ever."""
    said = _run(home, hub.address, "name")
    assert [its for its in hub.asked if FILE in its] == [f"HEAD {REPOSITORY}/{FILE}"]
    assert _run(home, NOWHERE, "name") == said | {"imports timm": False}


@pytest.mark.exhaustive("fault states")
def test_what_was_pinned_stays(hub: Hub, home: Path) -> None:
    """Embeddings of two sets of weights would be mixed when the hub's file is exchanged."""
    said = _run(home, hub.address, "name")
    hub.files[f"{REPOSITORY}/{FILE}"] = b"something newer"
    assert _run(home, hub.address, "name")["sha256"] == said["sha256"]
    refused = _run(home, hub.address)
    assert refused["error"] == "WeightsError"
    assert "It was not opened. Delete" in refused["message"]


WRONG = {
    "truncated": lambda content: content[:-100],
    "exchanged": lambda content: content[:-1] + b"!",
}


@pytest.mark.exhaustive("fault states")
@pytest.mark.parametrize("change", WRONG)
def test_a_wrong_download_is_refused(
    change: str, hub: Hub, home: Path, trained: tuple[bytes, float]
) -> None:
    """A truncated or exchanged file would be opened."""
    hub.sent[f"{REPOSITORY}/{FILE}"] = WRONG[change](trained[0])
    said = _run(home, hub.address)
    assert said["error"] == "WeightsError"
    assert "to find the weights" in said["message"] or "It was not opened" in said["message"]


def test_without_a_network_the_message_names_the_remedies(home: Path) -> None:
    """A user behind a firewall would see a traceback of the hub's."""
    said = _run(home, NOWHERE)
    assert said["error"] == "WeightsError"
    for remedy in (
        f"hf download {REPOSITORY} {FILE} --local-dir weights/{REPOSITORY}",
        "--weights-dir",
        "HF_ENDPOINT",
        "--weights random",
    ):
        assert remedy in said["message"]


@pytest.mark.exhaustive("fault states")
def test_the_hubs_own_cache_is_used(hub: Hub, home: Path) -> None:
    """What another program has downloaded would be downloaded again."""
    said = _run(home, hub.address)
    for note in (home / "notes").rglob("*.json"):
        note.unlink()
    assert _run(home, NOWHERE, HF_HUB_OFFLINE="1") == said


@pytest.mark.exhaustive("fault states")
def test_a_folder_of_weights_is_used_alone(
    hub: Hub, home: Path, tmp_path: Path, trained: tuple[bytes, float]
) -> None:
    """A machine without a network could not use files that were brought to it."""
    folder = tmp_path / "brought"
    refused = _run(home, hub.address, folder=folder)
    assert f"--local-dir {folder}/{REPOSITORY}" in refused["message"]
    (folder / REPOSITORY).mkdir(parents=True)
    (folder / REPOSITORY / FILE).write_bytes(trained[0])
    said = _run(home, NOWHERE, folder=folder)
    assert said["sum"] == pytest.approx(trained[1], rel=1e-12)
    assert said["revision"] == f"{REPOSITORY}/{FILE}"
    beside = folder / REPOSITORY / ".cache" / "huggingface" / "download"
    beside.mkdir(parents=True)
    digest = sha256(trained[0]).hexdigest()
    (beside / f"{FILE}.metadata").write_text(f"{COMMIT}\n{digest}\n1700000000.0\n")
    assert _run(home, NOWHERE, folder=folder)["revision"] == f"{REPOSITORY}@{COMMIT}/{FILE}"
    assert hub.asked == []


@pytest.mark.exhaustive("fault states")
def test_pickles_are_taken_only_where_there_is_nothing_better(
    home: Path, tmp_path: Path, trained: tuple[bytes, float]
) -> None:
    """An old repository could not be used, or a pickle be preferred to tensors alone."""
    model, _ = load_weights(get_backbone(NAME), "random", seed=11)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    content = (tmp_path / "pytorch_model.bin").read_bytes()
    with serving(Hub({f"{REPOSITORY}/pytorch_model.bin": content})) as old:
        said = _run(home, old.address)
    assert said["revision"].endswith("/pytorch_model.bin")
    assert said["sum"] == pytest.approx(trained[1], rel=1e-12)
    both = Hub({f"{REPOSITORY}/pytorch_model.bin": content, f"{REPOSITORY}/{FILE}": trained[0]})
    with serving(both):
        assert _run(tmp_path / "other", both.address)["revision"].endswith(f"/{FILE}")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", [NAME, "shufflenet_v2_x0_5"])
def test_a_file_of_ones_own_is_taken(name: str, ending: str, tmp_path: Path) -> None:
    """Weights that somebody has trained further could not be used."""
    from safetensors.torch import save_file

    row = get_backbone(name)
    state = load_weights(row, "random", seed=5)[0].state_dict()
    path = tmp_path / f"mine{ending}"
    torch.save(state, path) if ending == ".pth" else save_file(state, path)
    model, digest = load_weights(row, str(path))
    assert digest == sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(its, state[key]) for key, its in model.state_dict().items())
    assert make_recipe(name, "cpu", RecipeOptions(weights=str(path))).weights == "file"
    other = get_backbone("timm/test_convnext2" if name == NAME else "regnet_y_400mf")
    with pytest.raises(WeightsError, match="Give a file that matches the backbone"):
        load_weights(other, str(path))
    path.write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="Give a file that matches the backbone"):
        load_weights(row, str(path))


def test_position_embeddings_fit_another_size(tmp_path: Path) -> None:
    """DINOv2's weights, of 518 pixels, could not be used at 224."""
    from gelkit.features.libraries import resized

    row = get_backbone(NAME)
    torch.save(load_weights(row, "random", seed=5)[0].state_dict(), tmp_path / "mine.pth")
    model, _ = load_weights(resized(row, 96), str(tmp_path / "mine.pth"))
    assert model.pos_embed.shape[1] < load_weights(row, "random")[0].pos_embed.shape[1]
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)


def test_other_weights_of_timm_have_names_of_their_own() -> None:
    """Torchvision's names would be looked for on the hub."""
    with pytest.raises(UsageError, match=r"names of their own \(timm/NAME\.TAG\)"):
        identify_weights(get_backbone(NAME), "IMAGENET1K_V1")
