"""Embeddings: what stage one gives to whoever comes after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.features.cache import Failure
from gelkit.features.recipe import Recipe
from gelkit.images.catalog import CatalogImage
from gelkit.text import shown

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import TensorDataset

_SHOWN_CLASSES = 5


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a catalog's images, by one backbone on one hardware type.

    Row ``i`` of everything belongs to one image; images that failed are left out.
    """

    values: npt.NDArray[np.float32]
    """(images x width)"""
    images: tuple[CatalogImage, ...]
    sha256s: tuple[str, ...]
    """What the images are known by, as of :func:`gelkit.images.catalog.image_identity`."""
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
    files: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of the file of each page or channel that the catalog names, by its own."""

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        """Tell what these are embeddings of; the values would fill pages."""
        parts = [
            f"{len(self)} images x {self.values.shape[1]} by {self.recipe.backbone} "
            f"({self.recipe.weights}) on {self.recipe.hardware}",
            *([_counted(self.labels)] if len(self) else []),
            *([f"{len(self.failures)} failed"] if self.failures else []),
        ]
        return f"<Embeddings: {'; '.join(parts)}>"

    @property
    def names(self) -> tuple[str, ...]:
        """How results call the images."""
        return tuple(image.name for image in self.images)

    @property
    def file_sha256s(self) -> tuple[str, ...]:
        """The SHA-256s of the images' files: pages and channels of one file have the same."""
        return tuple(self.files.get(sha256, sha256) for sha256 in self.sha256s)

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

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas frame, a copy: a row for each image, numbered from 0 as in ``values``.

        Columns: ``image`` (its name), ``sha256``, ``label``, ``group`` and ``source`` (None where
        there is none), and the values as float32, called as :func:`value_names` does.
        """
        import pandas as pd

        frame = pd.DataFrame(self.values, columns=value_names(self.values.shape[1]), copy=True)
        for place, (name, column) in enumerate(described(self).items()):
            frame.insert(place, name, pd.Series(column, dtype=object))
        return frame

    def to_torch(self) -> TensorDataset:
        """Return a torch dataset, a copy, of embeddings, float32 (width,), and ``targets``, int64.

        Of images without any label it holds embeddings alone.

        :raises UsageError: some images have a label, and others have none.
        """
        import torch
        from torch.utils.data import TensorDataset

        columns = (self.values, self.targets) if self.classes else (self.values,)
        return TensorDataset(*map(torch.tensor, columns))

    def take(self, index: npt.NDArray[np.intp]) -> Embeddings:
        """Return the embeddings of some images, in the order of ``index``."""
        return replace(
            self,
            values=self.values[index],
            images=tuple(self.images[i] for i in index),
            sha256s=tuple(self.sha256s[i] for i in index),
            records={name: column[index] for name, column in self.records.items()},
        )


def described(embeddings: Embeddings) -> dict[str, list[str | None]]:
    """Return what tables say of each image beside its embedding, by column."""
    images = embeddings.images
    return {
        "image": [image.name for image in images],
        "sha256": [*embeddings.sha256s],
        "label": [image.label for image in images],
        "group": [image.group for image in images],
        "source": [image.source for image in images],
    }


def value_names(width: int) -> list[str]:
    """Return how tables call the values of an embedding: ``embedding_0`` and so on."""
    return [f"embedding_{number}" for number in range(width)]


def _counted(labels: tuple[str | None, ...]) -> str:
    counts = Counter(labels)
    unlabelled = counts.pop(None, 0)
    listed = [f"{shown(str(label))} {count}" for label, count in sorted(counts.items())]
    more = len(listed) - _SHOWN_CLASSES
    return ", ".join(
        [
            *listed[:_SHOWN_CLASSES],
            *([f"{more} more classes"] if more > 0 else []),
            *([f"{unlabelled} without a label"] if unlabelled else []),
        ]
    )
