"""Euler solver: nanoseconds per cell and time step on one and two threads, against the same scheme in NumPy.

    python benches/bench_euler.py [--small]

A time step is both Runge–Kutta stages. The NumPy version is the one that the tests compare with. The speed probe is a
fixed piece of work before each timing; where it differs between rows, the machine was not quiet.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from measure import one_thread_probe
from pdeinfl.data.simulators.euler import solve_euler
from pdeinfl.data.simulators.initial_conditions import draw_states, initial_condition

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference


def seconds_per_step(primitives: np.ndarray, interval: float, num_threads: int, repeats: int) -> float:
    """Best of some runs of one interval."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        _, steps = solve_euler(primitives, 1, interval=interval, num_threads=num_threads)
        best = min(best, (time.perf_counter() - start) / float(steps.sum()))
    return best


def numpy_seconds_per_step(primitives: np.ndarray, n_steps: int) -> float:
    """Mean over some steps of the NumPy scheme."""
    state = reference.euler_conserved(primitives[0])
    start = time.perf_counter()
    for _ in range(n_steps):
        state, _ = reference.euler_step(state)
    return (time.perf_counter() - start) / n_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="32 x 32 cells, one repeat")
    small = parser.parse_args().small
    n, interval, repeats, numpy_steps = (32, 0.02, 1, 3) if small else (128, 0.2, 5, 10)
    primitives = draw_states("CRP", initial_condition("CRP"), range(1), n, seed=0)
    scale = 1e9 / n**2
    rows = [("numpy", one_thread_probe(), numpy_seconds_per_step(primitives, numpy_steps))]
    for threads in (1, 2):
        speed, seconds = one_thread_probe(), seconds_per_step(primitives, interval, threads, repeats)
        rows.append((f"pdeinfl, {threads} thread(s)", speed, seconds))
    print(f"{n} x {n} cells\n{'':24}{'ns / cell / step':>18}{'against numpy':>16}{'probe (ms)':>12}")
    for name, speed, seconds in rows:
        print(f"{name:24}{seconds * scale:18.1f}{rows[0][2] / seconds:15.1f}x{speed * 1e3:12.1f}")
    print(f"two threads against one: {rows[1][2] / rows[2][2]:.2f}x")


if __name__ == "__main__":
    main()
