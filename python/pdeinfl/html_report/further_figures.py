"""Training dynamics and rollout link of a run (MATH §5), where it holds what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from pdeinfl import figures
from pdeinfl.analysis.damping_curves import meets_tolerance
from pdeinfl.analysis.dynamics import training_dynamics
from pdeinfl.analysis.rollout_link import Correlation, RolloutLink, rollout_link
from pdeinfl.engine.result import Influence
from pdeinfl.engine.store import Key
from pdeinfl.html_report.content import ReportFigure, Table
from pdeinfl.html_report.measures import ReportOptions, holds_pair
from pdeinfl.html_report.number_format import decimal, plural
from pdeinfl.run_contents import RunContents

MIN_EPOCHS = 3

Results = Mapping[str, Sequence[Influence]]


def further_figures(
    run: RunContents, results: Results, options: ReportOptions
) -> tuple[list[ReportFigure], list[Table]]:
    """Figures and tables of the training dynamics and of the rollout link, of the pair of observables of the answer."""
    every = {name: held for name in results if (held := _at_all_epochs(run, name, options))}
    drawn = [_dynamics_figure(every, options)] if every else []
    links = _links(run, results, options)
    if not links:
        return drawn, []
    return [*drawn, _link_figure(links, options)], [_link_table(links)]


def _at_all_epochs(run: RunContents, name: str, options: ReportOptions) -> list[Influence]:
    """Influences of a surrogate at every epoch that hold the pair of observables; none with fewer than 3 epochs."""
    every = (*run.controls.get(name, ()), *run.between.get(name, ()), *run.results[name])
    held = [r for r in every if holds_pair(r, options)]
    return held if len({r.epoch for r in held}) >= MIN_EPOCHS and all(r.same_examples for r in held) else []


def _dynamics_figure(held: Results, options: ReportOptions) -> ReportFigure:
    dynamics = {name: training_dynamics(rs, options.response, options.perturbation) for name, rs in held.items()}
    counts = sorted({int(n) for found in dynamics.values() for n in found.n_results})
    matrices = plural(counts[-1], "influence matrix")
    met = [meets_tolerance(r, options.response, options.perturbation) for rs in held.values() for r in rs]
    return ReportFigure(
        "training_dynamics",
        "Influence over training",
        f"Mean of the unstandardised H (response {options.response}, perturbation {options.perturbation}) over all "
        "pairs i = j (left) and i ≠ j of all examples of a mini-batch (right) against the epoch, 0 the untrained "
        "network; median and quartiles over seeds and mini-batches, "
        f"{f'{counts[0]} to {matrices}' if len(counts) > 1 else matrices} of each surrogate at each epoch. All epochs "
        "have the run's one absolute damping, whose ratio to λ_max changes over training. "
        f"{sum(met)} of {plural(len(met), 'influence matrix')} met the tolerance.",
        figures.training_dynamics(dynamics),
    )


def _links(run: RunContents, results: Results, options: ReportOptions) -> dict[int, dict[str, RolloutLink]]:
    """``{horizon: {surrogate: link}}`` over one step, half of the trajectory and all of it, of the surrogates whose
    results all have rollout errors."""
    complete = {name: held for name, held in results.items() if all(Key.of(r) in run.rollout_errors for r in held)}
    errors = {Key.of(r): run.rollout_errors[Key.of(r)] for held in complete.values() for r in held}
    longest = min((found.longest for found in errors.values()), default=0)
    arguments = (options.response, options.perturbation, options.n_bootstrap, options.bootstrap_seed)
    links: dict[int, dict[str, RolloutLink]] = {}
    for horizon in sorted({1, (longest + 1) // 2, longest} if longest else ()):
        at = {astuple(key): found.at(horizon) for key, found in errors.items()}
        links[horizon] = {name: rollout_link(held, at, *arguments) for name, held in complete.items()}
    return links


def _link_figure(links: Mapping[int, Mapping[str, RolloutLink]], options: ReportOptions) -> ReportFigure:
    horizon = sorted(links)[len(links) // 2]
    return ReportFigure(
        "rollout_link",
        "Rollout error against influence along the trajectory",
        "One point per seed and trajectory of the mini-batches. Across: ρ, the sum of the unstandardised H (response "
        f"{options.response}, perturbation {options.perturbation}) over pairs of different times of the trajectory, "
        "over that of its diagonal, at the run's damping. Up, on a log axis: SMSE of the surrogate's rollout summed "
        f"over {plural(horizon, 'step')}, median over the start times that leave so many. r is the Pearson correlation "
        "of ρ with the error itself, not its logarithm. Negative: where influence travels, rollouts are better. "
        "Classes differ in both: the correlation over all of them may differ from, or contradict, those within each.",
        figures.rollout_link(links[horizon], horizon),
    )


def _link_table(links: Mapping[int, Mapping[str, RolloutLink]]) -> Table:
    header = ("", "points", *(f"horizon {plural(horizon, 'step')}" for horizon in links))
    first = next(iter(links.values()))
    rows = []
    for name, link in first.items():
        for k, label in enumerate(("all classes", *link.class_names)):
            found = [_correlations(held[name])[k] for held in links.values()]
            points = sorted({c.n for c in found})
            n = f"{points[0]}" if len(points) == 1 else f"{points[0]}–{points[-1]}"
            rows.append((f"{name}, {label}", n, *(_cell(c) for c in found)))
    kinds = "; ".join(dict.fromkeys(link.interval.removeprefix("no interval: ") for link in first.values()))
    none = any(link.interval.startswith("no interval") for link in first.values())
    note = "Pearson correlation of ρ with the rollout error, over seeds × trajectories. Intervals: "
    return Table("Rollout link", header, tuple(rows), note=f"{note}{f'none ({kinds})' if none else kinds}.")


def _correlations(link: RolloutLink) -> tuple[Correlation, ...]:
    return (link.pooled, *link.by_class)


def _cell(found: Correlation) -> str:
    ends = "" if found.low != found.low else f" [{decimal(found.low)}, {decimal(found.high)}]"
    return f"{decimal(found.value)}{ends}"
