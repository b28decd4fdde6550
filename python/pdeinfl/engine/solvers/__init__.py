"""Solvers of ``H = Gᵀη⁻¹G`` behind one interface: `Problem` in, `Solution` out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pdeinfl.engine.solvers.cg import solve_cg
from pdeinfl.engine.solvers.craigmr import solve_craigmr
from pdeinfl.engine.solvers.dense import solve_dense
from pdeinfl.engine.solvers.krylov import solve_krylov
from pdeinfl.engine.solvers.problem import Problem, Solution
from pdeinfl.engine.solvers.span import solve_span

SOLVERS: dict[str, Callable[..., Solution]] = {
    "cg": solve_cg,
    "craigmr": solve_craigmr,
    "dense": solve_dense,
    "krylov": solve_krylov,
    "span": solve_span,
}


def solve(name: str, problem: Problem, **options: Any) -> Solution:
    """Run the named solver; ``options`` are its own keyword arguments."""
    return SOLVERS[name](problem, **options)


__all__ = ["SOLVERS", "Problem", "Solution", "solve"]
