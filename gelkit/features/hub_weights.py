"""The Hugging Face hub's weights: pinned to a commit and a SHA-256 at first use."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from gelkit.errors import UsageError
from gelkit.features.backbones import Backbone, HubFile
from gelkit.features.weights_files import PRETRAINED, WeightsError, WeightsIdentity, hash_file
from gelkit.notes import add_note, read_notes

_KIND = "hub"
_USUAL_FILES = ("model.safetensors", "pytorch_model.bin")
"""Safetensors, which hold nothing but tensors, before pickles."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Pinned:
    """A file of the hub, of one commit."""

    repository: str
    commit: str
    """Empty where a folder of files does not say it."""
    file: str
    sha256: str

    @property
    def revision(self) -> str:
        """What recipes say of it."""
        commit = f"@{self.commit}" if self.commit else ""
        return f"{self.repository}{commit}/{self.file}"


def identify_hub(backbone: Backbone, weights: str, weights_dir: Path | None) -> WeightsIdentity:
    """Tell the identity of a backbone's weights on the hub.

    With ``weights_dir`` it is that of the file there. Otherwise that which was noted at first use,
    that of the hub's own cache, or what the hub says, which is one small request.

    :raises WeightsError: none of these can be had.
    """
    pinned = _identified(_hub_file(backbone, weights), weights_dir)
    return WeightsIdentity(backbone.weights, sha256=pinned.sha256, revision=pinned.revision)


def find_hub(backbone: Backbone, weights: str, weights_dir: Path | None) -> Path:
    """Return the path of a backbone's weights, downloaded with huggingface_hub if need be.

    :raises WeightsError: they cannot be had.
    """
    hub = _hub_file(backbone, weights)
    if weights_dir is not None:
        return _in_folder(hub, weights_dir)
    pinned = _identified(hub, None)
    _require_hub(hub)
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(pinned.repository, pinned.file, revision=pinned.commit or None)
    except _failures() as error:
        raise _unreachable(hub, error) from error
    return Path(path)


def require_hub(
    backbone: Backbone, weights: str, path: Path, sha256: str, weights_dir: Path | None
) -> None:
    """Check a file's SHA-256.

    :raises WeightsError: it is another than that which was noted.
    """
    if weights_dir is not None:
        return  # what was identified is this very file
    pinned = _identified(_hub_file(backbone, weights), None)
    if sha256 != pinned.sha256:
        raise WeightsError(
            f"Expected the weights of {pinned.revision}, with the SHA-256 {pinned.sha256}. "
            f"Received: {path} with {sha256}: it is damaged, or not what its name says. It was not "
            f"opened. Delete {path.resolve()} and run again."
        )


def describe_hub(backbone: Backbone, weights_dir: Path | None) -> str:
    """Say whether weights of the hub are here, without asking the hub."""
    if backbone.hub is None:
        return "none: random, or a file"
    try:
        if weights_dir is not None:
            _in_folder(backbone.hub, weights_dir)
            return "here"
        return "here" if _cached(backbone.hub) is not None else "downloaded at first use"
    except (ImportError, WeightsError):
        return "downloaded at first use"


def _hub_file(backbone: Backbone, weights: str) -> HubFile:
    if backbone.hub is None:
        raise WeightsError(
            f"Expected a network with weights on the Hugging Face hub. Received: {backbone.name}, "
            "which has none there. Choose another, use --weights random, or give the path of a "
            "file."
        )
    if weights not in (*PRETRAINED, backbone.weights):
        raise UsageError(
            f"Expected the weights pretrained, random, auto, or a path to a .pth or .safetensors "
            f"file for {backbone.name}; other weights of timm's have names of their own "
            f"(timm/NAME.TAG). Received: {weights!r}."
        )
    return backbone.hub


def _identified(hub: HubFile, weights_dir: Path | None) -> Pinned:
    if weights_dir is not None:
        return _of_folder(hub, weights_dir)
    known = _noted(hub)
    if known is not None:
        return known
    _require_hub(hub)
    found = _cached(hub) or _asked(hub)
    add_note(_KIND, _key(hub), asdict(found))
    return found


def _key(hub: HubFile) -> str:
    return f"{hub.repository}/{hub.file}"


def _noted(hub: HubFile) -> Pinned | None:
    try:
        return Pinned(**read_notes(_KIND).get(_key(hub), {}))
    except TypeError:  # none, or of another version
        return None


def _files(hub: HubFile) -> tuple[str, ...]:
    return (hub.file,) if hub.file else _USUAL_FILES


def _in_folder(hub: HubFile, weights_dir: Path) -> Path:
    """Return where a folder has a file, laid as ``hf download --local-dir`` lays it."""
    folder = weights_dir / hub.repository
    for name in _files(hub):
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"Expected {' or '.join(_files(hub))} in {str(folder)!r}. Received: no such file. On a "
        f"machine with a network: {_download_command(hub, str(weights_dir))}"
    )


def _of_folder(hub: HubFile, weights_dir: Path) -> Pinned:
    path = _in_folder(hub, weights_dir)
    sha256 = hash_file(path)
    return Pinned(hub.repository, _commit_of(path, sha256, hub), path.name, sha256)


def _commit_of(path: Path, sha256: str, hub: HubFile) -> str:
    """Return of which commit a file is: as the download has left it beside it, or as is noted."""
    beside = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if beside.is_file():
        lines = beside.read_text(encoding="utf-8").splitlines()
        if lines[1:2] == [sha256]:
            return lines[0]
    known = _noted(hub)
    return known.commit if known is not None and known.sha256 == sha256 else ""


def _cached(hub: HubFile) -> Pinned | None:
    """Look into the hub's own cache, whose files are named by their SHA-256."""
    for name in _files(hub):
        path = _path_in_cache(hub, name)
        if path is not None:
            blob = path.resolve().name
            sha256 = blob if _SHA256.fullmatch(blob) else hash_file(path)
            return Pinned(hub.repository, path.parent.name, name, sha256)
    return None


def _path_in_cache(hub: HubFile, name: str) -> Path | None:
    """Return where the hub's cache has a file: of the main branch, or of its only commit."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(hub.repository, name)
    if isinstance(found, str):
        return Path(found)
    folder = Path(constants.HF_HUB_CACHE, f"models--{hub.repository.replace('/', '--')}")
    commits = list(folder.glob(f"snapshots/*/{name}"))
    return commits[0] if len(commits) == 1 else None


def _asked(hub: HubFile) -> Pinned:
    """Ask the hub, which says of which commit a file is, and its SHA-256."""
    from huggingface_hub.errors import EntryNotFoundError

    error: Exception = FileNotFoundError("it names no file")
    for name in _files(hub):
        try:
            return _metadata(hub, name)
        except EntryNotFoundError as missing:
            error = missing
        except _failures() as failure:
            raise _unreachable(hub, failure) from failure
    raise _unreachable(hub, error) from error


def _metadata(hub: HubFile, name: str) -> Pinned:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    told = get_hf_file_metadata(hf_hub_url(hub.repository, name))
    if told.commit_hash is None or not _SHA256.fullmatch(told.etag or ""):
        raise ValueError("the hub does not say the file's commit and SHA-256")
    return Pinned(hub.repository, told.commit_hash, name, str(told.etag))


def _require_hub(hub: HubFile) -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise WeightsError(
            f"Expected the package huggingface_hub, to find the weights {hub.repository}. "
            'Received: it is not installed. Install it with pip install "gelkit[timm]".'
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """Return what huggingface_hub raises where it gets no answer, or not a whole one."""
    from huggingface_hub import errors

    return OSError, ValueError, getattr(errors, "HTTPError", OSError)


def _unreachable(hub: HubFile, error: Exception) -> WeightsError:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return WeightsError(
        f"Expected to find the weights {hub.repository} on the Hugging Face hub. Received: "
        f"{reason}. Without a network, run on a machine that has one: "
        f"{_download_command(hub, 'weights')}. Bring the folder weights here, and name it with "
        "--weights-dir. Where the hub has a mirror, name that in HF_ENDPOINT. Or use --weights "
        "random."
    )


def _download_command(hub: HubFile, folder: str) -> str:
    return f"hf download {hub.repository} {_files(hub)[0]} --local-dir {folder}/{hub.repository}"
