"""What a report says, apart from how it looks: a tree of small frozen dataclasses that rendering only lays out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pdeinfl.analysis.estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STABLE_DECADES = 2.0
"""A reading is called stable when it holds over at least this many decades of converged damping (MATH §2)."""

LEARNED_RATIO = 0.5
"""A surrogate whose one-step error is above this share of the untrained network's has hardly learned to predict."""


@dataclass(frozen=True)
class StableRange:
    """The dampings around the run's own over which a reading stays the same and every solve converged.

    Attributes:
        low, high: relative dampings λ/λ_max; NaN when there is no such range.
        reason: why the range is empty, e.g. that the run's own damping did not converge.
    """

    low: float
    high: float
    reason: str = ""

    @property
    def decades(self) -> float:
        """Width of the range in powers of ten; 0 when empty."""
        return math.log10(self.high / self.low) if self.low > 0 and self.high > 0 else 0.0

    @property
    def is_stable(self) -> bool:
        """Wide enough; the small slack absorbs the rounding of a logarithmic grid."""
        return self.decades >= STABLE_DECADES - 1e-9


@dataclass(frozen=True)
class Quantity:
    """One summary number of a trained surrogate, its untrained control, and how both move with damping.

    Attributes:
        trained: the number at the run's damping. untrained: the control's, None where there is no control.
        stability: range over which the reading (the side of the threshold) holds; None where no path was computed.
        difference_stability: the same for the sign of trained − untrained.
    """

    trained: Estimate
    untrained: Estimate | None = None
    stability: StableRange | None = None
    difference_stability: StableRange | None = None


@dataclass(frozen=True)
class SurrogateSummary:
    """Everything the opening answer says about one surrogate.

    Attributes:
        coherence_time: in steps. class_locking: 1 locked, 0 full transfer; its value is NaN with a single class.
        max_lag: longest lag examined, in steps.
        n_converged, n_influences: how many influence matrices met the tolerance at the run's damping.
        n_seeds, n_mini_batches: what the numbers average over (mini-batches per seed). even: every seed has as many.
        no_path_reason: why stability was not tested; empty where it was.
        decay_constant: τ of the fit a·e^{−|Δ|/τ} + c, in steps; translation_defect: ‖𝓛_t H‖/‖H‖ per step; both None
            where they were not computed.
        estimated: the error of some matrix is an estimate (a sketch) instead of a certificate.
        observable: name of the response that the numbers are about.
        one_step_error, untrained_error: SMSE of single predictions, median over the mini-batches, of the trained and of
            the untrained networks; persistence_error: of the prediction that nothing changes; NaN where unknown.
        own_is_self: what a class does to itself, in class locking, is what its examples do to themselves.
    """

    name: str
    coherence_time: Quantity
    class_locking: Quantity
    max_lag: int
    n_converged: int
    n_influences: int
    n_seeds: int
    n_mini_batches: int
    even: bool = True
    no_path_reason: str = ""
    decay_constant: Quantity | None = None
    translation_defect: Quantity | None = None
    estimated: bool = False
    observable: str = "smse"
    one_step_error: float = math.nan
    untrained_error: float = math.nan
    persistence_error: float = math.nan
    own_is_self: bool = False

    @property
    def has_learned(self) -> bool:
        """The one-step error is below half of the untrained network's, or one of the two is not known."""
        return not self.one_step_error >= LEARNED_RATIO * self.untrained_error

    @property
    def beats_persistence(self) -> bool:
        """The one-step error is below that of copying the input, or one of the two is not known."""
        return not self.one_step_error >= self.persistence_error


@dataclass(frozen=True)
class ReportFigure:
    """A drawn figure: written as ``figures/<stem>.png`` and ``.pdf`` and shown with its caption."""

    stem: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Table:
    """A table of text cells; the first column heads its rows. ``folded`` tables open on demand."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    note: str = ""


@dataclass(frozen=True)
class ReportContent:
    """One report.

    Attributes:
        title: what was examined. introduction: one sentence on data, models and size.
        summaries: one per surrogate, in the order of the figures' colours.
        main_figure: shown right below the answer; None where there is nothing to draw.
        figures: the others in reading order. tables: settings, response check, mini-batches.
        command: the shell command that reproduces the run; empty if unknown.
        notes: remarks of the run, e.g. how the demo was sized.
    """

    title: str
    introduction: str
    summaries: tuple[SurrogateSummary, ...]
    main_figure: ReportFigure | None = None
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[Table, ...] = ()
    command: str = ""
    notes: tuple[str, ...] = field(default=())
