"""Which bootstrap a set of results allows (MATH §5), and percentile intervals from its draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdeinfl import _core
from pdeinfl.arguments import check_counts

COVERAGE = 0.95
MIN_CLUSTERS = 3


@dataclass(frozen=True, eq=False)
class Plan:
    """Resamples of (seed, mini-batch) clusters.

    Attributes:
        multiplicities: int32 ``(n_resamples, n_clusters)``, how often each cluster is drawn; None where no interval is
            asked for or possible. description: how the interval is made, or why there is none.
    """

    multiplicities: np.ndarray | None
    description: str


def plan(group_sizes: Sequence[int], n_bootstrap: int, bootstrap_seed: int = 0) -> Plan:
    """Hierarchical resampling with at least 3 seeds of at least 3 mini-batches each; with fewer seeds only mini-batches
    are drawn, within each seed; none with fewer than 3 mini-batches in some seed.

    Args:
        group_sizes: number of mini-batches of each seed.
        n_bootstrap: number of resamples; 0 for no interval.
        bootstrap_seed: non-negative; the same seed gives the same resamples for any number of threads.

    Raises:
        ValueError: ``n_bootstrap`` or ``bootstrap_seed`` is negative.
    """
    n_bootstrap, bootstrap_seed = check_counts(0, n_bootstrap=n_bootstrap, bootstrap_seed=bootstrap_seed)
    if n_bootstrap == 0:
        return Plan(None, "no interval: not asked for (n_bootstrap=0)")
    fewest = min(group_sizes)
    if fewest < MIN_CLUSTERS:
        return Plan(None, f"no interval: it needs at least {MIN_CLUSTERS} mini-batches per seed; got {fewest}")
    hierarchical = len(group_sizes) >= MIN_CLUSTERS
    counts = _core.bootstrap_multiplicities(list(group_sizes), n_bootstrap, bootstrap_seed, hierarchical)
    if hierarchical:
        what = f"{len(group_sizes)} seeds, then mini-batches within each"
    else:
        n = len(group_sizes)
        within = f"each of {n} seeds" if n > 1 else "the one seed"
        what = f"mini-batches only, within {within}: no statement about other seeds"
    return Plan(counts, f"{COVERAGE:.0%} percentile bootstrap over {what}, {n_bootstrap} resamples")


def column_quantiles(
    table: np.ndarray,
    quantiles: Sequence[float],
    multiplicities: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Quantiles ``(n_quantiles, k)`` of the columns of ``table`` ``(m, k)`` without their NaNs, and with
    ``multiplicities`` the median of each column under each resample ``(n_resamples, k)``, row i in ``clusters[i]``."""
    table = np.ascontiguousarray(table, dtype=np.float64)
    m, k = table.shape
    rows, columns = np.zeros(m, dtype=np.int64), np.zeros(m * k, dtype=np.int64)
    clusters = rows if clusters is None else clusters
    out, _, draws = _core.pooled_quantiles(
        [table[i : i + 1] for i in range(m)],
        (rows, rows, columns, columns),
        clusters,
        "column",
        k,
        list(quantiles),
        multiplicities,
    )
    return out, draws


def percentile_interval(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central 95 % of the draws ``(n_resamples, k)`` of each column, NaN draws left out."""
    draws = np.ascontiguousarray(draws, dtype=np.float64)
    rows, columns = np.zeros(len(draws), np.int64), np.zeros(draws.shape[1], np.int64)
    labels = (rows, rows, columns, columns)
    tails = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    out, _, _ = _core.pooled_quantiles([draws], labels, np.zeros(1, np.int64), "column", draws.shape[1], tails)
    return out[0], out[1]


def nan_mean(table: np.ndarray) -> np.ndarray:
    """Mean over axis 0 without NaNs; NaN where there is nothing."""
    valid = ~np.isnan(table)
    return _ratio(np.where(valid, table, 0.0).sum(0), valid.sum(0))


def weighted_means(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of the columns of ``table`` ``(m, k)`` under each row of ``weights`` ``(n_resamples, m)``."""
    valid = ~np.isnan(table)
    return _ratio(weights @ np.where(valid, table, 0.0), weights @ valid.astype(np.float64))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    out = np.full(total.shape, np.nan)
    np.divide(total, count, out=out, where=count > 0)
    return out
