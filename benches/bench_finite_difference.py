"""Periodic derivatives and the rotation's Lie derivative against torch.roll, and against the speed of a copy.

    python benches/bench_finite_difference.py [--small] [--cached] [--repeats N] [--threads N]

Two sizes: one that stays in a large cache, one that does not. All write into memory that exists. A copy reads and
writes each byte once, the least that a derivative must do; it is timed in turns with the derivative, and the least time
of each counts. torch.roll is timed in fewer rounds, once at the large size. The speed probe is a fixed piece of work;
where it differs between rows, the machine was not quiet.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from measure import machine, one_thread_probe
from pdeinfl import _core
from pdeinfl.analysis.lie import channel_kinds

WEIGHTS = {2: (1 / 2,), 4: (2 / 3, -1 / 12), 6: (3 / 4, -3 / 20, 1 / 60)}
NAMES = ("density", "momentum_x", "momentum_y", "energy")


def best(calls: tuple[Callable[[], object], ...], repeats: int) -> list[float]:
    """Least seconds of each call, taken in turns; one unmeasured round first if there are several."""
    seconds = [np.inf] * len(calls)
    for turn in range(repeats + (repeats > 1)):
        for k, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if turn or repeats == 1:
                seconds[k] = min(seconds[k], time.perf_counter() - start)
    return seconds


def rolled(u: torch.Tensor, axis: int, order: int, spacing: float) -> torch.Tensor:
    """The derivative from shifted copies."""
    out = torch.zeros_like(u)
    for k, w in enumerate(WEIGHTS[order], 1):
        out += (w / spacing) * (u.roll(-k, axis) - u.roll(k, axis))
    return out


def rolled_rotation(u: torch.Tensor, order: int, spacing: float) -> torch.Tensor:
    n = u.shape[-1]
    x = (torch.arange(n, dtype=u.dtype) - (n - 1) / 2) * spacing
    out = x[:, None] * rolled(u, -1, order, spacing) - x * rolled(u, -2, order, spacing)
    out[:, 1] += u[:, 2]
    out[:, 2] -= u[:, 1]
    return out


def measure(n: int, size: int, dtype: torch.dtype, threads: int, repeats: int, roll_repeats: int) -> None:
    kinds, h = channel_kinds(NAMES), 1.0 / size
    u = torch.randn(n, 4, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
    out, copied = torch.zeros_like(u), torch.zeros_like(u)
    fields, target = u.numpy(), out.numpy()
    name = str(dtype).removeprefix("torch.")
    print(f"\n{n} x 4 x {size} x {size} {name}, {u.nbytes / 1e6:.0f} MB, {threads} thread(s)")
    print(f"{'':18}{'ms':>9}{'copy':>9}{'of copy':>9}{'roll':>10}{'ratio':>8}{'error':>10}{'probe (ms)':>12}")
    for order in (2, 4, 6):
        jobs: list[tuple[str, Callable[[], object], Callable[[], torch.Tensor]]] = [
            (
                name,
                lambda a=axis, o=order: _core.derivative_into(target, fields, a, o, h, threads),
                lambda a=axis, o=order: rolled(u, a, o, h),
            )
            for name, axis in (("d_x", -2), ("d_y", -1))
        ]
        jobs.append(
            (
                "rotation",
                lambda o=order: _core.lie_derivative_into(target, fields, kinds, "rotation", o, (h, h), threads),
                lambda o=order: rolled_rotation(u, o, h),
            )
        )
        for name, ours, theirs in jobs:
            speed = one_thread_probe()
            fast, copy = best((ours, lambda: copied.copy_(u)), repeats)
            (slow,) = best((theirs,), roll_repeats)
            part = slice(0, min(n, 96))
            right = rolled_rotation(u[part], order, h) if name == "rotation" else None
            if right is None:
                right = rolled(u[part], -2 if name == "d_x" else -1, order, h)
            error = float((out[part] - right).abs().max() / right.abs().max())
            print(
                f"{f'{name}, order {order}':18}{1e3 * fast:9.2f}{1e3 * copy:9.2f}{copy / fast:9.0%}{1e3 * slow:10.1f}"
                f"{slow / fast:7.1f}x{error:10.1e}{1e3 * speed:12.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="4 states of 32 x 32, two repeats")
    parser.add_argument("--cached", action="store_true", help="only the size that stays in a large cache")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0, help="default: as many as this process may use")
    args = parser.parse_args()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = args.threads or usable
    torch.set_num_threads(threads)
    print(machine())
    for dtype, bytes_each in ((torch.float32, 4), (torch.float64, 8)):
        if args.small:
            measure(4, 32, dtype, threads, 2, 2)
            continue
        state = 4 * 128 * 128 * bytes_each
        measure(25_165_824 // state, 128, dtype, threads, args.repeats, 4)
        if not args.cached:
            measure(2**30 // state, 128, dtype, threads, max(2, args.repeats // 4), 1)


if __name__ == "__main__":
    main()
