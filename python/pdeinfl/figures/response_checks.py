"""The response check: a finite step in the parameters must do what H predicts (MATH §6)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pdeinfl.analysis.response_checks import ResponseCheck
from pdeinfl.figures import inputs, style


def by_observable(check: ResponseCheck) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """``(name, predicted, measured)`` of each observable, flat, over the largest ``|H|`` of that observable."""
    predicted, measured = check.predicted, check.measured
    found = []
    for k, name in enumerate(check.observables):
        largest = np.nanmax(np.abs(predicted[:, k]), initial=0.0)
        scale = largest if largest > 0 else 1.0
        found.append((name, np.ravel(predicted[:, k]) / scale, np.ravel(measured[:, k]) / scale))
    return found


@style.styled
def response_check(checks: Any) -> Figure:
    """Left: measured derivative against ``−H``, each observable over its largest ``|H|``, with the identity. Right:
    error against ε, with a slope-2 guide.

    Args:
        checks: what `pdeinfl.response_check` returns, or ``{surrogate: check}``.
    """
    named = inputs.by_surrogate(checks)
    figure, panels = style.grid(style.DOUBLE_COLUMN, 2.9, 1, 2)
    left, right = panels[0]
    scaled = {s: np.hstack([np.stack(sides) for _, *sides in by_observable(c)]) for s, c in named.items()}
    values = np.concatenate([sides.ravel() for sides in scaled.values()])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (-1.0, 1.0)
    margin = 0.05 * (high - low or 1.0)
    span = np.array([low - margin, high + margin])
    left.plot(span, span, color=style.GREY, linewidth=0.8, zorder=0, label="exact agreement")
    anchor: tuple[float, float, float] | None = None
    marks_radius = False
    for k, (surrogate, check) in enumerate(named.items()):
        colour, marker = style.surrogate_colour(k), style.MARKERS[k % len(style.MARKERS)]
        left.plot(
            *scaled[surrogate],
            marker,
            color=colour,
            markersize=3.2,
            markerfacecolor="none",
            markeredgewidth=0.7,
            label=surrogate or None,
        )
        steps = np.asarray(check.steps, dtype=float)
        errors = np.asarray(check.errors, dtype=float).reshape(len(steps), -1)
        positive = np.where(errors > 0, errors, np.nan)
        right.plot(steps, positive, color=colour, linewidth=0.5, alpha=0.35)
        middle = np.array([np.nanmedian(row) if np.isfinite(row).any() else np.nan for row in positive])
        radius, beyond = check.trust_radius, check.radius_is_at_least
        said = f"order {style.number(check.order)}"
        if np.isfinite(radius):
            said += f", trust radius {'≥ ' if beyond else ''}{radius:.3g}"
        right.plot(steps, middle, color=colour, marker=marker, label=inputs.panel_title(surrogate, said))
        if np.isfinite(radius) and not beyond:
            right.axvline(radius, color=colour, linewidth=0.7, linestyle=":")
            marks_radius = True
        known = np.flatnonzero(np.isfinite(middle))
        if anchor is None and known.size:
            last = known[np.argmax(steps[known])]
            anchor = (float(steps[last]), float(middle[last]), float(steps[known].min()))
    if anchor is not None:
        at, error, first = anchor
        guide = np.array([max(first, at * 1e-3), at])
        slope = 0.4 * error * (guide / at) ** 2
        right.plot(guide, slope, "--", color=style.INK, linewidth=0.8, label="slope 2", gid="guide")
    left.set_xlim(span)
    left.set_ylim(span)
    left.set_aspect("equal")
    left.set_xlabel(r"predicted $-H_{ij}$, over the observable's largest $|H|$")
    left.set_ylabel(r"measured derivative, over the same")
    left.set_title("response to a finite step")
    left.legend(loc="upper left")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel(r"step $\varepsilon$ along $V_j=-\eta^{-1}g_j$")
    right.set_ylabel("truncation of the difference, relative")
    right.set_title(r"truncation against $\varepsilon$" + (" (dotted: trust radius)" if marks_radius else ""))
    right.legend(loc="upper left")
    return figure
