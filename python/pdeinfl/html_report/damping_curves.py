"""Summary numbers on a path of dampings, from solves already made (MATH §2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pdeinfl.engine.result import Influence
from pdeinfl.figures import DampingCurve
from pdeinfl.html_report.content import LOCKING_THRESHOLD, TIME_THRESHOLD, Estimate
from pdeinfl.html_report.measures import ReportOptions, contradicted, longest_lag, measure, meets_tolerance

COHERENCE_TIME, CLASS_LOCKING = "coherence time (steps)", "class locking"
LOWEST, HIGHEST = 1e-10, 10.0


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


def _diagonal_limit(result: Influence) -> Influence:
    """λ → 0 with full row rank, an observable on itself: each example influences itself alone."""
    return _exactly(result, np.broadcast_to(np.eye(result.values.shape[2]), result.values.shape).copy())


def _has_diagonal_limit(results: Sequence[Influence], options: ReportOptions) -> bool:
    """Whether H tends to a positive diagonal as λ → 0: one observable, one batch, and P ≥ N·D parameters.

    Of two observables the diagonal is r_A·r_B, of either sign.
    """
    wide = all(r.settings.get("n_parameters", 0) >= r.settings.get("n_outputs", np.inf) for r in results)
    one_batch = all(r.same_examples and not r.settings.get("metric_batch_sha256") for r in results)
    return options.response == options.perturbation and wide and one_batch


def _overlap_limit(result: Influence) -> Influence:
    """λ → ∞: gradient overlap, up to a factor that standardisation removes."""
    return _exactly(result, np.asarray(result.gradient_overlap))


def _exactly(result: Influence, values: np.ndarray) -> Influence:
    return replace(result, values=values, error_bound=np.zeros_like(values), row_error=np.zeros_like(result.row_error))


def damping_curves(
    results: Sequence[Influence], dampings: np.ndarray, lambda_max: float, options: ReportOptions
) -> dict[str, DampingCurve]:
    """Coherence time and class locking at each damping and in both limits, NaN where a limit is not known.

    Args:
        results: influences with a damping path.
        dampings: relative to ``lambda_max``, increasing, ``(L,)``.
        lambda_max: the run's largest eigenvalue; controls use that of the trained surrogate, so that one absolute
            damping serves the whole run.
        options: how to aggregate.
    """
    pair = (options.response, options.perturbation)
    absolute = [float(d) for d in dampings * lambda_max]
    paths = [[_only_pair(r, pair) for r in result.at_damping(absolute)] for result in results]
    # The path leaves the audit behind, its verdict on the solve stays.
    sound = [not contradicted(r) for r in results]
    met = [[meets_tolerance(at, options) and good for at in p] for p, good in zip(paths, sound, strict=True)]
    converged = np.mean(met, axis=0)
    known = all(np.isfinite(r.gradient_overlap).all() for r in results)
    narrowed = [_only_pair(r, pair) for r in results]
    undefined = Estimate(np.nan)
    found = [measure([p[k] for p in paths], options, options.n_bootstrap_path) for k in range(len(dampings))]
    diagonal = _has_diagonal_limit(results, options)
    zero = measure([_diagonal_limit(r) for r in narrowed], options, 0) if diagonal else None
    infinity = measure([_overlap_limit(r) for r in narrowed], options, options.n_bootstrap_path) if known else None
    curves = {}
    for name, field in ((COHERENCE_TIME, "coherence_time"), (CLASS_LOCKING, "class_locking")):
        at = [getattr(m, field) for m in found]
        first, last = (getattr(m, field) if m else undefined for m in (zero, infinity))
        is_time = name == COHERENCE_TIME
        curves[name] = DampingCurve(
            relative_dampings=np.asarray(dampings, dtype=float),
            values=np.array([e.value for e in at]),
            low=np.array([e.low for e in at]),
            high=np.array([e.high for e in at]),
            bound_low=np.array([e.bound_low for e in at]),
            bound_high=np.array([e.bound_high for e in at]),
            converged=converged,
            at_zero=(first.value, np.nan, np.nan),
            at_infinity=(last.value, last.low, last.high),
            ceiling=float(longest_lag(results, options.longest_lag)) if is_time else None,
            reference=TIME_THRESHOLD if is_time else LOCKING_THRESHOLD,
        )
    return curves


def _only_pair(result: Influence, pair: tuple[str, str]) -> Influence:
    """The result cut to one pair of observables: its path is large and not needed any more."""
    a, b = result.pair_index(*pair)
    at = (slice(a, a + 1), slice(b, b + 1))
    return replace(
        result,
        values=result.values[at],
        error_bound=result.error_bound[at],
        row_error=result.row_error[at],
        relative_error=result.relative_error[at],
        gradient_overlap=np.asarray(result.gradient_overlap)[at],
        response_names=pair[:1],
        perturbation_names=pair[1:],
        path=None,
        step=None,
    )
