"""gelkit: extract embeddings of gel images once, compare transfer-learning heads honestly."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gelkit.errors import GelkitError, UsageError
    from gelkit.features.backbones import BACKBONES
    from gelkit.features.embeddings import Embeddings
    from gelkit.features.extraction import Workforce, extract, load
    from gelkit.features.recipe import RecipeOptions
    from gelkit.heads.architectures import HEADS, OPTIMIZERS, build_head
    from gelkit.heads.comparison import compare
    from gelkit.heads.configurations import choose_configurations
    from gelkit.heads.evaluation import evaluate
    from gelkit.heads.results import read_results
    from gelkit.heads.training import Settings, load_head
    from gelkit.images.catalog import Catalog, read_catalog
    from gelkit.images.samples import draw_samples

_HOMES = {
    "BACKBONES": "gelkit.features.backbones",
    "Catalog": "gelkit.images.catalog",
    "Embeddings": "gelkit.features.embeddings",
    "GelkitError": "gelkit.errors",
    "HEADS": "gelkit.heads.architectures",
    "OPTIMIZERS": "gelkit.heads.architectures",
    "RecipeOptions": "gelkit.features.recipe",
    "Settings": "gelkit.heads.training",
    "UsageError": "gelkit.errors",
    "Workforce": "gelkit.features.extraction",
    "build_head": "gelkit.heads.architectures",
    "choose_configurations": "gelkit.heads.configurations",
    "compare": "gelkit.heads.comparison",
    "draw_samples": "gelkit.images.samples",
    "evaluate": "gelkit.heads.evaluation",
    "extract": "gelkit.features.extraction",
    "load": "gelkit.features.extraction",
    "load_head": "gelkit.heads.training",
    "read_catalog": "gelkit.images.catalog",
    "read_results": "gelkit.heads.results",
}
"""Where the public names live; each is imported when it is first used."""

__all__ = [
    "BACKBONES",
    "HEADS",
    "OPTIMIZERS",
    "Catalog",
    "Embeddings",
    "GelkitError",
    "RecipeOptions",
    "Settings",
    "UsageError",
    "Workforce",
    "build_head",
    "choose_configurations",
    "compare",
    "draw_samples",
    "evaluate",
    "extract",
    "load",
    "load_head",
    "read_catalog",
    "read_results",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gelkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
