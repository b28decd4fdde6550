"""Optimisation curves: validation SMSE by epoch (figs 9–11 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pdeinfl.figures import inputs, style


def _stack(histories: Sequence[Any], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs that every history holds, and the values ``(n_histories, n_epochs)`` there."""
    columns = [(np.asarray(h.epoch).tolist(), np.asarray(getattr(h, name), dtype=float)) for h in histories]
    tables = [dict(zip(epoch, values, strict=True)) for epoch, values in columns]
    common = sorted(set.intersection(*(set(t) for t in tables)))
    return np.array(common), np.array([[t[e] for e in common] for t in tables])


@style.styled
def optimisation_curve(histories: Any, units: str = "field units") -> Figure:
    """Median over seeds with quartiles, on a log axis; validation as a line, training loss as a thin dashed one.

    Args:
        histories: ``{surrogate: sequence of histories}`` (one per seed), a history having ``epoch``, ``train_loss``
            and ``val_loss`` arrays of one length.
        units: unit of the SMSE, that of the fields.
    """
    named = {s: list(h) if isinstance(h, Sequence) else [h] for s, h in inputs.by_surrogate(histories).items()}
    figure, panels = style.grid(4.2, 2.7, 1, 1)
    axes = panels[0, 0]
    for k, (surrogate, held) in enumerate(named.items()):
        colour = style.surrogate_colour(k)
        prefix = f"{surrogate}, " if surrogate else ""
        for name, linestyle, width in (("val_loss", "-", 1.4), ("train_loss", "--", 0.8)):
            epochs, values = _stack(held, name)
            usable = np.isfinite(values).any(0)
            if not usable.any():
                continue
            low, middle, high = np.nanquantile(values[:, usable], (0.25, 0.5, 0.75), axis=0)
            label = prefix + ("validation" if name == "val_loss" else "training")
            axes.plot(epochs[usable], middle, color=colour, linestyle=linestyle, linewidth=width, label=label)
            if name == "val_loss":
                axes.fill_between(epochs[usable], low, high, color=colour, alpha=0.16, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_ylabel(f"SMSE ({units})")
    axes.legend(loc="upper right")
    seeds = sorted({len(held) for held in named.values()})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}–{seeds[-1]}"
    style.note(figure, f"Median and quartiles over {count} seed{'s' if seeds[-1] > 1 else ''}.")
    return figure
