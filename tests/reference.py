"""Slow, obvious NumPy and PyTorch versions of what the package computes fast. Tests compare against these."""

from __future__ import annotations

import numpy as np

# --- contraction -----------------------------------------------------------------------------------------------------

# --- euler and initial conditions ------------------------------------------------------------------------------------

# --- surrogates and observables --------------------------------------------------------------------------------------


def smse(pred, target):
    """Eq. 8 for one example, ``(C, X, ...)``: a list of per-channel terms; the SMSE is their mean."""
    terms = []
    for p, t in zip(np.asarray(pred, float), np.asarray(target, float), strict=True):
        terms.append(np.mean((p - t) ** 2) / (np.sqrt(np.mean(t**2)) + 1e-6))
    return terms


def drift(pred, state, scale):
    """``(M[ŷ] − M[x])² / (scale + 1e-6)`` of one channel of one example."""
    return (np.mean(np.asarray(pred, float)) - np.mean(np.asarray(state, float))) ** 2 / (scale + 1e-6)


def band_smse(pred, target, low, high):
    """SMSE of one example, ``(C, X, Y)``, with the error projected on modes ``low <= |k| < high``."""
    pred, target = np.asarray(pred, float), np.asarray(target, float)
    nx, ny = pred.shape[1:]
    x, y = np.arange(nx) / nx, np.arange(ny) / ny
    total = 0.0
    for p, t in zip(pred, target, strict=True):
        error, kept = p - t, np.zeros((nx, ny), complex)
        for kx in range(-(nx // 2), nx - nx // 2):
            for ky in range(-(ny // 2), ny - ny // 2):
                if low**2 <= kx**2 + ky**2 < high**2:
                    wave = np.exp(2j * np.pi * (kx * x[:, None] + ky * y[None, :]))
                    kept += np.mean(error * wave.conj()) * wave
        total += np.mean(np.abs(kept) ** 2) / (np.sqrt(np.mean(t**2)) + 1e-6)
    return total / len(pred)


def enstrophy(velocity):
    """``½ mean ω²`` of ``(2, X, Y)`` velocities on the unit square, by differentiation matrices of odd-sized grids."""

    def derivative(n):
        i = np.arange(n)
        gap = i[:, None] - i[None, :]
        with np.errstate(divide="ignore"):
            matrix = np.pi * (-1.0) ** gap / np.sin(np.pi * gap / n)
        matrix[i, i] = 0
        return matrix

    u, v = np.asarray(velocity, float)
    assert u.shape[0] % 2 == 1
    assert u.shape[1] % 2 == 1
    vorticity = derivative(u.shape[0]) @ v - u @ derivative(u.shape[1]).T
    return 0.5 * np.mean(vorticity**2)


# --- engine ----------------------------------------------------------------------------------------------------------

# --- aggregations and summaries --------------------------------------------------------------------------------------

# --- finite differences ----------------------------------------------------------------------------------------------
