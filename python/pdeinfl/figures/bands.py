"""A line with its band, the common element of the curve figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes


def reach_of(profiles: Iterable[Any]) -> float:
    """Half-width of a lag axis that holds every lag with an entry in some profile."""
    held = [0.0]
    for profile in profiles:
        known = np.isfinite(profile.intra.median) | np.isfinite(profile.inter.median)
        held.append(float(np.abs(np.asarray(profile.lags)[known]).max(initial=0)))
    return max(held) + 0.4


def draw_band(
    axes: Axes,
    x: Any,
    curve: Any,
    colour: str,
    label: str | None = None,
    marker: str = "",
    linestyle: Any = "-",
    interval: bool = True,
) -> None:
    """Median as a line, quartiles as a band, and the bootstrap interval as error bars where the curve carries one.

    Args:
        x: ``(n,)``.
        curve: anything with ``.median``, ``.lower``, ``.upper`` ``(n,)`` and, optionally, ``.ci_low``, ``.ci_high``.
    """
    x, median = np.asarray(x, dtype=float), np.asarray(curve.median, dtype=float)
    axes.plot(x, median, color=colour, label=label, marker=marker, linestyle=linestyle, zorder=3)
    axes.fill_between(x, curve.lower, curve.upper, color=colour, alpha=0.16, linewidth=0, zorder=1)
    low, high = getattr(curve, "ci_low", None), getattr(curve, "ci_high", None)
    if interval and low is not None and high is not None:
        spread = np.abs(np.stack([median - np.asarray(low, dtype=float), np.asarray(high, dtype=float) - median]))
        kept = np.isfinite(spread).all(0) & np.isfinite(median)
        axes.errorbar(
            x[kept], median[kept], spread[:, kept], fmt="none", ecolor=colour, elinewidth=0.9, capsize=1.6, zorder=2
        )
