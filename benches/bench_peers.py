"""Influence of a small mini-batch: ``pi.influence(solver="krylov")`` against curvlinops, pyDVL, dattri, kronfluence.

Run: ``python benches/bench_peers.py [--problem conv] [--repeats 5] [--damping 1e-3 1e-5] [--target 0.02]``
``[--library NAME …] [--truth 1e-6]``

Needs ``pip install "pdeinfl[bench]"``. Everybody solves the same ``H = Gᵀ(JᵀJ + λ)⁻¹G`` of a trained conv net (20,836
parameters, 12 examples of 4×16×16), or of a ViT or UNet of the demo's kind (`problems`). Truth is `krylov` in float64
certified to ``--truth``, or with ``--dense`` the dense solver (12,288 outputs: minutes, 6 GiB); peers that converge to
it confirm it. Ours runs twice: asked for ``tol = target``, which it must certify, and like a peer. A peer is handed the
truth: its knob (tolerance or iteration count) is the cheapest at which its true error meets the target, found
beforehand by bisection and not timed. float32, or float64 where only that gets there.
Each time is the median of interleaved repeats, from the module and the examples to H, with a speed probe beside it;
what misses the target is timed once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import pdeinfl as pi
from measure import interleaved, machine, markdown, write_json
from peers import LIBRARIES, Answer, Method, Setting, half_squared_error, quiet, tolerances
from problems import PROBLEMS, BenchProblem, problem

OURS = "pdeinfl krylov, certified"


def half_sse(prediction: Tensor, target: Tensor, state: Tensor) -> Tensor:
    """``½Σ(f − y)²`` of each example: the observable that all share."""
    return vmap(half_squared_error)(prediction, target)


@dataclass(frozen=True)
class Tuned:
    """A method at its cheapest knob that meets the target, or at its most accurate one."""

    name: str
    library: str
    dtype: str
    call: Callable[[], Answer]
    knob: Any
    error: float
    products: int | None


def influence(problem: BenchProblem, damping: Any, solver: str = "krylov", **options: Any) -> pi.Influence:
    """H of the shared observable; a float damping is absolute."""
    return pi.influence(problem.model, problem.batch, (half_sse,), (half_sse,), solver=solver, damping=damping,
                        keep_steps=False, **options)  # fmt: skip


def relative_error(values: np.ndarray, truth: np.ndarray) -> float:
    """``‖H − truth‖_F/‖truth‖_F``, infinite where H is not finite."""
    error = float(np.linalg.norm(values - truth) / np.linalg.norm(truth))
    return error if np.isfinite(error) else float("inf")


def cheapest(method: Method, truth: np.ndarray, target: float) -> tuple[Any, float, int | None]:
    """Bisection over knobs, cheap to accurate, for the first that meets the target; else the best one seen."""
    seen: dict[int, tuple[float, int | None]] = {}

    def error_at(k: int) -> float:
        if k not in seen:
            answer = method.run(method.knobs[k])
            seen[k] = relative_error(answer.values, truth), answer.products
        return seen[k][0]

    # Gallop first: the accurate end of the list may cost minutes, or stagnate below the target.
    high, step = 0, 1
    while error_at(high) > target and high < len(method.knobs) - 1:
        high, step = min(high + step, len(method.knobs) - 1), step + 1
    good = [k for k in seen if seen[k][0] <= target]
    if good:
        best = min(good)
        low = max((k for k in seen if k < best), default=-1)
        while best - low > 1:
            middle = (best + low) // 2
            if error_at(middle) <= target:
                best = middle
            else:
                low = middle
    else:
        best = min(seen, key=lambda k: seen[k][0])
    return method.knobs[best], *seen[best]


def tune(
    problem: BenchProblem, library: str, damping: float, lambda_max: float, truth: np.ndarray, target: float
) -> tuple[list[Tuned], list[tuple[str, str]]]:
    """Every method of a library, tuned in float32 and, where that misses the target, in float64; and what failed."""
    tuned: dict[str, Tuned] = {}
    failed: list[tuple[str, str]] = []
    for dtype in (torch.float32, torch.float64):
        setting = Setting.of(problem, dtype, damping, lambda_max)
        for method in LIBRARIES[library][1](setting):
            before = tuned.get(method.name)
            iterative = len(method.knobs) > 1
            if dtype == torch.float64 and (before is None or before.error <= target or not iterative):
                continue
            try:
                knob, error, products = cheapest(method, truth, target)
            except Exception as reason:
                message = str(reason).strip().splitlines()
                failed.append((method.name, message[0][:160] if message else type(reason).__name__))
                continue
            if before is None or error < before.error:
                call = _bind(method, knob)
                tuned[method.name] = Tuned(method.name, library, str(dtype)[6:], call, knob, error, products)
    return list(tuned.values()), failed


def _bind(method: Method, knob: Any) -> Callable[[], Answer]:
    return lambda: method.run(knob)


def ours_as_a_peer(problem: BenchProblem, damping: float) -> Method:
    """`krylov` with its tolerance for a knob."""

    def run(tol: float) -> Answer:
        result = influence(problem, damping, tol=tol)
        return Answer(result.values[0, 0], result.n_jvp + result.n_vjp)

    return Method("pdeinfl krylov, handed the truth", run, tolerances(0.5))


def reference(problem: BenchProblem, relative: list[float], dense: bool, tol: float) -> tuple[float, list[np.ndarray]]:
    """λ_max, and the true H at each relative damping."""
    dampings = [pi.Damping.relative(r) for r in relative]
    solved = influence(problem, dampings, "dense" if dense else "krylov", product_dtype="float64", tol=tol)
    at_each = solved.at_damping(dampings)
    bad = [r.damping for r in at_each if not r.converged]
    if bad:
        raise RuntimeError(f"no truth: krylov in float64 did not certify {tol:g} at the dampings {bad}; pass --dense")
    return solved.lambda_max, [r.values[0, 0] for r in at_each]


def compare(
    problem: BenchProblem, relative: float, lambda_max: float, truth: np.ndarray, args: argparse.Namespace
) -> list[list[Any]]:
    """The rows of one damping, ours first."""
    damping = relative * lambda_max
    ours = influence(problem, damping, tol=args.target)
    method = ours_as_a_peer(problem, damping)
    knob, reached, products = cheapest(method, truth, args.target)
    tuned = [Tuned(method.name, "pdeinfl", "float32", _bind(method, knob), knob, reached, products)]
    failed = []
    for library in args.library:
        with quiet():
            some, not_these = tune(problem, library, damping, lambda_max, truth, args.target)
        tuned += some
        failed += not_these
    calls: dict[str, Callable[[], Any]] = {OURS: lambda: influence(problem, damping, tol=args.target)}
    calls |= {t.name: t.call for t in tuned if t.error <= args.target}
    with quiet():
        times = interleaved(calls, args.repeats)
        times |= interleaved({t.name: t.call for t in tuned if t.error > args.target}, 1)
    base = times[OURS]
    note = "certified" if ours.converged else "NOT converged"
    error = relative_error(ours.values[0, 0], truth)
    rows: list[list[Any]] = [[relative, OURS, "float32", base.seconds, error, ours.n_jvp + ours.n_vjp, 1.0,
                              base.probe * 1e3, f"{note} ≤ {float(ours.relative_error.max()):.2g}"]]  # fmt: skip
    for t in tuned:
        time = times[t.name]
        reached = "" if t.error <= args.target else "misses the target"
        knob = "" if t.knob is None else f"knob {t.knob:.3g}"
        rows.append([relative, t.name, t.dtype, time.seconds, t.error, t.products, time.seconds / base.seconds,
                     time.probe * 1e3, ", ".join(filter(None, (reached, knob)))])  # fmt: skip
    rows += [[relative, name, None, None, None, None, None, None, reason] for name, reason in failed]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=PROBLEMS, default="conv")
    parser.add_argument("--truth", type=float, default=1e-6, help="certified error of the truth")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--damping", type=float, nargs="+", default=[1e-3, 1e-5], help="relative to λ_max")
    parser.add_argument("--target", type=float, default=0.02, help="relative Frobenius error of H to reach")
    parser.add_argument("--library", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--dense", action="store_true", help="truth from the dense solver")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    case = problem(args.problem)
    lambda_max, truths = reference(case, args.damping, args.dense, args.truth)
    packages = ", ".join(f"{name} {metadata.version(LIBRARIES[name][0])}" for name in args.library)
    print(f"{case}\n{machine()}\n{packages}; λ_max = {lambda_max:.4g}, target {args.target:g}\n", flush=True)
    headers = ["λ/λ_max", "method", "dtype", "seconds", "true error", "products", "× ours", "probe ms", "note"]
    rows = []
    for relative, truth in zip(args.damping, truths, strict=True):
        with sdpa_kernel(SDPBackend.MATH):  # the only attention with forward mode and batching, which peers need
            block = compare(case, relative, lambda_max, truth, args)
        print(markdown(headers, block) + "\n", flush=True)
        rows += block
    write_json(args.json, {"problem": str(case), "packages": packages, "headers": headers, "rows": rows})


if __name__ == "__main__":
    main()
