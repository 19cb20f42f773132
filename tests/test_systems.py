"""Systems: what stands in on Windows and macOS for what Linux does, as far as Linux can tell."""

from __future__ import annotations

import json
import ntpath
import os
import re
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gelkit
from gelkit.errors import GelkitError
from gelkit.features import clusters, hardware
from gelkit.features.devices import DeviceError
from gelkit.files import write_atomically
from gelkit.heads.results_folder import record_data, require_same_data
from gelkit.images import catalog as catalogs
from gelkit.own_output import RESULTS_RECORD
from gelkit.paths import RemotePath, as_path
from gelkit.systems import SYSTEM, Linux, Mac, System, Windows

ROOT = Path(__file__).parents[1]
OTHERS = (Mac(), Windows())
WITHOUT_NETWORKS = (
    "tests/test_files.py",
    "tests/test_paths.py",
    "tests/test_tables.py",
)
"""What takes a second or two."""

LARGE = "tests/features/test_hostile_files.py::test_an_image_that_stays_too_large_fails_alone"
WITH_NETWORKS: dict[System, tuple[str, ...]] = {
    OTHERS[0]: (LARGE, "tests/images/test_fingerprints.py"),
    OTHERS[1]: (
        LARGE,
        "tests/features/test_engines.py::test_images_of_a_killed_worker_are_embedded_by_another",
        "tests/features/test_engines.py::test_a_worker_that_cannot_start_is_an_error",
        "tests/heads/test_training.py::test_several_processes_give_the_same_results",
        "tests/images/test_fingerprints.py",
        "tests/images/test_folders.py",
    ),
}
"""What starts workers, and changes files that others read."""

IT_IS_SO = "tests/test_systems.py::test_the_system_is_the_one_that_is_asked_for"


def _make_gels(folder: Path, *labels: str) -> None:
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        Image.new("L", (9, 9), number).save(folder / label / "1.png")


def _passes_on(system: System, *tests: str) -> None:
    paths = [str(ROOT / "tests" / "systems"), str(ROOT)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, IT_IS_SO],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(paths), "TESTED_SYSTEM": type(system).__name__},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_system_is_the_one_that_is_asked_for() -> None:
    """All tests below would be about Linux."""
    assert type(SYSTEM).__name__ == os.environ.get("TESTED_SYSTEM", type(SYSTEM).__name__)


@pytest.mark.exhaustive("systems")
@pytest.mark.skipif(type(SYSTEM) is not Linux, reason="stands on Linux for the others")
def test_files_are_changed_as_on_windows() -> None:
    """A file could not be replaced, or its bytes would change, on most people's machines."""
    _passes_on(Windows(), *WITHOUT_NETWORKS)


@pytest.mark.exhaustive("systems")
@pytest.mark.skipif(type(SYSTEM) is not Linux, reason="stands on Linux for the others")
@pytest.mark.parametrize("system", OTHERS, ids=lambda its: its.name)
def test_workers_and_caches_do_with_what_other_systems_have(system: System) -> None:
    """Nothing would start, or one image take all memory, where Linux' ways are missing."""
    _passes_on(system, *WITH_NETWORKS[system])


DEVICES = st.sampled_from(["con", "PRN", "aux", "Nul", "com1", "LPT9", "COM\xb2"])
ENDINGS = st.sampled_from(["", ".", ". ", " .csv", ".tar.gz", ":x", "s"])


@given(st.one_of(st.text(min_size=1), st.builds(str.__add__, DEVICES, ENDINGS)))
def test_every_name_is_made_one_that_windows_allows(name: str) -> None:
    """A cache or results could not be written, or go into a stream or a device instead."""
    allowed = Windows().allowed(name)
    assert not re.search(r'[<>:"/\\|?*\x00-\x1f]', allowed)
    assert not allowed.endswith((" ", "."))
    stem = allowed.partition(".")[0].rstrip()
    assert not re.fullmatch("(?i)(con|prn|aux|nul|(com|lpt)[0-9\xb9\xb2\xb3])", stem)
    assert Windows().allowed(allowed) == allowed
    assert len(allowed) >= len(name)


def test_ordinary_names_stay() -> None:
    """Caches would be lost with their names."""
    for name in ("resnet18-imagenet1k_v1-cpu-0a1b2c3d", "my gels, 3rd", "Gele für A", "console"):
        assert Windows().allowed(name) == name


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have the system refuse to replace any of these files, each as often as it is listed."""
    files: list[Path] = []
    real = os.replace

    def replace(old: Path, new: Path) -> None:
        if new in files:
            files.remove(new)
            raise PermissionError(13, "The process cannot access the file", str(new))
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr("gelkit.files.SYSTEM", Windows())
    monkeypatch.setattr("gelkit.systems._IN_USE_PAUSES", (0.0,) * 6)
    return files


def test_a_file_that_is_open_for_a_moment_is_replaced(tmp_path: Path, busy: list[Path]) -> None:
    """A virus scanner that looks at a new file would end a run."""
    file = tmp_path / "results.csv"
    file.write_bytes(b"old")
    busy += [file] * 4
    write_atomically(file, b"new\n")
    assert file.read_bytes() == b"new\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_stays_open_is_an_error_and_stays(tmp_path: Path, busy: list[Path]) -> None:
    """With results.csv open in a spreadsheet, a command would hang, or say that all is well."""
    file = tmp_path / "results.csv"
    file.write_bytes(b"old")
    busy += [file] * 1000
    with pytest.raises(PermissionError):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("system", OTHERS, ids=lambda its: its.name)
def test_what_needs_linux_says_so(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """People would look for a package that does not exist for their system."""
    monkeypatch.setattr(hardware, "SYSTEM", system)
    monkeypatch.setattr(clusters, "SYSTEM", system)
    for asked in ("tpu", "tpu-emulated"):
        with pytest.raises(DeviceError, match=rf"Expected Linux.*Received: {system.name}"):
            hardware.require_hardware(asked)
    with (
        pytest.raises(GelkitError, match=rf"Expected Linux.*Received: {system.name}"),
        clusters.connected(),
    ):
        pass
    hardware.require_hardware("cpu")


def test_a_store_is_found_by_a_path_of_windows() -> None:
    """Given as a path, s3:// would be a folder of this machine."""
    path = as_path(PureWindowsPath("s3://bucket/gels/a.png"))
    assert isinstance(path, RemotePath)
    assert str(path) == "s3://bucket/gels/a.png"


def test_names_are_the_same_whatever_separates_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same manifest would deal its images out otherwise, and name them otherwise in results."""
    _make_gels(tmp_path, "a", "b")
    gels = [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*.png"))]
    rows = [f"{path.as_posix()},{path.parts[0]}" for path in gels]
    file = tmp_path / "gels.csv"
    file.write_text("\n".join(["path,label", *rows]))
    names = [image.name for image in gelkit.read_catalog(file).images]
    monkeypatch.setattr(catalogs, "SYSTEM", Windows())
    for path in gels:
        (tmp_path / str(path).replace("/", "\\")).write_bytes((tmp_path / path).read_bytes())
    file.write_text("\n".join(["path,label", *rows]).replace("/", "\\"))
    assert [image.name for image in gelkit.read_catalog(file).images] == names


def test_results_may_lie_on_another_drive(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images on D: and results on C: would end in a traceback."""
    monkeypatch.setattr(os.path, "relpath", lambda *_: ntpath.relpath("D:\\gels", "C:\\results"))
    catalog = gelkit.read_catalog(samples)
    record_data(tmp_path, catalog)
    require_same_data(tmp_path, catalog)
    assert json.loads((tmp_path / RESULTS_RECORD).read_bytes())["data"] == [str(samples)]


def test_a_console_of_few_letters_shows_everything(tmp_path: Path) -> None:
    """On a console of Windows' code pages, a name or a dash would end a command in a traceback."""
    _make_gels(tmp_path / "gels", "√ü", "→")
    run = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "images", str(tmp_path / "gels")],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert run.returncode == 0, run.stderr
    assert "\\u221aü" in run.stdout.decode("cp1252")


def test_no_text_is_read_in_the_encoding_of_the_place(samples: Path, tmp_path: Path) -> None:
    """What one machine has written, another would read as other letters."""
    program = (
        "import sys, warnings\n"
        "warnings.filterwarnings('error', category=EncodingWarning, module='gelkit')\n"
        "from gelkit.cli import main\n"
        "main(sys.argv[1:])"
    )
    run = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", program, "images", str(samples)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr


def test_words_are_quoted_as_each_shell_reads_them() -> None:
    """The command that a message shows would not run."""
    assert Windows().quoted(r"results\my_gels") == r"results\my_gels"
    assert Windows().quoted(r"results\my gels") == r'"results\my gels"'
    assert Linux().quoted("my gels") == "'my gels'"
