"""Surrogates: the paper's two networks at any size, rollout, training, checkpoints."""

from pdeinfl.surrogates.base import Surrogate
from pdeinfl.surrogates.catalogue import build
from pdeinfl.surrogates.rollout import rollout
from pdeinfl.surrogates.unet import UNet
from pdeinfl.surrogates.vit import ViT

__all__ = ["Surrogate", "UNet", "ViT", "build", "rollout"]
