"""`krylov`: block Golub–Kahan bidiagonalisation until the certified error of H meets the tolerance (MATH §3)."""

from __future__ import annotations

import numpy as np
import torch

from pdeinfl.engine.certificate import DampingPath, certify
from pdeinfl.engine.solvers.problem import Problem, Solution
from pdeinfl.engine.solvers.subspace import Subspace


def solve_krylov(problem: Problem, max_products: int | None = None) -> Solution:
    """Galerkin in ``span{G, AG, A²G, …}`` over the perturbation gradients G, with H_L and H_U from the same products.

    Where the perturbations are examples of the metric mini-batch, the outputs' basis starts at their residuals, whose
    adjoint products are the gradients themselves: the upper side is one block ahead at no cost. A certificate is
    evaluated after every block of JVPs and every block of VJPs. One run serves every damping; it stops when all of
    ``problem.dampings`` meet ``tol``.

    Args:
        max_products: stop after so many JVPs + VJPs, converged or not; default ``2·min(P, N·D)``.
    """
    metric = problem.metric
    limit = 2 * min(metric.n_parameters, metric.n_outputs) if max_products is None else max_products
    spent_before = metric.n_jvp + metric.n_vjp
    subspace = Subspace(problem)
    start = problem.gradients[torch.as_tensor(problem.perturbation_rows, device=problem.gradients.device)]
    norms = torch.linalg.vector_norm(start.double(), dim=1)
    scale = torch.where(norms > 0, norms, torch.ones_like(norms))
    unit = (start.double() / scale[:, None]).to(start.dtype)
    if problem.residuals is None:
        subspace.add_parameters(unit)
    else:
        _start_at_residuals(subspace, problem, start)
    path: DampingPath | None = None
    half_steps = (subspace.forward, subspace.adjoint)
    k = 0
    while True:
        if not half_steps[k % 2]():
            break
        k += 1
        path = subspace.path()
        worst = _worst(problem, path)
        spent = metric.n_jvp + metric.n_vjp - spent_before
        problem.report(f"{spent} products, certified error {worst:.1e}")
        if worst <= problem.tol or spent >= limit:
            break
    if path is None or k % 2 == 0:
        path = subspace.path()
    return subspace.solution(path, details={"half_steps": k, "basis_spilled": subspace.q.n_spilled})


def _start_at_residuals(subspace: Subspace, problem: Problem, gradients: torch.Tensor) -> None:
    """U₁ = orth(R), and ``√s·JᵀU₁`` from the gradients by the same linear map."""
    residuals = problem.residuals
    assert residuals is not None
    norm = torch.linalg.vector_norm(residuals.double(), dim=1)
    live = norm > 0
    residuals, gradients = residuals[live], gradients[live]
    scaled = (residuals.double() / norm[live][:, None]).to(residuals.dtype)
    if len(scaled) == 0:
        return
    coordinates = subspace.add_outputs(scaled)
    scale = float(np.sqrt(problem.metric.scale))
    # U₁ = pinv(coordinates)·R/‖R‖, hence √s·JᵀU₁ = pinv(coordinates)·√s·G/‖R‖.
    inverse = torch.linalg.pinv(coordinates).to(gradients.device)
    known = inverse @ (gradients.double() * (scale / norm[live])[:, None])
    subspace.record_adjoint(subspace.add_parameters(known))


def _worst(problem: Problem, path: DampingPath) -> float:
    """Largest relative error over the requested dampings and pairs of observables."""
    lambda_max = problem.lambda_max if problem.lambda_max is not None else float(path.ritz[-1])
    worst = 0.0
    for damping in problem.dampings:
        value = damping.resolve(lambda_max)
        certified = certify(path, problem.shape, value, problem.rounding(lambda_max, value), problem.tol)
        worst = max(worst, float(certified.relative_error.max()))
    return worst
