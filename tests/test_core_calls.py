"""What every kernel of the Rust core promises: the same bits for any number of threads, also in a forked child whose
parent used the core, and an interrupt obeyed within a second.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from pdeinfl import _core


def uniform(shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).random(shape).astype(dtype)


def derivative(threads):
    fields = uniform((3, 4, 150, 130), np.float32)
    out = np.empty_like(fields)
    _core.derivative_into(out, fields, -2, 6, 0.5, threads)
    return out


def lie_derivative(threads):
    fields = uniform((3, 3, 150, 130))
    out = np.empty_like(fields)
    kinds = [("scalar", -1), ("x", 2), ("y", 1)]
    _core.lie_derivative_into(out, fields, kinds, "rotation", 4, (0.5, 0.25), threads)
    return out


def euler(threads):
    states = 1 + uniform((2, 4, 40, 36))
    out = np.empty((2, 3, 4, 40, 36))
    _core.euler_solve(states, out, 0.01, 1.4, 0.4, 1, threads)
    return out


def combine(threads):
    out = uniform((3, 9000))
    _core.combine_into(uniform((3, 11), seed=1), [uniform((7, 9000), np.float32), uniform((4, 9000))], out, threads)
    return out


def blocks(n_blocks):
    column, times = np.repeat(np.arange(3), 8), np.tile(np.arange(8), 3)
    clusters = np.arange(n_blocks)
    values = list(uniform((n_blocks, 24, 24)))
    return values, tuple(np.concatenate([v] * n_blocks) for v in (column, times, column, times)), clusters


def quantiles(threads):
    values, labels, clusters = blocks(12)
    counts = _core.bootstrap_multiplicities([4, 4, 4], 50, 1, True)
    out, _, draws = _core.pooled_quantiles(values, labels, clusters, "lag", 5, [0.25, 0.5], counts, threads)
    return np.concatenate([out.ravel(), draws.ravel()])


def bins(threads):
    values, labels, clusters = blocks(12)
    sums, counts = _core.bin_sums(values, labels, clusters, "lag", 5, num_threads=threads)
    return np.concatenate([sums.ravel(), counts.ravel()])


KERNELS = {
    "gram": lambda threads: _core.gram(uniform((30, 20_000), np.float32), num_threads=threads),
    "gram, float32": lambda threads: _core.gram(uniform((30, 20_000), np.float32), "float32", threads),
    "cross_gram": lambda threads: _core.cross_gram(uniform((9, 9000)), uniform((5, 9000), seed=1), num_threads=threads),
    "combine": combine,
    "pairwise_distance": lambda threads: _core.pairwise_distance(1 + 1e-9 * uniform((20, 2, 900)), threads),
    "derivative": derivative,
    "lie_derivative": lie_derivative,
    "euler_solve": euler,
    "pooled_quantiles": quantiles,
    "bin_sums": bins,
    "standardize": lambda threads: _core.standardize(uniform((7, 40, 40)), "standard", None, threads)[0],
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_bits_do_not_depend_on_the_number_of_threads(kernel):
    one = kernel(1)
    assert np.isfinite(one).any()
    for threads in (2, 3, 7):
        assert kernel(threads).tobytes() == one.tobytes()


class Calls(torch.utils.data.Dataset):
    """Each item is the result of one kernel."""

    def __len__(self):
        return len(KERNELS)

    def __getitem__(self, index):
        return torch.from_numpy(list(KERNELS.values())[index](2).copy())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_data_loader_workers_call_the_core_after_their_parent_did():
    expected = [kernel(2) for kernel in KERNELS.values()]
    loader = torch.utils.data.DataLoader(
        Calls(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for name, got, wanted in zip(KERNELS, loader, expected, strict=True):
        assert got.numpy().tobytes() == wanted.tobytes(), name


# Each takes many seconds on one thread, in one call.
LONG_CALLS = {
    "gram": "_core.gram(np.broadcast_to(np.ones((1, 400_000), np.float32), (2000, 400_000)), num_threads=1)",
    "cross_gram": "_core.cross_gram(*2 * [np.broadcast_to(np.ones((1, 400_000)), (2000, 400_000))], num_threads=1)",
    "combine": (
        "_core.combine_into(np.ones((600, 4000)), np.broadcast_to(np.ones((1, 20_000)), (4000, 20_000)), "
        "np.zeros((600, 20_000)), 1)"
    ),
    "distance, products": "_core.pairwise_distance(np.random.default_rng(0).random((3000, 1, 30_000), np.float32), 1)",
    "distance, differences": "_core.pairwise_distance(np.ones((3000, 1, 20_000), np.float16), 1)",
    "pooled_quantiles": (
        "_core.pooled_quantiles(list(np.random.default_rng(0).random((60, 200, 200))), 4 * (np.zeros(60 * 200, int),), "
        "np.arange(60), 'lag', 5, [0.5], _core.bootstrap_multiplicities([60], 100_000, 0, False), 1)"
    ),
    "euler_solve": "_core.euler_solve(np.ones((1, 4, 256, 256)), np.empty((1, 2, 4, 256, 256)), 1e5, 1.4, 0.4, 1, 1)",
    "derivative": (
        "u = np.ones((1, 1, 64, 2**20), np.float32)\n    while True: _core.derivative_into(u, u.copy(), -2, 6, 1.0, 1)"
    ),
}


@pytest.mark.parametrize("call", LONG_CALLS.values(), ids=LONG_CALLS)
def test_interrupt_ends_a_long_call_within_a_second(call):
    code = (
        "import signal, time\n"
        "import numpy as np\n"
        "from pdeinfl import _core\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs
        "def announced(function):\n"
        "    def call(*args, **kwargs):\n"
        "        print('calls', flush=True)\n"
        "        return function(*args, **kwargs)\n"
        "    return call\n"
        "names = 'gram cross_gram combine_into pairwise_distance pooled_quantiles euler_solve derivative_into'\n"
        "for name in names.split():\n"
        "    setattr(_core, name, announced(getattr(_core, name)))\n"
        "try:\n"
        f"    {call}\n"
        "except KeyboardInterrupt:\n"
        "    print(time.monotonic())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        limit = threading.Timer(60, process.kill)
        limit.start()
        assert process.stdout.readline() == "calls\n"
        time.sleep(0.7)
        assert process.poll() is None
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        # The monotonic clock is the same in both processes.
        line = next(line for line in process.stdout if line != "calls\n")
        limit.cancel()
        assert float(line) - sent < 1
    assert process.returncode == 0


def turned(*shape, dtype=np.float64):
    """In Fortran order: contiguous, but not in the order of the indices."""
    return np.asfortranarray(uniform(shape, dtype))


LABELS = 4 * (np.zeros(3, int),)
REFUSED = {
    "rows": lambda: _core.combine_into(np.ones((2, 4)), np.ones((4, 6)), turned(2, 6)),
    "coefficients": lambda: _core.combine_into(turned(2, 4), np.ones((4, 6)), np.ones((2, 6))),
    "states": lambda: _core.pairwise_distance(turned(3, 2, 5)),
    "fields": lambda: _core.derivative_into(np.ones((2, 2, 9, 8)), turned(2, 2, 9, 8), -1, 2, 1.0),
    "out": lambda: _core.derivative_into(turned(2, 2, 9, 8), np.ones((2, 2, 9, 8)), -1, 2, 1.0),
    "primitives": lambda: _core.euler_solve(1 + turned(2, 4, 8, 8), np.empty((2, 2, 4, 8, 8)), 0.01, 1.4, 0.4),
    "values": lambda: _core.bin_sums([turned(3, 3)], LABELS, np.zeros(1, int), "lag", 2),
    "distances": lambda: _core.bin_sums(
        [np.ones((3, 3))], LABELS, np.zeros(1, int), "distance", 0, [turned(3, 3)], np.array([0.1, 1.0])
    ),
    "losses": lambda: _core.standardize(np.ones((2, 3, 3)), "loss", turned(2, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_in_another_order_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be C-contiguous"):
        REFUSED[name]()
