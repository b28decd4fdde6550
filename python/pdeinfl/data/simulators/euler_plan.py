"""What a compressible Euler simulation is asked for, checked, and how it is cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdeinfl.arguments import check_count
from pdeinfl.data.simulators.arguments import check_classes
from pdeinfl.data.simulators.initial_conditions import InitialCondition, check_physical, draw_states, initial_condition

_CHUNK_BYTES = 128 * 2**20


@dataclass(frozen=True)
class EulerPlan:
    """A checked simulation: trajectories class by class, each with its own random stream.

    ``preset`` is ``"custom"`` for functions and ``"given"`` for states of the caller. ``upsampling`` is how many times
    each cell of ``given`` is repeated along either axis.
    """

    class_names: tuple[str, ...]
    functions: tuple[InitialCondition, ...]
    given: np.ndarray | None
    n_per_class: int
    resolution: tuple[int, int]
    n_steps: int
    seed: int
    refinement: int
    preset: str
    upsampling: int = 1

    @property
    def n_trajectories(self) -> int:
        """Trajectories of all classes."""
        return len(self.class_names) * self.n_per_class

    def primitives(self, class_id: int, indices: range) -> np.ndarray:
        """Initial states of some trajectories of a class, at the resolution of the simulation."""
        if self.given is not None:
            chosen = self.given[indices.start : indices.stop]
            return chosen.repeat(self.upsampling, axis=-2).repeat(self.upsampling, axis=-1)
        name, function = self.class_names[class_id], self.functions[class_id]
        return draw_states(name, function, indices, self.resolution[0] * self.refinement, self.seed)

    def chunk_size(self, n_bytes: int = _CHUNK_BYTES) -> int:
        """Trajectories whose initial states and snapshots take about ``n_bytes``, at least sixteen."""
        cells = self.resolution[0] * self.resolution[1]
        return max(16, n_bytes // (cells * (4 * 8 * self.refinement**2 + 4 * 4 * (self.n_steps + 1))))

    def chunks(self, size: int | None = None) -> Iterator[tuple[int, range]]:
        """Class and trajectories of pieces of ``size`` trajectories; by default they take about a hundred megabytes."""
        size = self.chunk_size() if size is None else size
        for class_id in range(len(self.class_names)):
            for start in range(0, self.n_per_class, size):
                yield class_id, range(start, min(start + size, self.n_per_class))


def plan_euler(
    classes: str | Sequence[str] | Mapping[str, InitialCondition] | None,
    n_per_class: int | None,
    resolution: int | None,
    n_steps: int,
    seed: int,
    preset: str = "release_like",
    initial_states: Any = None,
    refinement: int | None = None,
) -> EulerPlan:
    """Check the arguments of a simulation.

    Raises:
        ValueError: one line with the argument, what it must be and what it is.
    """
    n_steps, seed = check_count("n_steps", n_steps), check_count("seed", seed, least=0)
    if refinement is not None:
        refinement = check_count("refinement", refinement)
    if initial_states is not None:
        names = check_classes("custom" if classes is None else classes)
        if len(names) != 1:
            raise ValueError(f"`classes` must name the one class of `initial_states`; got {', '.join(names)}")
        return _plan_given(names, n_per_class, resolution, n_steps, seed, initial_states, refinement)
    if classes is None or n_per_class is None or resolution is None:
        raise ValueError("`classes`, `n_per_class` and `resolution` must be given unless `initial_states` is")
    names = check_classes(classes)
    drawn = {name: initial_condition(name, preset) for name in names} if not isinstance(classes, Mapping) else classes
    for name in names:
        if not callable(drawn[name]):
            raise ValueError(
                f"`classes[{name!r}]` must be a function (generator, resolution) -> (4, X, Y); got {drawn[name]!r}"
            )
    functions = tuple(drawn[name] for name in names)
    n, size = check_count("n_per_class", n_per_class), check_count("resolution", resolution, least=4)
    refinement = 2 if refinement is None else refinement
    preset = "custom" if isinstance(classes, Mapping) else preset
    return EulerPlan(names, functions, None, n, (size, size), n_steps, seed, refinement, preset)


def check_states(initial_states: Any) -> np.ndarray:
    """Primitive states as a float64 array ``(n, 4, X, Y)``."""
    states = np.ascontiguousarray(initial_states, dtype=np.float64)
    if np.ndim(initial_states) != 4 or states.shape[1] != 4 or 0 in states.shape:
        raise ValueError(
            "`initial_states` must have shape (n, 4, X, Y): density, velocity along x, along y, pressure; "
            f"got {np.shape(initial_states)}"
        )
    check_physical(states, "`initial_states`")
    return states


def _plan_given(
    names: tuple[str, ...],
    n_per_class: int | None,
    resolution: int | None,
    n_steps: int,
    seed: int,
    initial_states: Any,
    refinement: int | None,
) -> EulerPlan:
    given = check_states(initial_states)
    n, _, nx, ny = given.shape
    if n_per_class is not None and n_per_class != n:
        raise ValueError(f"`n_per_class` must be None or the {n} of `initial_states`; got {n_per_class}")
    coarsening = 1
    if resolution is not None:
        coarsening = max(nx, ny) // check_count("resolution", resolution)
        if coarsening * resolution != max(nx, ny) or nx % coarsening or ny % coarsening:
            raise ValueError(
                f"`resolution` must be None, or divide the {nx} x {ny} cells of `initial_states`; got {resolution}"
            )
    if coarsening > 1:
        if refinement not in (None, coarsening):
            raise ValueError(
                f"`refinement` must be None or {coarsening}, the ratio of `initial_states` to `resolution`; "
                f"got {refinement}"
            )
        coarse = (nx // coarsening, ny // coarsening)
        return EulerPlan(names, (), given, n, coarse, n_steps, seed, coarsening, "given")
    refinement = 1 if refinement is None else refinement
    return EulerPlan(names, (), given, n, (nx, ny), n_steps, seed, refinement, "given", upsampling=refinement)
