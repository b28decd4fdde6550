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

    Axes are logarithmic; those of a panel that reaches 0 are linear below a tenth of the largest power of ten.

    Args:
        data: ``{surrogate: dynamics}``, as `pdeinfl.training_dynamics` gives them: ``epochs (E,)``, ``on_diagonal`` and
            ``off_diagonal``, each with ``median``, ``lower``, ``upper (E,)``.
    """
    named = inputs.by_surrogate(data)
    figure, panels = style.grid(style.DOUBLE_COLUMN, 2.5, 1, 2, sharex=True)
    words = {"on_diagonal": r"on the diagonal, $i=j$", "off_diagonal": r"off the diagonal, $i\neq j$"}
    for axes, part in zip(panels[0], words, strict=True):
        drawn = []
        for k, (surrogate, dynamics) in enumerate(named.items()):
            curve = getattr(dynamics, part)
            marker = style.MARKERS[k % len(style.MARKERS)]
            draw_band(axes, dynamics.epochs, curve, style.surrogate_colour(k), surrogate or None, marker)
            drawn += [np.asarray(getattr(curve, line), dtype=float) for line in ("median", "lower", "upper")]
        values = np.concatenate(drawn)
        values = values[np.isfinite(values)]
        if values.size and values.min() > 0:
            axes.set_yscale("log")
        else:
            largest = np.abs(values).max(initial=0.0) or 1.0
            axes.set_yscale("symlog", linthresh=10.0 ** (np.floor(np.log10(largest)) - 1))
            axes.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
        axes.set_title(words[part])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    panels[0, 0].set_ylabel("mean influence (not standardised)")
    if any(named):
        panels[0, 0].legend()
    style.note(figure, "Median and quartiles over seeds and mini-batches.")
    return figure
