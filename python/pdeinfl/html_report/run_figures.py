"""The figures of a run with their captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pdeinfl import figures
from pdeinfl.analysis import aggregation
from pdeinfl.analysis.damping_curves import DampingCurve
from pdeinfl.data.channels import equation_of
from pdeinfl.engine.result import Influence
from pdeinfl.figures.style import style_sentence
from pdeinfl.html_report.content import ReportFigure
from pdeinfl.html_report.measures import ReportOptions
from pdeinfl.run_contents import PredictionSample

Results = Mapping[str, Sequence[Influence]]


def shown_observables(results: Results, options: ReportOptions) -> list[str]:
    """Response observables to draw, the answer's own first; per-channel and per-band shares have their own figure."""
    held = [n for rs in results.values() for r in rs for n in r.response_names if ":" not in n]
    return list(dict.fromkeys([options.response, *held]))


def _per_observable(
    aggregate: Callable[..., Any], results: Results, options: ReportOptions, **keywords: Any
) -> dict[str, dict[str, Any]]:
    """``{surrogate: {observable: aggregation}}`` of what each surrogate's results all hold."""
    found: dict[str, dict[str, Any]] = {}
    for surrogate, held in results.items():
        found[surrogate] = {}
        for observable in shown_observables(results, options):
            if all(observable in r.response_names for r in held):
                found[surrogate][observable] = aggregate(held, response=observable, **options.arguments(), **keywords)
    return found


def _n_examples(results: Results) -> int | None:
    """N, where all mini-batches agree: √N has no meaning otherwise."""
    sizes = {len(r.perturbation_labels) for held in results.values() for r in held}
    return sizes.pop() if len(sizes) == 1 else None


def distance_bins(style: str, channel_names: Sequence[str]) -> dict[str, int]:
    """Bins of the distance decay that differ from the style's own: the later code's for Navier–Stokes (MATH §5)."""
    return {"n_bins": 15, "overlap": 2} if equation_of(channel_names) == "NS" and style == "pooled" else {}


def influence_figures(
    results: Results, options: ReportOptions, channel_names: Sequence[str] = ()
) -> tuple[ReportFigure, list[ReportFigure]]:
    """The main figure, then two-time maps, lag profiles, class transfer and distance decay."""
    n, how = _n_examples(results), style_sentence(options.style)
    maps = _per_observable(aggregation.two_time, results, options)
    lags = _per_observable(aggregation.lag_profile, results, options, max_lag=options.max_lag)
    classes = _per_observable(aggregation.class_transfer, results, options)
    first = [{s: held[options.response] for s, held in a.items()} for a in (maps, lags, classes)]
    main = ReportFigure(
        "summary",
        "How far training information travels",
        "Left: standardised influence between the times of one trajectory, response upward and perturbation to the "
        "right. Middle: between initial-condition classes. Right: against the lag, same class and other class, with "
        "quartile bands. √N is the self-influence that an exactly diagonal H would have; above it, a row is nearly "
        f"the same for all perturbations, so that its own scale is small. {how}",
        figures.summary(first[0], first[1], first[2], n),
    )
    rest = [
        ReportFigure(
            "two_time",
            "Two-time influence",
            "A narrow diagonal means that a step on one transition helps only its immediate neighbours in time; red "
            f"off the diagonal means transfer along the trajectory, blue means harm. {how}",
            figures.two_time(maps, n),
        ),
        ReportFigure(
            "lag_profile",
            "Influence against lag",
            "Lag is response time minus perturbation time. The coherence time is where the same-class curve, mean of "
            "both signs of the lag, falls below 1; the dashed line is √N. Bands are quartiles, error bars bootstrap "
            f"intervals where there are any. {how}",
            figures.lag_profile(lags, n),
        ),
        ReportFigure(
            "class_transfer",
            "Influence between initial-condition classes",
            "Off-diagonal cells near zero mean that the classes do not teach each other. Small numbers: "
            f"quartiles. {how}",
            figures.class_transfer(classes, n),
        ),
    ]
    if all(r.input_distance is not None for held in results.values() for r in held):
        arguments = {"response": options.response, **options.arguments(), **distance_bins(options.style, channel_names)}
        decay = {s: aggregation.distance_decay(held, **arguments) for s, held in results.items()}
        rest.append(
            ReportFigure(
                "distance_decay",
                "Influence against the distance between inputs",
                "A curve that decays to zero means that only examples with similar input states help each other; "
                "self-pairs are left out. Bands are quartiles, error bars bootstrap intervals where there are any. "
                f"{how}",
                figures.distance_decay(decay),
            )
        )
    return main, rest


def damping_figure(
    curves: Mapping[str, Mapping[str, DampingCurve]],
    controls: Mapping[str, Mapping[str, DampingCurve]],
    default: float,
    paper: Mapping[str, float],
) -> ReportFigure:
    """Summary numbers against damping."""
    zeros = [any(np.isfinite(c.at_zero[0]) for c in held.values()) for held in (*curves.values(), *controls.values())]
    drawn = "" if all(zeros) else ", where that limit is drawn,"
    towards_zero = (
        f"Towards 0{drawn} the influence matrix is diagonal whatever the surrogate has learned"
        if any(zeros)
        else "No limit towards 0 is drawn: only for an observable on itself, and with at least as many parameters as "
        "outputs (N·D), is it a diagonal matrix whatever was learned"
    )
    return ReportFigure(
        "damping_path",
        "The answer against damping",
        f"{towards_zero}; towards ∞ it is plain gradient overlap. What was learned shows in between, where the "
        "trained curve leaves that of the untrained network. Thin lines: how far the error of the solves could move "
        "the trained curve, all entries of H at their worst. A hatched region holds at least one solve, of a trained "
        "or an untrained network, that did not meet its tolerance; whether a reading is stable depends on the trained "
        "alone.",
        figures.damping_path(curves, controls or None, default if np.isfinite(default) else None, paper),
    )


def other_figures(
    results: Results,
    histories: Mapping[str, Sequence[Any]],
    samples: Sequence[PredictionSample],
    checks: Mapping[str, Any],
    channel_names: Sequence[str] = (),
) -> list[ReportFigure]:
    """Spectrum, optimisation curves, predictions and rollouts, response check, channel-resolved influence."""
    drawn = []
    if all(np.isfinite(r.lambda_max) for held in results.values() for r in held):
        drawn.append(
            ReportFigure(
                "eigenvalues",
                "Eigenvalues of the neural-tangent metric",
                "Left: the largest eigenvalue of A + λ, one point per seed and mini-batch. Right: the leading Ritz "
                "values of A; directions below the damping line are held fixed by the damping.",
                figures.eigenvalues(results),
            )
        )
    trained = {s: list(h) for s, h in histories.items() if h}
    if trained:
        text = "SMSE on validation trajectories, median and quartiles over seeds; dashed: on the training batches."
        drawn.append(ReportFigure("optimisation", "Optimisation", text, figures.optimisation_curve(trained)))
    for k, sample in enumerate(samples):
        drawn += _sample_figures(sample, f"_{k}" if len(samples) > 1 else "")
    if checks:
        drawn.append(
            ReportFigure(
                "response_check",
                "A finite step against what the influence predicts",
                "Left: change of the observables under a small step along the parameter step of a perturbation, "
                "against −H, each observable over its largest |H|. Right: error of the central difference against the "
                "step; slope 2 confirms that only its truncation is left, the rise at small steps is rounding.",
                figures.response_check(checks),
            )
        )
    drawn += _channel_figures(results, channel_names)
    return drawn


def _sample_figures(sample: PredictionSample, suffix: str) -> list[ReportFigure]:
    heading = f"{sample.trajectory}, step {sample.step}"
    drawn = [
        ReportFigure(
            "predictions" + suffix,
            "Prediction of one step",
            f"{heading}. Each channel's target and predictions share a colour range, and so do the differences.",
            figures.predictions(sample.target, sample.predictions, sample.channel_names, heading=heading),
        )
    ]
    if sample.rollout_target is not None and sample.rollout_predictions:
        drawn.append(
            ReportFigure(
                "rollout" + suffix,
                "Rollout",
                f"{sample.trajectory}: each surrogate is fed its own predictions from the first snapshot on. Shown is "
                f"{sample.channel_names[0].replace('_', ' ')}; the curve is its RMS error over the RMS of the target.",
                figures.rollout(
                    np.asarray(sample.rollout_target)[:, 0],
                    {s: np.asarray(p)[:, 0] for s, p in sample.rollout_predictions.items()},
                    None if sample.times is None else list(sample.times),
                    sample.channel_names[0],
                ),
            )
        )
    return drawn


def _channel_figures(results: Results, channel_names: Sequence[str]) -> list[ReportFigure]:
    """Channel-resolved influence, where the results hold every channel's share on both sides."""
    shares = [f"smse:{name}" for name in channel_names]
    drawn = []
    for surrogate, held in results.items():
        complete = all(set(shares) <= {*r.response_names} & {*r.perturbation_names} for r in held)
        if len(shares) < 2 or not complete or len({r.values.shape for r in held}) != 1:
            continue
        blocks = np.mean([[[_per_trace(r, a, b, shares) for b in shares] for a in shares] for r in held], axis=0)
        labels = held[0].labels
        drawn.append(
            ReportFigure(
                f"channel_resolved_{surrogate}",
                f"Channel-resolved influence, {surrogate}",
                "Block (row, column): response of one channel's share of the SMSE to a step on another's. Mean over "
                "seeds and mini-batches of H divided by its mean self-influence; the sum of all blocks is H over its "
                "mean self-influence.",
                figures.channel_resolved(
                    blocks, channel_names, labels.class_ids, labels.class_names,
                    "influence / mean self-influence",
                ),
            )
        )  # fmt: skip
    return drawn


def _per_trace(result: Influence, a: str, b: str, shares: Sequence[str]) -> np.ndarray:
    total = sum(np.trace(result[x, y]) for x in shares for y in shares) / len(result.labels)
    return result[a, b] / total
