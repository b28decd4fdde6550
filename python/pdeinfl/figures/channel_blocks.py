"""Channel-resolved influence: C × C blocks whose sum is H."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pdeinfl.figures import inputs, style
from pdeinfl.figures.matrices import colour_bar, draw_matrix


@style.styled
def channel_resolved(
    blocks: Any,
    channel_names: Sequence[str],
    class_ids: Any = None,
    class_names: Sequence[str] = (),
    label: str = "influence",
) -> Figure:
    """``C × C`` matrices on one colour range; response channel upward, perturbation channel to the right.

    Args:
        blocks: ``(C, C, n_response, n_perturbation)``: block ``[c, d]`` is how channel c responds to channel d.
        channel_names: C names.
        class_ids: ``(n,)`` class of each example (n_response = n_perturbation); examples are ordered by class and lines
            part the classes.
        class_names: names that ``class_ids`` index.
        label: what the values are, for the colour bar.

    Raises:
        ValueError: shapes do not fit.
    """
    h = np.asarray(blocks, dtype=float)
    c = len(channel_names)
    if h.ndim != 4 or h.shape[:2] != (c, c):
        raise ValueError(f"`blocks` must have shape ({c}, {c}, n_response, n_perturbation); got {h.shape}")
    edges: np.ndarray = np.empty(0)
    ids = np.zeros(h.shape[2], dtype=int)
    if class_ids is not None:
        ids = np.asarray(class_ids)
        if ids.shape != (h.shape[2],) or h.shape[2] != h.shape[3]:
            raise ValueError(f"`class_ids` must have shape ({h.shape[2]},) and the blocks be square; got {ids.shape}")
        order = np.argsort(ids, kind="stable")
        h, ids = h[:, :, order][:, :, :, order], ids[order]
        edges = np.flatnonzero(np.diff(ids)) + 1.5
    norm, low, high = style.signed_range([h])
    side = (style.DOUBLE_COLUMN - 0.9) / c if c > 2 else 2.4
    figure, panels = style.grid(side * c + 1.1, side * c + 0.5, c, c, sharex=True, sharey=True)
    names = [class_names[int(k)] if len(class_names) else f"class {k}" for k in dict.fromkeys(ids.tolist())]
    bounds = np.concatenate([[0.5], edges, [len(ids) + 0.5]])
    for row in range(c):
        for column in range(c):
            axes = panels[c - 1 - row, column]
            image = draw_matrix(axes, h[row, column], norm, style.diverging())
            for edge in edges:
                axes.axhline(edge, color=style.INK, linewidth=0.4)
                axes.axvline(edge, color=style.INK, linewidth=0.4)
            if class_ids is not None:
                middle = 0.5 * (bounds[1:] + bounds[:-1])
                axes.set_xticks(middle, labels=names)
                axes.set_yticks(middle, labels=names, rotation=90, va="center")
                axes.tick_params(length=0, labelsize=6)
            if row == 0:
                axes.set_xlabel(inputs.title(channel_names[column]))
            if column == 0:
                axes.set_ylabel(inputs.title(channel_names[row]))
    colour_bar(figure, image, panels, low, high, label)
    figure.supylabel("response channel", fontsize=8)
    figure.supxlabel("perturbation channel", fontsize=8)
    return figure
