"""Grouping: which images must not be separated, since one of them gives the other away."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gelkit.errors import UsageError
from gelkit.features.embeddings import Embeddings
from gelkit.images.catalog import CatalogImage
from gelkit.images.formats import DecodedImage, DecodeOptions, Limits, decode
from gelkit.images.linkage import complete_linkage
from gelkit.images.reading import read_bytes, why_unread
from gelkit.images.similarity import near_duplicates
from gelkit.images.views import View, render
from gelkit.progress import Progress, silent
from gelkit.text import counted, inline

logger = logging.getLogger(__name__)

Groups = npt.NDArray[np.int64]
"""(images,): the number of each image's group, from 0."""

FEW_GROUPS = 30
"""Below so many in a class, intervals are wide and a winner is mostly luck."""

_SHOWN_NAMES, _SHOWN_GROUPS = 5, 20

_AS_EMBEDDED = Limits(pixels=sys.maxsize, bytes=sys.maxsize, pages=sys.maxsize)
"""Of bytes that stage one has decoded already: its limits are not known here."""


def group_images(
    embeddings: Embeddings, *, find_near_duplicates: bool = True, progress: Progress = silent
) -> Groups:
    """Return the group of each image.

    Images belong to one group if their files' bytes are equal, so that they are the same or pages
    of one file, if they are near-duplicates, or if the user's catalog says so; all together are
    transitive.

    :param find_near_duplicates: look for them, which reads the images whose hashes are near.
    :raises UsageError: images of one group have different labels; or more images have near hashes
        than can be compared.
    """
    keys = [
        [f"bytes {digest}", *([f"group {image.group}"] if image.group is not None else [])]
        for digest, image in zip(embeddings.file_sha256s, embeddings.images, strict=True)
    ]
    if find_near_duplicates:
        for its_keys, number in zip(keys, _near_groups(embeddings, progress), strict=True):
            its_keys.append(f"alike {number}")
    groups = _connected(keys)
    _require_one_label(embeddings, groups)
    return groups


def find_near_copies(
    embeddings: Embeddings, known: Embeddings, progress: Progress = silent
) -> npt.NDArray[np.bool_]:
    """Return which images are near-duplicates of known images, or pages of their files, (images,).

    :param known: other images, embedded by the same recipe.
    """
    images = (*known.images, *embeddings.images)
    sha256s = (*known.sha256s, *embeddings.sha256s)
    hashes = [its.records["perceptual_hash"] for its in (known, embeddings)]
    pairs = near_duplicates(
        np.concatenate(hashes),
        lambda number: _clean_view(images[number], sha256s[number], embeddings.recipe.decoding),
        known=len(known),
        progress=progress,
    )
    copies = np.isin((*known.file_sha256s, *embeddings.file_sha256s), known.file_sha256s)
    copies[[pair.second for pair in pairs]] = True
    return copies[len(known) :]


def require_splittable(embeddings: Embeddings, groups: Groups, folds: int) -> None:
    """Check that there is enough to cross-validate on; log a warning where there is little.

    :raises UsageError: classes with fewer than two groups for each fold, or a group so large that
        it would fill more than a fold of its class. The folds that the message advises are enough.
    """
    classes = [
        _Class.of(name, np.flatnonzero(embeddings.targets == number), groups)
        for number, name in enumerate(embeddings.classes)
    ]
    possible = min(its.most_folds for its in classes)
    fewer = f", or use --folds {possible}" if possible > 1 else ""
    _require_enough(classes, folds, fewer)
    for its in classes:
        if len(its.largest) * folds > len(its.members):
            raise UsageError(
                f"Expected no group larger than a fold of its class, {len(its.members)} / {folds} "
                f"= {len(its.members) / folds:.1f} images. Received: {len(its.largest)} images of "
                f"{its.name!r} that are near-identical or of one group "
                f"({_listed(embeddings, its.largest)}). Keep some of them only{fewer}."
            )
    _warn_of_few(classes)


def _near_groups(embeddings: Embeddings, progress: Progress) -> Groups:
    """Return the near-duplicates' groups; the same image counts once."""
    _, first, position = np.unique(embeddings.sha256s, return_index=True, return_inverse=True)
    identities = [embeddings.sha256s[i] for i in first]
    pairs = near_duplicates(
        embeddings.records["perceptual_hash"][first],
        lambda number: _clean_view(
            embeddings.images[first[number]], identities[number], embeddings.recipe.decoding
        ),
        progress=progress,
    )
    groups: Groups = complete_linkage(pairs, identities)[position]
    return groups


def _clean_view(image: CatalogImage, sha256: str, decoding: DecodeOptions) -> View:
    return render(decode_again(image, sha256, decoding))


def decode_again(image: CatalogImage, sha256: str, decoding: DecodeOptions) -> DecodedImage:
    """Decode an image that stage one has decoded, within limits that it was given then.

    :param sha256: what the image is known by.
    :param decoding: the recipe's; the image's own page and channel come before that.
    :raises UsageError: the file has gone, or holds other bytes.
    """
    try:
        data = read_bytes(image.path, sys.maxsize)
    except OSError as error:
        raise _changed(image, why_unread(error)) from error
    if image.identity(hashlib.sha256(data).hexdigest()) != sha256:
        raise _changed(image, "other bytes")
    return decode(data, image.chosen_from(decoding), _AS_EMBEDDED)


def _changed(image: CatalogImage, received: str) -> UsageError:
    return UsageError(
        f"Expected {str(image.path)!r} as it was when it was embedded. Received: {received}. Embed "
        "what is there now: gelkit features DATA"
    )


def _require_one_label(embeddings: Embeddings, groups: Groups) -> None:
    """Check the labels of each group.

    :raises UsageError: some differ; all such groups are named, as far as a screen goes.
    """
    torn = [
        members
        for members in (np.flatnonzero(groups == group) for group in np.unique(groups))
        if len({embeddings.labels[i] for i in members}) > 1
    ]
    if not torn:
        return
    more = len(torn) - _SHOWN_GROUPS
    received = [
        f"  {' and '.join(_with_label(embeddings, i) for i in members[:_SHOWN_NAMES])}"
        for members in torn[:_SHOWN_GROUPS]
    ]
    digests = np.array(embeddings.file_sha256s)
    differ = any(len(set(digests[members])) == len(members) for members in torn)
    keep_apart = "; those that only look alike --no-near-duplicates keeps apart" if differ else ""
    raise UsageError(
        "\n".join(
            [
                "Expected one label for images that are equal, near-identical, of one group, or "
                "pages or channels of one file. "
                f"Received {counted(len(torn), 'such set')} with several:",
                *received,
                *([f"  and {more} more"] if more > 0 else []),
                f"Decide which label is right, and remove or move the others{keep_apart}.",
            ]
        )
    )


def _with_label(embeddings: Embeddings, number: int) -> str:
    image = embeddings.images[number]
    return f"{image.full_name!r} as {embeddings.labels[number]!r}"


@dataclass(frozen=True)
class _Class:
    """What decides into how many folds a class can be split."""

    name: str
    members: npt.NDArray[np.intp]
    """The places of its images."""
    num_groups: int
    largest: npt.NDArray[np.intp]
    """The places of the images of its largest group."""

    @classmethod
    def of(cls, name: str, members: npt.NDArray[np.intp], groups: Groups) -> _Class:
        its_groups, sizes = np.unique(groups[members], return_counts=True)
        largest = members[groups[members] == its_groups[sizes.argmax()]]
        return cls(name, members, len(its_groups), largest)

    @property
    def most_folds(self) -> int:
        """Of so many each has two groups, and none is filled by one."""
        return min(self.num_groups // 2, len(self.members) // len(self.largest))


def _require_enough(classes: Sequence[_Class], folds: int, fewer: str) -> None:
    small = [its for its in classes if its.num_groups < 2 * folds]
    if small:
        counts = [
            f"{its.num_groups} in {its.name!r} ({counted(len(its.members), 'image')})"
            for its in sorted(small, key=lambda its: its.num_groups)
        ]
        of_all = ""
        if len(small) > _SHOWN_NAMES:
            of_all = f" (of {len(classes):,} classes {len(small):,} are too small)"
        raise UsageError(
            f"Expected at least {2 * folds} groups in each class, two for each of {folds} folds. "
            f"Received: {inline(counts, _SHOWN_NAMES)}{of_all}. "
            "Near-identical images are one group. Add images, join or leave out classes that are "
            f"too small{fewer}."
        )


def _warn_of_few(classes: Sequence[_Class]) -> None:
    few = [its for its in classes if its.num_groups < FEW_GROUPS]
    if not few:
        return
    counts = [
        f"{its.num_groups} in {its.name!r} ({counted(len(its.members), 'image')})"
        for its in sorted(few, key=lambda its: its.num_groups)
    ]
    logger.warning(
        "%s few groups, %s: below %d no interval is narrow, and the best configuration may be so "
        "by luck",
        "1 class has" if len(few) == 1 else f"{len(few):,} classes have",
        inline(counts, _SHOWN_NAMES),
        FEW_GROUPS,
    )


def _listed(embeddings: Embeddings, index: Sequence[int] | npt.NDArray[np.intp]) -> str:
    names = [embeddings.images[i].name for i in index]
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def _connected(keys: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
    """Number the connected components of images that share a key (union-find)."""
    parents = list(range(len(keys)))

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    owner: dict[str, int] = {}
    for i, image_keys in enumerate(keys):
        for key in image_keys:
            parents[root(i)] = root(owner.setdefault(key, i))
    _, numbers = np.unique([root(i) for i in range(len(keys))], return_inverse=True)
    return numbers.astype(np.int64)
