"""Does a surrogate whose training signal travels along a trajectory also roll out better (MATH §5)?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pdeinfl.analysis.resampling import percentile_interval, plan
from pdeinfl.analysis.selection import ResultKey, require_same_examples, select
from pdeinfl.engine.influence_matrix import Influence, Labels

MIN_POINTS = 3


@dataclass(frozen=True)
class Correlation:
    """Pearson correlation of ``n`` points with its 95 % interval; NaN below 3 points or where one side is constant."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, eq=False)
class RolloutLink:
    """Rollout error against ρ, one point per (seed, mini-batch, trajectory).

    Attributes:
        ratio: ρ = Σ_{i≠j} H_ij / Σ_i H_ii within the trajectory, ``(n,)``. error: its rollout error, ``(n,)``.
        class_ids: of each point, ``(n,)``, indexing ``class_names``.
        pooled: correlation of ratio and error over all points. by_class: within each class, in the order of
            ``class_names``: pooled and within-class correlations may differ in sign (Simpson).
        n_left_out: trajectories without a finite ratio or error, e.g. where the rollout blew up; they are no points.
        interval: how the intervals were made, or why there are none.
    """

    ratio: np.ndarray
    error: np.ndarray
    class_ids: np.ndarray
    class_names: tuple[str, ...]
    pooled: Correlation
    by_class: tuple[Correlation, ...]
    n_left_out: int
    interval: str


def rollout_link(
    results: Influence | Iterable[Influence],
    errors: Mapping[ResultKey, Mapping[tuple[int, int], float]],
    response: str = "smse",
    perturbation: str = "smse",
    n_bootstrap: int = 0,
    bootstrap_seed: int = 0,
) -> RolloutLink:
    """Pearson correlation between ρ of the unstandardised H and the rollout error, over trajectories.

    The authors' code records −0.65…−0.59 (CE-ViT) and −0.57…−0.02 (CE-UNet).

    Args:
        results: influences of one surrogate over seeds × mini-batches, responses on the perturbed examples.
        errors: ``{(run, seed, epoch, mini_batch): {(class_id, trajectory_id): error}}``: for each result the error of
            every trajectory in it, and of no other, infinite where the rollout blew up; further results are passed
            over. ``pi.surrogates.rollout_errors(model, batch).at(horizon)`` is the inner mapping of one result.
        response, perturbation: names of observables.
        n_bootstrap, bootstrap_seed: resamples of (seed, mini-batch) for 95 % intervals, and their seed. A correlation
            that is undefined in more than half of the resamples has none.

    Raises:
        ValueError: no result, an unknown name, differing class names, two results of one key, a result without
            ``errors`` or with those of other trajectories, a negative error, or responses on other examples.
    """
    held = (results,) if isinstance(results, Influence) else tuple(results)
    selection = select(held, response, perturbation, "none")
    points, clusters = [], []
    for result, key, h, cluster in zip(held, selection.keys, selection.values, selection.clusters, strict=True):
        require_same_examples(result)
        labels = result.labels
        for (class_id, trajectory), value in _matched(key, errors, labels).items():
            members = np.flatnonzero((labels.class_ids == class_id) & (labels.trajectory_ids == trajectory))
            block = h[np.ix_(members, members)]
            on, off = float(np.trace(block)), float(block[~np.eye(len(block), dtype=bool)].sum())
            points.append((off / on if on else float("nan"), value, class_id))
            clusters.append(cluster)
    table = np.array(points, dtype=np.float64).reshape(-1, 3)
    usable = np.isfinite(table).all(1)
    ratio, error = table[usable, :2].T
    class_ids = table[usable, 2].astype(np.int64)
    resamples = plan(selection.group_sizes, n_bootstrap, bootstrap_seed)
    weights = None
    if resamples.multiplicities is not None:
        weights = resamples.multiplicities[:, np.array(clusters, dtype=np.int64)[usable]].astype(np.float64)
    sets = [np.ones(len(ratio), dtype=bool), *(class_ids == k for k in range(len(selection.class_names)))]
    pooled, *by_class = (_correlation(ratio[m], error[m], None if weights is None else weights[:, m]) for m in sets)
    return RolloutLink(ratio, error, class_ids, selection.class_names, pooled, tuple(by_class),
                       int((~usable).sum()), resamples.description)  # fmt: skip


def _matched(
    key: ResultKey, errors: Mapping[ResultKey, Mapping[tuple[int, int], float]], labels: Labels
) -> dict[tuple[int, int], float]:
    """Error of each (class, trajectory) of a result, sorted."""
    wanted = sorted(set(zip(labels.class_ids.tolist(), labels.trajectory_ids.tolist(), strict=True)))
    if key not in errors:
        raise ValueError(f"`errors` must hold {key}, (run, seed, epoch, mini-batch) of a result; it lacks that")
    given = {(int(c), int(t)): float(error) for (c, t), error in errors[key].items()}
    if sorted(given) != wanted:
        raise ValueError(
            f"`errors[{key}]` must be keyed by the result's (class, trajectory) {wanted}; got {sorted(given)}"
        )
    if any(error < 0 for error in given.values()):
        raise ValueError(f"`errors[{key}]` must not be negative; got {min(given.values()):g}")
    return {pair: given[pair] for pair in wanted}


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> Correlation:
    low = high = float("nan")
    if weights is not None:
        draws = pearson(x, y, weights)
        if 2 * np.isfinite(draws).sum() >= len(draws):
            low, high = (float(end[0]) for end in percentile_interval(draws[:, None]))
    (value,) = pearson(x, y, np.ones((1, len(x))))
    return Correlation(float(value), low, high, len(x))


def pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson correlation of points ``(n,)`` under each row of non-negative ``weights`` ``(r, n)``; NaN where fewer
    than 3 points count or one side is constant among them.

    >>> pearson(np.arange(3.0), np.array([2.0, 0.0, -2.0]), np.ones((1, 3)))
    array([-1.])
    """
    out = np.full(len(weights), np.nan)
    counted = (weights > 0).sum(1) >= MIN_POINTS
    if not counted.any():
        return out
    share = weights[counted] / weights[counted].sum(1, keepdims=True)
    dx, dy = (v - (share @ v)[:, None] for v in (x, y))
    covariance, *variances = ((share * a * b).sum(1) for a, b in ((dx, dy), (dx, dx), (dy, dy)))
    # A constant side leaves rounding of the mean, of relative size n·ε at most.
    rounding = [(len(x) * np.finfo(np.float64).eps) ** 2 * (share @ v**2) for v in (x, y)]
    defined = (variances[0] > rounding[0]) & (variances[1] > rounding[1])
    scale = np.sqrt(variances[0]) * np.sqrt(variances[1])
    values = np.divide(covariance, scale, out=np.full(len(share), np.nan), where=defined)
    out[counted] = np.clip(values, -1.0, 1.0)
    return out
