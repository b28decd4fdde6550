"""One epoch of shuffled training batches, from memory or from disk with bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdeinfl.arguments import check_counts
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.data.transitions import split_pairs
from pdeinfl.devices import check_device

Batch = tuple[Tensor, Tensor]


def stream_batches(
    traj: Trajectories,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    buffer_bytes: int = 512 * 2**20,
    prefetch: int = 2,
    cache_dtype: str | None = None,
    device: Any = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Batches ``(input, target)`` that visit every transition once, in an order fixed by (seed, epoch).

    In memory the shuffle is exact. From disk, whole trajectories are read in random order into pools of at most half
    of ``buffer_bytes``, whose transitions are shuffled together; while one pool is used, the next is read. That
    order depends on ``buffer_bytes`` too, but never on ``prefetch`` or on what a cache already holds.

    Args:
        traj: training trajectories.
        batch_size: transitions per batch and rank; the last batch may be smaller.
        seed, epoch: of the order.
        buffer_bytes: memory for trajectories read ahead; at least one trajectory is held per pool whatever this is.
        prefetch: batches made ready by a background thread, where they come from disk or go to a GPU; 0: no thread.
        cache_dtype: ``"bfloat16"`` or ``"float32"``: keep what was read in memory, so that later epochs do not read.
        device: where the batches go.
        rank, world_size: this process's share. Every rank gets as many batches as any other; where the data do not
            divide, the first of the shuffled order are repeated, as ``torch.utils.data.DistributedSampler`` does.

    Yields:
        float32 ``(n, channel, x, y)`` pairs.

    Raises:
        ValueError: an argument out of range, or no transitions; a damaged file.
        OSError: a file that cannot be read.
    """
    check_counts(1, batch_size=batch_size, world_size=world_size, buffer_bytes=buffer_bytes)
    check_counts(0, seed=seed, epoch=epoch, prefetch=prefetch, rank=rank)
    if rank >= world_size:
        raise ValueError(f"`rank` must be below `world_size` ({world_size}); got {rank}")
    if len(traj) == 0 or traj.n_times < 2:
        raise ValueError(f"`traj` holds no transitions: {len(traj)} trajectories of {traj.n_times} snapshots")
    if cache_dtype is not None:
        traj = traj.cached(cache_dtype)
    where = check_device("device", device)
    generator = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    if traj.in_memory:
        batches = _from_memory(traj, batch_size, generator, rank, world_size)
    else:
        batches = _from_disk(traj, batch_size, generator, rank, world_size, buffer_bytes)
    return _delivered(batches, where, 0 if traj.in_memory and where.type == "cpu" else prefetch)


def _share(order: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    each = -(-len(order) // world_size)
    return np.resize(order, each * world_size)[rank::world_size]


def _from_memory(
    traj: Trajectories, batch_size: int, generator: np.random.Generator, rank: int, world_size: int
) -> Iterator[Batch]:
    transitions = traj.transitions()
    order = _share(generator.permutation(len(transitions)), rank, world_size)
    for start in range(0, len(order), batch_size):
        yield transitions.batch(order[start : start + batch_size])


def _from_disk(
    traj: Trajectories,
    batch_size: int,
    generator: np.random.Generator,
    rank: int,
    world_size: int,
    buffer_bytes: int,
) -> Iterator[Batch]:
    order = _share(generator.permutation(len(traj)), rank, world_size)
    pool_size = max(1, buffer_bytes // (2 * 4 * int(np.prod(traj.shape[1:]))))
    steps = traj.n_times - 1
    pools = [order[start : start + pool_size] for start in range(0, len(order), pool_size)]
    state_shape = traj.shape[2:]
    shuffles = np.random.default_rng(generator.integers(2**63, size=2))
    pairs = np.empty((batch_size, 2, *state_shape), np.float32)
    filled = 0
    current = [traj.read(i, 0, steps + 1) for i in pools[0]]
    for k in range(len(pools)):
        upcoming = list(pools[k + 1]) if k + 1 < len(pools) else []
        following: list[np.ndarray] = []
        shuffled = shuffles.permutation(len(current) * steps)
        for position, item in enumerate(shuffled, 1):
            trajectory, time = divmod(int(item), steps)
            pairs[filled] = current[trajectory][time : time + 2]
            filled += 1
            # The next pool grows in step with the use of this one, so that reading never comes in bursts.
            while len(following) * len(shuffled) < len(upcoming) * position:
                following.append(traj.read(upcoming[len(following)], 0, steps + 1))
            if filled == batch_size:
                yield split_pairs(pairs)
                filled = 0
        current = following
    if filled:
        yield split_pairs(pairs[:filled])


def _delivered(batches: Iterator[Batch], device: torch.device, prefetch: int) -> Iterator[Batch]:
    pinned = device.type == "cuda"
    if prefetch:
        batches = _prefetched(batches, prefetch, pinned)
    try:
        for x, y in batches:
            yield x.to(device, non_blocking=pinned), y.to(device, non_blocking=pinned)
    finally:
        batches.close()  # type: ignore[attr-defined]


def _prefetched(batches: Iterator[Batch], depth: int, pinned: bool) -> Iterator[Batch]:
    """The same batches, made by a thread that ends when they do or when the consumer stops early."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for x, y in batches:
                if not put((x.pin_memory(), y.pin_memory()) if pinned else (x, y)):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, whatever it is
            put(error)

    thread = threading.Thread(target=work, name="pdeinfl-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
