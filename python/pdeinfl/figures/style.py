"""One look for every figure: sizes, fonts, colours, and saving as PNG and PDF.

Figures are `matplotlib.figure.Figure` objects made without pyplot: nothing global is registered, so nothing leaks and
nothing needs closing. Colours are those of Okabe and Ito, told apart by people with any common colour blindness.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

DOUBLE_COLUMN = 7.0
"""Width in inches of a figure across a printed page; `SINGLE_COLUMN` is one of two columns."""
SINGLE_COLUMN = 3.4
PNG_DPI = 220

INK, GREY, PALE = "#1a1a1a", "#767676", "#d9d9d9"
_SURROGATE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_CLASS_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#D55E00")
_CLASS_TEXT_COLOURS = ("#007a59", "#a8487f", "#8f6200", "#1f729f", "#005a8c", "#a84a00")
_KNOWN_CLASSES = {"RP": 0, "CRP": 1, "RPUI": 2, "BB": 0, "Gauss": 1, "Sines": 2}
MARKERS = ("o", "s", "^", "D", "v", "P")

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.titlepad": 4,
    "axes.labelsize": 7.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#4d4d4d",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.color": "#4d4d4d",
    "ytick.color": "#4d4d4d",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 7,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.3,
    "lines.markersize": 3,
    "hatch.linewidth": 0.4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 110,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "pdeinfl",
}

P = ParamSpec("P")


@contextmanager
def context() -> Iterator[None]:
    """The figures' rc settings for the time of a ``with`` block; the caller's settings come back after it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function inside :func:`context`."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with context():
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out so that labels neither overlap nor get cut."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def grid(width: float, height: float, n_rows: int, n_columns: int, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure and its ``(n_rows, n_columns)`` object array of axes."""
    figure = new_figure(width, height)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **kwargs)


def surrogate_colour(position: int) -> str:
    """Colour of the surrogate that comes at ``position`` in a mapping: the same in every figure of a report."""
    return _SURROGATE_COLOURS[position % len(_SURROGATE_COLOURS)]


def class_colours(class_names: Sequence[str], for_text: bool = False) -> dict[str, str]:
    """Colour of each initial-condition class; RP, CRP, RPUI and BB, Gauss, Sines always keep theirs.

    ``for_text`` darkens them to a contrast of at least 4.5 on white.
    """
    taken = {_KNOWN_CLASSES[name] for name in class_names if name in _KNOWN_CLASSES}
    free = [k for k in range(len(_CLASS_COLOURS)) if k not in taken] or list(range(len(_CLASS_COLOURS)))
    unknown = [name for name in class_names if name not in _KNOWN_CLASSES]
    spare = {name: free[k % len(free)] for k, name in enumerate(unknown)}
    palette = _CLASS_TEXT_COLOURS if for_text else _CLASS_COLOURS
    return {name: palette[_KNOWN_CLASSES.get(name, spare.get(name, 0))] for name in class_names}


def diverging() -> Colormap:
    """Blue – white – red for signed values; NaN is grey."""
    return mpl.colormaps["RdBu_r"].with_extremes(bad=PALE)


def sequential() -> Colormap:
    """Perceptually uniform, colour-blind-safe map for fields; NaN is grey."""
    return mpl.colormaps["cividis"].with_extremes(bad=PALE)


def signed_range(arrays: Sequence[np.ndarray], at_least: float | None = None) -> tuple[Normalize, float, float]:
    """Colour scale common to several signed maps.

    Returns:
        A norm symmetric about 0, so that white means zero; and the interval of values present (stretched to 0 and to
        ``at_least``), to which a colour bar may be cut.
    """
    finite = np.concatenate([np.asarray(a, dtype=float).ravel() for a in arrays] or [np.empty(0)])
    finite = finite[np.isfinite(finite)]
    low = min(0.0, float(finite.min(initial=0.0)))
    high = max(0.0, float(finite.max(initial=0.0)), at_least or 0.0)
    reach = max(-low, high) or 1.0
    return Normalize(-reach, reach), low, (high if high > low else reach)


def note(figure: Figure, text: str) -> None:
    """Small grey line at the lower right; the layout keeps room for it."""
    figure.supxlabel(text, x=0.995, ha="right", fontsize=6, color=GREY)


def style_sentence(style: str | None, spread: str = "quartiles") -> str:
    """How the numbers of an aggregation were pooled, for :func:`note` and for captions."""
    sentences = {
        "pooled": f"Style: pooled (median and {spread} over all pairs of all seeds and mini-batches).",
        "paper": f"Style: paper (means over pairs, then over seeds and mini-batches; {spread} over seeds).",
    }
    return sentences.get(style or "", "" if style is None else f"Style: {style}.")


def luminance(colour: Any) -> float:
    """Relative luminance of a colour, 0 black to 1 white (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def inked(value: float, norm: Normalize, cmap: Colormap) -> str:
    """Black or white, whichever contrasts more with the colour of ``value``."""
    behind = luminance(cmap(norm(value))) + 0.05
    return INK if behind / (luminance(INK) + 0.05) > 1.05 / behind else "white"


def number(value: float, digits: int = 2) -> str:
    """A short decimal with a true minus sign; an em dash for NaN, ∞ for infinity."""
    if np.isnan(value):
        return "—"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) != 0 else text.lstrip("-")


def save(figure: Figure, path_stem: str | PathLike[str]) -> tuple[Path, Path]:
    """Write ``path_stem.png`` and ``path_stem.pdf``, making the folder; the same figure gives the same bytes.

    Returns:
        The two paths.
    """
    stem = Path(path_stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, pdf = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".pdf")
    with context():
        figure.savefig(png, dpi=PNG_DPI, metadata={"Software": None})
        figure.savefig(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return png, pdf
