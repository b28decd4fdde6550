"""The plain-language answer. Every sentence follows from the numbers of a `SurrogateSummary`; none is fixed in advance.

A reading is called decided when the whole interval, and all that the error of the solves leaves open, lie on one side
of its threshold; without an interval the value alone is read, and the text says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from pdeinfl.analysis.estimate import Estimate
from pdeinfl.analysis.summary import LOCKING_THRESHOLD, TIME_THRESHOLD
from pdeinfl.html_report.content import STABLE_DECADES, Quantity, StableRange, SurrogateSummary
from pdeinfl.html_report.number_format import bounds, decimal, interval, plural, significant, steps


def time_phrase(summary: SurrogateSummary) -> str:
    """How far the signal travels in time, as a clause."""
    estimate = summary.coherence_time.trained
    if math.isnan(estimate.value):
        return f"how far its training signal travels in time could not be determined ({estimate.missing or 'no value'})"
    reach = steps(estimate.value, summary.max_lag)
    decided, endless = estimate.side(TIME_THRESHOLD), math.isinf(estimate.value)
    if decided > 0 and endless:
        longest = plural(summary.max_lag, "step")
        return f"its training signal is still coherent at the longest lag examined ({longest} in time)"
    if decided > 0:
        return f"its training signal travels about {reach} in time"
    if decided < 0:
        return f"its training signal stays at the time where it was put (coherence time {reach})"
    if endless:
        return f"whether its training signal leaves the step where it was put is undecided (coherence time {reach})"
    return f"its training signal reaches about {reach} in time, not clearly more than the step where it was put"


def class_phrase(summary: SurrogateSummary) -> str:
    """How much of the signal another initial-condition class feels, as a clause."""
    estimate = summary.class_locking.trained
    if math.isnan(estimate.value):
        return f"whether it crosses between classes could not be determined ({estimate.missing or 'no value'})"
    number, own = f"class locking {decimal(estimate.value)}", _own(summary)
    decided = estimate.side(LOCKING_THRESHOLD)
    if decided > 0:
        if estimate.value > 1:
            return f"on balance works against the other classes ({number})"
        share = "at most a tenth" if estimate.value >= 0.9 else "less than half"
        return f"another class feels {share} of what {own} does ({number})"
    if decided < 0:
        share = "at least nine tenths" if estimate.value <= 0.1 else "more than half"
        return f"another class feels {share} of what {own} does ({number})"
    return f"whether another class feels more than half of what {own} does is undecided ({number})"


def _own(summary: SurrogateSummary) -> str:
    """What class locking compares the other classes with."""
    return "the example itself" if summary.own_is_self else "its own class"


def headline(summary: SurrogateSummary) -> str:
    """One sentence: time and class together."""
    crossed_time = summary.coherence_time.trained.side(TIME_THRESHOLD)
    link = " but " if crossed_time > 0 and summary.class_locking.trained.side(LOCKING_THRESHOLD) > 0 else " and "
    return f"{time_phrase(summary)}{link}{class_phrase(summary)}."


_CLASS_BY_CLASS = (
    "An example helps its neighbours in time along its own kind of trajectory, and other kinds much less. This is what "
    "learning each class by itself looks like: do not count on initial conditions unlike those in the training set; "
    "test them."
)
_ONE_RULE = (
    "An example helps its neighbours in time and trajectories of other classes. This is what learning one "
    "time-stepping rule for all classes looks like."
)
_MEMORISED = (
    "An example helps itself, hardly its neighbours in time, and other classes much less. This is what "
    "memorisation looks like: low training error then says little about other times or other initial conditions; test "
    "both."
)
_BOUND_TO_TIME = (
    "An example helps other classes at its own time but hardly its neighbours in time. What is learned depends on the "
    "time within the trajectory: be careful with rollouts that run longer than the training trajectories."
)
_MEANINGS = {(1, 1): _CLASS_BY_CLASS, (1, -1): _ONE_RULE, (-1, 1): _MEMORISED, (-1, -1): _BOUND_TO_TIME}


def meaning(summary: SurrogateSummary) -> str:
    """What the reading means for someone who wants to use the surrogate."""
    if not summary.has_learned:
        return (
            "But its one-step error is not below half of the untrained network's: it has learned little, and the "
            "reading says little of how. Train longer first."
        )
    if not summary.beats_persistence:
        return (
            "But its one-step error is not below that of copying the input: it has not learned to step forward, and "
            "the reading says nothing about the dynamics. Train longer first."
        )
    if _reads_like_untrained(summary):
        return (
            "But neither number can be told apart from the untrained network's: this pattern may come with the "
            "architecture and the data, and is no evidence of what training added. Look at the curves against damping "
            "for a range where the two part, and at the error on unseen classes. More seeds or mini-batches would "
            "narrow the intervals."
        )
    time, locking = summary.coherence_time.trained, summary.class_locking.trained
    key = (time.side(TIME_THRESHOLD), locking.side(LOCKING_THRESHOLD))
    if key in _MEANINGS:
        return _MEANINGS[key]
    known = {
        1: "An example helps its neighbours in time",
        -1: "An example does not help its neighbours in time",
        0: "Whether an example helps its neighbours in time is undecided",
    }[key[0]]
    crossing = {
        1: f"another class feels less than half of what {_own(summary)} does",
        -1: f"another class feels more than half of what {_own(summary)} does",
        0: "whether it helps the other classes is undecided",
    }[key[1]]
    named = (("coherence time", time, TIME_THRESHOLD), ("class locking", locking, LOCKING_THRESHOLD))
    open_ones = [one for one, side in zip(named, key, strict=True) if not side]
    advice = [f"No interval of the {name}: {e.missing or 'none was computed'}." for name, e, _ in open_ones
              if not e.has_interval]  # fmt: skip
    blurred = [e for _, e, threshold in open_ones if e.is_blurred(threshold)]
    if blurred:
        advice.append("The error of the solves alone leaves it open: ask for a smaller `tol`.")
    if any(e.has_interval and e not in blurred for _, e, _ in open_ones):
        advice.append("More seeds or mini-batches would narrow the intervals.")
    return " ".join([f"{known}; {crossing}.", *advice])


def _reads_like_untrained(summary: SurrogateSummary) -> bool:
    """Whether both numbers have intervals that overlap those of the control."""
    return _alike(summary.coherence_time) and _alike(summary.class_locking)


def error_text(summary: SurrogateSummary) -> str:
    """The SMSE of single predictions beside the untrained network's; empty where it is not known."""
    if math.isnan(summary.one_step_error):
        return ""
    others = (("the untrained network's", summary.untrained_error), ("copying the input's", summary.persistence_error))
    beside = "".join(f"; {whose} is {significant(error)}" for whose, error in others if not math.isnan(error))
    return f"SMSE {significant(summary.one_step_error)} on the mini-batches examined{beside}"


def value_text(quantity: Quantity, summary: SurrogateSummary, is_time: bool) -> str:
    """``3.2 steps [2.8, 3.6] (95 % …)``, or the value and the reason why it has no interval."""
    estimate = quantity.trained
    if math.isnan(estimate.value):
        return f"undefined: {estimate.missing or 'no value'}"
    shown = steps(estimate.value, summary.max_lag) if is_time else decimal(estimate.value)
    digits = 1 if is_time else 2
    left = bounds(estimate, digits, summary.max_lag)
    solves = f"; within the error of the solves {left}" if left else ""
    if estimate.has_interval:
        kind = f" ({estimate.interval})" if estimate.interval else ""
        return f"{shown}, {interval(estimate, digits, summary.max_lag)}{kind}{solves}"
    return f"{shown}; no interval: {estimate.missing or 'none was computed'}{solves}"


def _direction(quantity: Quantity) -> int:
    """+1 or −1 when the spans of trained and untrained, each with an interval, are disjoint, else 0."""
    a, b = quantity.trained, quantity.untrained
    if b is None or not (a.has_interval and b.has_interval):
        return 0
    return a.apart(b)


def _alike(quantity: Quantity) -> bool:
    """Whether trained and untrained both have intervals, and these overlap."""
    a, b = quantity.trained, quantity.untrained
    return b is not None and a.has_interval and b.has_interval and not a.intervals_apart(b)


def untrained_text(quantity: Quantity, summary: SurrogateSummary, is_time: bool) -> str:
    """Whether the number differs from that of the untrained network, and which way."""
    name = "coherence time" if is_time else "class locking"
    control = quantity.untrained
    if control is None:
        return f"No untrained control was computed, so it is open whether training set the {name}."
    if math.isnan(control.value):
        return f"The untrained control has no {name} ({control.missing or 'no value'})."
    if math.isnan(quantity.trained.value):
        return f"The {name} cannot be compared with the untrained network's: it is undefined."
    value = steps(control.value, summary.max_lag) if is_time else decimal(control.value)
    shown = " ".join(filter(None, (value, interval(control, 1 if is_time else 2, summary.max_lag))))
    direction = _direction(quantity)
    if direction:
        verb = ("lengthened" if direction > 0 else "shortened") if is_time else "raised" if direction > 0 else "lowered"
        stable = quantity.difference_stability
        tail = ""
        if stable is not None:
            tail = (
                f"; the difference keeps its sign over {decimal(stable.decades, 1)} decades of converged damping"
                if stable.is_stable
                else "; but the difference does not keep its sign over two decades of converged damping"
            )
        return f"Training {verb} the {name}: the untrained network has {shown}, and the intervals do not overlap{tail}."
    both = quantity.trained.has_interval and control.has_interval
    if both and quantity.trained.intervals_apart(control):
        return (
            f"The {name} differs from the untrained network's ({shown}), but the error of the solves may be all there "
            "is to it: ask for a smaller `tol`, and `control_tol` for the untrained network."
        )
    if both and math.isinf(quantity.trained.value) and math.isinf(control.value):
        return f"The {name} cannot be told apart from the untrained network's: both exceed the longest lag examined."
    if both:
        return (
            f"The {name} cannot be told apart from the untrained network's ({shown}): "
            "it may say more about the architecture than about what was learned."
        )
    return f"The untrained network has {shown}; without intervals on both the difference cannot be judged."


def stability_text(name: str, stable: StableRange | None, why_not: str) -> str:
    """Whether a reading holds over enough decades of converged damping."""
    if stable is None:
        return f"Whether the {name} reading is stable against damping was not tested: {why_not or 'no damping path'}."
    if stable.decades == 0:
        reason = stable.reason or "it holds at the run's damping only"
        return f"The {name} reading is not stable against damping: {reason}."
    span = f"λ/λ_max from {significant(stable.low)} to {significant(stable.high)}"
    if stable.is_stable:
        return (
            f"The {name} reading is stable against damping: it holds over {decimal(stable.decades, 1)} decades, {span}."
        )
    return (
        f"The {name} reading is not stable against damping: it holds over only {decimal(stable.decades, 1)} decades of "
        f"converged damping ({span}; {decimal(STABLE_DECADES, 0)} are asked for), so it may reflect the damping more "
        "than the surrogate."
    )


def evidence_text(summary: SurrogateSummary) -> str:
    """What the numbers rest on."""
    name = "the SMSE" if summary.observable == "smse" else summary.observable.replace("_", " ")
    other = f"All of this is about {name}; further figures show how others respond, where the run holds any."
    return f"{_solves_text(summary)} {other}"


def _solves_text(summary: SurrogateSummary) -> str:
    at_most = "" if summary.even else "up to "
    base = f"From {plural(summary.n_seeds, 'seed')} with {at_most}{plural(summary.n_mini_batches, 'mini-batch')} each"
    if summary.n_converged == summary.n_influences:
        matrices = plural(summary.n_influences, "influence matrix")
        which = "the" if summary.n_influences == 1 else "all"
        return f"{base}; {which} {matrices} met the {_tolerance(summary)}."
    return (
        f"{base}; only {summary.n_converged} of {plural(summary.n_influences, 'influence matrix')} met the "
        f"{_tolerance(summary)}: the numbers move with the error of the solves beyond their intervals."
    )


def _tolerance(summary: SurrogateSummary) -> str:
    return "tolerance by an error that is estimated, not certified" if summary.estimated else "certified tolerance"


def comparison(summaries: Sequence[SurrogateSummary]) -> list[str]:
    """For each pair of surrogates, whose signal travels farther in time and which locks more, where decided."""
    sentences = []
    for a, b in combinations(summaries, 2):
        words = {
            "coherence_time": (
                "'s training signal travels farther in time than ",
                "how far the signal travels in time",
            ),
            "class_locking": ("'s signal is more locked to its class than ", "class locking"),
        }
        for field, (farther, what) in words.items():
            x: Estimate = getattr(a, field).trained
            y: Estimate = getattr(b, field).trained
            if math.isnan(x.value) or math.isnan(y.value):
                continue
            if not (x.has_interval and y.has_interval):
                sentences.append(f"Without intervals, {a.name} and {b.name} cannot be ranked by {what}.")
            elif x.apart(y) > 0:
                sentences.append(f"{a.name}{farther}{b.name}'s.")
            elif x.apart(y) < 0:
                sentences.append(f"{b.name}{farther}{a.name}'s.")
            else:
                why = "their intervals overlap"
                if math.isinf(x.value) and math.isinf(y.value):
                    why = "both exceed the longest lag examined"
                elif x.intervals_apart(y):
                    why = "the error of the solves may be all there is"
                sentences.append(f"{a.name} and {b.name} cannot be told apart by {what}: {why}.")
    return sentences
