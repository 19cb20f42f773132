"""What the tests share: what is left to ``make test-all``, Keras' backend, a drawn sample set."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")


KINDS = (
    "fault states",
    "fuzzing",
    "documentation",
    "clusters",
    "object stores",
    "browser",
    "exhaustive grids",
    "instruction sets",
    "systems",
    "transfer learning",
)
"""Kinds of tests that ``make test`` leaves to ``make test-all``."""

_LEFT = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that leaves nothing out."""
    parser.addoption("--all", action="store_true", help="run the tests marked exhaustive, too")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and begin to count what is left out."""
    config.addinivalue_line(
        "markers", "exhaustive(kind): left to `make test-all`, which gives the option --all"
    )
    config.stash[_LEFT] = Counter()


def pytest_report_header() -> str:
    """Name the processor: what is computed depends on it in the last digits."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    flags = [flag for flag in known if flag in facts.get("flags", "").split()]
    return f"processor: {facts.get('model name', 'unknown')} ({', '.join(flags)})"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out exhaustive tests, unless all or they by name were asked for.

    Begin with those that take minutes: else these would run last, in one process, while the others
    have nothing left to do.
    """
    named = set(config.args)
    left = [item for item in items if _kind(item) is not None and item.nodeid not in named]
    items.sort(key=lambda item: _kind(item) != "instruction sets")
    if left and not config.getoption("all"):
        config.stash[_LEFT].update(_kind(item) or "" for item in left)
        items[:] = [item for item in items if _kind(item) is None or item.nodeid in named]
        config.hook.pytest_deselected(items=left)


def _kind(item: pytest.Item) -> str | None:
    """Return which of the kinds an exhaustive test is of; None for any other test."""
    marker = item.get_closest_marker("exhaustive")
    if marker is None:
        return None
    if marker.args not in [(kind,) for kind in KINDS]:
        raise pytest.UsageError(
            f"Expected {item.nodeid} to be exhaustive of one of the kinds {', '.join(KINDS)}. "
            f"Received: {marker.args}."
        )
    return str(marker.args[0])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what was left out from a process of pytest-xdist to the one that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = dict(session.config.stash[_LEFT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receive it: each process has collected, and left out, the same tests."""
    node.config.stash[_LEFT] |= Counter(getattr(node, "workeroutput", {}).get("left", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out and what was skipped, so that neither passes for tested."""
    left = config.stash[_LEFT]
    reasons = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    for title, counts in (("left to make test-all", left), ("skipped", reasons)):
        if counts:
            terminalreporter.section(f"{title}: {counts.total()}")
            for name, count in counts.most_common():
                terminalreporter.line(f"{count:5}  {name}")


def _reason(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
    place = report.longrepr
    return place[2].removeprefix("Skipped: ") if isinstance(place, tuple) else str(place)


@dataclass(frozen=True)
class Ending:
    """A way in which a user or a scheduler ends a command, and what the command does then."""

    sent: signal.Signals
    sigint: signal.Handlers
    """What the shell that starts the command has SIGINT do: many ignore it, in the background."""
    to_all: bool
    """Send it to all processes of the command, as a terminal does, not to the first alone."""
    exit_code: int
    message: str

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Have processes that are started meanwhile begin as this shell's, not as pytest's."""
        before = signal.signal(signal.SIGINT, self.sigint)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def send(self, process_id: int) -> None:
        """Send the signal to a process that leads a group of its own."""
        (os.killpg if self.to_all else os.kill)(process_id, self.sent)


ENDINGS = {
    "Ctrl-C": Ending(
        signal.SIGINT, signal.SIG_DFL, True, 1, "Interrupted. What was finished is kept"
    ),
    "kill, Ctrl-C ignored": Ending(
        signal.SIGTERM, signal.SIG_IGN, False, 143, "Terminated. What was finished is kept"
    ),
    "scheduler": Ending(
        signal.SIGTERM, signal.SIG_DFL, True, 143, "Terminated. What was finished is kept"
    ),
}


@pytest.fixture(
    params=[
        "Ctrl-C",
        *(
            pytest.param(n, marks=pytest.mark.exhaustive("fault states"))
            for n in ENDINGS
            if n != "Ctrl-C"
        ),
    ]
)
def ending(request: pytest.FixtureRequest) -> Ending:
    """Return each way in which a command is ended before it is done."""
    return ENDINGS[request.param]


@pytest.fixture(scope="session", autouse=True)
def _notes_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what gelkit notes for its user away from whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GELKIT_NOTES", str(tmp_path_factory.mktemp("notes")))
        yield


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 20 synthetic images in two classes."""
    import gelkit

    folder = tmp_path_factory.mktemp("data") / "my_gels"
    gelkit.draw_samples(folder, count=20)
    return folder


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a download folder of torch that holds weights of a resnet18, and their file name."""
    import torch

    from gelkit.features.backbones import get_backbone
    from gelkit.features.weights import load_weights

    home = tmp_path_factory.mktemp("torch")
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    model, _ = load_weights(get_backbone("resnet18"), "random", seed=7)
    torch.save(model.state_dict(), folder / "new.pth")
    digits = sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    return home, (folder / "new.pth").rename(folder / f"resnet18-{digits}.pth").name


@pytest.fixture
def pretrained(torch_home: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``imagenet`` weights of resnet18 those of :func:`torch_home`, as if downloaded."""
    from gelkit.features.backbones import BACKBONES

    home, file = torch_home
    monkeypatch.setenv("TORCH_HOME", str(home))
    row = dataclasses.replace(
        BACKBONES["resnet18"], weights_url=f"http://127.0.0.1:9/models/{file}"
    )
    monkeypatch.setitem(BACKBONES, "resnet18", row)
