r"""Incompressible flow on the periodic unit square by Fourier modes, batched, on CPU and GPU.

.. math:: \partial_t \hat u = -P\, ik\cdot\widehat{u \otimes u} - \varepsilon \hat Q |k|^2 \hat u

P projects out divergence. Products are formed on a grid 3/2 as fine (no aliasing). The viscosity
:math:`\varepsilon = 0.05/N` acts on :math:`|k| > k_0 = 2\pi\sqrt N` alone, with
:math:`\hat Q = 1 - e^{-(|k|/k_0)^{18}}`. Time: third-order strong-stability-preserving Runge–Kutta. The scheme is that
of the data's authors (AZEBAN).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CFL = 0.5


class SpectralFlow:
    """Right-hand side and time stepping for fields of one resolution, all in float64.

    Args:
        resolution: points along either axis, N ≥ 4.
        viscosity: ε; default 0.05/N.
        cutoff: ``k₀``; default 2π√N. 0 makes the viscosity that of Navier–Stokes, on every mode.
        device: where to compute.
    """

    def __init__(
        self,
        resolution: int,
        viscosity: float | None = None,
        cutoff: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        n = self.resolution = resolution
        self.fine = 3 * ((n + 1) // 2)
        index = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device)[:, None]
        half = torch.arange(n // 2 + 1, dtype=torch.float64, device=device)[None, :]
        # The mode at N/2 has no conjugate partner on an even grid: it is left out.
        self.kept = ((index.abs() < n / 2) & (half < n / 2)).double()
        self.kx, self.ky = 2 * math.pi * index * self.kept, 2 * math.pi * half * self.kept
        squared = self.kx**2 + self.ky**2
        self.inverse = torch.where(squared > 0, 1 / squared.clamp(min=1), 0.0)
        epsilon = 0.05 / n if viscosity is None else viscosity
        k0 = 2 * math.pi * math.sqrt(n) if cutoff is None else cutoff
        ratio = squared.sqrt() / k0 if k0 > 0 else torch.full_like(squared, torch.inf)
        self.decay = epsilon * squared * torch.where(ratio > 1, 1 - torch.exp(-(ratio**18)), 0.0)
        self.stiffness = float(self.decay.max())

    def to_modes(self, velocity: Tensor) -> Tensor:
        """Modes of ``(n, 2, N, N)`` float64 velocities, with their divergence removed."""
        return self.projected(torch.fft.rfft2(velocity, norm="forward") * self.kept)

    def to_points(self, modes: Tensor) -> Tensor:
        """Velocities ``(n, 2, N, N)`` of modes."""
        return torch.fft.irfft2(modes, (self.resolution, self.resolution), norm="forward")

    def projected(self, modes: Tensor) -> Tensor:
        """The part of ``modes`` without divergence: ``û − k (k·û)/|k|²``."""
        along = (self.kx * modes[:, 0] + self.ky * modes[:, 1]) * self.inverse
        return torch.stack([modes[:, 0] - self.kx * along, modes[:, 1] - self.ky * along], 1)

    def rate(self, modes: Tensor) -> Tensor:
        """Time derivative of ``modes``."""
        u, v = self._padded(modes).unbind(1)
        uu, uv, vv = self._cut(torch.stack([u * u, u * v, v * v], 1)).unbind(1)
        flux = torch.stack([self.kx * uu + self.ky * uv, self.kx * uv + self.ky * vv], 1)
        return -1j * self.projected(flux) - self.decay * modes

    def step(self, modes: Tensor, dt: Tensor) -> Tensor:
        """One Runge–Kutta step; ``dt`` is broadcast, one for each flow."""
        first = modes + dt * self.rate(modes)
        second = 0.75 * modes + 0.25 * (first + dt * self.rate(first))
        return modes / 3 + 2 / 3 * (second + dt * self.rate(second))

    def largest_step(self, modes: Tensor) -> Tensor:
        """``CFL · h / max(|u| + |v|)`` of each flow, and within the stability of the viscous term, ``(n,)``."""
        speed = self.to_points(modes).abs().sum(1).flatten(1).amax(1)
        return 1 / (speed * self.resolution / CFL + self.stiffness)

    def advance(self, modes: Tensor, duration: float) -> Tensor:
        """``modes`` after ``duration``. Each flow takes steps of its own size, whatever else is in the batch."""
        modes = modes.clone()
        left = torch.full((len(modes),), duration, dtype=torch.float64, device=modes.device)
        active = torch.arange(len(modes), device=modes.device)
        while len(active):
            now = modes[active]
            n_steps = torch.ceil(left[active] / self.largest_step(now)).clamp(min=1)
            dt = left[active] / n_steps
            modes[active] = self.step(now, dt[:, None, None, None])
            left[active] = torch.where(n_steps > 1, left[active] - dt, 0.0)
            active = active[(left[active] > 0) & torch.isfinite(dt)]
        return modes

    def _padded(self, modes: Tensor) -> Tensor:
        n, fine = self.resolution, self.fine
        low, high = (n + 1) // 2, n // 2
        wide = modes.new_zeros((*modes.shape[:2], fine, fine // 2 + 1))
        wide[:, :, :low, : n // 2 + 1] = modes[:, :, :low]
        wide[:, :, fine - high :, : n // 2 + 1] = modes[:, :, n - high :]
        return torch.fft.irfft2(wide, (fine, fine), norm="forward")

    def _cut(self, products: Tensor) -> Tensor:
        n, fine = self.resolution, self.fine
        low, high = (n + 1) // 2, n // 2
        wide = torch.fft.rfft2(products, norm="forward")[..., : n // 2 + 1]
        return torch.cat([wide[:, :, :low], wide[:, :, fine - high :]], 2) * self.kept
