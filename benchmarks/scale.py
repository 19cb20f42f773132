"""What grows with the number of images, and what does not.

    python benchmarks/scale.py
    python benchmarks/scale.py --images 1000 10000 --rows 100000 --backbone resnet18

The first table embeds generated small images (PNG, 64 x 64) with random weights, each number of
them from nothing: `gelkit features` in a process of its own, and once more with everything known.
The second writes made-up rows of 512 values straight into a cache, as if they had been embedded,
and reads it in every way that there is, each in a process of its own.

- s: wall seconds of the command; cpu s: of it and all its processes;
- ms/image: cpu milliseconds for each image more than in the line above, and in the first line than
  in a run over 16: the cost of an image must not grow with their number;
- MiB: the most that all processes had together (proportional set sizes, looked at every 0.2 s);
- again: the same command with everything known: seconds, and MiB;
- files, bytes: of the cache's folder, failures and the like included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import SAMPLE_SECS, session_mib
from PIL import Image

import gelkit
from gelkit.features.cache import Cache
from gelkit.features.recipe import RecipeOptions, make_recipe
from gelkit.features.shards import COLUMNS, Rows, make_rows

ROWS_A_SHARD = 32_000
RANDOM = RecipeOptions(weights="random")
START = 16
"""Images of the run whose cost is that of starting."""
_PROGRAM = "from gelkit.cli import main; main()"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--backbone", default="mobilenet-v3")
    parser.add_argument("--kernel", default="torch")
    parser.add_argument("--folder", help="Where to make the images and caches.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        os.chdir(folder)
        if given.images:
            print_images(given.images, given.backbone, given.kernel)
        if given.rows:
            print_rows(given.rows)


# images --------------------------------------------------------------------------------------


def print_images(counts: Sequence[int], backbone: str, kernel: str) -> None:
    """Draw the most that are needed, and embed the first of them, from nothing each time."""
    draw(max(*counts, START))
    print(f"Images, {backbone}, random weights, cpu, kernel {kernel}")
    print("   images       s   cpu s ms/image    MiB  again s    MiB  files        bytes")
    command = ["--backbone", backbone, "--weights", "random", "--kernel", kernel]
    before, cpu_before = START, run([*command, *data(START)]).cpu_secs
    for count in counts:
        cache = f"features_{count}"
        options = [*command, *data(count), "--cache", cache]
        done, again = run(options), run(options)
        cost = 1000 * (done.cpu_secs - cpu_before) / (count - before)
        before, cpu_before = count, done.cpu_secs
        files, size = on_disk(Path(cache))
        print(
            f"{count:9,} {done.secs:7.1f} {done.cpu_secs:7.1f} {cost:8.2f} "
            f"{done.mib:6.0f} {again.secs:8.1f} {again.mib:6.0f} {files:6d} {size:12,}",
            flush=True,
        )


def draw(count: int) -> None:
    """Write different pictures of soft noise, and a manifest."""
    for number in range(count):
        path = Path("images", "ab"[number % 2], f"{number // 1000:04d}", f"{number:07d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (6, 9), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
        picture.save(path, compress_level=1)
        os.utime(path, (time.time() - 3600,) * 2)


def data(count: int) -> list[str]:
    """Write a manifest of the first images, and return it as an argument."""
    files = sorted(Path("images").rglob("*.png"), key=lambda path: path.name)[:count]
    rows = "".join(f"{file},{file.parts[1]}\n" for file in files)
    Path(f"{count}.csv").write_text(f"path,label\n{rows}")
    return [f"{count}.csv"]


@dataclass(frozen=True)
class Run:
    """What a command took."""

    secs: float
    cpu_secs: float
    mib: float


def run(options: Sequence[str]) -> Run:
    """Run `gelkit features` and watch it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "features", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, session_mib(process.pid))
        time.sleep(SAMPLE_SECS)
    secs = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"gelkit features {' '.join(options)} ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(secs, cpu, peak)


def on_disk(folder: Path) -> tuple[int, int]:
    """Count the files below a folder, and their bytes."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return len(files), sum(file.stat().st_size for file in files)


# rows ----------------------------------------------------------------------------------------


def print_rows(counts: Sequence[int]) -> None:
    """Write caches of made-up rows, and read each in every way."""
    for count in counts:
        root = Path(f"rows_{count}")
        print(f"\nA cache of {count:,} x 512")
        print("                                            s      MiB")
        for what, step in STEPS:
            secs, mib = apart(step, root, count)
            print(f"{what:<38} {secs:7.2f} {mib:8.0f}", flush=True)
        files, size = on_disk(root)
        print(f"{files} files, {size:,} bytes, {size / count:.0f} an embedding")


def write(root: Path, count: int) -> None:
    """Publish rows as stage one does, in portions."""
    cache = Cache(root, make_recipe("resnet18", "cpu", RANDOM))
    for start in range(0, count, ROWS_A_SHARD):
        cache.publish(made_up(start, min(ROWS_A_SHARD, count - start)))


def made_up(start: int, count: int) -> Rows:
    """Make rows whose classes (even and odd) a head can learn."""
    numbers = np.arange(start, start + count)
    values = np.random.default_rng(start).normal(size=(count, 512)).astype(np.float32)
    values[:, :8] += 4 * (numbers % 2)[:, None]
    columns: dict[str, object] = dict.fromkeys(COLUMNS, np.zeros(count))
    columns |= {
        "sha256": [f"{number:064x}" for number in numbers],
        "embedding": values,
        "intensity": np.zeros((count, 13)),
    }
    return make_rows(columns, {"weights_sha256": "", "device": "made up"})


def compact(root: Path, count: int) -> None:
    """Merge the small shards."""
    Cache(root, make_recipe("resnet18", "cpu", RANDOM)).compact()


def find_known(root: Path, count: int) -> None:
    """Tell what the cache holds, as every run of stage one does."""
    known = Cache(root, make_recipe("resnet18", "cpu", RANDOM)).identities()
    assert len(known) == count


def open_only(root: Path, count: int) -> None:
    """Open it, every bit checked."""
    with gelkit.open_cache(root, options=RANDOM) as reader:
        assert len(reader) == count


def sample(root: Path, count: int) -> None:
    """Open it and read 10,000 embeddings drawn at random."""
    with gelkit.open_cache(root, options=RANDOM) as reader:
        assert reader.read(reader.sample(10_000)).shape == (10_000, 512)


def read_through(root: Path, count: int) -> None:
    """Open it and read all embeddings in a mixed order, 1,024 at a time."""
    with gelkit.open_cache(root, options=RANDOM) as reader:
        assert sum(len(values) for _, values in reader.batches(1024, seed=0)) == count


def read_at_once(root: Path, count: int) -> None:
    """Read all embeddings into memory, as `gelkit.load` does: the simple way."""
    cache = Cache(root, make_recipe("resnet18", "cpu", RANDOM))
    rows = cache.read([f"{number:064x}" for number in range(count)])
    assert rows.columns["embedding"].shape == (count, 512)


def train(root: Path, count: int) -> None:
    """Train gelkit's single head for an epoch, batches of 256, and see that it learns."""
    from gelkit.heads.architectures import build_compiled

    with gelkit.open_cache(root, options=RANDOM) as reader:
        targets = np.array([int(sha256[-4:], 16) % 2 for sha256 in reader.sha256s])
        head = build_compiled("single", "adam", reader.read(reader.sample(10_000)), 2)
        for positions, values in reader.batches(256, seed=0):
            head.train_on_batch(values, targets[positions])
        drawn = reader.sample(5_000, seed=1)
        right = head.predict(reader.read(drawn), verbose=0).argmax(axis=1) == targets[drawn]
        assert right.mean() > (0.9 if count >= 100_000 else 0.5), f"accuracy {right.mean():.3f}"


STEPS: tuple[tuple[str, Callable[[Path, int], None]], ...] = (
    ("write, in portions of 32,000", write),
    ("compact into large files", compact),
    ("find out what is known", find_known),
    ("open (open_cache)", open_only),
    ("open, read 10,000 at random", sample),
    ("open, read all, mixed, bit by bit", read_through),
    ("open, train a single head, an epoch", train),
    ("read all at once (the simple way)", read_at_once),
)


def apart(step: Callable[[Path, int], None], root: Path, count: int) -> tuple[float, float]:
    """Run a step in a process of its own; return its seconds, and by how much its memory grew."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (step, root, count))


def _measured(step: Callable[[Path, int], None], root: Path, count: int) -> tuple[float, float]:
    with _watched() as peak:
        started = time.monotonic()
        step(root, count)
        secs = time.monotonic() - started
    return secs, peak[0]


@contextmanager
def _watched() -> Iterator[list[float]]:
    """Look at this process' own memory (anonymous pages) while something runs; MiB above before."""
    before, peak, done = _anonymous_mib(), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _anonymous_mib() - before)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _anonymous_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
