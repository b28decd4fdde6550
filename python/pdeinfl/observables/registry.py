"""Observables by name: ``resolve`` for one, ``resolve_all`` for a tuple of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pdeinfl.arguments import is_listed
from pdeinfl.observables.base import Observable, UserObservable
from pdeinfl.observables.conserved import Energy, Mass, MomentumX, MomentumY
from pdeinfl.observables.flow import Enstrophy, KineticEnergy
from pdeinfl.observables.smse import SMSE, BandSMSE, smse_channels

_PLAIN: tuple[type[Observable], ...] = (SMSE, Mass, Energy, MomentumX, MomentumY, KineticEnergy, Enstrophy)
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_BAND = re.compile(rf"smse:band\(({_NUMBER})-({_NUMBER}|inf)\)")

_DEFAULT = ("smse", "mass", "energy", "kinetic_energy", "enstrophy")

Spec = str | Observable | type[Observable] | Callable[..., Any]


def available(channel_names: Sequence[str]) -> list[str]:
    """Names of the observables that exist for these channels (wavenumber bands apart, which take any edges)."""
    names = [kind().name for kind in _PLAIN if set(kind.requires) <= set(channel_names)]
    return names + [share.name for share in smse_channels(channel_names)]


def default_responses(channel_names: Sequence[str]) -> tuple[str, ...]:
    """What responds where nothing is said: the SMSE, and mass and energy (Euler) or kinetic energy and enstrophy
    (Navier–Stokes) where these channels have them.

    >>> default_responses(("velocity_x", "velocity_y"))
    ('smse', 'kinetic_energy', 'enstrophy')
    """
    valid = available(channel_names)
    return tuple(name for name in _DEFAULT if name in valid)


def resolve(spec: Spec, channel_names: Sequence[str]) -> Observable:
    """An observable bound to these channels.

    Args:
        spec: a name (``smse``, ``mass``, ``smse:density``, ``smse:band(0-4)``, …), an `Observable`, or a callable
            ``(pred, target, input) -> (n,)`` that differentiates and vmaps; a callable goes by its ``__name__``,
            ``lambda`` if it has none of its own.
        channel_names: names of the target's channels.

    Raises:
        ValueError: unknown name (the message lists those that are valid here), or a channel it needs is missing.

    >>> resolve("mass", ("density", "momentum_x", "momentum_y", "energy")).name
    'mass'
    """
    if isinstance(spec, type) and issubclass(spec, Observable):
        spec = spec()
    if isinstance(spec, Observable):
        return spec.bind(channel_names)
    if isinstance(spec, str):
        return _by_name(spec, channel_names)
    if callable(spec):
        label = getattr(spec, "__name__", type(spec).__name__)
        label = "lambda" if label == "<lambda>" else label
        return UserObservable(spec, label).bind(channel_names)
    raise ValueError(
        f"an observable is a name, an Observable or a callable (pred, target, input) -> (n,); got {spec!r}"
    )


def resolve_all(
    specs: Spec | Sequence[Spec], channel_names: Sequence[str], beside: Sequence[Observable] = ()
) -> tuple[Observable, ...]:
    """Several observables with distinct names; callables that share a name become ``f``, ``f_2``, ….

    Args:
        beside: observables of the other side of H: a name that they have means the same here.

    Raises:
        ValueError: no observable at all, one listed twice, two different ones of one name that are not callables, or
            as `resolve`.
    """
    listed: list[Any] = list(specs) if is_listed(specs) and not callable(specs) else [specs]
    if not listed:
        raise ValueError("at least one observable must be given; valid here: " + ", ".join(available(channel_names)))
    found: dict[str, Observable] = {}
    other_side = {o.name: o for o in beside}

    def is_free(observable: Observable) -> bool:
        return observable.name not in found and _alike(observable, other_side.get(observable.name, observable))

    for spec in listed:
        observable = resolve(spec, channel_names)
        name = observable.name
        if any(_alike(observable, o) for o in found.values()):
            raise ValueError(f"observable `{name}` is listed twice: drop one")
        if isinstance(observable, UserObservable):
            labels = [o.name for o in beside if _alike(observable, o)] or [name]
            while not is_free(observable := replace(observable, label=labels[-1])):
                labels.append(f"{name}_{len(labels) + 1}")
        elif not is_free(observable):
            raise ValueError(f"two different observables are named `{name}`: rename one")
        found[observable.name] = observable
    return tuple(found.values())


def _alike(a: Observable, b: Observable) -> bool:
    """Whether two observables are the same but for their channels, and callables for their label."""
    return _anonymous(a) == _anonymous(b)


def _anonymous(observable: Observable) -> Observable:
    if isinstance(observable, UserObservable):
        observable = replace(observable, label="")
    return replace(observable, channel_names=None)


def _by_name(name: str, channel_names: Sequence[str]) -> Observable:
    for kind in _PLAIN:
        if name == kind().name:
            return kind().bind(channel_names)
    for share in smse_channels(channel_names):
        if name == share.name:
            return share
    band = _BAND.fullmatch(name)
    if band:
        low, high = float(band[1]), math.inf if band[2] == "inf" else float(band[2])
        return BandSMSE(low, high).bind(channel_names)
    valid = ", ".join([*available(channel_names), "smse:band(LOW-HIGH)"])
    raise ValueError(f"unknown observable {name!r} for the channels {list(channel_names)}; valid: {valid}")
