"""Small modules and mini-batches that the engine's tests share, with their exact influence."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import pdeinfl as pi
import reference


def conv_net(channels=4, width=3, seed=0, space=2):
    """Two circular convolutions with tanh between, of 1, 2 or 3 space axes."""
    torch.manual_seed(seed)
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[space - 1]
    layers = conv(channels, width, 3, padding=1, padding_mode="circular"), nn.Tanh(), conv(width, channels, 1)
    return nn.Sequential(*layers)


def mini_batch(n=4, channels=4, sides=(4, 5), seed=1, frames=1, extras=(), **labels):
    """Random positive fields; classes and trajectories of unequal length unless labels are given."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 1 + torch.rand(n, channels * frames, *sides, generator=generator)
    targets = 1 + torch.rand(n, channels, *sides, generator=generator)
    i = np.arange(n)
    given = {"class_ids": i % 2, "trajectory_ids": i % 3, "times": 1 + i // 3, **labels}
    return pi.MiniBatch(inputs, targets, extras=extras, **given)


def exact(module, batch, response="smse", perturbation="smse", relative=1e-2, metric="sum", **others):
    """``(H, diagonals of H of both sides, λ_max)`` from the explicit Jacobian; ``others``: response_batch,
    metric_batch, names."""
    names = others.get("names")
    response_batch, metric_batch = others.get("response_batch", batch), others.get("metric_batch", batch)

    def jacobian_of(b):
        return reference.explicit_jacobian(module, b.inputs, b.extras, names)

    j = jacobian_of(metric_batch)
    g_b = reference.gradients(j if metric_batch is batch else jacobian_of(batch), perturbation, module, batch)
    g_a = reference.gradients(
        j if metric_batch is response_batch else jacobian_of(response_batch), response, module, response_batch
    )
    scale = 1.0 if metric == "sum" else 1.0 / metric_batch.targets.numel()
    flat = j.reshape(-1, j.shape[-1])
    largest = scale * float(np.linalg.norm(flat, 2)) ** 2
    damping = relative * largest
    h = reference.influence(j, g_a, g_b, damping, scale)
    a, b = (np.diag(reference.influence(j, g, g, damping, scale)) for g in (g_a, g_b))
    return h, a, b, largest


def slack(a, b, stretch, n_parameters, units=64.0):
    """``c·eps·√P·(1 + λ_max/λ)·√(H_ii H_jj)``: what two float64 solves of the same system may differ by."""
    eps = np.finfo(np.float64).eps
    return units * eps * np.sqrt(n_parameters) * (1 + stretch) * np.sqrt(np.outer(np.abs(a), np.abs(b)))
