"""Fuzzing: damaged files harm no reader, and the engine would see it if they did."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gelkit.errors import GelkitError
from tests.fuzz import broken
from tests.fuzz.__main__ import main
from tests.fuzz.agreement import is_explained
from tests.fuzz.engine import Bounds, Tally, fuzz
from tests.fuzz.mutations import JPEG, PNG, TEXT, TIFF, Mutation, mutant
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import attempt

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="memory is measured as Linux tells it"
)

BROKEN = Bounds(count=6, seconds=60, timeout=1.0)


def _fuzz_broken(kind: str, kept: Path) -> Tally:
    return fuzz(kind, 0, BROKEN, kept, "tests.fuzz.broken")


@pytest.mark.exhaustive("fuzzing")
@pytest.mark.parametrize("kind", broken.TARGETS)
def test_a_reader_that_breaks_is_found_out(kind: str, tmp_path: Path) -> None:
    """A reader that crashes, hangs or takes all memory would count as sound."""
    tally = _fuzz_broken(kind, tmp_path)
    assert tally.mutants == BROKEN.count, "the run did not go on"
    assert tally.found.keys() == {kind}
    assert 0 < tally.found[kind] < BROKEN.count
    assert len(list(tmp_path.iterdir())) == len(tally.findings)
    assert all(finding.path.is_file() for finding in tally.findings.values())


def test_what_was_kept_breaks_the_reader_again(tmp_path: Path) -> None:
    """A finding could not be looked into: another file than the one that broke was kept."""
    tally = _fuzz_broken("exception", tmp_path / "kept")
    read = broken.TARGETS["exception"].open(tmp_path)
    (finding,) = tally.findings.values()
    kind, reason, _ = attempt(read, finding.path.read_bytes())
    assert kind == "exception"
    assert "something that a user should not see" in reason
    assert "KeyError at broken.py" in finding.signature


@pytest.mark.exhaustive("fuzzing")
@pytest.mark.parametrize("name", [name for name, its in TARGETS.items() if not its.excuse])
def test_damaged_files_harm_no_reader(name: str, tmp_path: Path) -> None:
    """One damaged file would end a run of thousands, or be decoded to something else."""
    target = TARGETS[name]
    files, read = target.corpus(), target.open(tmp_path)
    for number in range(30):
        data = mutant(files, target.mutations, f"0/{name}", number)
        kind, reason, value = attempt(read, data)
        assert kind in ("read", "refused"), reason
        if kind == "read" and target.opinion is not None:
            assert is_explained(target.opinion(data, value))


def test_a_seed_gives_the_same_mutants_again(tmp_path: Path) -> None:
    """Nobody could repeat what a run found."""
    once, again, other = (
        fuzz("scn", seed, Bounds(count=40, seconds=60), tmp_path) for seed in (5, 5, 6)
    )
    assert (once.read, once.refused) == (again.read, again.refused)
    assert once.refused != other.refused


@pytest.mark.parametrize("name", TARGETS)
def test_whole_files_are_read_or_refused_for_what_they_are(name: str, tmp_path: Path) -> None:
    """The mutants would be made of rubbish, and show nothing."""
    target = TARGETS[name]
    read = target.open(tmp_path)
    outcomes = []
    for data in target.corpus():
        try:
            read(data)
            outcomes.append("read")
        except GelkitError as error:
            outcomes.append(str(error))
    assert name == "other formats" or "read" in outcomes
    assert not any("that is whole" in outcome for outcome in outcomes)
    assert target.corpus() == target.corpus(), "mutants could not be made again"


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=200) | st.sampled_from([b"II*\0", b"\x89PNG\r\n\x1a\n"]),
    seed=st.integers(0, 10**6),
    mutation=st.sampled_from(sorted({*TIFF, *PNG, *JPEG, *TEXT}, key=lambda m: m.__name__)),
)
def test_anything_can_be_mutated(data: bytes, seed: int, mutation: Mutation) -> None:
    """A run would end where a mutation meets what an earlier one left."""
    assert isinstance(mutation(data, Random(seed), [b"", b"path,label\n", data]), bytes)


def test_the_table_tells_what_came_and_the_status_whether_it_is_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``make fuzz`` would pass although something was found, or not say what."""
    words = ["--count", "6", "--kept", str(tmp_path)]
    assert main([*words, "--target", "other formats"]) == 0
    assert "| other formats | 6 | 0 | 6 | 0 | 0 | 0 | 0 |" in capsys.readouterr().out
    assert main([*words, "--target", "exception"], "tests.fuzz.broken") == 1
    out = capsys.readouterr().out
    (kept,) = tmp_path.iterdir()
    assert f"`{kept}`: exception: KeyError at broken.py" in out
