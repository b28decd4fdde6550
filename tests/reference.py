"""Slow, obvious NumPy and PyTorch versions of what the package computes fast. Tests compare against these."""

from __future__ import annotations

import math

import numpy as np

# --- contraction -----------------------------------------------------------------------------------------------------


def gram_reference(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """``a bᵀ`` with every product exact (for float32 and narrower) and every sum correctly rounded; slow."""
    left = a.astype(np.float64)
    right = left if b is None else b.astype(np.float64)
    return np.array([[math.fsum(x * y) for y in right] for x in left]).reshape(len(left), len(right))


def pairwise_distance_reference(states: np.ndarray) -> np.ndarray:
    """MATH 5: mean over channels of the mean squared difference over the mean RMS, from differences."""
    fields = states.astype(np.float64).reshape(*states.shape[:2], -1)
    rms = np.sqrt((fields**2).mean(-1))
    distances = np.zeros((len(fields), len(fields)))
    for i, x in enumerate(fields):
        for j, y in enumerate(fields):
            distances[i, j] = (((x - y) ** 2).mean(-1) / (0.5 * (rms[i] + rms[j]) + 1e-6)).mean()
    return distances


# --- euler and initial conditions ------------------------------------------------------------------------------------

# --- surrogates and observables --------------------------------------------------------------------------------------

# --- engine ----------------------------------------------------------------------------------------------------------

# --- aggregations and summaries --------------------------------------------------------------------------------------

# --- finite differences ----------------------------------------------------------------------------------------------
