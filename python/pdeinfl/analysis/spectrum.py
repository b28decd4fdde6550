"""Largest eigenvalues of the damped metric, for the box plots of figs. 8, 34 and 35."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pdeinfl.engine.influence_matrix import Influence


@dataclass(frozen=True, eq=False)
class LargestEigenvalues:
    """``λ_max(A + λ)`` of each result, ``(m,)`` arrays: ``values`` with the seed, epoch and mini-batch they belong to,
    and ``runs``, the run of each."""

    values: np.ndarray
    seeds: np.ndarray
    epochs: np.ndarray
    mini_batches: np.ndarray
    runs: tuple[str, ...]


def largest_eigenvalues(results: Influence | Iterable[Influence]) -> LargestEigenvalues:
    """Largest eigenvalue of the metric plus damping of each (seed, mini-batch).

    Raises:
        ValueError: no result, or one built from arrays, which has no metric.
    """
    held = (results,) if isinstance(results, Influence) else tuple(results)
    if not held:
        raise ValueError("`results` is empty: give at least one Influence")
    values = np.array([r.lambda_max + r.damping for r in held], dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("`results` must come from `pi.influence`: a matrix built from arrays has no eigenvalue")
    return LargestEigenvalues(
        values,
        np.array([r.seed for r in held]),
        np.array([r.epoch for r in held]),
        np.array([r.mini_batch for r in held]),
        tuple(r.run for r in held),
    )
