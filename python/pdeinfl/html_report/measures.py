"""The summary numbers of a list of influences, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pdeinfl.analysis.aggregation import MAX_LAGS
from pdeinfl.analysis.summary import Estimate as FoundEstimate
from pdeinfl.analysis.summary import summarize
from pdeinfl.engine.result import Influence
from pdeinfl.html_report.content import Estimate


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

    def arguments(self, n_bootstrap: int | None = None) -> dict[str, Any]:
        """Keywords that every aggregation and summary takes."""
        return {
            "perturbation": self.perturbation,
            "standardize": self.standardize,
            "style": self.style,
            "n_bootstrap": self.n_bootstrap if n_bootstrap is None else n_bootstrap,
            "bootstrap_seed": self.bootstrap_seed,
        }


@dataclass(frozen=True)
class Measures:
    """The summary numbers of one list of influences."""

    coherence_time: Estimate
    class_locking: Estimate
    decay_constant: Estimate
    translation_defect: Estimate


def measure(results: Sequence[Influence], options: ReportOptions, n_bootstrap: int | None = None) -> Measures:
    """Summary numbers with their intervals, or the reasons why there are none (MATH §5)."""
    found = summarize(results, response=options.response, max_lag=options.max_lag, **options.arguments(n_bootstrap))
    return Measures(*(_estimate(getattr(found, f.name)) for f in fields(Measures)))


def _estimate(found: FoundEstimate) -> Estimate:
    has_interval = not (np.isnan(found.low) or np.isnan(found.high))
    text = found.interval.removeprefix("no interval: ").removeprefix("undefined: ")
    kind, reason = (text, "") if has_interval else ("", text)
    return Estimate(found.value, found.low, found.high, kind, reason, found.bound_low, found.bound_high)


def holds_pair(result: Influence, options: ReportOptions) -> bool:
    """Whether a result holds the pair of observables that the answer is about."""
    return options.response in result.response_names and options.perturbation in result.perturbation_names


def meets_tolerance(result: Influence, options: ReportOptions) -> bool:
    """Whether the certified error of the pair of observables that the answer is about meets its tolerance, and no audit
    contradicts it."""
    error = result.relative_error[result.pair_index(options.response, options.perturbation)]
    return bool(error <= result.tol) and not contradicted(result)


def contradicted(result: Influence) -> bool:
    """Whether an audit with float64 products lies beyond the bounds of the result."""
    return result.audit is not None and not result.audit.agrees


def one_step_error(results: Sequence[Influence]) -> float:
    """SMSE of single predictions: mean over the responses, median over the results; NaN where unknown."""
    means = [float(np.mean(r.losses)) for r in results if r.losses is not None and r.losses.size]
    return float(np.median(means)) if means else float("nan")


def longest_lag(results: Sequence[Influence], max_lag: int) -> int:
    """The longest lag that the trajectories hold, at most ``max_lag``."""
    spans = [int(np.ptp(r.labels.times)) for r in results if len(r.labels)]
    return min(max_lag, max(spans, default=0))


def counts(results: Sequence[Influence]) -> tuple[int, int, bool]:
    """Number of seeds, and of mini-batches of the seed that has most; whether every seed has as many."""
    batches: dict[int, set[int]] = {}
    for result in results:
        batches.setdefault(result.seed, set()).add(result.mini_batch)
    sizes = {len(b) for b in batches.values()}
    return len(batches), max(sizes, default=0), len(sizes) <= 1


def reference_eigenvalue(results: Sequence[Influence]) -> float:
    """λ_max of a run: the median over its results (MATH §2); NaN where unknown."""
    values = np.array([r.lambda_max for r in results], dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def relative_damping(results: Sequence[Influence]) -> float:
    """The run's damping over its λ_max; NaN where unknown."""
    values = np.array([r.damping for r in results], dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) / reference_eigenvalue(results) if values.size else float("nan")
