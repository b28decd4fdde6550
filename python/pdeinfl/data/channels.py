"""Channels: their names in each equation, and how each behaves under rotation and conservation."""

from __future__ import annotations

from collections.abc import Sequence

from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS

CE_PRIMITIVES = ("density", "velocity_x", "velocity_y", "pressure")
GAMMA = 1.4
"""Ratio of specific heats of the compressible Euler data (DATA)."""


def channel_kind(name: str) -> str:
    """``"energy"``, ``"x_component"`` or ``"y_component"`` of a vector, else ``"scalar"``."""
    if name == "energy":
        return "energy"
    for axis in "xy":
        if name.endswith(f"_{axis}"):
            return f"{axis}_component"
    return "scalar"


def equation_of(channel_names: Sequence[str]) -> str | None:
    """``"CE"`` for conserved or primitive compressible Euler, ``"NS"`` for incompressible flow, None otherwise."""
    names = tuple(channel_names)
    if names in (CE_CHANNELS, CE_PRIMITIVES):
        return "CE"
    return "NS" if names == NS_CHANNELS else None
