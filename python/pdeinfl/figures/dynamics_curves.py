"""Training dynamics: how self- and cross-influence grow over the epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pdeinfl.figures import inputs, style
from pdeinfl.figures.bands import draw_band


@style.styled
def training_dynamics(data: Any) -> Figure:
    """Unstandardised mean of H on and off the diagonal by epoch, quartiles over (seed, mini-batch).

    Args:
        data: ``{surrogate: dynamics}``; a dynamics has ``epochs (E,)``, ``on_diagonal`` and ``off_diagonal``, each with
            ``median``, ``lower``, ``upper (E,)``.
    """
    named = inputs.by_surrogate(data)
    figure, panels = style.grid(style.DOUBLE_COLUMN, 2.5, 1, 2, sharex=True)
    words = {"on_diagonal": r"on the diagonal, $i=j$", "off_diagonal": r"off the diagonal, $i\neq j$"}
    for axes, part in zip(panels[0], words, strict=True):
        largest = 0.0
        for k, (surrogate, dynamics) in enumerate(named.items()):
            curve = getattr(dynamics, part)
            marker = style.MARKERS[k % len(style.MARKERS)]
            draw_band(axes, dynamics.epochs, curve, style.surrogate_colour(k), surrogate or None, marker)
            positive = np.abs(np.asarray(curve.median, dtype=float))
            largest = max(largest, float(np.nanmax(positive, initial=0.0)))
        axes.set_yscale("symlog", linthresh=max(largest, 1e-300) * 1e-3)
        axes.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
        axes.set_title(words[part])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    panels[0, 0].set_ylabel("mean influence (not standardised)")
    if any(named):
        panels[0, 0].legend()
    style.note(figure, "Quartiles over seeds and mini-batches.")
    return figure
