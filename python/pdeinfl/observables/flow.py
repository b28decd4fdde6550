"""Integral quantities of incompressible flow: kinetic energy and enstrophy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdeinfl.observables.base import CHANNEL_EPS, Observable, spatial_axes
from pdeinfl.observables.smse import half_spectrum_weight, wavenumbers


@dataclass(frozen=True)
class _FlowIntegral(Observable):
    """``(I[ŷ] − I[y])² / (I[y] + 1e-6)`` of a non-negative integral I.

    Viscosity dissipates these integrals, so they are compared with the target's: a perfect prediction costs nothing.
    """

    requires: ClassVar[tuple[str, ...]] = ("velocity_x", "velocity_y")

    def density_difference(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """``(I[ŷ] − I[y], I[y])``, each ``(n,)``, from velocities ``(n, 2, X, Y)``."""
        raise NotImplementedError

    def cost(self, pred: Tensor, target: Tensor, state: Tensor) -> Tensor:
        at = [self.index_of(name) for name in self.requires]
        gap, reference = self.density_difference(pred[:, at], target[:, at])
        return gap.square() / (reference + CHANNEL_EPS)


@dataclass(frozen=True)
class KineticEnergy(_FlowIntegral):
    """``(K[ŷ] − K[y])² / (K[y] + 1e-6)``, K = ½ spatial mean of ``velocity_x² + velocity_y²``."""

    @property
    def name(self) -> str:
        return "kinetic_energy"

    def density_difference(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        axes = (1, *spatial_axes(pred))
        cells = math.prod(pred.shape[2:])
        gap = ((pred - target) * (pred + target)).sum(axes) / (2 * cells)
        return gap, target.square().sum(axes) / (2 * cells)


@dataclass(frozen=True)
class Enstrophy(_FlowIntegral):
    """``(Z[ŷ] − Z[y])² / (Z[y] + 1e-6)``, Z = ½ spatial mean of ``ω²``, ``ω = ∂x v_y − ∂y v_x`` on the unit square.

    Derivatives are spectral (periodic, x the first space axis, y the second), the Nyquist mode of an even axis has
    derivative zero, and the mean is taken by Parseval over the spectrum. Half-precision fields are transformed in
    float32. Two space axes only.
    """

    @property
    def name(self) -> str:
        return "enstrophy"

    def density_difference(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if pred.ndim != 4:
            raise ValueError(f"observable `enstrophy` needs fields (n, channel, x, y); got {tuple(pred.shape)}")
        sizes = pred.shape[2:]
        gap, total, reference = (_vorticity(f, sizes) for f in (pred - target, pred + target, target))
        scale = half_spectrum_weight(sizes, gap.real) * (0.5 / math.prod(sizes) ** 2)
        difference = ((gap.real * total.real + gap.imag * total.imag) * scale).sum((-2, -1))
        of_target = ((reference.real.square() + reference.imag.square()) * scale).sum((-2, -1))
        return difference.to(pred.dtype), of_target.to(pred.dtype)


def _vorticity(velocity: Tensor, sizes: Sequence[int]) -> Tensor:
    """Half spectrum of ``−iω``, ``(n, X, Y//2 + 1)``: the phase drops out of every product taken of it."""
    real = velocity.float() if velocity.dtype in (torch.float16, torch.bfloat16) else velocity
    spectrum = torch.fft.rfftn(real, dim=(-2, -1))
    kx, ky = (2 * math.pi * k * (2 * k.abs() != n) for k, n in zip(wavenumbers(sizes, real), sizes, strict=True))
    return kx * spectrum[:, 1] - ky * spectrum[:, 0]
