"""gelkit: extract embeddings of gel images once, compare transfer-learning heads honestly."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gelkit.analyses.cache_export import export_embeddings
    from gelkit.analyses.duplicates import find_duplicates
    from gelkit.analyses.estimator import EmbeddingTransformer, HeadClassifier
    from gelkit.analyses.export import export_model
    from gelkit.analyses.prediction import predict
    from gelkit.analyses.similar import find_similar
    from gelkit.errors import GelkitError, UsageError
    from gelkit.features.backbones import BACKBONES
    from gelkit.features.embeddings import Embeddings
    from gelkit.features.extraction import Workforce, extract, load
    from gelkit.features.own_networks import register_backbone
    from gelkit.features.recipe import RecipeOptions
    from gelkit.features.streaming import CacheReader, open_cache
    from gelkit.heads.architectures import HEADS, OPTIMIZERS, build_head
    from gelkit.heads.comparison import compare
    from gelkit.heads.configurations import choose_configurations
    from gelkit.heads.evaluation import evaluate
    from gelkit.heads.results import read_results
    from gelkit.heads.training import Settings, load_head
    from gelkit.images.catalog import Catalog, read_catalog
    from gelkit.images.formats import Limits
    from gelkit.images.samples import draw_samples
    from gelkit.report.page import write_report

_HOMES = {
    "BACKBONES": "gelkit.features.backbones",
    "CacheReader": "gelkit.features.streaming",
    "Catalog": "gelkit.images.catalog",
    "EmbeddingTransformer": "gelkit.analyses.estimator",
    "Embeddings": "gelkit.features.embeddings",
    "GelkitError": "gelkit.errors",
    "HEADS": "gelkit.heads.architectures",
    "HeadClassifier": "gelkit.analyses.estimator",
    "Limits": "gelkit.images.formats",
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
    "export_embeddings": "gelkit.analyses.cache_export",
    "export_model": "gelkit.analyses.export",
    "extract": "gelkit.features.extraction",
    "find_duplicates": "gelkit.analyses.duplicates",
    "find_similar": "gelkit.analyses.similar",
    "load": "gelkit.features.extraction",
    "load_head": "gelkit.heads.training",
    "open_cache": "gelkit.features.streaming",
    "predict": "gelkit.analyses.prediction",
    "read_catalog": "gelkit.images.catalog",
    "read_results": "gelkit.heads.results",
    "register_backbone": "gelkit.features.own_networks",
    "write_report": "gelkit.report.page",
}
"""Where the public names live; each is imported when it is first used."""

__all__ = [
    "BACKBONES",
    "HEADS",
    "OPTIMIZERS",
    "CacheReader",
    "Catalog",
    "EmbeddingTransformer",
    "Embeddings",
    "GelkitError",
    "HeadClassifier",
    "Limits",
    "RecipeOptions",
    "Settings",
    "UsageError",
    "Workforce",
    "build_head",
    "choose_configurations",
    "compare",
    "draw_samples",
    "evaluate",
    "export_embeddings",
    "export_model",
    "extract",
    "find_duplicates",
    "find_similar",
    "load",
    "load_head",
    "open_cache",
    "predict",
    "read_catalog",
    "read_results",
    "register_backbone",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'gelkit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
