"""What a figure function may be given: one aggregation, or mappings by surrogate and by observable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pdeinfl.engine.result import Influence

_TITLES = {
    "smse": "SMSE",
    "mass": "mass",
    "energy": "energy",
    "momentum_x": r"momentum $x$",
    "momentum_y": r"momentum $y$",
    "kinetic_energy": "kinetic energy",
    "enstrophy": "enstrophy",
    "density": "density",
    "velocity_x": r"velocity $x$",
    "velocity_y": r"velocity $y$",
}


def by_surrogate(data: Any) -> dict[str, Any]:
    """``{surrogate: aggregation}``; a bare aggregation gets an empty name.

    Raises:
        ValueError: the mapping is empty.
    """
    named = dict(data) if isinstance(data, Mapping) else {"": data}
    if not named:
        raise ValueError("`data` must hold at least one surrogate; got an empty mapping")
    return named


def by_surrogate_and_observable(data: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """``{surrogate: {observable: aggregation}}`` and the observables in order of first appearance.

    Surrogates need not hold the same observables: a missing one leaves its panel out.

    Raises:
        ValueError: nothing given, or results where an aggregation of them belongs.
    """
    nested = {name: dict(v) if isinstance(v, Mapping) else {"": v} for name, v in by_surrogate(data).items()}
    observables = list(dict.fromkeys(o for held in nested.values() for o in held))
    for value in (value for held in nested.values() for value in held.values()):
        if isinstance(value, (Influence, list, tuple)):
            raise ValueError(
                f"`data` must be an aggregation, such as `pi.lag_profile(results)`, or a mapping to such; got "
                f"{'an Influence' if isinstance(value, Influence) else f'a {type(value).__name__}'}"
            )
    if not observables:
        raise ValueError("`data` must hold at least one observable; got none for " + ", ".join(map(repr, nested)))
    return nested, observables


def title(observable: str) -> str:
    """How an observable or channel is written on a figure."""
    whole, _, part = observable.partition(":")
    words = _TITLES.get(whole, whole.replace("_", " "))
    return f"{words}, {title(part)}" if part else words


def panel_title(*parts: str) -> str:
    """Parts joined by a middle dot, empty ones left out."""
    return " · ".join(p for p in parts if p)


def n_examples_of(data: Mapping[str, Mapping[str, Any]], given: int | None) -> int | None:
    """N of the mini-batches, from the argument or from an aggregation that carries ``n_examples``."""
    if given is not None:
        return given
    for held in data.values():
        for aggregation in held.values():
            n = getattr(aggregation, "n_examples", None)
            if n:
                return int(n)
    return None


def style_of(data: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The aggregation style of the first panel."""
    return next((getattr(a, "style", None) for held in data.values() for a in held.values()), None)


def panel_places(data: Mapping[str, Mapping[str, Any]], observables: list[str]) -> tuple[int, int, dict[Any, Any]]:
    """Rows, columns, and ``{(row, column): (surrogate, observable)}`` of the panels that exist.

    Surrogates run down and observables to the right; with one observable, surrogates run to the right.
    """
    side_by_side = len(observables) == 1 and len(data) > 1
    places = {}
    for k, (surrogate, held) in enumerate(data.items()):
        for j, observable in enumerate(observables):
            if observable in held:
                places[(0, k) if side_by_side else (k, j)] = (surrogate, observable)
    n_rows, n_columns = (1, len(data)) if side_by_side else (len(data), len(observables))
    return n_rows, n_columns, places
