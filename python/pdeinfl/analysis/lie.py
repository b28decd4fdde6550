"""Lie derivatives by finite differences: of fields along motions of the plane, of observables along parameter steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pdeinfl import _core
from pdeinfl.arguments import check_one_of

GENERATORS = ("x", "y", "rotation")
LINEAR_WITHIN = 0.1


@dataclass(frozen=True, eq=False)
class ResponseLadder:
    """How observables respond to steps of decreasing size along one parameter direction.

    Attributes:
        epsilons: ``(n_levels,)``, decreasing. differences: central differences ``(n_levels, n_obs, n)``.
        value, error, observed_order: Richardson extrapolation, its error estimate and the order seen in the three
            levels that end where the value was taken (2 where truncation dominates; NaN where it cannot be seen),
            ``(n_obs, n)``.
        prediction: the derivative that was predicted. trust_radius: largest step of the ladder up to which the linear
            prediction of the change holds within 10 %, NaN if it never does, ``(n_obs, n)``.
    """

    epsilons: np.ndarray
    differences: np.ndarray
    value: np.ndarray
    error: np.ndarray
    observed_order: np.ndarray
    prediction: np.ndarray
    trust_radius: np.ndarray


def richardson(
    ladder: np.ndarray, ratio: float = 2.0, order: float = 2.0, increment: float = 2.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extrapolate values at steps ``ε, ε/ratio, ε/ratio², …`` to step 0.

    The error is assumed to expand in powers ``order, order + increment, …`` of the step (2, 4, 6, … for central
    differences).

    Args:
        ladder: ``(n_levels, …)``, at least two levels.

    Returns:
        Value, error estimate and observed order, each of the shape of one level.

    Raises:
        ValueError: fewer than two levels, ``ratio <= 1``, or an order that is not positive.
    """
    levels = np.asarray(ladder, dtype=np.float64)
    flat = np.ascontiguousarray(levels.reshape(len(levels), -1))
    value, error, observed = _core.richardson(flat, ratio, order, increment)
    shape = levels.shape[1:]
    return value.reshape(shape), error.reshape(shape), observed.reshape(shape)


def response_ladder(
    evaluate: Callable[[float], np.ndarray], epsilons: Sequence[float], prediction: np.ndarray
) -> ResponseLadder:
    """Compare a predicted derivative ``dQ/dε`` at 0 with finite differences over a ladder of steps (MATH §6.1).

    With ``evaluate(ε) = Q(θ + ε V_j)``, ``V_j = −η⁻¹ g_j``, the prediction is ``−H[:, j]``.

    Args:
        evaluate: observables after the step ε, ``(n_obs, n)``; called at 0 and ±ε for each step.
        epsilons: at least three positive steps, each a constant fraction of the one before.
        prediction: ``(n_obs, n)``.

    Raises:
        ValueError: the steps are no such ladder, or ``evaluate`` and ``prediction`` differ in shape.
    """
    steps = np.asarray(epsilons, dtype=np.float64)
    if steps.ndim != 1 or len(steps) < 3 or not (steps > 0).all() or not (np.diff(steps) < 0).all():
        raise ValueError(f"`epsilons` must be at least 3 positive, decreasing steps; got {epsilons}")
    ratios = steps[:-1] / steps[1:]
    if np.ptp(ratios) > 1e-9 * ratios[0]:
        raise ValueError(f"`epsilons` must decrease by a constant ratio, such as 1, 1/2, 1/4; got {epsilons}")
    expected = np.asarray(prediction, dtype=np.float64)
    centre = np.asarray(evaluate(0.0), dtype=np.float64)
    if centre.shape != expected.shape:
        raise ValueError(f"`evaluate` must return the shape of `prediction`, {expected.shape}; got {centre.shape}")
    forward = np.stack([np.asarray(evaluate(float(e)), dtype=np.float64) for e in steps])
    backward = np.stack([np.asarray(evaluate(-float(e)), dtype=np.float64) for e in steps])
    along = steps.reshape(-1, *(1,) * expected.ndim)
    differences = (forward - backward) / (2.0 * along)
    value, error, observed = richardson(differences, float(ratios[0]))
    radius = trust_radius(steps, forward - centre, expected)
    return ResponseLadder(steps, differences, value, error, observed, expected, radius)


def trust_radius(epsilons: np.ndarray, changes: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Largest step up to which ``|change − ε·prediction| <= 0.1·|ε·prediction|``.

    The walk starts at the step of the ladder where the prediction is best, so that rounding at tiny steps does not
    count against it, and goes up until the first violation.

    Args:
        epsilons: ``(n_levels,)`` decreasing. changes: ``(n_levels, …)``. prediction: ``(…)``.

    Returns:
        ``(…)``; NaN where no step qualifies. A change that is NaN holds nowhere.
    """
    linear = epsilons.reshape(-1, *(1,) * prediction.ndim) * prediction
    scale = np.abs(linear)
    deviation = np.full(changes.shape, np.inf)
    np.divide(np.abs(changes - linear), scale, out=deviation, where=scale > 0)
    deviation[np.isnan(deviation)] = np.inf
    holds = deviation <= LINEAR_WITHIN
    best = deviation.argmin(0)
    radius = np.where(holds.any(0), epsilons[best], np.nan)
    alive = holds.any(0)
    for level in range(len(epsilons) - 2, -1, -1):
        above = level < best
        alive = np.where(above, alive & holds[level], alive)
        radius = np.where(above & alive, epsilons[level], radius)
    return radius


def channel_kinds(channel_names: Sequence[str]) -> list[tuple[str, int]]:
    """How each channel turns with the plane: ``("x", index of its y component)``, ``("y", index of its x component)``
    for names that end in ``_x`` and ``_y`` and share the rest, ``("scalar", -1)`` otherwise.

    Raises:
        ValueError: a component without its partner.

    >>> channel_kinds(("density", "momentum_x", "momentum_y", "energy"))
    [('scalar', -1), ('x', 2), ('y', 1), ('scalar', -1)]
    """
    names = list(channel_names)
    kinds: list[tuple[str, int]] = []
    for name in names:
        axis = name[-1] if name.endswith(("_x", "_y")) else ""
        if not axis:
            kinds.append(("scalar", -1))
            continue
        partner = name[:-1] + ("y" if axis == "x" else "x")
        if partner not in names:
            raise ValueError(f"`channel_names` must hold both components of a vector: {name!r} has no {partner!r}")
        kinds.append((axis, names.index(partner)))
    return kinds


def derivative(
    fields: np.ndarray, axis: int, accuracy_order: int = 6, spacing: float = 1.0, num_threads: int | None = None
) -> np.ndarray:
    """Periodic central difference of fields along x (axis −2) or y (axis −1).

    Args:
        fields: float32 or float64 ``(n, C, X, Y)``, also the type of the arithmetic: its rounding is of
            the order of what rounding the fields to that type leaves.
        accuracy_order: 2, 4 or 6; the axis needs more points than that. spacing: distance of grid points.

    Returns:
        The derivative, in the dtype of ``fields``.

    Raises:
        ValueError, TypeError: shape, dtype, axis, order or spacing do not fit.
    """
    array = _fields(fields)
    out = np.empty_like(array)
    _core.derivative_into(out, array, axis, accuracy_order, spacing, num_threads)
    return out


def lie_derivative(
    fields: np.ndarray,
    generator: str,
    channel_names: Sequence[str],
    accuracy_order: int = 6,
    spacing: tuple[float, float] | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """``L_ξ u = ξ·∇u − (u·∇)ξ`` (second term for vectors): minus the velocity of ``u`` carried by the motion.

    Args:
        fields: float32 or float64 ``(n, C, X, Y)``, periodic.
        generator: ``"x"``: ξ = (1, 0); ``"y"``: ξ = (0, 1); ``"rotation"``: ξ = (−y, x) about the grid's centre, where
            a vector also gains ``(v_y, −v_x)``. On a periodic square only quarter turns are symmetries: fields that
            reach the seam feel it.
        channel_names: decide which channels are vector components (`channel_kinds`).
        accuracy_order: 2, 4 or 6. spacing: of the grid points; default ``(1/X, 1/Y)``, the unit square.

    Raises:
        ValueError, TypeError: shape, dtype, names, generator or order do not fit.
    """
    array = _fields(fields)
    if len(channel_names) != array.shape[1]:
        raise ValueError(f"`channel_names` must name {array.shape[1]} channels; got {len(channel_names)}")
    check_one_of("generator", generator, GENERATORS)
    step = (1.0 / array.shape[-2], 1.0 / array.shape[-1]) if spacing is None else spacing
    out = np.empty_like(array)
    kinds = channel_kinds(channel_names)
    _core.lie_derivative_into(out, array, kinds, generator, accuracy_order, step, num_threads)
    return out


def _fields(fields: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(fields)
    if array.ndim != 4:
        raise ValueError(f"`fields` must have shape (n, C, X, Y); got {array.shape}")
    return array
