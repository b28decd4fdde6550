"""A few right-hand sides of a solved H checked with float64 products, whatever produced the solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdeinfl.engine.basis import inner
from pdeinfl.engine.certificate import certify
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.metric import Metric
from pdeinfl.engine.solvers.problem import Problem
from pdeinfl.engine.solvers.subspace import galerkin


@dataclass(frozen=True, eq=False)
class Audit:
    r"""H of k right-hand sides from float64 products: with ``r = g − ηz`` of their solutions z (MATH §3),

    .. math:: H_{ij} = g_i^T z_j + z_i^T r_j + r_i^T η^{-1} r_j .

    The first two terms leave an error of second order in r, whatever rounding went into z. The third lies between both
    sides of the certificate of the subspace that the r span, ``≤ ‖r_i‖‖r_j‖/λ``.

    Attributes:
        rows: positions among the perturbations, observable-major, ``(k,)``.
        values: H, float64 ``(k, k)``. error_bound: of it, ``(k, k)``.
        correction: ``|z_iᵀ r_j|``, ``(k, k)``; of a Galerkin solution, what rounding did to it.
        residual_norms: ``‖r‖/‖g‖``, ``(k,)``.
        reported, reported_bound: what the result says of the same pairs, ``(k, k)``; NaN where an observable does not
            respond.
    """

    rows: np.ndarray
    values: np.ndarray
    error_bound: np.ndarray
    correction: np.ndarray
    residual_norms: np.ndarray
    reported: np.ndarray
    reported_bound: np.ndarray

    @property
    def agrees(self) -> bool:
        """Whether both bounds together cover every difference (a NaN does not)."""
        room = self.error_bound + self.reported_bound
        return bool((np.isnan(self.reported) | (np.abs(self.values - self.reported) <= room)).all())

    @property
    def rounding(self) -> float:
        """``max |z_iᵀr_j|/√(H_ii H_jj)``: what `krylov` and `span` lost to rounding, to compare with ρ of MATH §3."""
        size = np.sqrt(np.maximum(np.diag(self.values), 0.0))
        scale = np.outer(size, size)
        return float(np.divide(self.correction, scale, out=np.zeros_like(scale), where=scale > 0).max(initial=0.0))


def spread(n: int, k: int) -> np.ndarray:
    """k positions of n, evenly spread: ``(min(k, n),)``."""
    return np.unique(np.linspace(0, n - 1, min(k, n)).round().astype(np.int64))


def audit_solutions(
    exact: Metric,
    rows: np.ndarray,
    gradients: Tensor,
    step: Callable[[int, float], Tensor],
    damping: float,
    reported: np.ndarray,
    reported_bound: np.ndarray,
) -> Audit:
    """Check the solutions ``z = −step(row, damping)`` of some right-hand sides; 4k float64 products, and about 10·k·P
    numbers of float64.

    Args:
        exact: the metric with float64 products.
        rows: positions of the right-hand sides. gradients: theirs, float64 ``(k, P)``.
        reported, reported_bound: ``(k, k)``.
    """
    k = len(rows)
    z = torch.stack([-step(int(row), damping) for row in rows]).to(gradients.device, torch.float64)
    residuals = gradients - exact.apply(z).add_(z, alpha=damping)
    correction = inner(z, residuals).numpy()
    problem = Problem(
        metric=exact,
        gradients=residuals,
        response_rows=np.arange(k),
        perturbation_rows=np.arange(k),
        overlap=inner(residuals, residuals).numpy(),
        residuals=None,
        in_range=False,
        shape=(1, 1, k, k),
        dampings=(Damping.of(damping),),
        lambda_max=None,
        tol=np.inf,
    )
    rest = certify(galerkin(problem, residuals).path(), problem.shape, damping, rounding=0.0, tol=np.inf)
    norms, sizes = (torch.linalg.vector_norm(v, dim=1).cpu().numpy() for v in (residuals, gradients))
    return Audit(
        rows=rows,
        values=inner(gradients, z).numpy() + correction + rest.values[0, 0],
        error_bound=rest.error_bound[0, 0],
        correction=np.abs(correction),
        residual_norms=np.divide(norms, sizes, out=np.zeros_like(norms), where=sizes > 0),
        reported=reported,
        reported_bound=reported_bound,
    )
