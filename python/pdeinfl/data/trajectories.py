"""`Trajectories`: labelled trajectories, in memory or on disk, read when they are asked for."""

from __future__ import annotations

import copy
import hashlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pdeinfl.arguments import check_count
from pdeinfl.data.channels import GAMMA, channel_kind, equation_of
from pdeinfl.data.labelled_arrays import trajectories_to_xarray
from pdeinfl.data.mini_batch import MiniBatch, assumed_channel_names
from pdeinfl.data.sources import ArraySource, CachedSource, Source, TransposedSource, check_states
from pdeinfl.data.splitting import stratified_split
from pdeinfl.data.transitions import Transitions


class Trajectories:
    """Trajectories of a PDE with the labels that influence is grouped by.

    ``len(traj)`` counts trajectories and ``traj[i]`` is one of them, float32 ``(time, channel, x, y)``, read from disk
    only then; a slice, an integer array or a boolean mask gives `Trajectories` again, without reading. Instances
    pickle and may be used in worker processes: files are opened anew in each.

    Args:
        sources: where the numbers are.
        source_ids, rows: source of each trajectory and its row there, ``(n,)`` integers.
        class_ids: initial-condition class of each trajectory, ``(n,)`` integers indexing ``class_names``.
        class_names, channel_names: names.
        time_step: time between snapshots.
        domain: extent along x and y.
        axis_order: ``"xy"``: axis −2 is x (paired with the x-component of vectors); ``"yx"``: axis −1 is.
        gamma: ratio of specific heats, for compressible flow.
        provenance: where this came from; plain values only.
        trajectory_ids: label of each trajectory, kept by slices and splits; default 0, 1, ….
        n_times: snapshots to use, from the first.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        source_ids: Any,
        rows: Any,
        class_ids: Any,
        class_names: Sequence[str],
        channel_names: Sequence[str],
        time_step: float = 0.05,
        domain: Sequence[float] = (1.0, 1.0),
        axis_order: str = "xy",
        gamma: float | None = None,
        provenance: Mapping[str, Any] | None = None,
        trajectory_ids: Any = None,
        n_times: int | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._source_ids, self._rows = np.asarray(source_ids, np.int64), np.asarray(rows, np.int64)
        self.class_names, self.channel_names = tuple(class_names), tuple(channel_names)
        self.class_ids = _class_ids(class_ids, len(self._rows), self.class_names)
        if axis_order not in ("xy", "yx"):
            raise ValueError(f"`axis_order` must be 'xy' or 'yx'; got {axis_order!r}")
        if not time_step > 0:
            raise ValueError(f"`time_step` must be positive; got {time_step}")
        self.time_step, self.domain, self.axis_order = float(time_step), tuple(map(float, domain)), axis_order
        self.gamma = GAMMA if gamma is None and self.equation == "CE" else gamma
        self.provenance: dict[str, Any] = copy.deepcopy(dict(provenance or {}))
        ids = np.arange(len(self._rows)) if trajectory_ids is None else trajectory_ids
        self.trajectory_ids = np.asarray(ids, np.int64)
        shapes = {source.shape[1:] for source in self._sources}
        if len(shapes) != 1:
            raise ValueError(f"all trajectories must have one shape (time, channel, x, y); got {sorted(shapes)}")
        (shape,) = shapes
        if len(self.channel_names) != shape[1]:
            raise ValueError(f"`channel_names` must name the {shape[1]} channels; got {len(self.channel_names)} names")
        self.n_times = shape[0] if n_times is None else operator.index(n_times)
        if not 1 <= self.n_times <= shape[0]:
            raise ValueError(f"`n_times` must be between 1 and the {shape[0]} snapshots there are; got {self.n_times}")
        self.resolution: tuple[int, int] = shape[2:]
        self._caches: dict[str, Trajectories] = {}

    @classmethod
    def from_arrays(
        cls,
        states: Any,
        class_ids: Any = None,
        class_names: Sequence[str] | None = None,
        channel_names: Sequence[str] | None = None,
        time_step: float = 0.05,
        provenance: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Trajectories:
        """Trajectories of an array ``(trajectory, time, channel, x, y)``, kept without a copy if float32.

        Args:
            states: finite floating-point numbers; density, where there is one, positive.
            class_ids: ``(trajectory,)`` integers; default one class.
            class_names: default ``class 0``, ….
            channel_names: default those of compressible Euler for four channels, of Navier–Stokes for two.
            time_step, provenance, settings: as in the class.

        Raises:
            ValueError: a wrong shape, dtype or label, or states that are not physical.
        """
        array = np.asarray(states.detach().cpu() if isinstance(states, torch.Tensor) else states)
        if array.ndim != 5 or 0 in array.shape:
            raise ValueError(
                f"`states` must have shape (trajectory, time, channel, x, y), none empty; got {array.shape}"
            )
        if array.dtype.kind != "f":
            raise ValueError(f"`states` must be floating point; got {array.dtype}")
        with np.errstate(over="ignore"):  # what overflows becomes infinity, named below
            array = array.astype(np.float32, copy=False)
        ids = np.zeros(len(array), np.int64) if class_ids is None else class_ids
        if class_names is None:
            class_names = tuple(f"class {k}" for k in range(int(np.max(ids)) + 1))
        if channel_names is None:
            channel_names = assumed_channel_names(array.shape[2])
        rows = np.arange(len(array))
        new = cls([ArraySource(array)], np.zeros_like(rows), rows, ids, class_names, channel_names, time_step,
                  provenance=provenance, **settings)  # fmt: skip
        for row, trajectory in enumerate(array):
            check_states(trajectory, new.channel_names, f"`states`, trajectory {row}")
        return new

    @classmethod
    def concatenate(cls, parts: Sequence[Trajectories]) -> Trajectories:
        """Several sets in one; classes of the same name become one class, and trajectories are numbered anew.

        Where the parts differ in gamma, as The Well's files do, that of the whole is NaN.

        Raises:
            ValueError: they differ in channels, shape, time step, domain or axis order.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("`parts` is empty: give at least one set of trajectories")
        first = parts[0]
        for what in ("channel_names", "n_times", "resolution", "time_step", "domain", "axis_order"):
            for k, part in enumerate(parts):
                ours, theirs = getattr(first, what), getattr(part, what)
                if ours != theirs:
                    raise ValueError(
                        f"all trajectories must have the same {what}; part 0 ({', '.join(first.class_names)}) has "
                        f"{ours}, part {k} ({', '.join(part.class_names)}) has {theirs}"
                    )
        names = tuple(dict.fromkeys(name for part in parts for name in part.class_names))
        offsets = np.cumsum([0, *(len(part._sources) for part in parts[:-1])])
        return cls(
            [source for part in parts for source in part._sources],
            np.concatenate([part._source_ids + offset for part, offset in zip(parts, offsets, strict=True)]),
            np.concatenate([part._rows for part in parts]),
            np.concatenate([[names.index(part.class_names[k]) for k in part.class_ids] for part in parts]),
            names, first.channel_names, first.time_step, first.domain, first.axis_order,
            first.gamma if all(part.gamma == first.gamma for part in parts) else float("nan"),
            {"concatenated": [part.provenance for part in parts]} if len(parts) > 1 else first.provenance,
            n_times=first.n_times,
        )  # fmt: skip

    @property
    def equation(self) -> str | None:
        """``"CE"``, ``"NS"`` or None, from the channel names."""
        return equation_of(self.channel_names)

    @property
    def channel_kinds(self) -> tuple[str, ...]:
        """Kind of each channel: ``"scalar"``, ``"x_component"``, ``"y_component"`` or ``"energy"``."""
        return tuple(channel_kind(name) for name in self.channel_names)

    @property
    def in_memory(self) -> bool:
        """Whether nothing has to be read from disk."""
        return all(source.in_memory for source in self._sources)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """``(trajectory, time, channel, x, y)``."""
        return (len(self), self.n_times, len(self.channel_names), *self.resolution)

    @property
    def n_mini_batches(self) -> int:
        """Balanced mini-batches with one trajectory per class: the size of the smallest class."""
        return min(len(members) for members in self._members()) if len(self) else 0

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        counts = np.bincount(self.class_ids, minlength=len(self.class_names))
        classes = ", ".join(f"{name}: {count}" for name, count in zip(self.class_names, counts, strict=True))
        x, y = self.resolution
        return (f"Trajectories({len(self)} ({classes}), {self.n_times} snapshots {self.time_step:g} apart, "
                f"{'/'.join(self.channel_names)}, {x}x{y})")  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_caches": {}}

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice | list | tuple) or (isinstance(index, np.ndarray) and index.ndim == 1):
            return self.select(index)
        return self.read(index, 0, self.n_times)

    def read(self, index: Any, start: int, stop: int) -> np.ndarray:
        """Snapshots ``start … stop − 1`` of one trajectory, float32 ``(time, channel, x, y)``; of an array a view.

        Raises:
            IndexError: no such trajectory or snapshot.
            ValueError, OSError: the file is damaged, or holds what it must not.
        """
        try:
            i = operator.index(index)
        except TypeError:
            raise TypeError(f"trajectories are indexed by integers, slices or index arrays; got {index!r}") from None
        if not -len(self) <= i < len(self):
            raise IndexError(f"trajectory {i} is out of range: there are {len(self)}")
        if not 0 <= start < stop <= self.n_times:
            raise IndexError(f"snapshots {start}…{stop - 1} are out of range: there are {self.n_times}")
        return self._sources[self._source_ids[i]].read(int(self._rows[i]), start, stop)

    def select(self, indices: Any) -> Trajectories:
        """The trajectories at ``indices`` (a slice, integers or a boolean mask), in that order, nothing read."""
        if isinstance(indices, tuple | list):
            indices = np.asarray(indices, dtype=None if len(indices) else np.int64)
        order = np.arange(len(self))[indices]
        new = copy.copy(self)
        new._caches = {}
        new.provenance = copy.deepcopy(self.provenance)
        for name in ("_source_ids", "_rows", "class_ids", "trajectory_ids"):
            setattr(new, name, getattr(self, name)[order])
        return new

    def first_snapshots(self, n_times: int) -> Trajectories:
        """The same trajectories cut to their first ``n_times`` snapshots (the paper uses 17 of 21)."""
        new = self.select(slice(None))
        if not 1 <= operator.index(n_times) <= self.n_times:
            raise ValueError(f"`n_times` must be between 1 and {self.n_times}; got {n_times}")
        new.n_times = operator.index(n_times)
        return new

    def transposed(self) -> Trajectories:
        """The same numbers with the space axes exchanged: ``axis_order`` ``"yx"`` becomes ``"xy"`` and back."""
        new = self.select(slice(None))
        new._sources = tuple(TransposedSource(source) for source in self._sources)
        new.axis_order = self.axis_order[::-1]
        new.resolution, new.domain = self.resolution[::-1], self.domain[::-1]
        return new

    def cached(self, dtype: str = "bfloat16") -> Trajectories:
        """The same trajectories, each kept in memory as ``dtype`` once read (``"bfloat16"`` or ``"float32"``).

        Called again, the same cache. The kept values are rounded, so that first and later readings agree.
        """
        if dtype not in self._caches:
            new = self.select(slice(None))
            new._sources = tuple(CachedSource(source, dtype) for source in self._sources)
            self._caches[dtype] = new
        return self._caches[dtype]

    def split(self, fractions: Sequence[float] = (0.65, 0.05, 0.30), seed: int = 10) -> tuple[Trajectories, ...]:
        """Random parts by trajectory, stratified: every class is divided by the same fractions.

        Sizes are rounded by largest remainder so that they add up, and every part has at least one trajectory of
        every class, which balanced mini-batches need. The split is recorded in each part's provenance.

        Raises:
            ValueError: fractions that are not positive or do not sum to 1; a class with fewer trajectories than parts.
        """
        seed = check_count("seed", seed, 0)
        positions = stratified_split(self.class_ids, self.class_names, fractions, seed)
        parts = []
        for k, chosen in enumerate(positions):
            part = self.select(chosen)
            part.provenance["split"] = {
                "fractions": [float(f) for f in fractions], "seed": seed, "part": k, "stratified": True,
                "sizes": [len(p) for p in positions],
                "trajectories_sha256": hashlib.sha256(part.trajectory_ids.astype("<i8").tobytes()).hexdigest(),
            }  # fmt: skip
            parts.append(part)
        return tuple(parts)

    def to_xarray(self) -> Any:
        """All states as an ``xarray.DataArray`` ``(trajectory, time, channel, x, y)``, float32, in memory; with the
        class of each trajectory, times, channel names and cell centres as coordinates.

        Raises:
            ImportError: xarray is not installed (extra ``xarray``).
        """
        return trajectories_to_xarray(self)

    def transitions(self, n_transitions: int | None = None) -> Transitions:
        """All transitions ``(input, target)`` as a dataset; of each trajectory the first ``n_transitions``."""
        return Transitions(self, n_transitions)

    def mini_batch(
        self,
        index: int = 0,
        per_class: int = 1,
        n_transitions: int | None = None,
        trajectories: Sequence[int] | None = None,
    ) -> MiniBatch:
        """The examples of one influence computation: the ``index``-th trajectories of every class, all transitions.

        Args:
            index: which mini-batch, from 0; mini-batches do not overlap. The classes are those present here.
            per_class: trajectories of each class.
            n_transitions: of each trajectory the first so many; default all.
            trajectories: positions to take instead of ``index`` and ``per_class``.

        Returns:
            float32 on the CPU, trajectory by trajectory, ``times`` 1 … T.

        Raises:
            ValueError: a class has too few trajectories, or a snapshot is missing.
        """
        steps = Transitions(self, n_transitions).per_trajectory
        chosen = self._balanced(index, per_class) if trajectories is None else self._positions(trajectories)
        states = torch.from_numpy(np.stack([self.read(i, 0, steps + 1) for i in chosen]))
        return MiniBatch(
            states[:, :-1].flatten(0, 1),
            states[:, 1:].flatten(0, 1),
            np.repeat(self.class_ids[chosen], steps),
            np.repeat(self.trajectory_ids[chosen], steps),
            np.tile(np.arange(1, steps + 1), len(chosen)),
            self.class_names,
            self.channel_names,
        )

    def _members(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.class_ids == k) for k in np.unique(self.class_ids)]

    def _balanced(self, index: int, per_class: int) -> np.ndarray:
        index, per_class = operator.index(index), check_count("per_class", per_class)
        smallest = self.n_mini_batches
        n = smallest // per_class
        if n == 0:
            raise ValueError(f"no mini-batch of {per_class} per class: the smallest class has {smallest} trajectories")
        if not 0 <= index < n:
            raise ValueError(
                f"`index` must be between 0 and {n - 1}: the smallest class has {smallest} trajectories, "
                f"{n} mini-batches of {per_class} per class; got {index}"
            )
        return np.concatenate([members[index * per_class : (index + 1) * per_class] for members in self._members()])

    def _positions(self, trajectories: Sequence[int]) -> np.ndarray:
        positions = [operator.index(i) for i in trajectories]
        for i in positions:
            if not -len(self) <= i < len(self):
                raise ValueError(f"`trajectories` must be positions below {len(self)}; got {i}")
        if not positions:
            raise ValueError("`trajectories` is empty: a mini-batch needs at least one")
        return np.asarray(positions) % len(self)


def _class_ids(values: Any, n: int, class_names: Sequence[str]) -> np.ndarray:
    ids = np.asarray(values)
    if ids.shape != (n,) or (n and ids.dtype.kind not in "iu"):
        raise ValueError(f"`class_ids` must be {n} integers, one per trajectory; got {ids.dtype} {ids.shape}")
    if n and not 0 <= ids.min() <= ids.max() < len(class_names):
        raise ValueError(
            f"`class_ids` must index the {len(class_names)} class names; they run from {ids.min()} to {ids.max()}"
        )
    return ids.astype(np.int64)
