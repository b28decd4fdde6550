"""What can be known to be wrong with a configuration before anything is written."""

from __future__ import annotations

import numpy as np
import torch

from pdeinfl.arguments import check_one_of
from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS
from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.simulators.arguments import EQUATIONS
from pdeinfl.data.simulators.euler_plan import plan_euler
from pdeinfl.data.simulators.navier_stokes import plan_flow
from pdeinfl.data.splitting import stratified_split
from pdeinfl.experiment.config import DataConfig, RunConfig
from pdeinfl.experiment.training_stage import build_surrogate
from pdeinfl.observables import resolve_all


def check_feasible(config: RunConfig) -> None:
    """Refuse a configuration that cannot run: its data, surrogates (built without memory), observables and counts.

    Raises:
        ValueError: one line that names the entry. OSError: data files that cannot be read.
    """
    channels, resolution, n_transitions = _data(config.data)
    for surrogate in config.surrogates:
        with torch.device("meta"):
            build_surrogate(surrogate, channels, resolution, seed=0)
        beyond = [e for e in config.influence.epochs if not 0 <= e <= surrogate.training.epochs]
        if beyond:
            raise ValueError(
                f"influence.epochs must lie between 0 and the {surrogate.training.epochs} epochs of "
                f"{surrogate.name}; got {beyond[0]}"
            )
    for entry, names in (
        ("response", config.influence.responses(channels)),
        ("perturbation", config.influence.perturbation),
    ):
        try:
            resolve_all(names, channels)
        except (ValueError, KeyError) as error:
            raise ValueError(f"influence.{entry}: {error.args[0]}") from None
    if config.influence.transitions > n_transitions:
        raise ValueError(
            f"influence.transitions must be at most the {n_transitions} of a trajectory; "
            f"got {config.influence.transitions}"
        )


def _data(data: DataConfig) -> tuple[tuple[str, ...], tuple[int, int], int]:
    """Channel names, resolution and transitions of a trajectory."""
    found: tuple[str, ...]
    if not data.path:
        check_one_of("equation", data.equation, EQUATIONS)
        size = (data.classes, data.per_class, data.resolution, data.steps, data.seed)
        if data.equation == "CE":
            plan_euler(*size, data.preset, None, data.refinement)
        else:
            plan_flow(*size)
        ids = np.repeat(np.arange(len(data.classes)), data.per_class)
        stratified_split(ids, data.classes, data.split, data.split_seed)
        n_times, found = data.steps + 1, (CE_CHANNELS if data.equation == "CE" else NS_CHANNELS)
        resolution = (data.resolution, data.resolution)
    else:
        trajectories = open_trajectories(list(data.path), labels=data.labels or None, part_order=data.part_order)
        trajectories.split(tuple(data.split), seed=data.split_seed)
        n_times, found, resolution = trajectories.n_times, trajectories.channel_names, trajectories.resolution
    if data.snapshots > n_times:
        raise ValueError(f"data.snapshots must be at most the {n_times} that a trajectory has; got {data.snapshots}")
    return tuple(found), resolution, (data.snapshots or n_times) - 1
