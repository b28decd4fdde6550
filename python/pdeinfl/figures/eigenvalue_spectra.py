"""Eigenvalues of the neural-tangent metric (figs 8, 34–35 of the paper, and the leading spectrum)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pdeinfl.figures import inputs, style


def _largest(axes: Axes, samples: dict[str, np.ndarray]) -> None:
    for k, values in enumerate(samples.values()):
        colour = style.surrogate_colour(k)
        line = {"color": colour, "linewidth": 1.0}
        axes.boxplot(
            values,
            positions=[k],
            widths=0.5,
            showfliers=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": colour, "linewidth": 1.8},
        )
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(k + spread, values, ".", color=colour, markersize=3, alpha=0.6, zorder=3)
    axes.set_yscale("log")
    axes.set_xlim(-0.6, len(samples) - 0.4)
    axes.set_xticks(range(len(samples)), labels=list(samples))
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(r"largest eigenvalue of $A+\lambda$")
    axes.set_title("largest eigenvalue per mini-batch")


def _leading(axes: Axes, name: str, results: Sequence[Any], colour: str, n_leading: int) -> bool:
    spectra = [np.sort(np.asarray(r.ritz_values, dtype=float))[::-1][:n_leading] for r in results]
    spectra = [s[s > 0] for s in spectra if len(s)]
    length = min((len(s) for s in spectra), default=0)
    if length == 0:
        return False
    stacked = np.stack([s[:length] for s in spectra])
    index = np.arange(1, length + 1)
    low, middle, high = np.quantile(stacked, (0.25, 0.5, 0.75), axis=0)
    axes.plot(index, middle, color=colour, label=name)
    axes.fill_between(index, low, high, color=colour, alpha=0.16, linewidth=0)
    return True


@style.styled
def eigenvalues(results: Any, n_leading: int = 200) -> Figure:
    """Box plot of the largest eigenvalue of A + λ over (seed, mini-batch), and the leading Ritz spectrum.

    The spectrum panel is drawn where the results hold Ritz values; its band is the quartiles over results.

    Args:
        results: ``{surrogate: sequence of influences}``, or one sequence.
        n_leading: how many leading eigenvalues to show.

    Raises:
        ValueError: no result knows its largest eigenvalue.
    """
    named = {s: list(r) if isinstance(r, Sequence) else [r] for s, r in inputs.by_surrogate(results).items()}
    samples = {s: np.array([r.lambda_max + r.damping for r in held], dtype=float) for s, held in named.items()}
    samples = {s: v[np.isfinite(v)] for s, v in samples.items()}
    if not any(len(v) for v in samples.values()):
        raise ValueError("`results` must carry `lambda_max`: influences built from arrays have no spectrum")
    with_spectrum = any(len(r.ritz_values) for held in named.values() for r in held)
    figure, panels = style.grid(
        style.DOUBLE_COLUMN if with_spectrum else style.SINGLE_COLUMN,
        2.6,
        1,
        1 + with_spectrum,
        width_ratios=(1, 1.5)[: 1 + with_spectrum],
    )
    _largest(panels[0, 0], samples)
    if with_spectrum:
        axes = panels[0, 1]
        for k, (surrogate, held) in enumerate(named.items()):
            _leading(axes, surrogate, held, style.surrogate_colour(k), n_leading)
        axes.set_yscale("log")
        dampings = {float(r.damping) for held in named.values() for r in held if np.isfinite(r.damping)}
        for k, (surrogate, held) in enumerate(named.items()):
            own = np.median([r.damping for r in held])
            if np.isfinite(own) and (k == 0 or len(dampings) > 1):
                label = r"damping $\lambda$" + (f", {surrogate}" if surrogate and len(dampings) > 1 else "")
                axes.axhline(own, color=style.surrogate_colour(k), linewidth=0.8, linestyle=":", label=label)
        axes.set_xlabel("index")
        axes.set_ylabel(r"Ritz value of $A$")
        axes.set_title("leading spectrum of the metric")
        axes.legend(loc="upper right")
    style.note(figure, "Box: quartiles over seeds × mini-batches; whiskers 1.5 interquartile ranges; dots: each one.")
    return figure
