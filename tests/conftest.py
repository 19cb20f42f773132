"""What the tests share: Keras' backend, a drawn sample set, weights that need no network."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")


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


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest) -> Ending:
    """Return each way in which a command is ended before it is done."""
    return ENDINGS[request.param]


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
