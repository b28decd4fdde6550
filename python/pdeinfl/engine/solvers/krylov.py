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

    Observables that only respond do not widen the iteration; their blocks converge as the square root of the
    perturbations' own. Adding their gradients to Q at the end, or their residuals to U, did not save products.

    Args:
        max_products: stop after so many JVPs + VJPs, converged or not; default ``4·min(P, N·D)``.
    """
    metric = problem.metric
    limit = 4 * min(metric.n_parameters, metric.n_outputs) if max_products is None else max_products
    spent_before = metric.n_jvp + metric.n_vjp
    subspace = Subspace(problem)
    _start(subspace, problem)
    subspace.holds_perturbations = True
    half_steps = (subspace.forward, subspace.adjoint)
    k = 0
    while half_steps[k % 2]():
        k += 1
        path = subspace.path()
        errors = _errors(problem, path)
        spent = metric.n_jvp + metric.n_vjp - spent_before
        problem.report(f"{spent} products, certified error {errors.max():.1e}")
        if errors.max() <= problem.tol or spent >= limit:
            break
    if k == 0:
        path = subspace.path()
    return subspace.solution(path, details={"half_steps": k, "basis_spilled": subspace.q.n_spilled})


def _start(subspace: Subspace, problem: Problem) -> None:
    """Q₁ = orth(G), and where the residuals R are known U₁ = orth(R) with ``√s·JᵀU₁`` by the same linear map."""
    rows = problem.perturbation_rows
    gradients = problem.gradients[torch.as_tensor(rows, device=problem.gradients.device)].double()
    if problem.residuals is None:
        subspace.add_parameters(_unit(gradients))
        return
    residuals = problem.residual_rows(rows).double()
    sizes = torch.linalg.vector_norm(residuals, dim=1, keepdim=True)
    live = sizes[:, 0] > 0
    if not bool(live.any()):
        return
    coordinates = subspace.add_outputs(_unit(residuals[live]))
    # Normalised, so that no small gradient is dropped as the rounding of a large one.
    held = subspace.add_parameters(_unit(gradients[live]))
    stretch = torch.linalg.vector_norm(gradients[live], dim=1, keepdim=True) * problem.metric.scale**0.5 / sizes[live]
    # U₁ = pinv(coordinates)·R/‖R‖, hence √s·JᵀU₁ = pinv(coordinates)·√s·G/‖R‖.
    subspace.record_adjoint(torch.linalg.pinv(coordinates) @ (held * stretch.cpu()))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    sizes = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(sizes > 0, sizes, torch.ones_like(sizes))


def _errors(problem: Problem, path: DampingPath) -> np.ndarray:
    """Relative error of each pair of observables, the largest over the requested dampings."""
    lambda_max = problem.lambda_max if problem.lambda_max is not None else float(path.ritz[-1])
    worst = np.zeros(problem.shape[:2])
    for damping in problem.dampings:
        value = damping.resolve(lambda_max)
        certified = certify(path, problem.shape, value, problem.rounding(lambda_max, value), problem.tol)
        worst = np.maximum(worst, certified.relative_error)
    return worst
