"""How well altered copies of images are found, and how often different images are taken for copies.

    python benchmarks/duplicates.py DATA [--drawn 300] [--weights imagenet] [--backbone resnet18]
    python benchmarks/duplicates.py --times [--images 100000] [--widths 512 1280 4096]

The first alters each image of DATA (of near-duplicates in it, one), looks for the pairs among the
originals and each kind of copies, and prints per alteration the recall, with exact 95% intervals
(Clopper and Pearson), of plain perceptual hashes (ImageHash, at most 10 of 64 bits: N. Krawetz,
Looks like it, 2011), of gelkit's hash in any orientation and polarity, of the nearest embedding and
of the ten nearest, and of ``find_duplicates``, which confirms what hash and embedding propose. Then
the false alarms per million pairs of different images, drawn samples among them. The second times
the exact search on made-up embeddings against plain products of the same shape in the same run, and
measures how much of it the approximate index finds.

It is a search for whole images: lanes that were used again and splices are not looked for.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import binomtest

import gelkit
from gelkit.analyses.approximate import approximate_nearest_others
from gelkit.analyses.duplicates import find_duplicates
from gelkit.analyses.hashes import hash_distances, near_hashes
from gelkit.analyses.neighbors import nearest, nearest_others
from gelkit.features.embeddings import Embeddings
from gelkit.heads.grouping import decode_again, group_images
from gelkit.images.catalog import Catalog
from gelkit.images.similarity import MAX_DISTANCE

PLAIN_DISTANCE = 10
NEIGHBOURS = 10
Picture = np.ndarray
Alteration = Callable[[Picture, np.random.Generator], Picture]


def resaved(quality: int) -> Alteration:
    """Save as JPEG."""

    def alter(picture: Picture, _: np.random.Generator) -> Picture:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return alter


def resized(scale: float) -> Alteration:
    """Scale both sides."""

    def alter(picture: Picture, _: np.random.Generator) -> Picture:
        height, width = (max(8, round(side * scale)) for side in picture.shape)
        return np.asarray(
            Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        )

    return alter


def cropped(height_off: float, width_off: float) -> Alteration:
    """Cut these fractions of height and width off, at a random place."""

    def alter(picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = (
            round(side * (1 - off))
            for side, off in zip(picture.shape, (height_off, width_off), strict=True)
        )
        top = rng.integers(0, picture.shape[0] - height + 1)
        left = rng.integers(0, picture.shape[1] - width + 1)
        return picture[top : top + height, left : left + width]

    return alter


def toned(change: Callable[[Picture], Picture]) -> Alteration:
    """Change the tones, from 0 to 1."""
    return lambda p, _: np.rint(255 * change(p / 255).clip(0, 1)).astype(np.uint8)


def annotated(picture: Picture, rng: np.random.Generator) -> Picture:
    """Write lane numbers, a caption and a pointer over it."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    height, width = picture.shape
    font = ImageFont.load_default(size=max(8, height // 18))
    for lane in range(6):
        place = (width * (lane + 0.3) / 6, 0.02 * height)
        draw.text(place, str(rng.integers(1, 99)), 255, font, stroke_width=1, stroke_fill=0)
    draw.text((0.05 * width, 0.88 * height), "Fig. 2B", 255, font, stroke_width=1, stroke_fill=0)
    draw.line((0.6 * width, 0.4 * height, 0.55 * width, 0.45 * height), 255, 2)
    return np.asarray(image)


def together(*alterations: Alteration) -> Alteration:
    """Do one after the other."""

    def alter(picture: Picture, rng: np.random.Generator) -> Picture:
        for alteration in alterations:
            picture = alteration(picture, rng)
        return picture

    return alter


def turned(quarters: int) -> Alteration:
    """Turn counterclockwise."""
    return lambda p, _: np.rot90(p, quarters)


def mirrored(picture: Picture, _: np.random.Generator) -> Picture:
    """Exchange left and right."""
    return picture[:, ::-1]


def inverted(picture: Picture, _: np.random.Generator) -> Picture:
    """Exchange black and white."""
    return 255 - picture


ALTERATIONS: dict[str, Alteration] = {
    "JPEG, quality 90": resaved(90),
    "JPEG, quality 60": resaved(60),
    "JPEG, quality 30": resaved(30),
    "half the size": resized(0.5),
    "a quarter of the size": resized(0.25),
    "5% cropped": cropped(0.05, 0.05),
    "10% cropped": cropped(0.1, 0.1),
    "20% cropped": cropped(0.2, 0.2),
    "30% cropped": cropped(0.3, 0.3),
    "40% cropped": cropped(0.4, 0.4),
    "30% cropped of the width": cropped(0.0, 0.3),
    "mirrored": mirrored,
    "upside down, mirrored": together(turned(2), mirrored),
    "turned by 90": turned(1),
    "turned by 180": turned(2),
    "turned by 270": turned(3),
    "inverted": inverted,
    "half the contrast": toned(lambda p: 0.25 + 0.5 * p),
    "gamma 0.5": toned(lambda p: p**0.5),
    "gamma 2": toned(lambda p: p**2),
    "annotated": annotated,
    "mirrored, 10% cropped": together(mirrored, cropped(0.1, 0.1)),
    "inverted, 20% cropped, JPEG 60": together(inverted, cropped(0.2, 0.2), resaved(60)),
    "turned by 90, inverted, gamma 0.5": together(turned(1), inverted, toned(lambda p: p**0.5)),
    "half the size, annotated, JPEG 60": together(resized(0.5), annotated, resaved(60)),
}
"""Per cent of a crop are of height and width; each keeps its share of both."""


def main() -> None:
    """Print the table of recall and false alarms, or the times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="?")
    parser.add_argument("--drawn", type=int, default=300, help="drawn samples beside the originals")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1280, 4096])
    asked = parser.parse_args()
    if asked.times:
        print_times(asked.images, asked.widths)
    elif asked.data:
        with tempfile.TemporaryDirectory() as folder:
            print_recall(asked.data, Path(folder), asked.drawn, asked.backbone, asked.weights)
    else:
        parser.error("expected DATA or --times")


def print_recall(data: str, folder: Path, drawn: int, backbone: str, weights: str) -> None:
    """Alter, search, and print what was found."""

    def embedded(catalog: Catalog) -> Embeddings:
        options = gelkit.RecipeOptions(weights=weights)
        return gelkit.extract(catalog, backbone=backbone, cache=folder / "cache", options=options)

    originals = one_of_each_group(embedded(gelkit.read_catalog(data)))
    gelkit.draw_samples(folder / "drawn", count=drawn)
    others = embedded(gelkit.read_catalog(folder / "drawn"))
    pictures = [eight_bits(originals, number) for number in range(len(originals))]
    print(f"{len(pictures)} different images, {backbone} ({weights}), {drawn} drawn beside them\n")
    print("| copy | plain hash | gelkit's hash | nearest | 10 nearest | found |")
    print("|---|---|---|---|---|---|")
    alarms, looked_at = [], 0
    for number, (name, alteration) in enumerate(ALTERATIONS.items()):
        copies = embedded(altered(pictures, alteration, folder / str(number), number))
        alarms += print_row(name, originals, copies, others)
        looked_at += len(list(combinations(range(2 * len(originals)), 2))) - len(originals)
    print(f"\nFalse alarms among the copies: {per_million(len(alarms), looked_at)}")
    print("".join(f"    {alarm}\n" for alarm in alarms))
    print_false_alarms(originals, others)


def one_of_each_group(embeddings: Embeddings) -> Embeddings:
    """Keep the first image of each group of near-duplicates."""
    _, first = np.unique(group_images(embeddings), return_index=True)
    return embeddings.take(np.sort(first))


def eight_bits(embeddings: Embeddings, number: int) -> Picture:
    """Decode an image as embedded, to uint8."""
    image, sha256 = embeddings.images[number], embeddings.sha256s[number]
    pixels = decode_again(image, sha256, embeddings.recipe.decoding).pixels
    return pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels).astype(np.uint8)


def altered(
    pictures: Sequence[Picture], alteration: Alteration, folder: Path, seed: int
) -> Catalog:
    """Write a copy of each picture, in their order."""
    folder.mkdir()
    for number, picture in enumerate(pictures):
        copy = alteration(picture, np.random.default_rng([seed, number]))
        Image.fromarray(np.ascontiguousarray(copy)).save(folder / f"{number:05d}.png")
    return gelkit.read_catalog(folder)


def joined(one: Embeddings, other: Embeddings) -> Embeddings:
    """Put two into one."""
    return Embeddings(
        np.concatenate([one.values, other.values]),
        (*one.images, *other.images),
        (*one.sha256s, *other.sha256s),
        one.recipe,
        one.device,
        one.extraction_secs + other.extraction_secs,
        records={
            name: np.concatenate([column, other.records[name]])
            for name, column in one.records.items()
        },
    )


def print_row(
    name: str, originals: Embeddings, copies: Embeddings, others: Embeddings
) -> list[str]:
    """Print the recall of one alteration; return the false alarms."""
    count = len(originals)
    plain = plain_distances(originals, copies) <= PLAIN_DISTANCE
    hashes = [its.records["perceptual_hash"] for its in (originals, copies)]
    near = hash_distances(*hashes) <= MAX_DISTANCE
    collection = np.concatenate([originals.values, others.values])
    numbers = nearest(copies.values, collection, NEIGHBOURS).numbers
    hits = numbers == np.arange(count)[:, None]
    both = joined(originals, copies)
    pairs = find_duplicates(both, searched_pairs=NEIGHBOURS * len(both))
    places = {image.path: number for number, image in enumerate(both.images)}
    found, alarms = np.zeros(count, np.bool_), []
    for pair in pairs:
        i, j = places[pair.first.path], places[pair.second.path]
        if i % count == j % count:
            found[i % count] = True
        else:
            similarity = pair.match.similarity
            alarms.append(
                f"{name}: {pair.first.name}, {pair.second.name}: {pair.kind}, {similarity}"
            )
    columns = (plain, near, hits[:, 0], hits.any(axis=1), found)
    print(f"| {name} | {' | '.join(share(column) for column in columns)} |", flush=True)
    return alarms


def plain_distances(one: Embeddings, other: Embeddings) -> np.ndarray:
    """Return the distances of ImageHash's hashes of the files as Pillow opens them."""
    hashes = [[plain_hash(image.path) for image in its.images] for its in (one, other)]
    return np.array([a - b for a, b in zip(*hashes, strict=True)])


def plain_hash(path: Path) -> imagehash.ImageHash:
    """Hash a file as ImageHash's own documentation does."""
    with Image.open(path) as image:
        return imagehash.phash(image)


def share(found: np.ndarray) -> str:
    """Give the share found, and its interval, in per cent."""
    count, total = int(found.sum()), len(found)
    low, high = binomtest(count, total).proportion_ci(method="exact")
    return f"{100 * count / total:.0f} ({100 * low:.0f}-{100 * high:.0f})"


def per_million(count: int, total: int) -> str:
    """Give a rate per million pairs, and its interval."""
    low, high = binomtest(count, total).proportion_ci(method="exact")
    rate, low, high = (1e6 * its for its in (count / total, low, high))
    return f"{count} of {total:,} pairs: {rate:.1f} per million ({low:.1f}-{high:.1f})"


def print_false_alarms(originals: Embeddings, others: Embeddings) -> None:
    """Print how many pairs of different images each way takes for copies."""
    different = joined(originals, others)
    total = len(different) * (len(different) - 1) // 2
    hashes = [plain_hash(image.path) for image in different.images]
    plain = sum(a - b <= PLAIN_DISTANCE for a, b in combinations(hashes, 2))
    own = different.records["perceptual_hash"]
    upright = sum(
        int(np.bitwise_count(own[i] ^ own[j])) <= PLAIN_DISTANCE
        for i, j in combinations(range(len(own)), 2)
    )
    near = {(row[0], row[1]) for row in near_hashes(own).tolist()}
    pairs = find_duplicates(different, searched_pairs=NEIGHBOURS * len(different))
    print(f"False alarms among {len(different)} different images:")
    print(f"- plain hash of what Pillow opens (16 bits turn white): {per_million(plain, total)}")
    print(f"- plain hash of what gelkit decodes: {per_million(upright, total)}")
    print(f"- gelkit's hash alone: {per_million(len(near), total)}")
    print(f"- found: {per_million(len(pairs), total)}")
    for pair in pairs:
        print(f"    {pair.first.name}, {pair.second.name}: {pair.kind}, {pair.match.similarity}")


def print_times(images: int, widths: Sequence[int]) -> None:
    """Time the search of each width in a process of its own, for its memory."""
    print(
        "| images | width | exact, s | share of products' speed | GFLOP/s | more MiB "
        "| approximate, s | its recall |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for width in widths:
        process = multiprocessing.get_context("spawn").Process(
            target=time_one, args=(images, width)
        )
        process.start()
        process.join()
    hashes = np.random.default_rng(0).integers(0, 2**63, images, dtype=np.uint64)
    started = time.perf_counter()
    near_hashes(hashes)
    print(f"\nhashes of {images} images, 8 orientations: {time.perf_counter() - started:.0f} s")


def made_up(images: int, width: int) -> np.ndarray:
    """Draw embeddings that lie, as real ones do, about few dimensions, none below 0."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((24, width), dtype=np.float32)
    values = np.empty((images, width), np.float32)
    for top in range(0, images, 10_000):
        block = values[top : top + 10_000]
        np.matmul(rng.standard_normal((len(block), 24), dtype=np.float32), axes, out=block)
        block += rng.standard_normal(block.shape, dtype=np.float32)
        np.maximum(block, 0, out=block)
    return values


def time_one(images: int, width: int) -> None:
    """Print one row of times."""
    values = made_up(images, width)
    rate = product_rate(values)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory_mib("VmRSS")
    started = time.perf_counter()
    exact = nearest_others(values, NEIGHBOURS)
    seconds = time.perf_counter() - started
    more = memory_mib("VmHWM") - before
    rate = (rate + product_rate(values)) / 2
    started = time.perf_counter()
    found = approximate_nearest_others(values, NEIGHBOURS)
    approximate = time.perf_counter() - started
    shared = [
        len({*a} & {*b})
        for a, b in zip(exact.numbers.tolist(), found.numbers.tolist(), strict=True)
    ]
    print(
        f"| {images} | {width} | {seconds:.0f} | {images**2 * width / seconds / rate:.0%} "
        f"| {rate / 1e9:.0f} | {more:.0f} | {approximate:.0f} "
        f"| {np.mean(shared) / NEIGHBOURS:.3f} |",
        flush=True,
    )


def product_rate(values: np.ndarray, side: int = 2048, times: int = 10) -> float:
    """Return operations per second of plain products of blocks of the shape that is searched."""
    one, other = values[:side], values[side : 2 * side]
    one @ other.T
    started = time.perf_counter()
    for _ in range(times):
        one @ other.T
    return times * 2 * len(one) * len(other) * values.shape[1] / (time.perf_counter() - started)


def memory_mib(which: str) -> float:
    """Return this process's memory, VmRSS, or its peak, VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


if __name__ == "__main__":
    main()
