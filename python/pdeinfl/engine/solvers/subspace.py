"""Galerkin in a subspace with its two-sided certificate: what `krylov`, `span`, `cg` and `craigmr` share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pdeinfl.engine.basis import Basis, inner, pad_columns
from pdeinfl.engine.certificate import DampingPath, observable_blocks
from pdeinfl.engine.solvers.problem import Problem, Solution


class Subspace:
    """Bases Q (parameters) and U (outputs) with the coordinates of ``√s·J Q`` in U and of ``√s·JᵀU`` in Q.

    Golub–Kahan style: every product acts on an orthonormal vector, so its rounding is δ‖J‖ and no small singular value
    is squared away. Holds ``(n_Q·P + n_U·N·D)`` numbers of the product dtype, beyond the budget on disk.

    Attributes:
        holds_perturbations: the perturbation gradients lie in the span of Q, so their residuals are known.
    """

    def __init__(self, problem: Problem) -> None:
        metric = problem.metric
        dtype, device = problem.gradients.dtype, problem.gradients.device
        share = problem.memory_budget * 0.5
        self.problem = problem
        self.q = Basis(metric.n_parameters, dtype, device, share)
        self.u = Basis(metric.n_outputs, dtype, device, share)
        self._forward: list[Tensor] = []
        self._adjoint: list[Tensor] = []
        self._gradients = torch.zeros(len(problem.gradients), 0, dtype=torch.float64)
        self._pending_q: list[Tensor] = []
        self._pending_u: list[Tensor] = []
        self.holds_perturbations = False

    @property
    def n_forward(self) -> int:
        """Vectors of Q that have been through J."""
        return sum(len(d) for d in self._forward)

    def add_parameters(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """Extend Q by rows ``(k, P)``, but for directions shorter than ``noise``; returns their coordinates."""
        before = len(self.q)
        coordinates = self.q.extend(rows, noise)
        if len(self.q) > before:
            fresh = self.q.last()
            self._pending_q.append(fresh)
            self._gradients = torch.cat([self._gradients, inner(self.problem.gradients, fresh)], 1)
        return coordinates

    def add_outputs(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """Extend U by rows ``(k, N·D)``, but for directions shorter than ``noise``; returns their coordinates."""
        before = len(self.u)
        coordinates = self.u.extend(rows, noise)
        if len(self.u) > before:
            self._pending_u.append(self.u.last())
        return coordinates

    def forward(self) -> bool:
        """Send the new vectors of Q through J; False when there are none."""
        if not self._pending_q:
            return False
        block = torch.cat(self._pending_q)
        self._pending_q.clear()
        self._forward.append(self.add_outputs(self.problem.metric.forward(block), 4 * self.problem.product_noise))
        return True

    def adjoint(self) -> bool:
        """Send the new vectors of U through Jᵀ; False when there are none."""
        if not self._pending_u:
            return False
        block = torch.cat(self._pending_u)
        self._pending_u.clear()
        self._adjoint.append(self.add_parameters(self.problem.metric.adjoint(block), 4 * self.problem.product_noise))
        return True

    def record_adjoint(self, coordinates: Tensor) -> None:
        """Coordinates in Q of ``√s·Jᵀu`` for vectors of U whose product was known without computing it."""
        self._pending_u.clear()
        self._adjoint.append(coordinates)

    def path(self) -> DampingPath:
        """Both sides of the certificate, diagonalised."""
        problem = self.problem
        forward = pad_columns(self._forward, len(self.u))
        adjoint = pad_columns(self._adjoint, len(self.q))
        lower = self._gradients[:, : len(forward)]
        ritz, vectors = torch.linalg.eigh(forward @ forward.T)
        lower = (lower @ vectors).numpy()
        upper_ritz, upper_vectors = torch.linalg.eigh(adjoint @ adjoint.T)
        upper = (self._gradients @ adjoint.T @ upper_vectors).numpy()
        self._ritz_vectors = vectors
        response, perturbation = problem.response_rows, problem.perturbation_rows
        residual_map = residual_upper = in_span = None
        if self.holds_perturbations and len(adjoint) == len(self.u):
            fresh = adjoint[:, len(forward) :]
            residual_map = (vectors.T @ forward @ fresh).T.numpy()
            residual_upper = (upper_vectors.T @ fresh).numpy()
            in_span = np.isin(response, perturbation)
        return DampingPath(
            ritz=ritz.clamp(min=0).numpy(),
            lower_response=lower[response],
            lower_perturbation=lower[perturbation],
            upper_ritz=upper_ritz.clamp(min=0).numpy(),
            upper_response=upper[response],
            upper_perturbation=upper[perturbation],
            overlap=problem.overlap[np.ix_(response, perturbation)],
            gram_response=observable_blocks(problem.overlap, response, problem.shape[0]),
            gram_perturbation=observable_blocks(problem.overlap, perturbation, problem.shape[1]),
            residual_map=residual_map,
            residual_upper=residual_upper,
            response_in_span=in_span,
        )

    def solution(self, path: DampingPath, **extra: object) -> Solution:
        """The `Solution` of this subspace; its steps keep Q alive."""
        vectors, q, n_columns = self._ritz_vectors, self.q, self.n_forward
        ritz, start = path.ritz, path.lower_perturbation

        def step(row: int, damping: float) -> Tensor:
            coefficients = vectors @ torch.from_numpy(start[row] / (ritz + damping))
            padded = torch.zeros(1, len(q), dtype=torch.float64)
            padded[0, :n_columns] = coefficients
            return -q.combine(padded)[0]

        return Solution(path=path, ritz=path.ritz, step=step, **extra)  # type: ignore[arg-type]


def galerkin(problem: Problem, rows: Tensor) -> Subspace:
    """The subspace spanned by rows ``(k, P)``, with the products that both sides of its certificate need: at most k
    JVPs and k VJPs."""
    subspace = Subspace(problem)
    subspace.add_parameters(rows)
    subspace.forward()
    subspace.adjoint()
    return subspace
