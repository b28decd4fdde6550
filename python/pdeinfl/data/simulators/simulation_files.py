"""Sets of trajectories larger than memory, simulated piece by piece into PDEgym files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfl.arguments import check_count, check_one_of
from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS
from pdeinfl.data.progress import ProgressReport
from pdeinfl.data.simulators import euler
from pdeinfl.data.simulators.arguments import EQUATIONS, refuse_gas_arguments
from pdeinfl.data.simulators.euler_plan import EulerPlan, plan_euler
from pdeinfl.data.simulators.initial_conditions import PRESETS, InitialCondition
from pdeinfl.data.writer import TrajectoryWriter

_SETTINGS = "simulation.json"


@dataclass(frozen=True)
class _Set:
    """A checked simulation with what its files need: ``solve(class_id, trajectories, report)`` gives the snapshots."""

    equation: str
    plan: Any
    channels: tuple[str, ...]
    provenance: dict[str, Any]
    solve: Callable[[int, range, ProgressReport], np.ndarray]

    def paths(self, out: Path, size: int | None) -> list[Path]:
        """File or folder of each class."""
        suffix = ".nc" if size is None else ""
        return [out / f"{self.equation}-{name}{suffix}" for name in self.plan.class_names]

    def files(self, out: Path, size: int | None) -> Iterator[tuple[Path, int, range]]:
        """Path, class and trajectories of every file."""
        paths, part = self.paths(out, size), "data" if self.equation == "CE" else "velocity"
        for class_id, indices in self.plan.chunks(self.plan.n_per_class if size is None else size):
            path = paths[class_id]
            yield path if size is None else path / f"{part}_{indices.start // size}.nc", class_id, indices


def simulate_to_files(
    out_dir: str | Path,
    classes: str | Sequence[str] | Mapping[str, InitialCondition] | None = None,
    n_per_class: int | None = None,
    resolution: int | None = None,
    n_steps: int = 20,
    seed: int = 0,
    preset: str = "release_like",
    initial_states: Any = None,
    refinement: int | None = None,
    *,
    equation: str = "CE",
    part_size: int | None = None,
    rank: int = 0,
    n_ranks: int = 1,
    num_threads: int | None = None,
    device: Any = None,
    progress: bool = False,
    cfl: float = euler.MAX_CFL,
) -> list[Path]:
    """Simulate trajectories into PDEgym files: the numbers that :func:`pdeinfl.simulate` gives.

    A class becomes ``out_dir/CE-<class>.nc``, or with ``part_size`` the folder ``out_dir/CE-<class>`` of ``data_0.nc``,
    ``data_1.nc``, … in numeric order (``NS-<class>`` and ``velocity_0.nc``, … for NS). Some hundred megabytes of
    trajectories are in memory at a time. A run that was killed goes on where it stopped when it is called again with
    the same arguments, and several processes may share the files by ``rank``. The settings are kept in
    ``out_dir/simulation.json`` and compared; the functions of classes of your own cannot be.

    Args:
        out_dir: folder, made if it is missing.
        classes, n_per_class, resolution, n_steps, seed, preset, initial_states, refinement, cfl, device, equation: as
            in :func:`pdeinfl.simulate`.
        part_size: trajectories of a file; default all of a class.
        rank, n_ranks: this process simulates every ``n_ranks``-th file, starting from ``rank``.
        num_threads: for CE; default ``RAYON_NUM_THREADS``, else all cores.
        progress: whether to report progress.

    Returns:
        The file or folder of each class, for :func:`pdeinfl.open_trajectories`.

    Raises:
        ValueError: an argument that is not possible, or ``out_dir`` holds something else than this simulation.
        OSError: a file that cannot be written.
    """
    check_one_of("equation", equation, EQUATIONS)
    check_one_of("preset", preset, PRESETS)
    if equation == "CE":
        plan = plan_euler(classes, n_per_class, resolution, n_steps, seed, preset, initial_states, refinement)
        wanted = _gas(plan, cfl, num_threads)
    else:
        refuse_gas_arguments(initial_states, refinement)
        wanted = _flow(classes, n_per_class, resolution, n_steps, seed, device)
    size = None if part_size is None else check_count("part_size", part_size)
    n_ranks = check_count("n_ranks", n_ranks)
    rank = check_count("rank", rank, least=0)
    if rank >= n_ranks:
        raise ValueError(f"`rank` must be below `n_ranks` {n_ranks}; got {rank}")
    out = Path(out_dir)
    files = list(wanted.files(out, size))
    _keep_settings(out / _SETTINGS, wanted.provenance | _extent(wanted.plan, size), [path for path, _, _ in files])

    mine, n_steps = files[rank::n_ranks], wanted.plan.n_steps
    total = sum(len(indices) for _, _, indices in mine) * n_steps
    with ProgressReport(total, f"simulate {equation}", "intervals", progress) as report:
        for path, class_id, indices in mine:
            if path.exists():
                report.update(len(indices) * n_steps)
            else:
                _fill(path, wanted, class_id, indices, report)
    return wanted.paths(out, size)


def _gas(plan: EulerPlan, cfl: float, num_threads: int | None) -> _Set:
    def solve(class_id: int, indices: range, report: ProgressReport) -> np.ndarray:
        return euler.solve_chunk(plan, class_id, indices, cfl, num_threads, report)

    return _Set("CE", plan, CE_CHANNELS, euler.euler_provenance(plan, cfl), solve)


def _flow(classes: Any, n_per_class: int | None, resolution: int | None, n_steps: int, seed: int, device: Any) -> _Set:
    from pdeinfl.data.simulators import navier_stokes

    plan = navier_stokes.plan_flow(classes, n_per_class, resolution, n_steps, seed)

    def solve(class_id: int, indices: range, report: ProgressReport) -> np.ndarray:
        return navier_stokes.solve_chunk(plan, class_id, indices, device, report)

    return _Set("NS", plan, NS_CHANNELS, navier_stokes.flow_provenance(plan), solve)


def _fill(path: Path, wanted: _Set, class_id: int, indices: range, report: ProgressReport) -> None:
    """Simulate a file's trajectories, from the first that is not in its part file."""
    plan = wanted.plan
    writer = TrajectoryWriter(
        path,
        len(indices),
        plan.n_steps + 1,
        plan.resolution,
        wanted.channels,
        euler.INTERVAL,
        wanted.provenance | {"first_trajectory": indices.start},
    )
    with writer:
        report.update(writer.n_complete * plan.n_steps)
        while writer.n_complete < len(indices):
            left = indices[writer.n_complete :][: plan.chunk_size()]
            writer.append(wanted.solve(class_id, left, report))


def _extent(plan: Any, size: int | None) -> dict[str, Any]:
    given = getattr(plan, "given", None)
    return {
        "classes": list(plan.class_names),
        "n_per_class": plan.n_per_class,
        "resolution": list(plan.resolution),
        "n_steps": plan.n_steps,
        "part_size": size,
        "initial_states_sha256": None if given is None else hashlib.sha256(given.tobytes()).hexdigest(),
    }


def _keep_settings(path: Path, settings: dict[str, Any], files: Sequence[Path]) -> None:
    """Write the settings before any file, or compare them with those that are there."""
    if not path.exists():
        foreign = [file for file in files if file.exists()]
        if foreign and not path.exists():
            raise ValueError(f"{foreign[0]} is there already, and not from this simulation: choose another `out_dir`")
        path.parent.mkdir(parents=True, exist_ok=True)
        # The same from every rank, so that it does not matter whose replacement is last.
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        partial.write_text(json.dumps(settings, indent=2) + "\n")
        partial.replace(path)
        return
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is not JSON: remove it, or choose another `out_dir`") from None
    for name, value in settings.items():
        if found.get(name) != value:
            raise ValueError(
                f"`out_dir` {path.parent} holds a simulation with {name} {found.get(name)}; asked for {value}: choose "
                "another `out_dir` or the same settings"
            )
