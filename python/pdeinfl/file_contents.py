"""What a file holds, in words: trajectories, an influence result, or a checkpoint, told apart by their contents."""

from __future__ import annotations

import zipfile
from os import PathLike
from pathlib import Path

import numpy as np

from pdeinfl.data.inspection import inspect
from pdeinfl.data.readers import open_trajectories
from pdeinfl.engine.result import Influence
from pdeinfl.engine.store import is_influence_file, load_influence
from pdeinfl.figures import save, thumbnails
from pdeinfl.surrogates.checkpoint import checkpoint_info


def describe_file(path: str | PathLike[str], figure: str | PathLike[str] | None = None) -> tuple[str, int]:
    """A few lines on a file (or a folder of trajectories), and how many faults they list.

    Args:
        path: trajectories in any format that `open_trajectories` takes, an influence file, or a checkpoint.
        figure: stem of thumbnails (.png, .pdf); trajectories only.

    Raises:
        OSError: no such file, or a truncated one. ValueError: a file of none of these kinds, or a damaged one.
    """
    path = Path(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return _checkpoint(path), 0
    if path.is_file() and is_influence_file(path):
        return _influence(path, load_influence(path)), 0
    if path.suffix == ".pt":
        checkpoint_info(path)
    report = inspect(path)
    text = report.text()
    if figure is not None:
        text += "\n" + "\n".join(f"  {written}" for written in save(_thumbnails(path), figure))
    return text, len(report.problems)


def _thumbnails(path: Path):
    traj = open_trajectories(path)
    fields = {}
    for class_id, name in enumerate(traj.class_names):
        for i in np.flatnonzero(traj.class_ids == class_id):
            try:
                fields[name] = np.stack([traj.read(i, t, t + 1)[0] for t in (0, traj.n_times - 1)])
                break
            except ValueError:
                continue
    return thumbnails(fields, traj.channel_names, (0.0, traj.time_step * (traj.n_times - 1)), path.name)


def _rows(path: Path, kind: str, rows: dict[str, str]) -> str:
    return "\n".join([f"{path}: {kind}", *(f"  {name:<16} {value}" for name, value in rows.items())])


def _influence(path: Path, result: Influence) -> str:
    labels = result.perturbation_labels
    counts = ", ".join(f"{int(np.sum(labels.class_ids == k))} {name}" for k, name in enumerate(labels.class_names))
    settings = result.settings
    rows = {
        "of": f"{result.run or 'no run'}, seed {result.seed}, epoch {result.epoch}, mini-batch {result.mini_batch}",
        "responses": f"{len(result.response_labels)} examples, {', '.join(result.response_names)}",
        "perturbations": f"{len(labels)} examples ({counts}), {', '.join(result.perturbation_names)}",
        "solver": f"{settings.get('solver', 'unknown')}, {result.n_jvp} JVPs, {result.n_vjp} VJPs",
        "metric": f"{settings.get('metric', 'unknown')}, largest eigenvalue {result.lambda_max:.4g}",
        "damping": f"{result.damping:.4g}, {result.damping / result.lambda_max:.2g} of it" if result.lambda_max > 0
        else f"{result.damping:.4g}",
    }  # fmt: skip
    for a, response in enumerate(result.response_names):
        for b, perturbation in enumerate(result.perturbation_names):
            h = result.values[a, b]
            rows[f"H {response}, {perturbation}"] = (
                f"Frobenius norm {np.linalg.norm(h):.4g}, certified error {result.relative_error[a, b]:.2g} of it"
            )
    met = "met" if result.converged else "not met"
    rows["tolerance"] = f"{result.tol:g}, {met}"
    for name in ("checkpoint_sha256", "mini_batch_sha256"):
        if name in settings:
            rows[name.replace("_", " ")[:-3]] = str(settings[name])
    return _rows(path, "influence", rows)


def _checkpoint(path: Path) -> str:
    info = checkpoint_info(path)
    config = dict(info.config or {"kind": "a module of another kind"})
    kind = config.pop("kind")
    arguments = ", ".join(f"{name} {value}" for name, value in config.items())
    rows = {
        "surrogate": f"{kind} ({arguments})" if arguments else kind,
        "parameters": f"{info.history.n_parameters:,}",
        "epoch": f"{info.epoch}" + (" (untrained)" if info.epoch == 0 else ""),
    }
    if len(info.history.val_loss):
        rows["validation SMSE"] = f"{info.history.val_loss[-1]:.4g}"
    for name, value in info.settings.items():
        rows[name.replace("_", " ")] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    rows["sha256"] = info.sha256()
    return _rows(path, "checkpoint", rows)
