"""Drawing parts shared by the maps: a matrix with the origin at the lower left, and a colour bar that knows √N."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from pdeinfl.figures import style

STANDARDISED = "standardised influence"


def draw_matrix(axes: Axes, values: Any, norm: Normalize, cmap: Colormap) -> AxesImage:
    """``values[row, column]`` with row 0 at the bottom: response upward, perturbation to the right."""
    array = np.asarray(values, dtype=float)
    rows, columns = array.shape
    image = axes.imshow(
        array,
        origin="lower",
        extent=(0.5, columns + 0.5, 0.5, rows + 0.5),
        aspect="equal",
        norm=norm,
        cmap=cmap,
        interpolation="nearest",
    )
    for spine in axes.spines.values():
        spine.set_visible(True)
    return image


def time_ticks(axes: Axes, times: Sequence[int] | np.ndarray, which: str) -> None:
    """Label at most six of the rows or columns of a two-time map with their times, evenly, from the first on."""
    n = len(times)
    chosen = np.arange(0, n, max(1, -(-(n - 1) // 5)))
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(chosen + 1, labels=[str(int(times[int(k)])) for k in chosen])


def colour_bar(
    figure: Figure,
    image: AxesImage,
    axes: Any,
    low: float,
    high: float,
    label: str,
    n_examples: int | None = None,
    shrink: float = 0.9,
    aspect: float = 24,
) -> Any:
    """A colour bar cut to ``[low, high]`` whose ticks include √N, the self-influence of a diagonal H."""
    bar = figure.colorbar(image, ax=axes, shrink=shrink, aspect=aspect, pad=0.02)
    bar.ax.set_ylim(low, high)
    bar.outline.set_visible(False)
    bar.set_label(label)
    bar.ax.yaxis.set_label_position("left")
    ticks = [t for t in MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= t <= high]
    labels = [f"{t:g}".replace("-", "−") for t in ticks]
    if n_examples is not None and low <= n_examples**0.5 <= high * (1 + 1e-9):
        level = float(n_examples**0.5)
        clear = [abs(t - level) > 0.07 * (high - low) for t in ticks]
        ticks = [t for t, keep in zip(ticks, clear, strict=True) if keep] + [level]
        labels = [s for s, keep in zip(labels, clear, strict=True) if keep] + [rf"$\sqrt{{N}}$ = {level:.1f}"]
        bar.ax.axhline(level, color=style.INK, linewidth=1.4, gid="sqrt_n")
    bar.set_ticks(ticks, labels=labels)
    return bar
