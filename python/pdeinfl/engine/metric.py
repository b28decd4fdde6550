"""The neural-tangent metric of a mini-batch, in factored form: ``A = s·JᵀJ`` applied as ``√s·J`` and its transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pdeinfl.arguments import check_one_of
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.engine.jacobian import Jacobian, PullBack

METRICS = ("sum", "mean")


class Metric:
    """``A = s·JᵀJ`` over the examples of a mini-batch; counts the Jacobian products it spends.

    Args:
        jacobian: the module's Jacobian.
        batch: the metric mini-batch, N examples.
        kind: ``"sum"`` (s = 1, paper eq. 2) or ``"mean"`` (s = 1/(N·D)).

    Raises:
        ValueError: unknown kind.
    """

    def __init__(self, jacobian: Jacobian, batch: MiniBatch, kind: str = "sum") -> None:
        check_one_of("metric", kind, METRICS)
        self.jacobian = jacobian
        self.batch = jacobian.place(batch)
        self.output_shape: Sequence[int] = tuple(batch.targets.shape)
        self.scale = 1.0 if kind == "sum" else 1.0 / batch.targets.numel()
        self.n_jvp = 0
        self.n_vjp = 0
        self._pull_back = PullBack()

    @property
    def n_parameters(self) -> int:
        """P."""
        return self.jacobian.n_parameters

    @property
    def n_outputs(self) -> int:
        """N·D."""
        return math.prod(self.output_shape)

    def forward(self, tangents: Tensor) -> Tensor:
        """``√s·J v`` for each row: ``(k, P) → (k, N·D)``."""
        self.n_jvp += len(tangents)
        return self.jacobian.jvp(self.batch, tangents).flatten(1).mul_(math.sqrt(self.scale))

    def adjoint(self, cotangents: Tensor) -> Tensor:
        """``√s·Jᵀ u`` for each row: ``(k, N·D) → (k, P)``."""
        self.n_vjp += len(cotangents)
        shaped = cotangents.reshape(len(cotangents), *self.output_shape)
        return self.jacobian.vjp(self.batch, shaped, self._pull_back).mul_(math.sqrt(self.scale))

    def release(self) -> None:
        """Let the activations go that adjoint products of this mini-batch have kept; the next one makes them again."""
        self._pull_back.clear()

    def apply(self, vectors: Tensor) -> Tensor:
        """``A v`` for each row: ``(k, P) → (k, P)``."""
        return self.adjoint(self.forward(vectors))

    def largest_eigenvalue(self, rtol: float = 1e-6, max_products: int = 200, seed: int = 0) -> float:
        """λ_max of A by Golub–Kahan bidiagonalisation with full reorthogonalisation.

        Stops when two successive Ritz values agree to ``rtol/10`` twice in a row; a lower bound in exact arithmetic.
        """
        generator = torch.Generator().manual_seed(seed)
        v = torch.randn(1, self.n_parameters, generator=generator, dtype=torch.float64).to(self.jacobian.device)
        right: list[Tensor] = [v / v.norm()]
        left: list[Tensor] = []
        alphas: list[float] = []
        betas: list[float] = []
        previous, agreed = 0.0, 0
        while 2 * len(alphas) < max_products:
            u = self.forward(right[-1].to(self.jacobian.dtype)).double()
            for _ in range(2):
                for q in left:
                    u = u - (u @ q.T) * q
            alphas.append(float(u.norm()))
            if alphas[-1] == 0.0:
                break
            left.append(u / alphas[-1])
            w = self.adjoint(left[-1].to(self.jacobian.dtype)).double()
            for _ in range(2):
                for q in right:
                    w = w - (w @ q.T) * q
            betas.append(float(w.norm()))
            bidiagonal = torch.diag(torch.tensor(alphas, dtype=torch.float64))
            if len(alphas) > 1:
                bidiagonal += torch.diag(torch.tensor(betas[:-1], dtype=torch.float64), 1)
            # The last row's norm includes the coupling to the next vector: the value of ‖Jᵀ U‖ on the left basis.
            extended = torch.cat([bidiagonal, torch.zeros(len(alphas), 1, dtype=torch.float64)], 1)
            extended[-1, -1] = betas[-1]
            value = float(torch.linalg.matrix_norm(extended, 2)) ** 2
            agreed = agreed + 1 if abs(value - previous) <= 0.1 * rtol * value else 0
            previous = value
            if agreed == 2 or betas[-1] <= 1e-12 * alphas[0] or len(right) == min(self.n_parameters, self.n_outputs):
                break
            right.append(w / betas[-1])
        return previous
