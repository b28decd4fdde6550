"""Distance decay: influence against the distance between the two input states (figs 5, 32–33 of the paper)."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pdeinfl.figures import inputs, style
from pdeinfl.figures.bands import draw_band


@style.styled
def distance_decay(data: Any, units: str = "field units") -> Figure:
    """All surrogates on one axis, one panel per observable; the distance on a log axis, self-pairs excluded.

    Args:
        data: a distance-decay aggregation, ``{surrogate: aggregation}``, or ``{surrogate: {observable: …}}``.
        units: unit of the distance ``mean |x_i − x_j|²/RMS``, which is that of the fields.
    """
    nested, observables = inputs.by_surrogate_and_observable(data)
    n_columns = len(observables)
    width = 4.2 if n_columns == 1 else style.DOUBLE_COLUMN
    figure, panels = style.grid(width, 2.7, 1, n_columns, sharey=True)
    for column, observable in enumerate(observables):
        axes = panels[0, column]
        for k, (surrogate, held) in enumerate(nested.items()):
            if observable in held:
                draw_band(
                    axes,
                    held[observable].bin_centers,
                    held[observable],
                    style.surrogate_colour(k),
                    surrogate or None,
                    style.MARKERS[k % len(style.MARKERS)],
                )
        axes.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(inputs.title(observable))
        axes.set_xlabel(f"input distance $d(x_i, x_j)$ ({units})")
    panels[0, 0].set_ylabel("standardised influence")
    if any(nested):
        panels[0, 0].legend(loc="upper right")
    style.note(figure, style.style_sentence(inputs.style_of(nested)))
    return figure
