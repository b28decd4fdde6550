"""What every solver gets and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pdeinfl.engine.certificate import DampingPath, rounding_factor
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.metric import Metric
from pdeinfl.engine.sketch_path import SketchPath


@dataclass(frozen=True, eq=False)
class Problem:
    """``H = G_responseᵀ η⁻¹ G_perturbation`` on one metric mini-batch.

    Attributes:
        metric: A in factored form.
        gradients: every distinct gradient once, ``(n_rows, P)`` in the product dtype, on the metric's device.
        response_rows, perturbation_rows: which of them respond and perturb, observable-major.
        overlap: their Gram matrix, float64 ``(n_rows, n_rows)``.
        residuals: ``r`` of each perturbation, compactly ``(n_perturbation_observables, N, D)``; None where the
            perturbations are not the examples of the metric mini-batch.
        in_range: every gradient belongs to an example of the metric mini-batch, hence lies in the range of A.
        dampings: all the dampings that must meet ``tol``.
        lambda_max: largest eigenvalue of A, or None to take it from the solver's own Ritz values.
        product_noise: measured norm of the error of a ``√s·J`` product with a unit vector; gradient_error: measured
            relative error of the gradients (MATH §3).
        memory_budget: bytes for bases and other long vectors.
    """

    metric: Metric
    gradients: Tensor
    response_rows: np.ndarray
    perturbation_rows: np.ndarray
    overlap: np.ndarray
    residuals: Tensor | None
    in_range: bool
    shape: tuple[int, int, int, int]
    dampings: tuple[Damping, ...]
    lambda_max: float | None
    tol: float
    product_noise: float = 0.0
    gradient_error: float = 0.0
    memory_budget: float = float("inf")
    seed: int = 0
    report: Callable[[str], None] = field(default=lambda message: None)

    def damping(self, lambda_max: float) -> float:
        """The first damping: the one that single-damping solvers solve for."""
        return self.dampings[0].resolve(lambda_max if self.lambda_max is None else self.lambda_max)

    def residual_rows(self, rows: np.ndarray) -> Tensor:
        """Residuals as vectors of the metric's output space, ``(len(rows), N·D)``, zero outside their example."""
        assert self.residuals is not None
        n, d = self.residuals.shape[1:]
        out = torch.zeros(len(rows), n, d, dtype=self.residuals.dtype, device=self.residuals.device)
        for k, row in enumerate(rows):
            out[k, row % n] = self.residuals[row // n, row % n]
        return out.reshape(len(rows), n * d)

    def rounding(self, lambda_max: float, damping: float) -> float:
        """Relative change of H that rounding can cause."""
        product_error = self.product_noise / np.sqrt(lambda_max) if lambda_max > 0 else 0.0
        return rounding_factor(float(product_error), self.gradient_error, lambda_max, damping)


@dataclass(frozen=True, eq=False)
class Solution:
    """A solver's answer.

    Attributes:
        path: certificate, or estimate, on all dampings.
        ritz: eigenvalue estimates of A from the solved subspace, ascending.
        step: ``(perturbation_row, damping) → −η⁻¹g``, flat float64; None where a solver does not hold it.
        values, error_bound: H and its bound at the first damping, ``(n_response_rows, n_perturbation_rows)``, where a
            solver has its own (else they come from the path).
        residual_norms: ``‖g − ηz‖/‖g‖`` of each perturbation at the first damping, where measured.
        details: solver-specific numbers for the provenance.
    """

    path: DampingPath | SketchPath
    ritz: np.ndarray
    step: Callable[[int, float], Tensor] | None
    values: np.ndarray | None = None
    error_bound: np.ndarray | None = None
    residual_norms: np.ndarray | None = None
    details: dict[str, float | int | str] = field(default_factory=dict)
