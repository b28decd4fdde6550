"""The report: one self-contained HTML page that opens with a plain-language answer.

:func:`build_content` computes, :func:`render_report` lays out, :func:`report` does both for a run directory.
"""

from __future__ import annotations

import sys
from os import PathLike
from pathlib import Path

from pdeinfl.html_report.build import build_content
from pdeinfl.html_report.content import (
    Quantity,
    ReportContent,
    ReportFigure,
    StableRange,
    SurrogateSummary,
    Table,
)
from pdeinfl.html_report.measures import ReportOptions
from pdeinfl.html_report.number_format import plural
from pdeinfl.html_report.page import render_report

__all__ = [
    "Quantity",
    "ReportContent",
    "ReportFigure",
    "ReportOptions",
    "StableRange",
    "SurrogateSummary",
    "Table",
    "build_content",
    "render_report",
    "report",
]


def report(
    run_directory: str | PathLike[str],
    out_dir: str | PathLike[str] | None = None,
    options: ReportOptions | None = None,
    progress: bool = False,
) -> Path:
    """Write the report of a finished run.

    Args:
        run_directory: what ``pdeinfl run`` or ``pdeinfl demo`` wrote.
        out_dir: where ``report.html`` and ``figures/`` go; default ``report`` inside the run directory.
        options: how to aggregate.
        progress: a line on standard error once the run is read.

    Returns:
        The path of the page.

    Raises:
        OSError, ValueError: the directory is not that of a finished run.
    """
    from pdeinfl.run_directory import load_run

    run = load_run(run_directory)
    if progress:
        matrices = plural(sum(map(len, run.results.values())), "influence matrix")
        print(f"[report] {matrices}: aggregating and drawing", file=sys.stderr, flush=True)
    content = build_content(run, options)
    return render_report(content, Path(run_directory) / "report" if out_dir is None else out_dir)
