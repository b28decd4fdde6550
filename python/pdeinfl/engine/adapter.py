"""`Adapter`: what stands between a module and "state in, next state out, both in physical units, channels first"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdeinfl.arguments import check_count


class Adapter(nn.Module):
    r"""A module as a map from the state ``(n, k·C, X, …)`` to the next state ``(n, C, X, …)``, in physical units.

    .. math:: ŷ = μ_y + σ_y · f((x − μ)/σ) \quad\text{or}\quad ŷ = x_{last} + μ_y + σ_y · f((x − μ)/σ) .

    Several input frames arrive folded into the channels, oldest first. The parameters are the module's own, under names
    that start with ``module.``; statistics and fixed extras are buffers.

    Args:
        module: the network f; takes the (normalised, laid out) state and then the extras.
        mean, std: of each channel, a number or ``(C,)``; default 0 and 1. Every frame is normalised alike.
        target_mean, target_std: of what the module predicts. Default for states those of the input, for differences
            0 and ``std``.
        predicts: ``"state"``, or ``"difference"`` from the last frame.
        n_frames: k, frames in the input.
        frames: ``"channels"`` leaves them folded; ``"axis"`` gives the module ``(n, k, C, X, …)``.
        channels_last: the module takes ``(n, X, …, k·C)`` (``(n, k, X, …, C)`` with a frame axis) and returns
            ``(n, X, …, C)``.
        extras: fixed arguments for every example, after the state: numbers or tensors; each arrives as
            ``(n, *its shape)``. Extras of the mini-batch follow them.
        output: where the module returns a tuple or mapping: index or key of the prediction, or a function of what it
            returned.

    Raises:
        ValueError: an argument out of range; at a call, an input whose channels do not fit.

    A model trained on normalised states:

    >>> f = nn.Conv2d(2, 2, 3, padding=1)
    >>> Adapter(f, mean=[1.0, 0.0], std=[0.5, 0.2])(torch.zeros(5, 2, 8, 8)).shape
    torch.Size([5, 2, 8, 8])

    One that predicts the (normalised) change of the state:

    >>> Adapter(f, std=[0.5, 0.2], predicts="difference", target_std=0.01)(torch.zeros(5, 2, 8, 8)).shape
    torch.Size([5, 2, 8, 8])

    Two input frames, folded into channels or on an axis of their own:

    >>> two = Adapter(nn.Conv2d(4, 2, 1), mean=[1.0, 0.0], n_frames=2)
    >>> two(torch.zeros(5, 4, 8, 8)).shape
    torch.Size([5, 2, 8, 8])
    >>> stack = Adapter(nn.Flatten(1, 2), n_frames=2, frames="axis", output=lambda y: y[:, 2:])
    >>> stack(torch.zeros(5, 4, 8, 8)).shape
    torch.Size([5, 2, 8, 8])

    Channels last, with a linear layer:

    >>> Adapter(nn.Linear(2, 2), channels_last=True)(torch.zeros(5, 2, 8, 8)).shape
    torch.Size([5, 2, 8, 8])

    A time step that is the same for all examples (one for each goes into ``MiniBatch(..., extras=(steps,))`` instead):

    >>> class Euler(nn.Module):
    ...     def forward(self, x, step):
    ...         return x + step[:, None, None, None] * x, "and more"
    >>> float(Adapter(Euler(), extras=(0.5,), output=0)(torch.ones(1, 2, 8, 8)).mean())
    1.5
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mean: float | Sequence[float] | Tensor = 0.0,
        std: float | Sequence[float] | Tensor = 1.0,
        target_mean: float | Sequence[float] | Tensor | None = None,
        target_std: float | Sequence[float] | Tensor | None = None,
        predicts: Literal["state", "difference"] = "state",
        n_frames: int = 1,
        frames: Literal["channels", "axis"] = "channels",
        channels_last: bool = False,
        extras: Sequence[float | Tensor] = (),
        output: int | str | Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if predicts not in ("state", "difference"):
            raise ValueError(f"`predicts` must be 'state' or 'difference'; got {predicts!r}")
        if frames not in ("channels", "axis"):
            raise ValueError(f"`frames` must be 'channels' or 'axis'; got {frames!r}")
        n_frames = check_count("n_frames", n_frames)
        self.module = module
        self.predicts, self.n_frames, self.frames = predicts, n_frames, frames
        self.channels_last, self.output = channels_last, output
        if target_mean is None:
            target_mean = mean if predicts == "state" else 0.0
        statistics = {"mean": mean, "std": std, "target_mean": target_mean}
        statistics["target_std"] = std if target_std is None else target_std
        for name, values in statistics.items():
            refusal = ValueError(f"`{name}` must be a finite number or one for each channel; got {values!r}")
            try:
                tensor = torch.as_tensor(values, dtype=torch.get_default_dtype()).detach().clone()
            except (TypeError, ValueError, RuntimeError):
                raise refusal from None
            if tensor.ndim > 1 or not bool(torch.isfinite(tensor).all()):
                raise refusal
            if name.endswith("std") and not bool((tensor > 0).all()):
                raise ValueError(f"`{name}` must be positive; got {values!r}: give constant channels 1")
            self.register_buffer(name, tensor.reshape(-1))
        self.n_extras = len(extras)
        for k, value in enumerate(extras):
            self.register_buffer(f"extra_{k}", torch.as_tensor(value).detach().clone())

    def forward(self, x: Tensor, *extras: Tensor) -> Tensor:
        """``(n, k·C, X, …)`` and the mini-batch's extras to ``(n, C, X, …)``."""
        if x.ndim < 3 or x.shape[1] % self.n_frames:
            raise ValueError(
                f"`x` must have shape (n, {self.n_frames}·channels, x, ...) for {self.n_frames} frames; "
                f"got {tuple(x.shape)}"
            )
        stacked = x.unflatten(1, (self.n_frames, -1))
        state = (stacked - self._statistic("mean", stacked)) / self._statistic("std", stacked)
        if self.frames == "channels":
            state = state.flatten(1, 2)
        if self.channels_last:
            state = state.movedim(1 if self.frames == "channels" else 2, -1)
        fixed = [getattr(self, f"extra_{k}") for k in range(self.n_extras)]
        y = self._pick(self.module(state, *(e.expand(len(x), *e.shape) for e in fixed), *extras))
        if self.channels_last:
            y = y.movedim(-1, 1)
        y = self._statistic("target_mean", y) + self._statistic("target_std", y) * y
        return y if self.predicts == "state" else stacked[:, -1] + y

    def _statistic(self, name: str, fields: Tensor) -> Tensor:
        """A statistic shaped to broadcast against ``(…, C, X, …)`` with as many space axes as the fields have."""
        values = getattr(self, name)
        n_space = fields.ndim - (3 if name in ("mean", "std") else 2)
        n_channels = fields.shape[-n_space - 1]
        if len(values) not in (1, n_channels):
            raise ValueError(f"`{name}` has {len(values)} entries, but the fields have {n_channels} channels")
        return values.reshape(-1, *[1] * n_space)

    def _pick(self, out: Any) -> Tensor:
        if callable(self.output):
            out = self.output(out)
        elif self.output is not None:
            if isinstance(out, Tensor):
                raise ValueError(f"`output` is {self.output!r}, but the module returns one tensor: leave it out")
            try:
                out = out[self.output]
            except (LookupError, TypeError):
                raise ValueError(f"`output` is {self.output!r}, which the module's {_described(out)} lacks") from None
        if not isinstance(out, Tensor):
            raise ValueError(
                f"the module returned a {type(out).__name__}: say with `output` which part is the prediction"
            )
        return out


def _described(out: Any) -> str:
    """What a module returned, with what can be picked from it."""
    kind = type(out).__name__
    if isinstance(out, Mapping):
        return f"{kind} with the keys {', '.join(map(repr, out))}"
    return f"{kind} of {len(out)}" if isinstance(out, Sequence) else kind
