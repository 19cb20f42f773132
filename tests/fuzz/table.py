"""Table: what came of the mutants, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.fuzz.agreement import AGREE, UNREAD
from tests.fuzz.engine import CRASH, HANG, OPINION_LOST, Tally
from tests.fuzz.worker import EXCEPTION, MEMORY

_KINDS = (CRASH, HANG, MEMORY, EXCEPTION)


def as_markdown(tallies: Mapping[str, Tally], excuses: Mapping[str, str], seed: int) -> str:
    """Return the tables of all targets, by name.

    :param excuses: of targets whose crashes and hangs are no findings.
    """
    parts = [
        f"# Mutants of seed {seed}",
        _outcomes(tallies),
        *(f"{name}: {excuse}." for name, excuse in excuses.items() if excuse),
        "## Refused, by what was expected",
        _refusals(tallies),
        "## What was decoded, against a second decoder",
        _agreement(tallies),
        "## Disagreements",
        _disagreements(tallies),
        "## Findings",
        _findings(tallies),
    ]
    return "\n\n".join(parts)


def _outcomes(tallies: Mapping[str, Tally]) -> str:
    titles = ("target", "mutants", "read", "refused", "crashes", "hangs", "memory", "exceptions")
    return _table(
        (*titles, "slowest, ms", "peak, MiB"),
        (
            (
                name,
                tally.mutants,
                tally.read,
                tally.refused.total(),
                *(tally.found[kind] for kind in _KINDS),
                round(1000 * tally.slowest_secs),
                round(tally.peak_kib / 1024),
            )
            for name, tally in tallies.items()
        ),
    )


def _refusals(tallies: Mapping[str, Tally]) -> str:
    return _table(
        ("target", "refused", "reason"),
        (
            (name, count, reason)
            for name, tally in tallies.items()
            for reason, count in tally.refused.most_common()
        ),
    )


def _agreement(tallies: Mapping[str, Tally]) -> str:
    rows = []
    for name, tally in tallies.items():
        opinions = tally.opinions
        if opinions:
            rest = opinions.total() - opinions[AGREE] - opinions[UNREAD] - opinions[OPINION_LOST]
            rows.append((name, opinions[AGREE], rest, opinions[UNREAD], opinions[OPINION_LOST]))
    return _table(("target", AGREE, "disagree", f"it {UNREAD}", f"it {OPINION_LOST}"), rows)


def _disagreements(tallies: Mapping[str, Tally]) -> str:
    return _table(
        ("target", "mutants", "cause"),
        (
            (name, count, opinion)
            for name, tally in tallies.items()
            for opinion, count in tally.opinions.most_common()
            if opinion not in (AGREE, UNREAD, OPINION_LOST)
        ),
    )


def _findings(tallies: Mapping[str, Tally]) -> str:
    found = [finding for tally in tallies.values() for finding in tally.findings.values()]
    lines = [f"- `{finding.path}`: {finding.signature}" for finding in found]
    return "\n".join(lines) or "None."


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
