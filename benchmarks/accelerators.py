"""How fast a device embeds: images per second, and the share of what its maker promises.

    python benchmarks/accelerators.py [--hardware cpu] [--kernel torch] [--batch-size 64]

Runs the three backbones, with random weights, over views that are in memory already: the way to the
device and back is in the figures, the reading of images is not. The operations are those of the
plain forward pass, two a multiply-add, of Winograd's too. A peak is for dense products of bfloat16,
and shares in float32 are of it, too: no device gets near it that way. Prints a line for each
backbone and precision, and first what it ran on.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gelkit.features.backbones import Backbone, default_backbones, get_backbone
from gelkit.features.devices import Device
from gelkit.features.freezing import freeze
from gelkit.features.hardware import count_chips, open_device
from gelkit.features.recipe import CPU_KERNELS, HARDWARE, PRECISIONS
from gelkit.features.weights import load_weights
from gelkit.images.views import VIEW_SIZE

PEAKS = {
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "H100 PCIe": 756,
    "H100": 989,
    "H200": 989,
    "tpu v4": 275,
    "tpu v5e": 197,
    "tpu v5p": 459,
    "tpu v6e": 918,
}
"""10^12 operations a second of one GPU or chip, from NVIDIA's data sheets and Cloud TPU's pages.

A name is part of a device's; the first that fits is taken.
"""


@dataclass(frozen=True)
class Rate:
    """How fast one backbone is embedded."""

    backbone: Backbone
    precision: str
    images_per_second: float

    @property
    def tera_operations(self) -> float:
        """10^12 operations per second."""
        return 2 * self.backbone.giga_operations * self.images_per_second / 1000


def main() -> None:
    """Measure, and print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hardware", choices=(*HARDWARE, "tpu-emulated"), default="cpu")
    parser.add_argument("--kernel", choices=CPU_KERNELS, default="torch")
    parser.add_argument("--batch-size", type=int, default=64, help="views a chip")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    device = open_device(given.hardware, given.kernel)
    chips = count_chips(given.hardware)
    peak = find_peak(device.name)
    print(f"{device.name}, {chips} chip(s), {device.versions()}")
    print("backbone      precision   images/s   10^12 op/s   of the bf16 peak")
    for rate in measure(given.hardware, given.kernel, given.batch_size * chips, given.seconds):
        share = f"{rate.tera_operations / (peak * chips):.1%}" if peak else "not known"
        print(
            f"{rate.backbone.name:13} {rate.precision:9} {rate.images_per_second:10.1f} "
            f"{rate.tera_operations:12.3f}   {share:>16}",
            flush=True,
        )


def find_peak(device: str) -> float | None:
    """Return the peak of one chip of a device, if it is known."""
    fitting = (peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device))
    return next(fitting, None)


def measure(hardware: str, kernel: str, batch_size: int, seconds: float) -> Iterator[Rate]:
    """Yield the rate of each backbone in each precision that the kernel knows."""
    precisions = CPU_KERNELS[kernel].precisions if hardware == "cpu" else tuple(PRECISIONS)
    for backbone in map(get_backbone, default_backbones()):
        model = freeze(load_weights(backbone, "random")[0], backbone)
        for precision in precisions:
            device = open_device(hardware, kernel, precision)
            device.prepare(model, batch_size)
            yield Rate(backbone, precision, measured(device, seconds))


def measured(device: Device, seconds: float) -> float:
    """Return images per second, after a first batch that may compile."""
    shape = (device.batch_size, VIEW_SIZE, VIEW_SIZE)
    views = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    device.run(views)
    batches, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        device.run(views)
        batches += 1
    return batches * device.batch_size / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
