"""A sheet of small fields: what a data file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pdeinfl.figures import inputs, style
from pdeinfl.figures.prediction_panels import draw_field, value_range


@style.styled
def thumbnails(
    fields: Mapping[str, Any], channel_names: Sequence[str], times: Sequence[float] = (), heading: str = ""
) -> Figure:
    """First and last snapshot of one trajectory per class: a row per class and snapshot, a column per channel.

    A channel has one colour range over the sheet.

    Args:
        fields: ``{class name: trajectory (time, channel, x, y)}``.
        channel_names: one per channel.
        times: time of each snapshot, for the row labels; default the snapshot's index.
        heading: file name or the like.

    Raises:
        ValueError: an array is not ``(time, channel, x, y)`` with the named channels.
    """
    named = {name: np.asarray(f, dtype=float) for name, f in fields.items()}
    for name, array in named.items():
        if array.ndim != 4 or array.shape[1] != len(channel_names) or not len(array):
            raise ValueError(
                f"`fields[{name!r}]` must have shape (time, {len(channel_names)}, x, y); got {array.shape}"
            )
    if not named:
        raise ValueError("`fields` must hold at least one class; got none")
    rows = [(name, k) for name, a in named.items() for k in ((0, len(a) - 1) if len(a) > 1 else (0,))]
    n_columns = len(channel_names)
    side = min(1.5, (style.DOUBLE_COLUMN - 0.6) / n_columns)
    figure, panels = style.grid(side * n_columns + 0.6, side * len(rows) + 0.75, len(rows), n_columns)
    colours = style.class_colours(list(named), for_text=True)
    for column, channel in enumerate(channel_names):
        norm = value_range(*(named[name][k, column] for name, k in rows))
        for row, (name, k) in enumerate(rows):
            axes = panels[row, column]
            image = draw_field(axes, named[name][k, column], norm, style.sequential())
            if column == 0:
                moment = f"time {times[k]:g}" if len(times) else f"snapshot {k}"
                axes.set_ylabel(f"{name}\n{moment}", color=colours[name])
        panels[0, column].set_title(inputs.title(channel))
        bar = figure.colorbar(image, ax=list(panels[:, column]), location="bottom", aspect=16, pad=0.02, shrink=0.9)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=6)
        bar.ax.locator_params(nbins=4)
    style.note(figure, inputs.panel_title(heading, "unit square, x to the right, y upward"))
    return figure
