"""The stages of a run, each skipped where its output is there and valid."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.simulators import simulate
from pdeinfl.data.writer import write_trajectories
from pdeinfl.experiment.config import DataConfig, RunConfig
from pdeinfl.experiment.influence_stage import influence_stage
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
    content = json.loads(json.dumps({**config.as_dict(), "command": command}))
    _claim(run, content)
    if "data" in stages:
        _timed("data", say, lambda: _data_stage(config.data, run, say))
    if "train" in stages:
        _timed("train", say, lambda: training_stage(config, run, say))
    if "influence" in stages:
        _timed("influence", say, lambda: influence_stage(config, run, say))
    if "report" in stages and _is_first():
        _timed("report", say, lambda: _report_stage(run, say))
    return run.root


def _is_first() -> bool:
    return int(os.environ.get("RANK", os.environ.get("SLURM_ARRAY_TASK_ID", "0"))) == 0


def _timed(stage: str, say: Say, work: Callable[[], bool]) -> None:
    start = time.perf_counter()
    done = work()
    say(f"[{stage}] {'done' if done else 'already there'} ({time.perf_counter() - start:.1f} s)")


def _claim(run: RunDirectory, content: dict[str, object]) -> None:
    """Write the configuration, or check that the folder already belongs to it; `command` and `title` may differ."""
    if run.config.is_file():
        held = run.read_config()
        loose = ("command", "title", "styles", "device")
        for key in content:
            if key not in loose and held.get(key) != content[key]:
                raise ValueError(
                    f"{run.root} holds a run with another [{key}]: choose another folder, or delete this one"
                )
        if held == content:
            return
    run.write_config(content)


def _data_stage(data: DataConfig, run: RunDirectory, say: Say) -> bool:
    if data.path:
        found = open_trajectories(list(data.path), labels=data.labels or None, part_order=data.part_order)
        say(f"[data] {len(found)} trajectories of {', '.join(found.class_names)} from {len(data.path)} path(s)")
        return False
    marker = run.data / "complete.json"
    files = [run.data / f"{data.equation}-{name}.nc" for name in data.classes]
    if marker.is_file() and read_json(marker) == {f.name: f.stat().st_size for f in files if f.is_file()}:
        return False
    say(f"[data] simulating {data.per_class} trajectories each of {', '.join(data.classes)} at {data.resolution}²")
    options = {"refinement": data.refinement, "preset": data.preset} if data.equation == "CE" else {}
    trajectories = simulate(
        data.equation, data.classes, data.per_class, data.resolution, data.steps, data.seed, progress=True, **options
    )
    write_trajectories(run.data, trajectories)
    write_json(marker, {f.name: f.stat().st_size for f in files})
    return True


def _report_stage(run: RunDirectory, say: Say) -> bool:
    from pdeinfl.html_report import report

    digest = hashlib.sha256()
    inputs = [*run.influence.glob("*.h5"), *run.root.glob("checks/*.json"), *run.root.glob("models/*/*/history.json")]
    for path in sorted([*inputs, run.config]):
        digest.update(f"{path.relative_to(run.root)} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    marker = run.report / "inputs.json"
    page = run.report / "report.html"
    if page.is_file() and marker.is_file() and read_json(marker) == digest.hexdigest():
        say(f"[report] {page}")
        return False
    written = report(run.root)
    write_json(marker, digest.hexdigest())
    say(f"[report] {written}")
    return True
