"""Class-transfer matrices: whether one initial-condition class teaches another (figs 3, 12–15 of the paper)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pdeinfl.figures import inputs, style
from pdeinfl.figures.matrices import STANDARDISED, colour_bar, draw_matrix


def draw_classes(axes: Axes, aggregation: Any, norm: Normalize, quartiles: bool = True) -> AxesImage:
    """One ``(K, K)`` matrix with its numbers written in the cells; class names coloured as everywhere."""
    names, cmap = list(aggregation.class_names), style.diverging()
    median = np.asarray(aggregation.median, dtype=float)
    image = draw_matrix(axes, median, norm, cmap)
    k = len(names)
    small = k > 4
    if k <= 8:
        for row in range(k):
            for column in range(k):
                value = median[row, column]
                ink = style.inked(value, norm, cmap) if np.isfinite(value) else style.INK
                has_spread = quartiles and not small and np.isfinite(value)
                axes.text(
                    column + 1,
                    row + 1 + (0.1 if has_spread else 0),
                    style.number(value, 1 if small else 2),
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=6 if small else 8,
                )
                if has_spread:
                    low, high = float(aggregation.lower[row, column]), float(aggregation.upper[row, column])
                    spread = f"{style.number(low, 1)} … {style.number(high, 1)}"
                    axes.text(column + 1, row + 0.78, spread, ha="center", va="center", color=ink, fontsize=5.5)
    rotated = k > 4 or max(map(len, names), default=0) > 6
    axes.set_xticks(range(1, k + 1), labels=names, rotation=35 if rotated else 0, ha="right" if rotated else "center")
    axes.set_yticks(range(1, k + 1), labels=names)
    colours = style.class_colours(names, for_text=True)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_color(colours.get(label.get_text(), style.INK))
        label.set_fontweight("bold")
    axes.tick_params(length=0)
    return image


@style.styled
def class_transfer(data: Any, n_examples: int | None = None) -> Figure:
    """Panels per surrogate (rows) and observable (columns): response class upward, perturbation class to the right.

    Args:
        data: a class-transfer aggregation, ``{surrogate: aggregation}``, or ``{surrogate: {observable: aggregation}}``.
        n_examples: N of the mini-batches, for the √N mark; default the aggregation's own ``n_examples``.
    """
    nested, observables = inputs.by_surrogate_and_observable(data)
    n = inputs.n_examples_of(nested, n_examples)
    norm, low, high = style.signed_range([a.median for h in nested.values() for a in h.values()], n**0.5 if n else None)
    n_rows, n_columns, places = inputs.panel_places(nested, observables)
    side = min(2.6, (style.DOUBLE_COLUMN - 1.0) / n_columns)
    figure, panels = style.grid(side * n_columns + 1.1, side * n_rows + 0.45, n_rows, n_columns)
    image = None
    for row, column in np.ndindex(n_rows, n_columns):
        axes = panels[row, column]
        if (row, column) not in places:
            axes.set_axis_off()
            continue
        surrogate, observable = places[row, column]
        image = draw_classes(axes, nested[surrogate][observable], norm)
        axes.set_title(inputs.panel_title(surrogate, inputs.title(observable)))
        if row == n_rows - 1:
            axes.set_xlabel("perturbation class")
        if column == 0:
            axes.set_ylabel("response class")
    assert image is not None
    colour_bar(figure, image, panels, low, high, STANDARDISED, n)
    style.note(figure, style.style_sentence(inputs.style_of(nested)))
    return figure
