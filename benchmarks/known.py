"""How long ``gelkit features`` takes over images that are all known: nothing is to be computed.

    python benchmarks/known.py [--images 100000]

Writes that many small files into a temporary folder and made-up rows for them into three caches,
as if they had been embedded, and runs the command three times: reading every file (--verify), and
twice as usual. Prints seconds and the peak memory of the command.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gelkit.features.backbones import BACKBONES, default_backbones
from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, make_rows
from gelkit.images.catalog import read_catalog
from gelkit.images.fingerprints import Fingerprints

_ROWS_A_SHARD = 20_000
_PROGRAM = "from gelkit.cli import main; main()"


def main() -> None:
    """Make the files and caches, and time the command on them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100_000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_files(images)
        publisher = multiprocessing.Process(target=publish_rows)  # its memory is not the command's
        publisher.start()
        publisher.join()
        for what, options in (("--verify", ["--verify"]), ("first", []), ("second", [])):
            seconds, memory = timed(options)
            print(f"{images} images, 3 backbones, {what:<8} {seconds:6.2f} s {memory:7.0f} MiB")


def write_files(count: int) -> None:
    """Write different small files into two class folders, an hour old."""
    for number in range(count):
        path = Path("data", "ab"[number % 2], f"{number // 1000}", f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 200)
        os.utime(path, (time.time() - 3600,) * 2)


def publish_rows() -> None:
    """Publish a made-up row for each file into the cache of each backbone."""
    fingerprints = Fingerprints()
    sha256s = [fingerprints.sha256(image.path) for image in read_catalog("data").images]
    for backbone in default_backbones():
        recipe = make_recipe(backbone, "cpu", RecipeOptions(weights="random"))
        cache = Cache(Path("features"), recipe)
        for start in range(0, len(sha256s), _ROWS_A_SHARD):
            chosen = sha256s[start : start + _ROWS_A_SHARD]
            columns: dict[str, object] = dict.fromkeys(COLUMNS, np.zeros(len(chosen)))
            width = BACKBONES[backbone].width
            embedding = np.random.default_rng(start).random((len(chosen), width), np.float32)
            columns |= {
                "sha256": chosen,
                "embedding": embedding,
                "intensity": np.zeros((len(chosen), 13)),
            }
            cache.publish(make_rows(columns, {"weights_sha256": "", "device": "none"}))


def timed(options: list[str]) -> tuple[float, float]:
    """Run the command; return its seconds and peak memory in MiB."""
    command = [sys.executable, "-c", _PROGRAM, "features", "data", "--weights", "random", *options]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output)
        _, _, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        output.seek(0)
        assert output.read().count("all known") == len(default_backbones())
    return seconds, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
