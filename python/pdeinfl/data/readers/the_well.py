"""The Well: Euler files with scalar fields ``density``, ``energy`` and a vector field ``momentum``."""

from __future__ import annotations

from typing import Any

import numpy as np

from pdeinfl.data.hdf5_file import HDF5File, check_extent, find_dataset
from pdeinfl.data.mini_batch import CE_CHANNELS
from pdeinfl.data.sources import check_states, mean_spacing

_FIELDS = (("t0_fields/density", 0), ("t1_fields/momentum", 1), ("t0_fields/energy", 3))


def recognises(handle: Any) -> bool:
    """Whether an open file has The Well's groups and root attributes."""
    return "t0_fields" in handle and "n_spatial_dims" in handle.attrs


class WellSource:
    """One file. An axis that a field does not vary along is absent there, and is broadcast."""

    in_memory = False
    equation = "CE"
    channel_names = CE_CHANNELS

    def __init__(self, file: HDF5File) -> None:
        self.file = file
        with file.opened() as handle:
            if int(handle.attrs["n_spatial_dims"]) != 2:
                raise ValueError(f"{file.path}: must have 2 space axes; it has {handle.attrs['n_spatial_dims']}")
            n, times = int(handle.attrs.get("n_trajectories", 0)), _axis(file, handle, "time")
            x, y = _axis(file, handle, "x"), _axis(file, handle, "y")
            self.shape = (n, len(times), 4, len(x), len(y))
            if 0 in self.shape:
                raise ValueError(f"{file.path}: holds no trajectories: shape {self.shape}")
            steps = [
                mean_spacing(values, f"{file.path}: dataset 'dimensions/{name}'")
                for name, values in (("time", times), ("x", x), ("y", y))
            ]
            self.time_step, self.domain = steps[0], (steps[1] * len(x), steps[2] * len(y))
            self.varying = {name: self._layout(handle, name) for name, _ in _FIELDS}
            self.gamma = _gamma(handle)

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[2:]), np.float32)
        for name, channel in _FIELDS:
            wanted = (row, slice(start, stop), slice(None), slice(None))
            varying = self.varying[name]
            piece = self.file.read(name, tuple(s for s, v in zip(wanted, varying, strict=True) if v))
            for axis in range(3):
                if not varying[axis + 1]:
                    piece = np.expand_dims(piece, axis)
            if channel == 1:
                out[:, 1:3] = np.moveaxis(piece, -1, 1)
            else:
                out[:, channel] = piece
        check_states(out, self.channel_names, f"{self.file.path}: trajectory {row}", start)
        return out

    def _layout(self, handle: Any, name: str) -> tuple[bool, ...]:
        """Which of trajectory, time, x, y the field has, checked against its shape."""
        path = self.file.path
        field = find_dataset(self.file, handle, name)
        if field.dtype.kind != "f" or field.dtype.itemsize != 4:
            raise ValueError(f"{path}: dataset {name!r} must be float32; got {field.dtype}")
        attributes = field.attrs
        dims = [bool(v) for v in np.atleast_1d(attributes.get("dim_varying", (True, True)))]
        varying = (bool(attributes.get("sample_varying", True)), bool(attributes.get("time_varying", True)), *dims)
        sizes = (self.shape[0], self.shape[1], self.shape[3], self.shape[4])
        if len(varying) != 4:
            raise ValueError(f"{path}: dataset {name!r}: `dim_varying` must have 2 entries; got {len(dims)}")
        expected = tuple(size for size, v in zip(sizes, varying, strict=True) if v)
        expected += (2,) if name.startswith("t1") else ()
        if field.shape != expected:
            raise ValueError(f"{path}: dataset {name!r} must have shape {expected}; got {field.shape}")
        check_extent(self.file, field)
        return varying


def _axis(file: HDF5File, handle: Any, name: str) -> np.ndarray:
    values = find_dataset(file, handle, f"dimensions/{name}")
    if values.ndim not in (1, 2):
        raise ValueError(f"{file.path}: dataset 'dimensions/{name}' must have 1 axis; got shape {values.shape}")
    return np.asarray(values[0] if values.ndim == 2 else values[...], np.float64)


def _gamma(handle: Any) -> float | None:
    for place in (handle.get("scalars/gamma"), handle.attrs.get("gamma")):
        if place is not None:
            return float(np.ravel(place[()])[0])
    return None
