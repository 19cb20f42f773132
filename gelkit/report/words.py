"""Words: what the terms of a report mean, for readers who classify gels and not for a living."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "backbone": (
        "A network that was trained on photographs (ImageNet), or has random weights. It is not "
        "trained on your images: it turns each into an embedding."
    ),
    "embedding": (
        "The few hundred to thousand numbers that a backbone gives for an image; images that look "
        "alike to it have similar ones."
    ),
    "head": "The small classifier that is trained on your images' embeddings.",
    "recipe": (
        "Everything that decides an embedding: backbone, weights, how an image is read and shown, "
        "precision, hardware."
    ),
    "group": (
        "Images that must not be separated by a split, since one gives the other away: equal, "
        "near-identical, or said to belong together. An image of its own is a group of one."
    ),
    "out-of-fold": (
        "Of an image that the head was not trained on: in cross-validation each fold of the images "
        "is left out once, and predicted by a head that was trained on the others."
    ),
    "balanced accuracy": (
        "The mean over the classes of the share of their images that was right; a frequent class "
        "counts no more than a rare one."
    ),
    "weighted by image": "Every image counts the same, so a large group counts more than a small.",
    "ROC AUC": (
        "The probability that an image of the class gets a higher score than one of another class: "
        "0.5 is guessing, 1 perfect order. It needs no threshold."
    ),
    "Brier score": (
        "The mean squared error of the probabilities: 0 is perfect; being sure and wrong costs "
        "most."
    ),
    "tied": (
        "Not to be told from the best with so many groups: a member of the model confidence set. "
        "It does not mean equally good."
    ),
    "model confidence set": (
        "The configurations among which the truly best one is with 95% confidence (Hansen, Lunde "
        "and Nason 2011)."
    ),
    "calibration": (
        "Whether probabilities mean what they say: of the answers given with 0.9, nine of ten are "
        "right."
    ),
    "temperature scaling": (
        "One number by which all answers of a head are made less or more sure, such that they are "
        "calibrated; which class is the most probable stays."
    ),
    "Holm": (
        "A correction of p-values for having made several tests at once (Holm 1979): without it "
        "some would look significant by chance."
    ),
    "p of lagging": (
        "On the test set, how often chance alone would make a configuration differ from the one "
        "that cross-validation chose by as much as it does, adjusted by Holm. A small one says "
        "that the difference is real."
    ),
}
"""Terms and their meanings, as the report and the page *Read the results* of the docs show them."""
