"""Trajectories of incompressible flow from initial-condition classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pdeinfl import _core
from pdeinfl.arguments import check_count
from pdeinfl.data.progress import ProgressReport
from pdeinfl.data.simulators.arguments import check_classes
from pdeinfl.data.simulators.initial_conditions import InitialCondition, trajectory_generator
from pdeinfl.data.simulators.spectral_flow import SpectralFlow
from pdeinfl.data.simulators.turbulence_initial_conditions import NS_CLASSES, BrownianBridge, Gauss, Sines
from pdeinfl.devices import check_device

INTERVAL = 0.05
"""Time between snapshots."""
PRE_EVOLUTION = {"BB": 0.5}
"""How long before t = 0 the flow of a class is started."""
_CLASSES: dict[str, InitialCondition] = {"BB": BrownianBridge(), "Gauss": Gauss(), "Sines": Sines()}
_CHUNK_VALUES = 2**21  # grid points in flight: some 500 MB of modes and padded products


def simulate_navier_stokes(
    classes: str | Sequence[str] | Mapping[str, InitialCondition] = NS_CLASSES,
    n_per_class: int = 1,
    resolution: int = 64,
    n_steps: int = 16,
    seed: int = 0,
    *,
    device: Any = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories of initial-condition classes, snapshots 0.05 apart, computed in float64.

    Trajectory k of a class depends on the seed, the class's name and k alone.

    Args:
        classes: names among BB, Gauss, Sines, or a mapping of names to functions ``(generator, resolution) ->
            (2, resolution, resolution)``; divergence is removed from what they return.
        n_per_class: trajectories of each.
        resolution: points along either axis, at least 4.
        n_steps: snapshots after the first.
        seed: of the random streams.
        device: of the computation; default the CPU.
        progress: show a bar.

    Returns:
        Velocities, float32 ``(n, n_steps + 1, 2, resolution, resolution)``, class by class, and class ids ``(n,)``.

    Raises:
        ValueError: an unknown class or an argument out of range; a class that returns something else than finite
            velocities of that shape; a flow that does not stay finite.
    """
    return simulate_plan(plan_flow(classes, n_per_class, resolution, n_steps, seed), device, progress)


@dataclass(frozen=True)
class FlowPlan:
    """A checked simulation: trajectories class by class, each with its own random stream."""

    class_names: tuple[str, ...]
    functions: tuple[InitialCondition, ...]
    n_per_class: int
    resolution: tuple[int, int]
    n_steps: int
    seed: int

    @property
    def n_trajectories(self) -> int:
        """Trajectories of all classes."""
        return len(self.class_names) * self.n_per_class

    def chunk_size(self) -> int:
        """Trajectories that are computed together."""
        return max(1, _CHUNK_VALUES // self.resolution[0] ** 2)

    def chunks(self, size: int | None = None) -> Iterator[tuple[int, range]]:
        """Class and trajectories of pieces of ``size`` trajectories, by default those computed together."""
        size = self.chunk_size() if size is None else size
        for class_id in range(len(self.class_names)):
            for start in range(0, self.n_per_class, size):
                yield class_id, range(start, min(start + size, self.n_per_class))


def plan_flow(
    classes: str | Sequence[str] | Mapping[str, InitialCondition] | None,
    n_per_class: int | None,
    resolution: int | None,
    n_steps: int,
    seed: int,
) -> FlowPlan:
    """Check the arguments of a simulation.

    Raises:
        ValueError: one line with the argument, what it must be and what it is.
    """
    if classes is None or n_per_class is None or resolution is None:
        raise ValueError("`classes`, `n_per_class` and `resolution` must be given for NS")
    names = check_classes(classes)
    n, size = check_count("n_per_class", n_per_class), check_count("resolution", resolution, 4)
    n_steps, seed = check_count("n_steps", n_steps, 0), check_count("seed", seed, 0)
    return FlowPlan(names, tuple(_function(classes, name) for name in names), n, (size, size), n_steps, seed)


def flow_provenance(plan: FlowPlan) -> dict[str, Any]:
    """What a simulation's numbers depend on, besides functions of the caller's: plain values."""
    return {"source": "simulated", "equation": "NS", "version": _core.__version__, "seed": plan.seed}


def simulate_plan(plan: FlowPlan, device: Any = None, progress: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """All trajectories of a checked plan, with their class ids."""
    states = np.empty((plan.n_trajectories, plan.n_steps + 1, 2, *plan.resolution), np.float32)
    with ProgressReport(plan.n_trajectories * plan.n_steps, "simulate NS", "intervals", progress) as report:
        for class_id, indices in plan.chunks():
            start = class_id * plan.n_per_class + indices.start
            states[start : start + len(indices)] = solve_chunk(plan, class_id, indices, device, report)
    return states, np.repeat(np.arange(len(plan.class_names)), plan.n_per_class)


def solve_chunk(
    plan: FlowPlan, class_id: int, indices: range, device: Any = None, report: ProgressReport | None = None
) -> np.ndarray:
    """Velocities of some trajectories of a class, float32 ``(len(indices), n_steps + 1, 2, X, Y)``."""
    name, size = plan.class_names[class_id], plan.resolution[0]
    flow = SpectralFlow(size, device=check_device("device", device))
    drawn = np.stack([_draw(name, plan.functions[class_id], k, size, plan.seed) for k in indices])
    out = np.empty((len(indices), plan.n_steps + 1, 2, *plan.resolution), np.float32)
    modes = flow.to_modes(torch.from_numpy(drawn).to(flow.kx.device))
    if name in PRE_EVOLUTION:
        modes = flow.advance(modes, PRE_EVOLUTION[name])
    out[:, 0] = flow.to_points(modes).cpu().numpy()
    for snapshot in range(1, out.shape[1]):
        modes = flow.advance(modes, INTERVAL)
        out[:, snapshot] = flow.to_points(modes).cpu().numpy()
        if report is not None:
            report.update(len(indices))
    finite = np.isfinite(out).all((1, 2, 3, 4))
    if not finite.all():
        first = indices[int(np.flatnonzero(~finite)[0])]
        raise ValueError(f"class {name!r}, trajectory {first}: the flow does not stay finite: lower its velocities")
    return out


def _function(classes: Any, name: str) -> InitialCondition:
    if isinstance(classes, Mapping):
        return classes[name]
    if name not in _CLASSES:
        raise ValueError(
            f"`classes` must be among {', '.join(NS_CLASSES)} for NS; got {name!r}: pass a dict of name to function "
            "for a class of your own"
        )
    return _CLASSES[name]


def _draw(name: str, function: InitialCondition, index: int, resolution: int, seed: int) -> np.ndarray:
    state = np.asarray(function(trajectory_generator(seed, name, index), resolution), np.float64)
    if state.shape != (2, resolution, resolution):
        raise ValueError(f"class {name!r} must return shape (2, {resolution}, {resolution}); got {state.shape}")
    if not np.isfinite(state).all():
        raise ValueError(f"class {name!r}, trajectory {index} holds NaN or infinity: initial states must be finite")
    return state
