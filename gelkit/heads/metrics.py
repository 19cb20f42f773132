"""Metrics of predicted probabilities, computed by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Targets = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Scores:
    """Metrics of one set of predictions; of several repeats, their means.

    All are fractions. Precision, recall and F1 are those of the positive class, if one is named, or
    else unweighted means (macro) over the classes that are among the targets or were predicted; one
    that was never predicted counts as precision 0, one that is not among the targets as recall 0
    (``zero_division=0`` of scikit-learn). Balanced accuracy is the mean recall of the classes
    that are among the targets.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    balanced_accuracy: float
    roc_auc: float
    """NaN if no fold holds two classes."""
    brier: float
    """Mean squared error of the probabilities: 0 to 1 for two classes, 0 to 2 for more."""
    conf_mat: tuple[tuple[float, ...], ...]
    """Images by true class (rows) and predicted class (columns)."""

    def columns(self, prefix: str = "") -> dict[str, float | list[list[float]]]:
        """Return the metrics as columns of the results, their names prefixed."""
        columns: dict[str, float | list[list[float]]] = {
            f"{prefix}{name}": getattr(self, name) for name in self.__dataclass_fields__
        }
        return columns | {f"{prefix}conf_mat": [list(row) for row in self.conf_mat]}


def score(targets: Targets, probabilities: Probabilities, positive: int | None = None) -> Scores:
    """Score the predictions of one set of images.

    :param targets: class numbers, (images,).
    :param probabilities: (images x classes).
    :param positive: as of :func:`score_out_of_fold`.
    """
    folds = np.zeros(len(targets), dtype=np.int64)
    return score_out_of_fold(targets, probabilities[np.newaxis], folds[np.newaxis], positive)


def score_out_of_fold(
    targets: Targets,
    probabilities: Probabilities,
    splits: npt.NDArray[np.int64],
    positive: int | None = None,
) -> Scores:
    """Score out-of-fold predictions: each repeat over all images, then the mean over repeats.

    ROC AUC counts only pairs of images that one model predicted, those of the same fold: the
    probabilities of different models need not be comparable.

    :param targets: class numbers, (images,).
    :param probabilities: (repeats x images x classes).
    :param splits: the fold that predicted, (repeats x images).
    :param positive: the class whose precision, recall and F1 are wanted; None: their means.
    """
    repeats = [
        _score_repeat(targets, predicted, folds, positive)
        for predicted, folds in zip(probabilities, splits, strict=True)
    ]
    means = {
        name: float(np.mean([getattr(repeat, name) for repeat in repeats]))
        for name in Scores.__dataclass_fields__
        if name != "conf_mat"
    }
    confusion = np.mean([repeat.conf_mat for repeat in repeats], axis=0)
    return Scores(**means, conf_mat=tuple(map(tuple, confusion.tolist())))


def _score_repeat(
    targets: Targets,
    probabilities: Probabilities,
    folds: npt.NDArray[np.int64],
    positive: int | None,
) -> Scores:
    from sklearn import metrics

    labels = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        targets,
        predicted,
        labels=None if positive is None else [positive],
        average="macro",
        zero_division=0,
    )
    confusion = metrics.confusion_matrix(targets, predicted, labels=labels)
    present = confusion.sum(axis=1) > 0
    recalls = np.diag(confusion)[present] / confusion.sum(axis=1)[present]
    return Scores(
        accuracy=float(metrics.accuracy_score(targets, predicted)),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        balanced_accuracy=float(recalls.mean()),  # as scikit-learn's, without its warning
        roc_auc=_roc_auc(targets, probabilities, folds),
        brier=_brier(targets, probabilities),
        conf_mat=tuple(map(tuple, confusion.tolist())),
    )


def _brier(targets: Targets, probabilities: Probabilities) -> float:
    """Return the Brier score, by scikit-learn, of probabilities that sum to 1 exactly."""
    from sklearn.metrics import brier_score_loss

    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    labels = np.arange(exact.shape[1])
    return float(brier_score_loss(targets, exact, labels=labels))


def _roc_auc(targets: Targets, probabilities: Probabilities, folds: npt.NDArray[np.int64]) -> float:
    """Return the mean over the classes of one against the rest, pairs within folds.

    For two classes both ways give the same. A class without pairs is left out of the mean.
    """
    areas = [
        _area_within_folds(targets == number, probabilities[:, number], folds)
        for number in range(probabilities.shape[1])
    ]
    known = [area for area in areas if not np.isnan(area)]
    return float(np.mean(known)) if known else float("nan")


def _area_within_folds(
    positive: npt.NDArray[np.bool_], scores: Probabilities, folds: npt.NDArray[np.int64]
) -> float:
    """Return the share of pairs (positive, negative) of one fold that are ranked right."""
    from sklearn.metrics import roc_auc_score

    right = pairs = 0.0
    for fold in np.unique(folds):
        mine = folds == fold
        count = int(positive[mine].sum()) * int((~positive[mine]).sum())
        if count:
            right += count * roc_auc_score(positive[mine], scores[mine])
            pairs += count
    return right / pairs if pairs else float("nan")
