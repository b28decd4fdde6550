"""What `cg` and `craigmr` share: ``η z = g`` for many right-hand sides, and H with a bound from approximate z."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pdeinfl.engine.basis import inner
from pdeinfl.engine.solvers.problem import Problem, Solution
from pdeinfl.engine.solvers.subspace import galerkin


def apply_eta(problem: Problem, vectors: Tensor, damping: float) -> Tensor:
    """``(A + λ)v`` for each row, accumulated in the rows' own dtype."""
    product = problem.metric.apply(vectors.to(problem.gradients.dtype))
    return product.to(vectors.dtype).add_(vectors, alpha=damping)


def perturbation_gradients(problem: Problem, dtype: torch.dtype) -> Tensor:
    """The right-hand sides, ``(n_perturbation_rows, P)``."""
    rows = torch.as_tensor(problem.perturbation_rows, device=problem.gradients.device)
    return problem.gradients[rows].to(dtype)


def solution_of(problem: Problem, z: Tensor, damping: float, **details: float | int | str) -> Solution:
    r"""`Solution` from approximate ``z_j ≈ η⁻¹g_j``: ``H_ij = g_iᵀz_j``.

    With the recomputed residual ``r_j = g_j − ηz_j``, the error is ``g_iᵀη⁻¹r_j``, at most ``√H_ii·‖r_j‖/√λ``, and
    H_ii is bounded by the certificate of the subspace that the z span, which also serves the other dampings. Costs one
    JVP and one VJP per right-hand side for the residuals, and as many again for the certificate.
    """
    residual = perturbation_gradients(problem, torch.float64) - apply_eta(problem, z.double(), damping)
    norms = torch.linalg.vector_norm(residual, dim=1).cpu().numpy()
    values = inner(problem.gradients, z.to(problem.gradients.dtype)).numpy()[problem.response_rows]
    subspace = galerkin(problem, z)
    path = subspace.path()
    upper = np.einsum("kii->ki", path.sides(damping)[0].upper).ravel()
    bound = np.outer(np.sqrt(upper), norms) / np.sqrt(damping)
    sizes = np.sqrt(np.einsum("kii->ki", path.gram_perturbation)).ravel()
    relative = np.divide(norms, sizes, out=np.zeros_like(norms), where=sizes > 0)
    z64 = z.double()
    otherwise = subspace.step(path)

    def step(row: int, at: float) -> Tensor:
        return -z64[row] if at == damping else otherwise(row, at)

    return Solution(
        path=path,
        ritz=path.ritz,
        step=step,
        values=values,
        error_bound=bound,
        residual_norms=relative,
        details=dict(details),
    )
