"""Rollout link: error of rollouts against how far influence travels along the trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from pdeinfl.figures import inputs, style


@style.styled
def rollout_link(data: Any, horizon: int | None = None, units: str = "field units") -> Figure:
    """One panel per surrogate, one point per (seed, trajectory), a colour and marker per class; errors on a log axis.

    Args:
        data: ``{surrogate: link}`` or one link, with ``ratio``, ``error``, ``class_ids (n,)``, ``class_names``,
            ``pooled`` and ``by_class`` correlations (``value``, ``low``, ``high``, ``n``), and ``n_left_out``.
        horizon: steps that the error is summed over, for the label.
        units: unit of the SMSE, that of the fields.
    """
    named = inputs.by_surrogate(data)
    width, n_columns, n_rows = style.DOUBLE_COLUMN if len(named) > 1 else 4.2, min(len(named), 2), (len(named) + 1) // 2
    figure, panels = style.grid(width, 3.3 * n_rows, n_rows, n_columns, sharey=True)
    errors = np.concatenate([link.error[link.error > 0] for link in named.values()])
    decades = np.log10(errors.max() / errors.min()) if errors.size else 0.0
    for axes in panels.flat[len(named) :]:
        axes.remove()
    for axes, (surrogate, link) in zip(panels.flat, named.items(), strict=False):
        colours = style.class_colours(link.class_names)
        for k, (name, found) in enumerate(zip(link.class_names, link.by_class, strict=True)):
            if found.n:
                of_class = link.class_ids == k
                marker = style.MARKERS[k % len(style.MARKERS)]
                axes.plot(link.ratio[of_class], link.error[of_class], marker, color=colours[name], markersize=4,
                          markeredgewidth=0.4, markeredgecolor=style.INK, alpha=0.8, linestyle="none",
                          label=f"{name}: {_said(found)}")  # fmt: skip
        axes.set_yscale("log")
        subs = (1.0, 2.0, 3.0, 5.0, 7.0) if decades < 1.5 else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8) if decades < 1 else LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel(r"$\rho$: cross- over self-influence within a trajectory")
        axes.set_title(inputs.panel_title(surrogate, f"all classes: {_said(link.pooled)}"))
        if axes.get_legend_handles_labels()[0]:
            below = axes.transAxes + ScaledTranslation(0, -32 / 72, figure.dpi_scale_trans)
            axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 0), bbox_transform=below, borderaxespad=0.0,
                        handletextpad=0.2)  # fmt: skip
    steps = "" if horizon is None else f" over {horizon} step{'s' if horizon != 1 else ''}"
    for axes in panels[:, 0]:
        axes.set_ylabel(f"rollout error: SMSE{steps} ({units})")
    left_out = sum(link.n_left_out for link in named.values())
    style.note(figure, f"{left_out} without a finite error or ratio left out." if left_out else "")
    return figure


def _said(found: Any) -> str:
    ends = "" if found.low != found.low else f" [{style.number(found.low)}, {style.number(found.high)}]"
    return f"r = {style.number(found.value)}{ends}, n = {found.n}"
