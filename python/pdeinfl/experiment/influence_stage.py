"""The influence stage: one unit per (surrogate, seed, epoch, mini-batch), shared out over processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfl.analysis.response_checks import response_check
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.influence_matrix import influence
from pdeinfl.engine.spectrum import largest_eigenvalue
from pdeinfl.engine.store import InfluenceStore, Key
from pdeinfl.experiment.config import InfluenceConfig, RunConfig, SurrogateConfig
from pdeinfl.experiment.shares import share
from pdeinfl.run_directory import CHECK_VERSION, RunDirectory, read_json, write_json, write_json_once
from pdeinfl.surrogates.checkpoint import list_checkpoints, load_checkpoint, sha256
from pdeinfl.surrogates.rollout_errors import RolloutErrors, rollout_errors

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
    def is_trained(self) -> bool:
        """Whether this is the surrogate at the end of its training."""
        return self.epoch == self.surrogate.training.epochs

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


def _roll_out(unit: Unit, batch: MiniBatch, run: RunDirectory, device: str, made_from: tuple[str, str]) -> bool:
    """Store the rollout errors of a trained unit (MATH §5) unless those made from this checkpoint and mini-batch are
    there; True if it did."""
    path = run.rollouts(unit.key)
    try:
        if RolloutErrors.load(path).made_from(*made_from):
            return False
    except (FileNotFoundError, ValueError):
        pass
    model, _ = load_checkpoint(unit.checkpoint, device=local_device(device))
    rollout_errors(model, batch, made_from[0]).save(path)
    return True


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
    dampings: dict[str, float] = {}
    for unit in everything[rank::size]:
        if unit.mini_batch not in batches:
            batches[unit.mini_batch] = _mini_batch(test, unit.mini_batch, settings)
        batch = batches[unit.mini_batch]
        name = unit.surrogate.name
        if name not in dampings:
            dampings[name] = _resolve(unit.surrogate, config, run, test, n, say)
        damping = dampings[name]
        channels = test.channel_names
        response = settings.responses(channels) if unit.epoch else settings.control_response(channels)
        tol = settings.tol if unit.epoch else settings.control_tol or settings.tol
        made_from = sha256(unit.checkpoint), batch.sha256()
        if unit.is_trained:
            worked |= _roll_out(unit, batch, run, config.device, made_from)
        expected = {
            "checkpoint_sha256": made_from[0],
            "mini_batch_sha256": made_from[1],
            "solver": settings.solver,
            "metric": settings.metric,
            "damping": damping,
            "tol": tol,
            "product_dtype": "float64" if settings.solver == "dense" else settings.product_dtype,
            "audit": settings.audit,
            "solver_options": options,
            "response": list(response),
            "perturbation": list(settings.perturbation),
        }
        checks = unit.is_trained and not unit.mini_batch and unit.seed == config.seeds[0]
        check_file = run.check(unit.surrogate.name)
        check_identity = {"influence": expected, "version": CHECK_VERSION}
        wants_check = settings.checks and checks and not _holds(check_file, check_identity)
        if store.has(unit.key, expected) and not wants_check:
            continue
        model, _ = load_checkpoint(unit.checkpoint, device=local_device(config.device))
        result = influence(
            model,
            batch,
            response,
            settings.perturbation,
            settings.solver,
            damping,
            settings.metric,
            tol,
            product_dtype=settings.product_dtype,
            audit=settings.audit,
            keep_steps=wants_check,
            seed=unit.seed,
            run=unit.surrogate.name,
            epoch=unit.epoch,
            mini_batch=unit.mini_batch,
            provenance=expected,
            **options,
        )
        if wants_check:
            write_json(check_file, {**check_identity, "check": response_check(model, batch, result).as_dict()})
        store.put(result)
        worst = float(np.max(result.relative_error))
        kind = "estimated (not certified)" if result.bound_is_estimate else "certified"
        state = "" if result.converged else f", not converged to {tol:g} ({result.shortfall})"
        say(
            f"[influence] {unit.surrogate.name}, seed {unit.seed}, epoch {unit.epoch}, mini-batch {unit.mini_batch}: "
            f"{result.n_jvp + result.n_vjp} products, {kind} error {worst:.1e}{state}"
        )
        worked = True
    return worked


def _holds(path: Path, identity: dict[str, Any]) -> bool:
    """Whether a JSON file is there and was made from what ``identity`` names."""
    if not path.is_file():
        return False
    held = read_json(path)
    wanted = json.loads(json.dumps(identity))
    return all(held.get(name) == value for name, value in wanted.items())


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
    chosen = {
        seed: list_checkpoints(run.models(surrogate.name, seed))[surrogate.training.epochs] for seed in config.seeds
    }
    identity = {
        "relative": requested.value,
        "metric": config.influence.metric,
        "checkpoints_sha256": [sha256(path) for path in chosen.values()],
        "mini_batches_sha256": [_mini_batch(test, index, config.influence).sha256() for index in range(n)],
    }
    if _holds(path, identity):
        return float(read_json(path)["damping"])
    path.unlink(missing_ok=True)
    tops = []
    for checkpoint in chosen.values():
        model, _ = load_checkpoint(checkpoint, device=local_device(config.device))
        for index in range(n):
            batch = _mini_batch(test, index, config.influence)
            tops.append(largest_eigenvalue(model, batch, config.influence.metric))
    lambda_max = float(np.median(tops))
    damping = Damping.relative(requested.value).resolve(lambda_max)
    content = {**identity, "lambda_max": lambda_max, "damping": damping, "lambda_max_each": tops}
    held = write_json_once(path, content)
    say(
        f"[influence] {surrogate.name}: damping {held['damping']:.3g}, {requested.value:g} of the median λ_max "
        f"{held['lambda_max']:.3g}"
    )
    return float(held["damping"])
