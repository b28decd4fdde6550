"""PDEgym files (Poseidon, arXiv 2405.19101): assembled, or in parts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pdeinfl.data.hdf5_file import HDF5File, describe_dataset
from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS
from pdeinfl.data.momentum import decode_momentum
from pdeinfl.data.sources import check_states

CE_VARIABLE, NS_VARIABLE, ULPS_VARIABLE = "data", "velocity", "momentum_ulps"
TOTAL, COMPLETE = "pdeinfl_trajectories", "pdeinfl_complete"
PROVENANCE, TIME_STEP = "pdeinfl_provenance", "pdeinfl_time_step"


def recognises(handle: Any) -> bool:
    """Whether an open file has a root variable of PDEgym's name with five axes."""
    return any(getattr(handle.get(name), "ndim", None) == 5 for name in (CE_VARIABLE, NS_VARIABLE))


class PDEgymSource:
    """One PDEgym file; compressible flow comes out conserved, without the pressure.

    Compressible files hold ρ, vx, vy, p, E: momentum is ``ρ·v`` rounded to float32, corrected by the file's
    ``momentum_ulps`` where it was written by this package. Incompressible files hold u, v and a tracer, left out.
    """

    in_memory = False

    def __init__(self, file: HDF5File) -> None:
        self.file = file
        with file.opened() as handle:
            self.variable = CE_VARIABLE if getattr(handle.get(CE_VARIABLE), "ndim", None) == 5 else NS_VARIABLE
            self.equation = "CE" if self.variable == CE_VARIABLE else "NS"
            stored = describe_dataset(file, handle, self.variable, 5)
            _check_finished(file, handle, stored[0])
            expected = (5,) if self.equation == "CE" else (2, 3)
            if stored[2] not in expected:
                raise ValueError(
                    f"{file.path}: dataset {self.variable!r} must have {' or '.join(map(str, expected))} channels on "
                    f"axis 2; got shape {stored}"
                )
            self.exact = self.equation == "CE" and ULPS_VARIABLE in handle
            if self.exact:
                found = handle[ULPS_VARIABLE]
                if found.shape != (*stored[:2], 2, *stored[3:]) or found.dtype != np.int8:
                    raise ValueError(
                        f"{file.path}: dataset {ULPS_VARIABLE!r} must be int8 {(*stored[:2], 2, *stored[3:])}; got "
                        f"{found.dtype} {found.shape}"
                    )
            self.time_step = float(handle.attrs.get(TIME_STEP, 0.05))
            written = handle.attrs.get(PROVENANCE)
            self.attributes = {"written_from": json.loads(written)} if written else {}
        self.channel_names = CE_CHANNELS if self.equation == "CE" else NS_CHANNELS
        self.shape = (*stored[:2], len(self.channel_names), *stored[3:])

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *self.shape[2:]), np.float32)
        if self.equation == "NS":
            self.file.read(self.variable, (row, slice(start, stop), slice(0, 2)), out)
        else:
            frame = np.empty((5, *self.shape[3:]), np.float32)
            for state, time in zip(out, range(start, stop), strict=True):
                self._read_frame(state, frame, row, time)
        where = f"{self.file.path}: dataset {self.variable!r}, trajectory {row}"
        check_states(out, self.channel_names, where, start)
        return out

    def _read_frame(self, state: np.ndarray, frame: np.ndarray, row: int, time: int) -> None:
        self.file.read(self.variable, (row, time), frame)
        state[0], state[3] = frame[0], frame[4]
        with np.errstate(over="ignore", invalid="ignore"):  # refused with its place by check_states
            np.multiply(frame[0], frame[1:3], out=state[1:3])
        if self.exact:
            decode_momentum(state[1:3], self.file.read(ULPS_VARIABLE, (row, time)))


def _check_finished(file: HDF5File, handle: Any, n: int) -> None:
    if COMPLETE not in handle.attrs:
        return
    complete = handle.attrs[COMPLETE]
    if complete != n:
        raise ValueError(
            f"{file.path}: unfinished: {complete} of {n} trajectories are written: resume the simulation that wrote it"
        )
