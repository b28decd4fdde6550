"""From the contents of a run to the content of its report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pdeinfl.analysis.damping_curves import (
    CLASS_LOCKING,
    COHERENCE_TIME,
    DampingCurve,
    damping_grid,
    damping_path,
    meets_tolerance,
    no_path_reason,
    reference_eigenvalue,
)
from pdeinfl.analysis.summary import longest_lag
from pdeinfl.engine.result import Influence
from pdeinfl.html_report.content import Quantity, ReportContent, StableRange, SurrogateSummary
from pdeinfl.html_report.further_figures import further_figures
from pdeinfl.html_report.measures import (
    ReportOptions,
    counts,
    holds_pair,
    measure,
    one_step_error,
    own_is_self,
    relative_damping,
)
from pdeinfl.html_report.run_figures import damping_figure, influence_figures, other_figures
from pdeinfl.html_report.run_tables import mini_batch_table, response_check_table, settings_table, summary_table
from pdeinfl.html_report.stability import difference_range, reading_range
from pdeinfl.run_contents import RunContents

PAPER_DAMPING = 1e-4
"""The paper's λ, for the metric ``sum`` (its eq. 11)."""

Curves = Mapping[str, DampingCurve]


def build_content(run: RunContents, options: ReportOptions | None = None) -> ReportContent:
    """Aggregate, summarise and draw a run.

    Args:
        run: influences, controls, histories, samples and checks.
        options: how to aggregate; the pair of observables falls back on the first that the results hold.

    Returns:
        The content, ready for :func:`pdeinfl.html_report.render_report`.

    Raises:
        ValueError: a surrogate has no influence matrix.
    """
    results = {name: list(held) for name, held in run.results.items()}
    for name, held in results.items():
        if not held:
            raise ValueError(f"`results[{name!r}]` must hold at least one influence; got none: run the influence stage")
    if not results:
        raise ValueError("`results` must hold at least one surrogate; got none: run the influence stage")
    options = _fitting(options or ReportOptions(), next(iter(results.values()))[0])
    kept = {name: list(held) for name, held in run.controls.items() if held and name in results}
    controls = {name: held for name, held in kept.items() if all(holds_pair(r, options) for r in held)}
    curves, control_curves, summaries = {}, {}, []
    for name, held in results.items():
        own, control = _paths(held, controls.get(name, []), options)
        if own:
            curves[name] = own
        if control:
            control_curves[name] = control
        summaries.append(_summary(name, held, controls.get(name, []), own, control, options))
    main, drawn = influence_figures(results, options, run.channel_names)
    if curves:
        default = float(np.median([relative_damping(results[s]) for s in curves]))
        drawn.append(damping_figure(curves, control_curves, default, {s: _paper_damping(results[s]) for s in curves}))
    drawn += other_figures(results, run.histories, run.samples, run.checks, run.channel_names)
    tables = [summary_table(summaries)]
    if run.checks:
        tables.append(response_check_table(run.checks))
    further, more = further_figures(run, results, options)
    drawn, tables = [*drawn, *further], [*tables, *more]
    tables.append(settings_table(results, summaries, options, run.settings))
    tables.append(mini_batch_table({**results, **{f"{s}, untrained": held for s, held in kept.items()}}))
    return ReportContent(
        title=run.title,
        introduction=run.introduction,
        summaries=tuple(summaries),
        main_figure=main,
        figures=tuple(drawn),
        tables=tuple(tables),
        command=run.command,
        notes=(*run.notes, *(_left_out(name, options) for name in kept if name not in controls)),
    )


def _fitting(options: ReportOptions, result: Influence) -> ReportOptions:
    """The options with a pair of observables that the results hold."""
    response = options.response if options.response in result.response_names else result.response_names[0]
    held = result.perturbation_names
    return replace(
        options,
        response=response,
        perturbation=options.perturbation if options.perturbation in held else held[0],
    )


def _left_out(name: str, options: ReportOptions) -> str:
    return (
        f"The untrained control of {name} is left out of the comparison: it does not hold the response "
        f"{options.response} to the perturbation {options.perturbation}."
    )


def _paths(
    results: Sequence[Influence], controls: Sequence[Influence], options: ReportOptions
) -> tuple[dict[str, DampingCurve], dict[str, DampingCurve]]:
    """Damping curves of the trained surrogate and of its control, each empty where it has no path."""
    top, default = reference_eigenvalue(results), relative_damping(results)
    if no_path_reason(results) or not (math.isfinite(top) and top > 0):
        return {}, {}
    grid = damping_grid(options.dampings_per_decade, default)
    shared = {"response": options.response, "max_lag": options.max_lag, **options.arguments()}
    shared |= {"n_bootstrap": options.n_bootstrap_path, "lambda_max": top}
    own = damping_path(results, grid, **shared)
    return own, {} if no_path_reason(controls) else damping_path(controls, grid, **shared)


def _summary(
    name: str,
    results: Sequence[Influence],
    controls: Sequence[Influence],
    own: Curves,
    control: Curves,
    options: ReportOptions,
) -> SurrogateSummary:
    default = relative_damping(results)
    quantities = []
    trained, untrained = measure(results, options), measure(controls, options) if controls else None
    for axis, field in ((COHERENCE_TIME, "coherence_time"), (CLASS_LOCKING, "class_locking")):
        reading: StableRange | None = reading_range(own[axis], default) if axis in own else None
        both = axis in own and axis in control
        quantities.append(
            Quantity(
                getattr(trained, field),
                getattr(untrained, field) if untrained else None,
                reading,
                difference_range(own[axis], control[axis], default) if both else None,
            )
        )
    n_seeds, n_mini_batches, even = counts(results)
    return SurrogateSummary(
        name=name,
        coherence_time=quantities[0],
        class_locking=quantities[1],
        max_lag=longest_lag(results, options.longest_lag),
        n_converged=sum(meets_tolerance(r, options.response, options.perturbation) for r in results),
        n_influences=len(results),
        n_seeds=n_seeds,
        n_mini_batches=n_mini_batches,
        even=even,
        no_path_reason="" if own else no_path_reason(results) or "the largest eigenvalue of the metric is unknown",
        decay_constant=Quantity(trained.decay_constant, untrained.decay_constant if untrained else None),
        translation_defect=Quantity(trained.translation_defect, untrained.translation_defect if untrained else None),
        estimated=any(r.bound_is_estimate for r in results),
        observable=options.response,
        one_step_error=one_step_error(results),
        untrained_error=one_step_error(controls),
        persistence_error=one_step_error(results, "persistence_losses"),
        own_is_self=own_is_self(results, options),
    )


def _paper_damping(results: Sequence[Influence]) -> float:
    """The paper's λ = 1e-4 of the summed metric, relative to this run's λ_max; NaN where unknown."""
    scale = 1.0
    if results[0].settings.get("metric") == "mean":
        scale = 1.0 / float(results[0].settings.get("n_outputs", float("nan")))
    return PAPER_DAMPING * scale / reference_eigenvalue(results)
