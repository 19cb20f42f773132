"""The list of networks: what ``gelkit backbones`` shows can be given to ``--backbone``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from gelkit.cli import main
from gelkit.features import own_networks
from gelkit.features.backbones import BACKBONES, get_backbone
from gelkit.features.networks import MOST_DESCRIBED, describe_networks, find_networks

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")


def _shown(*words: str) -> str:
    result = CliRunner().invoke(main, ["backbones", *words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what other tests, such as the documentation's, have registered."""
    monkeypatch.setattr(own_networks, "_registered", {})


def test_the_table_comes_first_and_the_rest_is_counted() -> None:
    """A newcomer would have to read a thousand names, or would not learn that there are others."""
    lines = _shown().splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(BACKBONES)
    assert "more by name: gelkit backbones WORDS" in lines[-1]


def test_what_is_listed_is_what_the_network_says() -> None:
    """A user would choose by a width or size that is another network's."""
    (found,) = describe_networks(find_networks(["shufflenet", "X0_5"]))
    row = get_backbone("shufflenet_v2_x0_5")
    assert (found.name, found.width, found.parameters) == (row.name, row.width, row.parameters)
    assert found.input_size == 224
    assert "shufflenet_v2_x0_5   1024    224       1.4 M" in _shown("shufflenet", "x0_5")


def test_what_cannot_be_a_backbone_is_not_described() -> None:
    """A network would be offered and then refused."""
    names = find_networks(["squeezenet"])
    assert "squeezenet1_0" in names
    assert "squeezenet1_0" not in [its.name for its in describe_networks(["squeezenet1_0"])]


def test_weights_that_are_here_are_told_from_those_that_are_not(tmp_path: Path) -> None:
    """Somebody without a network would choose what cannot be had."""
    row = get_backbone("shufflenet_v2_x0_5")
    assert describe_networks([row.name], tmp_path)[0].weights == "downloaded at first use"
    (tmp_path / row.weights_url.rpartition("/")[2]).touch()
    assert describe_networks([row.name], tmp_path)[0].weights == "here"


@needs_timm
def test_networks_of_timm_are_listed_with_their_weights(tmp_path: Path) -> None:
    """DINOv2 could not be found, or would be listed twice."""
    shown = _shown("dinov2", "small")
    assert "timm/vit_small_patch14_dinov2.lvd142m" in shown
    assert len(find_networks(["dinov2"])) == len(set(find_networks(["dinov2"])))
    assert "timm/vit_small_patch14_dinov2" not in find_networks(["dinov2"])
    name = "timm/test_vit.r160_in1k"
    assert describe_networks([name], tmp_path)[0].weights == "downloaded at first use"
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "model.safetensors").touch()
    assert describe_networks([name], tmp_path)[0].weights == "here"


@needs_timm
def test_many_are_named_alone() -> None:
    """A single letter would build a thousand networks."""
    lines = _shown("resnet").splitlines()
    assert len(lines) > MOST_DESCRIBED
    assert "give more words" in lines[-1]


def test_a_word_that_is_in_no_name_is_an_error() -> None:
    """An empty list would look like a network that is missing here alone."""
    result = CliRunner().invoke(main, ["backbones", "nonsense"])
    assert result.exit_code == 2
    assert "'nonsense', which is in none" in result.output
