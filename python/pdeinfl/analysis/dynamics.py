"""How self- and cross-influence grow over training (MATH §5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pdeinfl.analysis.aggregation import QUARTILES
from pdeinfl.analysis.resampling import column_quantiles
from pdeinfl.analysis.selection import require_same_examples, select
from pdeinfl.engine.influence_matrix import Influence


@dataclass(frozen=True, eq=False)
class EpochCurve:
    """Median and quartiles over (seed, mini-batch) at each epoch, ``(E,)`` arrays."""

    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, eq=False)
class TrainingDynamics:
    """Mean of the unstandardised H of a mini-batch, on the diagonal (i = j) and off it (i ≠ j, over all examples).

    Attributes:
        epochs: ``(E,)`` ascending. on_diagonal, off_diagonal: their quartiles; NaN where no mini-batch has such pairs.
        n_results: ``(E,)``, how many (seed, mini-batch) each epoch holds.
    """

    epochs: np.ndarray
    on_diagonal: EpochCurve
    off_diagonal: EpochCurve
    n_results: np.ndarray


def training_dynamics(
    results: Influence | Iterable[Influence], response: str = "smse", perturbation: str = "smse"
) -> TrainingDynamics:
    """Mean self-influence ``Σ_i H_ii / N`` and mean cross-influence ``Σ_{i≠j} H_ij / N(N − 1)`` by epoch.

    H is not standardised: epochs compare where they share one absolute damping, as those of a run do.

    Args:
        results: influences of one surrogate over epochs × seeds × mini-batches, consumed one at a time.
        response, perturbation: names of observables.

    Raises:
        ValueError: no result, an unknown name, two results of the same run, seed, epoch and mini-batch, or responses
            that are not the perturbed examples, so that there is no diagonal.
    """
    means: dict[int, dict[tuple[str, int, int], tuple[float, float]]] = {}
    for result in (results,) if isinstance(results, Influence) else results:
        (h,) = select([result], response, perturbation, "none").values
        require_same_examples(result)
        held, key = means.setdefault(result.epoch, {}), (result.run, result.seed, result.mini_batch)
        if key in held:
            raise ValueError(
                f"`results` must differ in epoch, run, seed or mini-batch; got two of {result.epoch, *key}"
            )
        held[key] = _mean(np.diagonal(h)), _mean(h[~np.eye(len(h), dtype=bool)])
    if not means:
        raise ValueError("`results` is empty: give at least one Influence")
    epochs = sorted(means)
    keys = sorted({key for held in means.values() for key in held})
    nothing = (float("nan"), float("nan"))
    table = np.array([[means[epoch].get(key, nothing) for epoch in epochs] for key in keys])
    curves = []
    for part in (0, 1):
        (lower, median, upper), _ = column_quantiles(table[..., part], QUARTILES)
        curves.append(EpochCurve(median, lower, upper))
    return TrainingDynamics(np.array(epochs), curves[0], curves[1], np.array([len(means[epoch]) for epoch in epochs]))


def _mean(entries: np.ndarray) -> float:
    return float(entries.mean()) if entries.size else float("nan")
