"""Numbers: how a page shows them, as text and as a place on a scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

MISSING = "\N{EN DASH}"
"""What is shown where there is no number."""
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scale:
    """A common scale of bars."""

    low: float
    high: float
    mark: float | None = None
    """A value that a line stands for."""

    def place(self, value: float) -> str:
        """Return where a value lies, such as ``25.00%``; the nearer end if it lies outside."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def scale_of_fractions(values: Iterable[float], mark: float | None = None) -> Scale:
    """Return a scale to 1 from the tenth below the smallest value, at least a tenth long.

    :param mark: left out where it does not lie on the scale, which would squeeze the bars.
    """
    lowest = min(filter(_is_known, values), default=0.0)
    low = min(max(math.floor(10 * lowest) / 10, 0.0), 0.9)
    return Scale(low, 1.0, mark if mark is not None and mark >= low else None)


def fraction(value: float, digits: int = 3) -> str:
    """Show a fraction, such as ``0.912``."""
    return f"{value:.{digits}f}" if _is_known(value) else MISSING


def percent(value: float, digits: int = 0) -> str:
    """Show a fraction as a percentage; nearly all is not shown as all."""
    if not _is_known(value):
        return MISSING
    least = 10.0**-digits
    return f"{min(100 * value, 100 - least) if value < 1 else 100:.{digits}f}%"


def points(value: float) -> str:
    """Show a difference of fractions in percentage points with its sign."""
    return f"{100 * value:+.1f}".replace("-", MINUS) if _is_known(value) else MISSING


def seconds(value: float) -> str:
    """Show a time in a unit that suits it."""
    if not _is_known(value):
        return MISSING
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 3600 else f"{value / 3600:.1f} h"


def p_value(value: float) -> str:
    """Show a p-value with as many digits as tell something."""
    if not _is_known(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(low: float, high: float, show: Callable[[float], str] = fraction) -> str:
    """Show an interval, such as ``0.812 to 0.947``."""
    return f"{show(low)} to {show(high)}" if _is_known(low) and _is_known(high) else MISSING


FILTERS: Mapping[str, Callable[..., object]] = {
    its.__name__: its for its in (fraction, percent, points, seconds, p_value)
}
"""What templates may call by name."""


def _is_known(value: float) -> bool:
    return math.isfinite(value)
