"""Methods: the paragraph that a paper needs, with the numbers of the run, and its references."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import gelkit
from gelkit.features.backbones import BACKBONES
from gelkit.heads.architectures import HEADS
from gelkit.heads.intervals import estimand
from gelkit.text import quoted

if TYPE_CHECKING:
    from gelkit.report.contents import Contents

_PACKAGES = ("torch", "torchvision", "keras", "scikit-learn", "numpy", "Pillow")


@dataclass(frozen=True)
class Reference:
    """A publication that the methods name."""

    text: str
    url: str


REFERENCES: Mapping[str, Reference] = {
    "Tsamardinos et al. 2018": Reference(
        "Tsamardinos I, Greasidou E, Borboudakis G. Bootstrapping the out-of-sample predictions "
        "for efficient and accurate cross-validation. Machine Learning 107, 1895-1922 (2018).",
        "https://doi.org/10.1007/s10994-018-5714-4",
    ),
    "Hansen et al. 2011": Reference(
        "Hansen PR, Lunde A, Nason JM. The model confidence set. Econometrica 79, 453-497 (2011).",
        "https://doi.org/10.3982/ECTA5771",
    ),
    "Nadeau and Bengio 2003": Reference(
        "Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning 52, 239-281 "
        "(2003).",
        "https://doi.org/10.1023/A:1024068626366",
    ),
    "Holm 1979": Reference(
        "Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
        "Statistics 6, 65-70 (1979).",
        "https://www.jstor.org/stable/4615733",
    ),
    "Northcutt et al. 2021": Reference(
        "Northcutt CG, Jiang L, Chuang IL. Confident learning: estimating uncertainty in dataset "
        "labels. Journal of Artificial Intelligence Research 70, 1373-1411 (2021).",
        "https://doi.org/10.1613/jair.1.12125",
    ),
}
"""By how the text names them; a reference is listed if the text does."""


def describe_methods(contents: Contents) -> list[str]:
    """Say how the figures came about, in sentences that a paper can take over."""
    paragraphs = (
        _of_embeddings(contents),
        _of_heads(contents),
        _of_protocol(contents),
        _of_inference(contents),
        _of_test_set(contents),
        _of_software(),
    )
    return [text for text in map(" ".join, paragraphs) if text]


def list_references(text: str) -> list[Reference]:
    """Return the references that a text names, in the order of the table."""
    return [reference for name, reference in REFERENCES.items() if name in text]


def package_versions() -> dict[str, str]:
    """Return the versions of what is installed that figures depend on, gelkit first."""
    versions = {"gelkit": gelkit.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _of_embeddings(contents: Contents) -> Iterator[str]:
    results = contents.results
    used = results.drop_duplicates("pretrained_model")
    named = [
        f"{name} ({_cited(name)}weights {weights})"
        for name, weights in zip(used["pretrained_model"], used["weights"], strict=True)
    ]
    devices = _joined(sorted(set(results["device"])))
    yield (
        f"Every image was passed once through each of {len(named)} frozen backbones: "
        f"{_joined(named)}, on {devices}, in {_joined(sorted(set(results['numeric_precision'])))}."
    )
    if contents.best is not None:
        recipe = contents.best.recipe
        yield (
            f"Backbones were shown the whole image in grey, {recipe.view_size} x "
            f"{recipe.view_size} pixels (geometry {recipe.geometry}, window {recipe.window}, "
            f"polarity {recipe.polarity}), and gave what enters their classifier as embedding."
        )


def _of_heads(contents: Contents) -> Iterator[str]:
    results = contents.results
    heads = [_described(name) for name in dict.fromkeys(results["classifier_head"])]
    optimizers = _joined(list(dict.fromkeys(results["opt_alg"])))
    yield (
        f"On standardised embeddings, {len(results)} configurations of hardware, backbone, head "
        f"and optimizer were trained with Keras; heads: {'; '.join(heads)}; optimizers: "
        f"{optimizers}."
    )
    if contents.best is not None:
        settings = contents.best.settings
        rate = (
            f"a learning rate chosen from {_joined(list(map(str, settings.learning_rates)))}"
            if settings.learning_rates
            else f"a learning rate of {settings.learning_rate:g}"
        )
        weighted = ", classes weighted by the inverse of their frequency" * settings.class_weights
        stopped = " at most" * bool(settings.early_stopping)
        yield (
            f"Training minimised cross-entropy with {rate} in batches of {settings.batch_size} "
            f"over{stopped} {settings.epochs} epochs{weighted} (seed {settings.seed})."
        )


def _of_protocol(contents: Contents) -> Iterator[str]:
    first = contents.results.iloc[0]
    classes = [quoted(name) for name in first["classes"]]
    yield (
        f"Configurations were compared on {first['n_images']} images in {first['n_groups']} groups "
        f"(classes {_joined(classes)}) by {first['repeats']} repeats of "
        f"{first['folds']}-fold cross-validation, stratified by class, with the same splits for "
        "all."
    )
    alike = contents.best is None or contents.best.settings.near_duplicates
    yield (
        f"Images with equal bytes{', near-duplicates' * alike} and images of one group of the "
        "data set were never separated by a split."
    )
    yield f"Figures are those of {estimand(int(first['folds']))}."


def _of_inference(contents: Contents) -> Iterator[str]:
    if contents.assessment is not None:
        answer = contents.assessment.answer
        yield (
            "The best configuration was chosen by accuracy; as that is optimistic, its accuracy of "
            f"{answer.raw_score:.3f} was corrected for the choice by the bootstrap of "
            f"out-of-fold predictions (Tsamardinos et al. 2018) to {answer.corrected_score:.3f} "
            f"(95% interval {answer.interval.low:.3f} to {answer.interval.high:.3f}); whole groups "
            "were resampled."
        )
        yield (
            "Configurations were called tied if they are in the 95% model confidence set (Hansen "
            f"et al. 2011): {len(answer.tied)} of {len(contents.results)}."
        )
        yield (
            "Differences along each axis were tested by the corrected resampled t test (Nadeau and "
            f"Bengio 2003), adjusted for {len(contents.assessment.contrasts)} tests (Holm 1979)."
        )
    if contents.rechecks is not None:
        yield (
            f"Likely label errors ({len(contents.rechecks)}) were found by confident learning "
            "(Northcutt et al. 2021) on out-of-fold probabilities, means over repeats and tied "
            "configurations."
        )


def _of_test_set(contents: Contents) -> Iterator[str]:
    first = contents.results.iloc[0]
    if first["test_fingerprint"]:
        yield (
            f"Heads that were fitted on all images were scored once more on a test set of "
            f"{first['test_n_images']} images, {first['test_overlap']} of which are also training "
            f"images or nearly, at look {first['test_looks']}; it chose nothing."
        )


def _of_software() -> Iterator[str]:
    others = [f"{name} {number}" for name, number in package_versions().items()]
    yield f"Software, as installed when this report was written: {_joined(others)}."


def _cited(backbone: str) -> str:
    row = BACKBONES.get(backbone)
    return f"{row.citation}; " if row else ""


def _described(head: str) -> str:
    about = (inspect.getdoc(HEADS[head]) or "") if head in HEADS else ""
    sentence = about.partition("\n")[0].removeprefix("Build ").rstrip(".")
    return f"{head} ({sentence})" if sentence else head


def _joined(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)
