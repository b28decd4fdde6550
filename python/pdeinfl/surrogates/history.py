"""`History`: the optimisation curve of a training run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfl.atomic import atomic_path

_CURVES = ("train_loss", "val_loss", "seconds")


@dataclass(frozen=True, eq=False)
class History:
    """Losses by epoch; row 0 is the untrained network.

    Attributes:
        epoch: ``(E + 1,)`` integers 0 … E.
        train_loss: ``(E + 1,)`` mean SMSE over the epoch's batches, each before its own step; NaN at epoch 0.
        val_loss: ``(E + 1,)`` mean SMSE over all validation transitions after the epoch.
        seconds: ``(E + 1,)`` wall seconds of each epoch, validation included.
        n_parameters: trainable numbers of the model.
    """

    epoch: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    seconds: np.ndarray
    n_parameters: int

    @classmethod
    def from_rows(cls, rows: list[list[float]], n_parameters: int) -> History:
        """From one ``[train_loss, val_loss, seconds]`` per epoch."""
        table = np.array(rows, dtype=np.float64).reshape(-1, len(_CURVES))
        train_loss, val_loss, seconds = table.T.copy()
        return cls(np.arange(len(table)), train_loss, val_loss, seconds, n_parameters)

    def rows(self) -> list[list[float]]:
        """One ``[train_loss, val_loss, seconds]`` per epoch."""
        return np.stack([getattr(self, name) for name in _CURVES], 1).tolist()

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically; NaN becomes null."""
        content: dict[str, Any] = {"epoch": self.epoch.tolist(), "n_parameters": self.n_parameters}
        for name in _CURVES:
            content[name] = [None if math.isnan(v) else v for v in getattr(self, name).tolist()]
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read what `save` wrote; ValueError naming the file if it is something else."""
        try:
            content = json.loads(Path(path).read_text())
            curves = {name: np.array([math.nan if v is None else v for v in content[name]]) for name in _CURVES}
            epoch = np.array(content["epoch"], dtype=np.int64)
            history = cls(epoch, **curves, n_parameters=int(content["n_parameters"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a training history ({type(error).__name__}: {error})") from None
        if any(len(curve) != len(epoch) for curve in curves.values()):
            raise ValueError(f"{path} is not a training history: its curves differ in length")
        return history
