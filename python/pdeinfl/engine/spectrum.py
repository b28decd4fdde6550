"""Spectrum of the mini-batch metric: the largest eigenvalue, the leading ones, effective degrees of freedom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdeinfl.arguments import check_count
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.engine.basis import Basis
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.metric import Metric

# Two-sided 95 % quantiles of Student's t for 1 … 30 degrees of freedom.
_T95 = (
    *(12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13),
    *(2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04),
)


@dataclass(frozen=True, eq=False)
class LeadingEigenvalues:
    """The k largest eigenvalues of A, descending, with the norms ``‖Av − λv‖`` of their Ritz vectors, and the Jacobian
    products spent; an eigenvalue lies within its residual of the value."""

    values: np.ndarray
    residuals: np.ndarray
    n_products: int


@dataclass(frozen=True)
class EffectiveDof:
    """``tr A(A + λ)⁻¹`` with a 95 % interval, and the Jacobian products spent."""

    value: float
    low: float
    high: float
    n_products: int


def largest_eigenvalue(
    model: nn.Module, batch: MiniBatch, metric: str = "sum", rtol: float = 1e-6, **where: Any
) -> float:
    """λ_max of the metric of a mini-batch, to about ``rtol``; ``where`` are arguments of `Jacobian`."""
    return Metric(Jacobian(model, **where), batch, metric).largest_eigenvalue(rtol)


def leading_eigenvalues(
    model: nn.Module,
    batch: MiniBatch,
    k: int = 10,
    metric: str = "sum",
    rtol: float = 1e-4,
    block: int = 4,
    max_basis: int | None = None,
    max_products: int = 20_000,
    seed: int = 0,
    **where: Any,
) -> LeadingEigenvalues:
    """The k largest eigenvalues of the metric by thick-restart block Golub–Kahan bidiagonalisation.

    When the basis reaches ``max_basis`` vectors it is compressed to its best Ritz vectors and their images, which costs
    no product, and grows on from the last residual block (Baglama & Reichel 2005, with blocks).

    Args:
        k: how many. rtol: residual norms at most ``rtol·λ_max``. block: vectors per product.
        max_basis: default ``max(3k, k + 8·block)``; peak memory ``max_basis·(P + N·D)`` numbers.
        where: arguments of `Jacobian` (device, dtype, patterns, memory_budget).

    Raises:
        ValueError: k is not between 1 and min(P, N·D).
    """
    operator = Metric(Jacobian(model, **where), batch, metric)
    rank = min(operator.n_parameters, operator.n_outputs)
    if not 1 <= k <= rank:
        raise ValueError(f"`k` must be between 1 and {rank}, the rank that the metric can have; got {k}")
    block = min(block, rank)
    limit = min(rank, max(3 * k, k + 8 * block) if max_basis is None else max(max_basis, k + 2 * block))
    dtype, device = operator.jacobian.dtype, operator.jacobian.device
    noise = 8 * torch.finfo(dtype).eps
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(block, operator.n_parameters, generator=generator, dtype=torch.float64)
    q, u = _bases(operator)
    q.extend(start.to(device), 0.0)
    fresh = q.since(0)
    forward = torch.zeros(0, 0, dtype=torch.float64)
    while True:
        image = operator.forward(fresh)
        top = max(
            float(forward.abs().max()) if forward.numel() else 0.0, float(torch.linalg.vector_norm(image, dim=1).max())
        )
        before = len(u)
        rows = u.extend(image, noise * top)
        forward = torch.nn.functional.pad(forward, (0, rows.shape[1] - forward.shape[1]))
        forward = torch.cat([forward, rows])
        left, sigma, right = torch.linalg.svd(forward, full_matrices=False)
        n_q = len(q)
        residuals = np.zeros(min(k, len(sigma)))
        if len(u) > before and n_q < operator.n_parameters:
            adjoint = q.extend(operator.adjoint(u.since(before)), noise * top)
            grown = len(q) - n_q
            if grown:
                coupling = right[:, before:] @ adjoint[:, n_q:]
                residuals = (sigma * torch.linalg.vector_norm(coupling, dim=1)).numpy()[:k]
        else:
            grown = 0
        values = (sigma[:k] ** 2).numpy()
        spent = operator.n_jvp + operator.n_vjp
        done = len(values) == k and bool((residuals[:k] <= rtol * values[0]).all())
        if done or not grown or spent >= max_products:
            return LeadingEigenvalues(values, residuals, spent)
        fresh = q.since(n_q)
        if n_q + len(fresh) > limit:
            keep = min(max(k + block, limit // 2), len(sigma), limit - len(fresh))
            ritz = q.combine(torch.nn.functional.pad(left[:, :keep].T, (0, grown)))
            images = u.combine(right[:keep])
            q, u = _bases(operator)
            q.append(ritz.to(dtype))
            u.append(images.to(dtype))
            q.append(fresh)
            forward = torch.diag(sigma[:keep])


def _bases(operator: Metric) -> tuple[Basis, Basis]:
    dtype, device = operator.jacobian.dtype, operator.jacobian.device
    return Basis(operator.n_parameters, dtype, device), Basis(operator.n_outputs, dtype, device)


def effective_dof(
    model: nn.Module,
    batch: MiniBatch,
    damping: float | Damping,
    metric: str = "sum",
    n_probes: int = 8,
    n_steps: int = 40,
    lambda_max: float | None = None,
    seed: int = 0,
    **where: Any,
) -> EffectiveDof:
    """``tr A(A + λ)⁻¹`` by stochastic Lanczos quadrature with Rademacher probes.

    Each probe gives a lower (Gauss–Radau, node 0) and an upper (Gauss) value; the interval spans both and the sampling
    error of the probes (Student's t, 95 %).

    Args:
        damping: λ; relative to ``lambda_max`` (default: computed). n_probes: at least 2. n_steps: Lanczos steps each.

    Raises:
        ValueError: fewer than two probes.
    """
    n_probes = check_count("n_probes", n_probes, 2)
    operator = Metric(Jacobian(model, **where), batch, metric)
    wanted = Damping.of(damping)
    if wanted.is_relative and lambda_max is None:
        lambda_max = operator.largest_eigenvalue(seed=seed)
    value = wanted.resolve(lambda_max or 0.0)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n_probes, operator.n_parameters), generator=generator, dtype=torch.float64)
    probes = (2 * signs - 1).to(operator.jacobian.device)
    alphas, betas = _bidiagonalise(operator, probes, min(n_steps, operator.n_parameters, operator.n_outputs))
    bounds = np.array([_quadrature(a, b, value) for a, b in zip(alphas, betas, strict=True)]) * operator.n_parameters
    middle = bounds.mean(1)
    spread = _T95[min(n_probes - 1, len(_T95)) - 1] * middle.std(ddof=1) / math.sqrt(n_probes)
    low, high = bounds.mean(0)
    return EffectiveDof(
        float(middle.mean()), max(0.0, float(low - spread)), float(high + spread), operator.n_jvp + operator.n_vjp
    )


def _bidiagonalise(operator: Metric, starts: Tensor, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Golub–Kahan bidiagonalisation from each row at once, fully reorthogonalised: diagonals and superdiagonals,
    ``(n_rows, n_steps)``; a finished row goes on with zeros."""
    dtype = operator.jacobian.dtype
    v = starts / torch.linalg.vector_norm(starts, dim=1, keepdim=True)
    rights: list[Tensor] = [v.to(dtype)]
    lefts: list[Tensor] = []
    alphas, betas = [], []
    for _ in range(n_steps):
        u, alpha = _next(operator.forward(rights[-1]).double(), lefts)
        lefts.append(u.to(dtype))
        w, beta = _next(operator.adjoint(lefts[-1]).double(), rights)
        rights.append(w.to(dtype))
        alphas.append(alpha)
        betas.append(beta)
    return torch.stack(alphas, 1).cpu().numpy(), torch.stack(betas, 1).cpu().numpy()


def _next(rows: Tensor, held: list[Tensor]) -> tuple[Tensor, Tensor]:
    size = torch.linalg.vector_norm(rows, dim=1)
    for _ in range(2):
        for old in held:
            rows = rows - (rows * old.double()).sum(1, keepdim=True) * old.double()
    length = torch.linalg.vector_norm(rows, dim=1)
    length = torch.where(length > 1e-6 * size, length, torch.zeros_like(length))
    unit = rows / torch.where(length > 0, length, torch.ones_like(length))[:, None]
    return torch.where((length > 0)[:, None], unit, torch.zeros_like(unit)), length


def _quadrature(alpha: np.ndarray, beta: np.ndarray, damping: float) -> tuple[float, float]:
    """Lower and upper value of ``vᵀA(A + λ)⁻¹v`` for a unit v from its bidiagonalisation."""
    m = len(alpha)
    square = np.diag(alpha) + np.diag(beta[:-1], 1)
    radau = np.hstack([square, np.zeros((m, 1))])
    radau[-1, -1] = beta[-1]
    out = []
    for matrix in (radau, square):
        nodes, vectors = np.linalg.eigh(matrix.T @ matrix)
        nodes = np.maximum(nodes, 0.0)
        out.append(float(np.sum(vectors[0] ** 2 * nodes / (nodes + damping))))
    return out[0], out[1]
