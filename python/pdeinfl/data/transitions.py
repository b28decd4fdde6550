"""Transitions ``x → y`` of trajectories as an indexable dataset."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from pdeinfl.data.trajectories import Trajectories


class Transitions:
    """All transitions of a set of trajectories; item ``i`` is step ``i mod T`` of trajectory ``i div T``.

    A map-style dataset: it works with a ``torch.utils.data.DataLoader`` (whole batches in one call, through
    ``__getitems__``), pickles, and may be used in worker processes.
    """

    def __init__(self, trajectories: Trajectories, n_transitions: int | None = None) -> None:
        available = trajectories.n_times - 1
        self.per_trajectory = available if n_transitions is None else operator.index(n_transitions)
        if not 1 <= self.per_trajectory <= available:
            raise ValueError(
                f"`n_transitions` must be between 1 and {available}, the transitions of {trajectories.n_times} "
                f"snapshots; got {self.per_trajectory}"
            )
        self.trajectories = trajectories

    def __len__(self) -> int:
        return len(self.trajectories) * self.per_trajectory

    def locate(self, index: Any) -> tuple[int, int]:
        """Trajectory and time (from 0) of item ``index``."""
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"transition {i} is out of range: there are {len(self)}")
        return divmod(i % len(self), self.per_trajectory)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """``(input, target)``, float32 ``(channel, x, y)`` each."""
        trajectory, time = self.locate(index)
        pair = torch.from_numpy(self.trajectories.read(trajectory, time, time + 2).copy())
        return pair[0], pair[1]

    def __getitems__(self, indices: Any) -> list[tuple[Tensor, Tensor]]:
        inputs, targets = self.batch(indices)
        return list(zip(inputs, targets, strict=True))

    def batch(self, indices: Any) -> tuple[Tensor, Tensor]:
        """``(inputs, targets)`` of several items, float32 ``(len(indices), channel, x, y)`` each."""
        data = self.trajectories
        shape = (len(indices), 2, len(data.channel_names), *data.resolution)
        pairs = np.empty(shape, np.float32)
        for slot, index in zip(pairs, indices, strict=True):
            trajectory, time = self.locate(index)
            slot[:] = data.read(trajectory, time, time + 2)
        return split_pairs(pairs)


def split_pairs(pairs: np.ndarray) -> tuple[Tensor, Tensor]:
    """``(inputs, targets)``, copied, of pairs ``(n, 2, channel, x, y)``.

    NumPy copies: PyTorch would give a thread that loads data OpenMP threads of its own, and OpenMP, with more threads
    than cores, puts those of the training to sleep after each operation, which doubles its time.
    """
    return torch.from_numpy(pairs[:, 0].copy()), torch.from_numpy(pairs[:, 1].copy())
