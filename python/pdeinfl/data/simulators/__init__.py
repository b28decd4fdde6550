"""Simulators of the two equations; :func:`simulate` is the public face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pdeinfl.arguments import check_one_of
from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS
from pdeinfl.data.simulators.arguments import EQUATIONS, refuse_gas_arguments
from pdeinfl.data.simulators.euler import INTERVAL, MAX_CFL, euler_provenance, simulate_plan
from pdeinfl.data.simulators.euler_plan import plan_euler
from pdeinfl.data.simulators.initial_conditions import PRESETS, InitialCondition
from pdeinfl.data.trajectories import Trajectories


def simulate(
    equation: str,
    classes: str | Sequence[str] | Mapping[str, InitialCondition] | None = None,
    n_per_class: int | None = None,
    resolution: int | None = None,
    n_steps: int = 16,
    seed: int = 0,
    preset: str = "release_like",
    initial_states: Any = None,
    refinement: int | None = None,
    num_threads: int | None = None,
    progress: bool = False,
    cfl: float = MAX_CFL,
    device: Any = None,
) -> Trajectories:
    """Simulate labelled trajectories on the periodic unit square.

    Trajectory ``k`` of a class is the same, bit for bit, whatever the other classes, ``n_per_class`` and
    ``num_threads``.

    Args:
        equation: ``"CE"``, compressible Euler with gamma 1.4, or ``"NS"``, incompressible Navier–Stokes.
        classes: one name or several of RP, CRP, RPUI (CE) or BB, Gauss, Sines (NS); or a dict from names to functions
            ``(numpy.random.Generator, resolution) -> (4, resolution, resolution)`` of primitive states (velocities for
            NS), which are called with the resolution of the simulation, ``refinement * resolution``. With
            ``initial_states``, the one name that labels them (default ``"custom"``).
        n_per_class: trajectories of each class.
        resolution: cells along each axis of the snapshots.
        n_steps: intervals of 0.05; a trajectory has ``n_steps + 1`` snapshots, the initial state included.
        seed: non-negative integer.
        preset: ``"release_like"`` matches published moments of the released PDEgym files, and nothing more;
            ``"paper"`` is as printed. For CE.
        initial_states: density, velocities along x and y and pressure, ``(n, 4, X, Y)``, axis −2 along x, instead of
            drawn ones. If they are finer than ``resolution``, they are simulated as they are and averaged down.
        refinement: CE is simulated with ``refinement * resolution`` cells along each axis; snapshots are block means of
            the conserved variables. Default 2, and 1 for ``initial_states``, whose cells are else cut up as constants.
        num_threads: default ``RAYON_NUM_THREADS``, else all cores.
        progress: whether to show a bar.
        device: NS only: of the computation, by default the CPU.
        cfl: CE only, in (0, 0.475]: see :func:`pdeinfl.data.simulators.euler.solve_euler`.

    Returns:
        Trajectories class by class: float32 density, momenta and total energy (CE), or velocities (NS).

    Raises:
        ValueError: an unknown equation, class or preset; a count, shape or state that is not possible.

    Example:
        >>> traj = simulate("CE", classes=("RP", "CRP"), n_per_class=2, resolution=16, n_steps=2, seed=0)
        >>> len(traj), traj[0].shape, traj.class_names
        (4, (3, 4, 16, 16), ('RP', 'CRP'))
    """
    check_one_of("equation", equation, EQUATIONS)
    check_one_of("preset", preset, PRESETS)
    channels: tuple[str, ...]
    if equation == "CE":
        plan = plan_euler(classes, n_per_class, resolution, n_steps, seed, preset, initial_states, refinement)
        states, class_ids = simulate_plan(plan, cfl, num_threads, progress)
        names, channels, provenance = plan.class_names, CE_CHANNELS, euler_provenance(plan, cfl)
    else:
        refuse_gas_arguments(initial_states, refinement)
        from pdeinfl.data.simulators import navier_stokes

        flow = navier_stokes.plan_flow(classes, n_per_class, resolution, n_steps, seed)
        states, class_ids = navier_stokes.simulate_plan(flow, device, progress)
        names, channels, provenance = flow.class_names, NS_CHANNELS, navier_stokes.flow_provenance(flow)
    return Trajectories.from_arrays(
        states,
        class_ids=class_ids,
        class_names=names,
        channel_names=channels,
        time_step=INTERVAL,
        provenance=provenance,
    )
