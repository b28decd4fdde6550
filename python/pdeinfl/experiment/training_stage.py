"""The training stage: every surrogate and seed, each resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pdeinfl.experiment.config import RunConfig, SurrogateConfig
from pdeinfl.run_directory import RunDirectory
from pdeinfl.surrogates.catalogue import build
from pdeinfl.surrogates.checkpoint import list_checkpoints
from pdeinfl.surrogates.training import train


def build_surrogate(
    config: SurrogateConfig, channel_names: Sequence[str], resolution: tuple[int, int], seed: int
) -> torch.nn.Module:
    """The untrained surrogate of a seed, sized for the data.

    Raises:
        ValueError: unknown kind, arguments that the class does not take, or a resolution that it cannot.
    """
    arguments = {"channels": len(channel_names), "resolution": resolution, **config.arguments}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return build({"kind": config.kind, **arguments})
        except (TypeError, ValueError) as error:
            raise ValueError(f"[surrogates.{config.name}]: {error}") from None


def training_stage(config: RunConfig, run: RunDirectory, say: Callable[[str], None]) -> bool:
    """Train what is not trained yet; True if anything was."""
    train_data, val_data, _ = run.open_data()
    worked = False
    for surrogate in config.surrogates:
        settings = surrogate.training
        streaming: dict[str, Any] = {"cache_dtype": settings.cache_dtype} if settings.cache_dtype else {}
        for seed in config.seeds:
            directory = run.models(surrogate.name, seed)
            model = build_surrogate(surrogate, train_data.channel_names, train_data.resolution, seed)
            if settings.epochs in list_checkpoints(directory):
                continue
            say(f"[train] {surrogate.name}, seed {seed}: {settings.epochs} epochs")
            train(
                model,
                train_data,
                val_data,
                settings.epochs,
                seed=seed,
                checkpoint_dir=directory,
                batch_size=settings.batch_size,
                lr=settings.lr,
                weight_decay=settings.weight_decay,
                keep_epochs=(*settings.keep_epochs, *config.influence.epochs),
                device=config.device or None,
                **streaming,
            )
            worked = True
    return worked
