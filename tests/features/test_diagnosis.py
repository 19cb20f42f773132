"""Diagnosis: what it says can be used can be used, and a gain is measured, not promised."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from gelkit.features import diagnosis
from gelkit.features.recipe import CPU_KERNELS


def test_packages_are_those_installed() -> None:
    """Someone who reports a bug would report other versions than were used."""
    found = {finding.name: finding for finding in diagnosis.find_packages()}
    import torch

    assert found["torch"].note == torch.__version__.partition("+")[0]
    assert found["torch"].usable


def test_a_package_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would not know how to get what a message asks for."""
    monkeypatch.setitem(diagnosis.OPTIONAL_PACKAGES, "no-such-package", ("fast", "speed"))
    found = {finding.name: finding for finding in diagnosis.find_optional_packages()}
    assert not found["no-such-package"].usable
    assert found["no-such-package"].note == "install gelkit's extra 'fast' for speed"


def test_every_optional_package_is_one_of_its_extra() -> None:
    """The extra that is named would not bring the package."""
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    extras = setup["options.extras_require"]
    for package, (extra, _) in diagnosis.OPTIONAL_PACKAGES.items():
        assert re.search(rf"^{package}\b", extras.get(extra, "", raw=True), re.MULTILINE), package


def test_the_cpu_can_always_be_used() -> None:
    """A laptop would be told that it can do nothing."""
    found = {finding.name: finding for finding in diagnosis.find_hardware()}
    assert found["cpu"].usable
    assert found["tpu"].usable or "--emulate-tpu" in found["tpu"].note


@pytest.mark.usefixtures("pretrained")
def test_weights_at_hand_are_found_and_others_named(tmp_path: Path) -> None:
    """Someone without a network would not know which files to bring."""
    found = {finding.name: finding for finding in diagnosis.find_pretrained()}
    assert found["resnet18"].usable
    assert not found["vgg16"].usable
    assert found["vgg16"].note.startswith("not here yet: downloaded at first use")
    assert "vgg16-397923af.pth" in found["vgg16"].note
    brought = {finding.name: finding for finding in diagnosis.find_pretrained(tmp_path)}
    assert not any(brought[name].usable for name in ("resnet18", "vgg16", "mobilenet-v3"))
    assert brought["vgg16"].note.startswith("not here: put vgg16-397923af.pth from https://")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"cut off")
    damaged = diagnosis.find_pretrained(tmp_path)[1]
    assert "Copy it anew from https://" in damaged.note


@pytest.mark.exhaustive("exhaustive grids")
def test_every_kernel_is_measured() -> None:
    """A user would choose a kernel that is slower on this processor."""
    speeds = diagnosis.measure_kernels(["mobilenet-v3"])
    assert [(s.kernel, s.precision) for s in speeds] == [
        (name, precision) for name, kernel in CPU_KERNELS.items() for precision in kernel.precisions
    ]
    assert all(speed.images_per_second > 0 for speed in speeds)
    assert speeds[0].cosine == pytest.approx(1)
