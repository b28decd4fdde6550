"""Compressible Euler trajectories as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pdeinfl import _core
from pdeinfl.arguments import check_count
from pdeinfl.data.progress import ProgressReport
from pdeinfl.data.simulators.euler_plan import EulerPlan, check_states, plan_euler
from pdeinfl.data.simulators.initial_conditions import InitialCondition

GAMMA = 1.4
INTERVAL = 0.05
MAX_CFL = 0.475


def solve_euler(
    primitives: Any,
    n_steps: int,
    *,
    interval: float = INTERVAL,
    gamma: float = GAMMA,
    cfl: float = MAX_CFL,
    refinement: int = 1,
    dtype: Any = np.float64,
    num_threads: int | None = None,
    progress: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Solve the compressible Euler equations from given states on the periodic unit square.

    .. math:: \partial_t (\rho, \rho v, E) + \nabla\cdot(\rho v, \rho v\otimes v + p, (E+p)v) = 0,
        \quad p = (\gamma-1)(E - \tfrac12\rho|v|^2)

    2-D unsplit finite volumes: primitive variables reconstructed with the monotonised-central limiter (first order in
    a cell that has a face without positive density or pressure), HLLC fluxes, SSP-RK2. A time step is two stages;
    :math:`\Delta t = \mathrm{cfl} / \max((|v_x|+c)/\Delta x + (|v_y|+c)/\Delta y)`, the maximum over cells at the
    beginning of the step, shortened to land on snapshot times. A step that would lose positivity is repeated with
    first-order fluxes. float64 throughout; the result does not depend on ``num_threads``.

    Args:
        primitives: density, velocities along x and y, pressure, ``(n, 4, X, Y)``, axis −2 along x. They are the cells
            of the simulation.
        n_steps: intervals to simulate; there are ``n_steps + 1`` snapshots, the initial state included.
        interval: time between snapshots.
        gamma: ratio of specific heats.
        cfl: in (0, 0.475].
        refinement: snapshots are means of the conserved variables over ``refinement x refinement`` cells.
        dtype: float32 or float64, of the snapshots.
        num_threads: default ``RAYON_NUM_THREADS``, else all cores.
        progress: called now and then with the number of finished intervals, out of ``n * n_steps``.

    Returns:
        Conserved snapshots (density, momenta, total energy), ``(n, n_steps + 1, 4, X / refinement, Y / refinement)``,
        and the number of time steps of each trajectory, ``(n,)``.

    Raises:
        ValueError: a wrong shape or parameter, a state that is not physical (density and pressure from 1e-100 to
            1e100), or a trajectory that stops being so.
    """
    states = check_states(primitives)
    n_steps, refinement = check_count("n_steps", n_steps), check_count("refinement", refinement)
    n, _, nx, ny = states.shape
    if nx % refinement or ny % refinement:
        raise ValueError(f"`refinement` must divide the {nx} x {ny} cells; got {refinement}")
    out = np.empty((n, n_steps + 1, 4, nx // refinement, ny // refinement), dtype)
    steps = _core.euler_solve(states, out, interval, gamma, cfl, refinement, num_threads, progress)
    return out, steps


def simulate_euler(
    classes: str | Sequence[str] | Mapping[str, InitialCondition] | None = None,
    n_per_class: int | None = None,
    resolution: int | None = None,
    n_steps: int = 16,
    seed: int = 0,
    *,
    preset: str = "release_like",
    initial_states: Any = None,
    refinement: int | None = None,
    cfl: float = MAX_CFL,
    num_threads: int | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Trajectories of initial-condition classes, or of given initial states, as arrays.

    The arguments are those of :func:`pdeinfl.simulate`.

    Returns:
        Conserved states, float32 ``(n, n_steps + 1, 4, X, Y)``, class by class; class ids ``(n,)``; class names.
    """
    plan = plan_euler(classes, n_per_class, resolution, n_steps, seed, preset, initial_states, refinement)
    states, class_ids = simulate_plan(plan, cfl, num_threads, progress)
    return states, class_ids, plan.class_names


def simulate_plan(
    plan: EulerPlan, cfl: float = MAX_CFL, num_threads: int | None = None, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """All trajectories of a checked plan, with their class ids."""
    states = np.empty((plan.n_trajectories, plan.n_steps + 1, 4, *plan.resolution), np.float32)
    with ProgressReport(plan.n_trajectories * plan.n_steps, "simulate CE", "intervals", progress) as report:
        for class_id, indices in plan.chunks():
            start = class_id * plan.n_per_class + indices.start
            states[start : start + len(indices)] = solve_chunk(plan, class_id, indices, cfl, num_threads, report)
    return states, np.repeat(np.arange(len(plan.class_names)), plan.n_per_class)


def solve_chunk(
    plan: EulerPlan,
    class_id: int,
    indices: range,
    cfl: float = MAX_CFL,
    num_threads: int | None = None,
    report: ProgressReport | None = None,
) -> np.ndarray:
    """Conserved float32 snapshots of some trajectories of a class."""
    done = 0

    def advance(units: int) -> None:
        nonlocal done
        if report is not None:
            report.update(units - done)
        done = units

    states, _ = solve_euler(
        plan.primitives(class_id, indices),
        plan.n_steps,
        cfl=cfl,
        refinement=plan.refinement,
        dtype=np.float32,
        num_threads=num_threads,
        progress=advance,
    )
    advance(len(indices) * plan.n_steps)
    return states


def euler_provenance(plan: EulerPlan, cfl: float) -> dict[str, Any]:
    """What a simulation's numbers depend on, besides functions or states of the caller's: plain values."""
    return {
        "source": "simulated",
        "equation": "CE",
        "version": _core.__version__,
        "gamma": GAMMA,
        "cfl": float(cfl),
        "refinement": plan.refinement,
        "initial_conditions": plan.preset,
        "seed": plan.seed,
    }
