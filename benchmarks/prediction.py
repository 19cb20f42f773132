"""A cold ``predict`` of one image: how long it takes, and where the time goes.

    python benchmarks/prediction.py [--backbone resnet18] [--rounds 3]

Trains heads on a drawn sample set with random weights, then predicts, each in a fresh process: an
image that the cache lacks, the same image again, and, for comparison, what the parts of that take
by themselves. Times are medians over the rounds, in seconds, and the processor seconds of the
process and its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_START = """
import resource, sys, time
def used():
    return sum(
        its.ru_utime + its.ru_stime
        for its in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
marks = []
def mark(name, since=[time.perf_counter(), used()]):
    now = [time.perf_counter(), used()]
    marks.append((name, *(new - old for new, old in zip(now, since))))
    since[:] = now
"""
_END = """
import json
print(json.dumps(marks))
"""

_IMPORTS = """
import gelkit.analyses.prediction
mark("import gelkit.analyses.prediction")
import torch
mark("import torch")
import keras
mark("import keras")
import torchvision
mark("import torchvision")
"""

_PREDICT = """
from gelkit.analyses.prediction import predict
from gelkit.images.catalog import read_catalog
mark("import gelkit")
predict(OUT, read_catalog(IMAGE), cache=CACHE)
mark("predict")
"""

_STEPS = """
from gelkit.analyses import prediction as p
from gelkit.images.catalog import read_catalog
from pathlib import Path
mark("import gelkit")
out = Path(OUT)
heads = p.read_heads(out)
head = p.find_model(heads, 'best', out)
mark("read the heads' records")
known = p._Known(p.load_trained_on(out, head, CACHE))
mark("load the training embeddings")
embeddings = p.embed_for(head, read_catalog(IMAGE), cache=CACHE)
mark(f"embed the image (a worker: its imports, weights, decoding, {embeddings.extraction_secs:.2f} "
     "s for decoding and the forward pass)")
model = p.load_head(p.head_path(out, head.configuration))
mark("load the head, Keras' import included")
raw = p.probabilities_of(model, embeddings.values)
mark("predict by the head")
oof = p.read_probabilities(out, head.configuration)[: head.settings.repeats]
reliability = known.assess(oof, p.MAX_ERROR, head.settings.seed)
mark("judge by the cross-validation")
p._describe(head.classes, embeddings, raw, known, reliability)
mark("distances and neighbours")
"""

_TRAIN = """
import gelkit
options = gelkit.RecipeOptions(weights="random")
gelkit.draw_samples("my_gels", count=60)
catalog = gelkit.read_catalog("my_gels")
gelkit.extract(catalog, backbone=BACKBONE, options=options)
chosen = gelkit.choose_configurations(("cpu",), (BACKBONE,))
gelkit.compare(catalog, out="out", configurations=chosen, options=options)
gelkit.draw_samples("new", count=20, seed=1)
print("done")
"""


def main() -> None:
    """Train, predict in fresh processes, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _run(_TRAIN.replace("BACKBONE", repr(given.backbone)), Path(folder))
        images = sorted(Path(folder, "new").rglob("*.*"))
        if len(images) < 2 * given.rounds:
            parser.error(f"Expected at most {len(images) // 2} rounds. Received: {given.rounds}.")
        unseen = iter(images)
        runs: dict[str, list[list[tuple[str, float, float]]]] = {}
        for _ in range(given.rounds):
            whole, stepwise = str(next(unseen)), str(next(unseen))
            for title, program, image in (
                ("imports alone", _IMPORTS, whole),
                ("an image that the cache lacks", _PREDICT, whole),
                ("the same, cached", _PREDICT, whole),
                ("an image that the cache lacks, one step after the other", _STEPS, stepwise),
            ):
                runs.setdefault(title, []).append(_measured(program, image, Path(folder)))
    for title, rounds in runs.items():
        _print(title, rounds)


def _measured(program: str, image: str, folder: Path) -> list[tuple[str, float, float]]:
    for name, value in (("OUT", "out"), ("CACHE", "features"), ("IMAGE", image)):
        program = program.replace(name, repr(value))
    output = _run(_START + program + _END, folder)
    return [(name, seconds, processor) for name, seconds, processor in json.loads(output)]


def _run(program: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout.splitlines()[-1]


def _print(title: str, rounds: list[list[tuple[str, float, float]]]) -> None:
    print(f"\n{title}\n   wall    CPU")
    totals = [0.0, 0.0]
    for steps in zip(*rounds, strict=True):
        wall, processor = (statistics.median(step[i] for step in steps) for i in (1, 2))
        totals = [totals[0] + wall, totals[1] + processor]
        print(f"{wall:7.2f} {processor:6.2f}  {steps[0][0]}")
    print(f"{totals[0]:7.2f} {totals[1]:6.2f}  in all")


if __name__ == "__main__":
    main()
