"""Sets of trajectories larger than memory, simulated piece by piece into PDEgym files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdeinfl.data.mini_batch import CE_CHANNELS
from pdeinfl.data.progress import ProgressReport
from pdeinfl.data.simulators.arguments import check_count
from pdeinfl.data.simulators.euler import INTERVAL, MAX_CFL, euler_provenance, solve_chunk
from pdeinfl.data.simulators.euler_plan import EulerPlan, plan_euler
from pdeinfl.data.simulators.initial_conditions import InitialCondition
from pdeinfl.data.writer import TrajectoryWriter

_SETTINGS = "simulation.json"


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
    part_size: int | None = None,
    rank: int = 0,
    n_ranks: int = 1,
    num_threads: int | None = None,
    progress: bool = False,
    cfl: float = MAX_CFL,
) -> list[Path]:
    """Simulate compressible Euler trajectories into PDEgym files: the numbers that :func:`pdeinfl.simulate` gives.

    A class becomes ``out_dir/CE-<class>.nc``, or with ``part_size`` the folder ``out_dir/CE-<class>`` of ``data_0.nc``,
    ``data_1.nc``, … in numeric order. About a hundred megabytes of trajectories are in memory at a time. A run that was
    killed goes on where it stopped when it is called again with the same arguments, and several processes may share
    the files by ``rank``. The settings are kept in ``out_dir/simulation.json`` and compared; the functions of classes
    of your own cannot be.

    Args:
        out_dir: folder, made if it is missing.
        classes, n_per_class, resolution, n_steps, seed, preset, initial_states, refinement, cfl: as in
            :func:`pdeinfl.simulate`.
        part_size: trajectories of a file; default all of a class.
        rank, n_ranks: this process simulates every ``n_ranks``-th file, starting from ``rank``.
        num_threads: default ``RAYON_NUM_THREADS``, else all cores.
        progress: whether to report progress.

    Returns:
        The file or folder of each class, for :func:`pdeinfl.open_trajectories`.

    Raises:
        ValueError: an argument that is not possible, or ``out_dir`` holds a simulation with other settings.
        OSError: a file that cannot be written.
    """
    plan = plan_euler(classes, n_per_class, resolution, n_steps, seed, preset, initial_states, refinement)
    size = None if part_size is None else check_count("part_size", part_size)
    n_ranks = check_count("n_ranks", n_ranks)
    rank = check_count("rank", rank, least=0)
    if rank >= n_ranks:
        raise ValueError(f"`rank` must be below `n_ranks` {n_ranks}; got {rank}")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    provenance = euler_provenance(plan, cfl)
    _keep_settings(out / _SETTINGS, provenance | _extent(plan, size))

    files = _files(plan, out, size)[rank::n_ranks]
    total = sum(len(indices) for _, _, indices in files) * plan.n_steps
    with ProgressReport(total, "simulate CE", "intervals", progress) as report:
        for path, class_id, indices in files:
            if path.exists():
                report.update(len(indices) * plan.n_steps)
            else:
                _fill(path, plan, class_id, indices, provenance, cfl, num_threads, report)
    return [out / (f"CE-{name}.nc" if size is None else f"CE-{name}") for name in plan.class_names]


def _files(plan: EulerPlan, out: Path, size: int | None) -> list[tuple[Path, int, range]]:
    """Path, class and trajectories of every file."""
    if size is None:
        whole = range(plan.n_per_class)
        return [(out / f"CE-{name}.nc", class_id, whole) for class_id, name in enumerate(plan.class_names)]
    return [
        (out / f"CE-{plan.class_names[class_id]}" / f"data_{indices.start // size}.nc", class_id, indices)
        for class_id, indices in plan.chunks(size)
    ]


def _fill(
    path: Path,
    plan: EulerPlan,
    class_id: int,
    indices: range,
    provenance: dict[str, Any],
    cfl: float,
    num_threads: int | None,
    report: ProgressReport,
) -> None:
    """Simulate a file's trajectories, from the first that is not in its part file."""
    writer = TrajectoryWriter(
        path,
        len(indices),
        plan.n_steps + 1,
        plan.resolution,
        CE_CHANNELS,
        INTERVAL,
        provenance | {"first_trajectory": indices.start},
    )
    with writer:
        report.update(writer.n_complete * plan.n_steps)
        while writer.n_complete < len(indices):
            left = indices[writer.n_complete :][: plan.chunk_size()]
            writer.append(solve_chunk(plan, class_id, left, cfl, num_threads, report))


def _extent(plan: EulerPlan, size: int | None) -> dict[str, Any]:
    return {
        "classes": list(plan.class_names),
        "n_per_class": plan.n_per_class,
        "resolution": list(plan.resolution),
        "n_steps": plan.n_steps,
        "part_size": size,
        "initial_states_sha256": None if plan.given is None else hashlib.sha256(plan.given.tobytes()).hexdigest(),
    }


def _keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or compare them with those that are there."""
    if not path.exists():
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
