"""Checks of what the simulators are asked for; every message is one line with the valid values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EQUATIONS = ("CE", "NS")


def check_classes(classes: str | Sequence[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Class names of a name, a sequence of names or a mapping from names."""
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    if not names:
        raise ValueError("`classes` is empty: name at least one initial-condition class")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"`classes` must hold names; got {name!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"`classes` must not repeat a name; got {', '.join(names)}")
    return names


def refuse_gas_arguments(initial_states: Any, refinement: int | None) -> None:
    """ValueError if an argument that only compressible Euler knows is given."""
    for name, value in (("initial_states", initial_states), ("refinement", refinement)):
        if value is not None:
            raise ValueError(f"`{name}` is for CE only; leave it out for NS")
