"""One measured run of one contestant: its process, its memory, and what it said."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from contestants import Job

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_SECS = 0.2


@dataclass(frozen=True)
class Measurement:
    """One run of one contestant, as the table explains it; None is what it cannot tell."""

    backbone: str
    contestant: str
    precision: str
    round: int
    run: int
    """1, or 2 for the second run over the same files."""
    images: int | None = None
    rate: float | None = None
    times_plain: float | None = None
    """Of rates; of a second run of wall_secs."""
    ceiling_share: float | None = None
    started_rate: float | None = None
    first_secs: float | None = None
    wall_secs: float | None = None
    peak_mib: float | None = None
    difference: float | None = None
    cosine: float | None = None
    about: str = ""
    """A note, or why there is nothing to tell."""


def measure(job: Job, python: str, number: int, run: int, alike: set[str]) -> Measurement:
    """Run a contestant, watch its memory, and put together what it said."""
    row = Measurement(job.backbone, job.name, job.precision, number, run)
    if job.kernel == "openvino" and importlib.util.find_spec("openvino") is None:
        return replace(row, about="not installed: no openvino")
    started = time.monotonic()
    output, peak = _watched(job.command(python))
    wall = time.monotonic() - started
    reply = json.loads((output.splitlines() or ['{"why": "its process died"}'])[-1])
    if "why" in reply:
        return replace(row, about=reply["why"])
    if job.mode == "ceiling":
        return replace(row, images=len(job.files), rate=reply["rate"], peak_mib=peak)
    images, marks = len(reply["names"]), reply["marks"]
    difference, cosine = _agreement(Path(job.work), alike)
    return replace(
        row,
        images=images,
        rate=_steady_rate(images, marks, reply["lanes"], reply["finished"]),
        started_rate=images / wall,
        first_secs=marks[0][0] - started if marks else None,
        wall_secs=wall,
        peak_mib=peak,
        difference=difference,
        cosine=cosine,
        about=reply["about"],
    )


def _steady_rate(
    images: int, marks: Sequence[tuple[float, int]], lanes: int, finished: float
) -> float | None:
    """Return images per second from when each lane can have done a batch; None if none are left."""
    for at, done in marks:
        if marks[0][1] * lanes <= done < images:
            return (images - done) / (finished - at)
    return None


def _watched(command: Sequence[str]) -> tuple[str, float | None]:
    """Run a command; return its output and its processes' largest memory in MiB."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    peak = 0.0
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=SAMPLE_SECS)[0], peak or None
            peak = max(peak, session_mib(process.pid))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def session_mib(session: int) -> float:
    """Add up the proportional set sizes of a session's processes: shared pages count once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if os.getsid(int(process.name)) == session:
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _agreement(work: Path, alike: set[str]) -> tuple[float | None, float | None]:
    """Return the difference and the cosine between a contestant and the same round's plain loop."""
    import numpy as np

    kept = []
    for file in (work / "embeddings.npz", work.parent / "plain" / "embeddings.npz"):
        if not file.exists():
            return None, None
        with np.load(file) as data:
            kept.append(dict(zip(data["names"].tolist(), data["values"], strict=True)))
    names = sorted(alike & kept[0].keys() & kept[1].keys())
    if not names:
        return None, None
    its, plain = (np.stack([one[name] for name in names]).astype(np.float64) for one in kept)
    cosines = (its * plain).sum(1) / np.linalg.norm(its, axis=1) / np.linalg.norm(plain, axis=1)
    difference = np.abs(its - plain).max() / np.abs(plain).max()
    return float(difference), float(cosines.min())
