"""Networks of the user's own: registered in a program, or offered by an installed package."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from gelkit.errors import GelkitError, UsageError
from gelkit.images.views import INTERPOLATIONS, VIEW_SIZE

if TYPE_CHECKING:
    from torch import nn

    from gelkit.features.backbones import Backbone
    from gelkit.features.facts import Facts

GROUP = "gelkit.backbones"
"""The group of entry points. Each is called like its network, and names the module that registers
it when it is imported."""

LIBRARY = "own"
AS_BUILT = "built"
"""What recipes call weights that come with the network."""


@dataclass(frozen=True)
class OwnNetwork:
    """The function that builds a network, and the version that its owner gives it."""

    build: Callable[[], nn.Module]
    version: str

    def __reduce__(self) -> tuple[Callable[[bytes], OwnNetwork], tuple[bytes]]:
        """Send the function to another process: by name, or whole if it is a notebook's."""
        import cloudpickle

        return _received, (cloudpickle.dumps((self.build, self.version)),)


def _received(data: bytes) -> OwnNetwork:
    return OwnNetwork(*pickle.loads(data))


_registered: dict[str, Backbone] = {}


def register_backbone(
    name: str,
    build: Callable[[], nn.Module],
    *,
    version: str,
    input_size: int = VIEW_SIZE,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    interpolation: str = "bilinear",
) -> None:
    """Make a network of one's own a backbone, for as long as this program runs.

    To have it in every command, put the call into a module of an installed package, and name that
    module in an entry point of the group ``gelkit.backbones``, called like the network.

    :param name: what ``--backbone`` and ``backbone=`` call it.
    :param build: returns the network with its weights: an ``nn.Module`` from normalised pictures
        (images x 3 x input_size x input_size), float32, to embeddings (images x width). Workers
        call it, each in a process of its own.
    :param version: part of the recipe. Give another whenever the network gives other embeddings.
    :param mean: of each channel, of values of 0 to 1; here and below, the default is ImageNet's.
    :param std: the standard deviation of each channel, likewise.
    :param interpolation: how pictures are resized: bilinear, bicubic, lanczos or nearest.
    :raises UsageError: the name is taken, or something is not as described.
    """
    from gelkit.features.backbones import Backbone, Preprocessing

    _require_free(name)
    if not version or interpolation not in INTERPOLATIONS:
        raise UsageError(
            f"Expected a version, and an interpolation among {', '.join(INTERPOLATIONS)}. "
            f"Received: {version!r} and {interpolation!r}."
        )
    if not len(mean) == len(std) == 3:
        raise UsageError(
            f"Expected mean and std of 3 channels. Received: {len(mean)} and {len(std)}."
        )
    _registered[name] = Backbone(
        name=name,
        library=LIBRARY,
        model=name,
        layer="output",
        width=0,
        parameters=0,
        giga_operations=0.0,
        weights=AS_BUILT,
        preprocessing=Preprocessing(input_size, interpolation, tuple(mean), tuple(std)),
        own=OwnNetwork(build, version),
    )


def find_own(name: str) -> Backbone | None:
    """Return a registered network, or one that an installed package offers; None if there is none.

    :raises UsageError: it gives no vector for a picture.
    :raises GelkitError: the package does not register it.
    """
    if name not in _registered and name in _offered():
        _load(_offered()[name])
    row = _registered.get(name)
    if row is not None and row.width == 0:
        row = replace(row, **asdict(measure_own(row, row.preprocessing.input_size)))
        _registered[name] = row
    return row


def list_own() -> list[str]:
    """Return the names of registered networks, and of those that installed packages offer."""
    return sorted({*_registered, *_offered()})


def measure_own(backbone: Backbone, input_size: int) -> Facts:
    """Find out what a network says of itself when it is shown pictures of a size.

    :raises UsageError: it takes no such pictures, or gives no vector.
    """
    import torch

    from gelkit.features.facts import measure

    pictures = torch.zeros(1, 3, input_size, input_size)
    return measure(backbone.name, build_own(backbone), lambda _: None, pictures)


def build_own(backbone: Backbone, seed: int = 0) -> nn.Module:
    """Build a network as its owner does, the same every time.

    :raises UsageError: the function does not return a network.
    """
    import torch
    from torch import nn

    assert backbone.own is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = backbone.own.build()
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"Expected the function of {backbone.name} to return a torch.nn.Module. Received: "
            f"{type(model).__name__}."
        )
    return model.eval()


def hash_state(model: nn.Module) -> str:
    """Return a SHA-256 over the names, types, shapes and bytes of all that a network holds."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@cache
def _offered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> None:
    entry.load()
    if entry.name not in _registered:
        package = entry.dist.name if entry.dist is not None else entry.module
        raise GelkitError(
            f"Expected the package {package} to register the network {entry.name} when "
            f"{entry.module} is imported. Received: it does not. Tell its owner."
        )


def _require_free(name: str) -> None:
    from gelkit.features.backbones import BACKBONES
    from gelkit.features.timm_models import PREFIX
    from gelkit.features.torchvision_models import list_torchvision

    if not name or name in BACKBONES or name.startswith(PREFIX) or name in list_torchvision():
        raise UsageError(
            f"Expected a name that no other network has. Received: {name!r}. Choose another."
        )
