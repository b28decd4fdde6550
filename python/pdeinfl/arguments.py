"""Checks of arguments; every message is one line that says what is valid."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import Any, TypeGuard


def check_count(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int that is at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}; got {value!r}")
    return int(value)


def check_counts(least: int, **arguments: Any) -> list[int]:
    """The arguments as ints, in order; the first that is none or is below ``least`` is named."""
    return [check_count(name, value, least) for name, value in arguments.items()]


def check_positive(name: str, value: Any) -> float:
    """``value`` as a float that is positive and finite."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"`{name}` must be a positive finite number; got {value!r}")
    return float(value)


def check_one_of(name: str, value: Any, valid: Collection[str]) -> None:
    """ValueError unless ``value`` is among the valid ones, which the message lists."""
    if value not in valid:
        raise ValueError(f"`{name}` must be one of {', '.join(valid)}; got {value!r}")


def is_listed(value: Any) -> TypeGuard[Iterable[Any]]:
    """Whether these are several values rather than one."""
    # Arrays and tensors without an axis are numbers, though they have __iter__.
    single = isinstance(value, (str, bytes)) or getattr(value, "ndim", 1) == 0
    return isinstance(value, Iterable) and not single
