"""`cg`: conjugate gradients per right-hand side, batched, with an optional Nyström preconditioner."""

from __future__ import annotations

import torch
from torch import Tensor

from pdeinfl.engine.basis import inner
from pdeinfl.engine.solvers.linear_systems import apply_eta, perturbation_gradients, solution_of
from pdeinfl.engine.solvers.problem import Problem, Solution


def solve_cg(
    problem: Problem, rtol: float = 1e-3, nystrom_rank: int = 0, max_iterations: int | None = None
) -> Solution:
    """Solve ``η z_j = g_j`` until ``‖r_j‖ ≤ rtol·‖g_j‖`` for each j; finished columns leave the batch.

    Args:
        rtol: relative residual. nystrom_rank: rank of the randomised Nyström preconditioner (Frangella, Tropp & Udell
            2023, algorithm 5.1); 0 for none. max_iterations: default ``2·min(P, N·D)``.
    """
    metric = problem.metric
    damping = problem.damping(problem.lambda_max or metric.largest_eigenvalue())
    limit = max_iterations if max_iterations is not None else 2 * min(metric.n_parameters, metric.n_outputs)
    precondition = Nystrom(problem, nystrom_rank, damping) if nystrom_rank else None
    b = perturbation_gradients(problem, torch.float64)
    z, r = torch.zeros_like(b), b.clone()
    goal = rtol * torch.linalg.vector_norm(b, dim=1)
    y = precondition(r) if precondition else r
    p, rho = y.clone(), (r * y).sum(1)
    active = torch.nonzero(torch.linalg.vector_norm(r, dim=1) > goal).flatten()
    iterations = 0
    while len(active) and iterations < limit:
        q = apply_eta(problem, p[active], damping)
        alpha = rho[active] / (p[active] * q).sum(1)
        z[active] += alpha[:, None] * p[active]
        r[active] -= alpha[:, None] * q
        y = precondition(r[active]) if precondition else r[active]
        fresh = (r[active] * y).sum(1)
        p[active] = y + (fresh / rho[active])[:, None] * p[active]
        rho[active] = fresh
        active = active[torch.linalg.vector_norm(r[active], dim=1) > goal[active]]
        iterations += 1
        problem.report(f"cg iteration {iterations}: {len(active)} of {len(b)} right-hand sides left")
    return solution_of(problem, z, damping, iterations=iterations, nystrom_rank=nystrom_rank)


class Nystrom:
    """``P⁻¹ = U (Λ̂ + λ)⁻¹ (λ̂_r + λ) Uᵀ + (1 − UUᵀ)`` from a rank-r randomised Nyström approximation ``UΛ̂Uᵀ`` of A."""

    def __init__(self, problem: Problem, rank: int, damping: float) -> None:
        metric, device = problem.metric, problem.gradients.device
        generator = torch.Generator().manual_seed(problem.seed)
        probes = torch.randn(rank, metric.n_parameters, generator=generator, dtype=torch.float64).to(device)
        probes = torch.linalg.qr(probes.T).Q.T.contiguous()
        sketch = metric.apply(probes.to(problem.gradients.dtype)).double()
        shift = torch.finfo(problem.gradients.dtype).eps * float(torch.linalg.matrix_norm(sketch))
        sketch += shift * probes
        core = inner(probes, sketch)
        factor = torch.linalg.cholesky(0.5 * (core + core.T)).to(device)
        half = torch.linalg.solve_triangular(factor, sketch, upper=False)
        u, singular, _ = torch.linalg.svd(half.T, full_matrices=False)
        self.directions = u.T.contiguous()
        self.values = (singular**2 - shift).clamp(min=0)
        self.weights = (self.values[-1] + damping) / (self.values + damping) - 1

    def __call__(self, rows: Tensor) -> Tensor:
        return rows + ((rows @ self.directions.T) * self.weights) @ self.directions
