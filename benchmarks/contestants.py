"""The contestants of extraction.py: what the process of each does, and what it has to say.

Run as ``python benchmarks/contestants.py JOB`` with a :class:`Job` as JSON; prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

TIMM = {"resnet18": "resnet18", "vgg16": "vgg16", "mobilenet-v3": "mobilenetv3_large_100"}
LOADER_BATCH = 32
CEILING_BATCH = 8  # gelkit's own choice on a CPU


@dataclass(frozen=True)
class Job:
    """What a contestant's process is told; it may keep things in ``work``."""

    mode: str
    backbone: str
    folder: str
    cores: int
    work: str = ""
    kernel: str = ""
    precision: str = "float32"
    part: int | None = None
    """Of the ceiling: which of its processes this is."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.mode} {self.kernel} {self.precision}" if self.kernel else self.mode

    @property
    def files(self) -> list[Path]:
        """The images, in the order of their names."""
        return sorted(Path(self.folder).iterdir())

    def command(self, python: str = sys.executable) -> list[str]:
        """Return what starts its process."""
        return [python, __file__, json.dumps(asdict(self))]


@dataclass
class Outcome:
    """What a contestant's process has to say."""

    names: list[str] = field(default_factory=list)
    values: Any = None
    """Embeddings, images x width."""
    marks: list[tuple[float, int]] = field(default_factory=list)
    """When how many images were embedded, by the clock that all processes share."""
    lanes: int = 1
    """Batches that are embedded at once."""
    rate: float | None = None
    about: str = ""

    def mark(self, images: int) -> None:
        """Note that a further batch is embedded."""
        self.marks.append((time.monotonic(), images + (self.marks[-1][1] if self.marks else 0)))


def _whole_model(backbone: str) -> Any:
    """Return torchvision's model with gelkit's random weights and no last layer."""
    from torch import nn

    from gelkit.features.backbones import get_backbone
    from gelkit.features.weights import load_weights

    row = get_backbone(backbone)
    model, _ = load_weights(row, "random")
    parent, _, name = row.layer.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())
    return model.eval()


def _transform(backbone: str) -> Callable[[Any], Any]:
    """Return what makes a tensor of a Pillow image, with the constants of the weights' preset."""
    from torchvision import transforms
    from torchvision.models import get_weight

    from gelkit.features.backbones import get_backbone

    preset = get_weight(get_backbone(backbone).weights).transforms()
    return transforms.Compose(  # type: ignore[no-any-return]
        [
            transforms.Grayscale(),  # Pillow's convert("L")
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Lambda(lambda grey: grey.repeat(3, 1, 1)),
            transforms.Normalize(preset.mean, preset.std),
        ]
    )


@dataclass(frozen=True)
class _PlainImages:
    files: list[Path]
    transform: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        from PIL import Image

        return self.transform(Image.open(self.files[number]))


def _embed(model: Any, batches: Iterable[Any], names: list[str], about: str = "") -> Outcome:
    import torch

    outcome, embedded = Outcome(names, about=about), []
    with torch.no_grad():
        for batch in batches:
            embedded.append(model(batch))
            outcome.mark(len(batch))
    return replace(outcome, values=torch.cat(embedded).numpy())


def _run_plain(job: Job) -> Outcome:
    from torch.utils.data import DataLoader

    images: Any = _PlainImages(job.files, _transform(job.backbone))
    loader = DataLoader(images, batch_size=LOADER_BATCH, num_workers=job.cores)
    return _embed(_whole_model(job.backbone), loader, [file.name for file in job.files])


def _run_gelkit(job: Job) -> Outcome:
    import gelkit

    outcome = Outcome(lanes=job.cores)

    def progress(what: str, done: int, total: int) -> None:
        if done and what.startswith(job.backbone):
            outcome.marks.append((time.monotonic(), done))

    embeddings = gelkit.extract(
        gelkit.read_catalog(job.folder),
        backbone=job.backbone,
        cache=Path(job.work, "cache"),
        options=gelkit.RecipeOptions(weights="random", kernel=job.kernel, precision=job.precision),
        progress=progress,
    )
    names = [image.path.name for image in embeddings.images]
    return replace(outcome, names=names, values=embeddings.values)


def _run_ceiling(job: Job) -> Outcome:
    """Let its processes go at once; add up the rates at which each of them worked."""
    one_thread = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    parts = [
        subprocess.Popen(
            replace(job, part=part).command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=one_thread,
        )
        for part in range(job.cores)
    ]
    ready = [part.stdout.readline() for part in parts if part.stdout]
    if set(ready) != {"ready\n"}:
        raise RuntimeError(f"Expected its processes to be ready. Received: {ready}")
    for part in parts:
        assert part.stdin
        part.stdin.write("go\n")
        part.stdin.flush()
    return Outcome(rate=sum(json.loads(part.communicate()[0])["rate"] for part in parts))


def _run_part_of_ceiling(job: Job) -> Outcome:
    import numpy as np

    from gelkit.features.backbones import get_backbone
    from gelkit.features.freezing import freeze
    from gelkit.features.hardware import open_device
    from gelkit.features.weights import load_weights
    from gelkit.images.formats import decode
    from gelkit.images.views import VIEW_SIZE, render

    row, files = get_backbone(job.backbone), job.files[job.part :: job.cores]
    device = open_device("cpu", job.kernel, job.precision)
    device.prepare(freeze(load_weights(row, "random")[0], row), CEILING_BATCH)
    for _ in range(2):
        device.run(np.zeros((CEILING_BATCH, VIEW_SIZE, VIEW_SIZE), dtype=np.uint8))
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    for first in range(0, len(files), CEILING_BATCH):
        batch = files[first : first + CEILING_BATCH]
        device.run(np.stack([render(decode(file.read_bytes())) for file in batch]))
    return Outcome(rate=len(files) / (time.monotonic() - started))


def _run_timm(job: Job) -> Outcome:
    import timm
    import torch
    from timm.data import ImageDataset, create_loader, resolve_model_data_config

    model = timm.create_model(TIMM[job.backbone], pretrained=False, num_classes=0).eval()
    _copy_weights(_whole_model(job.backbone), model)
    kinds = ";".join({file.suffix for file in job.files})
    dataset = ImageDataset(job.folder, reader="folder", input_key=kinds)
    config = resolve_model_data_config(model)
    loader = create_loader(
        dataset,
        batch_size=LOADER_BATCH,
        num_workers=job.cores,
        device=torch.device("cpu"),
        **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
    )
    about = f"timm {timm.__version__}, {TIMM[job.backbone]}, resizes and crops in its own way"
    names = dataset.filenames(basename=True)
    return _embed(model, (batch for batch, _ in loader), names, about)


def _copy_weights(source: Any, target: Any) -> None:
    """Copy between two writings of one architecture: the same tensors in the same order."""
    from torch import nn

    def tensors(model: Any) -> list[Any]:
        return [value for key, value in model.state_dict().items() if "num_batches" not in key]

    def norms(model: Any) -> list[Any]:
        return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    for its, given in zip(tensors(target), tensors(source), strict=True):
        its.copy_(given.reshape(its.shape))
    for its, given in zip(norms(target), norms(source), strict=True):
        its.eps = given.eps


def _run_imagededup(job: Job) -> Outcome:
    import numpy as np
    from imagededup.methods import CNN
    from imagededup.utils import CustomModel

    model, outcome = _whole_model(job.backbone), Outcome()
    model.register_forward_hook(lambda _model, _inputs, output: outcome.mark(len(output)))
    encoder = CNN(False, CustomModel(job.backbone, model, _transform(job.backbone)))
    found = encoder.encode_images(job.folder, num_enc_workers=job.cores)
    about = f"imagededup {version('imagededup')}; it gives all results at once, when it ends"
    return replace(outcome, names=list(found), values=np.stack(list(found.values())), about=about)


RUNS: dict[str, Callable[[Job], Outcome]] = {
    "plain": _run_plain,
    "gelkit": _run_gelkit,
    "ceiling": _run_ceiling,
    "timm": _run_timm,
    "imagededup": _run_imagededup,
}


def compete(job: Job) -> None:
    """Be a contestant: run, keep the embeddings, and print one line of JSON."""
    try:
        outcome = (RUNS[job.mode] if job.part is None else _run_part_of_ceiling)(job)
    except ModuleNotFoundError as error:
        print(json.dumps({"why": f"not installed: no {error.name}"}))
        return
    except Exception as error:  # whatever a peer raises is its row's reason
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        print(json.dumps({"why": said}))
        return
    reply = asdict(replace(outcome, values=None)) | {"finished": time.monotonic()}
    if outcome.values is not None:
        import numpy as np

        np.savez(Path(job.work, "embeddings.npz"), names=outcome.names, values=outcome.values)
    print(json.dumps(reply))


if __name__ == "__main__":
    compete(Job(**json.loads(sys.argv[1])))
