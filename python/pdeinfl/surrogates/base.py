"""`Surrogate`: what our networks share (a configuration that rebuilds them, checks of what they are called with)."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from torch import Tensor, nn


class Surrogate(nn.Module):
    """A network that maps a state ``(n, C, X, Y)`` to the next one, the state itself rather than an increment.

    Args:
        config: the constructor's arguments, plain values; with the class's name they make `config`.
        channels: C.
        resolution: ``(X, Y)`` that the network is built for, or None when it takes any its ``check_resolution`` allows.
    """

    def __init__(self, config: dict[str, Any], channels: int, resolution: tuple[int, int] | None) -> None:
        super().__init__()
        self._config = config
        self.channels = channels
        self.resolution = resolution

    @property
    def config(self) -> dict[str, Any]:
        """Plain values from which ``pdeinfl.surrogates.build`` makes the same architecture."""
        return {"kind": type(self).__name__, **self._config}

    @property
    def n_parameters(self) -> int:
        """How many trainable numbers the network has."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def check_resolution(self, resolution: tuple[int, int]) -> None:
        """ValueError if the architecture cannot take ``(X, Y)``."""
        if self.resolution is not None and resolution != self.resolution:
            raise ValueError(f"this {type(self).__name__} is built for resolution {self.resolution}; got {resolution}: "
                             f"build one with resolution={resolution}")  # fmt: skip

    def check_state(self, state: Tensor) -> None:
        """ValueError if the network cannot take these states."""
        shape = tuple(state.shape)
        if state.ndim != 4 or shape[1] != self.channels:
            raise ValueError(f"this {type(self).__name__} takes states (n, {self.channels}, x, y); got shape {shape}")
        self.check_resolution((shape[2], shape[3]))


def as_resolution(resolution: int | Sequence[int]) -> tuple[int, int]:
    """``(X, Y)`` from one number for a square grid, or from two."""
    given: Any = resolution
    sides = (given, given) if isinstance(given, Integral) else tuple(given)
    if len(sides) != 2 or not all(isinstance(side, Integral) and int(side) >= 1 for side in sides):
        raise ValueError(f"`resolution` must be a positive integer or a pair (X, Y) of them; got {resolution!r}")
    return int(sides[0]), int(sides[1])
