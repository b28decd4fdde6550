"""`Damping`: the strength λ of the proximal term, absolute or relative to the largest eigenvalue of the metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, SupportsFloat


@dataclass(frozen=True)
class Damping:
    """The damping λ of ``η = A + λ·1`` (MATH §2, paper eq. 11).

    Build one with :meth:`absolute` or :meth:`relative`; a bare float means absolute. A relative damping is resolved
    against the largest eigenvalue of A, once per run, and results carry the absolute value.
    """

    value: float
    is_relative: bool

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"`damping` must be a positive finite number; got {self.value!r}")

    @classmethod
    def absolute(cls, value: float) -> Damping:
        """λ itself."""
        return cls(float(value), False)

    @classmethod
    def relative(cls, value: float) -> Damping:
        """λ as a multiple of the largest eigenvalue of the metric A."""
        return cls(float(value), True)

    @classmethod
    def of(cls, damping: Any) -> Damping:
        """A `Damping` from itself or from an absolute number.

        Raises:
            ValueError: not a number, or not positive and finite.
        """
        if isinstance(damping, cls):
            return damping
        if isinstance(damping, (str, bytes)) or not isinstance(damping, SupportsFloat):
            raise ValueError(f"`damping` must be a number or a `pi.Damping`; got {damping!r}")
        try:
            return cls.absolute(float(damping))
        except (TypeError, OverflowError):
            raise ValueError(f"`damping` must be a number or a `pi.Damping`; got {damping!r}") from None

    def resolve(self, lambda_max: float) -> float:
        """The absolute λ for a metric whose largest eigenvalue is ``lambda_max``."""
        return self.value * lambda_max if self.is_relative else self.value
