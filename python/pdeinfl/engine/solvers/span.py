"""`span`: Galerkin in the leading directions of the gradients (the companion's code)."""

from __future__ import annotations

import torch

from pdeinfl.engine.basis import inner
from pdeinfl.engine.solvers.problem import Problem, Solution
from pdeinfl.engine.solvers.subspace import galerkin

# Share of the squared gradient energy that the companion's code lets go.
DROPPED_ENERGY = 1e-4


def solve_span(problem: Problem, dropped_energy: float = DROPPED_ENERGY) -> Solution:
    """Keep the fewest singular directions of G whose dropped squared energy is at most ``dropped_energy``; solve there.

    Faithful to the companion, and cheap: at most one JVP and one VJP per example (the latter for the certificate).
    Dropping erases examples with small gradients; the certificate shows what that costs.
    """
    rows = torch.as_tensor(problem.perturbation_rows, device=problem.gradients.device)
    start = problem.gradients[rows]
    energies, vectors = torch.linalg.eigh(inner(start, start))
    energies = energies.flip(0).clamp(min=0)
    visible = int((energies > torch.finfo(start.dtype).eps ** 2 * energies[0]).sum())
    kept_energy = torch.cumsum(energies, 0) / energies.sum().clamp(min=torch.finfo(torch.float64).tiny)
    rank = min(int((kept_energy < 1 - dropped_energy).sum()) + 1, visible)
    directions = vectors.flip(1)[:, :rank].T.to(start.device) @ start.double()
    directions /= torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    subspace = galerkin(problem, directions)
    return subspace.solution(subspace.path(), details={"rank": rank})
