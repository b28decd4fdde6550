"""Which space axis of given data is x: the assignment under which the fields obey their equation."""

from __future__ import annotations

import numpy as np

from pdeinfl.data.mini_batch import CE_CHANNELS
from pdeinfl.data.trajectories import Trajectories

_LARGEST_MODE = 4


def axis_order_residuals(traj: Trajectories, n_trajectories: int = 3) -> dict[str, float]:
    """How badly each assignment of the space axes violates the equation, as a fraction of the terms' size.

    Incompressible flow: the spectral divergence against the velocity gradient. Compressible flow: the residual of
    ``∂tρ + ∇·(ρv)`` over one interval (trapezoidal rule), on the Fourier modes up to the fourth, which move slowly
    enough for the interval.

    Args:
        traj: conserved compressible Euler, or velocities.
        n_trajectories: how many to look at, spread evenly.

    Returns:
        ``{"xy": residual, "yx": residual}``: 0 fits; the names are those of ``Trajectories.axis_order``.

    Raises:
        ValueError: other channels, or fewer than two snapshots of compressible flow.
    """
    if traj.equation is None or (traj.equation == "CE" and traj.channel_names != CE_CHANNELS):
        raise ValueError(f"`traj` must hold {CE_CHANNELS} or two velocities; got {traj.channel_names}")
    if traj.equation == "CE" and traj.n_times < 2:
        raise ValueError("`traj` has one snapshot: the density equation needs two")
    if len(traj) == 0:
        raise ValueError("`traj` is empty")
    totals = np.zeros((2, 2))
    for i in np.unique(np.linspace(0, len(traj) - 1, n_trajectories).astype(int)):
        states = traj.read(i, 0, min(2, traj.n_times)).astype(np.float64)
        for k, fields in enumerate((states, states.swapaxes(-1, -2))):
            totals[k] += _divergence(fields, traj.domain) if traj.equation == "NS" else _mass(fields, traj)
    ratio = np.sqrt(totals[:, 0] / np.maximum(totals[:, 1], np.finfo(float).tiny))
    return {"xy": float(ratio[0]), "yx": float(ratio[1])}


def detect_axis_order(traj: Trajectories, n_trajectories: int = 3) -> str:
    """``"xy"`` or ``"yx"``, whichever violates the equation less; see `axis_order_residuals`."""
    residuals = axis_order_residuals(traj, n_trajectories)
    return min(residuals, key=lambda order: residuals[order])


def _wave_numbers(shape: tuple[int, ...], domain: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    modes_x, modes_y = np.fft.fftfreq(shape[-2], 1 / shape[-2]), np.fft.fftfreq(shape[-1], 1 / shape[-1])
    return 2 * np.pi * modes_x[:, None] / domain[0], 2 * np.pi * modes_y[None, :] / domain[-1]


def _divergence(velocity: np.ndarray, domain: tuple[float, ...]) -> tuple[float, float]:
    kx, ky = _wave_numbers(velocity.shape, domain)
    u, v = np.fft.fft2(velocity[0])
    return np.sum(np.abs(kx * u + ky * v) ** 2), np.sum((kx**2 + ky**2) * (np.abs(u) ** 2 + np.abs(v) ** 2))


def _mass(states: np.ndarray, traj: Trajectories) -> tuple[float, float]:
    kx, ky = _wave_numbers(states.shape, traj.domain)
    slow = (np.abs(kx) * traj.domain[0] < 2 * np.pi * (_LARGEST_MODE + 0.5)) & (
        np.abs(ky) * traj.domain[-1] < 2 * np.pi * (_LARGEST_MODE + 0.5)
    )
    before, after = np.fft.fft2(states[:, :3])
    change = (after[0] - before[0]) / traj.time_step * slow
    flux = 0.5j * (kx * (before[1] + after[1]) + ky * (before[2] + after[2])) * slow
    return np.sum(np.abs(change + flux) ** 2), np.sum(np.abs(change) ** 2 + np.abs(flux) ** 2)
