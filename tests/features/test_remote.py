"""Stores: images and caches in S3 are as good as local ones, and what fails there says so."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import boto3
import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from made_up import RECIPE, make, numbers_in, publish_many, read_on, sha256_of
from PIL import Image
from store_server import BUCKET, SECRET, Rule, StoreServer, refusal

from gelkit import stores
from gelkit.cli import main
from gelkit.errors import GelkitError, UsageError
from gelkit.features.cache import Cache, Failure
from gelkit.features.embeddings import Embeddings
from gelkit.features.engines import run_workers
from gelkit.features.extraction import Workforce, extract, load
from gelkit.features.planning import identify, plan
from gelkit.features.recipe import RecipeOptions
from gelkit.features.surveys import survey
from gelkit.features.verification import verify
from gelkit.features.workers import Decoding, Rendering, Task
from gelkit.files import make_folder, write_atomically
from gelkit.images.catalog import Catalog, read_catalog, write_manifest
from gelkit.images.fingerprints import Fingerprints
from gelkit.images.formats import Limits
from gelkit.images.reading import hash_bytes, read_bytes
from gelkit.paths import RemotePath
from gelkit.stores import StoreError

QUICK: dict[str, Any] = {"backbone": "mobilenet-v3", "options": RecipeOptions(weights="random")}
ODD_NAMES = (
    "a/with space.png",
    "a/ünïcödé 凝胶.png",
    "a/#1?x=2&y.png",
    "a/100%25.png",
    "a/[1]*+~'\".png",
    "a/run:/b.png",
)


@pytest.fixture(scope="module")
def server() -> Iterator[StoreServer]:
    """Return a store that the environment names, for this module."""
    its = StoreServer()
    its.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in its.environment().items():
            patch.setenv(name, value)
        fsspec.filesystem("s3", endpoint_url=its.url).mkdir(BUCKET)
        yield its
    its.stop()


@pytest.fixture
def root(server: StoreServer, request: pytest.FixtureRequest) -> RemotePath:
    """Return an empty folder of the store, a test's own."""
    server.requests.clear()
    return RemotePath("s3:", BUCKET, request.node.name.replace("/", "_"))


@pytest.fixture(scope="module")
def gels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of twelve images in two classes, two of them the same picture."""
    folder = tmp_path_factory.mktemp("data") / "gels"
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (6, 6), dtype=np.uint8)
        Image.fromarray(values).resize((40, 30), Image.Resampling.BILINEAR).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def stored(gels: Path, server: StoreServer) -> RemotePath:
    """Return the same folder in the store."""
    return _upload(gels, RemotePath("s3:", BUCKET, "gels"))


@pytest.fixture(scope="module")
def local(gels: Path, tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    """Return the embeddings of the local images, by a local run."""
    folder = tmp_path_factory.mktemp("local")
    return extract(str(gels), cache=folder, workforce=Workforce(workers=1), **QUICK)


@pytest.fixture(scope="module")
def cached(stored: RemotePath, server: StoreServer) -> RemotePath:
    """Return the cache, in the store, of a run over the images there, called as users do."""
    cache = RemotePath("s3:", BUCKET, "features")
    command = f"features {stored} --cache {cache} --backbone mobilenet-v3 --weights random"
    ran = CliRunner().invoke(main, [*command.split(), "--workers", "1"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return cache


def _upload(folder: Path, to: RemotePath) -> RemotePath:
    for path in folder.rglob("*"):
        if path.is_file():
            stores.write(str(to / path.relative_to(folder)), path.read_bytes())
    return to


def _failed(
    catalog: Catalog, sha256s: dict[str, str], limits: Limits | None = None
) -> dict[str, str]:
    """Return why images fail that are read and decoded by a worker as those they are known as."""
    tasks = [Task(its.path, its.name, sha256s.get(its.name, "")) for its in catalog.images]
    batches = run_workers(tasks, Decoding(Rendering(limits=limits or Limits()), 4), 1)
    return {its.name: its.error for batch in batches for its in batch.failures}


@pytest.mark.exhaustive("object stores")
def test_embeddings_equal_those_of_a_local_run(
    stored: RemotePath, cached: RemotePath, local: Embeddings
) -> None:
    """A cluster that reads from a store would find other heads best than a workstation."""
    remote = load(stored, cache=cached, **QUICK)
    assert np.array_equal(remote.values, local.values)
    assert (remote.names, remote.labels) == (local.names, local.labels)
    assert remote.sha256s == local.sha256s
    for name, column in local.records.items():
        assert np.array_equal(remote.records[name], column), name


@pytest.mark.exhaustive("object stores")
def test_a_second_run_computes_and_reads_nothing(
    stored: RemotePath, cached: RemotePath, server: StoreServer
) -> None:
    """Each run over a million images would download them all, or ask for each."""
    server.requests.clear()
    planned = plan(read_catalog(stored), cache=cached, **QUICK)
    assert (planned.tasks, planned.failures) == ((), ())
    images = f"/{BUCKET}/gels/"
    assert (server.count("GET", images), server.count("HEAD", images)) == (0, 0)
    assert server.count("GET", "prefix=gels") == 2  # is it a folder, and one walk


@pytest.mark.exhaustive("object stores")
@pytest.mark.parametrize("remote_data", [False, True], ids=["remote cache", "remote images"])
def test_one_side_may_be_local(
    remote_data: bool,
    gels: Path,
    stored: RemotePath,
    cached: RemotePath,
    local: Embeddings,
    tmp_path: Path,
) -> None:
    """Who has only the cache, or only the images, in a store would have to copy."""
    data, cache = (stored, tmp_path) if remote_data else (gels, cached)
    for path in cached.glob("*/*") if remote_data else ():
        target = tmp_path / path.relative_to(cached)
        make_folder(target.parent)
        write_atomically(target, path.read_bytes())
    assert np.array_equal(load(str(data), cache=str(cache), **QUICK).values, local.values)


@pytest.mark.exhaustive("object stores")
def test_heads_are_trained_from_a_store(
    stored: RemotePath, cached: RemotePath, tmp_path: Path
) -> None:
    """Stage two could not go on where stage one has left its work."""
    command = (
        f"heads {stored} --cache {cached} --backbone mobilenet-v3 --weights random --hardware cpu "
        f"--head single --optimizer adam --folds 2 --repeats 1 --epochs 1 --workers 1 --out "
        f"{tmp_path / 'results'}"
    )
    ran = CliRunner().invoke(main, command.split(), catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    trained_on = read_catalog(tmp_path / "results" / "training.csv", allow_outside=True)
    assert [image.name for image in trained_on.images] == [
        str(image.path) for image in read_catalog(stored).images
    ]
    assert len(load(trained_on, cache=cached, **QUICK)) == 12


def test_what_vanishes_or_changes_is_one_failure(
    gels: Path, root: RemotePath, server: StoreServer
) -> None:
    """One object deleted during a run would end it, or give its neighbour's embedding."""
    catalog = read_catalog(_upload(gels, root))
    identified = identify(catalog, root / "features")
    names = [image.name for image in catalog.images]
    sha256s = {n: s for n, s in zip(names, identified.sha256s, strict=True) if s}
    stores.delete(str(root / "a/0.png"))
    stores.write(str(root / "b/1.png"), (root / "b/3.png").read_bytes())
    data = bytearray((root / "b/5.png").read_bytes())
    data[-1] ^= 1
    stores.write(str(root / "b/5.png"), bytes(data))

    def rule(method: str, path: str, _: object) -> tuple[str, bytes] | None:
        return refusal("403 Forbidden", "AccessDenied") if path.endswith("/a/2.png") else None

    with server.following(rule):
        failed = _failed(catalog, sha256s)
    assert set(failed) == {"a/0.png", "a/2.png", "b/1.png", "b/5.png"}
    assert "No such file" in failed["a/0.png"]
    assert "Permission denied by the store" in failed["a/2.png"]
    assert "not those it is known by" in failed["b/5.png"]


def test_a_changed_object_is_noticed(gels: Path, root: RemotePath, server: StoreServer) -> None:
    """An old embedding would be given for a new image; or all be read again for one."""
    _upload(gels, root / "gels")
    before = identify(read_catalog(root / "gels"), root / "features")
    changed = (gels / "a/0.png").read_bytes()[:-1] + b"!"
    stores.write(str(root / "gels/a/0.png"), changed)
    server.requests.clear()
    after = identify(read_catalog(root / "gels"), root / "features")
    assert after.sha256s[0] == sha256(changed).hexdigest()
    assert after.sha256s[1:] == before.sha256s[1:]
    assert (server.count("GET", ".png"), server.count("HEAD", ".png")) == (1, 0)


def test_too_large_an_object_is_not_downloaded(root: RemotePath, server: StoreServer) -> None:
    """A film beside the gels would fill the memory."""
    stores.write(str(root / "a/film.png"), bytes(100_000))
    server.requests.clear()
    found = survey(read_catalog(root), limits=Limits(bytes=50_000), workers=1)
    assert "at most 50,000 bytes. Received: a file of 100,000" in found.failures[0].error
    assert server.count("GET", "film.png") == 0


def test_a_damaged_shard_is_repaired(root: RemotePath) -> None:
    """A flipped bit in a store would lose a shard of rows, or be believed."""
    cache = Cache(root, RECIPE)
    cache.publish(make(range(1500)))
    (shard,) = cache.folder.glob("shard-*.h5")
    data = bytearray(shard.read_bytes())
    data[data.index(make([700]).columns["embedding"].tobytes())] ^= 16
    stores.write(str(shard), bytes(data))
    (found,) = verify(str(root), repair=True)
    assert (found.rows, found.lost) == (1499, ((sha256_of(700), 0),))
    assert found.set_aside is not None
    assert found.set_aside.read_bytes() == bytes(data)
    assert numbers_in(cache) == set(range(1500)) - {700}


@pytest.mark.exhaustive("object stores")
def test_many_publish_compact_and_read_at_once(root: RemotePath, tmp_path: Path) -> None:
    """Of two machines that fill one cache, one would lose what the other publishes."""
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    publishers = [
        context.Process(target=publish_many, args=(root, start, 9, tmp_path / f"said{start}"))
        for start in (0, 100)
    ]
    reader = context.Process(target=read_on, args=(root, 18, found))
    for process in (reader, *publishers):
        process.start()
    try:
        for process in publishers:
            process.join(60)
        assert [process.exitcode for process in publishers] == [0, 0]
        assert found.get(timeout=60) == ""
    finally:
        reader.kill()  # else it would go on asking, where a publisher failed
        reader.join()
    cache = Cache(root, RECIPE)
    cache.compact()
    assert numbers_in(cache) == {*range(9), *range(100, 109)}
    assert len(list(cache.folder.glob("shard-*.h5"))) == 1


@pytest.mark.exhaustive("object stores")
def test_a_publisher_killed_at_any_moment_leaves_nothing_half(
    root: RemotePath, server: StoreServer
) -> None:
    """Half a shard would be read, or stop every later run."""
    cache = Cache(root, RECIPE)
    cache.publish(make([0]))
    kills = 0
    while _killed_at(kills + 1, root, server):
        kills += 1
        assert numbers_in(cache) == {0}
        assert [shard.error for shard in verify(root)] == [""]
    assert kills > 0
    assert numbers_in(cache) == set(range(3000))


def _killed_at(request: int, root: RemotePath, server: StoreServer) -> bool:
    """Publish in a process that is killed while a PUT's body is on its way; if there are so many.

    :returns: whether it was killed.
    """
    arrived = []

    def rule(method: str, path: str, environment: dict[str, Any]) -> None:
        arrived.extend([path] if method == "PUT" else [])
        if len(arrived) == request:
            process.kill()
            process.wait()

    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from made_up import *; "
        "from gelkit.paths import as_path; "
        "Cache(as_path(sys.argv[2]), RECIPE).publish(make(range(1, 3000)))"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(root)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with server.following(rule):
        process.wait(60)
        time.sleep(0.3)  # what is left of the request comes to its end
    return process.returncode != 0


def test_failures_are_kept_in_the_store(root: RemotePath) -> None:
    """Images that cannot be decoded would be tried again by every run."""
    cache = Cache(root, RECIPE)
    cache.record_failures([Failure("a.png", sha256_of(1), "broken", retry=False)])
    cache.record_failures([Failure("b.png", sha256_of(2), "broken", retry=False)])
    assert [its.name for its in cache.list_failures()] == ["a.png", "b.png"]
    cache.record_failures([], resolved=[sha256_of(1)])
    assert [its.name for its in cache.list_failures()] == ["b.png"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_read_as_they_are(name: str, root: RemotePath, tmp_path: Path) -> None:
    """An image with a space or a question mark in its name would be missed, or another read."""
    stores.write(str(root / name), b"gel")
    stores.write(str(root / "a" / "1.png"), b"other")
    local = tmp_path / "gels" / name
    local.parent.mkdir(parents=True)
    local.write_bytes(b"gel")
    catalog = read_catalog(root)
    (image,) = (its for its in catalog.images if its.name != "a/1.png")
    assert (image.name, image.label) == (read_catalog(tmp_path / "gels").images[0].name, "a")
    assert image.path.read_bytes() == b"gel"
    assert Fingerprints().sha256(image.path) == Fingerprints().sha256(local)


def test_names_that_no_path_can_have_are_told(root: RemotePath) -> None:
    """Another object would be read in place of one whose name is no path."""
    client, folder = boto3.client("s3"), "/".join(root.parts[2:])
    odd = ("a//1.png", "a/./2.png", "a/../3.png", "a/4.png?versionId=5.png", "b/film.png/")
    for name in (*odd, "b//notes.txt", "c/good.png"):
        client.put_object(Bucket=BUCKET, Key=f"{folder}/{name}", Body=b"gel")
    client.put_object(Bucket=BUCKET, Key=f"{folder}/empty.png/", Body=b"")
    catalog = read_catalog(root)
    assert [image.name for image in catalog.images] == ["c/good.png"]
    assert len(catalog.unreadable) == len(odd)
    reasons = " ".join(its.reason for its in catalog.unreadable)
    assert [name for name in odd if f"Received: '{root}/{name}'" not in reasons] == []
    assert catalog.skipped == ("b/notes.txt",)


def test_what_was_uploaded_with_the_images_is_no_data(root: RemotePath) -> None:
    """A recycle bin or results that were copied into a store would be classes there."""
    left = ("gels/@eaDir/a/1.png", ".Trash/1.png", "a/._1.png", "out/x/plots/roc.png")
    for name in (*left, "out/x/gelkit.json", "a/1.png", "b/1.png", "out/y/1.png"):
        stores.write(str(root / name), b"gel")
    catalog = read_catalog(root)
    assert [image.name for image in catalog.images] == ["a/1.png", "b/1.png", "out/y/1.png"]
    assert [(its.name, its.kind) for its in catalog.leftovers] == [
        (".Trash", "hidden"),
        ("a/._1.png", "hidden"),
        ("gels/@eaDir", "thumbnails of a Synology store"),
        ("out/x", "results that gelkit wrote"),
    ]


def test_what_pathlib_makes_of_a_url_is_read_all_the_same(root: RemotePath) -> None:
    """A report would lack the pictures of images whose paths a table gave."""
    stores.write(str(root / "a.png"), b"gel")
    path = Path(str(root / "a.png"))
    assert not isinstance(path, RemotePath)
    assert (read_bytes(path, 3), hash_bytes(path, 3)) == (b"gel", sha256(b"gel").hexdigest())


def test_strange_objects_in_a_cache_do_no_harm(root: RemotePath) -> None:
    """A slash too many in somebody's copy would stop all who read the cache."""
    cache = Cache(root, RECIPE)
    cache.publish(make([0]))
    for name in ("/shard-copy.h5", "sub/shard-1.h5", "notes.txt", "shard-dir.h5/"):
        key = f"{'/'.join(cache.folder.parts[2:])}/{name}"
        boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"no shard")
    assert numbers_in(cache) == {0}
    assert [shard.error for shard in verify(root)] == [""]
    assert list(root.glob("*/shard-*.h5")) == list(cache.folder.glob("shard-*.h5"))


def test_a_manifest_in_a_store_names_what_is_beside_it(root: RemotePath, gels: Path) -> None:
    """Labels of images in a store could not be given by a table."""
    _upload(gels, root)
    rows = "path,label\na/0.png,x\nb/../b/1.png,y\n"
    stores.write(str(root / "gels.csv"), rows.encode())
    catalog = read_catalog(root / "gels.csv")
    assert [(its.path, its.label) for its in catalog.images] == [
        (root / "a/0.png", "x"),
        (root / "b/1.png", "y"),
    ]
    assert identify(catalog, root / "features").failures == ()


@pytest.mark.parametrize(
    "row", ["../elsewhere/0.png", "{root}/../elsewhere/0.png", "s3://another/0.png", "/etc/0.png"]
)
def test_a_manifest_names_nothing_outside(row: str, root: RemotePath) -> None:
    """A manifest of a stranger would read what is in other folders and buckets."""
    folder = root / "gels"
    stores.write(str(root / "elsewhere/0.png"), b"gel")
    stores.write(str(folder / "gels.csv"), f"path\n{row.format(root=folder)}\n".encode())
    with pytest.raises(UsageError, match="inside the manifest's folder"):
        read_catalog(folder / "gels.csv")


def test_a_local_manifest_names_objects_if_it_may(
    stored: RemotePath, server: StoreServer, tmp_path: Path
) -> None:
    """What heads was trained on could not be read again; or a table would reach out unasked."""
    catalog = read_catalog(stored)
    write_manifest(catalog, tmp_path / "gels.csv")
    with pytest.raises(UsageError, match="allow-outside"):
        read_catalog(tmp_path / "gels.csv")
    server.requests.clear()
    again = read_catalog(tmp_path / "gels.csv", allow_outside=True)
    assert [its.path for its in again.images] == [its.path for its in catalog.images]
    assert len(server.requests) == 2, "each folder is listed once"
    (tmp_path / "gels.csv").write_text(f"path\n{stored}/a/none.png\n")
    with pytest.raises(UsageError, match=r"none.png': No such file"):
        read_catalog(tmp_path / "gels.csv", allow_outside=True)


def _nobody_listens() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{opened.getsockname()[1]}"


def _refusing(code: str) -> Rule:
    return lambda method, path, environment: refusal("403 Forbidden", code)


@dataclass(frozen=True)
class Trouble:
    """What is wrong, and what a message must say of it."""

    url: str
    said: tuple[str, ...]
    environment: Mapping[str, str | None] = field(default_factory=dict)
    rule: Rule | None = None


TROUBLES = {
    "missing bucket": Trouble("s3://nothing-here/x", ("'nothing-here'", "no such bucket")),
    "dead endpoint": Trouble(
        f"s3://{BUCKET}/x",
        (f"'{BUCKET}' of s3:// at http://127.0.0.1:", "Check the network"),
        {"AWS_ENDPOINT_URL": _nobody_listens()},
    ),
    "no credentials": Trouble(
        f"s3://{BUCKET}/x",
        ("Unable to locate credentials",),
        {"AWS_ACCESS_KEY_ID": None, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"},
    ),
    "wrong credentials": Trouble(
        f"s3://{BUCKET}/x", ("credentials",), rule=_refusing("InvalidAccessKeyId")
    ),
    "access denied": Trouble(
        f"s3://{BUCKET}/x", ("Permission denied by the store",), rule=_refusing("AccessDenied")
    ),
    "missing package": Trouble("gs://bucket/x", ("pip install 'gelkit[remote]'",)),
    "no bucket": Trouble("s3://", ("Expected a bucket",)),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
@pytest.mark.parametrize("role", ["images", "cache"])
def test_trouble_says_what_and_where(
    trouble: Trouble,
    role: str,
    server: StoreServer,
    gels: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thirty lines of a library's traceback would tell a user to type another bucket."""
    for name, value in trouble.environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    fsspec.filesystem("s3").clear_instance_cache()  # credentials are looked for once
    data, cache = (trouble.url, "features") if role == "images" else (str(gels), trouble.url)
    with server.following(trouble.rule):
        ran = CliRunner().invoke(main, ["features", data, "--cache", cache, "--weights", "random"])
    fsspec.filesystem("s3").clear_instance_cache()
    assert isinstance(ran.exception, SystemExit)
    assert ran.exit_code in (1, 2), ran.output
    assert [part for part in trouble.said if part not in ran.output] == [], ran.output
    assert "Expected the disk" not in ran.output
    assert SECRET not in ran.output


def test_a_folder_that_is_not_there_is_told(server: StoreServer) -> None:
    """A misspelt folder would be an empty catalog."""
    with pytest.raises(UsageError, match=rf"'s3://{BUCKET}/none', which does not exist"):
        read_catalog(f"s3://{BUCKET}/none")


@pytest.mark.exhaustive("object stores")
def test_an_endpoint_that_never_answers_is_given_up(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run would wait for ever for a machine that was switched off."""
    limits = {"connect_timeout": 0.2, "read_timeout": 0.2, "retries": {"total_max_attempts": 1}}
    monkeypatch.setattr(stores, "PROTOCOLS", {"s3": {"config_kwargs": limits}})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreError, match=r"ReadTimeoutError"):
            read_catalog(f"s3://{BUCKET}/gels")


@pytest.mark.exhaustive("object stores")
def test_a_network_that_dies_ends_the_run_and_blames_no_image(
    gels: Path, root: RemotePath, server: StoreServer
) -> None:
    """All images that were left would be listed as broken."""
    catalog = read_catalog(_upload(gels, root))

    def rule(method: str, path: str, _: object) -> tuple[str, bytes] | None:
        return refusal("500 Internal Server Error", "InternalError") if ".png" in path else None

    with server.following(rule), pytest.raises(GelkitError, match="what was finished is kept"):
        _failed(catalog, {})


@pytest.mark.exhaustive("object stores")
def test_a_slow_network_blames_no_image(gels: Path, root: RemotePath, server: StoreServer) -> None:
    """Images would fail as if they took too long to decode."""
    catalog = read_catalog(_upload(gels, root))

    def rule(method: str, path: str, _: object) -> None:
        time.sleep(2.5 if path.endswith(".png") else 0)

    with server.following(rule):
        assert _failed(catalog, {}, Limits(seconds=1)) == {}


def test_new_images_are_read_several_at_once(
    gels: Path, root: RemotePath, server: StoreServer
) -> None:
    """A million images would be waited for one after the other."""
    catalog = read_catalog(_upload(gels, root))
    together = threading.Barrier(4)

    def rule(method: str, path: str, _: object) -> None:
        if path.endswith(".png"):
            together.wait(20)  # broken, which is an error, if fewer come

    with server.following(rule):
        remote = identify(catalog, root / "features")
    assert remote.sha256s == identify(read_catalog(gels), root / "features").sha256s


@pytest.mark.exhaustive("object stores")
@pytest.mark.parametrize(
    "answer",
    [
        refusal("503 Slow Down", "SlowDown"),
        refusal("500 Internal Server Error", "InternalError"),
        ("500 Internal Server Error", b"<html>of the server itself</html>"),
        ("502 Bad Gateway", b"<html>of what stands before the store</html>"),
        ("504 Gateway Timeout", b""),
    ],
    ids=lambda answer: f"{answer[0]} {len(answer[1])}",
)
def test_a_store_that_is_well_again_soon_is_waited_for(
    answer: tuple[str, bytes],
    root: RemotePath,
    server: StoreServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand workers that begin at once would fail by what a second later is answered."""
    monkeypatch.setattr(stores, "_PAUSES", (0.01,) * 4)
    stores.write(str(root / "a.png"), b"gel")
    refused = []

    def rule(method: str, path: str, _: object) -> tuple[str, bytes] | None:
        refused.append(path)
        return answer if len(refused) < 4 else None

    with server.following(rule):
        assert stores.read(str(root / "a.png")) == b"gel"
        refused.clear()
        stores.write(str(root / "b.png"), b"gel")
    assert stores.read(str(root / "b.png")) == b"gel"


@pytest.mark.exhaustive("object stores")
def test_a_store_that_stays_broken_is_an_error(
    root: RemotePath, server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run would hang, or go on as if it had written."""
    monkeypatch.setattr(stores, "_PAUSES", (0.01,) * 4)
    with (
        server.following(lambda *_: ("500 Internal Server Error", b"")),
        pytest.raises(StoreError, match="what was finished is kept"),
    ):
        stores.write(str(root / "a.png"), b"gel")


def test_secrets_are_written_nowhere(cached: RemotePath) -> None:
    """Whoever may read a cache could act as the one who made it."""
    files = list(cached.walk_objects())
    assert len(files) > 1
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    "command", ["heads my_gels", "evaluate", "report", "predict a.png", "export x"]
)
def test_results_stay_on_this_machine(command: str) -> None:
    """A folder called s3: would be made here, and nobody find the results."""
    ran = CliRunner().invoke(main, [*command.split(), "--out", f"s3://{BUCKET}/results"])
    assert ran.exit_code == 2
    assert f"Expected a local path for --out. Received: 's3://{BUCKET}/results'" in ran.output


def test_nothing_is_written_into_a_folder_called_after_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that was meant for a store would go to a folder s3: of this machine."""
    monkeypatch.chdir(tmp_path)
    for write in (
        lambda: write_atomically(Path("s3://b/t.csv"), b""),
        lambda: make_folder(Path("s3://b")),
    ):
        with pytest.raises(UsageError, match="Expected a local"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_local_runs_import_nothing_of_it(gels: Path, local: Embeddings, tmp_path: Path) -> None:
    """Each command would take half a second longer, and need packages that are optional."""
    program = (
        "import sys; from gelkit.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'fsspec', 's3fs', 'aiobotocore'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, "images", str(gels), "--workers", "1"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
