"""Where the numbers of trajectories come from: arrays in memory, or anything with the same three members."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch


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


class CachedSource:
    """Another source whose trajectories stay in memory once read, as float32 or rounded to bfloat16."""

    def __init__(self, source: Source, dtype: str) -> None:
        if dtype not in ("bfloat16", "float32"):
            raise ValueError(f"a cache's dtype must be 'bfloat16' or 'float32'; got {dtype!r}")
        self.source = source
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self._kept: dict[int, torch.Tensor] = {}

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return self.source.shape

    @property
    def in_memory(self) -> bool:
        # Not even once everything is kept: the order of training must not depend on what was read before.
        return self.source.in_memory

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        if row not in self._kept:
            whole = np.ascontiguousarray(self.source.read(row, 0, self.shape[1]))
            self._kept[row] = torch.tensor(whole).to(self.dtype)
        return self._kept[row][start:stop].float().numpy()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}}


def check_states(states: np.ndarray, channel_names: tuple[str, ...], where: str, first_snapshot: int = 0) -> None:
    """Refuse states ``(time, channel, x, y)`` that hold NaN, infinity or a density that is not positive.

    Raises:
        ValueError: one line with ``where``, the snapshot and the channel.
    """
    # One pass each, no boolean array of the whole piece: min and max carry NaN and infinity.
    for t, snapshot in enumerate(states):
        for name, field in zip(channel_names, snapshot, strict=True):
            low, high = field.min(), field.max()
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError(f"{where}, snapshot {first_snapshot + t}: {name} holds NaN or infinity")
            if name in ("density", "pressure") and low <= 0:
                raise ValueError(
                    f"{where}, snapshot {first_snapshot + t}: {name} must be positive everywhere; lowest is {low:.3g}"
                )
