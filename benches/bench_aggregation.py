"""Aggregations with bootstrap intervals against the best vectorised NumPy, in one run.

    python benches/bench_aggregation.py [--small]

Both sides start from standardised matrices' inputs and end with quartiles and 95 % intervals of the pooled median. The
NumPy side is the faster of two ways to take a resample's medians: gathering the drawn mini-batches and calling
`np.median`, or sorting each bin once and searching cumulative weights. Results are compared before timings are printed.
The speed probe is a fixed piece of work; where it differs between rows, the machine was not quiet.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import pdeinfl as pi
from measure import one_thread_probe
from pdeinfl import _core

N_CLASSES, N_TIMES = 3, 16
N = N_CLASSES * N_TIMES
CLASS = np.repeat(np.arange(N_CLASSES), N_TIMES)
TIME = np.tile(np.arange(1, N_TIMES + 1), N_CLASSES)


def bins_of(kind: str) -> list[np.ndarray]:
    """Boolean masks of the entries of each bin."""
    same = CLASS[:, None] == CLASS
    if kind == "two_time":
        return [same & (TIME[:, None] == t) & (s == TIME) for t in range(1, 17) for s in range(1, 17)]
    if kind == "lag_profile":
        lag = TIME[:, None] - TIME
        return [(same == intra) & (lag == k) for intra in (True, False) for k in range(-11, 12)]
    at = TIME[:, None] == TIME
    return [at & (CLASS[:, None] == a) & (b == CLASS) for a in range(N_CLASSES) for b in range(N_CLASSES)]


def by_gathering(stack: np.ndarray, masks: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Medians ``(n_resamples, n_bins)``: gather the drawn mini-batches' entries of each bin, then `np.median`."""
    entries = [stack[:, mask] for mask in masks]
    out = np.empty((len(counts), len(masks)))
    for r, row in enumerate(counts):
        drawn = np.repeat(np.arange(len(row)), row)
        for b, e in enumerate(entries):
            out[r, b] = np.median(e[drawn])
    return out


def by_weights(stack: np.ndarray, masks: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """The same from one sort per bin and cumulative weights, vectorised over resamples."""
    out = np.empty((len(counts), len(masks)))
    weights = counts.astype(np.int32)
    for b, mask in enumerate(masks):
        entries = stack[:, mask]
        order = np.argsort(entries, axis=None)
        values, block = entries.ravel()[order], order // entries.shape[1]
        for rows in np.array_split(np.arange(len(counts)), max(1, len(counts) * len(values) // 2_000_000)):
            cumulative = np.cumsum(weights[rows][:, block], axis=1, dtype=np.int32)
            total = cumulative[:, -1]
            low = (cumulative > ((total - 1) // 2)[:, None]).argmax(1)
            high = (cumulative > (total // 2)[:, None]).argmax(1)
            out[rows, b] = 0.5 * (values[low] + values[high])
    return out


def numpy_side(
    raw: np.ndarray, masks: list[np.ndarray], counts: np.ndarray, medians: Callable[..., np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    stack = raw / raw.std(axis=2, ddof=1, keepdims=True)
    centre = np.stack([np.quantile(stack[:, mask], (0.25, 0.5, 0.75)) for mask in masks], 1)
    return centre, np.quantile(medians(stack, masks, counts), (0.025, 0.975), axis=0)


def timed(call: Callable[[], object], repeats: int) -> tuple[float, object]:
    best, value = np.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        best = min(best, time.perf_counter() - start)
    return best, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="3 seeds x 3 mini-batches, 50 resamples")
    small = parser.parse_args().small
    n_seeds, n_batches, n_resamples = (3, 3, 50) if small else (10, 18, 1000)
    rng = np.random.default_rng(0)
    decay = np.exp(-np.abs(TIME[:, None] - TIME) / 3.0) * (CLASS[:, None] == CLASS)
    raw = decay + 0.1 * rng.standard_normal((n_seeds * n_batches, N, N))
    keys = [(s, b) for s in range(n_seeds) for b in range(n_batches)]
    results = [
        pi.Influence.from_arrays(h, CLASS, CLASS, TIME, seed=s, mini_batch=b)
        for h, (s, b) in zip(raw, keys, strict=True)
    ]
    counts = _core.bootstrap_multiplicities([n_batches] * n_seeds, n_resamples, 0, True)
    print(f"{n_seeds} seeds x {n_batches} mini-batches x {N}^2, {n_resamples} resamples")
    print(f"{'':16}{'pdeinfl (ms)':>14}{'gather (ms)':>14}{'weights (ms)':>14}{'ratio':>8}{'probe (ms)':>12}")
    for kind in ("two_time", "lag_profile", "class_transfer"):
        masks = bins_of(kind)
        speed = one_thread_probe()
        ours, got = timed(lambda kind=kind: getattr(pi, kind)(results, n_bootstrap=n_resamples), 5)
        gathered, (centre, interval) = timed(lambda m=masks: numpy_side(raw, m, counts, by_gathering), 1)
        weighted, (_, check) = timed(lambda m=masks: numpy_side(raw, m, counts, by_weights), 1)
        parts = (got.intra, got.inter) if kind == "lag_profile" else (got,)
        for name, expected in zip(("lower", "median", "upper"), centre, strict=True):
            found = np.concatenate([getattr(p, name).ravel() for p in parts])
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        for name, expected, again in zip(("ci_low", "ci_high"), interval, check, strict=True):
            found = np.concatenate([getattr(p, name).ravel() for p in parts])
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(again, expected, rtol=1e-12, atol=1e-12)
        ratio = min(gathered, weighted) / ours
        print(
            f"{kind:16}{1e3 * ours:14.1f}{1e3 * gathered:14.1f}{1e3 * weighted:14.1f}{ratio:7.1f}x{1e3 * speed:12.1f}"
        )


if __name__ == "__main__":
    main()
