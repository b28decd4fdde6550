"""Periodic derivatives and the rotation's Lie derivative against torch.roll, and against the speed of a copy.

    python benches/bench_finite_difference.py [--small]

All write into memory that exists. A copy reads and writes each byte once, the least that a derivative must do. The
speed probe is a fixed piece of work; where it differs between rows, the machine was not quiet.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from measure import one_thread_probe
from pdeinfl import _core
from pdeinfl.analysis.lie import channel_kinds

WEIGHTS = {2: (1 / 2,), 4: (2 / 3, -1 / 12), 6: (3 / 4, -3 / 20, 1 / 60)}
NAMES = ("density", "momentum_x", "momentum_y", "energy")


def best(call: Callable[[], object], repeats: int) -> float:
    call()
    seconds = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds = min(seconds, time.perf_counter() - start)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="4 states of 32 x 32, two repeats")
    small = parser.parse_args().small
    n, size, repeats = (4, 32, 2) if small else (96, 128, 10)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads)
    kinds, h = channel_kinds(NAMES), 1.0 / size
    print(f"{n} x 4 x {size} x {size}, {threads} thread(s)")
    print(f"{'':26}{'pdeinfl (ms)':>14}{'roll (ms)':>12}{'ratio':>8}{'of copy':>10}{'error':>10}{'probe (ms)':>12}")
    for dtype in (torch.float32, torch.float64):
        u = torch.randn(n, 4, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
        out = torch.zeros_like(u)
        copy = best(lambda out=out, u=u: out.copy_(u), repeats)
        fields, target = u.numpy(), out.numpy()
        for order in (2, 4, 6):
            jobs: list[tuple[str, Callable[[], object], Callable[[], torch.Tensor]]] = [
                (
                    name,
                    lambda a=axis, o=order, t=target, f=fields: _core.derivative_into(t, f, a, o, h, threads),
                    lambda a=axis, o=order, u=u: rolled(u, a, o, h),
                )
                for name, axis in (("d_x", -2), ("d_y", -1))
            ]
            jobs.append(
                (
                    "rotation",
                    lambda o=order, t=target, f=fields: _core.lie_derivative_into(
                        t, f, kinds, "rotation", o, (h, h), threads
                    ),
                    lambda o=order, u=u: rolled_rotation(u, o, h),
                )
            )
            for name, ours, theirs in jobs:
                speed, fast, slow = one_thread_probe(), best(ours, repeats), best(theirs, repeats)
                error = float((out - theirs()).abs().max() / out.abs().max())
                label = f"{name}, order {order}, {str(dtype).removeprefix('torch.')}"
                print(
                    f"{label:26}{1e3 * fast:14.2f}{1e3 * slow:12.2f}{slow / fast:7.1f}x{copy / fast:9.0%}"
                    f"{error:10.1e}{1e3 * speed:12.1f}"
                )


if __name__ == "__main__":
    main()
