"""Summary numbers against damping: the picture that tells learning from solver regularisation (MATH §2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pdeinfl.analysis.damping_curves import DampingCurve
from pdeinfl.engine.influence_matrix import DEFAULT_DAMPING
from pdeinfl.figures import inputs, style

_THIN = 0.6


def _clip(values: np.ndarray, ceiling: float | None) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values if ceiling is None else np.where(np.isposinf(values), ceiling, values)


def _draw(axes: Axes, curve: DampingCurve, colour: str, control: bool) -> None:
    x = np.log10(curve.relative_dampings)
    ends = np.array([x[0] - 1.2, x[-1] + 1.2])
    values = _clip(curve.values, curve.ceiling)
    limits = np.array([curve.at_zero, curve.at_infinity], dtype=float)
    points = _clip(limits[:, 0], curve.ceiling)
    line: dict[str, Any] = {"color": colour, "linestyle": "-", "zorder": 3}
    line |= {"linestyle": (0, (4, 2)), "zorder": 2} if control else {}
    axes.plot(x, values, linewidth=1.0 if control else 1.5, gid="control" if control else "trained", **line)
    low, high = _clip(curve.low, curve.ceiling), _clip(curve.high, curve.ceiling)
    known = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(x, low, high, where=known, color=colour, alpha=0.13, linewidth=0, zorder=1)
    face = "white" if control else colour
    within = np.isfinite(limits[:, 0])
    axes.plot(ends[within], points[within], "o", color=colour, markerfacecolor=face, markersize=4, zorder=4)
    for end, (_, lower, upper) in zip(ends, limits, strict=True):
        if np.isfinite(lower):
            span = _clip(np.array([lower, upper]), curve.ceiling)
            axes.plot([end, end], span, color=colour, linewidth=0.9, zorder=2)
    # Those of the control are larger, to show around the trained network's where both are off the axis.
    open_ended: dict[str, Any] = {"color": colour, "markerfacecolor": "white", "linestyle": "none", "marker": "^"}
    open_ended |= {"markersize": 7, "zorder": 4.5} if control else {"markersize": 4, "zorder": 5}
    for at, height, known in ((x, values, curve.values), (ends, points, limits[:, 0])):
        censored = np.isposinf(np.asarray(known, dtype=float))
        axes.plot(at[censored], height[censored], **open_ended)


def _draw_bounds(axes: Axes, curve: DampingCurve, colour: str) -> bool:
    """Where the error of the solves leaves the number, as thin lines that do not stretch the axis and end where it
    leaves everything open; whether known."""
    if np.isnan(curve.bound_low).all():
        return False
    x = np.log10(curve.relative_dampings)
    lowest = -np.inf if curve.ceiling is None else 0.0
    anything = (curve.bound_low <= lowest) & np.isposinf(curve.bound_high)
    for bound in (curve.bound_low, curve.bound_high):
        y = np.where(anything, np.nan, _clip(bound, curve.ceiling))
        axes.add_artist(Line2D(x, y, transform=axes.transData, color=colour, linewidth=_THIN, alpha=0.8, zorder=2))
    return True


def _hatch_unconverged(axes: Axes, drawn: Sequence[DampingCurve]) -> bool:
    """Hatch where any of the curves is unconverged; whether there is such a region."""
    spans = set()
    for curve in drawn:
        x = np.log10(curve.relative_dampings)
        edges = np.concatenate([x[:1] - 0.5, 0.5 * (x[1:] + x[:-1]), x[-1:] + 0.5])
        spans |= {(edges[k], edges[k + 1]) for k in np.flatnonzero(np.asarray(curve.converged) < 1)}
    for low, high in sorted(spans):
        axes.axvspan(low, high, facecolor="none", edgecolor="#b5b5b5", hatch="////", linewidth=0, zorder=0)
    return bool(spans)


def _damping_axis(axes: Axes, x: np.ndarray, with_zero: bool) -> None:
    first, last = float(x[0]), float(x[-1])
    step = max(1, round((last - first) / 5))
    decades = np.arange(np.ceil(first - 1e-9), last + 1e-9, step)
    labels = [rf"$10^{{{int(d)}}}$" if d else "1" for d in decades]
    axes.set_xticks([*[first - 1.2] * with_zero, *decades, last + 1.2], labels=[*["0"] * with_zero, *labels, "∞"])
    axes.set_xlim(first - 1.8, last + 1.8)
    for gap in [first - 0.75] * with_zero + [last + 0.75]:
        axes.axvspan(gap - 0.06, gap + 0.06, color="white", zorder=6)
        axes.plot(
            [gap - 0.06, gap + 0.06],
            [0, 0],
            transform=axes.get_xaxis_transform(),
            marker=[(-0.4, -1), (0.4, 1)],
            markersize=6,
            linestyle="none",
            color="#4d4d4d",
            markeredgewidth=0.6,
            clip_on=False,
            zorder=7,
        )


def _mark(
    axes: Axes, x: np.ndarray, position: float, words: str, labelled: bool, solid: bool, side: str = "center"
) -> None:
    """A vertical line at a damping, or an arrow at the edge when it lies off the axis."""
    colour = style.INK if solid else style.GREY
    inside = x[0] - 0.5 <= position <= x[-1] + 0.5
    at = position if inside else (x[0] - 0.62 if position < x[0] else x[-1] + 0.62)
    if inside:
        axes.axvline(at, color=colour, linewidth=0.8, linestyle="-" if solid else ":", zorder=1)
    if labelled:
        text = words if inside else (f"← {words}" if position < x[0] else f"{words} →")
        align = "right" if position > x[-1] else side if inside else "left"
        axes.annotate(
            text,
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha=align,
            va="bottom",
            fontsize=6,
            color=colour,
            annotation_clip=False,
        )


def _by_surrogate(curves: Mapping[str, Any]) -> dict[str, Mapping[str, DampingCurve]]:
    """``{surrogate: {quantity: curve}}``; curves of one surrogate alone get an empty name."""
    bare = any(isinstance(value, DampingCurve) for value in curves.values())
    return inputs.by_surrogate({"": curves} if bare else curves)


@style.styled
def damping_path(
    curves: Mapping[str, DampingCurve] | Mapping[str, Mapping[str, DampingCurve]],
    controls: Mapping[str, DampingCurve] | Mapping[str, Mapping[str, DampingCurve]] | None = None,
    default: float | None = 1e-3,
    paper: float | Mapping[str, float] | None = None,
) -> Figure:
    """One row per summary number, one column per surrogate, against λ/λ_max with both limits as separate points.

    Thin lines beside the trained curve: the number with all entries of H at the worst that their certificates allow.
    The untrained network is dashed grey. Hatching covers dampings where an influence matrix of either did not converge.

    Args:
        curves: ``{quantity: curve}``, as `pdeinfl.damping_path` makes it, or several as ``{surrogate: …}``; the
            quantity's name is the axis label.
        controls: the same for the untrained networks, where there are any.
        default: the run's relative damping, marked with a solid line; None leaves it out.
        paper: the paper's λ = 1e-4 relative to each surrogate's λ_max, marked with a dotted line or an arrow.

    Raises:
        ValueError: no curve, or a curve with fewer than two dampings.
    """
    named, of_controls = _by_surrogate(curves), {} if controls is None else _by_surrogate(controls)
    quantities = list(dict.fromkeys(q for held in named.values() for q in held))
    for surrogate, held in named.items():
        for quantity, curve in held.items():
            if len(curve.relative_dampings) < 2:
                raise ValueError(f"`curves[{surrogate!r}][{quantity!r}]` needs at least two dampings to make a path")
    figure, panels = style.grid(
        style.DOUBLE_COLUMN, 0.75 + 1.75 * len(quantities), len(quantities), len(named), sharey="row"
    )
    any_control = any_hatch = any_censored = any_zero = any_bounds = any_reference = any_interval = False
    for column, (surrogate, held) in enumerate(named.items()):
        colour = style.surrogate_colour(column)
        for row, quantity in enumerate(quantities):
            axes = panels[row, column]
            if quantity not in held:
                axes.set_axis_off()
                continue
            curve = held[quantity]
            x = np.log10(curve.relative_dampings)
            control = of_controls.get(surrogate, {}).get(quantity)
            drawn = [curve] if control is None else [control, curve]
            any_hatch |= _hatch_unconverged(axes, drawn)
            if curve.reference is not None:
                axes.axhline(curve.reference, color=style.GREY, linewidth=0.7, linestyle=":", zorder=0)
            if control is not None:
                _draw(axes, control, style.GREY, control=True)
                any_control = True
            _draw(axes, curve, colour, control=False)
            any_bounds |= _draw_bounds(axes, curve, colour)
            any_reference |= curve.reference is not None
            any_interval |= any(bool(np.isfinite(c.low).any()) for c in drawn)
            any_censored |= any(np.isposinf([*c.values, c.at_zero[0], c.at_infinity[0]]).any() for c in drawn)
            if curve.ceiling is not None:
                axes.set_ylim(0, max(curve.ceiling, 1.0) * 1.06)
            if default is not None:
                _mark(axes, x, np.log10(default), "this run", row == 0, solid=True, side="left")
            usual = np.log10(DEFAULT_DAMPING.value)
            if default is None or abs(np.log10(default) - usual) > 0.05:
                _mark(axes, x, usual, "default", row == 0, solid=False, side="right")
            own = paper.get(surrogate) if isinstance(paper, Mapping) else paper
            if own is not None and np.isfinite(own) and own > 0:
                _mark(axes, x, np.log10(own), "paper", row == 0, solid=False)
            with_zero = any(np.isfinite(c.at_zero[0]) for c in drawn)
            any_zero |= with_zero
            _damping_axis(axes, x, with_zero)
            if row == 0:
                axes.set_title(surrogate, pad=12)
            if row == len(quantities) - 1:
                axes.set_xlabel(r"damping $\lambda/\lambda_{\max}$")
            if column == 0:
                axes.set_ylabel(quantity)
    handles: list[Any] = [Line2D([], [], color=style.INK, linewidth=1.5, label="trained")]
    if any_control:
        handles.append(Line2D([], [], color=style.GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="untrained"))
    if any_bounds:
        handles.append(Line2D([], [], color=style.INK, linewidth=_THIN, label="error of the solves, at most"))
    if any_reference:
        handles.append(
            Line2D([], [], color=style.GREY, linewidth=0.7, linestyle=":", label="where the reading changes")
        )
    if any_hatch:
        handles.append(Patch(facecolor="white", edgecolor="#b5b5b5", hatch="////", linewidth=0, label="not converged"))
    if any_censored:
        handles.append(
            Line2D([], [], color=style.INK, marker="^", markerfacecolor="white", linestyle="none", label="> max lag")
        )
    columns = len(handles) if len(handles) < 5 else 3
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.6)
    limits = ("Limits: 0, H diagonal whatever was learned;" if any_zero else "Limit:") + " ∞, plain gradient overlap."
    style.note(figure, limits + (" Bands: intervals." if any_interval else ""))
    return figure
