"""Translations and the square's symmetries acting on states, and how far a surrogate is from commuting with them.

Reference: MATH §6.3 and §7; the companion paper, arXiv 2601.20172.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdeinfl.analysis.lie import channel_kinds, lie_derivative
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.observables import SMSE


@dataclass(frozen=True)
class Motion:
    """A symmetry of the periodic square: flip, then quarter turns, then a shift.

    Args:
        shift_x, shift_y: grid points that the state moves along axis −2 and −1.
        quarter_turns: counterclockwise turns by 90° in the (x, y) plane.
        flip_x: mirror x → −x first; negates x components.
    """

    shift_x: int = 0
    shift_y: int = 0
    quarter_turns: int = 0
    flip_x: bool = False

    def __post_init__(self) -> None:
        for name in ("shift_x", "shift_y", "quarter_turns"):
            if not isinstance(getattr(self, name), (int, np.integer)):
                raise ValueError(f"`{name}` must be an integer; got {getattr(self, name)!r}")

    def __call__(self, states: Tensor, channel_names: Sequence[str]) -> Tensor:
        """The moved states: scalars are carried along, vector components turn with the grid.

        Args:
            states: ``(n, C, X, Y)``; odd quarter turns need X = Y.
            channel_names: names that end in ``_x`` and ``_y`` form vectors.

        Raises:
            ValueError: shape or names do not fit.
        """
        if states.ndim != 4 or states.shape[1] != len(channel_names):
            raise ValueError(
                f"`states` must have shape (n, {len(channel_names)}, X, Y), a channel per name; got "
                f"{tuple(states.shape)}"
            )
        turns = self.quarter_turns % 4
        if turns % 2 and states.shape[-2] != states.shape[-1]:
            raise ValueError(f"quarter turns need a square grid; got {tuple(states.shape[-2:])}")
        kinds = channel_kinds(channel_names)
        moved = states
        if self.flip_x:
            sign = torch.tensor([-1.0 if kind == "x" else 1.0 for kind, _ in kinds])
            moved = moved.flip(-2) * sign.to(moved).view(1, -1, 1, 1)
        for _ in range(turns):
            moved = _quarter_turn(moved, kinds)
        return moved.roll((self.shift_x, self.shift_y), (-2, -1))

    def on(self, batch: MiniBatch) -> MiniBatch:
        """The mini-batch with inputs and targets moved; labels and extras stay.

        Warns where channels that were not named are turned as the vector that their number suggests.

        Raises:
            ValueError: inputs have other channels than targets.
        """
        if batch.inputs.shape[1] != batch.targets.shape[1]:
            raise ValueError("a symmetry needs inputs and targets with the same channels")
        names = batch.channel_names
        vectors = [name for name, (kind, _) in zip(names, channel_kinds(names), strict=True) if kind in "xy"]
        if batch.channels_are_assumed and vectors and (self.flip_x or self.quarter_turns % 4):
            warnings.warn(
                f"the mini-batch's channels have no names: {' and '.join(vectors)} are assumed and turn as a vector; "
                "give `channel_names`",
                stacklevel=2,
            )
        return batch.with_fields(self(batch.inputs, names), self(batch.targets, names))


def _quarter_turn(states: Tensor, kinds: Sequence[tuple[str, int]]) -> Tensor:
    """The point (x, y) goes to (−y, x) and the vector (v_x, v_y) to (−v_y, v_x)."""
    turned = states.transpose(-2, -1).flip(-2)
    planes = []
    for channel, (kind, partner) in enumerate(kinds):
        if kind == "x":
            planes.append(-turned[:, partner])
        else:
            planes.append(turned[:, partner if kind == "y" else channel])
    return torch.stack(planes, 1)


def dihedral() -> tuple[Motion, ...]:
    """The eight symmetries of the square: four turns, without and with a flip."""
    return tuple(Motion(quarter_turns=k, flip_x=flip) for flip in (False, True) for k in range(4))


def equivariance_error(model: Callable[[Tensor], Tensor], batch: MiniBatch, motion: Motion) -> np.ndarray:
    """``SMSE(f(g·x), g·y) / SMSE(f(x), y)`` of each example, ``(n,)``: 1 for a model that commutes with g.

    The model is called as it is: put it in eval mode first. Infinite where the model is exact on the example itself.
    """
    moved = motion.on(batch)
    with torch.no_grad():
        above = _smse(model(moved.inputs), moved)
        below = _smse(model(batch.inputs), batch)
    return (above / below).double().cpu().numpy()


def third_quartile(errors: np.ndarray) -> float:
    """The companion's summary of equivariance errors: their 75 % quantile."""
    return float(np.quantile(errors, 0.75))


def spatial_lie_derivative(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    channel_names: Sequence[str],
    generator: str,
    accuracy_order: int = 6,
) -> Tensor:
    """``d/ds|₀ g₋ₛ f(g_s x) = L_ξ f(x) − Df(x)[L_ξ x]``, zero where f commutes with the motion (MATH §6.3).

    Args:
        model: differentiable map of ``(n, C, X, Y)`` states to states of the same channels.
        inputs: ``(n, C, X, Y)``. channel_names: as `Motion`. generator: ``"x"``, ``"y"`` or ``"rotation"``.
        accuracy_order: 2, 4 or 6, of the stencils; the derivative of f itself is exact (forward mode).

    Raises:
        ValueError: shape, names or generator do not fit.
    """
    tangent = _lie(inputs, generator, channel_names, accuracy_order)
    with warnings.catch_warnings():
        # Torch's own forward mode compiles its decompositions with a deprecated call on first use.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
        pair: Any = torch.func.jvp(model, (inputs.contiguous(),), (tangent,))
    output, pushed = pair
    return (_lie(output, generator, channel_names, accuracy_order) - pushed).detach()


def _lie(states: Tensor, generator: str, channel_names: Sequence[str], accuracy_order: int) -> Tensor:
    array = lie_derivative(states.detach().cpu().numpy(), generator, channel_names, accuracy_order)
    return torch.from_numpy(array).to(states)


def _smse(pred: Tensor, batch: MiniBatch) -> Tensor:
    return SMSE().bind(batch.channel_names)(pred, batch.targets, batch.inputs)
