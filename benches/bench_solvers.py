"""Products and seconds against the true error of H, for every solver, model and relative damping.

Run: ``python benches/bench_solvers.py [--problem conv ViT UNet] [--damping 1e-6 … 1e-1] [--truth 1e-6] [--small]``
``[--solver cg nystrom span craigmr] [--rtol 0.5 … 1e-3]``

H is the (smse, smse) block. Truth is `krylov` in float64, certified to ``--truth`` or as far as the line above the
table says; the errors below are known to that.
`krylov` gets ``tol = target`` and knows nothing of the truth; `cg` and Nyström-`cg` run at every ``rtol`` of a ladder,
and the summary compares `krylov` with the cheapest rung whose true error is no larger than krylov's own. Products are
JVPs + VJPs over the mini-batch; the certificate and the residual checks of `cg` are not counted, and their share of
its seconds, taken as their share of all products, is left out. With ``--repeats 1`` the runs that measure the errors
are those that are timed, one after the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pdeinfl as pi
from measure import Timing, interleaved, machine, markdown, write_json
from problems import PROBLEMS, BenchProblem, problem

OTHERS = ("span", "craigmr", "cg", "nystrom")
RTOLS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3)
HEADERS = ["problem", "λ/λ_max", "solver", "products", "seconds", "true error", "reported error", "probe ms"]


@dataclass(frozen=True)
class Run:
    """One solver at one damping."""

    label: str
    call: Callable[[], pi.Influence]
    products: int
    error: float
    reported: float
    checks: int
    timing: Timing

    def seconds(self, measured: float) -> float:
        """What the solve took without its checks."""
        return measured * self.products / (self.products + self.checks)


def influence(case: BenchProblem, damping: Any, solver: str, **options: Any) -> pi.Influence:
    """H_CC of the problem's mini-batch."""
    return pi.influence(case.model, case.batch, "smse", "smse", solver=solver, damping=damping, keep_steps=False,
                        **options)  # fmt: skip


def truths(case: BenchProblem, dampings: Sequence[float], tol: float) -> tuple[float, list[np.ndarray], list[float]]:
    """λ_max, H in float64 at each relative damping, and what the certificate says of each."""
    wanted = [pi.Damping.relative(d) for d in dampings]
    solved = influence(case, wanted, "krylov", product_dtype="float64", tol=tol)
    each = solved.at_damping(wanted)
    return solved.lambda_max, [r.values[0, 0] for r in each], [float(r.relative_error.max()) for r in each]


def runs(case: BenchProblem, damping: float, truth: np.ndarray, args: argparse.Namespace) -> list[Run]:
    """Every solver at an absolute damping; a ladder of ``rtol`` ends where it beats krylov's true error."""
    found: list[pi.Influence] = []

    def one(label: str, solver: str, **options: Any) -> Run:
        def call() -> pi.Influence:
            return influence(case, damping, solver, tol=args.target, **options)

        timing = interleaved({label: lambda: found.append(call())}, 1)[label]
        result = found.pop()
        n = len(case.batch)
        # cg and craigmr check themselves afterwards: 2n products for the residuals, 2n for the certificate.
        checks = 4 * n if solver in ("cg", "craigmr") else 0
        error = float(np.linalg.norm(result.values[0, 0] - truth) / np.linalg.norm(truth))
        products = result.n_jvp + result.n_vjp - checks
        return Run(label, call, products, error, float(result.relative_error.max()), checks, timing)

    out = [one("krylov", "krylov")]
    if "span" in args.solver:
        out.append(one("span", "span"))
    if "craigmr" in args.solver:
        out.append(one("craigmr rtol 1.5e-2", "craigmr"))
    ladders = {"cg": ("cg", 0), "nystrom": (f"cg Nyström {args.nystrom_rank}", args.nystrom_rank)}
    for label, nystrom in (ladder for name, ladder in ladders.items() if name in args.solver):
        for rtol in args.rtol:
            out.append(one(f"{label} rtol {rtol:g}", "cg", rtol=rtol, nystrom_rank=nystrom))
            if out[-1].error <= out[0].error:
                break
    return out


def summary(relative: float, case: BenchProblem, rows: list[list[Any]]) -> str:
    """krylov against the cheapest cg at the same true error."""
    ours = rows[0]
    said = []
    for kind in ("cg rtol", "cg Nyström"):
        tried = [r for r in rows if r[2].startswith(kind)]
        if not tried:
            continue
        good = [r for r in tried if r[5] <= ours[5]]
        if not good:
            best = min(tried, key=lambda r: r[5])
            said.append(f"{kind.split(' rtol')[0]} does not get there (best {best[5]:.2g} after {best[3]} products)")
            continue
        products, seconds = min(r[3] for r in good), min(r[4] for r in good)
        said.append(
            f"{kind.split(' rtol')[0]} takes {products / ours[3]:.1f}× the products, {seconds / ours[4]:.1f}× the time"
        )
    return f"{case.name} at {relative:g}: krylov {ours[5]:.2%} true error; " + "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--damping", type=float, nargs="+", default=[1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
    parser.add_argument("--target", type=float, default=0.02)
    parser.add_argument("--truth", type=float, default=1e-6)
    parser.add_argument("--solver", nargs="+", choices=OTHERS, default=list(OTHERS), help="beside krylov")
    parser.add_argument("--rtol", type=float, nargs="+", default=list(RTOLS), help="ladder of cg, loose to tight")
    parser.add_argument("--nystrom-rank", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="surrogates at 6 examples of 16x16")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    print(machine() + "\n", flush=True)
    rows: list[list[Any]] = []
    summaries: list[str] = []
    for name in args.problem:
        case = problem(name, args.small)
        lambda_max, matrices, certified = truths(case, args.damping, args.truth)
        print(f"{case}; λ_max = {lambda_max:.4g}; truth certified to {max(certified):.1e}\n", flush=True)
        for relative, truth in zip(args.damping, matrices, strict=True):
            found = runs(case, relative * lambda_max, truth, args)
            times = {r.label: r.timing for r in found}
            if args.repeats > 1:
                times = interleaved({r.label: r.call for r in found}, args.repeats)
            block = [[name, relative, r.label, r.products, r.seconds(times[r.label].seconds), r.error, r.reported,
                      times[r.label].probe * 1e3] for r in found]  # fmt: skip
            summaries.append(summary(relative, case, block))
            print(markdown(HEADERS, block) + f"\n\n{summaries[-1]}\n", flush=True)
            rows += block
    write_json(args.json, {"headers": HEADERS, "rows": rows, "summaries": summaries})


if __name__ == "__main__":
    main()
