r"""Two-sided certificate of H on a whole path of dampings (MATH §3).

For any subspace with basis Q and ``M = √s·J·Q``, and any orthonormal U in the output space with ``K = √s·Jᵀ·U``,

.. math::
    H_L = G^T Q (M^T M + λ Q^T Q)^{-1} Q^T G \;⪯\; H \;⪯\; H_U = [G^T G - G^T K (λ + K^T K)^{-1} K^T G] / λ .

Both sides diagonalise once; each damping afterwards costs two small products.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        norms_response, norms_perturbation: ‖g‖² of each gradient, ``(n_rows,)``.
        residual_map: for gradients in the span of Q, ``g − ηy`` of the Galerkin solution y lies in the b directions
            that Jᵀ found last, at coordinates ``−residual_map·(y in the Ritz basis)``, ``(b, r)``; None where unknown.
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
    norms_response: np.ndarray
    norms_perturbation: np.ndarray
    residual_map: np.ndarray | None = None
    residual_upper: np.ndarray | None = None
    response_in_span: np.ndarray | None = None
    exact: bool = False

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

    def diagonals(self, damping: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``diag H_L`` and ``diag H_U`` of the responses, then of the perturbations."""
        sides = (
            (self.lower_response, self.upper_response, self.norms_response),
            (self.lower_perturbation, self.upper_perturbation, self.norms_perturbation),
        )
        out = []
        for low, up, norms in sides:
            lower = np.einsum("ik,ik,k->i", low, low, 1 / (self.ritz + damping))
            if self.exact:
                outside = np.maximum(norms - np.einsum("ik,ik->i", low, low), 0.0)
                out += [lower + outside / damping] * 2
            else:
                upper = (norms - np.einsum("ik,ik,k->i", up, up, 1 / (self.upper_ritz + damping))) / damping
                out += [lower, np.maximum(upper, lower)]
        return out[0], out[1], out[2], out[3]

    def subspace_dof(self, damping: float) -> float:
        """``Σ ritz/(ritz + λ)``: degrees of freedom of the solved subspace, a lower bound of the whole metric's."""
        return float(np.sum(self.ritz / (self.ritz + damping)))

    def residual_widths(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        r"""``r^T η^{-1} r = (H − H_L)_{gg}`` of responses and perturbations, bounded through the residual r itself.

        ``r`` is known without cancellation, so this stays accurate where ``H_U − H_L`` drowns in the rounding of its
        two sides. Infinite where it is unknown.
        """
        n_response, n_perturbation = len(self.lower_response), len(self.lower_perturbation)
        if self.residual_map is None or self.residual_upper is None or self.response_in_span is None:
            return np.full(n_response, np.inf), np.full(n_perturbation, np.inf)
        widths = []
        for start in (self.lower_response, self.lower_perturbation):
            r = (start / (self.ritz + damping)) @ self.residual_map.T
            known = r @ self.residual_upper.T
            above = np.einsum("ib,ib->i", r, r) - np.einsum("im,im,m->i", known, known, 1 / (self.upper_ritz + damping))
            widths.append(np.maximum(above, 0.0) / damping)
        return np.where(self.response_in_span, widths[0], np.inf), widths[1]


@dataclass(frozen=True)
class Certified:
    """H at one damping with its elementwise error and the part of it that rounding makes, each
    ``(n_a, n_b, n_response, n_perturbation)``."""

    values: np.ndarray
    error_bound: np.ndarray
    relative_error: np.ndarray
    rounding: np.ndarray
    converged: bool


def relative_error(values: np.ndarray, error_bound: np.ndarray) -> np.ndarray:
    """Frobenius norm of the bound over that of the values, per pair of observables; zero for an exact zero."""
    size, error = _norm(values), _norm(error_bound)
    return np.where(error > 0, np.divide(error, size, out=np.full_like(size, np.inf), where=size > 0), 0.0)


def _norm(blocks: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("abij,abij->ab", blocks, blocks))


def rounding_factor(product_error: float, gradient_error: float, lambda_max: float, damping: float) -> float:
    r"""Relative change ρ of H that rounded Jacobian products can cause: ``|δH_ij| ≤ ρ·√(H_ii·H_jj)``.

    With ``‖δJ‖ ≤ δ‖J‖`` in the factored forms MᵀM and KᵀK, ``δA = s(δJᵀJ + JᵀδJ)`` and
    ``√s‖Jη⁻¹g‖ ≤ √H_gg``, ``‖η⁻¹g‖ ≤ √(H_gg/λ)`` give ``2δ√(λ_max/λ) + δ²λ_max/λ``; a relative error γ of the
    gradients adds ``2γ√(λ_max/λ)`` because ``‖g‖² ≤ (λ_max + λ)H_gg``. (An unfactored QᵀAQ would give ``δλ_max/λ``.)
    The small float64 algebra adds a few ``eps·(1 + λ_max/λ)``.
    """
    stretch = np.sqrt(1.0 + lambda_max / damping)
    products = 2 * (product_error + gradient_error) * stretch + (product_error * stretch) ** 2
    return float(products + 32 * np.finfo(np.float64).eps * stretch**2)


def certify(
    path: DampingPath, shape: tuple[int, int, int, int], damping: float, rounding: float, tol: float
) -> Certified:
    """H and its certified error at one damping: the midpoint with half the gap where that meets ``tol``, else H_L.

    ``|error_ij| ≤ ½√(W_ii W_jj)`` for the midpoint, ``W = H_U − H_L``, and ``≤ √(w_ii w_jj)`` for H_L, w the smaller of
    W and the residual form. Rounding moves each side of W by up to ``ρ·H_ii``, inside the root: a W_jj that it hides
    would else cancel a wide W_ii. It moves the residual itself by ``ρ√H_ii``, and the value by ``ρ√(H_ii H_jj)`` (MATH
    §3). Decided per pair of observables in the Frobenius norm.
    """
    n_a, n_b, n_response, n_perturbation = shape

    def blocks(matrix: np.ndarray) -> np.ndarray:
        return matrix.reshape(n_a, n_response, n_b, n_perturbation).transpose(0, 2, 1, 3)

    def root(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return blocks(np.sqrt(np.outer(a, b)))

    lower = blocks(path.lower(damping))
    low_a, up_a, low_b, up_b = path.diagonals(damping)
    rho = rounding * root(up_a, up_b)
    if path.exact:
        relative = relative_error(lower, rho)
        return Certified(lower, rho, relative, rho, bool((relative <= tol).all()))
    gap_a, gap_b = (np.maximum(up - low, 0) + 2 * rounding * up for low, up in ((low_a, up_a), (low_b, up_b)))
    left_a, left_b = path.residual_widths(damping)
    width_a = np.minimum(gap_a, (np.sqrt(left_a) + rounding * np.sqrt(up_a)) ** 2)
    width_b = np.minimum(gap_b, (np.sqrt(left_b) + rounding * np.sqrt(up_b)) ** 2)

    middle = 0.5 * (lower + blocks(path.upper(damping)))
    middle_error, lower_error = 0.5 * root(gap_a, gap_b) + rho, root(width_a, width_b) + rho
    middle_relative, lower_relative = relative_error(middle, middle_error), relative_error(lower, lower_error)
    pick = ((middle_relative <= tol) & (middle_relative < lower_relative))[:, :, None, None]
    values, error = np.where(pick, middle, lower), np.where(pick, middle_error, lower_error)
    relative = relative_error(values, error)
    return Certified(values, error, relative, rho, bool((relative <= tol).all()))
