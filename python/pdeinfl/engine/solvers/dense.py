"""`dense`: the exact answer from the explicit Jacobian, the oracle of every other solver."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pdeinfl import _core
from pdeinfl.engine.certificate import DampingPath
from pdeinfl.engine.memory import free_memory
from pdeinfl.engine.solvers.problem import Problem, Solution

_ROWS = 64


def solve_dense(problem: Problem) -> Solution:
    """Eigendecomposition of the smaller of ``s·JᵀJ`` (P×P) and ``s·JJᵀ`` (N·D×N·D), products in float64.

    Peak memory ``8·(N·D·P + 3·min(P, N·D)²)`` bytes. Costs ``min(P, N·D)`` Jacobian products.

    Raises:
        ValueError: that memory is not there.
    """
    metric = problem.metric
    n_parameters, n_outputs = metric.n_parameters, metric.n_outputs
    smaller = min(n_parameters, n_outputs)
    needed = 8 * (n_outputs * n_parameters + 3 * smaller**2)
    available = min(free_memory(torch.device("cpu")), problem.memory_budget)
    if needed > available:
        raise ValueError(
            f"solver 'dense' needs {needed / 2**30:.1f} GiB for {n_outputs} outputs x {n_parameters} parameters, "
            f"{available / 2**30:.1f} GiB are free: use solver='krylov'"
        )
    primal = n_parameters <= n_outputs
    product = metric.forward if primal else metric.adjoint
    factor = np.empty((smaller, n_outputs if primal else n_parameters))
    for start in range(0, smaller, _ROWS):
        stop = min(start + _ROWS, smaller)
        unit = torch.zeros(stop - start, smaller, dtype=torch.float64, device=problem.gradients.device)
        unit[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        factor[start:stop] = product(unit).double().cpu().numpy()
    values, vectors = np.linalg.eigh(_core.gram(factor, "float64", None))
    values = np.maximum(values, 0.0)
    gradients = problem.gradients.double().cpu().numpy()
    if primal:
        coordinates = gradients @ vectors
        overlap = problem.overlap
    else:
        overlap, coordinates, values, vectors = _dual(problem, factor, gradients, values, vectors)
    response, perturbation = problem.response_rows, problem.perturbation_rows
    norms = overlap.diagonal()
    empty = np.empty((0,))
    path = DampingPath(
        ritz=values,
        lower_response=coordinates[response],
        lower_perturbation=coordinates[perturbation],
        upper_ritz=empty,
        upper_response=np.empty((len(response), 0)),
        upper_perturbation=np.empty((len(perturbation), 0)),
        overlap=overlap[np.ix_(response, perturbation)],
        norms_response=norms[response],
        norms_perturbation=norms[perturbation],
        exact=True,
    )

    def step(row: int, damping: float) -> Tensor:
        inside = coordinates[perturbation[row]]
        weights = inside / (values + damping)
        if primal:
            return torch.from_numpy(-(vectors @ weights))
        root = np.sqrt(values)
        outside = gradients[perturbation[row]] - factor.T @ (vectors @ (inside / root))
        return torch.from_numpy(-(factor.T @ (vectors @ (weights / root)) + outside / damping))

    return Solution(path=path, ritz=values, step=step)


def _dual(
    problem: Problem, factor: np.ndarray, gradients: np.ndarray, values: np.ndarray, vectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Overlap and gradient coordinates along the right singular vectors ``√s·JᵀW/σ``, for the σ above round-off."""
    keep = values > len(values) * np.finfo(np.float64).eps * values[-1]
    values, vectors = values[keep], vectors[:, keep]
    coordinates = (gradients @ factor.T) @ vectors / np.sqrt(values)
    # Gradients of the metric's own examples lie in the range of Jᵀ: what round-off leaves outside is not theirs, and
    # would be divided by the damping.
    overlap = coordinates @ coordinates.T if problem.in_range else problem.overlap
    return overlap, coordinates, values, vectors
