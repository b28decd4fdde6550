"""`RolloutErrors`: how far a surrogate's rollouts from every time of a trajectory end up from the truth (MATH §5)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pdeinfl.atomic import atomic_path
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.observables import SMSE
from pdeinfl.surrogates.rollout import in_mode


@dataclass(frozen=True, eq=False)
class RolloutErrors:
    """Rollout errors of a mini-batch's trajectories, by horizon.

    Attributes:
        class_ids, trajectory_ids: ``(k,)`` integers.
        errors: ``(k, T)``, column h − 1: SMSE summed over h steps, median over the T − h + 1 start times that leave h
            steps; infinite where the rollout blew up.
        checkpoint_sha256, mini_batch_sha256: what they were computed from; empty if unknown.
    """

    class_ids: np.ndarray
    trajectory_ids: np.ndarray
    errors: np.ndarray
    checkpoint_sha256: str = ""
    mini_batch_sha256: str = ""

    @property
    def longest(self) -> int:
        """The longest horizon, T steps."""
        return self.errors.shape[1]

    def at(self, horizon: int) -> dict[tuple[int, int], float]:
        """``{(class_id, trajectory_id): error}`` over ``horizon`` steps, as `pdeinfl.rollout_link` takes it.

        Raises:
            ValueError: a horizon that is not among 1 … T.
        """
        if not 1 <= horizon <= self.longest:
            raise ValueError(f"`horizon` must be between 1 and {self.longest} steps; got {horizon}")
        pairs = zip(self.class_ids.tolist(), self.trajectory_ids.tolist(), strict=True)
        return dict(zip(pairs, self.errors[:, horizon - 1].tolist(), strict=True))

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically; infinity becomes null."""
        errors = [[v if math.isfinite(v) else None for v in row] for row in self.errors.tolist()]
        ids = {name: getattr(self, name).tolist() for name in ("class_ids", "trajectory_ids")}
        made_from = {name: getattr(self, name) for name in ("checkpoint_sha256", "mini_batch_sha256")}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({**made_from, **ids, "errors": errors}, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> RolloutErrors:
        """Read what `save` wrote; ValueError naming the file if it is something else."""
        try:
            held = json.loads(Path(path).read_text())
            class_ids, trajectories = (np.array(held[k], dtype=np.int64) for k in ("class_ids", "trajectory_ids"))
            errors = np.array([[math.inf if v is None else float(v) for v in row] for row in held["errors"]])
            made_from = str(held["checkpoint_sha256"]), str(held["mini_batch_sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no rollout errors ({type(error).__name__}: {error})") from None
        if errors.ndim != 2 or not len(class_ids) == len(trajectories) == len(errors):
            raise ValueError(f"{path} holds no rollout errors: its lists differ in length")
        return cls(class_ids, trajectories, errors, *made_from)

    def made_from(self, checkpoint_sha256: str, mini_batch_sha256: str) -> bool:
        """Whether they belong to this checkpoint and this mini-batch."""
        return (self.checkpoint_sha256, self.mini_batch_sha256) == (checkpoint_sha256, mini_batch_sha256)


def rollout_errors(model: nn.Module, batch: MiniBatch, checkpoint_sha256: str = "") -> RolloutErrors:
    """Roll a surrogate out from every time of a mini-batch's trajectories, to their ends.

    One trajectory at a time; T(T + 1)/2 predictions each.

    Args:
        model: maps states ``(n, C, X, Y)`` to next states; runs in eval mode, without gradients, in its own dtype and
            on its own device.
        batch: trajectories of T consecutive transitions each, in order of time.
        checkpoint_sha256: kept with the errors.

    Raises:
        ValueError: trajectories that differ in length or skip a time, or a model whose output is not shaped like its
            input.
    """
    pairs = sorted(set(zip(batch.class_ids.tolist(), batch.trajectory_ids.tolist(), strict=True)))
    members = [np.flatnonzero((batch.class_ids == c) & (batch.trajectory_ids == t)) for c, t in pairs]
    for pair, at in zip(pairs, members, strict=True):
        times = batch.times[at]
        if len(at) != len(members[0]) or (np.diff(times) != 1).any():
            raise ValueError(
                f"`batch` must hold trajectories of equal length at consecutive times; (class, trajectory) {pair} has "
                f"the times {times.tolist()}, the first trajectory {len(members[0])} of them"
            )
    with in_mode(model, training=False), torch.no_grad():
        errors = [_trajectory_errors(model, batch.select(at)) for at in members]
    class_ids, trajectory_ids = np.array(pairs, dtype=np.int64).T
    return RolloutErrors(class_ids, trajectory_ids, np.stack(errors), checkpoint_sha256, batch.sha256())


def _trajectory_errors(model: nn.Module, trajectory: MiniBatch) -> np.ndarray:
    """``(T,)``, by horizon."""
    first = next(model.parameters(), trajectory.inputs)
    placed = trajectory.to(first.device, first.dtype)
    smse, state, n = SMSE(), placed.inputs, len(placed)
    totals, out = np.zeros(n), np.empty(n)
    for step in range(n):
        # Row s started at time s; after `step` further steps it meets the target of transition s + step.
        before, targets = state[: n - step], placed.targets[step:]
        state = model(before)
        if state.shape != targets.shape:
            raise ValueError(f"`model` must map a state to one of the same shape, {tuple(targets.shape)}; "
                             f"got {tuple(state.shape)}")  # fmt: skip
        costs = smse(state.double(), targets.double(), before).cpu().numpy()
        totals = totals[: n - step] + np.where(np.isnan(costs), np.inf, costs)
        out[step] = np.median(totals)
    return out
