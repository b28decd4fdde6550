"""Laying out a `ReportContent` as one self-contained HTML page with its figures beside it."""

from __future__ import annotations

import base64
import html
from importlib.resources import files
from os import PathLike
from pathlib import Path

from pdeinfl.analysis.summary import LOCKING_THRESHOLD, TIME_THRESHOLD
from pdeinfl.atomic import atomic_path
from pdeinfl.figures import save
from pdeinfl.figures.style import surrogate_colour
from pdeinfl.html_report import wording
from pdeinfl.html_report.content import (
    STABLE_DECADES,
    ReportContent,
    ReportFigure,
    SurrogateSummary,
    Table,
)
from pdeinfl.html_report.number_format import decimal

PAPER = (
    "Amarel et al., Generalization vs. Memorization in Autoregressive Deep Learning: Or, Examining Temporal Decay of "
    "Gradient Coherence, arXiv:2509.00024"
)
PIXELS_PER_INCH = 125
COMPANION = "the companion paper on spatial symmetry, arXiv:2601.20172"


def escape(text: str) -> str:
    """HTML text, with λ_max as a subscript."""
    return html.escape(text).replace("λ_max", "λ<sub>max</sub>")


def _answer(summary: SurrogateSummary, position: int) -> str:
    """The box of one surrogate: headline, numbers, meaning, checks."""
    sentence = wording.headline(summary)
    rows = [
        ("Coherence time", wording.value_text(summary.coherence_time, summary, is_time=True)),
        ("Class locking", wording.value_text(summary.class_locking, summary, is_time=False)),
    ]
    error = wording.error_text(summary)
    rows += [("One-step error", error)] if error else []
    checks = [
        wording.stability_text("time", summary.coherence_time.stability, summary.no_path_reason),
        wording.stability_text("class", summary.class_locking.stability, summary.no_path_reason),
        wording.untrained_text(summary.coherence_time, summary, is_time=True),
        wording.untrained_text(summary.class_locking, summary, is_time=False),
        wording.evidence_text(summary),
    ]
    numbers = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    listed = "".join(f"<li>{escape(text)}</li>" for text in checks)
    return (
        f'<section class="answer" style="--colour: {surrogate_colour(position)}"><h3>{escape(summary.name)}</h3>'
        f'<p class="headline">{escape(sentence[0].upper() + sentence[1:])}</p>'
        f"<p>{escape(wording.meaning(summary))}</p><dl>{numbers}</dl><ul>{listed}</ul></section>"
    )


def _picture(figure: ReportFigure, folder: Path) -> str:
    """Save a figure and embed its PNG, scaled so that its type is about as large as the page's."""
    png, pdf = save(figure.figure, folder / figure.stem)
    data = base64.b64encode(png.read_bytes()).decode("ascii")
    width = round(figure.figure.get_figwidth() * PIXELS_PER_INCH)
    stem, alt = html.escape(figure.stem), html.escape(figure.title)
    return (
        f'<figure id="{stem}"><img width="{width}" alt="{alt}" src="data:image/png;base64,{data}">'
        f"<figcaption><strong>{escape(figure.title)}.</strong> {escape(figure.caption)} "
        f"(Files: {escape(folder.name)}/{escape(png.name)}, {escape(pdf.name)}.)</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    grid = f'{note}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if table.folded:
        return f"<details><summary>{escape(table.title)}</summary>{grid}</details>"
    return f"<h3>{escape(table.title)}</h3>{grid}"


def _how_to_read() -> str:
    return (
        "<p>Influence asks: if the surrogate took one regularised descent step on one example (the "
        "perturbation), how much would its cost on another example (the response) fall? The <em>coherence time</em> is "
        "the number of time steps, mean of forward and backward, over which the answer stays above one standard "
        "deviation of its row along the same class; the "
        "reading changes at "
        f"{decimal(TIME_THRESHOLD, 0)} step. <em>Class locking</em> compares the influence between classes with that "
        "inside them, at equal times unless the style says otherwise: 1 means nothing crosses, 0 means that classes "
        "help each other as much as themselves; the reading "
        f"changes at {decimal(LOCKING_THRESHOLD, 1)}. Where a mini-batch holds one trajectory of each class, what a "
        "class does to itself at equal times is what its examples do to themselves, and the same class is the same "
        "trajectory. The damping λ of the descent step matters: towards 0 any "
        "surrogate with at least as many parameters as outputs looks locked, towards infinity the answer is plain "
        "gradient overlap, so a reading counts as stable only if it holds over "
        f"{decimal(STABLE_DECADES, 0)} decades of damping with every solve of the trained networks converged. "
        "Influence describes the training signal on the mini-batches examined; it is evidence about the surrogate's "
        "behaviour on new data, not proof of it.</p>"
    )


def page(content: ReportContent, folder: Path) -> str:
    """The HTML text; figures are saved into ``folder`` on the way."""
    css = files("pdeinfl.html_report").joinpath("page.css").read_text(encoding="utf-8")
    parts = [f"<h1>{escape(content.title)}</h1>", f'<p class="lead">{escape(content.introduction)}</p>']
    parts += ["<main>", '<section id="answer"><h2>The answer</h2>']
    parts += [_answer(summary, k) for k, summary in enumerate(content.summaries)]
    compared = wording.comparison(content.summaries)
    if compared:
        parts.append("<p>" + escape(" ".join(compared)) + "</p>")
    parts.append("</section>")
    if content.main_figure is not None:
        parts.append(_picture(content.main_figure, folder))
    parts.append(f"<h2>How to read this</h2>{_how_to_read()}")
    if content.figures:
        parts.append("<h2>Figures</h2>")
        parts += [_picture(figure, folder) for figure in content.figures]
    if content.tables or content.notes:
        parts.append("<h2>Settings and provenance</h2>")
        parts += [f"<p>{escape(text)}</p>" for text in content.notes]
        parts += [_table(table) for table in content.tables]
    if content.command:
        parts.append(f"<h2>How to reproduce</h2><pre>{escape(content.command)}</pre>")
    parts.append(
        f"<h2>How to cite</h2><p>The method: {escape(PAPER)}; and {escape(COMPANION)}. The software: pdeinfl, with the "
        "version in the table of settings.</p></main>"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(content.title)}</title><style>{css}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def render_report(content: ReportContent, out_dir: str | PathLike[str]) -> Path:
    """Write ``report.html`` and ``figures/*.png``, ``*.pdf`` into a folder.

    The page carries its pictures and style inside itself: it opens offline and may be moved alone.

    Returns:
        The path of the page.

    Raises:
        OSError: the folder cannot be written.
    """
    out = Path(out_dir)
    text = page(content, out / "figures")
    target = out / "report.html"
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target
