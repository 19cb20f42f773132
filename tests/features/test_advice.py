"""Advice: what is said of missing embeddings is right where it is said."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gelkit.cli import main
from gelkit.errors import GelkitError
from gelkit.features import advice
from gelkit.features.advice import features_command, say_how
from gelkit.features.cache import Cache
from gelkit.features.devices import DeviceError
from gelkit.features.extraction import extract, load
from gelkit.features.planning import MissingEmbeddingsError, identify
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.images.catalog import Catalog, read_catalog
from gelkit.systems import SYSTEM

RANDOM = RecipeOptions(weights="random")
CPU = [("resnet18", "cpu")]
TPU = [("resnet18", "tpu")]


def _write(folder: Path, count: int) -> None:
    """Write files that are images by their names, and of which nobody has to see more."""
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))
        os.utime(path, (0, 0))  # what has just changed is not remembered


def _publish(catalog: Catalog, root: Path, options: RecipeOptions) -> None:
    """Keep embeddings of a catalog's images, as if stage one had made them."""
    digests = [its for its in identify(catalog, begins_cache=False).sha256s if its]
    columns = dict.fromkeys(COLUMNS, np.zeros(len(digests)))
    columns |= {"sha256": digests, "embedding": np.zeros((len(digests), 512))}
    columns |= {"intensity": np.zeros((len(digests), 13))}
    Cache(root, make_recipe("resnet18", "cpu", options)).publish(
        make_rows(columns, {"weights_sha256": ""})
    )


@pytest.fixture
def gels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Return the catalog of the folder ``my gels`` with 8 files, in which nothing is cached."""
    monkeypatch.chdir(tmp_path)
    _write(Path("my gels"), 8)
    return read_catalog("my gels")


def test_without_a_cache_it_is_said_where_one_was_looked_for(gels: Catalog) -> None:
    """Someone in the wrong folder would compute for hours what is there already."""
    with pytest.raises(MissingEmbeddingsError) as error:
        load(gels, options=RANDOM)
    assert f"Received: none in {str(Path('features').resolve())!r}" in str(error.value)
    assert "name it with --cache" in str(error.value)
    assert str(error.value).endswith(
        f"gelkit features {SYSTEM.quoted('my gels')} --backbone resnet18 --hardware cpu "
        "--weights random"
    )


def test_asking_for_what_is_not_there_leaves_nothing(gels: Catalog) -> None:
    """A folder that seems to be a cache would appear wherever a command was tried."""
    with pytest.raises(MissingEmbeddingsError):
        load(gels)
    assert [path.name for path in Path().iterdir()] == ["my gels"]
    Path("features").mkdir()
    with pytest.raises(MissingEmbeddingsError, match=f"none in '{Path('features').resolve()}'"):
        load(gels)


HELD: dict[str, tuple[int, str, str, str]] = {
    "all with random": (8, "random", "imagenet", "holds these images with --weights random"),
    "all with imagenet": (8, "imagenet", "random", "holds these images with --weights pretrained"),
    "all but some": (5, "random", "imagenet", "holds all but 3 of these images with --weights ran"),
    "some of those asked for": (5, "random", "random", "3 of them are missing. Compute"),
    "neither": (0, "random", "imagenet", "none in "),
}


@pytest.mark.parametrize("case", HELD)
def test_other_weights_that_are_cached_are_named(case: str, gels: Catalog) -> None:
    """Who forgot --weights random would be told to compute what cannot be had."""
    count, cached, asked, said = HELD[case]
    if count:
        held = replace(gels, images=gels.images[:count])
        _publish(held, Path("features"), RecipeOptions(weights=cached))
    with pytest.raises(MissingEmbeddingsError) as error:
        load(gels, options=RecipeOptions(weights=asked))
    assert said in str(error.value)
    assert ("did you mean that?" in str(error.value)) == ("holds" in said)


def test_weights_that_cannot_be_had_name_those_that_are_cached(
    gels: Catalog, tmp_path: Path
) -> None:
    """``similar`` and ``duplicates`` would tell of a network, where an option was forgotten."""
    _publish(gels, Path("features"), RANDOM)
    new = RecipeOptions(weights_dir=tmp_path)
    with pytest.raises(GelkitError, match=r"resnet18-f37072fd\.pth .* --weights random: did you"):
        extract(gels, options=new)
    with pytest.raises(GelkitError) as error:
        extract(gels, options=replace(new, geometry="pad"))
    assert "did you mean" not in str(error.value)


EMULATED = replace(RANDOM, emulate_tpu=True)
WITHOUT_TPU: dict[str, tuple[list[tuple[str, str]], RecipeOptions, str]] = {
    "both": ([*CPU, *TPU], RANDOM, "Compute them first: .* --hardware cpu --weights random$"),
    "tpu alone": (TPU, RANDOM, "There is no TPU here: .*--emulate-tpu$"),
    "emulated": ([*CPU, *TPU], EMULATED, "Compute .* --hardware cpu --hardware tpu .*-tpu$"),
}


@pytest.mark.parametrize("case", WITHOUT_TPU)
def test_no_command_needs_a_tpu_that_is_not_there(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user would be sent from one error to the next."""
    monkeypatch.setattr(advice, "find_tpu_chips", dict)
    pairs, options, said = WITHOUT_TPU[case]
    assert re.search(said, say_how(pairs, options, Path("features")))


def test_emulation_begins_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that is advised would fail for lack of a package."""

    def refuse(hardware: str) -> None:
        raise DeviceError(f"Expected torch_xla for {hardware}.")

    monkeypatch.setattr(advice, "find_tpu_chips", dict)
    monkeypatch.setattr(advice, "require_hardware", refuse)
    assert "install gelkit's extra 'xla', compute" in say_how(TPU, RANDOM, Path("features"))
    monkeypatch.setattr(advice, "require_hardware", lambda hardware: None)
    assert "install" not in say_how(TPU, RANDOM, Path("features"))


def test_with_a_tpu_the_command_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone with a TPU would be told to emulate one."""
    monkeypatch.setattr(advice, "find_tpu_chips", lambda: {"0000:00:04.0": "v5e"})
    assert say_how(TPU, RANDOM, Path("features")).endswith("--hardware tpu --weights random")


def test_the_command_can_be_typed_as_it_stands(gels: Catalog, tmp_path: Path) -> None:
    """A name with a space would be taken for two, or an option be lost."""
    Path("a.csv").write_text(f"path\n{gels.images[0].path.resolve()}\n")
    given = read_catalog("my gels", "a.csv", allow_outside=True).given
    options = replace(EMULATED, geometry="pad", augmentations=("flip",))
    words = shlex.split(features_command(TPU, options, tmp_path / "a b", given, view=2))
    assert words[:2] == ["gelkit", "features"]
    parsed = main.commands["features"].make_context("features", words[2:]).params
    assert parsed["data"] == (Path("my gels"), Path("a.csv"))
    assert parsed["allow_outside"] is True
    assert (parsed["backbones"], parsed["hardware"]) == (("resnet18",), ("tpu",))
    assert (parsed["cache"], parsed["views"]) == (tmp_path / "a b", 3)
    names = RecipeOptions.__dataclass_fields__
    assert RecipeOptions(**{name: parsed[name] for name in names}) == options
