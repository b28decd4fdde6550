"""Initial-condition classes of incompressible flow: BB, Gauss, Sines (Poseidon, arXiv 2405.19101).

A class is a function ``(generator, resolution) -> (2, resolution, resolution)`` float64 of u and v at the points
``i/resolution`` of the periodic unit square, axis −2 along x. What it draws does not depend on the resolution, so that
one generator gives one flow; the simulator removes whatever divergence is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NS_CLASSES = ("BB", "Gauss", "Sines")
"""Names of the built-in classes: Brownian bridge, Gaussian vortices, sums of sines."""


@dataclass(frozen=True)
class Sines:
    r"""Sums of sines.

    .. math:: u = \sum_{i,j=1}^{p} \frac{\alpha_{ij}}{\sqrt{2\pi(i+j)}} \sin(2\pi ix+\beta_{ij})
        \sin(2\pi jy+\gamma_{ij})

    and v with cosines, :math:`\alpha \sim U[-1, 1]`, :math:`\beta, \gamma \sim U[0, 2\pi]`. Not free of divergence as
    printed: it is projected, as in the original code.
    """

    p: int = 10

    def __call__(self, generator: np.random.Generator, resolution: int) -> np.ndarray:
        modes = np.arange(1, self.p + 1)
        alpha = generator.uniform(-1, 1, (self.p, self.p)) / np.sqrt(2 * np.pi * (modes[:, None] + modes))
        beta, gamma = generator.uniform(0, 2 * np.pi, (2, self.p, self.p))
        phase = 2 * np.pi * np.multiply.outer(np.arange(resolution) / resolution, modes)
        along_x, along_y = phase[:, :, None] + beta, phase[:, None, :] + gamma
        return np.stack([np.einsum("ij,xij,yij->xy", alpha, f(along_x), f(along_y), optimize=True)
                         for f in (np.sin, np.cos)])  # fmt: skip


@dataclass(frozen=True)
class Gauss:
    r"""Velocity of ``p`` Gaussian vortices :math:`\omega = \sum_i \frac{\alpha_i}{\sigma_i}
    e^{-r_i^2/2\sigma_i^2}`, :math:`\alpha \sim U[-1, 1]`, :math:`\sigma \sim U[0.01, 0.1]`, centres uniform.

    The nearest periodic images are added and the mean is removed (our reading; the sources say neither).
    """

    p: int = 100

    def __call__(self, generator: np.random.Generator, resolution: int) -> np.ndarray:
        alpha = generator.uniform(-1, 1, self.p)
        sigma = generator.uniform(0.01, 0.1, self.p)
        centres = generator.uniform(0, 1, (2, self.p))
        points = np.arange(resolution) / resolution
        distance = points[:, None] - centres[:, None, :] + np.array([-1.0, 0.0, 1.0])[:, None, None, None]
        bells = np.exp(-0.5 * (distance / sigma) ** 2).sum(0)
        vorticity = np.einsum("i,xi,yi->xy", alpha / sigma, *bells, optimize=True)
        return velocity_of(vorticity)


@dataclass(frozen=True)
class BrownianBridge:
    r"""Random Fourier modes with amplitude ``a = amplitude · (4π²|k|²)^(−(H+1)/2)``, H = ½.

    For each component and :math:`k_1, k_2 \ge 0`, with four numbers of :math:`U[-1, 1]`:
    :math:`\hat u(k_1, k_2) = a[(cc - ss) + i(cs + sc)]`, :math:`\hat u(-k_1, k_2) = a[(cc + ss) + i(cs - sc)]`, made
    Hermitian. The sources leave the amplitude ambiguous. The simulator runs it from t = −0.5 to 0.
    """

    amplitude: float = 1.0
    hurst: float = 0.5

    def __call__(self, generator: np.random.Generator, resolution: int) -> np.ndarray:
        n = (resolution + 1) // 2
        spectrum = np.zeros((2, resolution, resolution // 2 + 1), np.complex128)
        # Shell by shell: a finer grid adds modes and changes none.
        for shell in range(1, n):
            k1 = np.concatenate([np.full(shell, shell), np.arange(shell + 1)])
            k2 = np.concatenate([np.arange(shell), np.full(shell + 1, shell)])
            cc, cs, sc, ss = generator.uniform(-1, 1, (4, 2, len(k1)))
            a = self.amplitude * (4 * np.pi**2 * (k1**2 + k2**2)) ** (-(self.hurst + 1) / 2)
            spectrum[:, k1, k2] = a * ((cc - ss) + 1j * (cs + sc))
            mirrored = k1 > 0
            spectrum[:, -k1[mirrored], k2[mirrored]] = (a * ((cc + ss) + 1j * (cs - sc)))[:, mirrored]
        k = np.arange(1, n)
        spectrum[:, -k, 0] = spectrum[:, k, 0].conj()
        return np.fft.irfft2(spectrum, (resolution, resolution), norm="forward")


def velocity_of(vorticity: np.ndarray) -> np.ndarray:
    """Velocity without mean or divergence whose curl is ``vorticity``, less its mean: ``û = i k_y ω̂/|k|²``."""
    resolution = vorticity.shape[0]
    kx = 2 * np.pi * np.fft.fftfreq(resolution, 1 / resolution)[:, None]
    ky = 2 * np.pi * np.arange(resolution // 2 + 1)[None, :]
    squared = kx**2 + ky**2
    squared[0, 0] = np.inf
    stream = np.fft.rfft2(vorticity) / squared
    return np.fft.irfft2(np.stack([1j * ky * stream, -1j * kx * stream]), vorticity.shape)
