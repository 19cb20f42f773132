"""Embeddings: what stage one gives to whoever comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.features.cache import Failure
from gelkit.features.recipe import Recipe
from gelkit.images.catalog import CatalogImage


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a catalog's images, by one backbone on one hardware type.

    Row ``i`` of everything belongs to one image; images that failed are left out.
    """

    values: npt.NDArray[np.float32]
    """(images x width)"""
    images: tuple[CatalogImage, ...]
    sha256s: tuple[str, ...]
    recipe: Recipe
    device: str
    """What really ran."""
    extraction_secs: float
    """What making these rows took, whenever that was: decoding and forward passes, summed."""
    failures: tuple[Failure, ...] = ()
    records: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """What stage one noted of each image beside the embedding, by name: ``perceptual_hash``
    (images,) uint64, ``height``, ``width``, ``bit_depth``, ``n_bytes``, ``format``, ``mode`` and
    ``flags`` (images,), and ``intensity`` (images x statistics), whose columns are
    :data:`gelkit.images.likeness.INTENSITY_STATISTICS`."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def names(self) -> tuple[str, ...]:
        """How results call the images."""
        return tuple(image.name for image in self.images)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The images' labels, as they are written."""
        return tuple(image.label for image in self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct labels, sorted; ``targets`` counts in this order."""
        return tuple(sorted({label for label in self.labels if label is not None}))

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """The images' classes as numbers, (images,).

        :raises UsageError: an image has no label.
        """
        positions = {label: number for number, label in enumerate(self.classes)}
        if None in self.labels:
            raise UsageError(
                f"Expected a label for every image. Received: none for "
                f"{self.names[self.labels.index(None)]!r}. Sort the images into class folders."
            )
        return np.array([positions[label] for label in self.labels if label is not None])

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 over the recipe, the images' SHA-256s and the values."""
        digest = sha256(self.recipe.sha256.encode())
        digest.update("".join(self.sha256s).encode())
        digest.update(np.ascontiguousarray(self.values).data)
        return digest.hexdigest()

    def take(self, index: npt.NDArray[np.intp]) -> Embeddings:
        """Return the embeddings of some images, in the order of ``index``."""
        return replace(
            self,
            values=self.values[index],
            images=tuple(self.images[i] for i in index),
            sha256s=tuple(self.sha256s[i] for i in index),
            records={name: column[index] for name, column in self.records.items()},
        )
