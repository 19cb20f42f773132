"""The memory of a long run of ``gelkit features``: it must not grow with the number of images.

    python benchmarks/memory.py [--images 20000] [--backbone mobilenet-v3] [--kernel torch]

Draws small synthetic PNG files, embeds them with random weights, and prints at every twentieth of
the run the images done, and the memory of all of the command's processes (proportional set size).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import session_mib
from PIL import Image

_PROGRAM = """
import sys
import gelkit
from gelkit.features.recipe import RecipeOptions
def report(what, done, total):
    if " on " in what:
        print(done, flush=True)
gelkit.extract(gelkit.read_catalog("data"), backbone=sys.argv[1], progress=report,
               options=RecipeOptions(weights="random", kernel=sys.argv[2]))
"""


def main() -> None:
    """Draw, embed, and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--backbone", default="mobilenet-v3")
    parser.add_argument("--kernel", default="torch")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder, "data"), given.images)
        print("images done   seconds       MiB")
        for done, seconds, memory in curve(given.backbone, given.kernel, folder, given.images):
            print(f"{done:11d} {seconds:9.0f} {memory:9.0f}", flush=True)
        files = list(Path(folder, "features").glob("*/*"))
        print(f"cache: {len(files)} file(s), {sum(file.stat().st_size for file in files)} bytes")


def draw(folder: Path, count: int) -> None:
    """Write different pictures of soft noise, 300 x 200 pixels."""
    folder.mkdir()
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 18), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((300, 200), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06d}.png", compress_level=1)


def curve(backbone: str, kernel: str, folder: str, images: int) -> list[tuple[int, float, float]]:
    """Run the extraction; return images done, seconds and MiB, some twenty times."""
    command = [sys.executable, "-c", _PROGRAM, backbone, kernel]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    )
    assert process.stdout is not None
    points, started, following = [], time.monotonic(), images // 20
    for line in process.stdout:
        if int(line) >= following:
            points.append((int(line), time.monotonic() - started, session_mib(process.pid)))
            following += images // 20
    process.wait()
    return points


if __name__ == "__main__":
    main()
