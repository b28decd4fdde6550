"""Two-time map, lag profile, class transfer and distance decay of one or many influence matrices (MATH §5).

``style="pooled"``: median and quartiles over all selected entries of all seeds × mini-batches. ``style="paper"``: means
over pairs within a mini-batch, then the mean over seeds × mini-batches as the centre (field ``median``), with quartiles
over seeds × mini-batches (two-time, class) or over the seeds' means (lag, distance). Rows respond, columns perturb.

Two kinds of uncertainty go with a centre. ``ci_low`` and ``ci_high`` (None unless asked for): its scatter over seeds
and mini-batches. ``bound_low`` and ``bound_high`` (None where results have no bounds): where the error of the solves
leaves it, all entries moved down or up together by as much as their certificates allow; infinite where rows are
unresolved. Rows without a scale (``n_masked``) take no part in any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pdeinfl import _core
from pdeinfl.analysis.resampling import (
    Plan,
    column_quantiles,
    nan_mean,
    percentile_interval,
    plan,
    weighted_means,
)
from pdeinfl.analysis.selection import LabelArrays, Selection, select
from pdeinfl.arguments import check_count, check_one_of
from pdeinfl.engine.influence_matrix import Influence

QUARTILES = (0.25, 0.5, 0.75)
_LARGE, _SQRT_LARGE = 1e200, 1e100
STYLES = ("pooled", "paper")
MAX_LAGS = {"pooled": 11, "paper": 8}
"""The longest lag that each style draws (MATH §5)."""


@dataclass(frozen=True, eq=False)
class TwoTime:
    """Influence of time τ (columns) on time t (rows) within a trajectory; ``(T, T)`` arrays over ``times`` ``(T,)``.

    ``interval`` says how ``ci_low`` and ``ci_high`` were made, or why they are None or NaN; ``n_masked`` counts rows
    that had no scale.
    """

    times: np.ndarray
    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    style: str
    ci_low: np.ndarray | None
    ci_high: np.ndarray | None
    interval: str
    n_masked: int
    bound_low: np.ndarray | None = None
    bound_high: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Profile:
    """Centre, quartiles and interval of the centre at each lag, ``(n_lags,)`` arrays."""

    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    ci_low: np.ndarray | None
    ci_high: np.ndarray | None
    bound_low: np.ndarray | None = None
    bound_high: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LagProfile:
    """Influence against ``lags`` = response time − perturbation time, within (``intra``) and across (``inter``)
    initial-condition classes. ``intra_draws`` holds the bootstrap draws of the intra centre, ``(n_resamples, n_lags)``.
    """

    lags: np.ndarray
    intra: Profile
    inter: Profile
    style: str
    interval: str
    n_masked: int
    intra_draws: np.ndarray | None


@dataclass(frozen=True, eq=False)
class ClassTransfer:
    """Influence of class (column) on class (row), ``(K, K)`` arrays over ``class_names``; at equal times, or in the
    paper's style over all times. ``draws`` holds the bootstrap draws of the centre, ``(n_resamples, K, K)``."""

    class_names: tuple[str, ...]
    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    style: str
    ci_low: np.ndarray | None
    ci_high: np.ndarray | None
    interval: str
    n_masked: int
    draws: np.ndarray | None
    bound_low: np.ndarray | None = None
    bound_high: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class DistanceDecay:
    """Influence against the distance of the inputs, ``(n_bins,)`` arrays; bin b spans ``edges[b]`` to
    ``edges[b + 2·overlap]`` around ``bin_centers[b] = edges[b + overlap]``."""

    bin_centers: np.ndarray
    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    style: str
    ci_low: np.ndarray | None
    ci_high: np.ndarray | None
    interval: str
    n_masked: int
    edges: np.ndarray
    overlap: int
    bound_low: np.ndarray | None = None
    bound_high: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class _Bins:
    """Flat results over bins; ``bounds``: limits of the centre within the error of the solves."""

    centre: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    draws: np.ndarray | None
    asked: bool
    bounds: tuple[np.ndarray, np.ndarray] | None

    def interval(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        if self.draws is not None:
            return percentile_interval(self.draws)
        return (np.full_like(self.centre, np.nan),) * 2 if self.asked else (None, None)


def two_time(
    results: Influence | Iterable[Influence],
    response: str = "smse",
    perturbation: str = "smse",
    standardize: str = "standard",
    style: str = "pooled",
    n_bootstrap: int = 0,
    bootstrap_seed: int = 0,
) -> TwoTime:
    """Influence of each time on each time over pairs of the same trajectory (figs. 2, 6, 16–19).

    Args:
        results: one `Influence`, or an iterable over seeds × mini-batches (consumed one at a time).
        response, perturbation: names of observables.
        standardize: kind of MATH §4. style: ``"pooled"`` or ``"paper"``.
        n_bootstrap, bootstrap_seed: resamples for a 95 % interval of the centre, and their seed.

    Raises:
        ValueError: no result, an unknown name, differing class names, a standardisation that does not apply.
    """
    selection = _select(results, response, perturbation, standardize, style)
    resamples = plan(selection.group_sizes, n_bootstrap, bootstrap_seed)
    row_group, row_time, column_group, column_time = selection.trajectory_labels()
    times = np.unique(np.concatenate((row_time, column_time)))
    labels = (row_group, np.searchsorted(times, row_time), column_group, np.searchsorted(times, column_time))
    bins = _aggregate(selection, labels, "two_time", len(times), style, resamples, n_bootstrap > 0)
    shape = (len(times), len(times))
    return TwoTime(times, *_quartiles(bins, shape), style, *_limits(bins, shape), resamples.description,
                   selection.n_masked, *_bounds(bins, shape))  # fmt: skip


def lag_profile(
    results: Influence | Iterable[Influence],
    response: str = "smse",
    perturbation: str = "smse",
    standardize: str = "standard",
    style: str = "pooled",
    n_bootstrap: int = 0,
    bootstrap_seed: int = 0,
    max_lag: int | None = None,
) -> LagProfile:
    """Influence against lag, within and across classes (figs. 4, 7, 20–23). Arguments as `two_time`.

    Args:
        max_lag: lags run from ``−max_lag`` to ``max_lag``; default 11 (pooled), 8 in the paper's style. A lag without
            entries is NaN.

    Raises:
        ValueError: as `two_time`; ``max_lag`` is negative.
    """
    selection = _select(results, response, perturbation, standardize, style)
    max_lag = check_count("max_lag", MAX_LAGS[style] if max_lag is None else max_lag, 0)
    resamples = plan(selection.group_sizes, n_bootstrap, bootstrap_seed)
    bins = _aggregate(selection, selection.class_labels(), "lag", max_lag, style, resamples, n_bootstrap > 0)
    n_lags = 2 * max_lag + 1
    low, high = bins.interval()

    def part(start: int) -> Profile:
        at = slice(start, start + n_lags)
        ends = (None, None) if low is None or high is None else (low[at], high[at])
        bounds = (None, None) if bins.bounds is None else (bins.bounds[0][at], bins.bounds[1][at])
        return Profile(bins.centre[at], bins.lower[at], bins.upper[at], *ends, *bounds)

    draws = None if bins.draws is None else bins.draws[:, :n_lags]
    lags = np.arange(-max_lag, max_lag + 1)
    return LagProfile(lags, part(0), part(n_lags), style, resamples.description, selection.n_masked, draws)


def class_transfer(
    results: Influence | Iterable[Influence],
    response: str = "smse",
    perturbation: str = "smse",
    standardize: str = "standard",
    style: str = "pooled",
    n_bootstrap: int = 0,
    bootstrap_seed: int = 0,
) -> ClassTransfer:
    """Influence of each class on each class (figs. 3, 12–15): at equal times when pooled, over all times in the paper's
    style. Arguments and errors as `two_time`."""
    selection = _select(results, response, perturbation, standardize, style)
    resamples = plan(selection.group_sizes, n_bootstrap, bootstrap_seed)
    k = len(selection.class_names)
    kind = "class" if style == "pooled" else "class_any_time"
    bins = _aggregate(selection, selection.class_labels(), kind, k, style, resamples, n_bootstrap > 0)
    draws = None if bins.draws is None else bins.draws.reshape(-1, k, k)
    return ClassTransfer(selection.class_names, *_quartiles(bins, (k, k)), style, *_limits(bins, (k, k)),
                         resamples.description, selection.n_masked, draws, *_bounds(bins, (k, k)))  # fmt: skip


def distance_decay(
    results: Influence | Iterable[Influence],
    response: str = "smse",
    perturbation: str = "smse",
    standardize: str = "standard",
    style: str = "pooled",
    n_bootstrap: int = 0,
    bootstrap_seed: int = 0,
    n_bins: int | None = None,
    overlap: int | None = None,
) -> DistanceDecay:
    """Influence against the distance of the inputs (figs. 5, 32–33), an example with itself left out.

    ``n_bins + 2·overlap`` edges, logarithmic between the 0.5 and 99.5 % quantiles of all distances; each bin spans
    ``overlap`` edges to either side of its centre. Pooled: the mean per seed × mini-batch, then quartiles over those.
    Arguments as `two_time`.

    Args:
        n_bins: default 19 (pooled, the later code's for CE; NS used 15), 15 in the paper's style.
        overlap: default 1 (pooled; NS used 2), 5 in the paper's style: this window is all the smoothing there is.

    Raises:
        ValueError: as `two_time`; a result without ``input_distance``; distances that do not spread.
    """
    selection = _select(results, response, perturbation, standardize, style)
    resamples = plan(selection.group_sizes, n_bootstrap, bootstrap_seed)
    n_bins = check_count("n_bins", {"pooled": 19, "paper": 15}[style] if n_bins is None else n_bins)
    overlap = check_count("overlap", {"pooled": 1, "paper": 5}[style] if overlap is None else overlap)
    distances = _distances(selection)
    spread = np.concatenate([d[np.isfinite(d)] for d in distances])
    low, high = np.quantile(spread, (0.005, 0.995)) if spread.size else (np.nan, np.nan)
    if not low < high:
        raise ValueError(f"distances between inputs must spread over a range; got {spread.size} from {low} to {high}")
    edges = np.geomspace(low, high, n_bins + 2 * overlap)
    edges[[0, -1]] = low, high
    labels, width = selection.class_labels(), 2 * overlap

    def means(values: list[np.ndarray]) -> np.ndarray:
        sums, counts = _core.bin_sums(values, labels, selection.clusters, "distance", 0, distances, edges)
        window = np.lib.stride_tricks.sliding_window_view
        return _means(window(sums, width, axis=1).sum(-1), window(counts, width, axis=1).sum(-1))

    if style == "pooled":
        (lower, centre, upper), draws = column_quantiles(
            means(selection.values), QUARTILES, resamples.multiplicities, selection.clusters
        )
        limits = _extremes(selection, lambda values: column_quantiles(means(values), (0.5,))[0][0])
        bins = _Bins(centre, lower, upper, draws, n_bootstrap > 0, limits)
    else:
        bins = _of_means(selection, means, resamples, n_bootstrap > 0, over_seeds=True)
    shape = (n_bins,)
    return DistanceDecay(edges[overlap : overlap + n_bins], *_quartiles(bins, shape), style, *_limits(bins, shape),
                         resamples.description, selection.n_masked, edges, overlap, *_bounds(bins, shape))  # fmt: skip


def _select(
    results: Influence | Iterable[Influence], response: str, perturbation: str, standardize: str, style: str
) -> Selection:
    check_one_of("style", style, STYLES)
    return select(results, response, perturbation, standardize)


def _aggregate(
    selection: Selection, labels: LabelArrays, kind: str, size: int, style: str, resamples: Plan, asked: bool
) -> _Bins:
    if style == "pooled":
        (lower, centre, upper), _, draws = _core.pooled_quantiles(
            selection.values, labels, selection.clusters, kind, size, list(QUARTILES), resamples.multiplicities
        )
        limits = _extremes(
            selection,
            lambda values: _core.pooled_quantiles(values, labels, selection.clusters, kind, size, [0.5])[0][0],
        )
        return _Bins(centre, lower, upper, draws, asked, limits)

    def means(values: list[np.ndarray]) -> np.ndarray:
        return _means(*_core.bin_sums(values, labels, selection.clusters, kind, size))

    return _of_means(selection, means, resamples, asked, over_seeds=kind == "lag")


def _of_means(
    selection: Selection,
    means_of: Callable[[list[np.ndarray]], np.ndarray],
    resamples: Plan,
    asked: bool,
    over_seeds: bool,
) -> _Bins:
    """The paper's style from the means ``(n_blocks, n_bins)`` of each mini-batch."""
    spread = means = means_of(selection.values)
    if over_seeds:
        spread = np.stack([nan_mean(means[selection.seeds == s]) for s in range(len(selection.group_sizes))])
    (lower, upper), _ = column_quantiles(spread, (0.25, 0.75))
    draws = None
    if resamples.multiplicities is not None:
        draws = weighted_means(means, resamples.multiplicities[:, selection.clusters].astype(np.float64))
    limits = _extremes(selection, lambda values: nan_mean(means_of(values)))
    return _Bins(nan_mean(means), lower, upper, draws, asked, limits)


def _extremes(
    selection: Selection, centre: Callable[[list[np.ndarray]], np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """A centre that no entry lowers by rising, of all entries at the lower and at the upper ends of their bounds."""
    if selection.errors is None:
        return None
    pairs = list(zip(selection.values, selection.errors, strict=True))
    # A large number stands for infinity, which quantiles would interpolate to NaN.
    low = centre([np.maximum(value - error, -_LARGE) for value, error in pairs])
    high = centre([np.minimum(value + error, _LARGE) for value, error in pairs])
    return np.where(low < -_SQRT_LARGE, -np.inf, low), np.where(high > _SQRT_LARGE, np.inf, high)


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    out = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=out, where=counts > 0)
    return out


def _distances(selection: Selection) -> list[np.ndarray]:
    """Distances of each block, NaN where an example meets itself or its exact copy."""
    out = []
    for given, rows, columns in zip(selection.distances, selection.rows, selection.columns, strict=True):
        if given is None:
            raise ValueError("`results` must carry `input_distance`; at least one has none: pass it to `from_arrays`")
        same = np.ones(given.shape, dtype=bool)
        for name in ("class_ids", "trajectory_ids", "times"):
            same &= getattr(rows, name)[:, None] == getattr(columns, name)[None, :]
        out.append(np.where(same | ~(given > 0), np.nan, given).astype(np.float64))
    return out


def _quartiles(bins: _Bins, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return bins.centre.reshape(shape), bins.lower.reshape(shape), bins.upper.reshape(shape)


def _bounds(bins: _Bins, shape: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray | None]:
    return (None, None) if bins.bounds is None else (bins.bounds[0].reshape(shape), bins.bounds[1].reshape(shape))


def _limits(bins: _Bins, shape: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray | None]:
    low, high = bins.interval()
    return (None, None) if low is None or high is None else (low.reshape(shape), high.reshape(shape))
