"""Two-time maps: how far in time a training signal travels along its own trajectory (figs 2, 6 of the paper)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pdeinfl.figures import inputs, style
from pdeinfl.figures.matrices import STANDARDISED, colour_bar, draw_matrix, time_ticks


@style.styled
def two_time(data: Any, n_examples: int | None = None) -> Figure:
    """Panels per surrogate (rows) and observable (columns) of the ``T × T`` map, on one colour range.

    The response time runs upward, the perturbation time to the right, both from 1. White is zero; the colour bar
    reaches √N, the self-influence of examples that share nothing (MATH §2).

    Args:
        data: a two-time aggregation, ``{surrogate: aggregation}``, or ``{surrogate: {observable: aggregation}}``.
        n_examples: N of the mini-batches, for the √N mark; default the aggregation's own ``n_examples``.
    """
    nested, observables = inputs.by_surrogate_and_observable(data)
    n = inputs.n_examples_of(nested, n_examples)
    maps = [a.median for held in nested.values() for a in held.values()]
    norm, low, high = style.signed_range(maps, n**0.5 if n else None)
    n_rows, n_columns, places = inputs.panel_places(nested, observables)
    side = min(2.5, (style.DOUBLE_COLUMN - 0.9) / n_columns)
    figure, panels = style.grid(side * n_columns + 1.0, (side + 0.2) * n_rows + 0.45, n_rows, n_columns)
    image, cmap = None, style.diverging()
    for row, column in np.ndindex(n_rows, n_columns):
        axes = panels[row, column]
        if (row, column) not in places:
            axes.set_axis_off()
            continue
        surrogate, observable = places[row, column]
        aggregation = nested[surrogate][observable]
        image = draw_matrix(axes, aggregation.median, norm, cmap)
        time_ticks(axes, aggregation.times, "x")
        time_ticks(axes, aggregation.times, "y")
        axes.set_title(inputs.panel_title(surrogate, inputs.title(observable)))
        if row == n_rows - 1:
            axes.set_xlabel(r"perturbation time $\tau$ (steps)")
        if column == 0:
            axes.set_ylabel(r"response time $t$ (steps)")
    assert image is not None
    colour_bar(figure, image, panels, low, high, STANDARDISED, n)
    style.note(figure, style.style_sentence(inputs.style_of(nested)))
    return figure
