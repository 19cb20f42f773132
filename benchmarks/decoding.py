"""The rate of decoding and drawing the view of ordinary 8-bit images, beside plain Pillow.

    python benchmarks/decoding.py
    python benchmarks/decoding.py my_gels --rounds 9

Files of each kind are made from drawn samples, 1000 x 750 pixels, and those of DATA are added. Both
contestants get the same bytes, in turn, by one thread, and their CPU time is measured:

- gelkit: ``decode`` (linear luminance, alpha, orientation, flags) and ``render`` (224 x 224);
- Pillow: ``Image.open``, ``convert("L")`` and ``resize((224, 224))`` with its own default filter
  (bicubic), and once more with the one that gelkit uses (bilinear, as torchvision's presets).

What Pillow does is less, and at times wrong: it drops transparency and ignores orientation. A ratio
of time above 1 is what truth costs. The intervals are those of medians of 1000 resampled rounds.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import gelkit
from gelkit.images.formats import DecodeOptions, Limits, decode
from gelkit.images.views import VIEW_SIZE, render

_SIZE = (1000, 750)

_ENCODINGS: dict[str, tuple[str, str, dict[str, object]]] = {
    "PNG grey": ("L", "PNG", {}),
    "PNG RGB": ("RGB", "PNG", {}),
    "PNG RGBA, opaque": ("RGBA", "PNG", {}),
    "PNG palette": ("P", "PNG", {}),
    "JPEG grey": ("L", "JPEG", {"quality": 90}),
    "JPEG RGB": ("RGB", "JPEG", {"quality": 90}),
    "TIFF grey": ("L", "TIFF", {}),
    "TIFF RGB": ("RGB", "TIFF", {}),
    "TIFF grey, LZW": ("L", "TIFF", {"compression": "tiff_lzw"}),
    "TIFF grey, deflate": ("L", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF grey, PackBits": ("L", "TIFF", {"compression": "packbits"}),
}
"""Mode, container and Pillow's options to save with."""


def main() -> None:
    """Make the files, measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="a folder or manifest of images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=12, help="of each kind that is made")
    given = parser.parse_args()
    kinds = made(given.images) | ({} if given.data is None else found(given.data))
    print(
        f"{'kind':26}{'files':>6}{'gelkit ms':>11}{'/ Pillow':>10}  95% interval"
        f"{'/ same filter':>16}  95% interval"
    )
    for kind, files in kinds.items():
        own, plain, alike = measure(files, given.rounds)
        print(
            f"{kind:26}{len(files):6d}{1e3 * np.median(own):11.2f}"
            f"{described(own / plain, 10)}{described(own / alike, 16)}",
            flush=True,
        )


def made(count: int) -> dict[str, list[bytes]]:
    """Return drawn samples, encoded in each way."""
    with tempfile.TemporaryDirectory() as folder:
        paths = gelkit.draw_samples(folder, count=count)
        drawn = [Image.open(path).convert("RGB").resize(_SIZE) for path in paths]
    return {
        kind: [encoded(picture.convert(mode), container, options) for picture in drawn]
        for kind, (mode, container, options) in _ENCODINGS.items()
    }


def encoded(picture: Image.Image, container: str, options: dict[str, object]) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, container, **options)
    return file.getvalue()


def found(data: Path) -> dict[str, list[bytes]]:
    """Return a data set's 8-bit files that both can read, by container and mode."""
    kinds: dict[str, list[bytes]] = {}
    for image in gelkit.read_catalog(data).images:
        content = image.path.read_bytes()
        try:
            record = decode(content, DecodeOptions(), Limits()).record
            mode = Image.open(io.BytesIO(content)).mode
        except (gelkit.GelkitError, OSError) as error:
            print(f"left out: {image.name} ({error})")
            continue
        if record.bit_depth == 8:
            kinds.setdefault(f"{record.format} {mode} of {data.name}", []).append(content)
    return kinds


def measure(files: Sequence[bytes], rounds: int) -> np.ndarray:
    """Return seconds of CPU time an image, (contestants x rounds), each after one to warm up."""
    contestants = (
        by_gelkit,
        partial(by_pillow, resample=None),
        partial(by_pillow, resample=Image.Resampling.BILINEAR),
    )
    for contestant in contestants:
        contestant(files[0])
    seconds = [[spent(contestant, files) for contestant in contestants] for _ in range(rounds)]
    return np.array(seconds).T


def spent(contestant: Callable[[bytes], object], files: Sequence[bytes]) -> float:
    """Return the CPU time that an image takes, in seconds."""
    began = time.process_time()
    for content in files:
        contestant(content)
    return (time.process_time() - began) / len(files)


def by_gelkit(content: bytes) -> object:
    """Decode truthfully, and draw the clean view."""
    return render(decode(content, DecodeOptions(), Limits()))


def by_pillow(content: bytes, resample: Image.Resampling | None) -> object:
    """Decode as is usually done."""
    grey = Image.open(io.BytesIO(content)).convert("L")
    return np.asarray(grey.resize((VIEW_SIZE, VIEW_SIZE), resample))


def described(ratios: np.ndarray, width: int) -> str:
    """Return the median ratio and its 95% interval, by the bootstrap over rounds."""
    drawn = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return f"{np.median(ratios):{width}.2f}  {low:.2f} to {high:.2f}"


if __name__ == "__main__":
    main()
