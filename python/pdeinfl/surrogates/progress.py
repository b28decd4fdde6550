"""What a person sees of a long training: a bar on a terminal, one line per epoch in a log, or nothing."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class TrainingProgress:
    """Counts transitions on a bar if standard error is a terminal, else prints a line per epoch there.

    Args:
        shown: False for silence.
        n_epochs: last epoch.
        n_transitions: transitions still to be trained on.
    """

    def __init__(self, shown: bool, n_epochs: int, n_transitions: int) -> None:
        self._n_epochs = n_epochs
        self._lines = shown and not sys.stderr.isatty()
        self._bar = tqdm(total=n_transitions, unit="tr", unit_scale=True, disable=not shown or self._lines)

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def batch(self, n: int) -> None:
        """``n`` more transitions are done."""
        self._bar.update(n)

    def epoch(self, epoch: int, train_loss: float, val_loss: float, seconds: float) -> None:
        """An epoch is done."""
        losses = f"train {train_loss:.4g}, validation {val_loss:.4g}"
        self._bar.set_description(f"epoch {epoch}/{self._n_epochs}: {losses}")
        if self._lines:
            print(f"epoch {epoch}/{self._n_epochs}: {losses}, {seconds:.1f} s", file=sys.stderr, flush=True)
