"""Lag profiles: influence against response time minus perturbation time (figs 4, 7, 20–23 of the paper)."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdeinfl.analysis.summary import COHERENCE_LEVEL
from pdeinfl.figures import inputs, style
from pdeinfl.figures.bands import draw_band, reach_of


def draw_reference_levels(axes: Axes, n_examples: int | None) -> None:
    """Zero, the coherence level 1, and √N, the self-influence of an exactly diagonal H; labelled for a legend."""
    axes.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
    if n_examples:
        level = float(n_examples**0.5)
        label = rf"$\sqrt{{N}}$ = {level:.1f}: $H$ diagonal"
        axes.axhline(level, color=style.INK, linewidth=0.9, linestyle="--", zorder=0, gid="sqrt_n", label=label)
    axes.axhline(COHERENCE_LEVEL, color=style.INK, linewidth=0.8, linestyle=":", zorder=0, label="coherence level 1")


@style.styled
def lag_profile(data: Any, n_examples: int | None = None, interval: bool = True) -> Figure:
    """Same-class profile above, other-class profile below, one column per observable, all surrogates on one axis.

    Bands are quartiles; error bars, where the aggregation carries them, bootstrap intervals of the centre.

    Args:
        data: a lag profile, ``{surrogate: profile}``, or ``{surrogate: {observable: profile}}``.
        n_examples: N of the mini-batches, for the √N line; default the aggregation's own ``n_examples``.
        interval: draw bootstrap intervals where there are any.
    """
    nested, observables = inputs.by_surrogate_and_observable(data)
    n = inputs.n_examples_of(nested, n_examples)
    n_columns = len(observables)
    width = style.DOUBLE_COLUMN if n_columns > 1 else 4.2
    figure, panels = style.grid(width, 4.3, 2, n_columns, sharex=True, sharey="row", height_ratios=(1.45, 1))
    for column, observable in enumerate(observables):
        for row, part in enumerate(("intra", "inter")):
            axes = panels[row, column]
            for k, (surrogate, held) in enumerate(nested.items()):
                if observable in held:
                    draw_band(
                        axes,
                        held[observable].lags,
                        getattr(held[observable], part),
                        style.surrogate_colour(k),
                        surrogate or None,
                        style.MARKERS[k % len(style.MARKERS)],
                        interval=interval,
                    )
            if part == "intra":
                draw_reference_levels(axes, n)
                axes.set_title(inputs.title(observable))
            else:
                axes.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
                axes.set_xlabel(r"lag $t-\tau$ (steps)")
            axes.axvline(0, color=style.PALE, linewidth=0.6, zorder=0)
            if column == 0:
                axes.set_ylabel(("same class" if part == "intra" else "other class") + "\nstandardised influence")
    reach = reach_of(a for held in nested.values() for a in held.values())
    panels[0, 0].set_xlim(-reach, reach)
    figure.align_ylabels(panels[:, 0])
    found = [pair for axes in panels[0] for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    legend = {label: handle for handle, label in found}
    columns = len(legend) if n_columns > 1 else 2
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=columns, columnspacing=1.6)
    style.note(figure, style.style_sentence(inputs.style_of(nested)))
    return figure
