"""Epochs of training batches: every transition once, an order fixed by its arguments, and no thread left behind."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from pdeinfl.data.streaming import stream_batches
from pdeinfl.data.trajectories import Trajectories

T = 5


class FromDisk:
    """A source that counts what is held, and says that reading costs."""

    in_memory = False

    def __init__(self, states):
        self.states, self.n_reads = states, 0

    @property
    def shape(self):
        return self.states.shape

    def read(self, row, start, stop):
        self.n_reads += 1
        return self.states[row, start:stop].copy()


def numbered(n=13, disk=False):
    """Every snapshot holds its own number: trajectory · 100 + time."""
    values = (np.arange(n)[:, None] * 100 + np.arange(T + 1)).astype(np.float32)
    states = np.broadcast_to(values[:, :, None, None, None] + 1, (n, T + 1, 4, 2, 3)).copy()
    if not disk:
        return Trajectories.from_arrays(states)
    names = ("density", "momentum_x", "momentum_y", "energy")
    source = FromDisk(states)
    return Trajectories([source], [0] * n, range(n), [0] * n, ["RP"], names)


def visited(batches):
    order = []
    for x, y in batches:
        assert x.dtype == y.dtype == torch.float32
        assert (y == x + 1).all()
        order += [int(v) - 1 for v in x[:, 0, 0, 0]]
    return order


EVERY = [i * 100 + t for i in range(13) for t in range(T)]


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("buffer_bytes", [1, 4000, 10**9])
def test_every_transition_once_in_an_order_of_its_own(disk, buffer_bytes):
    traj = numbered(disk=disk)
    orders = {}
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        order = visited(stream_batches(traj, 4, seed, epoch, buffer_bytes=buffer_bytes))
        assert sorted(order) == EVERY
        assert order == visited(stream_batches(traj, 4, seed, epoch, buffer_bytes=buffer_bytes, prefetch=0))
        assert order == visited(stream_batches(traj, 4, seed, epoch, buffer_bytes=buffer_bytes, prefetch=7))
        orders[seed, epoch] = order
    assert len({tuple(order) for order in orders.values()}) == 3
    assert len({tuple(order) for order in orders.values()} & {tuple(EVERY)}) == 0


def test_batch_size_does_not_change_the_order():
    for disk in (False, True):
        traj = numbered(disk=disk)
        assert visited(stream_batches(traj, 4, 0, 0)) == visited(stream_batches(traj, 65, 0, 0))
        assert [len(x) for x, _ in stream_batches(traj, 48, 0, 0)] == [48, 17]


def test_shuffle_is_uniform_over_positions():
    # Mean position of each transition over 400 epochs: 32 ± 18.8/√400; six standard errors for 65 of them.
    for disk in (False, True):
        traj = numbered(disk=disk)
        positions = np.zeros(len(EVERY))
        for epoch in range(400):
            order = visited(stream_batches(traj, 65, 3, epoch, prefetch=0))
            positions[np.argsort(order)] += np.arange(65)
        assert abs(positions / 400 - 32).max() < 6 * np.sqrt((65**2 - 1) / 12 / 400)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 20])
def test_ranks_share_equally(disk, world_size):
    traj = numbered(disk=disk)
    orders = [visited(stream_batches(traj, 4, 0, 0, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(order) for order in orders}) == 1
    merged = sorted(v for order in orders for v in order)
    assert set(merged) == set(EVERY)
    # Repeats only to make the shares equal: less than one trajectory (disk) or transition (memory) for each rank.
    assert len(merged) - len(EVERY) < world_size * (T if disk else 1)


def test_memory_is_bounded_by_the_buffer():
    traj = numbered(n=40, disk=True)
    source = traj._sources[0]
    one = source.states[0].nbytes
    batches = stream_batches(traj, 1, 0, 0, buffer_bytes=8 * one, prefetch=0)
    for used, _ in enumerate(batches, 1):
        # Pools of four: never more ahead than the pool in use and as much of the next one as was used of this.
        assert source.n_reads <= 4 + -(-used // T)


def test_early_exit_ends_the_thread():
    traj = numbered(disk=True)
    for how in ("close", "delete"):
        batches = stream_batches(traj, 1, 0, 0, prefetch=2)
        next(batches)
        assert any(t.name == "pdeinfl-prefetch" for t in threading.enumerate())
        if how == "close":
            batches.close()
        del batches
        assert not any(t.name == "pdeinfl-prefetch" for t in threading.enumerate())
    visited(stream_batches(traj, 1, 0, 0, prefetch=2))
    assert not any(t.name == "pdeinfl-prefetch" for t in threading.enumerate())


THREADS = """
import os
import numpy as np
import torch
from pdeinfl.data.streaming import stream_batches
from pdeinfl.data.trajectories import Trajectories

class FromDisk:
    in_memory = False
    states = np.ones((4, 6, 4, 64, 64), np.float32)
    shape = states.shape
    def read(self, row, start, stop):
        return self.states[row, start:stop]

torch.set_num_threads(2)
torch.ones(2**20).add(1)  # starts PyTorch's own
traj = Trajectories([FromDisk()], [0] * 4, range(4), [0] * 4, ["RP"], ("density", "momentum_x", "momentum_y", "energy"))
alone = len(os.listdir("/proc/self/task"))
most = max(len(os.listdir("/proc/self/task")) for _ in stream_batches(traj, 4, seed=0, epoch=0))
print(most - alone)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads by /proc")
def test_the_thread_starts_no_openmp_threads_of_its_own():
    """With more of them than cores, OpenMP stops the training's from spinning between operations."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 1


def test_errors_of_the_thread_arrive():
    traj = numbered(disk=True)

    def fails(row, start, stop):
        raise OSError("the disk is gone")

    traj._sources[0].read = fails
    with pytest.raises(OSError, match="the disk is gone"):
        list(stream_batches(traj, 4, 0, 0))


def test_cache_is_read_once_and_changes_no_order():
    traj = numbered(disk=True)
    plain = visited(stream_batches(traj, 4, 0, 0))
    source = traj._sources[0]
    for dtype in ("float32", "bfloat16"):
        source.n_reads = 0
        first = [x for x, _ in stream_batches(traj, 4, 0, 0, cache_dtype=dtype)]
        second = [x for x, _ in stream_batches(traj, 4, 0, 0, cache_dtype=dtype)]
        assert source.n_reads == 13
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        values = torch.cat(first)[:, 0, 0, 0]
        expected = torch.tensor(plain) + 1.0
        torch.testing.assert_close(values, expected, rtol=0 if dtype == "float32" else 2**-8, atol=0)


def test_refuses():
    traj = numbered()
    for settings, message in [
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"rank": 1}, "world_size"),
        ({"buffer_bytes": 0}, "buffer_bytes"),
        ({"cache_dtype": "int8"}, "bfloat16"),
    ]:
        with pytest.raises(ValueError, match=message):
            stream_batches(traj, **{"batch_size": 4, "seed": 0, "epoch": 0, **settings})
    with pytest.raises(ValueError, match="no transitions"):
        stream_batches(traj[:0], 4, 0, 0)
