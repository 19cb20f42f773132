"""Paths: what names a store is meant as such, everything else stays a path of this machine."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gelkit.errors import UsageError
from gelkit.paths import RemotePath, as_path, require_local
from gelkit.stores import StoredObject

PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
NAMES = PARTS.filter(lambda name: name not in (".", ".."))
URLS = st.builds(
    lambda protocol, names: f"{protocol}://{'/'.join(names)}",
    st.sampled_from(["s3", "gs"]),
    st.lists(NAMES, min_size=1, max_size=4),
)


@given(URLS)
def test_a_remote_path_comes_back_from_its_text(url: str) -> None:
    """Another object would be read than the one that a table names."""
    path = as_path(url)
    assert isinstance(path, RemotePath)
    assert str(path) == os.fspath(path) == url
    assert as_path(Path(url)) == path, "as pathlib writes it, with one slash"
    assert hash(as_path(Path(url))) == hash(path)
    assert path.resolve() == path.absolute() == path
    assert path.is_absolute()


@given(URLS, NAMES)
def test_parts_are_joined_and_taken_away(url: str, name: str) -> None:
    """A cache's shards would be put beside its folder."""
    path = as_path(url) / name
    assert isinstance(path, RemotePath)
    assert str(path) == f"{url}/{name}"
    assert path.name == name
    assert path.parent == as_path(url)
    assert path.relative_to(as_path(url)).as_posix() == name
    assert path.is_relative_to(as_path(url))


@given(URLS)
def test_what_a_listing_told_travels_to_other_processes(url: str) -> None:
    """Workers would ask the store for the size of each image."""
    path = RemotePath(*as_path(url).parts)
    path.listed = StoredObject(url, 7, "etag")
    again = pickle.loads(pickle.dumps(path))
    assert (again, again.listed, again.stat().st_size) == (path, path.listed, 7)


@given(st.lists(PARTS, min_size=1, max_size=4), st.booleans())
def test_local_paths_stay_what_they_are(parts: list[str], absolute: bool) -> None:
    """A folder of this machine would be looked for in a store."""
    path = Path("/" if absolute else ".", *parts)
    if str(path).startswith(("s3:", "gs:")):
        return
    assert as_path(path) is path
    assert as_path(str(path)) == path
    assert type(as_path(str(path))) is type(path)
    assert require_local(path) is path


@pytest.mark.parametrize("text", ["s3:", "s3:/", "s3://", "gs://", "s3:///"])
def test_a_store_needs_a_bucket(text: str) -> None:
    """The first folder would be taken for a bucket, or a folder s3: be made here."""
    with pytest.raises(UsageError, match="Expected a bucket"):
        as_path(text)


@pytest.mark.parametrize("text", ["s3", "s3x://a", "S3://a", "./s3://a", "/s3://a", "http://a", ""])
def test_only_stores_are_stores(text: str) -> None:
    """A local file with a strange name could not be read."""
    assert not isinstance(as_path(text), RemotePath)


@pytest.mark.parametrize("text", ["s3://bucket/results", Path("s3://bucket/results")])
def test_what_must_be_local_is_refused(text: str | Path) -> None:
    """Results would be lost in a folder of this machine that is called s3:."""
    with pytest.raises(UsageError, match=r"local folder\. Received: 's3://bucket/results'"):
        require_local(text, "folder")
