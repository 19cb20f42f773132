"""Listings: what is in a data set, and how it was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from gelkit.features.surveys import Survey
from gelkit.images.catalog import Catalog
from gelkit.images.formats import FLAGS
from gelkit.images.inspection import MOST_SHRINKING, SHRUNK, Inspected
from gelkit.images.spellings import find_alike, spelled
from gelkit.text import counted, inline, quoted

_MOST_CLASSES = 10
"""Of more only some are named."""
_MEANINGS = FLAGS | {
    "saturated": f"{FLAGS['saturated']}, as in many photographs; what they showed is lost: expose "
    "gels less",
    SHRUNK: f"more than {MOST_SHRINKING:g} times larger than what is shown: thin bands vanish",
}


def describe_survey(catalog: Catalog, found: Survey) -> str:
    """Say what is in a data set and how it was read, without the images that failed."""
    return "\n".join(_lines(catalog, found))


def _lines(catalog: Catalog, found: Survey) -> Iterator[str]:
    labels = Counter(image.label for image in catalog.images if image.label is not None)
    named = f" ({_classes(labels)})" if labels else ""
    yield f"{counted(len(catalog), 'image')}{named}, {len(found.images):,} read:"
    if not labels:
        yield "No labels: gelkit heads needs a folder for each class, or a manifest with labels."
    for alike in find_alike(labels):
        yield f"Spelled alike, which gelkit heads refuses: {spelled(alike)}. Make them one."
    yield from _kinds(found.images)
    remarks = Counter(remark for image in found.images for remark in image.remarks)
    if remarks:
        yield "\nHow they were read:"
        yield from (
            f"{remarks[name]:>8}  {name}: {meaning}"
            for name, meaning in _MEANINGS.items()
            if name in remarks
        )
    yield f"\nBackground: {_backgrounds(found.images)}"


def _classes(labels: Mapping[str, int]) -> str:
    """Name the classes with their numbers of images; of many, how many and how large they are."""
    named = inline([f"{quoted(label)} {count}" for label, count in sorted(labels.items())])
    if len(labels) <= _MOST_CLASSES:
        return named
    return f"{len(labels):,} classes of {_range(labels.values())} images: {named}"


def _kinds(images: Sequence[Inspected]) -> Iterator[str]:
    kinds: dict[tuple[str, str, int], list[Inspected]] = {}
    for image in images:
        record = image.record
        kinds.setdefault((record.format, record.mode, record.bit_depth), []).append(image)
    yield f"{'images':>8}  {'format':8} {'stored as':10} {'bits':>4}  width x height"
    for (name, mode, bits), its in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        widths = _range(image.record.width for image in its)
        heights = _range(image.record.height for image in its)
        yield f"{len(its):>8}  {name:8} {mode:10} {bits:>4}  {widths} x {heights}"


def _range(values: Iterable[int]) -> str:
    numbers = sorted(values)
    return f"{numbers[0]} to {numbers[-1]}" if numbers[0] != numbers[-1] else f"{numbers[0]}"


def _backgrounds(images: Sequence[Inspected]) -> str:
    counts = Counter(
        (image.record.polarity, image.record.polarity_source)
        for image in images
        if image.record.polarity_source != "unknown"
    )
    told = [f"{count} {its} (by {source})" for (its, source), count in sorted(counts.items())]
    silent = len(images) - sum(counts.values())
    untold = [f"{silent} unknown (the file does not tell)"] if silent else []
    return ", ".join([*told, *untold]) or "no image was read"


def survey_table(found: Survey) -> pd.DataFrame:
    """Return a table with a row for each image: how it was read, or why it was not."""
    rows = [_row(image) for image in found.images]
    rows += [
        {"path": failure.name, "sha256": failure.sha256, "error": failure.error}
        for failure in found.failures
    ]
    return pd.DataFrame(rows, dtype=object)  # whole numbers stay so beside empty cells


def _row(image: Inspected) -> dict[str, object]:
    record = image.record
    return {
        "path": image.name,
        "sha256": image.sha256,
        "bytes": image.n_bytes,
        "format": record.format,
        "stored_as": record.mode,
        "width": record.width,
        "height": record.height,
        "bit_depth": record.bit_depth,
        "maximum": record.maximum,
        "background": record.polarity,
        "background_by": record.polarity_source,
        "orientation": record.orientation,
        "page": record.page,
        "pages": record.pages,
        "channel": record.channel,
        "channels": record.channels,
        "saturated": record.saturated,
        "shrinking": image.shrinking,
        "flags": " ".join(image.remarks),
        "error": "",
    }
