r"""Two-sided certificate of H on a whole path of dampings (MATH §3).

For any subspace with basis Q and ``M = √s·J·Q``, and any orthonormal U in the output space with ``K = √s·Jᵀ·U``,

.. math::
    H_L = G^T Q (M^T M + λ Q^T Q)^{-1} Q^T G \;⪯\; H \;⪯\; H_U = [G^T G - G^T K (λ + K^T K)^{-1} K^T G] / λ .

Both sides diagonalise once; each damping afterwards costs two small products.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class DampingPath:
    """H_L and H_U as functions of λ. Rows of responses and perturbations run observable-major, ``n_obs·n`` each.

    Attributes:
        ritz: eigenvalues of (MᵀM, QᵀQ), ``(r,)``.
        lower_response, lower_perturbation: QᵀG in that eigenbasis, ``(n_rows, r)``.
        upper_ritz: eigenvalues of KᵀK, ``(m,)``.
        upper_response, upper_perturbation: KᵀG in that eigenbasis, ``(n_rows, m)``.
        overlap: GᵀG, ``(n_response_rows, n_perturbation_rows)``.
        gram_response, gram_perturbation: GᵀG of each observable, ``(n_obs, n, n)``.
        residual_map, residual_response, residual_perturbation: for gradients in the span of Q, the residual
            ``g − ηy`` of the Galerkin solution y lies in the b directions of Q that have not been through J, at
            coordinates ``residual_response − residual_map·(y in the Ritz basis)``: ``(b, r)`` and ``(n_rows, b)``; None
            where unknown.
        residual_upper: ``Kᵀ`` of those directions in the upper eigenbasis, ``(m, b)``.
        response_in_span: which responses lie in the span of Q, ``(n_rows,)`` bool; perturbations all do where
            `residual_map` is known.
        exact: the path is an eigendecomposition of the whole metric (the dense solver); then ``upper_*`` are empty and
            `overlap` minus its projection is what lies outside the range of A.
    """

    ritz: np.ndarray
    lower_response: np.ndarray
    lower_perturbation: np.ndarray
    upper_ritz: np.ndarray
    upper_response: np.ndarray
    upper_perturbation: np.ndarray
    overlap: np.ndarray
    gram_response: np.ndarray
    gram_perturbation: np.ndarray
    residual_map: np.ndarray | None = None
    residual_response: np.ndarray | None = None
    residual_perturbation: np.ndarray | None = None
    residual_upper: np.ndarray | None = None
    response_in_span: np.ndarray | None = None
    exact: bool = False

    @property
    def largest(self) -> float:
        """The largest eigenvalue seen, a lower bound of λ_max."""
        return float(max(self.ritz.max(initial=0.0), self.upper_ritz.max(initial=0.0)))

    def lower(self, damping: float) -> np.ndarray:
        """H_L (or H itself for an exact path), ``(n_response_rows, n_perturbation_rows)``."""
        value = (self.lower_response / (self.ritz + damping)) @ self.lower_perturbation.T
        if self.exact:
            value += (self.overlap - self.lower_response @ self.lower_perturbation.T) / damping
        return value

    def upper(self, damping: float) -> np.ndarray:
        """H_U, same shape as :meth:`lower`."""
        if self.exact:
            return self.lower(damping)
        return (
            self.overlap - (self.upper_response / (self.upper_ritz + damping)) @ self.upper_perturbation.T
        ) / damping

    def sides(self, damping: float) -> tuple[Sides, Sides]:
        """H_L and H_U of each observable with itself: of the responses, then of the perturbations."""
        given = (
            (self.lower_response, self.upper_response, self.gram_response),
            (self.lower_perturbation, self.upper_perturbation, self.gram_perturbation),
        )
        out = []
        for low, up, gram in given:
            lower = _quadratic(low, self.ritz + damping, len(gram))
            if self.exact:
                lower += (gram - _quadratic(low, np.ones_like(self.ritz), len(gram))) / damping
                upper = lower
            else:
                upper = (gram - _quadratic(up, self.upper_ritz + damping, len(gram))) / damping
            out.append(Sides(lower, upper))
        return out[0], out[1]

    def certified(self, shape: tuple[int, int, int, int], damping: float, rounding: float, tol: float) -> Certified:
        """H and its certified error at one damping (`certify`)."""
        return certify(self, shape, damping, rounding, tol)

    def subspace_dof(self, damping: float) -> float:
        """``Σ ritz/(ritz + λ)``: degrees of freedom of the solved subspace, a lower bound of the whole metric's."""
        return float(np.sum(self.ritz / (self.ritz + damping)))

    def residual_gaps(self, damping: float) -> tuple[np.ndarray | None, np.ndarray | None]:
        r"""``r^T η^{-1} r = H − H_L`` of each observable with itself, bounded through the residual r, ``(n_obs, n, n)``
        for responses and perturbations; None where some residual is unknown.

        ``r`` is known without cancellation, so this stays accurate where ``H_U − H_L`` drowns in the rounding of its
        two sides.
        """
        if self.residual_map is None or self.residual_upper is None or self.response_in_span is None:
            return None, None
        gaps = []
        for start, outside, gram in (
            (self.lower_response, self.residual_response, self.gram_response),
            (self.lower_perturbation, self.residual_perturbation, self.gram_perturbation),
        ):
            r = outside - (start / (self.ritz + damping)) @ self.residual_map.T
            known = r @ self.residual_upper.T
            above = _quadratic(r, np.ones(r.shape[1]), len(gram)) - _quadratic(
                known, self.upper_ritz + damping, len(gram)
            )
            gaps.append(above / damping)
        return np.where(self.response_in_span.reshape(len(gaps[0]), -1)[:, :, None], gaps[0], np.inf), gaps[1]


@dataclass(frozen=True)
class Sides:
    """H_L and H_U of each observable with itself, ``(n_obs, n, n)``."""

    lower: np.ndarray
    upper: np.ndarray


def _quadratic(rows: np.ndarray, divisor: np.ndarray, n_observables: int) -> np.ndarray:
    """``X diag(1/divisor) Xᵀ`` of each observable's rows X: ``(n_obs·n, r) → (n_obs, n, n)``."""
    blocks = rows.reshape(n_observables, len(rows) // n_observables, rows.shape[1])
    return (blocks / divisor) @ blocks.transpose(0, 2, 1)


@dataclass(frozen=True)
class Certified:
    """H at one damping with its elementwise error and the part of it that rounding makes, each
    ``(n_a, n_b, n_response, n_perturbation)``; ``row_error`` bounds the Euclidean norm of each row's error,
    ``(n_a, n_b, n_response)``."""

    values: np.ndarray
    error_bound: np.ndarray
    row_error: np.ndarray
    relative_error: np.ndarray
    rounding: np.ndarray
    converged: bool


def relative_error(values: np.ndarray, error_bound: np.ndarray) -> np.ndarray:
    """Frobenius norm of the bound over that of the values, per pair of observables; zero for an exact zero."""
    return _relative(values, _norm(error_bound))


def _norm(blocks: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("abij,abij->ab", blocks, blocks))


def row_norms(blocks: np.ndarray) -> np.ndarray:
    """Euclidean norm of each row of blocks ``(n_a, n_b, n_response, n_perturbation)``."""
    return np.sqrt(np.einsum("abij,abij->abi", blocks, blocks))


def row_spreads(blocks: np.ndarray) -> np.ndarray:
    """``‖H_i − mean‖`` of each row: what standardisation divides by, times ``√(n − 1)``."""
    return row_norms(blocks - blocks.mean(-1, keepdims=True))


def observable_blocks(overlap: np.ndarray, rows: np.ndarray, n_observables: int) -> np.ndarray:
    """The Gram matrix of each observable's rows within one of all rows: ``(n_obs, n, n)``."""
    return np.stack([overlap[np.ix_(own, own)] for own in rows.reshape(n_observables, -1)])


def rounding_factor(product_error: float, gradient_error: float, lambda_max: float, damping: float) -> float:
    r"""Relative change ρ of H that rounded Jacobian products can cause: ``|δH_ij| ≤ ρ·√(H_ii·H_jj)``.

    With ``‖δJ‖ ≤ δ‖J‖`` in the factored forms MᵀM and KᵀK, ``δA = s(δJᵀJ + JᵀδJ)`` and
    ``√s‖Jη⁻¹g‖ ≤ √H_gg``, ``‖η⁻¹g‖ ≤ √(H_gg/λ)`` give ``2δ√(λ_max/λ) + δ²λ_max/λ``; a relative error γ of the
    gradients adds the same with γ, because ``‖g‖² ≤ (λ_max + λ)H_gg``. (An unfactored QᵀAQ would give ``δλ_max/λ``.)
    The small float64 algebra adds a few ``eps·(1 + λ_max/λ)``.
    """
    stretch = np.sqrt(1.0 + lambda_max / damping)
    moved = (product_error + gradient_error) * stretch
    return float(moved * (2 + moved) + 32 * np.finfo(np.float64).eps * stretch**2)


def certify(
    path: DampingPath, shape: tuple[int, int, int, int], damping: float, rounding: float, tol: float
) -> Certified:
    r"""H and its certified error at one damping: the midpoint with half the gap where that meets ``tol``, else H_L.

    With ``W = H_U − H_L`` the error of the midpoint is ``½W^{1/2} C W^{1/2}``, ``‖C‖ ≤ 1``, jointly for all
    observables: elementwise ``≤ ½√(W_ii W_jj)``, and for the pair (A, B) in Frobenius norm
    ``≤ ½√(‖W_AA‖_F ‖W_BB‖_F)``, which is smaller than the norm of the elementwise bounds, ``½√(tr W_AA tr W_BB)``, by
    up to √n. Row i has ``≤ ½√(W_ii ‖W_BB‖)`` in Euclidean norm. H_L has the same without the ½, w the smaller of W and
    the residual form.

    Rounding moves each side of W by up to ``ρ√(H_ii H_jj)``, inside the root: a W_BB that it hides would else cancel a
    wide W_AA. It moves a residual r_i by ``ρ√H_ii`` in the norm of ``η^{-1}``, and the value by ``ρ√(H_ii H_jj)``
    (MATH §3). Decided per pair of observables in the Frobenius norm.
    """
    n_a, n_b, n_response, n_perturbation = shape

    def blocks(matrix: np.ndarray) -> np.ndarray:
        return matrix.reshape(n_a, n_response, n_b, n_perturbation).transpose(0, 2, 1, 3)

    def element(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(a[:, None, :, None] * b[None, :, None, :])

    def rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(a[:, None, :] * b[None, :, None])

    def frobenius(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.outer(a, b))

    lower = blocks(path.lower(damping))
    side_a, side_b = path.sides(damping)
    diagonal_a, diagonal_b = (np.maximum(_diagonal(s.upper), _diagonal(s.lower)) for s in (side_a, side_b))
    rho = rounding * element(diagonal_a, diagonal_b)
    rho_row = rounding * rows(diagonal_a, diagonal_b.sum(1))
    rho_norm = rounding * frobenius(diagonal_a.sum(1), diagonal_b.sum(1))
    if path.exact:
        relative = _relative(lower, rho_norm)
        return Certified(lower, rho, rho_row, relative, rho, bool((relative <= tol).all()))
    gaps = [_gap(side, rounding, d) for side, d in ((side_a, diagonal_a), (side_b, diagonal_b))]
    left = [
        _smaller(gap, _residual_gap(matrix, rounding, d)) if np.isfinite(gap.norm).all() else gap
        for gap, matrix, d in zip(gaps, path.residual_gaps(damping), (diagonal_a, diagonal_b), strict=True)
    ]
    middle = 0.5 * (lower + blocks(path.upper(damping)))
    middle_relative = _relative(middle, 0.5 * frobenius(gaps[0].norm, gaps[1].norm) + rho_norm)
    lower_relative = _relative(lower, frobenius(left[0].norm, left[1].norm) + rho_norm)
    pick = (middle_relative <= tol) & (middle_relative < lower_relative)
    chosen = pick[:, :, None, None]
    values = np.where(chosen, middle, lower)
    error = rho + np.where(
        chosen,
        0.5 * element(gaps[0].diagonal, gaps[1].diagonal),
        element(left[0].diagonal, left[1].diagonal),
    )
    row_error = rho_row + np.where(
        pick[:, :, None],
        0.5 * rows(gaps[0].diagonal, gaps[1].spectral),
        rows(left[0].diagonal, left[1].spectral),
    )
    relative = np.where(pick, middle_relative, lower_relative)
    return Certified(values, error, row_error, relative, rho, bool((relative <= tol).all()))


@dataclass(frozen=True)
class _Gap:
    """Of a positive semidefinite gap per observable: its diagonal ``(n_obs, n)``, Frobenius and spectral norm
    ``(n_obs,)``."""

    diagonal: np.ndarray
    norm: np.ndarray
    spectral: np.ndarray


def _gap(side: Sides, rounding: float, diagonal: np.ndarray) -> _Gap:
    """``H_U − H_L``, widened by what rounding may hide; infinite for an observable whose sides are in the wrong order
    by more than that: something is broken then, and nothing certified."""
    w = side.upper - side.lower
    slack = 2 * rounding * diagonal
    broken = np.any(_diagonal(w) < -slack, axis=1, keepdims=True)
    wide = np.where(broken, np.inf, np.maximum(_diagonal(w), 0.0) + slack)
    trace = wide.sum(1)
    norm, spectral = (np.where(broken[:, 0], np.inf, np.minimum(size + slack.sum(1), trace)) for size in _norms(w))
    return _Gap(wide, norm, spectral)


def _residual_gap(matrix: np.ndarray | None, rounding: float, diagonal: np.ndarray) -> _Gap:
    """The residual form, widened likewise; infinite where the residual is unknown."""
    if matrix is None:
        unknown = np.full(len(diagonal), np.inf)
        return _Gap(np.full(diagonal.shape, np.inf), unknown, unknown)
    wide = (np.sqrt(np.maximum(_diagonal(matrix), 0.0)) + rounding * np.sqrt(diagonal)) ** 2
    trace, moved = wide.sum(1), rounding * np.sqrt(diagonal.sum(1))
    norm, spectral = (np.minimum((np.sqrt(size) + moved) ** 2, trace) for size in _norms(matrix))
    return _Gap(wide, norm, spectral)


def _norms(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frobenius and spectral norms of symmetric matrices ``(k, n, n)``; the latter infinite where an entry is."""
    finite = np.isfinite(matrices).all((1, 2))
    eigenvalues = np.linalg.eigvalsh(np.where(finite[:, None, None], matrices, 0.0))
    spectral = np.where(finite, np.abs(eigenvalues).max(1, initial=0.0), np.inf)
    return np.sqrt(np.einsum("kij,kij->k", matrices, matrices)), spectral


def _smaller(a: _Gap, b: _Gap) -> _Gap:
    return _Gap(*(np.minimum(getattr(a, f.name), getattr(b, f.name)) for f in fields(_Gap)))


def _diagonal(blocks: np.ndarray) -> np.ndarray:
    return np.einsum("kii->ki", blocks)


def _relative(values: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Frobenius error over the norm of the values, per pair of observables; zero for an exact zero, and NaN is NaN."""
    size = _norm(values)
    return np.where(error == 0, 0.0, np.divide(error, size, out=np.full_like(size, np.inf), where=size > 0))
