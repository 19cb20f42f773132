"""Processors: what is computed is right, and repeats, with the instructions of older ones, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROCESSORS = {
    "SSE4.1": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
    },
    "AVX2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    },
}
"""What has the libraries compute as on a processor of the kind; all else is the machine's own."""

ARITHMETIC = (
    "tests/features/test_agreement.py",
    "tests/features/test_device_contract.py",
    "tests/features/test_device_contract.py::"
    "test_the_contract_holds_in_a_process_of_its_own[tpu-emulated of 1]",
    "tests/features/test_devices.py::test_every_kernel_gives_what_plain_torch_gives",
    "tests/features/test_devices.py::test_the_emulated_tpu_agrees",
    "tests/features/test_engines.py::test_rows_depend_on_nothing_but_the_image",
    "tests/features/test_fusion.py",
    "tests/features/test_winograd.py",
    "tests/heads/test_assessment.py::test_the_same_inputs_give_the_same_files_whatever_the_workers",
    "tests/heads/test_stacking.py",
    "tests/heads/test_training.py::test_several_processes_give_the_same_results",
)
"""The tests of kernels, stacks, devices, and of results that are equal whatever the workers."""

LEFT = "vgg16 or (openvino and (bfloat16 or vision or ConvNeXt))"
"""What is as much arithmetic as the smaller backbones, only slower; and what OpenVINO tries because
the processor has the instructions, and cannot (or crashes) since they are hidden from a part of it.
"""

QUIETLY = ("-q", "-p", "no:cacheprovider")


@pytest.mark.exhaustive("instruction sets")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_arithmetic_holds_on_older_processors(processor: str) -> None:
    """Someone with another processor would silently get other embeddings, or heads."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-k", f"not ({LEFT})", *QUIETLY, *ARITHMETIC],
        cwd=ROOT,
        env=os.environ | PROCESSORS[processor],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    print(f"\n{processor}: {run.stdout.splitlines()[-1]}")
