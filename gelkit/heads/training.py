"""Training: the cross-validation of configurations and their final heads, in parts."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gelkit.errors import GelkitError, UsageError
from gelkit.heads.architectures import LEARNING_RATE, load_keras, standard_arithmetic
from gelkit.heads.fits import Fit, Fitted, Task, predict
from gelkit.heads.plans import forget_plans
from gelkit.heads.pool import call_in_processes
from gelkit.heads.splits import LEFT_OUT, Folds, derived_seed
from gelkit.heads.stacking import fit_all
from gelkit.heads.tuning import Tuning, tune
from gelkit.processes import fitting_processes

if TYPE_CHECKING:
    import keras

__all__ = ["Job", "Settings", "Trained", "load_head", "predict", "train", "train_all"]


_TRAINER_BYTES = 1e9
"""What a training process takes, measured: Keras and torch, and a stack of heads."""


@dataclass(frozen=True)
class Settings:
    """How heads are trained and compared; the defaults are those of the study gelkit follows."""

    folds: int = 5
    repeats: int = 5
    epochs: int = 20
    batch_size: int = 23
    learning_rate: float = LEARNING_RATE
    class_weights: bool = False
    """Weigh the classes in the loss by the inverse of their frequency."""
    seed: int = 0
    early_stopping: int = 0
    """Stop after so many epochs without a smaller loss on an inner split of the training images;
    the head is then trained on all of them for the epochs that were best. 0: never."""
    learning_rates: tuple[float, ...] = ()
    """Choose among these by an inner split of the training images, instead of
    ``learning_rate``."""
    positive: str = ""
    """The class whose precision, recall and F1 are wanted, of two; empty: means over classes."""
    near_duplicates: bool = True
    """Find images that look alike, and keep them together in all splits."""

    def __post_init__(self) -> None:
        rates = tuple(float(rate) for rate in self.learning_rates)  # a list, where read from JSON
        object.__setattr__(self, "learning_rates", rates)


@dataclass(frozen=True)
class Job:
    """Everything that training one configuration needs; it can be sent to another process."""

    name: str
    head: str
    optimizer: str
    values: npt.NDArray[np.float32]
    """Embeddings (images x width)."""
    targets: npt.NDArray[np.int64]
    num_classes: int
    splits: Folds
    settings: Settings
    groups: npt.NDArray[np.int64] | None = None
    """(images,): images that inner splits must not separate; needed only where there are such."""


@dataclass(frozen=True)
class Trained:
    """What training one configuration gives."""

    probabilities: npt.NDArray[np.float32]
    """Out-of-fold predictions (repeats x images x classes); 0 where no fold predicts an image."""
    head: bytes
    """The final head, fitted on all images, as a ``.keras`` file."""
    head_parameters: int
    """Of the final head, its standardisation included."""
    training_time_secs: float
    """Cross-validation and final fit, summed over the processes that shared them."""
    inference_time_secs: float
    """The final head over the data set."""
    learning_rate: float
    """Of the final head."""
    epochs: int
    """Of the final head."""


@dataclass(frozen=True)
class _Part:
    """What one part of a job gives: the fits of one repeat, or the final one."""

    fits: Sequence[Fit]
    probabilities: Sequence[npt.NDArray[np.float32]]
    training_time_secs: float
    head: bytes = b""
    head_parameters: int = 0
    inference_time_secs: float = 0.0


def train(job: Job) -> Trained:
    """Cross-validate a configuration, then fit its final head on all images, by one thread.

    The same job gives the same result. The global random state of Python, NumPy and torch is left
    as it was; Keras' own global seed generator is not, since Keras has no public way to read it: it
    starts anew.

    :raises UsageError: the training diverged, the seed is out of range, or a class has too few
        groups for an inner split.
    """
    forget_plans()
    return _put_together(job, [_train_part(job, number) for number in _part_numbers(job)])


def choose_trainers() -> int:
    """Return how many processes train: one for each core, as far as memory goes."""
    return fitting_processes(_TRAINER_BYTES)


def train_all(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Trained]]:
    """Train jobs and yield each when it is done, whichever of its parts was where.

    :param workers: processes of one thread each; 1 trains in this process.
    :raises GelkitError: a worker died, out of memory perhaps.
    :raises UsageError: as of :func:`train`.
    """
    if workers <= 1 or not jobs:
        for job in jobs:
            yield job, train(job)
        return
    yield from _train_in_pool(jobs, workers)


@standard_arithmetic()
def load_head(path: Path) -> keras.Model:
    """Load a saved head. Code inside the file, such as a Lambda layer's, is refused, never run.

    :raises GelkitError: there is none, it is damaged, or it holds what Keras does not know.
    """
    keras = load_keras()
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # a damaged file can fail anywhere in zipfile, JSON, HDF5 and Keras
        raise GelkitError(
            f"Expected a head saved by gelkit. Received: {path}, {error}. If it has layers of your "
            "own, import their module first; otherwise train it again with: gelkit heads DATA"
        ) from error


def _part_numbers(job: Job) -> range:
    """Return the numbers of a job's parts: one for each repeat, the last for the final head.

    Parts decide what can be stacked: they must not depend on the number of workers.
    """
    return range(len(job.splits) + 1)


def _train_part(job: Job, number: int) -> _Part:
    final = number == len(job.splits)
    with _random_state_kept(), _one_thread(), standard_arithmetic():
        started = time.perf_counter()
        task = _task(job)
        fits = _tuned(job, task, [_final_fit(job)] if final else _fits_of_repeat(job, number))
        fitted = fit_all(task, fits)
        part = _Part(
            fits=fits,
            probabilities=[its.probabilities[-1] for its in fitted],
            training_time_secs=time.perf_counter() - started,
        )
        for fit, probabilities in zip(fits, part.probabilities, strict=True):
            _require_finite(job, fit, probabilities)
        return _with_final_head(job, part, fitted[0]) if final else part


def _task(job: Job) -> Task:
    return Task(
        head=job.head,
        optimizer=job.optimizer,
        values=job.values,
        targets=job.targets,
        num_classes=job.num_classes,
        batch_size=job.settings.batch_size,
        class_weights=job.settings.class_weights,
    )


def _fits_of_repeat(job: Job, repeat: int) -> list[Fit]:
    folds, settings = job.splits[repeat], job.settings
    return [
        Fit(
            train=np.flatnonzero((folds != fold) & (folds != LEFT_OUT)),
            held_out=np.flatnonzero(folds == fold),
            seed=derived_seed(settings.seed, repeat, int(fold)),
            learning_rate=settings.learning_rate,
            epochs=settings.epochs,
        )
        for fold in np.unique(folds[folds >= 0])
    ]


def _final_fit(job: Job) -> Fit:
    return Fit(
        train=np.arange(len(job.targets)),
        held_out=np.arange(0),
        seed=derived_seed(job.settings.seed),
        learning_rate=job.settings.learning_rate,
        epochs=job.settings.epochs,
        kept=True,
    )


def _tuned(job: Job, task: Task, fits: list[Fit]) -> list[Fit]:
    tuning = Tuning(job.settings.learning_rates, job.settings.early_stopping)
    if tuning == Tuning():
        return fits
    if job.groups is None:
        raise ValueError("Expected the images' groups, for inner splits. Received: None.")
    return tune(task, fits, job.groups, tuning, fit_all)


def _with_final_head(job: Job, part: _Part, fitted: Fitted) -> _Part:
    started = time.perf_counter()
    _require_finite(job, part.fits[0], predict(fitted.head, job.values))
    return replace(
        part,
        inference_time_secs=time.perf_counter() - started,
        head=_saved(fitted.head),
        head_parameters=fitted.head.count_params() if fitted.head else 0,
    )


def _require_finite(job: Job, fit: Fit, probabilities: npt.NDArray[np.float32]) -> None:
    if not np.isfinite(probabilities).all():
        raise UsageError(
            f"Expected {job.name} to give probabilities. Received: NaN, since its training "
            f"diverged. Use a --learning-rate below {fit.learning_rate:g}, or leave this "
            "configuration out; heads that were finished are kept."
        )


def _put_together(job: Job, parts: Sequence[_Part]) -> Trained:
    *repeats, final = parts
    probabilities = np.zeros((*job.splits.shape, job.num_classes), dtype=np.float32)
    for repeat, part in enumerate(repeats):
        for fit, its in zip(part.fits, part.probabilities, strict=True):
            probabilities[repeat, fit.held_out] = its
    return Trained(
        probabilities=probabilities,
        head=final.head,
        head_parameters=final.head_parameters,
        training_time_secs=sum(part.training_time_secs for part in parts),
        inference_time_secs=final.inference_time_secs,
        learning_rate=final.fits[0].learning_rate,
        epochs=final.fits[0].epochs,
    )


def _saved(head: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head.keras")
        head.save(path)
        return path.read_bytes()


@dataclass(frozen=True)
class _Sent:
    """A job on its way to a worker, its embeddings in a file that all workers map."""

    job: Job
    values: Path


def _train_in_pool(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Trained]]:
    """Yield each job when the last of its parts has come."""
    parts: list[dict[int, _Part]] = [{} for _ in jobs]
    with tempfile.TemporaryDirectory(prefix="gelkit-") as folder:  # outlives who maps its files
        sent = [_sent(job, Path(folder)) for job in jobs]
        calls = [
            (place, number)
            for place in _longest_first(jobs)
            for number in _part_numbers(jobs[place])
        ]
        arguments = [(sent[place], number) for place, number in calls]
        with closing(call_in_processes(_train_sent, arguments, workers)) as results:
            for call, part in results:
                place, number = calls[call]
                parts[place][number] = part
                numbers = _part_numbers(jobs[place])
                if len(parts[place]) == len(numbers):
                    its = parts[place]
                    yield jobs[place], _put_together(jobs[place], [its[part] for part in numbers])
                    its.clear()


def _sent(job: Job, folder: Path) -> _Sent:
    """Write a job's embeddings into a file, if another job with the same ones has not done so."""
    path = folder / f"{id(job.values)}.npy"
    if not path.exists():
        np.save(path, job.values, allow_pickle=False)
    return _Sent(replace(job, values=job.values[:0]), path)


def _train_sent(sent: _Sent, number: int) -> _Part:
    values = np.load(sent.values, mmap_mode="c")  # private: torch warns of arrays it cannot write
    return _train_part(replace(sent.job, values=values), number)


def _longest_first(jobs: Sequence[Job]) -> list[int]:
    """Order the numbers of jobs so that no long one is left for the end."""

    def length(place: int) -> tuple[bool, bool, int]:
        job = jobs[place]
        return job.head != "single", job.optimizer != "sgd", job.values.shape[1]

    return sorted(range(len(jobs)), key=length, reverse=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute by one thread: by several, the last digits would depend on how many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put back the global random state of Python, NumPy and torch, which Keras seeds."""
    import torch

    states: tuple[Any, Any] = (random.getstate(), np.random.get_state())
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
