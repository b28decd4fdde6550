"""Progress of long work: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0


class ProgressReport:
    """Counts units of work on standard error; silent unless ``shown``.

    Args:
        total: units in all.
        description: what is being done.
        unit: name of a unit.
        shown: whether to show anything.
        done: units that were done before.
    """

    def __init__(self, total: int, description: str, unit: str, shown: bool, done: int = 0) -> None:
        self.total, self.description, self.unit, self.done = total, description, unit, done
        self._lines = shown and not sys.stderr.isatty()
        bar = shown and not self._lines
        self._bar = tqdm(total=total, initial=done, desc=description, unit=unit, disable=not bar, leave=False)
        self._last = time.monotonic()

    def update(self, units: int) -> None:
        """Count ``units`` more."""
        self.done += units
        self._bar.update(units)
        if self._lines and time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        print(f"{self.description}: {self.done} of {self.total} {self.unit}", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._lines:
            self._line()
