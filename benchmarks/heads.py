"""Stage two's speed beside plain Keras and scikit-learn, on the same made-up embeddings.

    python benchmarks/heads.py
    python benchmarks/heads.py --images 92 --rounds 3
    python benchmarks/heads.py --quick

24 configurations: embeddings of 512, 4096 and 1280 values, twice (as of two kinds of hardware), two
heads, two optimizers. Up to 1000 images they are cross-validated, 5 times 5 folds, and fitted on
all images; with more they are fitted on all images alone. Each contestant is a process of its own,
started anew in each round, in turn:

- gelkit: ``gelkit.heads.training.train_all``, a process of one thread for each core;
- keras: a loop of plain Keras: build the head, fit it, predict what is held out; by one thread
  unless told otherwise, since two are seldom faster here, and far slower on a busy machine;
- scikit-learn: a loop of standardisation and LogisticRegression, for each of the embeddings.

The floor is what gelkit's arithmetic and memory traffic would take on all cores at the rates that
this machine reaches on large products and on sums of arrays that fit the cache, measured in each
round by as many processes at once. The start of such processes, imports alone, is measured too.
Each product counts by the slower of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
from measuring import ROOT, session_mib

WIDTHS = (512, 4096, 1280)
HEADS = ("single", "multi")
OPTIMIZERS = ("adam", "sgd")
HARDWARE = 2
FOLDS, REPEATS, BATCH = 5, 5, 23
CROSS_VALIDATED = 1000
GOALS = {"cross-validation": 3.5, "one fit": 1.5}

EXPLANATION = """
seconds     from the start of the process to its end: imports and worker processes included
work        without the imports of the process itself; gelkit's includes its workers' start
CPU         seconds of all its processes and threads
MiB         largest sum of the proportional set sizes of all its processes, sampled
"""


@dataclass(frozen=True)
class Work:
    """How much each contestant does."""

    images: int
    epochs: int
    repeats: int
    """Of the cross-validation; 0: the final fits alone."""
    keras_threads: int

    @property
    def name(self) -> str:
        """Which of the goals this is about."""
        return "cross-validation" if self.repeats else "one fit"

    def splits(self) -> np.ndarray:
        """Return the fold of each image in each repeat."""
        folds = np.arange(self.images) % FOLDS
        draws = np.random.default_rng(0)
        return np.stack([draws.permutation(folds) for _ in range(self.repeats)] or [folds])[
            : self.repeats
        ]

    def embeddings(self, width: int, hardware: int) -> tuple[np.ndarray, np.ndarray]:
        """Make rectified normal values of two classes that overlap, and the classes."""
        generator = np.random.default_rng([width, hardware])
        targets = np.arange(self.images) % 2
        values = generator.normal(size=(self.images, width), loc=targets[:, np.newaxis] * 0.1)
        return np.maximum(values, 0).astype(np.float32), targets

    def trained_on(self) -> Iterator[np.ndarray]:
        """Yield the training images of each fit of a configuration, the final one last."""
        for folds in self.splits():
            yield from (np.flatnonzero(folds != fold) for fold in range(FOLDS))
        yield np.arange(self.images)


def run_gelkit(work: Work) -> None:
    """Train everything as ``gelkit heads`` does."""
    from gelkit.heads.training import Job, Settings, train_all

    settings = Settings(epochs=work.epochs, repeats=work.repeats)
    jobs = []
    for hardware in range(HARDWARE):
        for width in WIDTHS:
            values, targets = work.embeddings(width, hardware)
            jobs += [
                Job(
                    f"{hardware} {width} {h} {o}", h, o, values, targets, 2, work.splits(), settings
                )
                for h in HEADS
                for o in OPTIMIZERS
            ]
    for _ in train_all(jobs, os.cpu_count() or 1):
        pass


def run_keras(work: Work) -> None:
    """Build and fit every head by plain Keras."""
    import keras
    import torch

    from gelkit.heads.architectures import build_compiled

    torch.set_num_threads(work.keras_threads)
    for hardware in range(HARDWARE):
        for width in WIDTHS:
            values, targets = work.embeddings(width, hardware)
            for head, optimizer in [(h, o) for h in HEADS for o in OPTIMIZERS]:
                for number, index in enumerate(work.trained_on()):
                    keras.utils.set_random_seed(number)
                    model = build_compiled(head, optimizer, values[index], 2)
                    model.fit(
                        values[index],
                        targets[index],
                        batch_size=BATCH,
                        epochs=work.epochs,
                        verbose=0,
                    )
                    held_out = np.delete(values, index, axis=0)
                    model.predict(held_out if len(held_out) else values, verbose=0)


def run_sklearn(work: Work) -> None:
    """Fit a logistic regression wherever gelkit fits four heads."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for hardware in range(HARDWARE):
        for width in WIDTHS:
            values, targets = work.embeddings(width, hardware)
            for index in work.trained_on():
                model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
                model.fit(values[index], targets[index]).predict_proba(values)


CONTESTANTS = {"gelkit": run_gelkit, "keras": run_keras, "scikit-learn": run_sklearn}


@dataclass(frozen=True)
class Rates:
    """What one core reaches while the others are as busy."""

    flops: float
    """Multiplications and additions per second, of large matrices."""
    bytes: float
    """Bytes read and written per second, of sums in place."""


def measure_rates(_: int = 0) -> Rates:
    """Measure this process's rates for a second and a half."""
    import torch

    from gelkit.heads.stacking import STACK_BYTES

    torch.set_num_threads(1)
    square, array = torch.rand(1024, 1024), torch.rand(STACK_BYTES // 16)
    other, out = torch.rand_like(array), torch.empty_like(square)
    product = _cpu_secs(lambda: torch.mm(square, square, out=out))
    addition = _cpu_secs(lambda: array.add_(other))
    return Rates(flops=2 * 1024**3 / product, bytes=12 * len(array) / addition)


def _cpu_secs(action: Any) -> float:
    times: list[float] = []
    until = time.perf_counter() + 0.75
    while not times or time.perf_counter() < until:
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return median(times)


def start_worker(_: int = 0) -> float:
    """Import what a training process imports, in a new one, and return the seconds."""
    started = time.perf_counter()
    from gelkit.heads.architectures import load_keras

    load_keras()
    return time.perf_counter() - started


def floor_secs(work: Work, rates: Rates) -> float:
    """Return the seconds that all steps of all configurations take one core at its rates."""
    from gelkit.heads.plans import make_plan

    plans = [make_plan(h, o, w, 2, 1e-3) for h in HEADS for o in OPTIMIZERS for w in WIDTHS]
    counts = [len(index) for index in work.trained_on()]
    return HARDWARE * sum(_fit_secs(plan, n, work.epochs, rates) for plan in plans for n in counts)


def _fit_secs(plan: Any, count: int, epochs: int, rates: Rates) -> float:
    adam = hasattr(plan.rule, "beta_1")
    seconds, steps = 0.0, epochs * -(-count // BATCH)
    for number, layer in enumerate(plan.layers):
        rows, units = layer.inputs, layer.units
        if number == 0 and not adam and count < rows:  # learns in the span of the images
            seconds += _product_secs(count, rows, count + units, rates)
            rows = count
        products = 2 if number == 0 else 3  # forward, the gradient, and the errors below
        product = _product_secs(min(count, BATCH), rows, units, rates)
        touched = 7 if adam else 5  # arrays read or written in an update
        seconds += steps * (products * product + 4 * touched * rows * units / rates.bytes)
    return seconds


def _product_secs(batch: int, rows: int, units: int, rates: Rates) -> float:
    return max(2 * batch * rows * units / rates.flops, 4 * rows * units / rates.bytes)


@dataclass(frozen=True)
class Measurement:
    """One run of one contestant."""

    seconds: float
    work: float
    cpu: float
    mib: float


def measure(contestant: str, work: Work) -> Measurement:
    """Run a contestant in a process of its own and watch its memory."""
    command = [sys.executable, __file__, "--contestant", contestant, json.dumps(vars(work))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}
    before, started = os.times(), time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, session_mib(process.pid))
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    seconds, after = time.perf_counter() - started, os.times()
    if process.returncode:
        raise SystemExit(f"{contestant} failed")
    output = process.stdout.read() if process.stdout else ""
    cpu = sum(after[2:4]) - sum(before[2:4])
    return Measurement(seconds, float(output.splitlines()[-1]), cpu, peak)


def run_round(work: Work, contestants: Sequence[str]) -> dict[str, Measurement]:
    """Measure every contestant once."""
    rows = {}
    for contestant in contestants:
        print(f"{work.images} images: {contestant}", file=sys.stderr, flush=True)
        rows[contestant] = measure(contestant, work)
    return rows


def report(
    work: Work,
    rounds: Sequence[dict[str, Measurement]],
    floors: Sequence[float],
    starts: Sequence[float],
) -> str:
    """Return the medians of the rounds as text."""
    fits = sum(1 for _ in work.trained_on()) * HARDWARE * len(WIDTHS) * len(HEADS) * len(OPTIMIZERS)
    lines = [
        "",
        f"{work.images} images, {work.name}: {fits} fits of {work.epochs} epochs",
        f"{'':14}{'seconds':>9}{'work':>9}{'CPU':>9}{'MiB':>9}",
    ]
    columns = ("seconds", "work", "cpu", "mib")
    middle = {
        n: {c: median(getattr(its[n], c) for its in rounds) for c in columns} for n in rounds[0]
    }
    for name, its in middle.items():
        lines.append(f"{name:14}" + "".join(f"{its[column]:9.1f}" for column in columns))
    for column in columns[:3]:
        ratios = [getattr(its["keras"], column) / getattr(its["gelkit"], column) for its in rounds]
        lines.append(f"plain Keras took {median(ratios):.2f} times gelkit's {column}")
    floor, gelkit, cores = median(floors), middle["gelkit"], os.cpu_count() or 1
    on_all = floor / cores
    shares = f"{on_all / gelkit['work']:.0%} of its work"
    trained = f"{on_all / (gelkit['work'] - median(starts)):.0%} without its processes' start"
    return "\n".join(
        [
            *lines,
            f"floor {floor:.1f} CPU seconds, {floor / gelkit['cpu']:.0%} of gelkit's",
            f"on all cores {on_all:.1f} s, {shares}, {trained}",
            f"goal on two cores: {GOALS[work.name]} times faster than plain Keras, in seconds",
        ]
    )


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[92, 20_000])
    parser.add_argument("--rounds", type=int, default=1, help="of all contestants [1]")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one repeat instead of five; of many images 1 epoch instead of 20",
    )
    parser.add_argument("--keras-threads", type=int, default=1, help="of plain Keras [1]")
    parser.add_argument("--contestant", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run the rounds and print the tables; or be a contestant."""
    sys.path.insert(0, str(ROOT))
    options = parse_options()
    if options.contestant:
        name, work = options.contestant
        started = time.perf_counter()
        CONTESTANTS[name](Work(**json.loads(work)))
        print(time.perf_counter() - started)
        return
    cores = os.cpu_count() or 1
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    for images in options.images:
        many = images > CROSS_VALIDATED
        repeats = 0 if many else 1 if options.quick else REPEATS
        epochs = 1 if many and options.quick else 20
        work = Work(images, epochs, repeats, options.keras_threads)
        contestants = [name for name in CONTESTANTS if not many or name != "scikit-learn"]
        rounds, floors, starts = [], [], []
        for _ in range(options.rounds):
            with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
                rates = list(pool.map(measure_rates, range(cores)))
            with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
                starts.append(max(pool.map(start_worker, range(cores))))
            floors.append(float(np.mean([floor_secs(work, rate) for rate in rates])))
            rounds.append(run_round(work, contestants))
        print(report(work, rounds, floors, starts), flush=True)
    print(EXPLANATION)


if __name__ == "__main__":
    main()
