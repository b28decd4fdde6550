"""Where float32 stops being enough: measured product error δ, and the true float32-against-float64 error of H.

Run: ``python benches/bench_rounding.py [--problem ViT UNet conv] [--small] [--damping …] [--max-products N]``

Both dtypes build the same kind of subspace (`krylov`, certified to ``tol`` at the smallest damping or stopped at
``--max-products``) and are read off at every damping. "Reported" is the float32 result's own error, rounding included;
"gap" is the certified error of the float64 solve, hence how far the comparison itself can be trusted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pdeinfl as pi
from measure import machine, markdown, write_json
from problems import PROBLEMS, BenchProblem, problem

DAMPINGS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
HEADERS = [
    "problem",
    "δ",
    "λ/λ_max",
    "float32 error of H",
    "reported",
    "float64 gap",
    "enough for 2 %",
]


def table(case: BenchProblem, dampings: Sequence[float], tol: float, max_products: int | None) -> list[list[Any]]:
    """One row per damping."""
    wanted = [pi.Damping.relative(d) for d in dampings]

    def solve(dtype: str, lambda_max: float | None) -> pi.Influence:
        options = {} if max_products is None else {"max_products": max_products}
        return pi.influence(case.model, case.batch, "smse", "smse", damping=wanted, tol=tol, product_dtype=dtype,
                            lambda_max=lambda_max, keep_steps=False, **options)  # fmt: skip

    exact = solve("float64", None)
    rounded = solve("float32", exact.lambda_max)
    rows: list[list[Any]] = []
    for relative, a, b in zip(dampings, exact.at_damping(wanted), rounded.at_damping(wanted), strict=True):
        truth = a.values[0, 0]
        error = float(np.linalg.norm(b.values[0, 0] - truth) / np.linalg.norm(truth))
        gap, reported = float(a.relative_error.max()), float(b.relative_error.max())
        enough = "yes" if error + gap <= 0.02 else ("no" if error - gap > 0.02 else "unresolved")
        rows.append([case.name, rounded.product_error, relative, error, reported, gap, enough])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=PROBLEMS, default=["UNet", "ViT"])
    parser.add_argument("--damping", type=float, nargs="+", default=DAMPINGS, help="relative, the largest first")
    parser.add_argument("--tol", type=float, default=2e-3)
    parser.add_argument("--max-products", type=int)
    parser.add_argument("--small", action="store_true", help="surrogates at 6 examples of 16x16")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    print(machine() + "\n", flush=True)
    rows: list[list[Any]] = []
    for name in args.problem:
        case = problem(name, args.small)
        block = table(case, args.damping, args.tol, args.max_products)
        print(f"{case}\n\n{markdown(HEADERS, block)}\n", flush=True)
        rows += block
    write_json(args.json, {"headers": HEADERS, "rows": rows})


if __name__ == "__main__":
    main()
