"""`krylov`: block Golub–Kahan bidiagonalisation until the certified error of H meets the tolerance (MATH §3)."""

from __future__ import annotations

import numpy as np
import torch

from pdeinfl.engine.basis import inner
from pdeinfl.engine.certificate import Certified, DampingPath, certify, relative_error, row_norms, row_spreads
from pdeinfl.engine.solvers.problem import Problem, Solution
from pdeinfl.engine.solvers.subspace import Subspace

# Directions of the residuals that JᵀU₁ is taken from the gradients for: one that is left of residuals of length 1 by
# cancellation, of two observables that measure almost the same, would multiply the gradients' rounding by what it lost.
_CLEAR = 0.5
# So many dampings are each cheaper to whiten for than all together to diagonalise for.
_FEW_DAMPINGS = 4
# What a row's error may be of its spread, in units of `tol` and at most.
_ROW_FACTOR, _ROW_CEILING = 10.0, 0.5
# Products between two certificates, as a share of those spent: what their eigendecompositions may cost.
_STRIDE = 0.03


def solve_krylov(
    problem: Problem, max_products: int | None = None, block_share: float = 0.7, row_tol: float | None = None
) -> Solution:
    """Galerkin in a growing subspace that starts at the perturbation gradients G, with H_L and H_U from the same
    products; the space of ``{G, AG, A²G, …}`` where ``block_share`` is 1.

    Where the perturbations are examples of the metric mini-batch, the outputs' basis starts at their residuals, whose
    adjoint products are the gradients themselves: the upper side is one block ahead at no cost. Then each block of JVPs
    takes only the directions that hold ``block_share`` of what H still lacks (`Subspace.leading`); the others wait,
    orthogonal to them, until they matter. That took a third to nine tenths of the products of whole blocks
    (docs/benchmarks.md). One run serves every damping; it stops when all of ``problem.dampings`` meet ``tol``, or are
    down to the rounding of the products.

    Then the rows: a small one may be unresolved where H as a whole is not, and standardisation makes all rows alike.
    The iteration goes on, also in directions that the unresolved rows lack, until the error of each row is at most
    ``row_tol`` of its spread ``‖H_i − mean‖``, or down to rounding, or the rows took as many products as H did.

    Observables that only respond do not widen the iteration; their blocks converge as the square root of the
    perturbations' own. Adding their gradients to Q at the end, or their residuals to U, did not save products.

    Args:
        max_products: stop after so many JVPs + VJPs, converged or not; default ``4·min(P, N·D)``.
        block_share: share of the certified gap that a block must hold, in (0, 1].
        row_tol: default ``10·tol``, at most ½; infinite to look at H as a whole only.

    Raises:
        ValueError: ``block_share`` or ``row_tol`` is outside its range.
    """
    if not 0 < block_share <= 1:
        raise ValueError(f"`block_share` must lie in (0, 1]; got {block_share!r}")
    row_tol = min(_ROW_FACTOR * problem.tol, _ROW_CEILING) if row_tol is None else row_tol
    if not row_tol > 0:
        raise ValueError(f"`row_tol` must be positive; got {row_tol!r}")
    metric = problem.metric
    limit = 4 * min(metric.n_parameters, metric.n_outputs) if max_products is None else max_products
    spent_before = metric.n_jvp + metric.n_vjp
    subspace = Subspace(problem)
    _start(subspace, problem)
    subspace.holds_perturbations = True
    progress = _Progress(problem, subspace, spent_before, limit, row_tol)
    while subspace.forward(_next_block(progress, block_share)) and not progress.finished():
        if subspace.adjoint() and progress.finished():
            break
    details = {"half_steps": progress.half_steps, "basis_spilled": subspace.q.n_spilled}
    return subspace.solution(progress.path(), details=details)


class _Progress:
    """The certificate of a growing subspace, looked at whenever it may have changed enough."""

    def __init__(self, problem: Problem, subspace: Subspace, spent_before: int, limit: int, row_tol: float) -> None:
        self.problem, self.subspace = problem, subspace
        self.half_steps = 0
        self._spent_before, self._limit, self._row_tol = spent_before, limit, row_tol
        self._spent = self._looked_at = self._path_at = self._met_at = 0
        self._path = subspace.path()
        self._unmet: list[float] = []
        self._excess: np.ndarray | None = None

    def finished(self) -> bool:
        """Count a half step; whether the goal is certified or the products are spent."""
        self.half_steps += 1
        metric = self.problem.metric
        self._spent = metric.n_jvp + metric.n_vjp - self._spent_before
        over = self._spent >= self._limit
        if not over and self._spent < self._looked_at * (1 + _STRIDE):
            return False
        self._looked_at = self._spent
        whole = self._needs_eigenvalues()
        met = self._meets_goal(whole)
        return over or (met and (whole or self._meets_goal(whole=True)))

    def path(self) -> DampingPath:
        """The certificate of the subspace as it is, diagonalised."""
        if self._path_at != self._spent:
            self._path, self._path_at = self.subspace.path(), self._spent
        return self._path

    def lambda_max(self) -> float:
        """What relative dampings refer to: given, or the largest Ritz value seen last."""
        return self._path.largest if self.problem.lambda_max is None else self.problem.lambda_max

    def aim(self) -> float:
        """The damping that the next products serve: the largest requested one that is not certified yet.

        The easy ones first: directions that the smallest asks for do not help the others much, while theirs help it.
        """
        found = self._unmet or [d.resolve(self.lambda_max()) for d in self.problem.dampings]
        return max(found)

    def excess(self) -> np.ndarray | None:
        """Error of each perturbation's own row over its goal, ``(n_perturbation_rows,)``, once H as a whole meets its
        goal at every damping; None before."""
        return self._excess

    def _needs_eigenvalues(self) -> bool:
        """Whether to diagonalise instead of whitening at each damping: to know λ_max, every now and then or where the
        dampings depend on it; or because they are many."""
        dampings = self.problem.dampings
        relative = self.problem.lambda_max is None and any(d.is_relative for d in dampings)
        return relative or len(dampings) > _FEW_DAMPINGS or self._spent >= 2 * self._path_at

    def _meets_goal(self, whole: bool) -> bool:
        """Whether the relative error of each pair of observables at each requested damping is at most ``tol``, or where
        rounding alone forbids that, three times the rounding; and likewise each row's of ``row_tol``."""
        problem, path = self.problem, self.path() if whole else None
        lambda_max = self.lambda_max()
        worst, self._unmet, self._excess = 0.0, [], None
        rows: list[tuple[float, np.ndarray]] = []
        for damping in problem.dampings:
            value = damping.resolve(lambda_max)
            rounding = problem.rounding(max(lambda_max, self._path.largest), value)
            at_damping = self.subspace.path(value) if path is None else path
            certified = certify(at_damping, problem.shape, value, rounding, problem.tol)
            goal = np.maximum(problem.tol, 3 * relative_error(certified.values, certified.rounding))
            worst = max(worst, float(certified.relative_error.max()))
            if not bool((certified.relative_error <= goal).all()):
                self._unmet.append(value)
            excess = _row_excess(certified, self._row_tol)
            if bool((excess > 1).any()):
                rows.append((value, excess))
        report = f"{self._spent} products, certified error {worst:.1e}"
        if not self._unmet:
            self._met_at = self._met_at or self._spent
            if rows and self._spent < 2 * self._met_at:
                value, excess = max(rows, key=lambda row: row[0])
                self._unmet, self._excess = [value], self._of_perturbations(excess)
                report += f", {int((excess > 1).any((0, 1)).sum())} rows to resolve"
        problem.report(report)
        return not self._unmet

    def _of_perturbations(self, excess: np.ndarray) -> np.ndarray:
        """The largest excess of the rows that each perturbation responds in; 0 where it responds in none."""
        problem = self.problem
        worst = excess.max(1).reshape(-1)
        out = np.zeros(len(problem.perturbation_rows))
        for row, size in zip(problem.response_rows, worst, strict=True):
            at = problem.perturbation_rows == row
            out[at] = np.maximum(out[at], size)
        return out


def _next_block(progress: _Progress, share: float) -> torch.Tensor | None:
    lambda_max = progress.lambda_max()
    if share == 1 or lambda_max == 0:
        return None
    return progress.subspace.leading(progress.aim(), share, progress.excess())


def _row_excess(certified: Certified, row_tol: float) -> np.ndarray:
    """Error of each row over what it may be, ``(n_a, n_b, n_response)``; 0 where a row has no spread at all."""
    values = certified.values
    n = values.shape[-1]
    spread = row_spreads(values)
    flat = spread <= n * np.finfo(np.float64).eps * np.abs(values).max(initial=0.0)
    goal = np.maximum(row_tol * spread, 3 * row_norms(certified.rounding))
    return np.where(flat, 0.0, np.divide(certified.row_error, goal, out=np.zeros_like(goal), where=goal > 0))


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
    unit = residuals[live] / sizes[live]
    values, vectors = torch.linalg.eigh(inner(unit, unit))
    mixed = vectors[:, values >= _CLEAR**2].T
    coordinates = subspace.add_outputs(mixed.to(unit.device) @ unit)
    # Normalised, so that no small gradient is dropped as the rounding of a large one.
    held = subspace.add_parameters(_unit(gradients[live]))
    stretch = torch.linalg.vector_norm(gradients[live], dim=1, keepdim=True) * problem.metric.scale**0.5 / sizes[live]
    # mixed·R/‖R‖ = coordinates·U₁, hence √s·JᵀU₁ = coordinates⁻¹·mixed·√s·G/‖R‖.
    subspace.record_adjoint(torch.linalg.solve(coordinates, mixed @ (held * stretch.cpu())))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    sizes = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(sizes > 0, sizes, torch.ones_like(sizes))
