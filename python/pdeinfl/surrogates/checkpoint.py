"""Checkpoints: one file per epoch, plain tensors and numbers, loaded with ``weights_only=True``."""

from __future__ import annotations

import hashlib
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pdeinfl.atomic import atomic_path
from pdeinfl.devices import check_device
from pdeinfl.surrogates.catalogue import build
from pdeinfl.surrogates.history import History

_FORMAT = "pdeinfl-checkpoint-1"
# What torch.load raises on files cut short or of another kind, an OSError from a seek before their start included.
_UNREADABLE = (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError, AttributeError, OSError)
_NAME = re.compile(r"epoch_(\d{4,})\.pt")


@dataclass(frozen=True, eq=False)
class CheckpointInfo:
    """What a checkpoint says besides the weights.

    Attributes:
        path: the file.
        epoch: epochs of training behind it; 0 is the untrained network.
        config: `Surrogate.config` of the network, or None for a module of another kind.
        settings: what the run was started with (seed, batch size, learning rate, channel names, …), plain values.
        history: losses up to this epoch.
        optimizer_state: state of the optimiser, for resuming.
    """

    path: Path
    epoch: int
    config: dict[str, Any] | None
    settings: dict[str, Any]
    history: History
    optimizer_state: dict[str, Any] = field(repr=False)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.settings["seed"]

    def sha256(self) -> str:
        """Digest of the file: the checkpoint's identity in the influence store."""
        return sha256(self.path)


def checkpoint_path(directory: str | Path, epoch: int) -> Path:
    """Where the checkpoint of an epoch lies in a run's directory."""
    return Path(directory) / f"epoch_{epoch:04d}.pt"


def list_checkpoints(directory: str | Path) -> dict[int, Path]:
    """The checkpoints in a run's directory by epoch, ascending; empty if there is no such directory."""
    found = {}
    for path in Path(directory).glob("epoch_*.pt"):
        match = _NAME.fullmatch(path.name)
        if match:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def remove_leftovers(directory: str | Path) -> None:
    """Delete the temporary files that a killed process was writing in a run's directory."""
    for pattern in (".epoch_*.pt.*.tmp", ".history.json.*.tmp"):
        for temporary in Path(directory).glob(pattern):
            temporary.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    epoch: int = 0,
    settings: dict[str, Any] | None = None,
    history: History | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Write a checkpoint atomically: whoever reads the path finds the old file or the new one, whole.

    Args:
        path: target file.
        model: its ``state_dict`` is saved, and its ``config`` if it has one.
        epoch, settings, history, optimizer: what `CheckpointInfo` gives back; settings must be plain values.
    """
    history = history or History.from_rows([], 0)
    content = {
        "format": _FORMAT,
        "epoch": epoch,
        "config": getattr(model, "config", None),
        "settings": dict(settings or {}),
        "model": _on_cpu(model.state_dict()),
        "optimizer": {} if optimizer is None else _on_cpu(optimizer.state_dict()),
        "history": {"rows": history.rows(), "n_parameters": history.n_parameters},
    }
    # Through a file object: given a path, torch.save would write the temporary name into the file and its digest.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def _on_cpu(value: Any) -> Any:
    """The same nested dicts and lists with every tensor contiguous and on the CPU, wherever it was."""
    if isinstance(value, dict):
        return {key: _on_cpu(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_on_cpu(held) for held in value]
    return value.detach().cpu().contiguous() if isinstance(value, torch.Tensor) else value


def load_checkpoint(
    path: str | Path, model: nn.Module | None = None, device: Any = None
) -> tuple[nn.Module, CheckpointInfo]:
    """A trained network and what its checkpoint says.

    Args:
        path: a file that `save_checkpoint` or ``pdeinfl.train`` wrote.
        model: a module to load the weights into; default: our surrogate, built from the configuration in the file.
        device: where the network goes; default: CPU, or where ``model`` is.

    Returns:
        The network in eval mode if it was built here, in its own mode if given; and a `CheckpointInfo`.

    Raises:
        OSError: no such file.
        ValueError: not a checkpoint of ours, or weights that do not fit ``model``.
    """
    content = _read(path)
    if model is None:
        if content["config"] is None:
            raise ValueError(
                f"{path} holds a module of another kind than ours: pass `model`, built as it was trained, in Python; "
                "the command line builds our own only"
            )
        with torch.random.fork_rng(devices=[]):
            model = build(content["config"]).eval()
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: its weights do not fit this {type(model).__name__}: {reason[:300]}") from None
    if device is not None:
        model.to(check_device("device", device))
    return model, _info(path, content)


def checkpoint_info(path: str | Path) -> CheckpointInfo:
    """What a checkpoint says besides the weights; raises as `load_checkpoint`."""
    return _info(path, _read(path))


def _info(path: str | Path, content: dict[str, Any]) -> CheckpointInfo:
    saved = content["history"]
    return CheckpointInfo(
        path=Path(path),
        epoch=content["epoch"],
        config=content["config"],
        settings=content["settings"],
        history=History.from_rows(saved["rows"], saved["n_parameters"]),
        optimizer_state=content["optimizer"],
    )


def _read(path: str | Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            raise ValueError(
                f"{path} is not a readable checkpoint ({type(error).__name__}): damaged, or not written by this package"
            ) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this package (expected format {_FORMAT!r})")
    return content
