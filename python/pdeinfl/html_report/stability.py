"""Whether a reading survives a change of damping (MATH §2)."""

from __future__ import annotations

import math

import numpy as np

from pdeinfl.analysis.damping_curves import DampingCurve
from pdeinfl.html_report.content import StableRange


def stable_range(dampings: np.ndarray, signs: np.ndarray, converged: np.ndarray, default: float) -> StableRange:
    """The contiguous converged dampings around ``default`` with the same, non-zero sign as there.

    Args:
        dampings: λ/λ_max, increasing, ``(L,)``.
        signs: sign of the reading at each, ``(L,)``; 0 or NaN where it is undecided.
        converged: whether every influence matrix met its tolerance there, ``(L,)``.
        default: the run's relative damping; the nearest grid point stands for it.
    """
    if not (len(dampings) and math.isfinite(default) and default > 0):
        return StableRange(math.nan, math.nan, "the run's damping is unknown")
    centre = int(np.argmin(np.abs(np.log(dampings) - np.log(default))))
    if not converged[centre]:
        return StableRange(math.nan, math.nan, "the solve did not converge at the run's own damping")
    sign = signs[centre]
    if not (sign > 0 or sign < 0):
        return StableRange(math.nan, math.nan, "the reading is undecided at the run's own damping")
    holds = np.asarray(converged, dtype=bool) & (np.asarray(signs) == sign)
    low = high = centre
    while low > 0 and holds[low - 1]:
        low -= 1
    while high + 1 < len(dampings) and holds[high + 1]:
        high += 1
    return StableRange(float(dampings[low]), float(dampings[high]))


def reading_range(curve: DampingCurve, default: float) -> StableRange:
    """Where the number stays on its side of the curve's reference level, with its whole span."""
    signs = np.array([estimate.side(curve.reference or 0.0) for estimate in curve.estimates()])
    return stable_range(curve.relative_dampings, signs, np.asarray(curve.converged) >= 1, default)


def difference_range(curve: DampingCurve, control: DampingCurve, default: float) -> StableRange:
    """Where trained − untrained keeps its sign, their spans apart, and both converged; two infinities are alike."""
    signs = np.array([a.apart(b) for a, b in zip(curve.estimates(), control.estimates(), strict=True)])
    converged = (np.asarray(curve.converged) >= 1) & (np.asarray(control.converged) >= 1)
    return stable_range(curve.relative_dampings, signs, converged, default)
