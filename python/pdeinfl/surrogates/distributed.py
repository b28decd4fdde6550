"""The processes that train together: none but this one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank, size: its number and how many there are.
        device: where it computes.
    """

    rank: int
    size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, value: Any) -> Any:
        """Rank 0's value, on every process."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0, device=self.device if self.device.type == "cuda" else None)
            return box[0]
        return value

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """The group that torchrun's environment names (gloo on CPU, NCCL on CUDA), one that is already there, or just us.

    Under torchrun a bare ``cuda`` becomes the card of the local rank.
    """
    ours = False
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            ours = True
    try:
        if dist.is_available() and dist.is_initialized():
            yield World(dist.get_rank(), dist.get_world_size(), device)
        else:
            yield World(0, 1, device)
    finally:
        if ours:
            dist.destroy_process_group()
