"""The folder of a run: where everything lies, and reading it back for the report."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdeinfl.analysis.response_checks import ResponseCheck
from pdeinfl.atomic import atomic_path
from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.engine.result import Influence
from pdeinfl.engine.store import InfluenceStore, Key
from pdeinfl.run_contents import PredictionSample, RunContents
from pdeinfl.surrogates.checkpoint import list_checkpoints, load_checkpoint
from pdeinfl.surrogates.history import History
from pdeinfl.surrogates.rollout import rollout
from pdeinfl.surrogates.rollout_errors import RolloutErrors

CHECK_VERSION = 2
"""Of the files in ``checks/``."""


class RunDirectory:
    """Paths within a run's folder.

    ``config.json`` (the configuration as resolved), ``data/``, ``models/<surrogate>/seed<k>/``, ``influence/``,
    ``checks/``, ``rollouts/``, ``report/``.
    """

    def __init__(self, root: str | PathLike[str]) -> None:
        self.root = Path(root)
        self.config = self.root / "config.json"
        self.data = self.root / "data"
        self.influence = self.root / "influence"
        self.report = self.root / "report"

    def models(self, surrogate: str, seed: int) -> Path:
        """Checkpoints and history of one surrogate and seed."""
        return self.root / "models" / surrogate / f"seed{seed}"

    def damping(self, surrogate: str) -> Path:
        """The damping that a surrogate's influences share, resolved once."""
        return self.influence / f"{surrogate}-damping.json"

    def check(self, surrogate: str) -> Path:
        """The response check of a surrogate (MATH §6)."""
        return self.root / "checks" / f"{surrogate}.json"

    def rollouts(self, key: Key) -> Path:
        """The rollout errors on the mini-batch of an influence (MATH §5)."""
        return self.root / "rollouts" / Path(key.file_name).with_suffix(".json")

    def write_config(self, content: dict[str, Any]) -> None:
        """Store the configuration as resolved."""
        write_json(self.config, content)

    def read_config(self) -> dict[str, Any]:
        """The configuration of the run.

        Raises:
            FileNotFoundError: this is not the folder of a run.
        """
        if not self.config.is_file():
            raise FileNotFoundError(f"{self.root} is not the folder of a run: it has no config.json")
        content: dict[str, Any] = read_json(self.config)
        return content

    def data_files(self, equation: str, classes: Sequence[str]) -> list[Path]:
        """The simulated files, one per class, in the order of the configuration."""
        return [self.data / f"{equation}-{name}.nc" for name in classes]

    def open_data(self) -> tuple[Trajectories, Trajectories, Trajectories]:
        """Training, validation and test trajectories, split as the configuration says."""
        data = self.read_config()["data"]
        paths = data["path"] or self.data_files(data["equation"], data["classes"])
        missing = [] if data["path"] else [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"no trajectories at {missing[0]}: run the data stage first")
        trajectories = open_trajectories(list(paths), labels=data["labels"] or None, part_order=data["part_order"])
        if data["snapshots"]:
            trajectories = trajectories.first_snapshots(data["snapshots"])
        train, val, test = trajectories.split(tuple(data["split"]), seed=data["split_seed"])
        return train, val, test


def write_json(path: Path, content: Any) -> None:
    """JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True))


def write_json_once(path: Path, content: Any) -> Any:
    """JSON, unless another process has written the file before; returns what it holds then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return read_json(path)
    finally:
        temporary.unlink()
    return content


def read_json(path: Path) -> Any:
    """JSON, with the file named when it is broken."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def load_run(root: str | PathLike[str]) -> RunContents:
    """Everything that the report of a run shows.

    Raises:
        FileNotFoundError: not the folder of a run. ValueError: it holds no influence yet, or a file is broken.
    """
    run = RunDirectory(root)
    config = run.read_config()
    names = [s["name"] for s in config["surrogates"]]
    trained: dict[str, list[Influence]] = defaultdict(list)
    untrained: dict[str, list[Influence]] = defaultdict(list)
    between: dict[str, list[Influence]] = defaultdict(list)
    last = {s["name"]: s["training"]["epochs"] for s in config["surrogates"]}
    for result in InfluenceStore(run.influence):
        if result.run in last and result.epoch == last[result.run]:
            trained[result.run].append(result)
        elif result.run in last and result.epoch == 0:
            untrained[result.run].append(result)
        elif result.run in last:
            # Only averaged: the path is most of a result's memory.
            between[result.run].append(replace(result, path=None))
    names = [name for name in names if trained[name]]
    if not names:
        raise ValueError(
            f"{run.influence} holds no influence of a trained surrogate yet: run `pdeinfl influence` first"
        )
    histories = {name: _histories(run, name, config["seeds"]) for name in names}
    _, _, test = run.open_data()
    checks = {name: check for name in names if (check := _read_check(run.check(name))) is not None}
    equation = {"CE": "compressible Euler", "NS": "incompressible Navier–Stokes"}.get(test.equation or "", "PDE")
    n_seeds = len(config["seeds"])
    return RunContents(
        title=config["title"] or f"Influence report: {config['name']}",
        introduction=(
            f"{' and '.join(names)} on {equation} trajectories of the classes {', '.join(test.class_names)}, "
            f"{' × '.join(str(n) for n in test.resolution)} cells, {n_seeds} {'seed' if n_seeds == 1 else 'seeds'}."
        ),
        results={name: trained[name] for name in names},
        controls={name: untrained[name] for name in names if untrained[name]},
        between={name: between[name] for name in names if between[name]},
        rollout_errors=_rollout_errors(run, (result for name in names for result in trained[name])),
        histories=histories,
        samples=_samples(run, names, config, test),
        checks=checks,
        channel_names=test.channel_names,
        settings=_settings(config, histories),
        command=config.get("command", ""),
        notes=tuple(config.get("notes", ())),
    )


def _histories(run: RunDirectory, name: str, seeds: list[int]) -> list[History]:
    files = [run.models(name, seed) / "history.json" for seed in seeds]
    return [History.load(file) for file in files if file.is_file()]


def _rollout_errors(run: RunDirectory, results: Iterable[Influence]) -> dict[Key, RolloutErrors]:
    """Those made from the same checkpoint and mini-batch as the result."""
    found = {}
    for result in results:
        key = Key.of(result)
        digests = [str(result.settings.get(name)) for name in ("checkpoint_sha256", "mini_batch_sha256")]
        if run.rollouts(key).is_file() and (errors := RolloutErrors.load(run.rollouts(key))).made_from(*digests):
            found[key] = errors
    return found


def _read_check(path: Path) -> ResponseCheck | None:
    """None where there is none, or one of an earlier version, which the influence stage would make again."""
    held = read_json(path) if path.is_file() else {}
    return ResponseCheck.from_dict(held["check"]) if held.get("version") == CHECK_VERSION else None


def _samples(run: RunDirectory, names: list[str], config: dict[str, Any], test: Trajectories) -> list[PredictionSample]:
    """One sample per class from the first test mini-batch, by the first seed's models."""
    batch = test.mini_batch(0)
    models = {}
    for name in names:
        checkpoints = list_checkpoints(run.models(name, config["seeds"][0]))
        models[name] = load_checkpoint(checkpoints[max(checkpoints)])[0]
    samples = []
    for class_id, class_name in enumerate(test.class_names):
        chosen = batch.select(batch.class_ids == class_id)
        states = torch.cat([chosen.inputs[:1], chosen.targets])
        middle = len(chosen) // 2
        with torch.no_grad():
            single = {n: m(chosen.inputs[middle : middle + 1])[0].numpy() for n, m in models.items()}
            rolled = {n: rollout(m, states[:1], len(chosen))[0].numpy() for n, m in models.items()}
        samples.append(
            PredictionSample(
                trajectory=f"{class_name}, trajectory {int(chosen.trajectory_ids[0])} of the data, from the test split",
                step=middle + 1,
                channel_names=batch.channel_names,
                target=chosen.targets[middle].numpy(),
                predictions=single,
                rollout_target=states.numpy(),
                rollout_predictions=rolled,
                times=np.arange(len(states)) * test.time_step,
            )
        )
    return samples


def _settings(config: dict[str, Any], histories: dict[str, list[History]]) -> dict[str, str]:
    data = config["data"]
    preset = f"preset {data['preset']}, " if data["equation"] == "CE" else ""
    source = ", ".join(data["path"]) or (
        f"simulated, {data['per_class']} trajectories per class, {data['steps']} steps, {preset}seed {data['seed']}"
    )
    out = {"Trajectories": source, "Seeds": ", ".join(map(str, config["seeds"]))}
    for s in config["surrogates"]:
        found = histories.get(s["name"], [])
        arguments = ", ".join(f"{k} {v}" for k, v in s["arguments"].items())
        size = f"{found[0].n_parameters:,} parameters" if found else "not trained"
        out[s["name"]] = f"{s['kind']} ({arguments}), {size}, epochs {s['training']['epochs']}"
        if found:
            final = [h.val_loss[-1] for h in found]
            out[f"{s['name']}, validation SMSE"] = ", ".join(f"{v:.4f}" for v in final) + " (one per seed)"
    return out
