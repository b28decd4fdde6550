"""The training loop: SMSE, AdamW at a constant rate, a checkpoint after every epoch, resumable to the same curve."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pdeinfl.arguments import check_counts
from pdeinfl.data.streaming import stream_batches
from pdeinfl.devices import check_device
from pdeinfl.observables import SMSE
from pdeinfl.surrogates.checkpoint import (
    checkpoint_info,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from pdeinfl.surrogates.distributed import World, joined_world
from pdeinfl.surrogates.history import History
from pdeinfl.surrogates.progress import TrainingProgress
from pdeinfl.surrogates.rollout import in_mode
from pdeinfl.surrogates.validation import smse_sum

_CHECK_EVERY = 50  # batches between checks of the loss on CUDA, where each one waits for the device


class TrainingDiverged(ValueError):
    """The loss became NaN or infinite."""


def train(
    model: nn.Module,
    train: Any,
    val: Any,
    epochs: int,
    seed: int = 0,
    checkpoint_dir: str | Path | None = None,
    batch_size: int = 48,
    lr: float = 5e-4,
    weight_decay: float = 1e-4,
    device: Any = None,
    resume: bool = True,
    checkpoint_every: int = 1,
    keep_epochs: Collection[int] | Literal["all"] = (),
    progress: bool = True,
    **streaming: Any,
) -> History:
    """Train a surrogate on one-step transitions and leave it trained.

    Minimises the mean SMSE (eq. 8) with AdamW at a constant learning rate, on batches drawn at random from all
    trajectories, and validates after every epoch. Under torchrun the processes train together with averaged gradients,
    ``batch_size`` each, and rank 0 writes.

    Args:
        model: maps states ``(n, C, X, Y)``, and nothing else, to next states; any module. Its initial weights are the
            caller's business.
        train, val: `Trajectories`.
        epochs: last epoch, counted from the start of the run, not from a resumed one.
        seed: of the order of batches and of dropout; each epoch draws from (seed, epoch, rank) alone, so that a
            resumed run is the uninterrupted one, bit for bit on CPU.
        checkpoint_dir: where ``epoch_0000.pt`` (the untrained control), later epochs and ``history.json`` go; None
            writes nothing.
        batch_size: transitions per batch and process.
        lr, weight_decay: of AdamW.
        device: default: where the model is; under torchrun ``"cuda"`` is the local rank's card. The model stays there.
        resume: go on from the last checkpoint in ``checkpoint_dir``; False deletes the checkpoints there first.
        checkpoint_every: epochs between checkpoints; the last epoch always has one.
        keep_epochs: epochs whose checkpoints stay besides 0 and the last; ``"all"`` keeps every one.
        progress: a bar on a terminal, lines in a log; False for silence.
        streaming: further arguments of ``pdeinfl.data.streaming.stream_batches``.

    Returns:
        The run's `History` from epoch 0.

    Raises:
        ValueError: bad arguments, data that the model cannot take, or a ``checkpoint_dir`` of another run.
        TrainingDiverged: the loss is no longer finite; checkpoints up to the last whole epoch stay valid.
        KeyboardInterrupt: likewise.
    """
    epochs, seed = check_counts(0, epochs=epochs, seed=seed)
    batch_size, checkpoint_every = check_counts(1, batch_size=batch_size, checkpoint_every=checkpoint_every)
    lr, weight_decay = float(lr), float(weight_decay)
    if not 0 < lr < math.inf or not 0 <= weight_decay < math.inf:
        raise ValueError(f"`lr` must be positive and `weight_decay` non-negative; got {lr} and {weight_decay}")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("`model` has no trainable parameters")
    where = next(model.parameters()).device if device is None else check_device("device", device)
    _check_data(model, train, val)
    with joined_world(where) as world, torch.random.fork_rng(devices=_cuda_devices(world.device)):
        model.to(world.device)
        settings = {
            "seed": seed, "batch_size": batch_size, "processes": world.size, "lr": lr, "weight_decay": weight_decay,
            "n_train": len(train), "n_val": len(val), "channel_names": list(train.channel_names),
            "resolution": [int(side) for side in train.resolution], "data": _fingerprint(train, val),
            # What the order or the rounding of the batches depends on besides the seed.
            "buffer_bytes": streaming.get("buffer_bytes"), "cache_dtype": streaming.get("cache_dtype"),
        }  # fmt: skip
        keep = None if keep_epochs == "all" else {0, *(int(e) for e in keep_epochs)}
        run = _Run(model, train, val, world, settings, checkpoint_dir, checkpoint_every, keep, streaming)
        run.begin(resume, epochs)
        return run.until(epochs, progress)


class _Run:
    def __init__(
        self,
        model: nn.Module,
        train: Any,
        val: Any,
        world: World,
        settings: dict[str, Any],
        directory: str | Path | None,
        every: int,
        keep: set[int] | None,
        streaming: dict[str, Any],
    ) -> None:
        self.model, self.data, self.val, self.world = model, train, val, world
        self.settings, self.streaming = settings, streaming
        self.directory = None if directory is None else Path(directory)
        self.every, self.keep = every, keep
        trainable = [p for p in model.parameters() if p.requires_grad]
        self.n_parameters = sum(p.numel() for p in trainable)
        self.optimizer = torch.optim.AdamW(trainable, lr=settings["lr"], weight_decay=settings["weight_decay"])
        self.rows: list[list[float]] = []
        self.parallel = world.parallel(model)  # first of all: it gives every process the weights of rank 0

    @property
    def history(self) -> History:
        return History.from_rows(self.rows, self.n_parameters)

    def begin(self, resume: bool, epochs: int) -> None:
        """Epoch 0, or the last checkpoint of the same run."""
        found = self.world.agree(self._prepare_directory(resume))
        if found is not None:
            info = checkpoint_info(found)
            _check_same_run(found, info.settings, self.settings)
            if info.epoch > epochs:
                raise ValueError(f"`epochs` must be at least {info.epoch}, which {self.directory} has reached; "
                                 f"got {epochs}: ask for more, or pass another checkpoint_dir")  # fmt: skip
            load_checkpoint(found, self.model)
            self.optimizer.load_state_dict(info.optimizer_state)
            self.rows = info.history.rows()
            return
        start = time.perf_counter()
        loss = self._validate()
        self._record(0, math.nan, loss, time.perf_counter() - start, last=epochs == 0)

    def until(self, epochs: int, progress: bool) -> History:
        first = len(self.rows)
        per_epoch = len(self.data) * (self.data.n_times - 1)
        shown = progress and self.world.rank == 0
        n_here = math.ceil(per_epoch / self.world.size) * max(0, epochs + 1 - first)
        with TrainingProgress(shown, epochs, n_here) as show:
            for epoch in range(first, epochs + 1):
                start = time.perf_counter()
                train_loss = self._epoch(epoch, show)
                val_loss = self._validate()
                seconds = time.perf_counter() - start
                self._record(epoch, train_loss, val_loss, seconds, last=epoch == epochs)
                show.epoch(epoch, train_loss, val_loss, seconds)
        return self.history

    def _epoch(self, epoch: int, show: TrainingProgress) -> float:
        seed, rank, device = self.settings["seed"], self.world.rank, self.world.device
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0] >> 1))
        smse = SMSE()
        total = torch.zeros(2, dtype=torch.float64, device=device)
        batches = stream_batches(
            self.data, self.settings["batch_size"], seed, epoch,
            device=device, rank=rank, world_size=self.world.size, **self.streaming,
        )  # fmt: skip
        with in_mode(self.parallel, training=True):
            for count, (x, y) in enumerate(batches, 1):
                self.optimizer.zero_grad(set_to_none=True)
                loss = smse(self.parallel(x), y, x).mean()
                loss.backward()
                self.optimizer.step()
                total[0] += loss.detach().double() * len(x)
                total[1] += len(x)
                if device.type == "cpu" or count % _CHECK_EVERY == 0:
                    self._check_finite(total, epoch, count)
                show.batch(len(x))
        total = self.world.sum(total)
        self._check_finite(total, epoch, None)
        return (total[0] / total[1]).item()

    def _validate(self) -> float:
        mine = range(self.world.rank, len(self.val), self.world.size)
        batch_size = self.settings["batch_size"]
        total = self.world.sum(smse_sum(self.model, self.val, mine, batch_size, self.world.device))
        return (total[0] / total[1]).item()

    def _check_finite(self, total: Tensor, epoch: int, batch: int | None) -> None:
        if not math.isfinite(total[0].item()):
            at = f"epoch {epoch}" + ("" if batch is None else f", batch {batch}")
            raise TrainingDiverged(f"training loss became {total[0].item()} by {at}: lower `lr` "
                                   f"({self.settings['lr']}), or look for extreme values in the data")  # fmt: skip

    def _prepare_directory(self, resume: bool) -> Path | None:
        if self.directory is None or self.world.rank > 0:
            return None
        self.directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.directory)
        found = list_checkpoints(self.directory)
        if resume:
            return found[max(found)] if found else None
        for path in found.values():
            path.unlink()
        return None

    def _record(self, epoch: int, train_loss: float, val_loss: float, seconds: float, last: bool) -> None:
        self.rows.append([train_loss, val_loss, seconds])
        due = last or epoch % self.every == 0 or (self.keep is not None and epoch in self.keep)
        if self.directory is not None and due:
            if self.world.rank == 0:
                path = checkpoint_path(self.directory, epoch)
                save_checkpoint(path, self.model, epoch, self.settings, self.history, self.optimizer)
                self.history.save(self.directory / "history.json")
                if self.keep is not None:
                    for old, stale in list_checkpoints(self.directory).items():
                        if old < epoch and old not in self.keep:
                            stale.unlink()
            self.world.wait()


def _check_data(model: nn.Module, train: Any, val: Any) -> None:
    for name, data in (("train", train), ("val", val)):
        if len(data) == 0 or data.n_times < 2:
            raise ValueError(f"`{name}` holds no transitions: {len(data)} trajectories of {data.n_times} snapshots")
    for what in ("channel_names", "resolution"):
        ours, theirs = tuple(getattr(train, what)), tuple(getattr(val, what))
        if ours != theirs:
            raise ValueError(f"`train` and `val` must have the same {what}; got {ours} and {theirs}")
    parameter = next(model.parameters())
    state = torch.from_numpy(np.array(train[0][:1])).to(parameter.device, parameter.dtype)
    with in_mode(model, training=False), torch.no_grad():
        try:
            shape = tuple(model(state).shape)
        except (RuntimeError, TypeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"`model` cannot take one state of shape {tuple(state.shape[1:])} alone: {reason}"
            ) from None
    if shape != tuple(state.shape):
        raise ValueError(
            f"`model` must map a state to one of the same shape, {tuple(state.shape[1:])}; got {shape[1:]}"
        )


def _check_same_run(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise ValueError(f"{path} is of another run: its {name} is {theirs.get(name)!r}, this one's {value!r}: "
                             f"pass another checkpoint_dir, or resume=False to replace it")  # fmt: skip


def _fingerprint(train: Any, val: Any) -> str:
    """Digest of the first and last trajectories: tells another data set without reading all of this one."""
    digest = hashlib.sha256()
    for states in (train[0], train[-1], val[0], val[-1]):
        digest.update(np.ascontiguousarray(states, dtype=np.float32).tobytes())
    return digest.hexdigest()


def _cuda_devices(device: torch.device) -> list[int]:
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]
