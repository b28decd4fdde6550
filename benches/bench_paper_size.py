"""The paper's surrogates at the paper's size, 48 examples of 4×128²: gradients, one block of products, the whole H.

Run: ``python benches/bench_paper_size.py [--device cuda] [--surrogate ViT UNet] [--products float32 tf32 bfloat16]``
``[--directions 48] [--tol 0.05] [--repeats 3] [--solve] [--small]``

Each row: seconds, operations counted as they run (of matrix products and convolutions, two per multiply-add), and
their rate as a part of the device's own: that of a square matrix product in the same precision, measured in the same
run. On a CPU there are 6 examples, a block has two directions, and H is left out unless asked for: minutes, not days.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import pdeinfl as pi
from measure import machine, markdown, write_json
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.precision import float32_products
from problems import BenchProblem, trained_on_advected

HEADERS = ("surrogate", "products", "what", "seconds", "TFLOP", "TFLOP/s", "of the matrix rate", "peak GB")


def seconds_of(call: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds until the device has finished."""
    wait = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def matrix_rate(products: str, device: torch.device) -> float:
    """FLOP/s of a square matrix product, best of five."""
    n = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if products == "bfloat16" else torch.float32
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    with float32_products("tf32" if products == "tf32" else "float32", device):
        return 2 * n**3 / min(seconds_of(lambda: a @ b, device) for _ in range(5))


def paper_problem(kind: str, resolution: int, n_times: int, device: torch.device) -> BenchProblem:
    """The surrogate as configured for the paper, after one epoch on advected fields."""
    torch.manual_seed(0)
    sizes = {} if resolution == 128 else {"ViT": {"width": 32, "depth": 2}, "UNet": {"width": 4}}[kind]
    model = pi.surrogates.build({"kind": kind, "channels": 4, "resolution": resolution, **sizes})
    return trained_on_advected(kind, model, n_times, resolution, epochs=1, n_per_class=2, device=device)


def peak(device: torch.device) -> float | None:
    """Most GB of the card that tensors held since the last call; None on a CPU."""
    if device.type != "cuda":
        return None
    found = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return found


def product_rows(
    problem: BenchProblem, products: str, args: argparse.Namespace, device: torch.device
) -> list[list[Any]]:
    jacobian = Jacobian(problem.model, device=device).in_dtype(torch.float32, products)
    batch = jacobian.place(problem.batch)
    generator = torch.Generator().manual_seed(0)
    tangents = torch.randn(args.directions, jacobian.n_parameters, generator=generator).to(device)
    cotangents = torch.randn(args.directions, *batch.targets.shape, generator=generator).to(device)
    k, one, u = args.directions, batch.select([0]), cotangents[:, :1]
    # Each with the same work on one example, which is what is counted. Gradients run as grouped convolutions, which the
    # counter takes for full ones; an adjoint product is the same work.
    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "forward pass": (lambda: jacobian.predict(batch), lambda: jacobian.predict(one)),
        f"{len(batch)} gradients": (
            lambda: jacobian.per_example_gradients(batch, cotangents[:1]),
            lambda: jacobian.vjp(one, u[:1]),
        ),
        f"block of {k} JVPs": (lambda: jacobian.jvp(batch, tangents), lambda: jacobian.jvp(one, tangents)),
        f"block of {k} VJPs": (lambda: jacobian.vjp(batch, cotangents), lambda: jacobian.vjp(one, u)),
    }
    rate = matrix_rate(products, device)
    rows = []
    for what, (call, counted) in calls.items():
        counted()
        with FlopCounterMode(display=False) as counter:
            counted()
        flop = counter.get_total_flops() * len(batch)
        call()
        peak(device)
        seconds = statistics.median(seconds_of(call, device) for _ in range(args.repeats))
        share = f"{flop / seconds / rate:.0%}"
        rows.append([problem.name, products, what, seconds, flop / 1e12, flop / seconds / 1e12, share, peak(device)])
    return rows


def solve_row(problem: BenchProblem, products: str, tol: float, device: torch.device) -> list[Any]:
    found: list[pi.Influence] = []

    def solve() -> None:
        found.append(
            pi.influence(problem.model, problem.batch, "smse", "smse", damping=pi.Damping.relative(1e-3), tol=tol,
                         device=device, product_dtype=products, keep_steps=False)
        )  # fmt: skip

    seconds = seconds_of(solve, device)
    (result,) = found
    what = f"H, certified {float(result.relative_error.max()):.1%}, {result.n_jvp + result.n_vjp} products"
    return [problem.name, products, what, seconds, None, None, None, peak(device)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--surrogate", nargs="+", choices=("ViT", "UNet"), default=["ViT", "UNet"])
    parser.add_argument("--products", nargs="+", choices=("float32", "tf32", "bfloat16"))
    parser.add_argument("--directions", type=int, help="in a block; default 48, on a CPU 2")
    parser.add_argument("--tol", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--solve", action=argparse.BooleanOptionalAction, help="the whole H; default: not on a CPU")
    parser.add_argument("--small", action="store_true", help="small surrogates at 32², 6 examples, to see that it runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else machine()
    args.directions = args.directions or (48 if on_gpu else 2)
    args.solve = on_gpu if args.solve is None else args.solve
    kinds = args.products or (["float32", "tf32", "bfloat16"] if on_gpu else ["float32"])
    if "tf32" in kinds and not on_gpu:
        parser.error("tf32 needs a CUDA device")
    resolution, n_times = (32, 2) if args.small else (128, 16 if on_gpu else 2)
    print(name)
    rows = []
    for kind in args.surrogate:
        found = paper_problem(kind, resolution, n_times, device)
        print(found, flush=True)
        for products in kinds:
            rows += product_rows(found, products, args, device)
            if args.solve:
                rows.append(solve_row(found, products, args.tol, device))
    print(markdown(HEADERS, rows))
    write_json(args.json, {"device": name, "rows": rows})


if __name__ == "__main__":
    main()
