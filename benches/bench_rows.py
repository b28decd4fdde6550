"""What resolving small rows costs: products of `krylov`, the worst certified and true error of a row, and what the
solve leaves of the class locking, on targets moved towards the predictions so that rows differ by orders of magnitude.

Run: ``python benches/bench_rows.py [--problem conv] [--small] [--relative 1e-3] [--share 1e-4] [--tol 0.05 0.02]``
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import pdeinfl as pi
from measure import machine, markdown
from pdeinfl.analysis.summary import summarize
from problems import PROBLEMS, BenchProblem, problem

HEADERS = ["tol", "row_tol", "products", "error of H, certified", "worst row, certified", "worst row, true",
           "class locking", "left by the solve", "exact"]  # fmt: skip


def uneven(case: BenchProblem, share: float) -> pi.MiniBatch:
    """Residuals scaled by 1 … ``share``, in random order."""
    batch = case.batch
    with torch.no_grad():
        said = case.model(batch.inputs)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(0, float(np.log10(share)), len(batch))[order]
    return batch.with_fields(batch.inputs, said + scale[:, None, None, None] * (batch.targets - said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="conv")
    parser.add_argument("--relative", type=float, default=1e-3, help="damping over the largest eigenvalue")
    parser.add_argument("--share", type=float, default=1e-4, help="smallest residual over the largest")
    parser.add_argument("--tol", type=float, nargs="+", default=[0.05, 0.02])
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    case = problem(given.problem, given.small)
    batch = uneven(case, given.share)
    damping = pi.Damping.relative(given.relative)
    truth = pi.influence(case.model, batch, "smse", damping=damping, tol=1e-4, row_tol=1e-2, product_dtype="float64")
    h = truth["smse", "smse"]
    size, spread = np.linalg.norm(h, axis=1), np.linalg.norm(h - h.mean(1, keepdims=True), axis=1)
    rows = []
    for tol in given.tol:
        for row_tol in (np.inf, None, 0.1):
            options = {} if row_tol is None else {"row_tol": row_tol}
            result = pi.influence(case.model, batch, "smse", damping=damping, tol=tol, **options)
            locking = summarize(result).class_locking
            rows.append(
                [
                    tol,
                    "default" if row_tol is None else row_tol,
                    result.n_jvp + result.n_vjp,
                    float(result.relative_error.max()),
                    float((result.row_error[0, 0] / spread).max()),
                    float((np.linalg.norm(result["smse", "smse"] - h, axis=1) / spread).max()),
                    locking.value,
                    f"{locking.bound_low:.2f} … {locking.bound_high:.2f}",
                    summarize(truth).class_locking.value,
                ]
            )
    print(f"{case}; norms of the rows differ by {size.max() / size.min():.1e}\n{machine()}\n")
    print(markdown(HEADERS, rows))


if __name__ == "__main__":
    main()
