"""Object stores (S3 and what speaks its protocol, Google Cloud Storage), through fsspec.

The only module that imports fsspec. Objects are named by URLs such as ``s3://bucket/key``. What a
store wants to know (endpoint, region, credentials) it finds where its own tools do: in environment
variables such as ``AWS_ENDPOINT_URL`` and ``AWS_ACCESS_KEY_ID``, or in files such as
``~/.aws/config``. Listings are never remembered: other processes publish meanwhile.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from gelkit.errors import GelkitError

_ATTEMPTS = 3
_TIME_LIMITS = {
    "connect_timeout": 5,
    "read_timeout": 9,
    "retries": {"total_max_attempts": 1},  # s3fs tries again, and each would try for the other
}
"""A dead endpoint is an error within 30 s; a read counts from the last byte that came."""

PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    # with several at once, s3fs asks for the size of each object before it reads it
    "s3": {"config_kwargs": _TIME_LIMITS, "max_concurrency": 1},
    "gs": {},
}
"""The stores that are known, and how fsspec opens them."""

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("STORAGE_EMULATOR_HOST",),
}
_PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds to wait for a store that asks for fewer requests, one after another."""

_PASSING = (500, 502, 503, 504)
"""HTTP statuses of a store, or of what stands before it, that is well again a moment later."""

_REFUSED_OBJECT = ("AccessDenied", "403")
"""Codes by which S3 refuses one object; it refuses whoever asks by others."""

Result = TypeVar("Result")


class StoreError(GelkitError):
    """A store cannot be reached, does not know the bucket, or lets nobody in."""


@dataclass(frozen=True)
class StoredObject:
    """An object as a store lists it."""

    url: str
    size: int
    """In bytes."""
    etag: str
    """Changes when its bytes do."""


def find(url: str) -> list[StoredObject]:
    """Return all objects below a folder, in one walk; none if there is no such folder.

    Empty ones whose name ends in ``/``, which stand for folders, are left out.

    :raises StoreError: the store cannot be asked, refuses, or has no such bucket.
    """
    with _listing(url):
        found = _patiently(lambda: _opened(url).find(_path(url), detail=True))
    return _below(url, found.values())


def list_folder(url: str) -> list[StoredObject]:
    """Return the objects right in a folder, as :func:`find` does those below."""
    try:
        with _listing(url):
            infos = _patiently(lambda: _opened(url).ls(_path(url), detail=True))
    except FileNotFoundError:
        return []
    return _below(url, infos)


def status(url: str) -> StoredObject | None:
    """Return an object as it is listed, or None for a folder or a bucket.

    :raises FileNotFoundError: there is neither.
    :raises PermissionError: the store refuses the object.
    :raises StoreError: the store cannot be asked, or has no such bucket.
    """
    with _translated(url):
        info = _patiently(lambda: _opened(url).info(_path(url)))
    return None if info["type"] == "directory" else _stored(url, info)


def read(url: str) -> bytes:
    """Return the bytes of an object; errors as of :func:`status`."""
    with _translated(url):
        data: bytes = _patiently(lambda: _opened(url).cat_file(_path(url)))
    return data


def write(url: str, data: bytes) -> None:
    """Put an object, which others see whole or not at all; errors as of :func:`status`."""
    with _translated(url):
        _patiently(lambda: _opened(url).pipe_file(_path(url), data))


def delete(url: str) -> None:
    """Delete an object, which may be gone already; errors as of :func:`status`."""
    with suppress(FileNotFoundError), _translated(url):
        _patiently(lambda: _opened(url).rm_file(_path(url)))


def _opened(url: str) -> Any:
    """Return fsspec's file system for a URL; the same one for the same endpoint."""
    protocol = _protocol(url)
    options = dict(PROTOCOLS[protocol])
    if protocol == "s3" and _endpoint(protocol):
        options["endpoint_url"] = _endpoint(protocol)
    try:
        import fsspec

        system = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    except ImportError as error:
        raise StoreError(
            f"Expected the packages that read {protocol}:// paths. Received: {error}. Install them "
            "with: pip install 'gelkit[remote]'"
        ) from error
    system.retries = _ATTEMPTS
    return system


def _endpoint(protocol: str) -> str:
    """Return the endpoint that the environment names; empty if it names none."""
    return next(filter(None, map(os.environ.get, _ENDPOINTS[protocol])), "")


def _protocol(url: str) -> str:
    return url.partition("://")[0]


def _path(url: str) -> str:
    """Return the bucket and the key."""
    return url.partition("://")[2]


def _below(url: str, infos: Iterable[Mapping[str, Any]]) -> list[StoredObject]:
    return [
        _stored(url, info)
        for info in infos
        if info["type"] == "file"
        and info["name"] != _path(url)
        and not (info["name"].endswith("/") and info["size"] == 0)
    ]


def _stored(url: str, info: Mapping[str, Any]) -> StoredObject:
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    return StoredObject(f"{_protocol(url)}://{info['name']}", int(info["size"]), etag)


def _patiently(action: Callable[[], Result]) -> Result:
    """Do what a store may be too busy for, or fail at for a moment, and wait longer and longer."""
    for pause in _PAUSES:
        try:
            return action()
        except OSError as error:
            if error.errno != errno.EBUSY and _status(error) not in _PASSING:
                raise
            time.sleep(pause)
    return action()


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn what stores raise into the errors of files, where one object is to blame, or ours."""
    try:
        yield
    except (GelkitError, MemoryError):
        raise
    except FileNotFoundError as error:
        if _code(error) == "NoSuchBucket" or "/" not in _path(url):
            raise _failed(url, "there is no such bucket. Make it, or check its name") from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except PermissionError as error:
        if _code(error) in _REFUSED_OBJECT:
            reason = f"{os.strerror(errno.EACCES)} by the store, or wrong credentials"
            raise PermissionError(errno.EACCES, reason, url) from error
        raise _failed(url, f"{error}. Check the credentials") from error
    except Exception as error:  # each store, and each of its layers, raises a family of its own
        advice = "Check the network, the endpoint and the credentials"
        raise _failed(url, f"{type(error).__name__}: {error}. {advice}") from error


@contextmanager
def _listing(url: str) -> Iterator[None]:
    """Translate errors as above, where no one object is to blame."""
    try:
        with _translated(url):
            yield
    except PermissionError as error:
        raise _failed(url, f"{error.strerror}. Check what they permit") from error


def _code(error: OSError) -> str | None:
    """Return the code that S3 gave an error."""
    code: str | None = _response(error).get("Error", {}).get("Code")
    return code


def _status(error: OSError) -> int | None:
    """Return the HTTP status of the answer that S3 gave."""
    status: int | None = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _response(error: OSError) -> dict[str, Any]:
    return getattr(error.__cause__, "response", None) or {}


def _failed(url: str, reason: str) -> StoreError:
    protocol, bucket = _protocol(url), _path(url).partition("/")[0]
    endpoint = re.sub("//.*@", "//", _endpoint(protocol)) or "the store's own endpoint"
    return StoreError(
        f"Expected the bucket {bucket!r} of {protocol}:// at {endpoint} to answer. Received: "
        f"{reason}, and run again; what was finished is kept."
    )
