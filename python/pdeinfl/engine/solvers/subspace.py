"""Galerkin in a subspace with its two-sided certificate: what `krylov`, `span`, `cg` and `craigmr` share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pdeinfl.engine.basis import Basis, inner
from pdeinfl.engine.certificate import DampingPath, observable_blocks
from pdeinfl.engine.memory import free_memory
from pdeinfl.engine.solvers.problem import Problem, Solution

# Per number of a block: three float64 copies in the orthogonalisation, the product and its stored form.
_WORKING_BYTES = 32


class Subspace:
    """Bases Q (parameters) and U (outputs) with the coordinates of ``√s·J Q`` in U and of ``√s·JᵀU`` in Q.

    Golub–Kahan style: every product acts on an orthonormal vector, so its rounding is δ‖J‖ and no small singular value
    is squared away. Stored vectors are orthonormal only to the rounding of their dtype, which the upper side would
    multiply by λ_max/λ: coordinates are in the bases ``L⁻¹Q`` and ``L⁻¹U`` (`Basis.factor`), orthonormal in float64.

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
        # Directions of Q that have been through J, and their complement, which waits: orthonormal columns.
        self._sent = torch.zeros(0, 0, dtype=torch.float64)
        self._waiting = torch.zeros(0, 0, dtype=torch.float64)
        self._forward, self._adjoint = _Coordinates(), _Coordinates()
        self._pending_u: list[Tensor] = []
        self.holds_perturbations = False

    @property
    def n_waiting(self) -> int:
        """Directions of Q that have not been through J."""
        return self._waiting.shape[1]

    @property
    def knows_residuals(self) -> bool:
        """Whether every residual ``g − ηy`` lies in Q: the gradients do, and all of U has been through Jᵀ."""
        return self.holds_perturbations and len(self._adjoint.rows) == len(self.u)

    def add_parameters(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """Extend Q by rows ``(k, P)``, but for directions shorter than ``noise``; returns their coordinates."""
        before = len(self.q)
        coordinates = self.q.extend(rows, noise)
        n_fresh = len(self.q) - before
        if n_fresh:
            fresh = self.q.since(before)
            cross = _orthonormal_rows(inner(fresh, self.problem.gradients), self._gradients.T, self.q.factor)
            self._gradients = torch.cat([self._gradients, cross.T], 1)
            self._sent = _pad(self._sent, n_fresh, 0)
            self._waiting = _pad(self._waiting, n_fresh, n_fresh)
            self._waiting[before:, -n_fresh:] = torch.eye(n_fresh, dtype=torch.float64)
            self._adjoint.widen(len(self.q))
        return coordinates @ self.q.factor

    def add_outputs(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """Extend U by rows ``(k, N·D)``, but for directions shorter than ``noise``; returns their coordinates."""
        before = len(self.u)
        coordinates = self.u.extend(rows, noise)
        if len(self.u) > before:
            self._pending_u.append(self.u.since(before))
            self._forward.widen(len(self.u))
        return coordinates @ self.u.factor

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
        self._adjoint.append(_orthonormal_rows(coordinates, self._adjoint.rows, self.u.factor))
        return True

    def record_adjoint(self, coordinates: Tensor) -> None:
        """Coordinates in Q of ``√s·Jᵀu`` for vectors of U whose product was known without computing it."""
        self._pending_u.clear()
        self._adjoint.append(coordinates)

    def _stored(self, coordinates: Tensor) -> Tensor:
        """Coordinates ``(n_Q, k)`` in terms of the stored vectors."""
        return torch.linalg.solve_triangular(self.q.factor.T, coordinates, upper=True)

    def leading(self, damping: float, share: float, excess: np.ndarray | None = None) -> Tensor | None:
        r"""Combinations of the directions that wait which hold most of what H lacks: ``(k, n_waiting)``.

        The residuals r of the perturbations lie in those directions, and there ``H − H_L = rᵀη⁻¹r ≤ rᵀBr`` with
        ``B = [1 − Kᵀ(λ + KKᵀ)⁻¹K]/λ``: the fewest right singular vectors of ``r·B^{1/2}`` that hold ``share`` of
        ``tr rᵀBr``. With ``excess``, the errors of rows over their goals ``(n_perturbation_rows,)``, half of the weight
        is shared among the residuals by its square instead of by their size. None (all of them) where none waits or
        the residuals are not known (the gradients must lie in Q, and all of U have been through Jᵀ) or λ is lost in the
        rounding of KKᵀ.
        """
        if not self.knows_residuals or not self.n_waiting:
            return None
        gradients = self._gradients[torch.from_numpy(self.problem.perturbation_rows)]
        fresh = self._adjoint.rows @ self._waiting
        y = self._forward.solved(damping, (gradients @ self._sent).T)
        known = self._adjoint.solved(damping, fresh)
        if y is None or known is None:
            return None
        residuals = gradients @ self._waiting - y.T @ self._forward.rows @ fresh
        metric = -fresh.T @ known
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
        problem, forward, adjoint, gradients = self.problem, self._forward, self._adjoint, self._gradients
        ritz, whiten = forward.diagonalised(damping)
        if damping is None:
            self._ritz_vectors = self._stored(whiten(self._sent))
        lower = whiten(gradients @ self._sent).numpy()
        upper_ritz, whiten_upper = adjoint.diagonalised(damping)
        upper = whiten_upper(gradients @ adjoint.rows.T).numpy()
        response, perturbation = problem.response_rows, problem.perturbation_rows
        known = {}
        if self.knows_residuals:
            fresh = adjoint.rows @ self._waiting
            outside = (gradients @ self._waiting).numpy()
            known = {
                "residual_map": whiten((forward.rows @ fresh).T).numpy(),
                "residual_response": outside[response],
                "residual_perturbation": outside[perturbation],
                "residual_upper": whiten_upper(fresh.T).T.numpy(),
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


class _Coordinates:
    """Rows of coordinates in a growing basis, ``(n, n_basis)``, and their Gram matrix X."""

    def __init__(self) -> None:
        self.rows = torch.zeros(0, 0, dtype=torch.float64)
        self.gram = torch.zeros(0, 0, dtype=torch.float64)
        self._factors: dict[float, Tensor | None] = {}

    def widen(self, n_basis: int) -> None:
        """As many columns as the basis has vectors now."""
        self.rows = _pad(self.rows, 0, n_basis - self.rows.shape[1])

    def append(self, rows: Tensor) -> None:
        """Add rows ``(k, n_basis)``."""
        self.rows = torch.cat([self.rows, rows])
        among = rows @ self.rows.T
        self.gram = _pad(self.gram, len(rows), len(rows))
        self.gram[-len(rows) :], self.gram[:, -len(rows) :] = among, among.T
        self._factors.clear()

    def diagonalised(self, damping: float | None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """``d`` and ``B ↦ BT`` with ``T diag(1/(d + λ)) Tᵀ = (X + λ)⁻¹``: its eigenvectors, for every λ, or of one
        damping λ the inverse of a Cholesky factor, transposed."""
        factor = None if damping is None else self._factor(damping)
        if damping is not None and factor is not None:
            flat = torch.full((len(self.rows),), 1.0 - damping, dtype=torch.float64)
            return flat, lambda b: torch.linalg.solve_triangular(factor, b.T, upper=False).T
        values, vectors = torch.linalg.eigh(self.gram)
        return values.clamp(min=0), lambda b: b @ vectors

    def solved(self, damping: float, right: Tensor) -> Tensor | None:
        """``(X + λ)⁻¹`` times columns ``(n, k)``; None where X + λ is not positive definite to rounding."""
        factor = self._factor(damping)
        return None if factor is None else torch.cholesky_solve(right, factor)

    def _factor(self, damping: float) -> Tensor | None:
        if damping not in self._factors:
            shifted = self.gram.clone()
            shifted.diagonal().add_(damping)
            factor, failed = torch.linalg.cholesky_ex(shifted)
            self._factors[damping] = None if int(failed) else factor
        return self._factors[damping]


def _pad(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """The matrix with so many rows and columns of zeros added."""
    return torch.nn.functional.pad(matrix, (0, columns, 0, rows))


def _orthonormal_rows(rows: Tensor, before: Tensor, factor: Tensor) -> Tensor:
    """What a linear map makes of the next vectors of ``factor⁻¹Q``, given what it makes of the next stored ones
    (``rows``) and of all that come before them there."""
    done = len(before)
    end = done + len(rows)
    return torch.linalg.solve_triangular(
        factor[done:end, done:end], rows - factor[done:end, :done] @ before, upper=False
    )


def galerkin(problem: Problem, rows: Tensor) -> Subspace:
    """The subspace spanned by rows ``(k, P)``, with the products that both sides of its certificate need: at most k
    JVPs and k VJPs."""
    subspace = Subspace(problem)
    subspace.add_parameters(rows)
    subspace.forward()
    subspace.adjoint()
    return subspace
