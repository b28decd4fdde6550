"""The contraction against torch: time, error on heavy-tailed rows, and fraction of the machine's measured limits.

    python benches/bench_gram.py [--small] [--repeats N] [--threads N] [--out-of-core DIR] [--json FILE]

Repeats are interleaved, so that a slow spell of the machine meets every contender; medians are compared. The limits are
measured in the same run: the rate of a large float32 matrix product, and of a sum over a large array. `cargo bench
--bench gram` measures against multiply-adds in registers.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pdeinfl.contraction import gram

SHAPES = ((48, 5_000_000), (192, 2_000_000), (816, 500_000))
SMALL = ((48, 200_000), (192, 50_000), (816, 12_000))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call; one unmeasured round first."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            taken = seconds(call)
            if turn:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def heavy_tailed(n: int, k: int) -> torch.Tensor:
    rows = torch.randn(n, k, generator=torch.Generator().manual_seed(n))
    return rows.mul_(torch.randn(n, k, generator=torch.Generator().manual_seed(n + 1)).mul_(1.5).exp_())


def limits(small: bool) -> dict[str, float]:
    """Best of five: float32 multiply-adds a second, doubled, and bytes read a second."""
    size = 1024 if small else 4096
    a, b, many = torch.randn(size, size), torch.randn(size, size), torch.ones(2**24 if small else 2**28)
    flops = 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(6))
    return {"flops": flops, "read": 4 * len(many) / min(seconds(many.sum) for _ in range(6))}


def errors(g: torch.Tensor, results: dict[str, Any]) -> dict[str, float]:
    """Largest error of each result relative to ‖g_i‖‖g_j‖; the reference is summed in float64, by pieces of columns."""
    exact = sum(piece.double() @ piece.double().T for piece in g.split(1 << 16, dim=1)).numpy()  # type: ignore[union-attr]
    norms = np.sqrt(np.diag(exact))
    scale = np.outer(norms, norms)
    return {name: float((np.abs(np.asarray(got, np.float64) - exact) / scale).max()) for name, got in results.items()}


def measure(n: int, k: int, repeats: int, machine: dict[str, float], threads: int) -> dict[str, Any]:
    g = heavy_tailed(n, k)
    times = interleaved(
        {
            "torch.mm float32": lambda: torch.mm(g, g.T),
            "gram float32": lambda: gram(g, products="float32", num_threads=threads),
            "gram float64": lambda: gram(g, num_threads=threads),
        },
        repeats,
    )
    fewer = max(1, repeats // 3)
    times |= interleaved({"torch double": lambda: g.double() @ g.double().T}, fewer)
    wrong = errors(
        g,
        {
            "torch.mm float32": torch.mm(g, g.T).numpy(),
            "gram float32": gram(g, products="float32", num_threads=threads),
            "gram float64": gram(g, num_threads=threads),
        },
    )
    triangle = n * (n + 1) * k
    own = times["gram float32"]
    return {
        "shape": [n, k],
        "seconds": times,
        "error": wrong,
        "float32 vs torch.mm": times["torch.mm float32"] / own,
        "float64 vs torch double": times["torch double"] / times["gram float64"],
        "float64 vs torch.mm": times["torch.mm float32"] / times["gram float64"],
        "float32 fraction of the rate of a large matrix product": triangle / own / machine["flops"],
        "float32 fraction of read bandwidth": 4 * n * k / own / machine["read"],
    }


CHILD = """
import json, resource, sys, time
import numpy as np
from pdeinfl.contraction import FileMatrix, gram
path, n, k, threads, limit, mapped = sys.argv[1], *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
before = int(status["VmHWM"].split()[0])
fetched = lambda: int(dict(line.split(":") for line in open("/proc/self/io"))["read_bytes"])
fetched_before, start = fetched(), time.perf_counter()
g = gram(FileMatrix(path, 0, "float32", (n, k), bool(mapped)), products="float32", num_threads=threads)
taken = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0])
figures = {"seconds": taken, "fetched": fetched() - fetched_before, "growth": 1024 * (peak - before)}
print(json.dumps(figures | {"trace": float(np.trace(g))}))
"""


def out_of_core(folder: Path, n: int, k: int, copies: int, repeats: int, threads: int) -> dict[str, Any]:
    """The contraction of a file that is ``copies`` times as long as the matrix in memory that it repeats.

    The file's cached pages are dropped before every pass; the bytes that the system fetched from the disk are counted.
    The contraction runs in a process whose address space is limited to half the file's size. The disk's rate is
    that of one or many readers that share out the file, through the page cache and, where the system can, past it:
    medians of interleaved repeats, of which the best way counts.
    """
    g = heavy_tailed(n, k).numpy()
    path, size = folder / "bench_gram.bin", 4 * n * k * copies
    with path.open("wb") as file:
        for row in g:
            for _ in range(copies):
                row.tofile(file)
        os.fsync(file.fileno())

    def drop() -> None:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read(readers: int, flags: int) -> float:
        """Bytes a second of readers that share the file out, 8 MB at a time in order."""
        offsets, piece = iter(range(0, size, 8 << 20)), 8 << 20

        def reader(descriptor: int) -> None:
            buffer = mmap.mmap(-1, piece)
            for offset in offsets:
                os.preadv(descriptor, [buffer], offset)

        drop()
        descriptor = os.open(path, os.O_RDONLY | flags)
        try:
            with ThreadPoolExecutor(readers) as pool:
                return size / seconds(lambda: list(pool.map(reader, [descriptor] * readers)))
        finally:
            os.close(descriptor)

    def contract(mapped: bool) -> dict[str, float]:
        drop()
        numbers = (n, k * copies, threads, max(size // 2, 1 << 30), int(mapped))
        command = [sys.executable, "-c", CHILD, str(path), *map(str, numbers)]
        return cast(dict[str, float], json.loads(subprocess.run(command, capture_output=True, check=True).stdout))

    ways = [(readers, flags) for readers in (1, 4 * threads) for flags in sorted({0, getattr(os, "O_DIRECT", 0)})]
    calls: dict[str, Callable[[], float]] = {
        "memory": lambda: g.nbytes / seconds(lambda: gram(g, products="float32", num_threads=threads)),
        **{f"disk, {r} readers{', direct' if f else ''}": lambda r=r, f=f: read(r, f) for r, f in ways},
    }
    rates: dict[str, list[float]] = {name: [] for name in (*calls, "file")}
    peaks, fetched = [], []
    try:
        for _ in range(repeats):
            for name, call in calls.items():
                rates[name].append(call())
            from_file = contract(mapped=False)
            rates["file"].append(size / from_file["seconds"])
            peaks.append(from_file["growth"])
            fetched.append(from_file["fetched"])
    finally:
        path.unlink()
    error = abs(from_file["trace"] / (copies * float(np.square(g, dtype=np.float64).sum())) - 1)
    median = {name: statistics.median(taken) for name, taken in rates.items()}
    lower = min(median["memory"], max(rate for name, rate in median.items() if name.startswith("disk")))
    return {
        "shape": [n, k * copies],
        "bytes": size,
        "address space allowed": max(size // 2, 1 << 30),
        "bytes fetched from the disk, least": min(fetched),
        "growth of the resident peak": max(peaks),
        "bytes a second": median,
        "rate vs the lower of memory and the best way of reading": median["file"] / lower,
        "relative error of the trace": error,
    }


def show(row: dict[str, Any]) -> None:
    print("x".join(map(str, row["shape"])))
    for key, value in row.items():
        if isinstance(value, dict):
            print(f"  {key}: " + ", ".join(f"{name} {number:.3g}" for name, number in value.items()))
        elif key != "shape":
            print(f"  {key}: {value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small shapes, to see that it runs")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out-of-core", type=Path, metavar="DIR", help="also from a 6.7 GB file written there")
    parser.add_argument("--copies", type=int, default=7, help="length of the file in matrices of 0.96 GB")
    parser.add_argument("--only-out-of-core", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = limits(args.small)
    print(
        f"{platform.machine()}, {args.threads} threads; {machine['flops']:.3g} FLOP/s, {machine['read']:.3g} B/s read"
    )
    rows = []
    for n, k in () if args.only_out_of_core else SMALL if args.small else SHAPES:
        rows.append(measure(n, k, args.repeats, machine, args.threads))
        show(rows[-1])
    stored = None
    if args.out_of_core:
        shape = (SMALL if args.small else SHAPES)[0]
        stored = out_of_core(args.out_of_core, *shape, args.copies, args.repeats, args.threads)
        print("out of core")
        show(stored)
    if args.json:
        figures = {"machine": machine, "threads": args.threads, "contractions": rows, "out_of_core": stored}
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
