"""Where the numbers of trajectories come from: arrays in memory, or anything with the same three members."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Source(Protocol):
    """Trajectories of one shape, read a piece at a time."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """``(trajectory, time, channel, x, y)``."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether reading costs no more than a copy."""
        ...

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        """Snapshots ``start … stop − 1`` of trajectory ``row``, float32 ``(time, channel, x, y)``."""
        ...


class ArraySource:
    """An array in memory. ``read`` returns views, which nothing here writes to."""

    in_memory = True

    def __init__(self, states: np.ndarray) -> None:
        self.states = states

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self.states.shape

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        return self.states[row, start:stop]


class TransposedSource:
    """Another source with its two space axes exchanged."""

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        n, t, c, x, y = self.source.shape
        return n, t, c, y, x

    @property
    def in_memory(self) -> bool:
        return self.source.in_memory

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        return self.source.read(row, start, stop).swapaxes(-1, -2)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest bfloat16, ties to even, as its bits: ``uint16`` of the same shape.

    By NumPy, as `from_bfloat16`: threads that load data are to keep away from OpenMP (`transitions.split_pairs`).
    """
    bits = values.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 of the bits of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class CachedSource:
    """Another source whose trajectories stay in memory once read, as float32 or rounded to bfloat16."""

    def __init__(self, source: Source, dtype: str) -> None:
        if dtype not in ("bfloat16", "float32"):
            raise ValueError(f"a cache's dtype must be 'bfloat16' or 'float32'; got {dtype!r}")
        self.source = source
        self._rounds = dtype == "bfloat16"
        self._kept: dict[int, np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self.source.shape

    @property
    def in_memory(self) -> bool:
        # Not even once everything is kept: the order of training must not depend on what was read before.
        return self.source.in_memory

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        if row not in self._kept:
            whole = np.array(self.source.read(row, 0, self.shape[1]), np.float32, order="C")
            self._kept[row] = to_bfloat16(whole) if self._rounds else whole
        kept = self._kept[row][start:stop]
        return from_bfloat16(kept) if self._rounds else kept

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}}


def mean_spacing(coordinates: np.ndarray, where: str) -> float:
    """The mean step of float64 ``coordinates`` ``(points,)``, 1.0 for one point.

    Raises:
        ValueError: one line with ``where``, if they do not increase or are not finite.
    """
    if len(coordinates) == 1:
        return 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        step = float((coordinates[-1] - coordinates[0]) / (len(coordinates) - 1))
    if not 0 < step < np.inf:
        raise ValueError(f"{where} must increase; its mean step is {step}")
    return step


def check_states(states: np.ndarray, channel_names: tuple[str, ...], where: str, first_snapshot: int = 0) -> None:
    """Refuse states ``(time, channel, x, y)`` that hold NaN, infinity or a density that is not positive.

    Raises:
        ValueError: one line with ``where``, the snapshot and the channel.
    """
    # Minima and maxima carry NaN and infinity, and need no boolean array of the whole piece.
    low, high = states.min((-1, -2)), states.max((-1, -2))
    positive = np.array([name in ("density", "pressure") for name in channel_names])
    finite = np.isfinite(low) & np.isfinite(high)
    bad = np.argwhere(~finite | (positive & (low <= 0)))
    if len(bad):
        t, c = bad[0]
        place = f"{where}, snapshot {first_snapshot + t}: {channel_names[c]}"
        if not finite[t, c]:
            raise ValueError(f"{place} holds NaN or infinity")
        raise ValueError(f"{place} must be positive everywhere; lowest is {low[t, c]:.3g}")
