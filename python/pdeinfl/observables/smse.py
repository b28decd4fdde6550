"""Scaled mean squared error (eq. 8), whole and resolved by channel or by radial wavenumber band."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdeinfl.observables.base import CHANNEL_EPS, Observable, rms, spatial_axes


@dataclass(frozen=True)
class SMSE(Observable):
    """``mean over c, x, y of (ŷ_c − y_c)² / (RMS(y_c) + 1e-6)``, RMS over space: it divides by the RMS, not its square.

    Reference: eq. 8 of arXiv 2509.00024.
    """

    @property
    def name(self) -> str:
        return "smse"

    def cost(self, pred: Tensor, target: Tensor, state: Tensor) -> Tensor:
        return _channel_terms(pred, target).mean(1)


@dataclass(frozen=True)
class ChannelSMSE(Observable):
    """One channel's share of the SMSE, ``mean over x, y of (ŷ_c − y_c)² / (RMS(y_c) + 1e-6) / C``: shares add up to it.

    Args:
        channel: name of the channel.
    """

    channel: str

    @property
    def name(self) -> str:
        return f"smse:{self.channel}"

    def needs(self) -> tuple[str, ...]:
        return (self.channel,)

    def cost(self, pred: Tensor, target: Tensor, state: Tensor) -> Tensor:
        c = self.index_of(self.channel)
        return _channel_terms(pred[:, c : c + 1], target[:, c : c + 1])[:, 0] / pred.shape[1]


@dataclass(frozen=True)
class BandSMSE(Observable):
    """The share of the SMSE in a band of radial wavenumbers, ``low <= |k| < high``.

    ``mean over c of Σ_{k in band} |ê_c(k)|² / (XY)² / (RMS(y_c) + 1e-6)`` with ``e = ŷ − y``, ``ê`` its unnormalised
    discrete Fourier transform over space and ``k`` in cycles per domain along each axis. By Parseval
    ``mean e² = Σ_k |ê|² / (XY)²``, so that bands which tile ``[0, ∞)`` add up to the SMSE. The transform runs in
    float32 for half-precision fields.

    Args:
        low, high: edges of the band, cycles per domain.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"a wavenumber band needs 0 <= low < high; got low = {self.low}, high = {self.high}")

    @property
    def name(self) -> str:
        return f"smse:band({self.low:g}-{self.high:g})"

    def cost(self, pred: Tensor, target: Tensor, state: Tensor) -> Tensor:
        axes = spatial_axes(pred)
        error = pred - target
        spectrum = torch.fft.rfftn(_fft_ready(error), dim=axes)
        sizes = pred.shape[2:]
        power = spectrum.real.square() + spectrum.imag.square()
        weight = _band_weight(sizes, self.low, self.high, power) / math.prod(sizes) ** 2
        in_band = (power * weight).sum(axes).to(pred.dtype)
        return (in_band / (rms(target) + CHANNEL_EPS)).mean(1)


def smse_channels(channel_names: Sequence[str]) -> tuple[ChannelSMSE, ...]:
    """The SMSE's share of each channel, bound, in channel order: their sum is the SMSE."""
    return tuple(ChannelSMSE(name).bind(channel_names) for name in channel_names)


def smse_bands(
    resolution: int | Sequence[int], edges: Sequence[float] | None = None, channel_names: Sequence[str] | None = None
) -> tuple[BandSMSE, ...]:
    """Bands that tile all wavenumbers of a grid, so that their SMSE shares add up to the SMSE.

    Args:
        resolution: points per axis (the longest counts).
        edges: inner edges in cycles per domain, increasing and positive; default octaves 1, 2, 4, … below the Nyquist
            wavenumber. The first band starts at 0, the last has no upper end.
        channel_names: bind the bands to these channels.
    """
    points = resolution if isinstance(resolution, int) else max(resolution)
    if edges is None:
        edges = [2.0**k for k in range(points.bit_length()) if 2**k < max(points / 2, 2)]
    every = [0.0, *edges, math.inf]
    bands = tuple(BandSMSE(low, high) for low, high in itertools.pairwise(every))
    return bands if channel_names is None else tuple(band.bind(channel_names) for band in bands)


def _channel_terms(pred: Tensor, target: Tensor) -> Tensor:
    return (pred - target).square().mean(spatial_axes(pred)) / (rms(target) + CHANNEL_EPS)


def _fft_ready(fields: Tensor) -> Tensor:
    return fields.float() if fields.dtype in (torch.float16, torch.bfloat16) else fields


def wavenumbers(sizes: Sequence[int], like: Tensor) -> list[Tensor]:
    """Signed wavenumbers, cycles per domain, of the half spectrum of ``rfftn``; one broadcastable tensor per axis."""
    last = len(sizes) - 1
    out = []
    for axis, size in enumerate(sizes):
        make = torch.fft.rfftfreq if axis == last else torch.fft.fftfreq
        k = make(size, d=1.0 / size, dtype=like.dtype, device=like.device)
        out.append(k.round().reshape([-1 if a == axis else 1 for a in range(last + 1)]))
    return out


def half_spectrum_weight(sizes: Sequence[int], like: Tensor) -> Tensor:
    """How often each mode of the half spectrum stands in the full one: 1 for 0 and Nyquist of the last axis, else 2."""
    k = torch.arange(sizes[-1] // 2 + 1, device=like.device)
    return 2 - ((k == 0) | (2 * k == sizes[-1])).to(like.dtype)


def _band_weight(sizes: Sequence[int], low: float, high: float, like: Tensor) -> Tensor:
    # Compared as squares: these are integers, exact in float32, where |k| itself rounds across an edge.
    k_squared = torch.stack(torch.broadcast_tensors(*(k.square() for k in wavenumbers(sizes, like)))).sum(0)
    inside = (k_squared >= low**2) & (k_squared < high**2)
    return inside.to(like.dtype) * half_spectrum_weight(sizes, like)
