"""Solvers of ``H = Gᵀη⁻¹G`` behind one interface: `Problem` in, `Solution` out; `sketch` takes a `SketchProblem`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pdeinfl.engine.solvers.cg import solve_cg
from pdeinfl.engine.solvers.craigmr import solve_craigmr
from pdeinfl.engine.solvers.dense import solve_dense
from pdeinfl.engine.solvers.krylov import solve_krylov
from pdeinfl.engine.solvers.problem import Problem, Solution
from pdeinfl.engine.solvers.sketch import SketchProblem, solve_sketch
from pdeinfl.engine.solvers.span import solve_span

SOLVERS: dict[str, Callable[..., Solution]] = {
    "cg": solve_cg,
    "craigmr": solve_craigmr,
    "dense": solve_dense,
    "krylov": solve_krylov,
    "sketch": solve_sketch,
    "span": solve_span,
}


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the named solver does not take.

    Raises:
        ValueError: an unknown option; the message lists the solver's own.
    """
    known = [p for p in inspect.signature(SOLVERS[name]).parameters if p != "problem"]
    for option in options:
        if option not in known:
            own = f"its options are {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{option!r} is neither an argument nor an option of solver {name!r}: {own}")


def solve(name: str, problem: Problem | SketchProblem, **options: Any) -> Solution:
    """Run the named solver; ``options`` are its own keyword arguments."""
    return SOLVERS[name](problem, **options)


__all__ = ["SOLVERS", "Problem", "SketchProblem", "Solution", "check_options", "solve"]
