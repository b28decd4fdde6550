"""Which differentiation transforms a module takes, found by trying the fastest first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from torch import Tensor

from pdeinfl.engine.memory import is_out_of_memory

Way = tuple[str, Callable[[], Tensor]]


class Transforms:
    """For each kind of product, the fastest way that works for one module in one dtype.

    A way is given up only when a slower one succeeds where it failed, so that an error of the module itself surfaces as
    what it is; and only for its own kind of product. The first that is given up is reported in one warning.
    """

    def __init__(self, module_name: str) -> None:
        self._module_name = module_name
        self._rank: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._told: list[str] = []

    def sibling(self) -> Transforms:
        """For the same module in another dtype: finds its own ways, says nothing twice."""
        other = Transforms(self._module_name)
        other._told = self._told
        return other

    def in_use(self, kind: str) -> str | None:
        """Name of the way that the last product of this kind went; None before the first."""
        return self._names.get(kind)

    def start_at(self, kind: str, rank: int) -> None:
        """Skip the ``rank`` fastest ways."""
        self._rank[kind] = rank

    def first_that_works(self, kind: str, ways: Sequence[Way]) -> Tensor:
        """The value of the first of ``ways``, fastest first, that the module can take.

        Raises:
            MemoryError, RuntimeError: memory ran out. Exception: what the last way raises.
        """
        start = self._rank.get(kind, 0)
        reasons: list[str] = []
        for rank in range(start, len(ways)):
            name, call = ways[rank]
            try:
                value = call()
            except Exception as error:
                if is_out_of_memory(error) or rank == len(ways) - 1:
                    raise
                lines = str(error).strip().splitlines()
                reasons.append(f"{ways[rank][0]}: {lines[0][:160] if lines else type(error).__name__}")
                continue
            self._rank[kind], self._names[kind] = rank, name
            if reasons:
                self._warn(kind, name, reasons[0])
            return value
        raise AssertionError("no way was given")

    def _warn(self, kind: str, name: str, reason: str) -> None:
        if not self._told:
            self._told.append(kind)
            warnings.warn(
                f"{self._module_name} does not take every transform ({kind} by {reason}); "
                f"using {name} there, slower, with the same numbers",
                stacklevel=6,
            )
