"""Pairwise distances of states against torch: time, and error against differences in float64.

    python benches/bench_distance.py [--small] [--states N] [--repeats N] [--threads N] [--json FILE]

Of the states, one in ten is another one plus noise of relative size 1e-5, as in a chaotic ensemble. Errors are relative
over all pairs of some states and their near copies. Repeats are interleaved and medians compared; the speed probe is a
fixed piece of work.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from measure import interleaved, machine, markdown, write_json
from pdeinfl.contraction import pairwise_distance


def ensemble(n: int, size: int) -> torch.Tensor:
    """States (n, 4, size, size) about a mean, the last tenth near copies of the first."""
    generator = torch.Generator().manual_seed(0)
    states = 1 + 0.3 * torch.randn(n, 4, size, size, generator=generator)
    near = n // 10
    states[n - near :] = states[:near] * (1 + 1e-5 * torch.randn(near, 4, size, size, generator=generator))
    return states


def scaled(squared: torch.Tensor, rms: torch.Tensor) -> torch.Tensor:
    return squared / (0.5 * (rms[:, None] + rms[None, :]) + 1e-6)


def by_matmul(states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """‖x‖² + ‖y‖² − 2xy, a matrix product per channel."""
    total = torch.zeros(len(states), len(states), dtype=dtype)
    for channel in states.unbind(1):
        fields = channel.flatten(1).to(dtype)
        products = fields @ fields.T
        squares = products.diagonal().clone()
        squared = products.mul_(-2).add_(squares[:, None]).add_(squares).clamp_(min=0)
        total += scaled(squared / fields.shape[1], (squares / fields.shape[1]).sqrt())
    return total / states.shape[1]


def by_cdist(states: torch.Tensor) -> torch.Tensor:
    """torch.cdist, which takes a matrix product from 25 states on."""
    total = torch.zeros(len(states), len(states))
    for channel in states.unbind(1):
        fields = channel.flatten(1)
        squared = torch.cdist(fields, fields).square_()
        total += scaled(squared / fields.shape[1], fields.square().mean(1).sqrt())
    return total / states.shape[1]


def by_differences(states: torch.Tensor) -> np.ndarray:
    fields = states.double().flatten(2)
    rms = fields.square().mean(-1).sqrt()
    scales = 0.5 * (rms[:, None] + rms) + 1e-6
    rows = [((x - fields).square().mean(-1) / scale).mean(-1) for x, scale in zip(fields, scales, strict=True)]
    return torch.stack(rows).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="60 states of 32 x 32")
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    n, size = (60, 32) if args.small else (args.states, 128)
    torch.set_num_threads(args.threads)
    states = ensemble(n, size)
    near = min(n // 10, 20)
    some = torch.cat([torch.arange(near), torch.arange(n - n // 10, n - n // 10 + near)])
    exact = by_differences(states[some])
    apart = ~np.eye(len(some), dtype=bool)
    close = np.abs(some.numpy()[:, None] - some.numpy()[None, :]) == n - n // 10
    calls: dict[str, Callable[[], object]] = {
        "pdeinfl": lambda: pairwise_distance(states, num_threads=args.threads),
        "torch, matrix products in float32": lambda: by_matmul(states, torch.float32),
        "torch, matrix products in float64": lambda: by_matmul(states, torch.float64),
        "torch.cdist, float32": lambda: by_cdist(states),
    }
    print(f"{machine()}\n{n} x 4 x {size} x {size} float32, {states.nbytes / 1e6:.0f} MB, {args.threads} thread(s)\n")
    errors = {}
    for name, call in calls.items():
        got = np.asarray(call(), np.float64)[np.ix_(some.numpy(), some.numpy())]
        wrong = np.abs(got - exact) / np.where(apart, exact, 1)
        errors[name] = (float(wrong[apart & ~close].max()), float(wrong[close].max()))
    times = interleaved(calls, args.repeats)
    own = times["pdeinfl"].seconds
    rows = [[name, t.seconds, t.seconds / own, *errors[name], t.probe * 1e3] for name, t in times.items()]
    print(markdown(["", "s", "against pdeinfl", "error", "error, near copies", "probe, ms"], rows))
    write_json(args.json, {"rows": rows})


if __name__ == "__main__":
    main()
