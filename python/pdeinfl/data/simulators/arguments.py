"""Checks of what the simulators are asked for; every message is one line with the valid values."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

EQUATIONS = ("CE", "NS")


def check_count(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int that is at least ``least``."""
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"`{name}` must be an integer; got {value!r}") from None
    if count < least:
        raise ValueError(f"`{name}` must be at least {least}; got {count}")
    return count


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


def check_one_of(name: str, value: Any, valid: Collection[str]) -> None:
    """ValueError unless ``value`` is among the valid ones, which the message lists."""
    if value not in valid:
        raise ValueError(f"`{name}` must be one of {', '.join(valid)}; got {value!r}")


def refuse_gas_arguments(initial_states: Any, refinement: int | None) -> None:
    """ValueError if an argument that only compressible Euler knows is given."""
    for name, value in (("initial_states", initial_states), ("refinement", refinement)):
        if value is not None:
            raise ValueError(f"`{name}` is for CE only; leave it out for NS")
