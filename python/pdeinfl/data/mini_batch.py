"""`MiniBatch`: the labelled examples of one influence computation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

CE_CHANNELS = ("density", "momentum_x", "momentum_y", "energy")
NS_CHANNELS = ("velocity_x", "velocity_y")


def assumed_channel_names(n_channels: int) -> tuple[str, ...]:
    """Names where none are given: of compressible Euler for four channels, of Navier–Stokes for two, else
    ``channel 0``, ``channel 1``, …."""
    known = {len(names): names for names in (CE_CHANNELS, NS_CHANNELS)}
    return known.get(n_channels, tuple(f"channel {c}" for c in range(n_channels)))


def _labels(name: str, values: Any, n: int) -> np.ndarray:
    if values is None:
        raise ValueError(f"`{name}` must be given: one integer per example")
    array = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    if array.shape != (n,):
        raise ValueError(f"`{name}` must have shape ({n},), one integer per example; got {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"`{name}` must hold integers; got dtype {array.dtype}")
    return array.astype(np.int64)


def _fields(name: str, values: Any) -> torch.Tensor:
    tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.asarray(values))
    if not tensor.is_floating_point():
        raise ValueError(f"`{name}` must be a floating-point tensor; got {tensor.dtype}")
    if tensor.ndim < 3:
        raise ValueError(f"`{name}` must have shape (n, channel, x, ...); got {tuple(tensor.shape)}")
    if len(tensor) == 0:
        raise ValueError(f"`{name}` holds no examples; a mini-batch needs at least one")
    finite = torch.isfinite(tensor).flatten(1).all(1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0, 0])
        raise ValueError(f"`{name}` holds NaN or infinity (first at example {bad}): remove or repair that example")
    return tensor.detach()


def _extras(extras: Any, n: int) -> tuple[torch.Tensor, ...]:
    given = tuple(extras) if isinstance(extras, Sequence) else (extras,)
    for k, extra in enumerate(given):
        if not isinstance(extra, torch.Tensor):
            raise ValueError(
                f"`extras[{k}]` must be a tensor of length {n}; got {type(extra).__name__}: what is the same for all "
                "examples goes into `pi.Adapter(module, extras=...)`"
            )
        if extra.ndim == 0 or len(extra) != n:
            raise ValueError(f"`extras[{k}]` must have length {n}, one entry per example; got {tuple(extra.shape)}")
        if not bool(torch.isfinite(extra).all()):
            raise ValueError(f"`extras[{k}]` holds NaN or infinity")
    return given


def _refuse_repeated(*labels: np.ndarray) -> None:
    seen: dict[tuple[int, ...], int] = {}
    for k, example in enumerate(zip(*(a.tolist() for a in labels), strict=True)):
        if example in seen:
            raise ValueError(
                f"examples {seen[example]} and {k} have the same class, trajectory and time {example}: drop one, or "
                "number trajectories apart (copies of a trajectory, too)"
            )
        seen[example] = k


@dataclass(frozen=True, eq=False, init=False)
class MiniBatch:
    """Transitions ``x_i -> y_i`` with the labels that the analysis groups by (MATH: an example ``i = (n, t)``).

    Args:
        inputs: states ``x_i``, ``(n, C, X, Y)``, floating point; the state may have one or three space axes instead,
            and the input of a multi-frame model may have more channels than the target.
        targets: next states ``y_i``, ``(n, C, X, Y)``.
        class_ids: initial-condition class of each example, ``(n,)`` integers indexing ``class_names``.
        trajectory_ids: trajectory of each example, ``(n,)`` integers.
        times: transition index of each example within its trajectory, 1 … T, ``(n,)`` integers.
        class_names: names of the classes; default ``class 0``, ``class 1``, ….
        channel_names: names of the target's channels, from which observables find density or energy; default the
            names of compressible Euler for four channels, of Navier–Stokes for two, ``channel 0``, … otherwise. Such an
            assumption counts where an observable is asked for by name, not for what responds by default.
        extras: one tensor or several, of length ``n``, handed to the module after the state (time step, class, …).

    Raises:
        ValueError: an array has the wrong shape or dtype, holds NaN or infinity, two examples have one class,
            trajectory and time, or there is no example.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    class_ids: np.ndarray
    trajectory_ids: np.ndarray
    times: np.ndarray
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    channels_are_assumed: bool
    extras: tuple[torch.Tensor, ...]

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        class_ids: Any = None,
        trajectory_ids: Any = None,
        times: Any = None,
        class_names: Sequence[str] | None = None,
        channel_names: Sequence[str] | None = None,
        extras: torch.Tensor | Sequence[torch.Tensor] = (),
    ) -> None:
        put = object.__setattr__
        inputs, targets = _fields("inputs", inputs), _fields("targets", targets)
        n = len(inputs)
        if len(targets) != n:
            raise ValueError(f"`inputs` and `targets` must have the same length; got {n} and {len(targets)}")
        put(self, "inputs", inputs)
        put(self, "targets", targets)
        for name, values in (("class_ids", class_ids), ("trajectory_ids", trajectory_ids), ("times", times)):
            put(self, name, _labels(name, values, n))
        _refuse_repeated(self.class_ids, self.trajectory_ids, self.times)
        n_classes = int(self.class_ids.max()) + 1
        if int(self.class_ids.min()) < 0:
            raise ValueError("`class_ids` must be non-negative; got " + str(int(self.class_ids.min())))
        names = tuple(class_names) if class_names is not None else tuple(f"class {k}" for k in range(n_classes))
        if len(names) < n_classes:
            raise ValueError(f"`class_names` must name every class: ids reach {n_classes - 1}, got {len(names)} names")
        put(self, "class_names", names)
        n_channels = targets.shape[1]
        put(self, "channels_are_assumed", channel_names is None)
        if channel_names is None:
            channel_names = assumed_channel_names(n_channels)
        if len(channel_names) != n_channels:
            raise ValueError(
                f"`channel_names` must name the {n_channels} channels of `targets`, {tuple(targets.shape)}; got "
                f"{len(channel_names)} names"
            )
        put(self, "channel_names", tuple(channel_names))
        put(self, "extras", _extras(extras, n))

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.targets.shape[1:]))
        n_trajectories = len(np.unique(np.stack([self.class_ids, self.trajectory_ids]), axis=1).T)
        assumed = " (assumed)" if self.channels_are_assumed else ""
        return (
            f"MiniBatch({len(self)} transitions of {n_trajectories} trajectories, {shape}; classes "
            f"{', '.join(self.class_names)}; channels {', '.join(self.channel_names)}{assumed})"
        )

    def to(self, device: Any = None, dtype: torch.dtype | None = None) -> MiniBatch:
        """The same examples with fields on another device or in another floating-point dtype."""

        def move(t: torch.Tensor) -> torch.Tensor:
            return t.to(device=device, dtype=dtype if t.is_floating_point() else None)

        return self.with_fields(move(self.inputs), move(self.targets), tuple(move(e) for e in self.extras))

    def select(self, indices: Any) -> MiniBatch:
        """The examples at ``indices`` (integers, a slice or a boolean mask), in that order."""
        order = np.arange(len(self))[indices]
        at = torch.as_tensor(order, device=self.inputs.device)
        chosen = self.with_fields(self.inputs[at], self.targets[at], tuple(e[at.to(e.device)] for e in self.extras))
        for name in ("class_ids", "trajectory_ids", "times"):
            object.__setattr__(chosen, name, getattr(self, name)[order])
        return chosen

    def sha256(self) -> str:
        """Digest of the fields and labels: the mini-batch's identity in the influence store."""
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.targets, *self.extras):
            array = np.ascontiguousarray(tensor.cpu().numpy())
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        for labels in (self.class_ids, self.trajectory_ids, self.times):
            digest.update(labels.tobytes())
        digest.update("\0".join((*self.class_names, "", *self.channel_names)).encode())
        return digest.hexdigest()

    def with_fields(
        self, inputs: torch.Tensor, targets: torch.Tensor, extras: tuple[torch.Tensor, ...] | None = None
    ) -> MiniBatch:
        """The same labels with other fields of the same channels; nothing is checked."""
        new = object.__new__(MiniBatch)
        for name in ("class_ids", "trajectory_ids", "times", "class_names", "channel_names", "channels_are_assumed"):
            object.__setattr__(new, name, getattr(self, name))
        fields = {"inputs": inputs, "targets": targets, "extras": self.extras if extras is None else extras}
        for name, value in fields.items():
            object.__setattr__(new, name, value)
        return new
