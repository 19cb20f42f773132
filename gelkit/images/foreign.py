"""Foreign files: of which kinds files are that gelkit does not read, and what to do about each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class _Kind:
    """A row of :data:`_KINDS`."""

    name: str
    endings: frozenset[str]
    remedy: str


_KINDS = (
    _Kind(
        "microscope and imager files",
        frozenset(
            [
                ".czi",
                ".lif",
                ".nd2",
                ".oib",
                ".oif",
                ".vsi",
                ".ims",
                ".lsm",
                ".zvi",
                ".mrxs",
                ".svs",
                ".ndpi",
                ".ds",
            ]
        ),
        "export each as a 16-bit TIFF from the program that wrote it",
    ),
    _Kind(
        "documents",
        frozenset(
            [".pdf", ".ps", ".eps", ".ai", ".svg", ".doc", ".docx", ".odt", ".ppt", ".pptx", ".odp"]
        ),
        "save each figure as PNG or TIFF",
    ),
    _Kind(
        "archives",
        frozenset([".zip", ".gz", ".tgz", ".tar", ".7z", ".rar", ".bz2", ".xz"]),
        "unpack them",
    ),
    _Kind(
        "raw photographs",
        frozenset([".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".rw2", ".orf", ".raf"]),
        "develop each into a 16-bit TIFF",
    ),
    _Kind(
        "other pictures",
        frozenset(
            [
                ".dcm",
                ".nii",
                ".fits",
                ".fit",
                ".psd",
                ".xcf",
                ".jxl",
                ".exr",
                ".hdr",
                ".pgm",
                ".ppm",
                ".pnm",
                ".tga",
            ]
        ),
        "save each as TIFF or PNG",
    ),
    _Kind(
        "films",
        frozenset([".mp4", ".mov", ".avi", ".mkv", ".webm"]),
        "save the frame that is the gel as PNG or TIFF",
    ),
    _Kind(
        "tables",
        frozenset({".csv"}),
        "if one is a manifest, give its path instead of the folder",
    ),
    _Kind(
        "spreadsheets",
        frozenset([".xlsx", ".xls", ".ods", ".tsv"]),
        "if one is a manifest, save it as CSV and give its path",
    ),
)
_MOST_ENDINGS = 5


def described(names: Iterable[str]) -> str:
    """Say how many files have which endings, and what to do about kinds that are known."""
    endings = Counter(os.path.splitext(name)[1].lower() for name in names)
    said = []
    for kind in _KINDS:
        its = {ending: endings.pop(ending) for ending in kind.endings & endings.keys()}
        if its:
            said.append(f"{_listed(its)} ({kind.name}: {kind.remedy})")
    if endings:
        said.append(_listed(endings))
    return "; ".join(said)


def _listed(counts: Mapping[str, int]) -> str:
    """Say how many have which ending, the commonest first."""
    endings = sorted(counts, key=lambda ending: (-counts[ending], ending))
    shown = [f"{counts[ending]:,} {ending or 'without ending'}" for ending in endings]
    more = sum(counts[ending] for ending in endings[_MOST_ENDINGS:])
    others = [f"{more:,} others"] if more else []
    return ", ".join([*shown[:_MOST_ENDINGS], *others])
