"""`dense`: the exact answer from the explicit Jacobian, the oracle of every other solver."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pdeinfl import _core
from pdeinfl.engine.certificate import DampingPath, observable_blocks
from pdeinfl.engine.memory import free_memory
from pdeinfl.engine.solvers.problem import Problem, Solution

_ROWS = 64


def solve_dense(problem: Problem) -> Solution:
    """Eigendecomposition of ``s·JᵀJ`` (P×P) or, where N·D is smaller, singular vectors of ``√s·J``; all float64.

    Peak memory ``8·(3·N·D·P + 3·min(P, N·D)²)`` bytes, a third of the first term where P is the smaller.
    Costs ``min(P, N·D)`` Jacobian products.

    Raises:
        ValueError: that memory is not there.
    """
    metric = problem.metric
    n_parameters, n_outputs = metric.n_parameters, metric.n_outputs
    smaller = min(n_parameters, n_outputs)
    primal = n_parameters <= n_outputs
    needed = 8 * ((1 if primal else 3) * n_outputs * n_parameters + 3 * smaller**2)
    available = min(free_memory(torch.device("cpu")), problem.memory_budget)
    if needed > available:
        raise ValueError(
            f"solver 'dense' needs {needed / 2**30:.1f} GiB for {n_outputs} outputs x {n_parameters} parameters, "
            f"{available / 2**30:.1f} GiB are free: use solver='krylov'"
        )
    product = metric.forward if primal else metric.adjoint
    factor = np.empty((smaller, n_outputs if primal else n_parameters))
    for start in range(0, smaller, _ROWS):
        stop = min(start + _ROWS, smaller)
        unit = torch.zeros(stop - start, smaller, dtype=torch.float64, device=problem.gradients.device)
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        factor[start:stop] = product(unit).double().cpu().numpy()
    gradients = problem.gradients.double().cpu().numpy()
    overlap = problem.overlap
    if primal:
        values, vectors = np.linalg.eigh(_core.gram(factor, "float64", None))
        values = np.maximum(values, 0.0)
    else:
        # The singular vectors of the factor itself: those of its Gram matrix lose what lies below √eps of the largest.
        _, singular, right = np.linalg.svd(factor, full_matrices=False)
        values, vectors = singular[::-1] ** 2, right[::-1].T
    coordinates = gradients @ vectors
    if not primal and problem.in_range:
        # Gradients of the metric's own examples lie in the range of Jᵀ: what round-off leaves outside is not theirs,
        # and would be divided by the damping.
        overlap = coordinates @ coordinates.T
    response, perturbation = problem.response_rows, problem.perturbation_rows
    empty = np.empty((0,))
    path = DampingPath(
        ritz=values,
        lower_response=coordinates[response],
        lower_perturbation=coordinates[perturbation],
        upper_ritz=empty,
        upper_response=np.empty((len(response), 0)),
        upper_perturbation=np.empty((len(perturbation), 0)),
        overlap=overlap[np.ix_(response, perturbation)],
        gram_response=observable_blocks(overlap, response, problem.shape[0]),
        gram_perturbation=observable_blocks(overlap, perturbation, problem.shape[1]),
        exact=True,
    )

    def step(row: int, damping: float) -> Tensor:
        inside = coordinates[perturbation[row]]
        z = vectors @ (inside / (values + damping))
        if not problem.in_range:
            z += (gradients[perturbation[row]] - vectors @ inside) / damping
        return torch.from_numpy(-z)

    return Solution(path=path, ritz=values, step=step)
