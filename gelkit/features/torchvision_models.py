"""torchvision's models: which there are, what is known of them, and how they are built."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gelkit.errors import UsageError
from gelkit.features.backbones import Backbone, Preprocessing
from gelkit.features.facts import Facts, measure, on_shapes_alone, remembered
from gelkit.notes import add_note, read_notes

if TYPE_CHECKING:
    from torch import nn

_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_KIND = "torchvision weights"


def list_torchvision() -> list[str]:
    """Return the names of torchvision's classifiers."""
    models = _models()
    names: list[str] = models.list_models(module=models)
    return names


def find_in_torchvision(name: str) -> Backbone | None:
    """Return what is known of a classifier of torchvision; None if there is none of that name.

    :raises UsageError: it has no last linear layer.
    """
    key = f"{name} torchvision {version('torchvision')}"
    if key not in read_notes("networks") and name not in list_torchvision():
        return None
    return remembered(key, lambda: _describe(name))


def measure_torchvision(backbone: Backbone, input_size: int) -> Facts:
    """Find out what a model says of itself when it is shown pictures of a size.

    :raises UsageError: it takes no such pictures.
    """
    model, pictures = on_shapes_alone(lambda: build_with_torchvision(backbone), input_size)
    return measure(
        backbone.name, model, lambda model: _replace_by_nothing(model, backbone.layer), pictures
    )


def build_with_torchvision(backbone: Backbone) -> nn.Module:
    """Build a whole model, initialised as torchvision does, without auxiliary heads."""
    return _build(backbone.model, backbone.preprocessing.input_size)


def without_auxiliary_heads(model: str, state: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a model's state what embeds nothing: heads that only training uses."""
    if model not in _WITH_AUXILIARY_HEADS:
        return state
    return {name: its for name, its in state.items() if not name.lower().startswith("aux")}


def registered_weights(model: str) -> dict[str, tuple[str, Preprocessing]]:
    """Return the weights that torchvision registers: URL and preprocessing by short name."""
    key = f"{model} torchvision {version('torchvision')}"
    note = read_notes(_KIND).get(key)
    if note is None:
        note = _registry(model)
        add_note(_KIND, key, note)
    return {
        member: (url, Preprocessing(size, interpolation, tuple(mean), tuple(std)))
        for member, (url, size, interpolation, mean, std) in note.items()
    }


def _registry(model: str) -> dict[str, tuple[str, int, str, list[float], list[float]]]:
    found = {}
    for weights in _models().get_model_weights(model):
        shown = weights.transforms()
        found[weights.name] = (
            weights.url,
            shown.crop_size[0],
            shown.interpolation.value,
            list(shown.mean),
            list(shown.std),
        )
    return found


def _describe(name: str) -> Backbone:
    default = _models().get_model_weights(name).DEFAULT
    shown = registered_weights(name)[default.name][1]
    row = Backbone(
        name=name,
        library="torchvision",
        model=name,
        layer=_last_linear_layer(name, shown.input_size),
        width=0,
        parameters=0,
        giga_operations=0.0,
        weights=str(default),
        weights_url=default.url,
        preprocessing=shown,
    )
    return replace(row, **asdict(measure_torchvision(row, shown.input_size)))


def _build(name: str, input_size: int) -> nn.Module:
    """Build a model for the input size that weights of its want."""
    options: dict[str, object] = {}
    if name in _WITH_AUXILIARY_HEADS:
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    if name.startswith("vit_"):
        options = {"image_size": input_size}
    model: nn.Module = _models().get_model(name, weights=None, **options)
    return model


def _models() -> Any:
    """Import torchvision's models, without torch's compiler.

    torchvision asks the compiler one question, about operators that no classifier has, and the
    compiler takes longer to import than all the models (0.8 of 2.6 CPU seconds, in every process).
    Until torchvision is imported, something that says no stands in for it.
    """
    compiler = "torch._dynamo"
    if "torchvision" not in sys.modules and compiler not in sys.modules:
        questions = ModuleType(f"{compiler}.utils")
        questions.__dict__["is_compile_supported"] = lambda device: False
        stand_ins = {compiler: ModuleType(compiler), questions.__name__: questions}
        sys.modules.update(stand_ins)
        try:
            import torchvision  # noqa: F401
        finally:
            for name in stand_ins:
                del sys.modules[name]
    from torchvision import models

    return models


def _replace_by_nothing(model: nn.Module, layer: str) -> None:
    from torch import nn

    model.set_submodule(layer, nn.Identity())


def _last_linear_layer(name: str, input_size: int) -> str:
    """Return the name of the linear layer whose result is the model's.

    :raises UsageError: there is none.
    """
    import torch
    from torch import nn

    model, pictures = on_shapes_alone(lambda: _build(name, input_size), input_size)
    results: dict[str, torch.Tensor] = {}
    for layer, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(
                lambda _, inputs, result, layer=layer: results.__setitem__(layer, result)
            )
    with torch.no_grad():
        output = model(pictures)
    last = [layer for layer, result in results.items() if result is output]
    if not last:
        raise UsageError(
            f"Expected a network whose last layer is linear: what enters it is embedded. Received: "
            f"{name}, whose classifier is another. Choose another network."
        )
    return last[0]
