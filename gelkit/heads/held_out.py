"""Held-out sets: what training has seen of one, how it differs, how often it was looked at."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gelkit.features.embeddings import Embeddings
from gelkit.files import write_atomically
from gelkit.heads.datasets import positive_class
from gelkit.heads.grouping import Groups, find_near_copies, group_images
from gelkit.heads.metrics import Probabilities
from gelkit.heads.results_folder import FINDINGS_FILE
from gelkit.heads.saved import SavedHead
from gelkit.heads.shift import (
    Sample,
    embedding_shift,
    intensity_shift,
    overlap_sentences,
    score_without_overlap,
    shift_sentences,
)
from gelkit.progress import Progress, silent

logger = logging.getLogger(__name__)

LOOKS_FILE = "test_looks.json"


@dataclass(frozen=True)
class HeldOut:
    """What is known of a test set, whichever head is tested on it."""

    targets: npt.NDArray[np.int64]
    """Class numbers, (images,), into the heads' classes."""
    groups: Groups
    overlapping: npt.NDArray[np.bool_]
    """Which are training images, byte for byte or nearly, (images,)."""
    positive: int | None = None
    """The class whose precision, recall and F1 are wanted; None: their means."""


def describe_held_out(
    test: Embeddings, training: Embeddings | None, head: SavedHead, progress: Progress = silent
) -> HeldOut:
    """Group a test set's images, and find those that overlap with the training images.

    :param training: with the groups that were found in it; None if it is not at hand:
        near-duplicates of its images are then not found.
    :param head: one of those that are tested, all of which know the same classes and images.
    :raises UsageError: images of one group have different labels.
    """
    numbers = {name: number for number, name in enumerate(head.classes)}
    overlapping = np.isin(test.sha256s, head.sha256s)
    if training is not None:  # other pages of a file that was trained on
        overlapping |= np.isin(test.file_sha256s, training.file_sha256s)
    look_alike = head.settings.near_duplicates
    if look_alike and training is not None:
        others = np.flatnonzero(~overlapping)
        overlapping[others] = find_near_copies(test.take(others), training, progress)
    return HeldOut(
        targets=np.array([numbers[str(label)] for label in test.labels]),
        groups=group_images(test, find_near_duplicates=look_alike, progress=progress),
        overlapping=overlapping,
        positive=positive_class(head.classes, head.settings.positive),
    )


def find_faults(
    held_out: HeldOut,
    test: Embeddings,
    training: Embeddings | None,
    head: SavedHead,
    probabilities: Probabilities,
    looks: int,
) -> list[str]:
    """Say what makes a test set's figures doubtful, and what to do about it.

    :param test: embedded as the head expects, like ``training``.
    :param probabilities: what the head says of the test set, (images x classes).
    :param looks: as of :func:`count_look`.
    """
    scores = score_without_overlap(held_out.targets, probabilities, held_out.overlapping)
    return [
        *overlap_sentences(scores),
        *_shift_sentences(held_out, test, training, head),
        *_looks_sentences(looks),
    ]


def count_look(out: Path, fingerprint: str) -> int:
    """Count that a test set is looked at, and return how often it has been by now."""
    looks = _read_looks(out / LOOKS_FILE)
    looks[fingerprint] = looks.get(fingerprint, 0) + 1
    write_atomically(out / LOOKS_FILE, json.dumps(looks, indent=1).encode())
    return looks[fingerprint]


def keep_findings(out: Path, sentences: list[str]) -> None:
    """Keep what was found of the test set that the results have columns of."""
    write_atomically(out / FINDINGS_FILE, json.dumps(sentences, indent=1).encode())


def read_findings(out: Path) -> list[str]:
    """Read what :func:`keep_findings` kept; nothing if that is not there or not readable."""
    try:
        return [str(sentence) for sentence in json.loads((out / FINDINGS_FILE).read_bytes())]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _shift_sentences(
    held_out: HeldOut, test: Embeddings, training: Embeddings | None, head: SavedHead
) -> list[str]:
    """Compare with the training data, class by class; images of both sets are left out."""
    own = np.flatnonzero(~held_out.overlapping)
    if training is None:
        return ["Whether the test set is like the training data is unknown: they are not at hand."]
    if not len(own):
        return []
    groups = group_images(training, find_near_duplicates=False)  # its catalog has them as groups
    seed = head.settings.seed
    samples = [
        (
            Sample(known, training.targets, groups),
            Sample(values[own], held_out.targets[own], held_out.groups[own]),
        )
        for known, values in (
            (training.values, test.values),
            (training.records["intensity"], test.records["intensity"]),
        )
    ]
    return shift_sentences(
        embedding_shift(*samples[0], seed=seed), intensity_shift(*samples[1], seed=seed)
    )


def _looks_sentences(looks: int) -> list[str]:
    if looks < 2:
        return []
    return [
        f"This test set has been looked at {looks} times. Whoever chooses by it, even by eye, "
        "makes its figures optimistic: choose by cross-validation, and keep new images for the end."
    ]


def _read_looks(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(count) for name, count in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError):
        logger.warning("%s is damaged: looks are counted anew", path)
        return {}
