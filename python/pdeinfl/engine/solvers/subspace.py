"""Galerkin in a subspace with its two-sided certificate: what `krylov`, `span`, `cg` and `craigmr` share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pdeinfl.engine.basis import Basis, inner, pad_columns
from pdeinfl.engine.certificate import DampingPath, observable_blocks
from pdeinfl.engine.memory import free_memory
from pdeinfl.engine.solvers.problem import Problem, Solution

# Per number of a block: three float64 copies in the orthogonalisation, the product and its stored form.
_WORKING_BYTES = 32


class Subspace:
    """Bases Q (parameters) and U (outputs) with the coordinates of ``√s·J Q`` in U and of ``√s·JᵀU`` in Q.

    Golub–Kahan style: every product acts on an orthonormal vector, so its rounding is δ‖J‖ and no small singular value
    is squared away. The stored vectors of Q are orthonormal only to the rounding of their dtype, which the upper side
    would multiply by λ_max/λ: coordinates are in the basis ``L⁻¹Q`` with ``LLᵀ = QQᵀ``, orthonormal in float64.

    Holds ``(n_Q·P + n_U·N·D)`` numbers of the product dtype: what the memory budget leaves beside the activations, the
    gradients and the float64 copies of one block (32 bytes a number) on the device, then, of a CUDA device, in pinned
    host memory, the rest on disk.

    Attributes:
        holds_perturbations: the perturbation gradients lie in the span of Q, so their residuals are known.
    """

    def __init__(self, problem: Problem) -> None:
        metric = problem.metric
        dtype, device = problem.gradients.dtype, problem.gradients.device
        self.problem = problem
        # Of the budget, 30 % are the activations'; beside the bases live the gradients and the copies of one block.
        longer = max(metric.n_parameters, metric.n_outputs)
        working = _WORKING_BYTES * len(problem.perturbation_rows) * longer
        held = problem.gradients.numel() * problem.gradients.element_size() + working
        room = max(0.0, 0.7 * problem.memory_budget - held) / (metric.n_parameters + metric.n_outputs)
        pinned = 0.5 * free_memory(torch.device("cpu")) / (metric.n_parameters + metric.n_outputs)
        self.q, self.u = (
            Basis(n, dtype, device, room * n, pinned * n) for n in (metric.n_parameters, metric.n_outputs)
        )
        self._gradients = torch.zeros(len(problem.gradients), 0, dtype=torch.float64)
        self._factor = torch.zeros(0, 0, dtype=torch.float64)
        # Directions of Q that have been through J, and their complement, which waits: orthonormal columns.
        self._sent = torch.zeros(0, 0, dtype=torch.float64)
        self._waiting = torch.zeros(0, 0, dtype=torch.float64)
        self._forward: list[Tensor] = []
        self._adjoint = torch.zeros(0, 0, dtype=torch.float64)
        self._pending_u: list[Tensor] = []
        self.holds_perturbations = False

    @property
    def n_waiting(self) -> int:
        """Directions of Q that have not been through J."""
        return self._waiting.shape[1]

    @property
    def knows_residuals(self) -> bool:
        """Whether every residual ``g − ηy`` lies in Q: the gradients do, and all of U has been through Jᵀ."""
        return self.holds_perturbations and len(self._adjoint) == len(self.u)

    def add_parameters(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """Extend Q by rows ``(k, P)``, but for directions shorter than ``noise``; returns their coordinates."""
        before = len(self.q)
        coordinates = self.q.extend(rows, noise)
        n_fresh = len(self.q) - before
        if n_fresh:
            fresh = self.q.last().to(self.problem.gradients.device)
            among, cross = self.q.inner(fresh), inner(self.problem.gradients, fresh)
            below = torch.linalg.solve_triangular(self._factor, among[:, :before].T, upper=False).T
            corner = torch.linalg.cholesky(among[:, before:] - below @ below.T)
            cross = torch.linalg.solve_triangular(corner, (cross - self._gradients @ below.T).T, upper=False).T
            self._gradients = torch.cat([self._gradients, cross], 1)
            self._factor = _pad(self._factor, n_fresh, n_fresh)
            self._factor[before:] = torch.cat([below, corner], 1)
            self._sent = _pad(self._sent, n_fresh, 0)
            self._waiting = _pad(self._waiting, n_fresh, n_fresh)
            self._waiting[before:, -n_fresh:] = torch.eye(n_fresh, dtype=torch.float64)
            self._adjoint = _pad(self._adjoint, 0, n_fresh)
        return coordinates @ self._factor

    def add_outputs(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """Extend U by rows ``(k, N·D)``, but for directions shorter than ``noise``; returns their coordinates."""
        before = len(self.u)
        coordinates = self.u.extend(rows, noise)
        if len(self.u) > before:
            self._pending_u.append(self.u.last())
        return coordinates

    def forward(self, directions: Tensor | None = None) -> bool:
        """Send directions of Q that wait through J; False when there are none.

        Args:
            directions: combinations of them, ``(k, n_waiting)`` with orthonormal rows; the rest of their span goes on
                waiting. Default all of them.
        """
        if not self.n_waiting:
            return False
        if directions is None or len(directions) == self.n_waiting:
            chosen, left = self._waiting, self._waiting[:, :0]
        else:
            whole = torch.linalg.qr(directions.T, mode="complete").Q
            chosen, left = self._waiting @ whole[:, : len(directions)], self._waiting @ whole[:, len(directions) :]
        block = self.q.combine(self._stored(chosen).T).to(self.problem.gradients.dtype)
        self._forward.append(self.add_outputs(self.problem.metric.forward(block), 4 * self.problem.product_noise))
        self._sent = torch.cat([self._sent, chosen], 1)
        self._waiting = left
        return True

    def adjoint(self) -> bool:
        """Send the new vectors of U through Jᵀ; False when there are none."""
        if not self._pending_u:
            return False
        block = torch.cat(self._pending_u)
        self._pending_u.clear()
        coordinates = self.add_parameters(self.problem.metric.adjoint(block), 4 * self.problem.product_noise)
        self._adjoint = torch.cat([self._adjoint, coordinates])
        return True

    def record_adjoint(self, coordinates: Tensor) -> None:
        """Coordinates in Q of ``√s·Jᵀu`` for vectors of U whose product was known without computing it."""
        self._pending_u.clear()
        self._adjoint = torch.cat([self._adjoint, coordinates])

    def _stored(self, coordinates: Tensor) -> Tensor:
        """Coordinates ``(n_Q, k)`` in terms of the stored vectors."""
        return torch.linalg.solve_triangular(self._factor.T, coordinates, upper=True)

    def leading(self, damping: float, share: float, excess: np.ndarray | None = None) -> Tensor | None:
        r"""Combinations of the directions that wait which hold most of what H lacks: ``(k, n_waiting)``.

        The residuals r of the perturbations lie in those directions, and there ``H − H_L = rᵀη⁻¹r ≤ rᵀBr`` with
        ``B = [1 − Kᵀ(λ + KKᵀ)⁻¹K]/λ``: the fewest right singular vectors of ``r·B^{1/2}`` that hold ``share`` of
        ``tr rᵀBr``. With ``excess``, the errors of rows over their goals ``(n_perturbation_rows,)``, half of the weight
        is shared among the residuals by its square instead of by their size. None (all of them) where none waits or
        the residuals are not known: the gradients must lie in Q, and all of U have been through Jᵀ.
        """
        if not self.knows_residuals or not self.n_waiting:
            return None
        gradients = self._gradients[torch.from_numpy(self.problem.perturbation_rows)]
        forward = pad_columns(self._forward, len(self.u))
        fresh = self._adjoint @ self._waiting
        y = _solve_shifted(forward @ forward.T, damping, (gradients @ self._sent).T).T
        residuals = gradients @ self._waiting - y @ forward @ fresh
        metric = -fresh.T @ _solve_shifted(self._adjoint @ self._adjoint.T, damping, fresh)
        metric.diagonal().add_(1.0)
        values, vectors = torch.linalg.eigh(metric)
        weighted = residuals @ (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        if excess is not None:
            size = (weighted**2).sum(1)
            own = torch.from_numpy(excess**2) / torch.where(size > 0, size, torch.inf)
            weighted *= (own / (own * size).sum().clamp(min=1e-300) + 1 / size.sum()).sqrt()[:, None]
        sizes, right = torch.linalg.svd(weighted, full_matrices=False)[1:]
        held = torch.cumsum(sizes**2, 0)
        return right[: int((held < share * held[-1]).sum()) + 1]

    def path(self, damping: float | None = None) -> DampingPath:
        """Both sides of the certificate, diagonalised; or whitened, which holds at this one damping only (its ``ritz``
        are no eigenvalues then) and costs a tenth."""
        problem, adjoint, gradients = self.problem, self._adjoint, self._gradients
        forward = pad_columns(self._forward, len(self.u))
        ritz, vectors = _diagonalised(forward @ forward.T, damping)
        if damping is None:
            self._ritz_vectors = self._stored(self._sent @ vectors)
        lower = (gradients @ self._sent @ vectors).numpy()
        upper_ritz, upper_vectors = _diagonalised(adjoint @ adjoint.T, damping)
        upper = (gradients @ adjoint.T @ upper_vectors).numpy()
        response, perturbation = problem.response_rows, problem.perturbation_rows
        known = {}
        if self.knows_residuals:
            fresh = adjoint @ self._waiting
            outside = (gradients @ self._waiting).numpy()
            known = {
                "residual_map": (vectors.T @ forward @ fresh).T.numpy(),
                "residual_response": outside[response],
                "residual_perturbation": outside[perturbation],
                "residual_upper": (upper_vectors.T @ fresh).numpy(),
                "response_in_span": np.isin(response, perturbation),
            }
        return DampingPath(
            ritz=ritz.numpy(),
            lower_response=lower[response],
            lower_perturbation=lower[perturbation],
            upper_ritz=upper_ritz.numpy(),
            upper_response=upper[response],
            upper_perturbation=upper[perturbation],
            overlap=problem.overlap[np.ix_(response, perturbation)],
            gram_response=observable_blocks(problem.overlap, response, problem.shape[0]),
            gram_perturbation=observable_blocks(problem.overlap, perturbation, problem.shape[1]),
            **known,
        )

    def step(self, path: DampingPath) -> Callable[[int, float], Tensor]:
        """``(perturbation_row, damping) → −η⁻¹g`` of the path made last; keeps Q alive."""
        vectors, q = self._ritz_vectors, self.q
        ritz, start = path.ritz, path.lower_perturbation

        def step(row: int, damping: float) -> Tensor:
            coefficients = vectors @ torch.from_numpy(start[row] / (ritz + damping))
            padded = torch.zeros(1, len(q), dtype=torch.float64)
            padded[0, : len(coefficients)] = coefficients
            return -q.combine(padded)[0]

        return step

    def solution(self, path: DampingPath, **extra: object) -> Solution:
        """The `Solution` of this subspace."""
        return Solution(path=path, ritz=path.ritz, step=self.step(path), **extra)  # type: ignore[arg-type]


def _pad(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """The matrix with so many rows and columns of zeros added."""
    return torch.nn.functional.pad(matrix, (0, columns, 0, rows))


def _diagonalised(matrix: Tensor, damping: float | None) -> tuple[Tensor, Tensor]:
    """``d, T`` with ``T diag(1/(d + λ)) Tᵀ = (matrix + λ)⁻¹`` for a positive semidefinite matrix: its eigenvectors, for
    every λ, or of one damping λ the inverse of a Cholesky factor, transposed."""
    if damping is not None:
        identity = torch.eye(len(matrix), dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(matrix + damping * identity)
        if not int(failed):
            inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
            return torch.full((len(matrix),), 1.0 - damping, dtype=torch.float64), inverse.T
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0), vectors


def _solve_shifted(matrix: Tensor, shift: float, right: Tensor) -> Tensor:
    """``(matrix + shift)⁻¹ right`` for a positive semidefinite matrix, which is overwritten."""
    matrix.diagonal().add_(shift)
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


def galerkin(problem: Problem, rows: Tensor) -> Subspace:
    """The subspace spanned by rows ``(k, P)``, with the products that both sides of its certificate need: at most k
    JVPs and k VJPs."""
    subspace = Subspace(problem)
    subspace.add_parameters(rows)
    subspace.forward()
    subspace.adjoint()
    return subspace
