"""Why a result did not converge, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pdeinfl.engine.certificate import rounding_factor

if TYPE_CHECKING:
    from pdeinfl.engine.result import Influence


def shortfall(result: Influence) -> str:
    """The worst pair of observables, what kept it from ``tol``, and the remedy, in one line; empty where converged, or
    where nothing was solved (a matrix made elsewhere)."""
    if result.converged or result.path is None:
        return ""
    if result.audit is not None and not result.audit.agrees:
        return "the audit with float64 products contradicts it"
    error = result.relative_error
    a, b = np.unravel_index(int(np.argmax(np.where(np.isnan(error), np.inf, error))), error.shape)
    pair = f"{result.response_names[a]} | {result.perturbation_names[b]}"
    if not error[a, b] > result.tol:
        return "another damping that was asked for did not: see `at_damping`"
    return f"worst {pair}: {_reason(result)}"


def _reason(result: Influence) -> str:
    solver = str(result.settings.get("solver", "krylov"))
    if result.bound_is_estimate:
        return "too few probes for this damping: more `probes` or `max_probes`, or a larger damping"
    limit = dict(result.settings.get("solver_options", {})).get("max_products")
    if solver == "krylov" and limit is not None and result.n_jvp + result.n_vjp >= int(limit):
        return f"stopped by max_products={int(limit)}"
    # The rounding of a pair is no smaller than this, and `krylov` stops at three times it.
    if 3 * rounding_factor(result.product_error, result.gradient_error, result.lambda_max, result.damping) > result.tol:
        narrow = result.settings.get("product_dtype", "float32")
        remedy = "a larger damping" if narrow == "float64" else 'product_dtype="float64", or a larger damping'
        return f"rounding of {narrow} products: {remedy}"
    if solver not in ("krylov", "dense"):
        return f"solver {solver!r} does not iterate until `tol`: 'krylov' does"
    return 'rounding that adds up over its rows: product_dtype="float64", or a larger damping'
