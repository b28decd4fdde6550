"""What a finished run holds in memory: the input of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pdeinfl.engine.result import Influence
from pdeinfl.engine.store import Key
from pdeinfl.surrogates.rollout_errors import RolloutErrors


@dataclass(frozen=True, eq=False)
class PredictionSample:
    """One test trajectory with what every surrogate makes of it.

    Attributes:
        trajectory: which one this is, e.g. ``CRP, trajectory 4 of the data, from the test split``.
        step: of the single prediction.
        channel_names: C names.
        target: the next state, ``(C, X, Y)``. predictions: ``{surrogate: (C, X, Y)}``, one step each.
        rollout_target: the whole trajectory, ``(T + 1, C, X, Y)``, or None for no rollout.
        rollout_predictions: ``{surrogate: (T + 1, C, X, Y)}``, each started from the trajectory's first snapshot.
        times: time of each snapshot, ``(T + 1,)``.
    """

    trajectory: str
    step: int
    channel_names: tuple[str, ...]
    target: np.ndarray
    predictions: Mapping[str, np.ndarray]
    rollout_target: np.ndarray | None = None
    rollout_predictions: Mapping[str, np.ndarray] = field(default_factory=dict)
    times: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class RunContents:
    """Everything a report is made from. Mappings are keyed by surrogate, in the order of the figures' colours.

    Attributes:
        title, introduction: heading of the page, and one sentence on data and models.
        results: influences of the trained surrogates, seeds × mini-batches each.
        controls: the same for the untrained networks (epoch 0); may lack surrogates.
        between: influences at epochs between 0 and the last.
        rollout_errors: of the trained surrogates on the mini-batches of ``results``; may lack some.
        histories: one history per seed, with ``epoch``, ``train_loss``, ``val_loss`` arrays.
        samples: predictions to show. checks: response checks (MATH §6).
        channel_names: of the data, in order; empty if unknown.
        settings: further rows of the settings table, e.g. seeds, data, hardware, wall time.
        command: what reproduces the run. notes: remarks shown above the settings.
    """

    title: str
    introduction: str
    results: Mapping[str, Sequence[Influence]]
    controls: Mapping[str, Sequence[Influence]] = field(default_factory=dict)
    between: Mapping[str, Sequence[Influence]] = field(default_factory=dict)
    rollout_errors: Mapping[Key, RolloutErrors] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    samples: Sequence[PredictionSample] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)
    channel_names: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
