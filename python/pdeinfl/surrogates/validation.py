"""The mean SMSE of a surrogate over all transitions of some trajectories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdeinfl.observables import SMSE
from pdeinfl.surrogates.rollout import in_mode


def smse_sum(
    model: nn.Module, trajectories: Any, indices: Sequence[int], batch_size: int, device: torch.device
) -> Tensor:
    """``(2,)`` float64 on ``device``: summed SMSE of every transition of the chosen trajectories, and their number.

    Eval mode, no gradients, at most one trajectory more than ``batch_size`` transitions in memory.
    """
    smse = SMSE()
    total = torch.zeros(2, dtype=torch.float64, device=device)
    with in_mode(model, training=False), torch.no_grad():
        for states, targets in _batches(trajectories, indices, batch_size):
            x, y = states.to(device), targets.to(device)
            total[0] += smse(model(x), y, x).double().sum()
            total[1] += len(x)
    return total


def _batches(trajectories: Any, indices: Sequence[int], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    waiting: list[Tensor] = []
    count = 0
    for position, index in enumerate(indices):
        waiting.append(torch.from_numpy(np.array(trajectories[index], dtype=np.float32)))
        count += len(waiting[-1]) - 1
        if count >= batch_size or position + 1 == len(indices):
            inputs = torch.cat([states[:-1] for states in waiting])
            targets = torch.cat([states[1:] for states in waiting])
            yield from zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
            waiting, count = [], 0
