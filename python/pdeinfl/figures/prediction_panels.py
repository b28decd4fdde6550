"""What the surrogates predict: one step per channel, and a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pdeinfl.figures import inputs, style


def draw_field(axes: Axes, field: Any, norm: Normalize, cmap: Any) -> AxesImage:
    """A scalar field ``(x, y)`` on the unit square, x to the right and y upward, without ticks."""
    image = axes.imshow(
        np.asarray(field, dtype=float).T,
        origin="lower",
        extent=(0, 1, 0, 1),
        norm=norm,
        cmap=cmap,
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
    return image


def value_range(*fields: Any) -> Normalize:
    """Colour scale of the finite values of some fields; never empty."""
    flat = np.concatenate([np.asarray(f, dtype=float).ravel() for f in fields])
    flat = flat[np.isfinite(flat)]
    low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + max(abs(low), 1.0) * 1e-6)


def _bar(figure: Figure, image: AxesImage, axes: Any) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.85, aspect=14, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=5.5)
    bar.locator = bar.ax.yaxis.get_major_locator()
    bar.ax.locator_params(nbins=4)
    formatter: Any = bar.formatter
    formatter.set_powerlimits((-2, 3))
    bar.ax.yaxis.get_offset_text().set_fontsize(5.5)
    bar.update_ticks()


@style.styled
def predictions(
    target: Any, prediction: Any, channel_names: Sequence[str], units: str = "nondimensional", heading: str = ""
) -> Figure:
    """One row per channel: target, then prediction and difference of each surrogate.

    Target and predictions share one colour range per channel; so do the differences, symmetric about zero.

    Args:
        target: the next state, ``(C, X, Y)``.
        prediction: ``{surrogate: (C, X, Y)}`` or one array.
        channel_names: C names.
        units: unit of the fields, named below the figure.
        heading: which example this is.

    Raises:
        ValueError: shapes or names do not fit.
    """
    truth = np.asarray(target, dtype=float)
    named = {s: np.asarray(p, dtype=float) for s, p in inputs.by_surrogate(prediction).items()}
    for surrogate, array in named.items():
        if array.shape != truth.shape or truth.ndim != 3:
            raise ValueError(
                f"prediction {surrogate!r} and `target` must be (C, X, Y) alike; got {array.shape} and {truth.shape}"
            )
    if len(channel_names) != len(truth):
        raise ValueError(f"`channel_names` must name {len(truth)} channels; got {len(channel_names)}")
    n_columns = 1 + 2 * len(named)
    side = min(1.55, (style.DOUBLE_COLUMN - 0.75) / n_columns)
    figure, panels = style.grid(
        side * n_columns + 0.75, side * 0.95 * len(truth) + 0.4, len(truth), n_columns, sharex=True, sharey=True
    )
    for row, channel in enumerate(channel_names):
        norm = value_range(truth[row], *(p[row] for p in named.values()))
        reach = max(float(np.nanmax(np.abs(p[row] - truth[row]), initial=0.0)) for p in named.values()) or 1.0
        image = draw_field(panels[row, 0], truth[row], norm, style.sequential())
        panels[row, 0].set_ylabel(inputs.title(channel))
        shown, differences = [panels[row, 0]], []
        for k, array in enumerate(named.values()):
            left, right = panels[row, 1 + k], panels[row, 1 + len(named) + k]
            draw_field(left, array[row], norm, style.sequential())
            difference = draw_field(right, array[row] - truth[row], Normalize(-reach, reach), style.diverging())
            shown.append(left)
            differences.append(right)
        _bar(figure, image, shown)
        _bar(figure, difference, differences)
    panels[0, 0].set_title("target")
    for k, surrogate in enumerate(named):
        panels[0, 1 + k].set_title(surrogate or "prediction")
        panels[0, 1 + len(named) + k].set_title(f"{surrogate} − target" if surrogate else "difference")
    style.note(figure, inputs.panel_title(heading, f"unit square, x to the right, y upward; {units}"))
    return figure


@style.styled
def rollout(
    target: Any,
    prediction: Any,
    times: Sequence[float] | None = None,
    channel_name: str = "density",
    units: str = "nondimensional",
    n_shown: int = 6,
) -> Figure:
    """A strip of snapshots, target above and each surrogate below, and the relative error against time.

    Every panel shares one colour range, taken from the target, so that a surrogate that drifts saturates visibly.

    Args:
        target: one channel along a trajectory, ``(T, X, Y)``.
        prediction: ``{surrogate: (T, X, Y)}`` or one array, started from the same first snapshot.
        times: time of each snapshot; default steps 0, 1, ….
        channel_name, units: what is shown.
        n_shown: how many of the snapshots to show, first and last included.

    Raises:
        ValueError: shapes differ.
    """
    truth = np.asarray(target, dtype=float)
    named = {s: np.asarray(p, dtype=float) for s, p in inputs.by_surrogate(prediction).items()}
    for surrogate, array in named.items():
        if array.shape != truth.shape or truth.ndim != 3:
            raise ValueError(
                f"rollout {surrogate!r} and `target` must be (T, X, Y) alike; got {array.shape} and {truth.shape}"
            )
    steps = np.arange(len(truth)) if times is None else np.asarray(times)
    chosen = np.unique(np.linspace(0, len(truth) - 1, min(n_shown, len(truth))).round().astype(int))
    side = (style.DOUBLE_COLUMN - 0.9) / len(chosen)
    n_strips = 1 + len(named)
    figure = style.new_figure(style.DOUBLE_COLUMN, side * n_strips + 2.0)
    parts: Any = figure.subfigures(2, 1, height_ratios=(side * n_strips + 0.25, 1.75))
    upper, lower = parts
    panels = upper.subplots(n_strips, len(chosen), squeeze=False)
    norm = value_range(truth)
    for row, (name, array) in enumerate({"target": truth, **named}.items()):
        for column, step in enumerate(chosen):
            image = draw_field(panels[row, column], array[step], norm, style.sequential())
            if row == 0:
                panels[0, column].set_title(("time " if column == 0 else "") + f"{steps[step]:g}")
        panels[row, 0].set_ylabel(name or "prediction")
    bar = upper.colorbar(image, ax=panels, shrink=0.9, aspect=24, pad=0.015)
    bar.outline.set_visible(False)
    bar.set_label(f"{inputs.title(channel_name)} ({units})")
    axes = lower.subplots()
    scale = np.sqrt(np.mean(truth**2, axis=(1, 2))) + 1e-6
    for k, (surrogate, array) in enumerate(named.items()):
        error = np.sqrt(np.mean((array - truth) ** 2, axis=(1, 2))) / scale
        marker = style.MARKERS[k % len(style.MARKERS)]
        axes.plot(steps, error, color=style.surrogate_colour(k), marker=marker, label=surrogate or "prediction")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time of the snapshot")
    axes.set_ylabel("relative RMS error")
    axes.legend(loc="upper left")
    return figure
