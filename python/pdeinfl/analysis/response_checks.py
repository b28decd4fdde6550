"""The response check: perturb the real model along ``−η⁻¹g_j``; every observable must answer as H says (MATH §6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn

from pdeinfl.analysis.lie import response_ladder
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.result import Influence
from pdeinfl.observables import resolve_all

EPSILONS = tuple(2.0**-k for k in range(-9, 4))


@dataclass(frozen=True, eq=False)
class ResponseCheck:
    """Finite differences along the parameter steps of some perturbations, against H.

    Attributes:
        predicted: ``−H[i, j]`` for the checked j, ``(k, n_obs, n)``. measured: the Richardson-extrapolated central
            difference. error: its own error estimate.
        bound: certified error of H at the same entries.
        steps: the ladder of ε, ``(E,)``; 1 is the whole proximal step.
        errors: truncation, the largest ``|difference quotient − measured|`` over the largest ``|H|`` of the column,
            ``(E, k)``; falls as ε² until float64 rounding.
        order: observed order of the central difference, median over entries above 1 % of their column's largest.
        trust_radii: largest step within which the linear prediction holds to 10 %, ``(k, n_obs, n)``; NaN where never.
        perturbations: the checked j. observables: names of the n_obs.
    """

    predicted: np.ndarray
    measured: np.ndarray
    error: np.ndarray
    bound: np.ndarray
    steps: np.ndarray
    errors: np.ndarray
    order: float
    trust_radii: np.ndarray
    perturbations: tuple[int, ...]
    observables: tuple[str, ...]

    @property
    def trust_radius(self) -> float:
        """Median trust radius of the perturbed examples' own response of the first observable."""
        own = [self.trust_radii[k, 0, j] for k, j in enumerate(self.perturbations) if j < self.trust_radii.shape[2]]
        return float(np.nanmedian(own)) if np.isfinite(own).any() else float("nan")

    @property
    def radius_is_at_least(self) -> bool:
        """Whether the trust radius is the largest step tried: the true one may be larger."""
        return self.trust_radius >= float(np.max(self.steps))

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ResponseCheck:
        """What :meth:`as_dict` gave.

        Raises:
            ValueError: an entry is missing or unknown.
        """
        names = [f.name for f in fields(cls)]
        if set(content) != set(names):
            raise ValueError(f"a response check holds {', '.join(names)}; got {', '.join(content) or 'nothing'}")
        listed: dict[str, Any] = {name: tuple(content[name]) for name in ("perturbations", "observables")}
        arrays: dict[str, Any] = {
            name: np.array(content[name], dtype=np.float64) for name in names if name not in (*listed, "order")
        }
        return cls(**arrays, **listed, order=float(content["order"]))

    @property
    def relative_difference(self) -> float:
        """``‖measured − predicted‖ / ‖predicted‖`` of the observable where it is largest; 0/0 counts as 0."""
        gap, size = (np.linalg.norm(a, axis=(0, 2)) for a in (self.measured - self.predicted, self.predicted))
        return float(np.divide(gap, size, out=np.where(gap == 0, 0.0, np.inf), where=size > 0).max())

    @property
    def n_exceeding(self) -> int:
        """Entries that differ from H by more than its certified error plus four times the extrapolation's own."""
        return int((~(np.abs(self.measured - self.predicted) <= self.bound + 4 * self.error)).sum())


def response_check(
    model: nn.Module,
    batch: MiniBatch,
    result: Influence,
    perturbations: Sequence[int] | None = None,
    response_batch: MiniBatch | None = None,
    epsilons: Sequence[float] = EPSILONS,
    **where: Any,
) -> ResponseCheck:
    """Perturb the parameters by ``±ε·V_j``, ``V_j = −η⁻¹g_j``, re-evaluate every response observable in float64, and
    compare with ``−H[:, j]``.

    The module itself is not touched: the perturbed parameters are a copy.

    Args:
        model, batch, result: as given to and returned by `pdeinfl.influence` (steps kept).
        perturbations: which j; default one per class, the one with the largest influence on itself.
        response_batch: default ``batch``. epsilons: decreasing by a constant ratio.
        where: arguments of `Jacobian` (patterns, device).

    Raises:
        ValueError: the result keeps no steps, is of another mini-batch or of another number of parameters, or the
            ladder is none.
    """
    response_batch = batch if response_batch is None else response_batch
    own = result.settings.get("response_batch_sha256") or result.settings.get("mini_batch_sha256")
    if own not in (None, response_batch.sha256()):
        raise ValueError("the result is of another mini-batch: pass the one whose influence it is")
    chosen = _strongest(result) if perturbations is None else [int(j) for j in perturbations]
    jacobian = Jacobian(model, dtype=torch.float64, **where)
    placed = jacobian.place(response_batch)
    observables = resolve_all(result.response_names, response_batch.channel_names)
    origin = jacobian.parameters.vector
    n_parameters = result.settings.get("n_parameters", len(origin))
    if n_parameters != len(origin):
        raise ValueError(f"the result is of {n_parameters} parameters; this module has {len(origin)}")

    ladders = []
    for j in chosen:
        step = result.parameter_step(j).to(origin)

        def evaluate(epsilon: float, step: torch.Tensor = step) -> np.ndarray:
            jacobian.parameters.vector = origin + epsilon * step
            try:
                prediction = jacobian.predict(placed)
            finally:
                jacobian.parameters.vector = origin
            with torch.no_grad():
                costs = [o(prediction, placed.targets, placed.inputs) for o in observables]
            return torch.stack(costs).cpu().numpy()

        ladders.append(response_ladder(evaluate, epsilons, -result.values[:, 0, :, j]))

    predicted = np.stack([ladder.prediction for ladder in ladders])
    scale = np.abs(predicted).max(axis=2, keepdims=True)
    visible = (np.abs(predicted) > 0.01 * scale) & np.isfinite([ladder.observed_order for ladder in ladders])
    orders = np.stack([ladder.observed_order for ladder in ladders])[visible]
    deviation = np.stack([np.abs(ladder.differences - ladder.value) for ladder in ladders], axis=1)
    relative = deviation / np.where(scale > 0, scale, np.inf)
    return ResponseCheck(
        predicted=predicted,
        measured=np.stack([ladder.value for ladder in ladders]),
        error=np.stack([ladder.error for ladder in ladders]),
        bound=np.stack([result.error_bound[:, 0, :, j] for j in chosen]),
        steps=np.asarray(epsilons, dtype=np.float64),
        errors=relative.max(axis=(2, 3)),
        order=float(np.median(orders)) if orders.size else float("nan"),
        trust_radii=np.stack([ladder.trust_radius for ladder in ladders]),
        perturbations=tuple(chosen),
        observables=result.response_names,
    )


def _strongest(result: Influence) -> list[int]:
    """One perturbation per class: where ``H_jj`` of the first pair is largest (or the first, for separate batches)."""
    h, ids = result.values[0, 0], result.perturbation_labels.class_ids
    size = np.abs(np.diagonal(h)) if h.shape[0] == h.shape[1] else np.abs(h).sum(0)
    return [int(members[np.argmax(size[members])]) for c in np.unique(ids) if len(members := np.flatnonzero(ids == c))]
