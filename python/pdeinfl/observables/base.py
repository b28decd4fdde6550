"""`Observable`: what every scalar cost of a predicted field shares (channel look-up and shape checks)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from pdeinfl.data.mini_batch import assumed_channel_names

CHANNEL_EPS = 1e-6
"""Added to every denominator (eqs. 5b, 5c, 8), in the units of that denominator."""

_Self = TypeVar("_Self", bound="Observable")


@dataclass(frozen=True)
class Observable:
    """A scalar cost of each example's prediction, ``C(ŷ_i; x_i, y_i)``.

    Called as ``observable(pred, target, input)`` with ``pred`` and ``target`` ``(n, C, X, ...)`` (one to three space
    axes) and ``input`` of the same shape; an input of ``kC`` channels is read as ``k`` frames in time order, the last
    one being the current state. Returns ``(n,)`` in the dtype of ``pred``.

    Args:
        channel_names: names of the ``C`` channels. None: those of compressible Euler for four channels, of
            Navier–Stokes for two; ``bind`` sets them.

    Raises:
        ValueError: shapes disagree, or a channel that the observable needs does not exist.
    """

    channel_names: tuple[str, ...] | None = field(default=None, kw_only=True)

    requires: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The name that ``resolve`` and an influence result know it by."""
        raise NotImplementedError

    def needs(self) -> tuple[str, ...]:
        """The channels that must exist."""
        return self.requires

    def cost(self, pred: Tensor, target: Tensor, state: Tensor) -> Tensor:
        """``(n,)`` costs of checked fields; ``state`` is the current frame of the input, shaped like ``pred``."""
        raise NotImplementedError

    def bind(self: _Self, channel_names: Sequence[str]) -> _Self:
        """The same observable for fields with these channels; ValueError if one that it needs is missing."""
        names = tuple(channel_names)
        for need in self.needs():
            if need not in names:
                raise ValueError(
                    f"observable `{self.name}` needs the channel {need!r}; these fields have {list(names)}"
                )
        return replace(self, channel_names=names)

    def index_of(self, name: str) -> int:
        """Index of a channel of a bound observable."""
        assert self.channel_names is not None
        return self.channel_names.index(name)

    def __call__(self, pred: Tensor, target: Tensor, input: Tensor) -> Tensor:
        if pred.ndim < 3 or pred.ndim > 5:
            raise ValueError(
                f"`pred` must have shape (n, channel, x, ...), one to three space axes; got {_shape(pred)}"
            )
        if target.shape != pred.shape:
            raise ValueError(f"`target` must have the shape of `pred`, {_shape(pred)}; got {_shape(target)}")
        n_channels = pred.shape[1]
        if input.ndim != pred.ndim or input.shape[2:] != pred.shape[2:] or input.shape[1] % n_channels:
            raise ValueError(f"`input` must have the shape of `pred`, {_shape(pred)}, or k frames of it along the "
                             f"channel axis; got {_shape(input)}")  # fmt: skip
        bound = self if self.channel_names is not None else self.bind(assumed_channel_names(n_channels))
        if len(bound.channel_names or ()) != n_channels:
            raise ValueError(f"observable `{self.name}` is bound to the channels {list(bound.channel_names or ())}; "
                             f"got fields with {n_channels} channels: bind it to theirs")  # fmt: skip
        return bound.cost(pred, target, input[:, input.shape[1] - n_channels :])


@dataclass(frozen=True)
class UserObservable(Observable):
    """A callable ``(pred, target, input) -> (n,)`` as an observable; it receives the input as it is, all frames.

    Args:
        function: differentiable, batched over the leading axis, and able to run under ``torch.func.vmap``.
        label: its name in results.
    """

    function: Callable[[Tensor, Tensor, Tensor], Any]
    label: str

    @property
    def name(self) -> str:
        return self.label

    def __call__(self, pred: Tensor, target: Tensor, input: Tensor) -> Tensor:
        value = self.function(pred, target, input)
        if not isinstance(value, Tensor) or value.shape != pred.shape[:1]:
            got = _shape(value) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"observable `{self.name}` must return a tensor of shape ({len(pred)},), one cost per "
                             f"example; got {got}: reduce over channels and space only")  # fmt: skip
        return value


def spatial_axes(fields: Tensor) -> tuple[int, ...]:
    """The space axes of ``(n, C, X, ...)``, counted from the end."""
    return tuple(range(2 - fields.ndim, 0))


def rms(fields: Tensor) -> Tensor:
    """Root mean square over space of each channel, ``(n, C, X, ...) -> (n, C)``."""
    return fields.square().mean(spatial_axes(fields)).sqrt()


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
