"""PDEBench 2D_CFD: density, pressure and velocities as separate root datasets."""

from __future__ import annotations

from typing import Any

import numpy as np

from pdeinfl.data.hdf5_file import HDF5File, describe_dataset, find_dataset
from pdeinfl.data.mini_batch import CE_CHANNELS
from pdeinfl.data.sources import check_states, mean_spacing

GAMMA = 5 / 3
"""Ratio of specific heats of PDEBench's gas, which the files do not store."""
_FIELDS = ("density", "Vx", "Vy", "pressure")


def recognises(handle: Any) -> bool:
    """Whether an open file has PDEBench's root datasets."""
    return "density" in handle and any(name in handle for name in ("Vx", "Vy", "pressure", "x-coordinate"))


class PDEBenchSource:
    """One file; momentum and energy ``E = p/(γ−1) + ½ρ|v|²`` are computed in float64 and rounded."""

    in_memory = False
    equation = "CE"
    channel_names = CE_CHANNELS
    gamma = GAMMA

    def __init__(self, file: HDF5File) -> None:
        self.file = file
        with file.opened() as handle:
            shapes = {name: describe_dataset(file, handle, name, 4) for name in _FIELDS}
            n, t, x, y = shapes["density"]
            for name, shape in shapes.items():
                if shape != (n, t, x, y):
                    raise ValueError(
                        f"{file.path}: dataset {name!r} must have the shape of 'density', {(n, t, x, y)}; got {shape}"
                    )
            # `t-coordinate` has an entry too many.
            steps = [self._spacing(handle, f"{axis}-coordinate", size) for axis, size in (("t", t), ("x", x), ("y", y))]
        self.shape = (n, t, 4, x, y)
        self.time_step, self.domain = steps[0], (steps[1] * x, steps[2] * y)

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[2:]), np.float32)
        where = f"{self.file.path}: trajectory {row}"
        for state, time in zip(out, range(start, stop), strict=True):
            primitive = np.stack([self.file.read(name, (row, time)) for name in _FIELDS])
            check_states(primitive[None], ("density", "velocity_x", "velocity_y", "pressure"), where, time)
            rho, vx, vy, p = primitive.astype(np.float64)
            with np.errstate(over="ignore"):  # what overflows float32 becomes infinity, named below
                state[:] = rho, rho * vx, rho * vy, p / (GAMMA - 1) + 0.5 * rho * (vx**2 + vy**2)
        check_states(out, self.channel_names, where, start)
        return out

    def _spacing(self, handle: Any, name: str, size: int) -> float:
        values = find_dataset(self.file, handle, name)
        if values.ndim != 1 or len(values) not in (size, size + 1):
            raise ValueError(f"{self.file.path}: dataset {name!r} must have shape ({size},); got {values.shape}")
        return mean_spacing(values[:size].astype(np.float64), f"{self.file.path}: dataset {name!r}")
