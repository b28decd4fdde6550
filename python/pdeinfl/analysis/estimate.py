"""`Estimate`: a number with its two kinds of uncertainty, scatter and the error of the solves."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and where the error of the solves leaves it.

    Attributes:
        value: NaN where undefined; infinity for "beyond ``limit``".
        low, high: interval over seeds and mini-batches, NaN where there is none.
        interval: how the interval was made, or why there is none.
        limit: the largest value that can be resolved (of a time the longest lag with an entry).
        bound_low, bound_high: limits of the value within the error bounds of H, NaN where these are not known.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    limit: float = math.inf
    bound_low: float = math.nan
    bound_high: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        text = self._number(self.value)
        return f"{text} [{self._number(self.low)}, {self._number(self.high)}]" if self.has_interval else text

    def _number(self, value: float) -> str:
        return f"> {self.limit:g}" if math.isinf(value) else f"{value:.3g}"

    @property
    def has_interval(self) -> bool:
        """Both ends are known (infinity counts as known)."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def has_bounds(self) -> bool:
        """Whether it is known where the error of the solves leaves the value."""
        return not (math.isnan(self.bound_low) or math.isnan(self.bound_high))

    @property
    def missing(self) -> str:
        """Why the value or its interval is missing; empty where it is not."""
        return "" if self.has_interval else self.interval.removeprefix("no interval: ").removeprefix("undefined: ")

    @property
    def span(self) -> tuple[float, float]:
        """The interval, without one the value, each end moved out by as much as the error of the solves may move the
        value."""
        low, high = self._scatter
        if not self.has_bounds:
            return low, high
        down, up = self.value - self.bound_low, self.bound_high - self.value
        # Beyond the limit there is nothing to subtract from.
        return (
            low - down if math.isfinite(low) and math.isfinite(down) else min(low, self.bound_low),
            high + up if math.isfinite(high) and math.isfinite(up) else max(high, self.bound_high),
        )

    def side(self, threshold: float) -> int:
        """+1 above the threshold, −1 below it, 0 undecided: the span reaches across it, or there is no value."""
        return _order(self.span, (threshold, threshold))

    def is_blurred(self, threshold: float) -> bool:
        """Whether the error of the solves alone reaches across the threshold."""
        return self.has_bounds and self.bound_low <= threshold <= self.bound_high

    def apart(self, other: Estimate) -> int:
        """+1 where this lies above the other, −1 below, 0 undecided: spans overlap, or a value is missing."""
        return _order(self.span, other.span)

    def intervals_apart(self, other: Estimate) -> int:
        """The same without the error of the solves."""
        return _order(self._scatter, other._scatter)

    @property
    def _scatter(self) -> tuple[float, float]:
        return (self.low, self.high) if self.has_interval else (self.value, self.value)


def _order(a: tuple[float, float], b: tuple[float, float]) -> int:
    return (a[0] > b[1]) - (a[1] < b[0])
