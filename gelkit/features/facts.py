"""Facts of a network: found out from the model itself, once, and remembered by its version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gelkit.errors import UsageError
from gelkit.features.backbones import Backbone, HubFile, Preprocessing
from gelkit.notes import add_note, read_notes

if TYPE_CHECKING:
    import torch
    from torch import nn

_KIND = "networks"


@dataclass(frozen=True)
class Facts:
    """What a forward pass says of a network."""

    width: int
    """Length of an embedding."""
    parameters: int
    """Parameters of the whole model, classifier included."""
    giga_operations: float
    """Multiply-adds of one image, in 10^9."""


def remembered(key: str, find_out: Callable[[], Backbone]) -> Backbone:
    """Return the row that is noted under a key, or find it out and note it.

    A network whose facts are noted is named without importing torch.

    :param key: the network's name, and all that its facts depend on, versions included.
    """
    note = read_notes(_KIND).get(key)
    row = None if note is None else _from_note(note)
    if row is None:
        row = find_out()
        add_note(_KIND, key, _to_note(row))
    return row


def remembered_facts(key: str, find_out: Callable[[], Facts]) -> Facts:
    """Return the facts that are noted under a key, or find them out and note them."""
    note = read_notes(_KIND).get(key)
    try:
        return Facts(**(note or {}))
    except TypeError:  # there is no such note, or one of another version
        facts = find_out()
        add_note(_KIND, key, asdict(facts))
        return facts


def measure(
    name: str, model: nn.Module, cut: Callable[[nn.Module], None], pictures: torch.Tensor
) -> Facts:
    """Run a network once, and count.

    :param name: what errors call it.
    :param cut: takes the classifier away, after the operations of the whole were counted.
    :param pictures: one, of any content.
    :raises UsageError: it takes no such picture, or gives no vector.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model.requires_grad_(False)  # the counter otherwise asks where gradients go
    parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        with FlopCounterMode(display=False) as counter:
            _output(model, pictures)
        cut(model)
        embedding = _output(model, pictures)
    except (AssertionError, RuntimeError, ValueError) as error:
        size = pictures.shape[-1]
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            f"Expected {name} to take pictures of {size} x {size} pixels. Received: "
            f"{reason.rstrip('.')}. Leave --input-size out, or choose another network or size."
        ) from error
    if embedding.ndim != 2:
        raise UsageError(
            f"Expected a network that gives a vector for each picture. Received: {name}, which "
            f"gives the shape {tuple(embedding.shape[1:])}. Choose another."
        )
    return Facts(embedding.shape[1], parameters, round(counter.get_total_flops() / 2e9, 4))


def on_shapes_alone(
    build: Callable[[], nn.Module], input_size: int
) -> tuple[nn.Module, torch.Tensor]:
    """Return a network and a picture for it on torch's device for shapes alone.

    That takes neither memory nor time. What cannot be built there is built in full.
    """
    import torch

    try:
        with torch.device("meta"):
            model = build().eval()
    except (NotImplementedError, RuntimeError):  # its initialisation looks at values
        model = build().eval()
    device = next(model.parameters()).device
    return model, torch.zeros(1, 3, input_size, input_size, device=device)


def _output(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.no_grad():
        result: torch.Tensor = model(pictures)
    return result


def _to_note(row: Backbone) -> dict[str, Any]:
    return asdict(row)


def _from_note(note: dict[str, Any]) -> Backbone | None:
    """Read a note; None if it is of another version of gelkit."""
    try:
        shown: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in note["preprocessing"].items()
        }
        hub = None if note["hub"] is None else HubFile(**note["hub"])
        return Backbone(**note | {"preprocessing": Preprocessing(**shown), "hub": hub})
    except (AttributeError, KeyError, TypeError):
        return None
