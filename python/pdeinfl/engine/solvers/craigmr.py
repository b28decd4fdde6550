"""`craigmr`: all right-hand sides as one stacked system with one scalar recurrence (the paper-time code)."""

from __future__ import annotations

import torch
from torch import Tensor

from pdeinfl.engine.solvers.linear_systems import apply_eta, perturbation_gradients, solution_of
from pdeinfl.engine.solvers.problem import Problem, Solution

# Iterations of the first cycle and of the ones after it.
FIRST_CYCLE, CYCLE = 1, 15


def solve_craigmr(problem: Problem, rtol: float = 1.5e-2, max_cycles: int = 200) -> Solution:
    """Minimise the stacked residual norm ``(Σ_j ‖g_j − ηz_j‖²)^½`` in float32: one iteration, then cycles of 15, each
    restarted on the recomputed residual, until it is at most ``rtol`` times the initial one.

    CRAIG-MR is MINRES on the normal equations; for the positive definite η the conjugate-residual recurrence used here
    gives the same iterates in exact arithmetic, and stacking means that every column shares its two scalars. Early
    stopping at a loose tolerance acts as regularisation: see the error bound of the result.

    Args:
        rtol: relative residual; the paper used 1.5e-2 (UNet) and 5e-2 (ViT). max_cycles: bound on the cycles.
    """
    damping = problem.damping(problem.lambda_max or problem.metric.largest_eigenvalue())
    b = perturbation_gradients(problem, problem.gradients.dtype)
    z, r = torch.zeros_like(b), b.clone()
    start = float(torch.linalg.vector_norm(b.double()))
    iterations, cycles = 0, 0
    while cycles < max_cycles:
        length = FIRST_CYCLE if cycles == 0 else CYCLE
        z += _conjugate_residual(problem, r, damping, length)
        iterations, cycles = iterations + length, cycles + 1
        r = b - apply_eta(problem, z, damping)
        relative = float(torch.linalg.vector_norm(r.double())) / start if start > 0 else 0.0
        problem.report(f"craigmr cycle {cycles}: stacked residual {relative:.2e}")
        if relative <= rtol:
            break
    return solution_of(problem, z, damping, iterations=iterations, cycles=cycles, stacked_residual=relative)


def _conjugate_residual(problem: Problem, b: Tensor, damping: float, n_iterations: int) -> Tensor:
    z, r = torch.zeros_like(b), b.clone()
    p, eta_r = r.clone(), apply_eta(problem, r, damping)
    eta_p = eta_r.clone()
    rho = _dot(r, eta_r)
    for k in range(n_iterations):
        length = _dot(eta_p, eta_p)
        if length == 0.0 or rho == 0.0:
            break
        alpha = rho / length
        z.add_(p, alpha=alpha)
        if k == n_iterations - 1:
            break
        r.add_(eta_p, alpha=-alpha)
        eta_r = apply_eta(problem, r, damping)
        fresh = _dot(r, eta_r)
        p.mul_(fresh / rho).add_(r)
        eta_p.mul_(fresh / rho).add_(eta_r)
        rho = fresh
    return z


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.sum(a.double() * b.double()))
