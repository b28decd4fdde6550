"""How a report aggregates, and what its numbers rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdeinfl.analysis.aggregation import MAX_LAGS
from pdeinfl.analysis.damping_curves import reference_eigenvalue
from pdeinfl.analysis.summary import Summary, summarize
from pdeinfl.engine.result import Influence


@dataclass(frozen=True)
class ReportOptions:
    """How the report aggregates.

    Attributes:
        style, standardize, max_lag: of the aggregations (MATH §§4–5); None takes the style's own lags.
        response, perturbation: the pair of observables that the answer and the damping path are about.
        n_bootstrap, n_bootstrap_path, bootstrap_seed: resamples at the run's damping and on the path, and their seed.
        dampings_per_decade: resolution of the path from 1e-10 to 10 times λ_max.
    """

    style: str = "pooled"
    standardize: str = "standard"
    max_lag: int | None = None
    response: str = "smse"
    perturbation: str = "smse"
    n_bootstrap: int = 1000
    n_bootstrap_path: int = 200
    bootstrap_seed: int = 0
    dampings_per_decade: int = 2

    @property
    def longest_lag(self) -> int:
        """``max_lag``, or that of the style."""
        return MAX_LAGS[self.style] if self.max_lag is None else self.max_lag

    def arguments(self) -> dict[str, Any]:
        """Keywords that every aggregation and summary takes."""
        return {
            "perturbation": self.perturbation,
            "standardize": self.standardize,
            "style": self.style,
            "n_bootstrap": self.n_bootstrap,
            "bootstrap_seed": self.bootstrap_seed,
        }


def measure(results: Sequence[Influence], options: ReportOptions) -> Summary:
    """Summary numbers with their intervals, or the reasons why there are none (MATH §5)."""
    return summarize(results, response=options.response, max_lag=options.max_lag, **options.arguments())


def holds_pair(result: Influence, options: ReportOptions) -> bool:
    """Whether a result holds the pair of observables that the answer is about."""
    return options.response in result.response_names and options.perturbation in result.perturbation_names


def one_step_error(results: Sequence[Influence], of: str = "losses") -> float:
    """SMSE of single predictions (or ``persistence_losses``): mean over the responses, median over the results; NaN
    where unknown."""
    losses = [getattr(r, of) for r in results]
    means = [float(np.mean(one)) for one in losses if one is not None and one.size]
    return float(np.median(means)) if means else float("nan")


def own_is_self(results: Sequence[Influence], options: ReportOptions) -> bool:
    """Whether all that a class does to itself, in the class matrix, is what an example does to itself: at equal times,
    with one trajectory of each class."""
    if options.style != "pooled":
        return False
    labels = [zip(r.perturbation_labels.class_ids, r.perturbation_labels.trajectory_ids, strict=True) for r in results]
    return all(len({k for k, _ in pairs}) == len(pairs) for pairs in map(set, labels))


def counts(results: Sequence[Influence]) -> tuple[int, int, bool]:
    """Number of seeds, and of mini-batches of the seed that has most; whether every seed has as many."""
    batches: dict[int, set[int]] = {}
    for result in results:
        batches.setdefault(result.seed, set()).add(result.mini_batch)
    sizes = {len(b) for b in batches.values()}
    return len(batches), max(sizes, default=0), len(sizes) <= 1


def relative_damping(results: Sequence[Influence]) -> float:
    """The run's damping over its λ_max; NaN where unknown."""
    values = np.array([r.damping for r in results], dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) / reference_eigenvalue(results) if values.size else float("nan")
