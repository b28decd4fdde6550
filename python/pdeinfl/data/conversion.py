"""Compressible Euler states between primitive (ρ, vx, vy, p) and conserved (ρ, ρvx, ρvy, E) channels."""

from __future__ import annotations

import numpy as np

from pdeinfl.data.channels import GAMMA


def conserved_from_primitive(states: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """``(…, 4, X, Y)`` of ρ, vx, vy, p to ρ, ρvx, ρvy, ``E = p/(γ−1) + ½ρ|v|²``; float64 inside, the input's dtype out.

    Raises:
        ValueError: axis −3 has not four channels, or density is not positive.
    """
    rho, vx, vy, p = _channels(states)
    out = np.stack([rho, rho * vx, rho * vy, p / (gamma - 1) + 0.5 * rho * (vx**2 + vy**2)], -3)
    return out.astype(states.dtype)


def primitive_from_conserved(states: np.ndarray, gamma: float = GAMMA) -> np.ndarray:
    """``(…, 4, X, Y)`` of ρ, ρvx, ρvy, E to ρ, vx, vy, ``p = (γ−1)(E − ½|ρv|²/ρ)``; the inverse.

    Raises:
        ValueError: axis −3 has not four channels, or density is not positive.
    """
    rho, mx, my, energy = _channels(states)
    out = np.stack([rho, mx / rho, my / rho, (gamma - 1) * (energy - 0.5 * (mx**2 + my**2) / rho)], -3)
    return out.astype(states.dtype)


def _channels(states: np.ndarray) -> np.ndarray:
    if states.ndim < 3 or states.shape[-3] != 4 or states.dtype.kind != "f":
        raise ValueError(f"`states` must be floating point (…, 4, X, Y); got {states.dtype} {states.shape}")
    channels = np.moveaxis(states.astype(np.float64), -3, 0)
    if not (channels[0] > 0).all():
        raise ValueError(f"`states`: density must be positive everywhere; lowest is {channels[0].min():.3g}")
    return channels
