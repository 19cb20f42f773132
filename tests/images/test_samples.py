"""Samples: labelled, reproducible, and told apart by structure alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gelkit.errors import UsageError
from gelkit.images.catalog import read_catalog
from gelkit.images.formats import DecodedImage, decode
from gelkit.images.likeness import intensity_statistics
from gelkit.images.sample_decoys import DECOYS
from gelkit.images.sample_gels import (
    DNA_LADDERS,
    GEL_KINDS,
    PROTEIN_LADDERS,
    Ladder,
    Run,
    draw_gel,
    migration_distance,
)
from gelkit.images.samples import BINARY, FILE_KINDS, KINDS, draw_samples

COUNT = 180
LADDERS = {ladder.source: ladder for ladder in DNA_LADDERS + PROTEIN_LADDERS}


@pytest.fixture(scope="module")
def sample_paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Return the paths of one set that most tests look at, in the order drawn."""
    return draw_samples(tmp_path_factory.mktemp("drawn") / "samples", count=COUNT)


@pytest.fixture(scope="module")
def decoded(sample_paths: tuple[Path, ...]) -> list[DecodedImage]:
    """Return the same set as gelkit reads it."""
    return [decode(path.read_bytes()) for path in sample_paths]


def _contents(paths: tuple[Path, ...]) -> list[tuple[str, str, bytes]]:
    return [(path.parent.name, path.name, path.read_bytes()) for path in paths]


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two people who draw the samples would compare results on different data."""
    first, second = (draw_samples(tmp_path / name, count=18, seed=3) for name in "ab")
    assert _contents(first) == _contents(second)


def test_image_does_not_depend_on_count(sample_paths: tuple[Path, ...], tmp_path: Path) -> None:
    """Asking for more images would change those one has, and with them every cached embedding."""
    few = draw_samples(tmp_path / "few", count=6)
    assert _contents(few) == _contents(sample_paths[:6])


def test_other_seed_gives_other_images(sample_paths: tuple[Path, ...], tmp_path: Path) -> None:
    """A test set drawn with another seed would repeat the training set."""
    other = draw_samples(tmp_path / "other", count=6, seed=1)
    drawn = {data for _, _, data in _contents(sample_paths)}
    assert drawn.isdisjoint(data for _, _, data in _contents(other))


def test_half_of_the_images_are_gels(sample_paths: tuple[Path, ...]) -> None:
    """Accuracy of the larger class would be mistaken for skill, or a label would be wrong."""
    catalog = read_catalog(sample_paths[0].parent.parent)
    assert Counter(image.label for image in catalog.images) == dict.fromkeys(BINARY, COUNT // 2)
    assert not catalog.skipped


def test_images_differ(sample_paths: tuple[Path, ...]) -> None:
    """The demonstration would show the same image several times, in training and in test."""
    assert len({path.read_bytes() for path in sample_paths}) == COUNT
    assert len({path.stem for path in sample_paths}) == COUNT


def test_file_names_do_not_sort_by_class(sample_paths: tuple[Path, ...]) -> None:
    """A person, or a split by name, would see the class in the file's name."""
    by_name = sorted(sample_paths, key=lambda path: path.name)
    gels = sum(path.parent.name == "gel" for path in by_name[: COUNT // 2])
    assert COUNT / 6 <= gels <= COUNT / 3
    assert not any(label in path.stem for path in sample_paths for label in ("gel", *DECOYS))


@pytest.mark.parametrize("by_kind", [False, True], ids=["binary", "by kind"])
@pytest.mark.parametrize("count", [-2, 0, 2, 7, 41])
def test_impossible_count_is_refused(count: int, by_kind: bool, tmp_path: Path) -> None:
    """A class would come out empty or short, and the error would surface in cross-validation."""
    with pytest.raises(UsageError, match=rf"(?s)Expected an even.*Received: {count}\. Ask for"):
        draw_samples(tmp_path / "samples", count=count, by_kind=by_kind)
    assert not (tmp_path / "samples").exists()


def test_negative_seed_is_refused(tmp_path: Path) -> None:
    """The user would see NumPy's traceback instead of what to change."""
    with pytest.raises(UsageError, match=r"Expected a seed of 0 or more\. Received: -1"):
        draw_samples(tmp_path / "samples", seed=-1)


def _a_folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "kept.txt").write_text("mine")


@pytest.mark.parametrize(
    "make", [_a_folder_with_a_file, Path.touch], ids=["folder that is not empty", "file"]
)
def test_what_is_there_is_never_drawn_over(make: Callable[[Path], None], tmp_path: Path) -> None:
    """Somebody's own images would be mixed with synthetic ones."""
    make(tmp_path / "mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"Expected a folder.*Received: '.*mine'"):
        draw_samples(tmp_path / "mine", count=4)
    assert sorted(tmp_path.rglob("*")) == before


def test_progress_is_reported_to_the_end(tmp_path: Path) -> None:
    """The bar would stand still, or stop short of the end."""
    calls: list[tuple[int, int]] = []
    (tmp_path / "empty").mkdir()
    draw_samples(
        tmp_path / "empty", count=4, progress=lambda _, done, total: calls.append((done, total))
    )
    assert calls == [(done, 4) for done in range(5)]


def test_every_file_kind_occurs_in_both_classes(
    sample_paths: tuple[Path, ...], decoded: list[DecodedImage]
) -> None:
    """The format, the colour mode or the bit depth of a file would give its class away."""
    wanted = {(kind.format, kind.mode) for kind in FILE_KINDS}
    for label in BINARY:
        chosen = [
            image.record
            for path, image in zip(sample_paths, decoded, strict=True)
            if path.parent.name == label
        ]
        assert {(record.format, record.mode) for record in chosen} == wanted
        assert {record.bit_depth for record in chosen} == {8, 16}
        assert all(300 <= side <= 900 for r in chosen for side in (r.height, r.width))


def test_images_are_exposed(decoded: list[DecodedImage]) -> None:
    """Images would be black, white or blank, and teach a head nothing."""
    spread = [float(np.ptp(intensity_statistics(image.pixels)[[3, 9]])) for image in decoded]
    assert min(spread) > 0.02
    assert np.median(spread) > 0.15


def test_intensity_and_file_do_not_tell_the_class(
    sample_paths: tuple[Path, ...], decoded: list[DecodedImage]
) -> None:
    """A head could reach high accuracy on the samples without seeing a single band."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = [
        [
            *intensity_statistics(image.pixels),
            *(image.record.format == name for name in ("PNG", "JPEG", "TIFF")),
            *(image.record.mode == name for name in ("L", "RGB", "RGBA", "I;16")),
            image.record.bit_depth,
            image.record.width,
            image.record.height,
            path.stat().st_size,
        ]
        for path, image in zip(sample_paths, decoded, strict=True)
    ]
    is_gel = [path.parent.name == "gel" for path in sample_paths]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(classifier, np.array(rows, float), is_gel, cv=10).mean()
    assert accuracy < 0.70


def test_by_kind_draws_one_folder_per_kind(tmp_path: Path) -> None:
    """The demonstration of several classes would lack a class, or drown in one."""
    paths = draw_samples(tmp_path / "kinds", count=2 * len(KINDS), by_kind=True)
    assert len(KINDS) >= 4
    assert Counter(path.parent.name for path in paths) == dict.fromkeys(KINDS, 2)
    assert {name for names in KINDS.values() for name in names} == {*GEL_KINDS, *DECOYS}


@pytest.mark.parametrize("ladder", LADDERS.values(), ids=LADDERS)
def test_distance_is_linear_in_log_length(ladder: Ladder) -> None:
    """Gels would be drawn in a way that no gel runs."""
    run = Run(ladder.sizes[0], ladder.sizes[-1], start=40.0, end=420.0)
    distances = [migration_distance(size, run) for size in ladder.sizes]
    assert distances[0] == pytest.approx(40)
    assert distances[-1] == pytest.approx(420)
    slopes = np.diff(distances) / np.diff(np.log(ladder.sizes))
    assert slopes == pytest.approx(np.full(len(slopes), -380 / np.log(run.longest / run.shortest)))


@pytest.mark.parametrize("ladder", LADDERS.values(), ids=LADDERS)
def test_ladder_table_is_in_order(ladder: Ladder) -> None:
    """A ladder lane would show a fragment twice, or mark a band that the ladder has not."""
    assert list(ladder.sizes) == sorted(set(ladder.sizes), reverse=True)
    assert set(ladder.brighter) <= set(ladder.sizes)


@pytest.mark.parametrize("kind", GEL_KINDS)
@pytest.mark.parametrize("shape", [(300, 900), (900, 300)], ids=["flat", "tall"])
def test_gels_of_extreme_shape_are_drawn(kind: str, shape: tuple[int, int]) -> None:
    """Drawing would fail on some seeds, when a lane or a band falls over the image's edge."""
    for seed in range(10):
        picture = draw_gel(kind, np.random.default_rng(seed), *shape)
        assert picture.shape == shape
        assert picture.dtype == np.float32
        assert np.isfinite(picture).all()


@pytest.mark.parametrize("name", DECOYS)
def test_decoys_have_structure(name: str) -> None:
    """A decoy would be an empty picture, which is no test of anything."""
    for seed in range(3):
        picture = DECOYS[name](np.random.default_rng(seed), 310, 430)
        assert picture.shape == (310, 430)
        assert picture.dtype == np.float32
        assert picture.std() > 0.01
