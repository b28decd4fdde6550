"""Write trajectories in PDEgym's layout: whole or not at all, or a piece at a time and resumable."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from pdeinfl.atomic import sync
from pdeinfl.data.channels import GAMMA
from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS
from pdeinfl.data.momentum import encode_momentum
from pdeinfl.data.readers.pdegym import (
    CE_VARIABLE,
    COMPLETE,
    NS_VARIABLE,
    PROVENANCE,
    TIME_STEP,
    TOTAL,
    ULPS_VARIABLE,
)
from pdeinfl.data.sources import check_states
from pdeinfl.data.trajectories import Trajectories

_MAX_ATTRIBUTE = 60_000


class TrajectoryWriter:
    """A PDEgym file of one class, written in order, some trajectories at a time.

    Until the last trajectory is there the file is called ``<path>.part`` and says how many are complete; readers
    refuse it. A process killed at any moment leaves a part file that a writer with the same arguments continues.
    All of the file's structure is made and flushed at the start, so that later writes touch numbers only.

    Compressible files hold ρ, vx, vy, p, E like the release and, beside it, ``momentum_ulps``: one byte per momentum
    value that makes the round trip through velocity bit-exact (see ``momentum``). Other readers need not know of it.
    Incompressible files hold u, v and a tracer of zeros, in the release's place.

    Args:
        path: the finished file, such as ``CE-RP.nc``; replaced if it exists.
        n_trajectories, n_times, resolution: what it will hold.
        channel_names: conserved compressible Euler, or the two velocities.
        time_step: between snapshots.
        provenance: plain values, kept in the file; a part file with another provenance is not continued.
        gamma: for the pressure, ``p = (γ−1)(E − ½|m|²/ρ)``.

    Raises:
        ValueError: channels that the layout has no place for, or a part file of something else.
        OSError: the disk is full or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_trajectories: int,
        n_times: int,
        resolution: Sequence[int],
        channel_names: Sequence[str] = CE_CHANNELS,
        time_step: float = 0.05,
        provenance: Mapping[str, Any] | None = None,
        gamma: float = GAMMA,
    ) -> None:
        if tuple(channel_names) not in (CE_CHANNELS, NS_CHANNELS):
            raise ValueError(
                f"`channel_names` must be {CE_CHANNELS} or {NS_CHANNELS} for a PDEgym file; got {tuple(channel_names)}"
            )
        self.path = Path(path)
        self.part_path = self.path.with_name(self.path.name + ".part")
        self.channel_names, self.gamma = tuple(channel_names), gamma
        self.is_ce = self.channel_names == CE_CHANNELS
        self.shape = (int(n_trajectories), int(n_times), 5 if self.is_ce else 3, *(int(r) for r in resolution))
        if min(self.shape) < 1:
            raise ValueError(f"a file needs trajectories, snapshots and cells; got shape {self.shape}")
        text = json.dumps(dict(provenance or {}), sort_keys=True)
        self._attributes = {PROVENANCE: text[:0] if len(text) > _MAX_ATTRIBUTE else text, TIME_STEP: float(time_step)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: Any = None
        self.n_complete = 0
        with self._one_line():
            if self.part_path.exists():
                self._resume()
            else:
                self._create()

    def append(self, states: np.ndarray) -> None:
        """Write the next trajectories, float32 ``(k, time, channel, x, y)``; on return they are on the disk.

        Raises:
            ValueError: a wrong shape or dtype, too many, or values that no reader would accept.
            OSError: the disk is full; what was complete stays so.
        """
        states = np.asarray(states)
        expected = (self.shape[1], len(self.channel_names), *self.shape[3:])
        if states.dtype != np.float32 or states.shape[1:] != expected:
            raise ValueError(f"`states` must be float32 (k, {', '.join(map(str, expected))}); got {states.dtype} "
                             f"{states.shape}")  # fmt: skip
        if self.n_complete + len(states) > self.shape[0]:
            raise ValueError(
                f"`states` holds {len(states)} trajectories; the file lacks only {self.shape[0] - self.n_complete}"
            )
        for k, trajectory in enumerate(states):
            row = self.n_complete + k
            check_states(trajectory, self.channel_names, f"{self.path}: trajectory {row}")
            with self._one_line():
                for time, state in enumerate(trajectory):
                    self._write_frame(row, time, state)
        with self._one_line():
            self._file.flush()
            sync(self.part_path)
            self._file.attrs.modify(COMPLETE, np.int64(self.n_complete + len(states)))
            self._file.flush()
            sync(self.part_path)
        self.n_complete += len(states)

    def close(self) -> None:
        """Close the file and, if every trajectory is there, give it its name."""
        if self._file is None:
            return
        try:
            with self._one_line():
                self._file.close()
                if self.n_complete == self.shape[0]:
                    sync(self.part_path)
                    os.replace(self.part_path, self.path)
                    sync(self.path.parent)
        finally:
            self._file = None

    def discard(self) -> None:
        """Close and remove what has been written."""
        if self._file is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            self._file = None
        self.part_path.unlink(missing_ok=True)

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_frame(self, row: int, time: int, state: np.ndarray) -> None:
        if not self.is_ce:
            self._file[NS_VARIABLE][row, time] = np.concatenate([state, np.zeros_like(state[:1])])
            return
        rho, momentum, energy = state[0], np.ascontiguousarray(state[1:3]), state[3]
        try:
            velocity, ulps = encode_momentum(rho, momentum)
        except ValueError as error:
            raise ValueError(f"{self.path}: trajectory {row}, snapshot {time}: {error}") from None
        kinetic = 0.5 * (momentum.astype(np.float64) ** 2).sum(0) / rho
        pressure = ((self.gamma - 1) * (energy - kinetic)).astype(np.float32)
        self._file[CE_VARIABLE][row, time] = np.stack([rho, *velocity, pressure, energy])
        self._file[ULPS_VARIABLE][row, time] = ulps

    def _create(self) -> None:
        needed = 4 * int(np.prod(self.shape)) + (int(np.prod(self.shape)) * 2 // 5 if self.is_ce else 0)
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise OSError(
                errno.ENOSPC, f"no space for {needed / 1e9:.3g} GB ({free / 1e9:.3g} GB free)", str(self.path)
            )
        # No chunk cache: what is written goes to the file at once, and nothing is left to fail when it is closed.
        self._file = h5py.File(self.part_path, "w", rdcc_nbytes=0)
        try:
            self._lay_out()
        except BaseException:
            self.discard()
            raise

    def _lay_out(self) -> None:
        file = self._file
        scales = {}
        for name, size in zip(("sample", "time", "channel", "x", "y"), self.shape, strict=True):
            scales[name] = _dimension(file, name, size)
        self._variable(CE_VARIABLE if self.is_ce else NS_VARIABLE, self.shape, np.float32, list(scales.values()))
        if self.is_ce:
            shape = (*self.shape[:2], 2, *self.shape[3:])
            scales["channel"] = _dimension(file, "component", 2)
            self._variable(ULPS_VARIABLE, shape, np.int8, list(scales.values()))
        for name, value in {**self._attributes, TOTAL: np.int64(self.shape[0]), COMPLETE: np.int64(0)}.items():
            file.attrs[name] = value
        file.flush()
        sync(self.part_path)

    def _variable(self, name: str, shape: tuple[int, ...], dtype: Any, scales: list[Any]) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 1, *shape[2:]))
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple(shape)
        kind = h5py.h5t.py_create(np.dtype(dtype))
        h5py.h5d.create(self._file.id, name.encode(), kind, space, properties)
        for axis, scale in zip(self._file[name].dims, scales, strict=True):
            axis.attach_scale(scale)

    def _resume(self) -> None:
        variable = CE_VARIABLE if self.is_ce else NS_VARIABLE
        try:
            self._file = h5py.File(self.part_path, "r+", rdcc_nbytes=0)
            attributes = self._file.attrs
            same = self._file[variable].shape == self.shape and COMPLETE in attributes
            same = same and all(attributes.get(name) == value for name, value in self._attributes.items())
        except (OSError, KeyError, RuntimeError):
            # Killed while the structure was being made: there is nothing in it yet.
            self.discard()
            self._create()
            return
        if not same:
            self._file.close()
            raise ValueError(f"{self.part_path} was begun with other settings: delete it, or write somewhere else")
        self.n_complete = int(attributes[COMPLETE])

    @contextlib.contextmanager
    def _one_line(self) -> Any:
        try:
            yield
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.filename:
                raise
            text = " ".join(str(error).split())
            number = getattr(error, "errno", None) or (errno.ENOSPC if "No space left" in text else errno.EIO)
            reason = os.strerror(number) if number != errno.EIO else text
            raise OSError(number, f"cannot write trajectories: {reason}", str(self.path)) from None


def write_trajectories(path: str | os.PathLike[str], traj: Trajectories) -> list[Path]:
    """Write trajectories, one PDEgym file per class, each appearing whole or not at all.

    Args:
        path: a folder, for ``CE-<class>.nc`` or ``NS-<class>.nc`` of every class, made if need be; or, for a single
            class, a file that ends in ``.nc``.
        traj: conserved compressible Euler or incompressible velocities.

    Returns:
        The files. Reading them back gives the same float32 numbers, bit for bit.

    Raises:
        ValueError: several classes for one file, or channels that the layout has no place for.
        OSError: the disk is full or cannot be written; no half-written file is left.
    """
    path = Path(path)
    if traj.axis_order == "yx":
        traj = traj.transposed()
    gamma = GAMMA if traj.gamma is None else traj.gamma
    if not np.isfinite(gamma):
        raise ValueError("`traj` mixes gases of different gamma: select the classes of one and write them apart")
    present = [int(k) for k in np.unique(traj.class_ids)]
    if path.suffix == ".nc" and len(present) > 1:
        raise ValueError(f"`path` {path} is one file for {len(present)} classes: give a folder")
    written = []
    for class_id in present:
        members = traj.select(np.flatnonzero(traj.class_ids == class_id))
        target = path if path.suffix == ".nc" else path / f"{traj.equation}-{traj.class_names[class_id]}.nc"
        target.with_name(target.name + ".part").unlink(missing_ok=True)
        writer = TrajectoryWriter(target, len(members), traj.n_times, traj.resolution, traj.channel_names,
                                  traj.time_step, traj.provenance, gamma)  # fmt: skip
        try:
            for trajectory in members:
                writer.append(trajectory[None])
            writer.close()
        except BaseException:
            writer.discard()
            raise
        written.append(target)
    return written


def _dimension(file: Any, name: str, size: int) -> Any:
    scale = file.create_dataset(name, data=np.zeros(size, np.float32))
    # The netCDF-4 convention for a dimension without coordinates.
    scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{size:10d}")
    return scale
