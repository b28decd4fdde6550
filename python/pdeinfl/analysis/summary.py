"""The numbers a report opens with: coherence time, decay constant, class locking, time-translation defect (MATH §5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pdeinfl import _core
from pdeinfl.analysis.aggregation import ClassTransfer, class_transfer, lag_profile
from pdeinfl.analysis.estimate import Estimate
from pdeinfl.analysis.resampling import COVERAGE, column_quantiles, plan
from pdeinfl.analysis.selection import select
from pdeinfl.engine.influence_matrix import Influence

TIME_THRESHOLD = 1.0
"""A coherence time above this many steps means that the signal reaches the neighbouring transitions."""
LOCKING_THRESHOLD = 0.5
"""Class locking above this means that another class feels less than half of what its own class does, on average."""
COHERENCE_LEVEL = 1.0
"""The level of standardised influence whose crossing is the coherence time."""
_NO_BOUNDS = (math.nan, math.nan)
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class Summary:
    """Summary numbers of one run.

    Attributes:
        coherence_time: first ``|lag|`` at which the sign-averaged intra-class curve falls below 1, infinite if never.
        decay_constant: τ of the least-squares fit ``a·exp(−|lag|/τ) + c``; 0: it drops within less than a step,
            infinite: no decay within the lags resolves it.
        class_locking: ``1 − mean(off) / mean(diagonal)`` of the class matrix: 1 locked, 0 full transfer.
        translation_defect: median over mini-batches of ``‖𝓛_t H‖_F / ‖H‖_F`` of the unstandardised H, per time step.
        n_masked: rows that had no scale and were left out.
    """

    coherence_time: Estimate
    decay_constant: Estimate
    class_locking: Estimate
    translation_defect: Estimate
    n_masked: int


def summarize(
    results: Influence | Iterable[Influence],
    response: str = "smse",
    perturbation: str = "smse",
    standardize: str = "standard",
    style: str = "pooled",
    max_lag: int | None = None,
    n_bootstrap: int = 1000,
    bootstrap_seed: int = 0,
    accuracy_order: int = 2,
) -> Summary:
    """Summary numbers with bootstrap intervals over seeds and mini-batches, as far as there are enough of them.

    Arguments as in `pdeinfl.lag_profile`; ``accuracy_order`` (2, 4, 6) is the order of the time differences.

    Raises:
        ValueError: as `pdeinfl.lag_profile`.
    """
    held = (results,) if isinstance(results, Influence) else tuple(results)
    common = (response, perturbation, standardize, style, n_bootstrap, bootstrap_seed)
    profile = lag_profile(held, *common, max_lag=max_lag)
    transfer = class_transfer(held, *common)
    folded = fold_lags(profile.intra.median)
    draws = None if profile.intra_draws is None else fold_lags(profile.intra_draws)
    why, longest = profile.interval, float(np.flatnonzero(np.isfinite(folded)).max(initial=0))
    ends = (profile.intra.bound_low, profile.intra.bound_high)
    times = [math.nan if end is None else float(coherence_time(fold_lags(end))) for end in ends]
    locking_draws = None if transfer.draws is None else class_locking(transfer.draws)
    return Summary(
        coherence_time=_estimate(
            coherence_time(folded), None if draws is None else coherence_time(draws), why, longest, (times[0], times[1])
        ),
        decay_constant=_estimate(
            decay_constant(folded), None if draws is None else decay_constant(draws), why, longest
        ),
        class_locking=_estimate(
            class_locking(transfer.median), locking_draws, transfer.interval, bounds=_locking_bounds(transfer)
        ),
        translation_defect=translation_defect(
            held, response, perturbation, accuracy_order, n_bootstrap=n_bootstrap, bootstrap_seed=bootstrap_seed
        ),
        n_masked=profile.n_masked,
    )


def fold_lags(curve: np.ndarray) -> np.ndarray:
    """Average over the sign of the lag: ``(…, 2L + 1)`` over lags −L … L to ``(…, L + 1)`` over |lag|; where one sign
    has no entry (NaN) the other stands alone."""
    zero = curve.shape[-1] // 2
    forward, backward = curve[..., zero:], curve[..., zero::-1]
    both = 0.5 * (forward + backward)
    return np.where(np.isnan(forward), backward, np.where(np.isnan(backward), forward, both))


def coherence_time(curve: np.ndarray, threshold: float = COHERENCE_LEVEL) -> np.ndarray:
    """First |lag| at which ``curve`` ``(…, L + 1)`` falls below ``threshold``, linearly interpolated between lags; 0 if
    it starts below, infinite if it never falls, NaN without any entry. NaN lags are passed over.

    >>> float(coherence_time(np.array([3.0, 2.0, 0.5])))
    1.6666666666666665
    """
    curves = curve.reshape(-1, curve.shape[-1])
    out = np.full(len(curves), np.nan)
    for k, values in enumerate(curves):
        lags = np.flatnonzero(~np.isnan(values))
        below = lags[values[lags] < threshold]
        if len(lags) == 0:
            continue
        if len(below) == 0:
            out[k] = np.inf
        elif below[0] == lags[0]:
            out[k] = 0.0
        else:
            after, before = below[0], lags[lags < below[0]][-1]
            fraction = 1.0
            if np.isfinite(values[before]):
                fraction = (values[before] - threshold) / (values[before] - values[after])
            out[k] = before + fraction * (after - before)
    return out.reshape(curve.shape[:-1])


def decay_constant(curve: np.ndarray) -> np.ndarray:
    """τ of the least-squares fit ``a·exp(−k/τ) + c`` to ``curve`` ``(…, L + 1)`` over k = 0 … L.

    For each τ the best a and c are linear, so only τ is searched: a logarithmic grid from 0.1 to 10 L, then golden
    sections around its best point. 0 or infinite when the best is an end of the grid; NaN where the curve rises
    (a ≤ 0) or has fewer than 4 entries.
    """
    curves = curve.reshape(-1, curve.shape[-1])
    n_lags = curves.shape[1]
    valid = ~np.isnan(curves)
    out = np.full(len(curves), np.nan)
    enough = valid.sum(1) >= 4
    if not enough.any():
        return out.reshape(curve.shape[:-1])
    y, weight = np.where(valid, curves, 0.0)[enough], valid[enough].astype(np.float64)
    grid = np.linspace(np.log(0.1), np.log(10.0 * (n_lags - 1)), 100)
    misfit = np.stack([_fit(y, weight, np.full(len(y), point))[0] for point in grid], 1)
    best = misfit.argmin(1)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, len(grid) - 1)]
    for _ in range(50):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        keep_left = _fit(y, weight, left)[0] < _fit(y, weight, right)[0]
        low, high = np.where(keep_left, low, left), np.where(keep_left, right, high)
    log_tau = 0.5 * (low + high)
    amplitude = _fit(y, weight, log_tau)[1]
    tau = np.where(best == 0, 0.0, np.where(best == len(grid) - 1, np.inf, np.exp(log_tau)))
    out[enough] = np.where(amplitude > len(grid) * np.finfo(float).eps * np.abs(y).max(1), tau, np.nan)
    return out.reshape(curve.shape[:-1])


def _fit(y: np.ndarray, weight: np.ndarray, log_tau: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared misfit and amplitude a of the best ``a·exp(−k/τ) + c`` for each row."""
    decay = np.exp(-np.arange(y.shape[1]) / np.exp(log_tau)[:, None]) * weight
    n = weight.sum(1)
    e = (decay - (decay.sum(1) / n)[:, None]) * weight
    v = (y - (y.sum(1) / n)[:, None]) * weight
    amplitude = (e * v).sum(1) / (e * e).sum(1)
    return ((v - amplitude[:, None] * e) ** 2).sum(1), amplitude


def class_locking(matrix: np.ndarray) -> np.ndarray:
    """``1 − mean(off-diagonal) / mean(diagonal)`` of ``(…, K, K)``; NaN for one class or a missing entry.

    >>> float(class_locking(np.array([[4.0, 1.0], [1.0, 4.0]])))
    0.75
    """
    k = matrix.shape[-1]
    if k < 2:
        return np.full(matrix.shape[:-2], np.nan)
    on = np.eye(k, dtype=bool)
    ratio = np.full(matrix.shape[:-2], np.nan)
    diagonal = matrix[..., on].mean(-1)
    np.divide(matrix[..., ~on].mean(-1), diagonal, out=ratio, where=diagonal != 0)
    return 1.0 - ratio


def _locking_bounds(transfer: ClassTransfer) -> tuple[float, float]:
    """Class locking at the worst and best that the bounds of the class matrix allow."""
    if transfer.bound_low is None or transfer.bound_high is None or len(transfer.class_names) < 2:
        return _NO_BOUNDS
    on = np.eye(len(transfer.class_names), dtype=bool)
    off_low, off_high = transfer.bound_low[~on].mean(), transfer.bound_high[~on].mean()
    low, high = transfer.bound_low[on].mean(), transfer.bound_high[on].mean()
    if not low > 0:
        return (-np.inf, np.inf) if low <= 0 else _NO_BOUNDS
    return 1 - off_high / (low if off_high > 0 else high), 1 - off_low / (high if off_low > 0 else low)


def translation_defect(
    results: Influence | Iterable[Influence],
    response: str = "smse",
    perturbation: str = "smse",
    accuracy_order: int = 2,
    standardize: str = "none",
    n_bootstrap: int = 0,
    bootstrap_seed: int = 0,
) -> Estimate:
    """Median over mini-batches of ``‖𝓛_t H‖_F / ‖H‖_F``, the derivative of H along ``(t, τ) → (t + s, τ + s)``
    (MATH §6): 0 when H depends on the lag alone within each pair of trajectories.

    NaN, with the reason, where times are not equally spaced or no diagonal has two entries.

    Raises:
        ValueError: as `pdeinfl.lag_profile`; ``accuracy_order`` is not 2, 4 or 6.
    """
    if accuracy_order not in (2, 4, 6):
        raise ValueError(f"`accuracy_order` must be 2, 4 or 6; got {accuracy_order}")
    selection = select(results, response, perturbation, standardize)
    resamples = plan(selection.group_sizes, n_bootstrap, bootstrap_seed)
    row_group, row_time, column_group, column_time = selection.trajectory_labels()
    row, column = 0, 0
    defects = np.empty((len(selection.values), 1))
    for k, block in enumerate(selection.values):
        r, c = slice(row, row + block.shape[0]), slice(column, column + block.shape[1])
        labels = (row_group[r], row_time[r], column_group[c], column_time[c])
        try:
            defects[k] = _core.translation_defect(block, labels, accuracy_order)
        except ValueError as error:
            return Estimate(math.nan, math.nan, math.nan, f"undefined: {error}")
        row, column = r.stop, c.stop
    (centre,), draws = column_quantiles(defects, (0.5,), resamples.multiplicities, selection.clusters)
    return _estimate(centre[0], None if draws is None else draws[:, 0], resamples.description)


def longest_lag(results: Iterable[Influence], max_lag: int) -> int:
    """The longest lag that the trajectories hold, at most ``max_lag``."""
    spans = [int(np.ptp(r.labels.times)) for r in results if len(r.labels)]
    return min(max_lag, max(spans, default=0))


def _estimate(
    value: np.ndarray | float,
    draws: np.ndarray | None,
    why: str,
    limit: float = math.inf,
    bounds: tuple[float, float] = _NO_BOUNDS,
) -> Estimate:
    value, low, high = float(value), math.nan, math.nan
    if np.isnan(value):
        return Estimate(value, low, high, "no interval: the number is undefined", limit)
    if draws is not None:
        usable = draws[~np.isnan(draws)]
        if 2 * len(usable) < len(draws):
            why = "no interval: undefined in more than half of the resamples"
        else:
            # Order statistics without interpolation: draws may be infinite.
            tail = (1 - COVERAGE) / 2
            low = float(np.quantile(usable, tail, method="lower"))
            high = float(np.quantile(usable, 1 - tail, method="higher"))
    return Estimate(value, low, high, why, limit, *(float(end) for end in bounds))
