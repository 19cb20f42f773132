"""The heads as scikit-learn's estimators, for Pipeline, cross_val_score and GridSearchCV.

The only module that imports scikit-learn as it is imported itself, since its classes are
scikit-learn's: nothing else of gelkit imports it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from gelkit.errors import GelkitError, UsageError
from gelkit.features.backbones import get_backbone
from gelkit.features.embeddings import value_names
from gelkit.features.extraction import extract
from gelkit.features.recipe import RecipeOptions
from gelkit.heads.architectures import LEARNING_RATE
from gelkit.heads.training import Job, Settings, load_head, predict, train
from gelkit.images.catalog import Catalog, CatalogImage

Images: TypeAlias = "Catalog | Iterable[str | os.PathLike[str] | CatalogImage]"

_DEFAULTS = Settings()


class HeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head on embeddings (images x width), trained as :func:`gelkit.compare` trains it.

    With the same images in the same order, and classes sorted, it is the head that ``gelkit heads``
    saves. Training is by one thread, and the same every time; global random states stay as they
    are, but for Keras' own.

    :param head: a key of :data:`gelkit.HEADS`.
    :param optimizer: a key of :data:`gelkit.OPTIMIZERS`.
    :param class_weights: weigh the classes in the loss by the inverse of their frequency.

    After ``fit`` it has ``classes_`` (sorted), ``n_features_in_`` and ``model_``, the Keras model.
    """

    def __init__(
        self,
        head: str = "single",
        *,
        optimizer: str = "adam",
        epochs: int = _DEFAULTS.epochs,
        batch_size: int = _DEFAULTS.batch_size,
        learning_rate: float = LEARNING_RATE,
        class_weights: bool = False,
        seed: int = 0,
    ) -> None:
        self.head = head
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.class_weights = class_weights
        self.seed = seed

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> HeadClassifier:  # noqa: N803
        """Train the head.

        :param X: embeddings (images x width).
        :param y: labels (images,), of two classes or more.
        :raises ValueError: X and y do not fit together, are not numbers and classes, or are of
            one class.
        :raises UsageError: an unknown head or optimizer, or the training diverged.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)  # noqa: N806
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Expected labels of two classes or more. Received: 1 class, {self.classes_[0]!r}."
            )
        trained = train(self._job(np.asarray(X), targets))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "head.keras")
            path.write_bytes(trained.head)
            self.model_ = load_head(path)
        return self

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the probabilities (images x classes) of embeddings (images x width)."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float32, reset=False)
        probabilities: npt.NDArray[np.float32] = predict(self.model_, values)
        return probabilities

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable classes (images,) of embeddings (images x width)."""
        most_probable = self.predict_proba(X).argmax(axis=1)
        predicted: npt.NDArray[Any] = self.classes_[most_probable]
        return predicted

    def _job(self, values: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> Job:
        return Job(
            name=f"{self.head}-{self.optimizer}",
            head=self.head,
            optimizer=self.optimizer,
            values=values,
            targets=targets,
            num_classes=len(self.classes_),
            splits=np.zeros((0, len(values)), np.int64),
            settings=Settings(
                epochs=self.epochs,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                class_weights=self.class_weights,
                seed=self.seed,
            ),
        )


class EmbeddingTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeddings (images x width) of images, through the cache; there is nothing to fit.

    Images are paths, the images of a catalog (``catalog.images``), or a catalog. Those that the
    cache lacks are embedded and kept, as :func:`gelkit.extract` does, whose parameters these are.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        *,
        hardware: str = "cpu",
        cache: str | Path = "features",
        options: RecipeOptions | None = None,
    ) -> None:
        self.backbone = backbone
        self.hardware = hardware
        self.cache = cache
        self.options = options

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that it is ready without being fitted, and takes no arrays."""
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def fit(self, X: Images, y: object = None) -> EmbeddingTransformer:  # noqa: N803
        """Do nothing."""
        return self

    def transform(self, X: Images) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the embeddings (images x width) of images, in their order.

        :raises GelkitError: an image cannot be read, or as of :func:`gelkit.extract`.
        """
        catalog = X if isinstance(X, Catalog) else _catalog(X)
        embeddings = extract(
            catalog,
            backbone=self.backbone,
            hardware=self.hardware,
            cache=self.cache,
            options=self.options,
        )
        if embeddings.failures:
            first = embeddings.failures[0]
            raise GelkitError(
                f"Expected to read every image. Received: {len(embeddings.failures)} of "
                f"{len(catalog)} that fail, the first {first.name!r}: {first.error} Leave them out."
            )
        return embeddings.values

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[Any]:
        """Return the names of the values, as :meth:`gelkit.Embeddings.to_frame` has them."""
        return np.array(value_names(get_backbone(self.backbone).width), dtype=object)


def _catalog(images: Iterable[str | os.PathLike[str] | CatalogImage]) -> Catalog:
    if isinstance(images, str | os.PathLike):
        raise UsageError(
            f"Expected the paths of images, or a catalog. Received: one path, {str(images)!r}. Put "
            "it into a list, or read a folder with gelkit.read_catalog."
        )
    listed = np.asarray([*images], dtype=object).ravel()  # a column of a table has two dimensions
    return Catalog("images", tuple(map(_catalog_image, listed)))


def _catalog_image(image: str | os.PathLike[str] | CatalogImage) -> CatalogImage:
    if isinstance(image, CatalogImage):
        return image
    return CatalogImage(Path(image), os.fspath(image))
