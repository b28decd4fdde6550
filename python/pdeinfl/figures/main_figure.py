"""The main figure: time, lag and class on one sheet, for the head of a README or a talk."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from pdeinfl.figures import inputs, style
from pdeinfl.figures.bands import draw_band, reach_of
from pdeinfl.figures.class_transfer_matrices import draw_classes
from pdeinfl.figures.lag_profiles import draw_reference_levels
from pdeinfl.figures.matrices import STANDARDISED, colour_bar, draw_matrix, time_ticks


@style.styled
def summary(two_time: Any, lag_profile: Any, class_transfer: Any, n_examples: int | None = None) -> Figure:
    """Two-time map and class matrix of every surrogate on one colour range, and the lag profiles on one axis.

    Args:
        two_time, lag_profile, class_transfer: ``{surrogate: aggregation}`` with the same surrogates, or one of each.
        n_examples: N of the mini-batches, for the √N marks; default the aggregation's own ``n_examples``.

    Raises:
        ValueError: the three mappings hold different surrogates.
    """
    maps, lags, classes = (inputs.by_surrogate(d) for d in (two_time, lag_profile, class_transfer))
    if not list(maps) == list(lags) == list(classes):
        raise ValueError(f"the aggregations must hold the same surrogates; got {[*maps]}, {[*lags]}, {[*classes]}")
    n = inputs.n_examples_of({s: {"": a} for s, a in maps.items()}, n_examples)
    medians = [a.median for held in (maps, classes) for a in held.values()]
    norm, low, high = style.signed_range(medians, n**0.5 if n else None)
    n_rows = len(maps)
    height = 2.25 * n_rows + 0.5 if n_rows > 1 else 2.9
    figure = style.new_figure(9.6 if n_rows > 1 else 9.0, height)
    parts: Any = figure.subfigures(1, 2, width_ratios=(1.5, 1) if n_rows > 1 else (1.7, 1))
    left, right = parts
    panels = left.subplots(n_rows, 2, squeeze=False)
    for row, surrogate in enumerate(maps):
        image = draw_matrix(panels[row, 0], maps[surrogate].median, norm, style.diverging())
        draw_classes(panels[row, 1], classes[surrogate], norm, quartiles=False)
        time_ticks(panels[row, 0], maps[surrogate].times, "x")
        time_ticks(panels[row, 0], maps[surrogate].times, "y")
        colour = style.surrogate_colour(row)
        panels[row, 0].set_title(inputs.panel_title(surrogate, "along a trajectory"), color=colour)
        panels[row, 1].set_title(inputs.panel_title(surrogate, "between classes"), color=colour)
        panels[row, 0].set_ylabel(r"response time $t$ (steps)")
        panels[row, 1].set_ylabel("response class")
    panels[-1, 0].set_xlabel(r"perturbation time $\tau$ (steps)")
    panels[-1, 1].set_xlabel("perturbation class")
    colour_bar(left, image, panels, low, high, STANDARDISED, n)
    axes = right.subplots()
    for k, (surrogate, profile) in enumerate(lags.items()):
        colour, marker = style.surrogate_colour(k), style.MARKERS[k % len(style.MARKERS)]
        prefix = f"{surrogate}, " if surrogate else ""
        draw_band(axes, profile.lags, profile.intra, colour, prefix + "same class", marker)
        other = prefix + "other class"
        draw_band(axes, profile.lags, profile.inter, colour, other, linestyle=(0, (3, 1.5)), interval=False)
    reach = reach_of(lags.values())
    axes.set_xlim(-reach, reach)
    draw_reference_levels(axes, n)
    axes.set_xlabel(r"lag $t-\tau$ (steps)")
    axes.set_ylabel(STANDARDISED)
    axes.set_title("how far the training signal travels")
    right.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    style.note(figure, style.style_sentence(getattr(next(iter(maps.values())), "style", None)))
    return figure
