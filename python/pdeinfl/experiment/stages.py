"""The stages of a run, each skipped where its output is there and valid."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.simulators.simulation_files import simulate_to_files
from pdeinfl.devices import check_device
from pdeinfl.experiment.config import DataConfig, RunConfig
from pdeinfl.experiment.feasibility import check_feasible
from pdeinfl.experiment.influence_stage import expected_files, influence_stage
from pdeinfl.experiment.shares import others_finished, share
from pdeinfl.experiment.training_stage import training_stage
from pdeinfl.run_directory import RunDirectory, read_json, write_json

Say = Callable[[str], None]
STAGES = ("data", "train", "influence", "report")


def say(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr, flush=True)


def run_experiment(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    stages: tuple[str, ...] = STAGES,
    command: str = "",
    say: Say = say,
) -> Path:
    """Run the stages of a configuration in a folder and return that folder.

    Args:
        config: what to run. out: the folder; made if needed. stages: which stages, in their own order.
        command: what the user typed, for the report. say: gets one line per step.

    Raises:
        ValueError: the folder belongs to a run with another configuration, or the configuration does not fit the data.
        OSError: files cannot be read or written.
    """
    run = RunDirectory(out)
    data = replace(config.data, path=tuple(os.path.abspath(path) for path in config.data.path))
    config = replace(config, data=data)
    check_device("run.device", config.device)
    if not run.config.is_file():
        check_feasible(config)
    content = json.loads(json.dumps({**config.as_dict(), "command": command}))
    _claim(run, content)
    if "data" in stages:
        _timed("data", say, lambda: _data_stage(config.data, config.device, run, say))
    if "train" in stages:
        _timed("train", say, lambda: training_stage(config, run, say))
    if "influence" in stages:
        _timed("influence", say, lambda: influence_stage(config, run, say))
    if "report" in stages and share()[0] == 0:
        _timed("report", say, lambda: _report_stage(config, run, say))
    return run.root


def _timed(stage: str, say: Say, work: Callable[[], bool]) -> None:
    start = time.perf_counter()
    done = work()
    say(f"[{stage}] {'done' if done else 'already there'} ({time.perf_counter() - start:.1f} s)")


def _claim(run: RunDirectory, content: dict[str, object]) -> None:
    """Write the configuration, or check that the folder already belongs to it; what decides no number may differ."""
    if run.config.is_file():
        held = run.read_config()
        loose = ("command", "name", "title", "device")
        for key in content:
            if key not in loose and held.get(key) != content[key]:
                raise ValueError(
                    f"{run.root} holds a run with another [{key}]: choose another folder, or delete this one"
                )
        if held == content:
            return
    run.write_config(content)


def _data_stage(data: DataConfig, device: str, run: RunDirectory, say: Say) -> bool:
    if data.path:
        found = open_trajectories(list(data.path), labels=data.labels or None, part_order=data.part_order)
        say(f"[data] {len(found)} trajectories of {', '.join(found.class_names)} from {len(data.path)} path(s)")
        return False
    marker = run.data / "complete.json"
    files = run.data_files(data.equation, data.classes)
    if marker.is_file():
        held = read_json(marker)
        if held == _sizes(files):
            return False
        for file in files:
            if file.is_file() and held.get(file.name) != file.stat().st_size:
                say(f"[data] {file} is damaged: simulating it again")
                file.unlink()
    say(f"[data] simulating {data.per_class} trajectories each of {', '.join(data.classes)} at {data.resolution}²")
    rank, size = share()
    simulate_to_files(
        run.data,
        data.classes,
        data.per_class,
        data.resolution,
        data.steps,
        data.seed,
        data.preset,
        refinement=data.refinement if data.equation == "CE" else None,
        equation=data.equation,
        rank=rank,
        n_ranks=size,
        device=device or None,
        progress=True,
    )
    if others_finished(files, say, "[data]"):
        write_json(marker, _sizes(files))
    return True


def _sizes(files: Sequence[Path]) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in files if file.is_file()}


def _report_stage(config: RunConfig, run: RunDirectory, say: Say) -> bool:
    from pdeinfl.html_report import report

    if share()[1] > 1 and not others_finished(expected_files(config, run), say, "[report]"):
        say("[report] influences are missing, perhaps still computed by other tasks: run `pdeinfl report` later")
        return False
    digest = hashlib.sha256()
    patterns = ("influence/*.h5", "checks/*.json", "rollouts/*.json", "models/*/*/history.json")
    for path in sorted([run.config, *(path for pattern in patterns for path in run.root.glob(pattern))]):
        digest.update(f"{path.relative_to(run.root)} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    marker = run.report / "inputs.json"
    page = run.report / "report.html"
    if page.is_file() and marker.is_file() and read_json(marker) == digest.hexdigest():
        say(f"[report] {page}")
        return False
    written = report(run.root, progress=True)
    write_json(marker, digest.hexdigest())
    say(f"[report] {written}")
    return True
