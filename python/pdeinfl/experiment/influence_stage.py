"""The influence stage: one unit per (surrogate, seed, epoch, mini-batch), shared out over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfl.analysis.response_check import ResponseCheck, response_check
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.influence_matrix import influence
from pdeinfl.engine.spectrum import largest_eigenvalue
from pdeinfl.engine.store import InfluenceStore, Key
from pdeinfl.experiment.config import InfluenceConfig, RunConfig, SurrogateConfig
from pdeinfl.experiment.shares import share
from pdeinfl.run_directory import RunDirectory, read_json, write_json, write_json_once
from pdeinfl.surrogates.checkpoint import list_checkpoints, load_checkpoint, sha256

Say = Callable[[str], None]


@dataclass(frozen=True)
class Unit:
    """One influence computation."""

    surrogate: SurrogateConfig
    seed: int
    epoch: int
    mini_batch: int
    checkpoint: Path

    @property
    def key(self) -> Key:
        """Where its result is stored."""
        return Key(self.surrogate.name, self.seed, self.epoch, self.mini_batch)


def units(config: RunConfig, run: RunDirectory, n_mini_batches: int) -> Iterator[Unit]:
    """Every unit of a run: trained, further epochs asked for, and the untrained control of each seed.

    Raises:
        FileNotFoundError: a checkpoint is missing.
    """
    for surrogate in config.surrogates:
        epochs = {surrogate.training.epochs, *config.influence.epochs} | ({0} if config.influence.controls else set())
        for seed in config.seeds:
            checkpoints = list_checkpoints(run.models(surrogate.name, seed))
            for epoch in sorted(epochs, reverse=True):
                if epoch not in checkpoints:
                    raise FileNotFoundError(
                        f"no checkpoint of {surrogate.name}, seed {seed}, epoch {epoch} in "
                        f"{run.models(surrogate.name, seed)}: train first"
                    )
                for index in range(n_mini_batches):
                    yield Unit(surrogate, seed, epoch, index, checkpoints[epoch])


def expected_files(config: RunConfig, run: RunDirectory) -> list[Path]:
    """Where the results of all units are, or will be."""
    store, (_, _, test) = InfluenceStore(run.influence), run.open_data()
    return [store.path(unit.key) for unit in units(config, run, _n_mini_batches(test, config.influence))]


def local_device(device: str) -> str | None:
    """The device of this process: under torchrun ``cuda`` is the local rank's card; None for an empty name."""
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device or None


def influence_stage(config: RunConfig, run: RunDirectory, say: Say) -> bool:
    """Compute what is not stored yet; True if anything was."""
    settings = config.influence
    _, _, test = run.open_data()
    n = _n_mini_batches(test, settings)
    if n < settings.mini_batches:
        say(f"[influence] the test split has {n} mini-batches, fewer than the {settings.mini_batches} asked for")
    store = InfluenceStore(run.influence)
    rank, size = share()
    everything = list(units(config, run, n))
    worked = False
    options: dict[str, Any] = {"rtol": settings.rtol} if settings.rtol else {}
    batches: dict[int, MiniBatch] = {}
    for unit in everything[rank::size]:
        if unit.mini_batch not in batches:
            batches[unit.mini_batch] = _mini_batch(test, unit.mini_batch, settings)
        batch = batches[unit.mini_batch]
        damping = _resolve(unit.surrogate, config, run, test, n, say)
        expected = {
            "checkpoint_sha256": sha256(unit.checkpoint),
            "mini_batch_sha256": batch.sha256(),
            "solver": settings.solver,
            "metric": settings.metric,
            "damping": damping,
            "tol": settings.tol,
        }
        checked = unit.epoch != unit.surrogate.training.epochs or unit.mini_batch or unit.seed != config.seeds[0]
        wants_check = settings.checks and not checked and not run.check(unit.surrogate.name).is_file()
        if store.has(unit.key, expected) and not wants_check:
            continue
        model, _ = load_checkpoint(unit.checkpoint, device=local_device(config.device))
        result = influence(
            model,
            batch,
            settings.response,
            settings.perturbation,
            settings.solver,
            damping,
            settings.metric,
            settings.tol,
            keep_steps=wants_check,
            seed=unit.seed,
            run=unit.surrogate.name,
            epoch=unit.epoch,
            mini_batch=unit.mini_batch,
            provenance=expected,
            **options,
        )
        if wants_check:
            write_json(run.check(unit.surrogate.name), _check_content(response_check(model, batch, result)))
        store.put(result)
        worst = float(np.max(result.relative_error))
        state = "" if result.converged else f", not converged to {settings.tol:g}"
        say(
            f"[influence] {unit.surrogate.name}, seed {unit.seed}, epoch {unit.epoch}, mini-batch {unit.mini_batch}: "
            f"{result.n_jvp + result.n_vjp} products, certified error {worst:.1e}{state}"
        )
        worked = True
    return worked


def _check_content(check: ResponseCheck) -> dict[str, object]:
    return {
        "predicted": check.predicted.ravel().tolist(),
        "measured": check.measured.ravel().tolist(),
        "steps": check.steps.tolist(),
        "errors": check.errors.tolist(),
        "order": check.order,
        "trust_radius": check.trust_radius,
    }


def _n_mini_batches(test: Trajectories, settings: InfluenceConfig) -> int:
    return min(settings.mini_batches, test.n_mini_batches // settings.per_class)


def _mini_batch(test: Trajectories, index: int, settings: InfluenceConfig) -> MiniBatch:
    return test.mini_batch(index, per_class=settings.per_class, n_transitions=settings.transitions or None)


def _resolve(
    surrogate: SurrogateConfig, config: RunConfig, run: RunDirectory, test: Trajectories, n: int, say: Say
) -> float:
    """The absolute damping of a surrogate's influences (MATH §2): a relative one is resolved once per run, against the
    median largest eigenvalue of its mini-batches, stored, and shared by all seeds, epochs and solvers. Of processes
    that resolve it at once, the first counts."""
    requested = config.influence.requested()
    if not requested.is_relative:
        return requested.value
    path = run.damping(surrogate.name)
    if path.is_file():
        return float(read_json(path)["damping"])
    tops = []
    for seed in config.seeds:
        checkpoint = list_checkpoints(run.models(surrogate.name, seed))[surrogate.training.epochs]
        model, _ = load_checkpoint(checkpoint, device=local_device(config.device))
        for index in range(n):
            batch = _mini_batch(test, index, config.influence)
            tops.append(largest_eigenvalue(model, batch, config.influence.metric))
    lambda_max = float(np.median(tops))
    damping = Damping.relative(requested.value).resolve(lambda_max)
    content = {"relative": requested.value, "lambda_max": lambda_max, "damping": damping, "lambda_max_each": tops}
    held = write_json_once(path, content)
    say(
        f"[influence] {surrogate.name}: damping {held['damping']:.3g}, {requested.value:g} of the median λ_max "
        f"{held['lambda_max']:.3g}"
    )
    return float(held["damping"])
