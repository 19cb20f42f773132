"""Stage one's speed beside a plain loop, a ceiling and two public peers, on the same files.

    python benchmarks/extraction.py
    python benchmarks/extraction.py --backbone resnet18 vgg16 --images 200 --rounds 3
    python benchmarks/extraction.py --data my_gels --modes plain gelkit ceiling --csv speed.csv
    python benchmarks/extraction.py --peers-python peers/bin/python

Each contestant is a process of its own, started anew in each round, in turn: A B C, A B C. All
have the same random weights, so that the figures tell of speed and never of accuracy.

- plain: torch eager, Pillow and a DataLoader, as one writes it on the first day;
- gelkit: ``gelkit.extract`` into a fresh cache, for each kernel and precision;
- ceiling: as many processes of one thread as cores, which decode and embed their share of the
  files inline and do nothing else: no hashing, no writing, no waiting;
- timm: its own model, transform and loader, with the same weights copied in;
- imagededup: its CNN encoder, given the plain loop's model and transform;
- second: all but the ceiling once more over the same files, gelkit with everything cached.

The peers run in --peers-python, which needs gelkit's dependencies too (a virtual environment with
its own timm and imagededup, say). What a contestant does is in contestants.py, how it is measured
in measuring.py.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from contestants import Job
from measuring import ROOT, Measurement, measure

MODES = ("plain", "gelkit", "ceiling", "timm", "imagededup", "second")
PEERS = ("timm", "imagededup")
KINDS = [
    *((kernel, "float32") for kernel in ("torch", "winograd", "openvino")),
    *((kernel, "bfloat16") for kernel in ("torch", "openvino")),
]

GOALS = {
    "resnet18": {"float32": 2.0, "bfloat16": 3.5},
    "mobilenet-v3": {"float32": 4.0, "bfloat16": 6.0},
    "vgg16": {"float32": 2.0, "bfloat16": 3.3},
}
"""gelkit's aims: times the plain loop's images per second, end to end, on two cores."""

EXPLANATION = """
images/s    median of the rounds (min..max), end to end: decoding, forward pass and, for gelkit,
            writing, without starting processes and imports. It counts from when each process that
            embeds can have done its first batch; what loaders decoded ahead by then is their gain.
            The goals are about this figure.
x plain     median of the ratios to the plain loop of the same round
of ceiling  the same, to the best kernel's ceiling of that precision
+ start     images/s of the whole process: start, imports, weights and everything
first, all  seconds from the start of the process to the first batch embedded, and to its end
MiB         largest sum of the proportional set sizes of all its processes, sampled
differs     largest difference from the plain loop's embeddings, relative to their largest value,
cosine      and the smallest cosine; over files of 8-bit grey and RGB, as only gelkit scales others
"""

COLUMNS = (
    ("images/s", "rate", ".1f"),
    ("x plain", "times_plain", ".2f"),
    ("of ceiling", "ceiling_share", ".0%"),
    ("+ start", "started_rate", ".1f"),
    ("first", "first_secs", ".1f"),
    ("all", "wall_secs", ".1f"),
    ("MiB", "peak_mib", ".0f"),
    ("differs", "difference", ".1e"),
    ("cosine", "cosine", ".5f"),
)
"""Title, field and format."""

COLUMNS_OF_SECOND_RUN = (("all", "wall_secs", ".2f"), ("x plain", "times_plain", ".1f"))
SPREAD = ("rate", "wall_secs")
"""The fields whose smallest and largest value are shown too."""


def collect_images(data: Path, count: int, folder: Path) -> set[str]:
    """Copy distinct images that gelkit reads into one folder, drawn by lot from ``data``.

    :returns: the names of those that all contestants should read alike: 8-bit grey and RGB.
    """
    import gelkit
    from gelkit.images.formats import ImageError, decode

    folder.mkdir()
    alike: set[str] = set()
    seen: set[bytes] = set()
    images = list(gelkit.read_catalog(data).images)
    for image in random.Random(0).sample(images, len(images)):
        content, name = image.path.read_bytes(), f"{len(seen):06d}{image.path.suffix.lower()}"
        with suppress(ImageError):
            mode = decode(content).record.mode
            if sha256(content).digest() not in seen:
                (folder / name).write_bytes(content)
                seen.add(sha256(content).digest())
                alike |= {name} if mode in ("L", "RGB") else set()
        if len(seen) == count:
            break
    return alike


def jobs(backbone: str, modes: Sequence[str], folder: Path, work: Path) -> Iterator[Job]:
    """Yield one round's jobs, each with a fresh folder to work in."""
    from joblib import cpu_count

    for mode in [mode for mode in MODES[:-1] if mode in modes]:
        kinds = KINDS if mode in ("gelkit", "ceiling") else [("", "float32")]
        for kernel, precision in kinds:
            job = Job(mode, backbone, str(folder), cpu_count(), "", kernel, precision)
            own = work / job.name.replace(" ", "-")
            own.mkdir(parents=True)
            yield replace(job, work=str(own))


def run_round(
    number: int, backbone: str, options: argparse.Namespace, folder: Path, alike: set[str]
) -> list[Measurement]:
    """Measure every contestant once, and once more if a second run is wanted."""
    rows = []
    with TemporaryDirectory() as work:
        for job in jobs(backbone, options.modes, folder, Path(work)):
            python = options.peers_python if job.mode in PEERS else sys.executable
            runs = (1, 2) if "second" in options.modes and job.mode != "ceiling" else (1,)
            for run in runs:
                said = f"{backbone}, round {number} of {options.rounds}, run {run}: {job.name}"
                print(said, file=sys.stderr, flush=True)
                rows.append(measure(job, python, number, run, alike))
    return with_ratios(rows)


def with_ratios(rows: Sequence[Measurement]) -> list[Measurement]:
    """Set the rows of one round in relation to its plain loop and its ceilings."""
    plain = {row.run: row for row in rows if row.contestant == "plain"}
    ceilings: dict[str, float] = {}
    for row in rows:
        if row.contestant.startswith("ceiling") and row.rate:
            ceilings[row.precision] = max(row.rate, ceilings.get(row.precision, 0))

    def set_in_relation(row: Measurement) -> Measurement:
        base = plain.get(row.run, row)
        if row.run == 2:
            return replace(row, times_plain=_ratio(base.wall_secs, row.wall_secs))
        times = _ratio(row.rate, base.rate) if plain else None
        return replace(
            row, times_plain=times, ceiling_share=_ratio(row.rate, ceilings.get(row.precision))
        )

    return [set_in_relation(row) for row in rows]


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value and base else None


def header(count: int) -> str:
    """Tell what runs, where, and what the figures are worth."""
    from joblib import cpu_count

    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    found = []
    for package in ("gelkit", "torch", "torchvision", "openvino", "Pillow"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return (
        f"{(models or [platform.machine()])[0]}, {cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        f"\nPython {platform.python_version()}, {', '.join(found)}\n{count} distinct images; the "
        "weights are random: the figures tell of speed and say nothing of accuracy"
    )


def table(backbone: str, rows: Sequence[Measurement]) -> str:
    """Return a backbone's measurements as text."""
    first, second = _by_contestant(rows, run=1), _by_contestant(rows, run=2)
    lines = [*_aligned(backbone, COLUMNS, first), ""]
    if second:
        title = "the same again (gelkit: all cached)"
        lines += [*_aligned(title, COLUMNS_OF_SECOND_RUN, second), ""]
    notes = {f"{row.contestant}: {row.about}": None for row in rows if row.about}
    return "\n".join(["", *lines, *notes, *_verdicts(backbone, first)])


def _by_contestant(rows: Sequence[Measurement], run: int) -> list[list[Measurement]]:
    grouped: dict[str, list[Measurement]] = {}
    for row in rows:
        if row.run == run:
            grouped.setdefault(row.contestant, []).append(row)
    return list(grouped.values())


def _aligned(
    title: str, columns: Sequence[tuple[str, str, str]], rows: Sequence[Sequence[Measurement]]
) -> list[str]:
    lines = [[title, *(column[0] for column in columns)]]
    lines += [
        [its[0].contestant, *(_cell(its, name, form) for _, name, form in columns)] for its in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]


def _cell(its: Sequence[Measurement], name: str, form: str) -> str:
    """Return the median over the rounds, and of some fields the extremes."""
    values = _values(its, name)
    if not values:
        return "-"
    middle = format(median(values), form)
    if name not in SPREAD or len(values) == 1:
        return middle
    return f"{middle} ({min(values):{form}}..{max(values):{form}})"


def _values(its: Sequence[Measurement], name: str) -> list[float]:
    return [value for value in (getattr(row, name) for row in its) if value is not None]


def _verdicts(backbone: str, contestants: Sequence[Sequence[Measurement]]) -> Iterator[str]:
    """Yield, for each precision, gelkit's fastest kernel beside what gelkit aims at."""
    gelkits = [its for its in contestants if its[0].contestant.startswith("gelkit")]
    for precision, goal in GOALS[backbone].items():
        its = [one for one in gelkits if one[0].precision == precision and _values(one, "rate")]
        if its:
            best = max(its, key=lambda one: median(_values(one, "rate")))
            yield (
                f"{precision}: {best[0].contestant}, {_cell(best, 'times_plain', '.2f')} times "
                f"plain (goal on two cores {goal}), {_cell(best, 'ceiling_share', '.0%')} of the "
                "ceiling (goal 90%)"
            )


def write_csv(rows: Sequence[Measurement], path: Path) -> None:
    """Write every single measurement, a row for each."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Measurement)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", nargs="+", choices=GOALS, default=GOALS, help="default: all")
    parser.add_argument("--images", type=int, default=200, help="at most so many [200]")
    parser.add_argument("--data", type=Path, help="folder of images; default: drawn samples")
    parser.add_argument("--rounds", type=int, default=3, help="of all contestants [3]")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="default: all")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of the peers")
    parser.add_argument("--csv", type=Path, help="write every measurement to this file")
    return parser.parse_args()


def main() -> None:
    """Collect the images, run the rounds, print the tables."""
    options = parse_options()
    sys.path.insert(0, str(ROOT))
    import gelkit

    rows: list[Measurement] = []
    with TemporaryDirectory() as temporary:
        folder, drawn = Path(temporary, "images"), Path(temporary, "drawn")
        if options.data is None:
            gelkit.draw_samples(drawn, count=options.images)
        alike = collect_images(options.data or drawn, options.images, folder)
        print(header(len(list(folder.iterdir()))), flush=True)
        for backbone in options.backbone:
            its = [
                row
                for number in range(1, options.rounds + 1)
                for row in run_round(number, backbone, options, folder, alike)
            ]
            rows += its
            print(table(backbone, its), flush=True)
    print(EXPLANATION)
    if options.csv:
        write_csv(rows, options.csv)


if __name__ == "__main__":
    main()
