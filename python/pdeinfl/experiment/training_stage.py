"""The training stage: every surrogate and seed, each resumable."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pdeinfl import surrogates
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.experiment.config import RunConfig, SurrogateConfig
from pdeinfl.run_directory import RunDirectory
from pdeinfl.surrogates.checkpoint import list_checkpoints
from pdeinfl.surrogates.training import train


def build_surrogate(config: SurrogateConfig, data: Trajectories, seed: int) -> torch.nn.Module:
    """The untrained surrogate of a seed, sized for the data.

    Raises:
        ValueError: unknown kind, or arguments that the class does not take.
    """
    classes = {"ViT": surrogates.ViT, "UNet": surrogates.UNet}
    if config.kind not in classes:
        raise ValueError(f"surrogates.{config.name}.kind must be one of {', '.join(classes)}; got {config.kind!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            arguments = {"channels": len(data.channel_names), "resolution": data.resolution, **config.arguments}
            return classes[config.kind](**arguments)
        except TypeError as error:
            raise ValueError(f"[surrogates.{config.name}]: {error}") from None


def training_stage(config: RunConfig, run: RunDirectory, say: Callable[[str], None]) -> bool:
    """Train what is not trained yet; True if anything was."""
    train_data, val_data, _ = run.open_data()
    worked = False
    for surrogate in config.surrogates:
        settings = surrogate.training
        for seed in config.seeds:
            directory = run.models(surrogate.name, seed)
            model = build_surrogate(surrogate, train_data, seed)
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
                **({"cache_dtype": settings.cache_dtype} if settings.cache_dtype else {}),
            )
            worked = True
    return worked
