"""Surrogates: the paper's two networks at any size, rollout, training, checkpoints."""

from pdeinfl.surrogates.base import Surrogate
from pdeinfl.surrogates.catalogue import build
from pdeinfl.surrogates.checkpoint import (
    CheckpointInfo,
    checkpoint_info,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from pdeinfl.surrogates.history import History
from pdeinfl.surrogates.rollout import rollout
from pdeinfl.surrogates.rollout_errors import RolloutErrors, rollout_errors
from pdeinfl.surrogates.training import TrainingDiverged, train
from pdeinfl.surrogates.unet import UNet
from pdeinfl.surrogates.vit import ViT

__all__ = [
    "CheckpointInfo",
    "History",
    "RolloutErrors",
    "Surrogate",
    "TrainingDiverged",
    "UNet",
    "ViT",
    "build",
    "checkpoint_info",
    "checkpoint_path",
    "list_checkpoints",
    "load_checkpoint",
    "rollout",
    "rollout_errors",
    "save_checkpoint",
    "train",
]
