r"""H from a Monte-Carlo factor of the metric, at every damping: an estimate, not a certificate (MATH §3, `sketch`).

Of each example i of the metric mini-batch some directions R_i of its outputs are *known*: those of its residuals, their
images ``J_iᵀR_i`` being its gradients. The others are met by k probes ``w_im = √s·J_iᵀξ_im``, random signs ξ without
their part in R_i, so that ``E[w wᵀ] = s·J_iᵀ(1 − R_iR_iᵀ)J_i``. With weights c,

.. math:: \hat A = s \sum_i J_i^T R_i R_i^T J_i + \tfrac1k \sum_{i,m} c_i w_{im} w_{im}^T, \qquad
    H = [G^T G - G^T \hat U (λ + \hat U^T \hat U)^{-1} \hat U^T G]/λ

by Woodbury, from inner products alone. With c = 1 the inverse is biased upward (Jensen), by factors where the columns
are not many more than the degrees of freedom of A. By Sherman and Morrison a column u enters the inverse as
``R u uᵀ R/(1 + x_u)``, R without it and ``x_u = uᵀRu``: weights with ``mean_m c_i/(1 + x_im) = 1`` undo the
denominators, and ``(λ + A)·E[(λ + Â)⁻¹] = 1`` up to one column's share. (The idea of debiasing by leverage:
Dereziński, Bartan, Pilanci & Mahoney 2020, arXiv 2007.01327.) They are a fixed point, ``c_i = 1/mean_m(1 − ℓ_im)``,
found from the leverages ``ℓ = x/(1 + x)``; there is none where
the probes are fewer than the degrees of freedom, and the estimate then says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pdeinfl.engine.certificate import Certified, relative_error, row_norms

# Weights are iterated until they change by less than this, or are larger than that: an example's probes then carry
# nine tenths of what they can, and small changes of λ move the weights at will.
_TOLERANCE, _LARGEST_WEIGHT, _ITERATIONS = 1e-4, 10.0, 100
# Two-sided 95 % quantiles of Student's t, by the number of groups of the jackknife (one degree of freedom less).
_STUDENT = {1: np.inf, 2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
_GROUPS = max(_STUDENT)


@dataclass(frozen=True, eq=False)
class Estimate:
    """H at one damping, responses × perturbations, observable-major.

    Attributes:
        values: ``(n_response_rows, n_perturbation_rows)``.
        raw: with weights 1; what it exceeds ``values`` by is the upward bias of the plain inverse.
        bias, deviation: what is left of the bias, and the standard deviation over probes, by the jackknife over groups
            of draws, elementwise. n_groups: how many.
        size: ``√(H_ii H_jj)``. feasible: whether the weights exist.
        dof: ``tr A(A + λ)⁻¹``: the sum of the leverages.
    """

    values: np.ndarray
    raw: np.ndarray
    bias: np.ndarray
    deviation: np.ndarray
    size: np.ndarray
    feasible: bool
    dof: float
    n_groups: int

    @property
    def error(self) -> np.ndarray:
        """``|bias|`` and the 95 % interval of Student's t with ``n_groups − 1`` degrees of freedom; infinite where the
        weights do not exist: what is left of the bias is then unknown."""
        if not self.feasible:
            return np.full_like(self.values, np.inf)
        return np.abs(self.bias) + _STUDENT[self.n_groups] * self.deviation


@dataclass(frozen=True, eq=False)
class SketchPath:
    """Inner products of gradients and probes: H at every damping.

    Attributes:
        response, perturbation: of the gradients with the columns ``J_iᵀR_i`` and ``J_iᵀξ``, ``(n_rows, K)``.
            columns: of these, ``(K, K)``.
        overlap: of responses with perturbations. square_response, square_perturbation: ``‖g‖²``.
        example, draw: of each column, ``(K,)`` integers; a draw of −1 is a known column; every example has the same
            number of draws.
        scale: s. row_error: relative error γ of a stored row. lambda_max: largest eigenvalue of A.
    """

    response: np.ndarray
    perturbation: np.ndarray
    columns: np.ndarray
    overlap: np.ndarray
    square_response: np.ndarray
    square_perturbation: np.ndarray
    example: np.ndarray
    draw: np.ndarray
    scale: float
    row_error: float
    lambda_max: float
    _known: dict[float, Estimate] = field(default_factory=dict, repr=False)

    @property
    def largest(self) -> float:
        """λ_max."""
        return self.lambda_max

    def estimate(self, damping: float) -> Estimate:
        """H and how far to trust it: one K×K inverse per iteration of the weights, for all draws and for each of up to
        eight groups of them left out."""
        if damping not in self._known:
            self._known[damping] = self._estimate(damping)
        return self._known[damping]

    def _estimate(self, damping: float) -> Estimate:
        everything = np.arange(len(self.draw))
        weights, dof, feasible = self._weights(everything, damping, None)
        values, size = self._solve(everything, weights, damping)
        raw, _ = self._solve(everything, np.ones_like(weights), damping)
        n_draws = int(self.draw.max()) + 1
        n = min(n_draws, _GROUPS)
        if n < 2:
            unknown = np.full_like(values, np.inf)
            return Estimate(values, raw, unknown, unknown, size, feasible, dof, n)
        without = []
        for group in range(n):
            rows = np.flatnonzero((self.draw < 0) | (self.draw % n != group))
            start = 1 + (weights[rows] - 1) * n_draws / self._draws(rows)
            fewer, _, also = self._weights(rows, damping, start)
            feasible = feasible and also
            without.append(self._solve(rows, fewer, damping)[0])
        left_out = np.stack(without)
        bias = (n - 1) * (left_out.mean(0) - values)
        deviation = np.sqrt((n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0))
        return Estimate(values, raw, bias, deviation, size, feasible, dof, n)

    def _gram(self, rows: np.ndarray) -> Tensor:
        """``UᵀU`` of some columns with weights 1."""
        chosen, size = self.columns[np.ix_(rows, rows)], self._sizes(rows)
        chosen *= size[:, None]
        chosen *= size
        return torch.from_numpy(chosen)

    def _draws(self, rows: np.ndarray) -> int:
        drawn = self.draw[rows]
        return len(np.unique(drawn[drawn >= 0]))

    def _sizes(self, rows: np.ndarray) -> np.ndarray:
        """``√s``, of a probe ``√(s/k)``."""
        return np.sqrt(self.scale / np.where(self.draw[rows] < 0, 1, self._draws(rows)))

    def _weights(self, rows: np.ndarray, damping: float, start: np.ndarray | None) -> tuple[np.ndarray, float, bool]:
        """Weights of the columns in ``rows``, the degrees of freedom, and whether the iteration came to rest."""
        gram, drawn = self._gram(rows), self.draw[rows] >= 0
        own, n_draws = self.example[rows][drawn], self._draws(rows)
        weights = np.ones(len(rows)) if start is None else start
        shifted = torch.empty_like(gram)
        for _ in range(_ITERATIONS):
            root = torch.from_numpy(np.sqrt(weights))
            torch.mul(gram, root[:, None], out=shifted).mul_(root)
            shifted.diagonal().add_(damping)
            factor = torch.linalg.cholesky(shifted)
            rest = damping * torch.cholesky_inverse(factor, out=shifted).diagonal().numpy()  # 1 − leverage
            fresh = np.ones(len(rows))
            fresh[drawn] = n_draws / np.bincount(own, rest[drawn])[own]
            change = np.abs(fresh / weights - 1).max()
            weights = fresh
            if change <= _TOLERANCE or weights.max() > _LARGEST_WEIGHT:
                break
        weights = np.minimum(weights, _LARGEST_WEIGHT)
        return weights, float((1 - rest).sum()), bool(change <= _TOLERANCE and weights.max() < _LARGEST_WEIGHT)

    def _solve(self, rows: np.ndarray, weights: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """H by Woodbury, and ``√(H_ii H_jj)``."""
        root = np.sqrt(weights)
        shifted = self._gram(rows).mul_(torch.from_numpy(root)[:, None]).mul_(torch.from_numpy(root))
        shifted.diagonal().add_(damping)
        factor = torch.linalg.cholesky(shifted)
        scale = torch.from_numpy(root * self._sizes(rows))

        def half(cross: np.ndarray) -> np.ndarray:
            right = (torch.from_numpy(cross[:, rows]) * scale).T
            return torch.linalg.solve_triangular(factor, right, upper=False).numpy()

        a = half(self.response)
        b = a if self.perturbation is self.response else half(self.perturbation)
        values = (self.overlap - a.T @ b) / damping
        diagonals = [
            np.maximum(square - np.einsum("ki,ki->i", x, x), 0.0) / damping
            for square, x in ((self.square_response, a), (self.square_perturbation, b))
        ]
        return values, np.sqrt(np.outer(*diagonals))

    def subspace_dof(self, damping: float) -> float:
        """``tr A(A + λ)⁻¹``, estimated."""
        return self.estimate(damping).dof

    def rounding(self, damping: float) -> float:
        r"""Relative change of H by errors γ of the rows: ``|δH_ij| ≤ ρ√(H_ii H_jj)``.

        For a gradient, ``‖g‖² ≤ (λ_max + λ)H_gg`` and ``‖η⁻¹g‖ ≤ √(H_gg/λ)`` give ``2γ√(1 + λ_max/λ)`` and, of second
        order, ``γ²(1 + λ_max/λ)``. For the factor, ``δÂ = δU Uᵀ + U δUᵀ + δU δUᵀ`` with ``‖δU‖² ≤ γ² tr Â`` and
        ``‖Uᵀη⁻¹g‖² ≤ H_gg`` give the same with ``tr Â/λ``.
        """
        trace = float(np.diag(self.columns) @ self._sizes(np.arange(len(self.draw))) ** 2)
        stretch = 0.0
        for size in (1.0 + self.lambda_max / damping, trace / damping):
            stretch += 2 * self.row_error * np.sqrt(size) + self.row_error**2 * size
        return float(stretch)

    def certified(self, shape: tuple[int, int, int, int], damping: float, rounding: float, tol: float) -> Certified:
        """H with an estimated error, `Estimate.error` and the rounding of the rows; not converged where no weights
        exist. ``rounding``, of Jacobian products, does not enter: there are none."""
        n_a, n_b, n_response, n_perturbation = shape

        def blocks(matrix: np.ndarray) -> np.ndarray:
            return matrix.reshape(n_a, n_response, n_b, n_perturbation).transpose(0, 2, 1, 3)

        found = self.estimate(damping)
        values, rho = blocks(found.values), self.rounding(damping) * blocks(found.size)
        bound = blocks(found.error) + rho
        relative = relative_error(values, bound)
        return Certified(
            values, bound, row_norms(bound), relative, rho, bool(found.feasible and (relative <= tol).all())
        )


def signs(seed: int, example: int, draw: int, shape: tuple[int, ...]) -> Tensor:
    """Random signs of one probe, float32; the same whatever else is drawn."""
    stream = np.random.Generator(np.random.Philox(key=[seed % 2**64, example * 2**32 + draw]))
    bits = stream.integers(0, 2, size=shape, dtype=np.int8)
    return torch.from_numpy(bits).float().mul_(2).sub_(1)
