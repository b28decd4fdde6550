"""The summary numbers on a path of dampings, from solves already made (MATH §2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pdeinfl.analysis.aggregation import MAX_LAGS
from pdeinfl.analysis.estimate import Estimate
from pdeinfl.analysis.summary import LOCKING_THRESHOLD, TIME_THRESHOLD, longest_lag, summarize
from pdeinfl.engine.result import Influence

COHERENCE_TIME, CLASS_LOCKING = "coherence time (steps)", "class locking"
LOWEST, HIGHEST = 1e-10, 10.0

Limit = tuple[float, float, float]
"""Value, low, high; low and high are NaN where there is no interval."""


@dataclass(frozen=True, eq=False)
class DampingCurve:
    """One summary number of one surrogate on a path of dampings.

    Attributes:
        relative_dampings: λ/λ_max, increasing, ``(L,)``.
        values, low, high: the number and its interval, ``(L,)``; the interval is NaN where there is none.
        converged: fraction of the influence matrices whose certified error meets the tolerance, ``(L,)`` in [0, 1].
        at_zero, at_infinity: limits λ → 0 (H diagonal, given P ≥ N·D) and λ → ∞ (plain gradient overlap); NaN where
            they do not apply.
        bound_low, bound_high: where the error of the solves leaves the number, ``(L,)``; NaN, the default, where that
            is not known.
        ceiling: the largest value that can be told apart (the maximal lag, for the coherence time); a larger one is
            given as infinity and drawn at the ceiling with an open upward triangle.
        reference: level that divides the two readings of the number.
    """

    relative_dampings: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    converged: np.ndarray
    at_zero: Limit
    at_infinity: Limit
    ceiling: float | None = None
    reference: float | None = None
    bound_low: np.ndarray = field(default_factory=lambda: np.array(np.nan))
    bound_high: np.ndarray = field(default_factory=lambda: np.array(np.nan))

    def __post_init__(self) -> None:
        for name in ("bound_low", "bound_high"):
            object.__setattr__(self, name, np.broadcast_to(getattr(self, name), np.shape(self.values)))

    def estimates(self) -> list[Estimate]:
        """The number at each damping."""
        columns = (self.values, self.low, self.high, self.bound_low, self.bound_high)
        return [
            Estimate(value, low, high, bound_low=bound_low, bound_high=bound_high)
            for value, low, high, bound_low, bound_high in zip(*(map(float, c) for c in columns), strict=True)
        ]


def damping_path(
    results: Influence | Iterable[Influence],
    relative_dampings: Sequence[float] | np.ndarray | None = None,
    response: str = "smse",
    perturbation: str = "smse",
    standardize: str = "standard",
    style: str = "pooled",
    n_bootstrap: int = 200,
    bootstrap_seed: int = 0,
    max_lag: int | None = None,
    lambda_max: float | None = None,
) -> dict[str, DampingCurve]:
    """Coherence time and class locking at each damping and in both limits, at no further Jacobian product (MATH §2).

    Args:
        results: influences with a damping path, of one surrogate. Other arguments as `pdeinfl.lag_profile`.
        relative_dampings: increasing, ``(L,)``; default two per decade from 1e-10 to 10, and the results' own.
        lambda_max: what they are relative to; default the median over the results. Give that of the trained surrogate
            for its untrained control, so that one absolute damping serves both.

    Returns:
        A curve for each of ``coherence time (steps)`` and ``class locking``: what `pdeinfl.figures.damping_path` takes.

    Raises:
        ValueError: a result without a path, or an unknown ``lambda_max``; else as `pdeinfl.lag_profile`.
    """
    held = [results] if isinstance(results, Influence) else list(results)
    reason = no_path_reason(held)
    if reason:
        raise ValueError(f"`results` must hold a damping path: {reason}")
    top = reference_eigenvalue(held) if lambda_max is None else float(lambda_max)
    if not (np.isfinite(top) and top > 0):
        raise ValueError(f"`lambda_max`, the largest eigenvalue of the metric, must be positive; got {top}")
    if relative_dampings is None:
        relative_dampings = damping_grid(2, float(np.median([r.damping for r in held])) / top)
    grid = np.asarray(relative_dampings, dtype=np.float64)
    pair = (response, perturbation)
    options: dict[str, Any] = {
        "response": response,
        "perturbation": perturbation,
        "standardize": standardize,
        "style": style,
        "bootstrap_seed": bootstrap_seed,
        "max_lag": max_lag,
    }
    paths = [[_only_pair(r, pair) for r in result.at_damping([float(d) for d in grid * top])] for result in held]
    # The path leaves the audit behind, its verdict on the solve stays.
    sound = [not contradicted(r) for r in held]
    met = [[meets_tolerance(at, *pair) and good for at in p] for p, good in zip(paths, sound, strict=True)]
    found = [summarize([p[k] for p in paths], **options, n_bootstrap=n_bootstrap) for k in range(len(grid))]

    def in_limit(values: Callable[[Influence], np.ndarray], n_resamples: int) -> Any:
        exact = [_exactly(_only_pair(r, pair), values(r)) for r in held]
        return summarize(exact, **options, n_bootstrap=n_resamples)

    # Each example influences itself alone, up to the scale of its row, which standardisation removes.
    zero = in_limit(lambda r: np.eye(len(r.labels)), 0) if has_diagonal_limit(held, *pair) else None
    known = all(np.isfinite(r.gradient_overlap).all() for r in held)
    infinity = in_limit(lambda r: r.gradient_overlap[r.pair_index(*pair)], n_bootstrap) if known else None
    reach = longest_lag(held, MAX_LAGS[style] if max_lag is None else max_lag)
    curves = {}
    for name, number in ((COHERENCE_TIME, "coherence_time"), (CLASS_LOCKING, "class_locking")):
        at = [getattr(summary, number) for summary in found]
        first, last = (getattr(summary, number) if summary else Estimate(np.nan) for summary in (zero, infinity))
        is_time = name == COHERENCE_TIME
        curves[name] = DampingCurve(
            relative_dampings=grid,
            **{part: np.array([getattr(e, part) for e in at]) for part in ("low", "high", "bound_low", "bound_high")},
            values=np.array([e.value for e in at]),
            converged=np.mean(met, axis=0),
            at_zero=(first.value, np.nan, np.nan),
            at_infinity=(last.value, last.low, last.high),
            ceiling=float(reach) if is_time else None,
            reference=TIME_THRESHOLD if is_time else LOCKING_THRESHOLD,
        )
    return curves


def damping_grid(per_decade: int, include: float) -> np.ndarray:
    """Relative dampings from 1e-10 to 10, the run's own among them, increasing."""
    n = round(np.log10(HIGHEST / LOWEST)) * per_decade + 1
    grid = np.geomspace(LOWEST, HIGHEST, n)
    if np.isfinite(include) and include > 0 and np.abs(np.log(grid / include)).min() > 1e-6:
        grid = np.sort(np.append(grid, include))
    return grid


def no_path_reason(results: Sequence[Influence]) -> str:
    """Why there is no damping path; empty where there is one."""
    if not results:
        return "there are no influence matrices"
    if any(r.path is None for r in results):
        return "the influence matrices were stored or built without a damping path"
    return ""


def reference_eigenvalue(results: Sequence[Influence]) -> float:
    """λ_max of a run: the median over its results (MATH §2); NaN where unknown."""
    values = np.array([r.lambda_max for r in results], dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def meets_tolerance(result: Influence, response: str, perturbation: str) -> bool:
    """Whether the certified error of a pair of observables meets its tolerance, and no audit contradicts it."""
    error = result.relative_error[result.pair_index(response, perturbation)]
    return bool(error <= result.tol) and not contradicted(result)


def contradicted(result: Influence) -> bool:
    """Whether an audit with float64 products lies beyond the bounds of the result."""
    return result.audit is not None and not result.audit.agrees


def has_diagonal_limit(results: Sequence[Influence], response: str, perturbation: str) -> bool:
    """Whether H tends to a positive diagonal as λ → 0: one observable, one batch, and P ≥ N·D parameters.

    Of two observables the diagonal is r_A·r_B, of either sign.
    """
    wide = all(r.settings.get("n_parameters", 0) >= r.settings.get("n_outputs", np.inf) for r in results)
    # A symmetry image has the labels of its original: only the digests tell two batches apart.
    apart = ("response_batch_sha256", "metric_batch_sha256")
    one_batch = all(r.same_examples and not any(r.settings.get(name) for name in apart) for r in results)
    return response == perturbation and wide and one_batch


def _exactly(result: Influence, values: np.ndarray) -> Influence:
    """Other values, without an error."""
    values = np.asarray(values, dtype=np.float64).reshape(result.values.shape)
    return replace(result, values=values, error_bound=np.zeros_like(values), row_error=np.zeros_like(result.row_error))


def _only_pair(result: Influence, pair: tuple[str, str]) -> Influence:
    """The result cut to one pair of observables: its path is large and not needed any more."""
    a, b = result.pair_index(*pair)
    at = (slice(a, a + 1), slice(b, b + 1))
    return replace(
        result,
        **{name: getattr(result, name)[at] for name in ("values", "error_bound", "row_error", "relative_error")},
        gradient_overlap=np.asarray(result.gradient_overlap)[at],
        response_names=pair[:1],
        perturbation_names=pair[1:],
        path=None,
        step=None,
    )
