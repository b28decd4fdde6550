"""Layers that both surrogates are made of. None works in place: all run under ``torch.func`` transforms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


def circular_pad(x: Tensor, width: int) -> Tensor:
    """``(n, C, X, Y)`` continued periodically by ``width`` cells on each side of both space axes."""
    if width == 0:
        return x
    x = torch.cat([x[..., -width:, :], x, x[..., :width, :]], -2)
    return torch.cat([x[..., -width:], x, x[..., :width]], -1)


class CircularConv2d(nn.Conv2d):
    """Convolution with an odd kernel K, bias, and circular padding (K − 1)/2; ``(n, C, X, Y)``."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, kaiming: bool = False) -> None:
        super().__init__(n_in, n_out, kernel, stride=stride)
        if kaiming:
            nn.init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        padded = circular_pad(x, (self.kernel_size[0] - 1) // 2)
        return F.conv2d(padded, self.weight, self.bias, self.stride)


class InstanceNorm(nn.Module):
    """Each sample's channels brought to mean 0 and variance 1 over space, then scaled and shifted per channel."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_channels))
        self.bias = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, len(self.weight), self.weight, self.bias, EPS)


class RMSNorm(nn.Module):
    """Division by the root mean square over ``axes``, times one scalar gain for the whole layer."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.gain * torch.rsqrt(x.square().mean(self.axes, keepdim=True) + EPS))


class Attention(nn.Module):
    """Multi-head self-attention over tokens ``(n, tokens, width)``; projections without bias, scale 1/√(head width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for p in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2))
