"""The tables of a report: settings and provenance, response check, every mini-batch."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pdeinfl import _core
from pdeinfl.analysis.damping_curves import contradicted, reference_eigenvalue
from pdeinfl.analysis.estimate import Estimate
from pdeinfl.engine.result import Influence
from pdeinfl.figures.response_checks import by_observable
from pdeinfl.html_report.content import SurrogateSummary, Table
from pdeinfl.html_report.measures import ReportOptions
from pdeinfl.html_report.number_format import bounds, decimal, interval, plural, significant


def _listed(values: Sequence[Any]) -> str:
    """Distinct values in order of appearance."""
    return ", ".join(dict.fromkeys(str(v) for v in values)) or "—"


def _from_settings(results: Sequence[Influence], key: str) -> str:
    return _listed([r.settings[key] for r in results if key in r.settings])


def summary_table(summaries: Sequence[SurrogateSummary]) -> Table:
    """Every summary number, trained and untrained, with its interval."""
    header = ["", *(title for s in summaries for title in (s.name, f"{s.name}, untrained"))]
    labels = {
        "coherence_time": "coherence time (steps)",
        "decay_constant": "decay constant (steps)",
        "class_locking": "class locking",
        "translation_defect": "time-translation defect (per step)",
    }
    rows = []
    for field, label in labels.items():
        cells = []
        for s in summaries:
            quantity = getattr(s, field)
            for estimate in (quantity.trained, quantity.untrained) if quantity else (None, None):
                limit = s.max_lag if field in ("coherence_time", "decay_constant") else None
                cells.append(_estimate_cell(estimate, limit))
        rows.append((label, *cells))
    reasons = {q.trained.missing for s in summaries for q in (s.coherence_time,) if q.trained.missing}
    kinds = {q.trained.interval for s in summaries for q in (s.coherence_time,) if q.trained.has_interval}
    note = (
        "The decay constant τ is that of the fit a·e^(−|lag|/τ) + c to the same-class profile; the defect is "
        "‖𝓛_t H‖/‖H‖, 0 where influence depends on the lag alone. A dash: undefined or not computed. "
        "In brackets the interval, in parentheses where the error of the solves leaves the number, all entries of H at "
        f"their worst. Intervals: {'; '.join(sorted(kinds | {f'none ({r})' for r in reasons}))}."
    )
    return Table("Summary numbers", tuple(header), tuple(rows), note=note)


def _estimate_cell(estimate: Estimate | None, max_lag: int | None) -> str:
    if estimate is None:
        return "—"
    value = f"> {max_lag}" if np.isinf(estimate.value) and max_lag is not None else decimal(estimate.value)
    left = bounds(estimate, 2, max_lag)
    return " ".join(filter(None, (value, interval(estimate, 2, max_lag), left and f"({left})")))


def settings_table(
    results: Mapping[str, Sequence[Influence]],
    summaries: Sequence[SurrogateSummary],
    options: ReportOptions,
    extra: Mapping[str, str],
) -> Table:
    """Versions, seeds, damping, tolerance, products and how many matrices converged, one column per surrogate."""
    names = list(results)
    rows: list[tuple[str, list[str]]] = []

    def add(label: str, cell: Any) -> None:
        rows.append((label, [cell(name, list(results[name])) for name in names]))

    converged = {s.name: f"{s.n_converged} of {s.n_influences}" for s in summaries}
    add("trainable parameters", lambda _, r: _from_settings(r, "n_parameters"))
    add("seeds", lambda _, r: _listed([x.seed for x in r]))
    add("epoch", lambda _, r: _listed([x.epoch for x in r]))
    add("examples per mini-batch, N", lambda _, r: _listed([len(x.perturbation_labels) for x in r]))
    add("classes", lambda _, r: _listed([n for x in r for n in x.labels.class_names]))
    add("solver, metric", lambda _, r: f"{_from_settings(r, 'solver')}, {_from_settings(r, 'metric')}")
    add("largest eigenvalue λ_max (median)", lambda _, r: significant(reference_eigenvalue(r)))
    add("damping λ (absolute)", lambda _, r: _listed([significant(x.damping) for x in r]))
    add("tolerance of H", lambda _, r: _listed([significant(x.tol) for x in r]))
    add("error bound of H, certified unless it says estimated, median and largest", lambda _, r: _errors(r))
    add("audit with float64 products", lambda _, r: _audits(r))
    add("influence matrices within tolerance", lambda name, _: converged.get(name, "—"))
    add("Jacobian products per matrix (JVP + VJP, median)", lambda _, r: _products(r))
    add("degrees of freedom of the solved subspace", lambda _, r: _median([x.subspace_dof for x in r], 1))
    add("product precision", lambda _, r: _from_settings(r, "product_dtype"))
    add("device", lambda _, r: _from_settings(r, "device"))
    longest = max((s.max_lag for s in summaries), default=options.longest_lag)
    common = [
        ("aggregation", f"{options.style} style, {options.standardize} standardisation, lags to {longest}"),
        ("bootstrap", f"{options.n_bootstrap} resamples, seed {options.bootstrap_seed}"),
        ("observables of the answer", f"response {options.response}, perturbation {options.perturbation}"),
        ("versions", _versions(results)),
        *extra.items(),
    ]
    body = [(label, *cells) for label, cells in rows]
    body += [(label, text, *[""] * (len(names) - 1)) for label, text in common]
    return Table("Settings", ("", *names), tuple(body))


def _versions(results: Mapping[str, Sequence[Influence]]) -> str:
    every = [r for held in results.values() for r in held]
    torch = _from_settings(every, "torch")
    software = _listed([r.settings.get("pdeinfl", _core.__version__) for r in every])
    return f"pdeinfl {software}, torch {torch}, numpy {np.__version__}, Python {platform.python_version()}"


def _median(values: Sequence[float], digits: int) -> str:
    finite = [v for v in values if np.isfinite(v)]
    return decimal(float(np.median(finite)), digits) if finite else "—"


def _products(results: Sequence[Influence]) -> str:
    jvp, vjp = ([getattr(r, name) for r in results] for name in ("n_jvp", "n_vjp"))
    return f"{np.median(jvp):.0f} + {np.median(vjp):.0f}" if results else "—"


def _errors(results: Sequence[Influence]) -> str:
    worst = np.array([np.max(r.relative_error) for r in results], dtype=float)
    worst = worst[~np.isnan(worst)]
    if not worst.size:
        return "not certified"
    kind = " (estimated, not certified)" if any(r.bound_is_estimate for r in results) else ""
    return f"{_percent(float(np.median(worst)))}, {_percent(float(worst.max()))}{kind}"


def _audits(results: Sequence[Influence]) -> str:
    held = [r.audit for r in results if r.audit is not None]
    if not held:
        return "none"
    n, agree = sum(len(a.rows) for a in held), sum(a.agrees for a in held)
    worst = _percent(max(a.rounding for a in held))
    return f"{n} right-hand sides; {agree} of {len(held)} matrices agree; rounding at most {worst}"


def _percent(value: float) -> str:
    return "—" if np.isnan(value) else "unbounded" if np.isinf(value) else f"{significant(100 * value, 2)} %"


def mini_batch_table(results: Mapping[str, Sequence[Influence]]) -> Table:
    """One row per influence matrix."""
    header = ("surrogate", "seed", "epoch", "mini-batch", "N", "λ/λ_max", "λ_max", "error bound", "within tolerance",
              "JVP", "VJP", "subspace dof", "participation")  # fmt: skip
    rows = []
    for name, held in results.items():
        for r in held:
            bound = float(np.max(r.relative_error))
            rows.append(
                (
                    name,
                    *map(str, (r.seed, r.epoch, r.mini_batch, len(r.perturbation_labels))),
                    significant(r.damping / r.lambda_max) if r.lambda_max > 0 else "—",
                    significant(r.lambda_max),
                    _percent(bound) + (" (estimated)" if r.bound_is_estimate else ""),
                    "no: the audit disagrees" if contradicted(r) else "yes" if r.converged else "no",
                    str(r.n_jvp),
                    str(r.n_vjp),
                    decimal(r.subspace_dof, 1),
                    decimal(r.participation, 1),
                )
            )
    note = (
        "The error bound is the largest over the pairs of observables, relative in the Frobenius norm; certified "
        "unless it says estimated. Subspace dof: eigenvalues μ of the solved subspace, each counted as μ/(μ + λ). "
        "Participation: (tr H)²/‖H‖², N for a multiple of the identity."
    )
    return Table(f"Every mini-batch ({plural(len(rows), 'influence matrix')})", header, tuple(rows), True, note)


def response_check_table(checks: Mapping[str, Any]) -> Table:
    """Agreement of finite steps with H."""
    rows = []
    for name, check in checks.items():
        found = by_observable(check)
        gaps = [float(np.max(np.abs(measured - predicted), initial=0.0)) for _, predicted, measured in found]
        worst = int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps)))
        gap = significant(gaps[worst], 2) + (f" ({found[worst][0]})" if len(found) > 1 else "")
        radius = ("≥ " if check.radius_is_at_least else "") + significant(check.trust_radius)
        n = check.predicted.size
        cells = (str(n), str(n - check.n_exceeding), gap, decimal(check.order), radius)
        rows.append((name or "surrogate", *cells))
    first = next((check.observables[0] for check in checks.values() if check.observables), "first observable")
    header = (
        "surrogate",
        "pairs checked",
        "within the certified error",
        "largest deviation / largest |H|",
        "observed order",
        "trust radius",
    )
    note = (
        "The observables were re-evaluated after finite steps along the parameter step of a perturbation. Central "
        "differences have order 2. Each observable's deviation is relative to its own largest |H|; the worst is shown. "
        "The trust radius is the largest step, in units of the descent step −η⁻¹g itself, that the linear prediction "
        f"describes within 10 %: median over the perturbed examples' own {first}; ≥ marks the largest step tried."
    )
    return Table("Finite-difference response check", header, tuple(rows), note=note)
