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


def tiny_unet():
    """Our UNet with one level and one channel inside."""
    return pi.surrogates.UNet(width=1, kernels=(3,), stem_kernel=3, heads=1)


def tiny_vit(width=6):
    """Our ViT with one block on 4×4 cells."""
    return pi.surrogates.ViT(resolution=4, width=width, depth=1, heads=2, patch=2)


def mini_batch(n=4, channels=4, sides=(4, 5), seed=1, frames=1, extras=(), **labels):
    """Random positive fields; classes and trajectories of unequal length unless labels are given."""
    generator = torch.Generator().manual_seed(seed)
    inputs = 1 + torch.rand(n, channels * frames, *sides, generator=generator)
    targets = 1 + torch.rand(n, channels, *sides, generator=generator)
    i = np.arange(n)
    given = {"class_ids": i % 2, "trajectory_ids": i % 3, "times": 1 + i // 3, **labels}
    return pi.MiniBatch(inputs, targets, extras=extras, **given)


class Exact:
    """Influence by the explicit Jacobian of a module, float64; the metric's examples are those of ``batch`` unless
    given apart."""

    def __init__(self, module, batch, metric="sum", names=None, response_batch=None, metric_batch=None):
        self.module, self.names, self._jacobians, self._gradients = module, names, {}, {}
        self.batch, self.response_batch = batch, response_batch or batch
        metric_batch = metric_batch or batch
        self.j = self._jacobian(metric_batch)
        self.scale = 1.0 if metric == "sum" else 1.0 / metric_batch.targets.numel()
        flat = self.j.reshape(-1, self.j.shape[-1])
        self.eigenvalues = self.scale * np.linalg.svd(flat, compute_uv=False) ** 2
        self.top = float(self.eigenvalues[0])
        self.values, self.vectors = np.linalg.eigh(self.scale * flat.T @ flat)

    def _jacobian(self, batch):
        if id(batch) not in self._jacobians:
            found = reference.explicit_jacobian(self.module, batch.inputs, batch.extras, self.names)
            self._jacobians[id(batch)] = found
        return self._jacobians[id(batch)]

    def gradients(self, name, batch):
        key = name, id(batch)
        if key not in self._gradients:
            self._gradients[key] = reference.gradients(self._jacobian(batch), name, self.module, batch)
        return self._gradients[key]

    def influence(self, response, perturbation, damping):
        """``(H, room)``: H, and what two float64 solutions may differ by (`slack`)."""
        g_a, g_b = self.gradients(response, self.response_batch), self.gradients(perturbation, self.batch)
        h = reference.influence(self.j, g_a, g_b, damping, self.scale)
        a, b = (np.einsum("ip,ip->i", g @ self.vectors / (self.values + damping), g @ self.vectors) for g in (g_a, g_b))
        return h, slack(a, b, self.top / damping, self.j.shape[-1])


def slack(a, b, stretch, n_parameters, units=64.0):
    """``c·eps·√P·(1 + λ_max/λ)·√(H_ii H_jj)``: what two float64 solves of the same system may differ by."""
    eps = np.finfo(np.float64).eps
    return units * eps * np.sqrt(n_parameters) * (1 + stretch) * np.sqrt(np.outer(np.abs(a), np.abs(b)))
