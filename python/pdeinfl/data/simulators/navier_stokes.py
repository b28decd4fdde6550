"""Trajectories of incompressible flow from initial-condition classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pdeinfl.data.simulators.arguments import check_classes, check_count
from pdeinfl.data.simulators.initial_conditions import InitialCondition, trajectory_generator
from pdeinfl.data.simulators.spectral_flow import SpectralFlow
from pdeinfl.data.simulators.turbulence_initial_conditions import NS_CLASSES, BrownianBridge, Gauss, Sines

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
    names = check_classes(classes)
    n, size = check_count("n_per_class", n_per_class), check_count("resolution", resolution, 4)
    n_steps, seed = check_count("n_steps", n_steps, 0), check_count("seed", seed, 0)
    states = np.empty((n * len(names), n_steps + 1, 2, size, size), np.float32)
    with tqdm(total=len(states) * n_steps, desc="simulate NS", unit="interval", disable=not progress,
              leave=False) as bar:  # fmt: skip
        for class_id, name in enumerate(names):
            function = _function(classes, name)
            for chunk in chunks(n, size):
                start = class_id * n + chunk.start
                out = states[start : start + len(chunk)]
                solve_chunk(name, function, chunk, size, seed, out, device, bar)
    return states, np.repeat(np.arange(len(names)), n)


def chunks(n_per_class: int, resolution: int) -> Iterator[range]:
    """Trajectories of a class cut into pieces that are computed together."""
    size = max(1, _CHUNK_VALUES // resolution**2)
    for start in range(0, n_per_class, size):
        yield range(start, min(start + size, n_per_class))


def solve_chunk(
    name: str,
    function: InitialCondition,
    indices: range,
    resolution: int,
    seed: int,
    out: np.ndarray,
    device: Any = None,
    bar: Any = None,
) -> None:
    """Snapshots of some trajectories of a class, into ``out`` ``(len(indices), n_steps + 1, 2, X, Y)``."""
    flow = SpectralFlow(resolution, device=torch.device("cpu" if device is None else device))
    drawn = np.stack([_draw(name, function, k, resolution, seed) for k in indices])
    modes = flow.to_modes(torch.from_numpy(drawn).to(flow.kx.device))
    if name in PRE_EVOLUTION:
        modes = flow.advance(modes, PRE_EVOLUTION[name])
    out[:, 0] = flow.to_points(modes).cpu().numpy()
    for snapshot in range(1, out.shape[1]):
        modes = flow.advance(modes, INTERVAL)
        out[:, snapshot] = flow.to_points(modes).cpu().numpy()
        if bar is not None:
            bar.update(len(indices))
    finite = np.isfinite(out).all((1, 2, 3, 4))
    if not finite.all():
        first = indices[int(np.flatnonzero(~finite)[0])]
        raise ValueError(f"class {name!r}, trajectory {first}: the flow does not stay finite: lower its velocities")


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
