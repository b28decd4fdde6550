"""Momentum kept bit for bit in files that hold velocity.

PDEgym stores ρ and v. The float32 product ρ·v seldom hits a given float32 momentum m exactly, however v is rounded, so
our files add how many representable numbers m lies above ``float32(ρ·v)``: an int8, nearly always −1, 0 or 1.
"""

from __future__ import annotations

import numpy as np


def _ordinal(values: np.ndarray) -> np.ndarray:
    """float32 numbered in increasing order, int64; −0 and +0 are neighbours, so that the sign of zero is kept."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)


def encode_momentum(density: np.ndarray, momentum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Velocity, float32, and the correction, int8, from which `decode_momentum` recovers ``momentum`` exactly.

    Args:
        density: float32, broadcastable to ``momentum``, positive.
        momentum: float32.

    Raises:
        ValueError: the correction does not fit, as for subnormal momenta at densities above some hundred.
    """
    velocity = (momentum.astype(np.float64) / density).astype(np.float32)
    ulps = _ordinal(momentum) - _ordinal(density * velocity)
    if ulps.size and np.abs(ulps).max() > 127:
        raise ValueError("momentum cannot be stored as velocity: density or velocity is near the limits of float32")
    return velocity, ulps.astype(np.int8)


def decode_momentum(product: np.ndarray, ulps: np.ndarray) -> None:
    """Turn ``float32(ρ·v)`` into the momentum it was encoded from, in place."""
    ordinal = _ordinal(product) + ulps
    product[...] = np.where(ordinal < 0, (-(ordinal + 1)) | -0x80000000, ordinal).astype(np.int32).view(np.float32)
