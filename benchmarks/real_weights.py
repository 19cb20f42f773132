"""What real weights change: every figure that depends on embeddings, beside random weights.

    python benchmarks/real_weights.py DATA [--elsewhere DIR ...] [--backbone efficientnet-lite0 ...]

DATA has a sub-folder for each class. For each backbone, with random and with ImageNet weights: how
far each kernel and precision is from plain torch's float32; how often the nearest image of another
group has the same label; what the four heads reach in cross-validation; and by gelkit's own rules,
as ``gelkit predict`` applies them, how often a temperature is applied and what it does on held-out
groups, how much is unsure, and how much is far: of DATA, of photographs that scikit-image ships, of
drawn gels and look-alikes, and of each DIR (another laboratory's images, whose labels, if its
sub-folders name any, say which answers are wrong). Heads are trained with --seeds seeds, over which
counts are means. In parentheses: n, and exact 95% intervals (Clopper and Pearson) of rates; where n
counts groups, one of which may be right in some repeats only, at the mean count.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import skimage
from duplicates import one_of_each_group
from scipy.stats import beta

import gelkit
from gelkit.analyses.neighbors import nearest_others, row_cosines
from gelkit.analyses.prediction import Predicted, Prediction
from gelkit.features.backbones import get_backbone
from gelkit.features.embeddings import Embeddings
from gelkit.features.hardware import describe_processor
from gelkit.features.recipe import CPU_KERNELS
from gelkit.features.weights import find_weights
from gelkit.features.weights_files import WeightsError
from gelkit.images.catalog import Catalog

WEIGHTS = ("random", "imagenet")
MAX_ERRORS = (0.05, 0.1)
"""Of sure answers, asked for in turn."""

PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png"),
    *("coffee.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"),
    *("moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
"""Those of scikit-image that come with it and that no program drew."""

Figures = dict[str, str]
"""What was measured, in the order of the table, and how it came out."""


@dataclass(frozen=True)
class Measured:
    """One network on one data set."""

    backbone: str
    weights: str
    catalog: Catalog
    folder: Path
    """For caches and results."""

    def options(self, **chosen: str | bool) -> gelkit.RecipeOptions:
        """Return the recipe's options, with these weights."""
        return gelkit.RecipeOptions(weights=self.weights, **chosen)  # type: ignore[arg-type]

    def embeddings(self, hardware: str = "cpu", **chosen: str | bool) -> Embeddings:
        """Embed the data set."""
        return gelkit.extract(
            self.catalog,
            backbone=self.backbone,
            hardware=hardware,
            cache=self.folder / "features",
            options=self.options(**chosen),
        )


def main() -> None:
    """Print a table for each backbone."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--elsewhere", nargs="+", default=[], metavar="DIR")
    parser.add_argument("--backbone", nargs="+", default=["efficientnet-lite0"])
    parser.add_argument("--drawn", type=int, default=120, help="drawn samples, half of them gels")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each head")
    parser.add_argument("--keep", type=Path, help="a folder for caches and heads, to go on from")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.keep or Path(name)
        others = {**made_here(folder, asked.drawn), **{its: Path(its) for its in asked.elsewhere}}
        catalog = gelkit.read_catalog(asked.data)
        print(f"{len(catalog)} images of {asked.data}; {describe_processor()}")
        for backbone in asked.backbone:
            tables = {
                weights: measure(Measured(backbone, weights, catalog, folder), others, asked.seeds)
                for weights in WEIGHTS
                if can_be_had(backbone, weights)
            }
            print_table(backbone, tables)


def made_here(folder: Path, drawn: int) -> dict[str, Path]:
    """Put photographs and drawn samples into folders; return these by what they hold."""
    if not (folder / "drawn").exists():
        gelkit.draw_samples(folder / "drawn", count=drawn)
    (folder / "photographs").mkdir(exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder / "photographs")
    return {
        "photographs": folder / "photographs",
        "drawn gels": folder / "drawn" / "gel",
        "drawn look-alikes": folder / "drawn" / "not_gel",
    }


def can_be_had(backbone: str, weights: str) -> bool:
    """Tell whether there are such weights, and print why not."""
    try:
        if weights != "random":
            find_weights(get_backbone(backbone), weights)
    except WeightsError as error:
        print(f"\nNo {weights} weights of {backbone}: {error}")
        return False
    return True


def measure(network: Measured, others: Mapping[str, Path], seeds: int) -> Figures:
    """Measure all there is, in the order of the table."""
    embeddings = network.embeddings()
    figures = dict(kernels(network, embeddings))
    figures["nearest of another group has the same label"] = neighbours(embeddings)
    runs = [trained(network, seed) for seed in range(seeds)]
    figures |= accuracies(runs)
    catalog = gelkit.read_catalog(*others.values())
    ids = [int(number) for number in runs[0][1]["model_id"]]
    for max_error in MAX_ERRORS:
        predicted = [
            gelkit.predict(
                out, catalog, model=number, cache=network.folder / "features", max_error=max_error
            )
            for out, _ in runs
            for number in ids
        ]
        if max_error == MAX_ERRORS[0]:
            figures |= temperatures(predicted)
            figures |= novelties(predicted[:: len(ids)], others)
            figures |= recognised(predicted, others)
        figures |= certainties(predicted, others, max_error)
    return figures


def kernels(network: Measured, plain: Embeddings) -> Iterator[tuple[str, str]]:
    """Compare every kernel and precision that is installed with plain torch in float32."""
    for name, kernel in CPU_KERNELS.items():
        for precision in kernel.precisions:
            same = (name, precision) == ("torch", "float32")
            if importlib.util.find_spec(kernel.package) is not None and not same:
                its = network.embeddings(kernel=name, precision=precision)
                yield f"{name}, {precision}, against torch, float32", agreement(its, plain)
    if importlib.util.find_spec("torch_xla") is not None:
        its = network.embeddings("tpu", emulate_tpu=True)
        yield "XLA:CPU (emulated tpu), against torch, float32", agreement(its, plain)


def agreement(its: Embeddings, plain: Embeddings) -> str:
    """Say how far embeddings are from others of the same images."""
    cosines = row_cosines(its.values, plain.values)
    most = np.abs(its.values - plain.values).max() / np.abs(plain.values).max()
    return (
        f"cosine at least {cosines.min():.6f}, median {np.median(cosines):.6f}; "
        f"difference at most {most:.1e} of the largest value (n {len(its)})"
    )


def neighbours(embeddings: Embeddings) -> str:
    """Say how often the nearest image of another group has the same label; one image of each."""
    apart = one_of_each_group(embeddings)
    nearest = nearest_others(apart.values, 1).numbers[:, 0]
    return rate(float((apart.targets == apart.targets[nearest]).sum()), len(apart), "groups")


def trained(network: Measured, seed: int) -> tuple[Path, pd.DataFrame]:
    """Train the four heads; return their folder and results."""
    out = network.folder / f"{network.backbone}-{network.weights}-{seed}".replace("/", "-")
    results = gelkit.compare(
        network.catalog,
        cache=network.folder / "features",
        out=out,
        configurations=gelkit.choose_configurations(("cpu",), (network.backbone,)),
        options=network.options(),
        settings=gelkit.Settings(seed=seed),
    )
    return out, results


def accuracies(runs: Sequence[tuple[Path, pd.DataFrame]]) -> Figures:
    """Return what each head reaches in cross-validation: of the first seed, and over all."""
    first = runs[0][1]
    figures = {}
    for place, row in enumerate(first.to_dict("records")):
        every = [float(results["accuracy"].iloc[place]) for _, results in runs]
        figures[f"cross-validated accuracy, {row['classifier_head']} {row['opt_alg']}"] = (
            f"{row['accuracy']:.3f} ({row['accuracy_low']:.3f} to {row['accuracy_high']:.3f} by "
            f"gelkit's interval, n {row['n_groups']} groups; {spread(every)} over seeds)"
        )
    return figures


def temperatures(predicted: Sequence[Predicted]) -> Figures:
    """Return how often the temperature is applied, and what it does on held-out groups."""
    found = [its.reliability.temperature for its in predicted]
    applied = sum(its.applied for its in found)
    worse = sum(its.applied and its.scaled_brier > its.brier for its in found)
    log_losses, briers = (
        [f"{np.mean([getattr(its, name) for its in found]):.4f}" for name in names]
        for names in (("log_loss", "scaled_log_loss"), ("brier", "scaled_brier"))
    )
    return {
        "temperature applied, of heads and seeds": f"{applied} of {len(found)}, of which the "
        f"Brier score is worse for it on held-out groups in {worse}",
        "temperatures": spread([its.temperature for its in found]),
        "held-out log loss, without and with": " and ".join(log_losses),
        "held-out Brier score, without and with": " and ".join(briers),
    }


def novelties(predicted: Sequence[Predicted], others: Mapping[str, Path]) -> Figures:
    """Return how much is far: held-out images like the training ones, and others.

    :param predicted: of one head of each seed; the rule does not look at heads.
    """
    rules = [its.reliability.novelty for its in predicted]
    groups = rules[0].num_groups
    alarms = groups * float(np.mean([its.measured_false_alarms for its in rules]))
    figures = {"far: held-out groups like the training ones": rate(alarms, groups, "groups")}
    for name, chosen in by_folder(predicted[:1], others).items():
        figures[f"far: {name}"] = rate(sum(its.far for its in chosen), len(chosen))
    return figures


def recognised(predicted: Sequence[Predicted], others: Mapping[str, Path]) -> Figures:
    """Return how many images with a known label are given it, sure or not, over heads and seeds."""
    figures = {}
    for name, path in others.items():
        shares = [
            np.mean([is_right(its, path) for its in in_folder(one, path)])
            for one in predicted
            if has_labels(one, path)
        ]
        if shares:
            count = len(in_folder(predicted[0], path))
            figures[f"right: {name}"] = f"{spread(shares)} over heads and seeds (n {count})"
    return figures


def certainties(
    predicted: Sequence[Predicted], others: Mapping[str, Path], max_error: float
) -> Figures:
    """Return how much is unsure, and how often sure answers are wrong."""
    asked = f"at most {max_error:.0%} wrong"
    rules = [its.reliability.abstention for its in predicted]
    groups = rules[0].num_groups
    without = sum(its.threshold is None for its in rules)
    unsure = float(np.mean([its.unsure if its.threshold is not None else 1 for its in rules]))
    figures = {
        f"{asked}: no threshold can be shown, of heads and seeds": f"{without} of {len(rules)}",
        f"{asked}: unsure, of held-out groups like the training ones": rate(
            unsure * groups, groups, "groups"
        ),
    }
    for name, chosen in by_folder(predicted, others).items():
        sure = [its for its in chosen if its.sure]
        images = len(chosen) // len(predicted)
        figures[f"{asked}: unsure, {name}"] = rate(images * (1 - len(sure) / len(chosen)), images)
        if has_labels(predicted[0], others[name]) and sure:
            wrong = np.mean([not is_right(its, others[name]) for its in sure])
            figures[f"{asked}: wrong among the sure, {name}"] = (
                f"{wrong:.3f} (n {len(sure)} answers for {images} images)"
            )
    return figures


def by_folder(
    predicted: Sequence[Predicted], others: Mapping[str, Path]
) -> dict[str, list[Prediction]]:
    """Sort all predictions by the folder that the image is in."""
    return {
        name: [its for one in predicted for its in in_folder(one, path)]
        for name, path in others.items()
    }


def in_folder(predicted: Predicted, folder: Path) -> list[Prediction]:
    """Return the predictions for the images of a folder."""
    inside = folder.resolve()
    return [its for its in predicted.predictions if Path(its.path).resolve().is_relative_to(inside)]


def has_labels(predicted: Predicted, folder: Path) -> bool:
    """Tell whether a folder, or its sub-folders, are named as classes."""
    return all(
        label_of(its, folder) in predicted.head.classes for its in in_folder(predicted, folder)
    )


def is_right(prediction: Prediction, folder: Path) -> bool:
    """Tell whether the most probable class is the label."""
    return prediction.predicted == label_of(prediction, folder)


def label_of(prediction: Prediction, folder: Path) -> str:
    """Return the name of the sub-folder that an image is in, or the folder's own."""
    below = Path(prediction.path).resolve().relative_to(folder.resolve())
    return below.parts[0] if len(below.parts) > 1 else folder.resolve().name


def rate(count: float, total: int, of: str = "images") -> str:
    """Give a rate with its exact interval; a mean count need not be whole."""
    low = beta.ppf(0.025, count, total - count + 1) if count > 0 else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return f"{count / total:.3f} ({low:.3f} to {high:.3f}, n {total} {of})"


def spread(values: Sequence[float]) -> str:
    """Give the least, the mean and the largest."""
    return f"{np.min(values):.3f} to {np.max(values):.3f}, mean {np.mean(values):.3f}"


def print_table(backbone: str, tables: Mapping[str, Figures]) -> None:
    """Print what was measured, the weights side by side."""
    print(f"\n| {backbone} | {' | '.join(tables)} |")
    print("|---" * (1 + len(tables)) + "|")
    names = dict.fromkeys(name for figures in tables.values() for name in figures)
    for name in names:
        print(f"| {name} | {' | '.join(its.get(name, '') for its in tables.values())} |")


if __name__ == "__main__":
    main()
