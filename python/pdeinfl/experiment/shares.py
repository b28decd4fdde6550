"""How processes share a run: the ranks of torchrun, the tasks of a SLURM array, or one alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def share() -> tuple[int, int]:
    """(rank, world size) of this process under torchrun or a SLURM array; (0, 1) alone.

    Raises:
        ValueError: the environment names a rank outside of its world.
    """
    rank, size = 0, 1
    if "RANK" in os.environ:
        rank, size = int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", "1"))
    elif "SLURM_ARRAY_TASK_ID" in os.environ:
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
        rank, size = int(os.environ["SLURM_ARRAY_TASK_ID"]) - first, int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1"))
    if not 0 <= rank < size:
        raise ValueError(f"the environment gives this process rank {rank} of {size}: number the tasks without gaps")
    return rank, size


def others_finished(paths: Sequence[Path], say: Callable[[str], None], what: str) -> bool:
    """Whether files that other processes write are there; under torchrun, whose ranks run together, waits for them."""
    missing = [path for path in paths if not path.exists()]
    if not missing:
        return True
    if "RANK" not in os.environ or share()[1] == 1:
        return False
    say(f"{what}: waiting for {len(missing)} file(s) of other ranks")
    while not all(path.exists() for path in missing):
        time.sleep(0.2)
    return True
