"""Any network: how fast, how close to the network's own forward pass, and on what it runs.

    OMP_NUM_THREADS=1 python benchmarks/networks.py [NAME...]

With their own weights where those are here, else with random ones; NAME@SIZE shows another size.
For each network: width, input size, images a second of one core (forward passes, torch in float32),
the largest difference from the library's model without its classifier (three equal channels,
normalised) as a share of the largest value, whether it can be traced, the same difference for each
kernel, the compiles and the difference on XLA's CPU client where torch_xla is installed, and that
of ONNX Runtime.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gelkit.errors import GelkitError
from gelkit.features.agreement import draw_views
from gelkit.features.backbones import POOLED, Backbone
from gelkit.features.freezing import freeze
from gelkit.features.frozen import FrozenBackbone
from gelkit.features.hardware import describe_processor, open_device
from gelkit.features.recipe import CPU_KERNELS, RecipeOptions, choose_backbone
from gelkit.features.weights import describe_availability, load_weights
from gelkit.features.xla import xla_compiles

NETWORKS = (
    "resnet18",
    "efficientnet-lite0",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "timm/vit_small_patch14_dinov2.lvd142m@224",
    "timm/vit_small_patch16_dinov3.lvd1689m@224",
    "timm/vit_base_patch32_clip_224.openai",
    "timm/resnet50_clip.openai",
    "timm/vit_base_patch16_siglip_224.v2_webli",
    "timm/convnextv2_atto.fcmae_ft_in1k",
    "timm/mobilenetv4_conv_small.e2400_r224_in1k",
    "timm/tf_efficientnetv2_b0.in1k",
)
BATCH = 4
MEASURED_SECS = 3.0


def main() -> None:
    """Print a table, a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NETWORKS)
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(f"Processor: {describe_processor()}, {torch.get_num_threads()} thread")
    print("| network | weights | width | input | images/s | difference | traced | runs |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names:
        print(_row(name), flush=True)


def _row(name: str) -> str:
    called, _, size = name.partition("@")
    options = RecipeOptions(input_size=int(size) if size else None)
    backbone = choose_backbone(called, options)
    weights = "pretrained" if describe_availability(backbone) == "here" else "random"
    model, _ = load_weights(backbone, weights)
    pixels = backbone.preprocessing.input_size
    views = draw_views(BATCH, pixels)
    expected = _own_forward_pass(copy.deepcopy(model), backbone, views)
    frozen = freeze(model, backbone)
    rate, difference = _on_torch(frozen, views, expected)
    runs = "; ".join(_tried(frozen, views, expected))
    traced = "yes" if frozen.is_traced else "no"
    return (
        f"| {backbone.name} | {weights} | {backbone.width} | {pixels} | {rate:.1f} | "
        f"{difference:.1e} | {traced} | {runs} |"
    )


def _own_forward_pass(
    model: nn.Module, backbone: Backbone, views: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    if backbone.layer == POOLED:
        model.reset_classifier(0)  # type: ignore[operator]
    else:
        model.set_submodule(backbone.layer, nn.Identity())
    shown = backbone.preprocessing
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (shown.mean, shown.std))
    pictures = torch.from_numpy(views).unsqueeze(1).expand(-1, 3, -1, -1) / 255
    with torch.no_grad():
        embedded: npt.NDArray[np.float32] = model.eval()((pictures - mean) / std).numpy()
    return embedded


def _on_torch(
    frozen: FrozenBackbone, views: npt.NDArray[np.uint8], expected: npt.NDArray[np.float32]
) -> tuple[float, float]:
    device = open_device("cpu")
    device.prepare(frozen, BATCH)
    found = device.run(views)
    batches, started = 0, time.process_time()
    while time.process_time() - started < MEASURED_SECS:
        device.run(views)
        batches += 1
    rate = batches * BATCH / (time.process_time() - started)
    return rate, _difference(found, expected)


def _difference(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _tried(
    frozen: FrozenBackbone, views: npt.NDArray[np.uint8], expected: npt.NDArray[np.float32]
) -> Iterator[str]:
    for kernel, row in CPU_KERNELS.items():
        for precision in row.precisions:
            if find_spec(row.package) is not None and (kernel, precision) != ("torch", "float32"):
                yield _outcome(
                    f"{kernel} {precision}",
                    lambda kernel=kernel, precision=precision: _embedded(  # type: ignore[misc]
                        frozen, views, "cpu", kernel, precision
                    ),
                    expected,
                )
    if find_spec("torch_xla") is not None:
        before = xla_compiles()
        said = _outcome("XLA", lambda: _embedded(frozen, views, "tpu-emulated"), expected)
        yield f"{said} ({xla_compiles() - before} compile)"
    if find_spec("onnxruntime") is not None:
        yield _outcome("ONNX", lambda: _by_onnx(frozen, views), expected)


def _outcome(
    what: str, embed: Callable[[], npt.NDArray[np.float32]], expected: npt.NDArray[np.float32]
) -> str:
    try:
        return f"{what} {_difference(embed(), expected):.1e}"
    except GelkitError as error:
        return f"{what}: {str(error).split('. ')[1]}"
    except Exception as error:  # a table says of every network what came of it
        return f"{what}: {type(error).__name__}"


def _embedded(
    frozen: FrozenBackbone,
    views: npt.NDArray[np.uint8],
    hardware: str,
    kernel: str = "torch",
    precision: str = "float32",
) -> npt.NDArray[np.float32]:
    device = open_device(hardware, kernel, precision)
    device.prepare(frozen, BATCH)
    device.run(views)
    return device.run(views)


def _by_onnx(frozen: FrozenBackbone, views: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import onnxruntime

    greys = torch.from_numpy(views).unsqueeze(1).float()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        with torch.no_grad():
            torch.onnx.export(
                frozen,
                (greys[:2],),
                path,
                dynamo=True,
                external_data=False,
                input_names=["greys"],
                dynamic_shapes=({0: torch.export.Dim("images", min=2)},),
                verbose=False,
            )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (embedded,) = session.run(None, {"greys": greys.numpy()})
    return np.asarray(embedded)


if __name__ == "__main__":
    main()
