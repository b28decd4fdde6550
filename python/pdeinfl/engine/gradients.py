"""Residuals and gradients of observables on mini-batches, each distinct one once, with their rounding measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.metric import Metric
from pdeinfl.observables import Observable

# Far above the rounding of a batched product, even of a module that narrows inside; far below a mean over the batch.
_MIXING = 1e-3


@dataclass(frozen=True, eq=False)
class GradientSet:
    """Gradients of responses and perturbations, ``rows`` ``(n_rows, P)``, each distinct (observable, batch) once.

    Attributes:
        response_rows, perturbation_rows: indices into ``rows``, observable-major.
        residuals: ``∂C/∂ŷ`` of the perturbations, ``(k, n, C, X, Y)`` in the product dtype.
        n_products: adjoint products over a mini-batch that the gradients cost.
        rounding: relative error of the rows against float64, measured on the examples of the smallest, median and
            largest norm of each observable and doubled, since a few stand for all; 0 in float64.
    """

    rows: Tensor
    response_rows: np.ndarray
    perturbation_rows: np.ndarray
    residuals: Tensor
    n_products: int
    rounding: float


def residuals(observables: Sequence[Observable], prediction: Tensor, batch: MiniBatch) -> Tensor:
    """``r_A = ∂C_A/∂ŷ`` of each observable, ``(k, n, C, X, Y)``, in the prediction's dtype.

    Raises:
        ValueError: an observable is not finite, or does not give one number per example.
    """
    inputs = batch.inputs.to(prediction.device, prediction.dtype)
    targets = batch.targets.to(prediction.device, prediction.dtype)
    out = []
    for observable in observables:
        with torch.enable_grad():
            leaf = prediction.detach().requires_grad_()
            cost = observable(leaf, targets, inputs)
            if cost.shape != (len(batch),):
                raise ValueError(
                    f"observable {observable.name!r} must return shape ({len(batch)},), one number per example; "
                    f"got {tuple(cost.shape)}"
                )
            grad = torch.zeros_like(leaf)
            if cost.requires_grad:
                (grad,) = torch.autograd.grad(cost.sum(), leaf, materialize_grads=True)
        if not bool(torch.isfinite(grad).all()):
            bad = int((~torch.isfinite(grad.flatten(1)).all(1)).nonzero()[0, 0])
            raise ValueError(f"the gradient of observable {observable.name!r} is not finite at example {bad}")
        out.append(grad)
    return torch.stack(out)


def predict(jacobian: Jacobian, batch: MiniBatch) -> Tensor:
    """Predictions of a mini-batch, checked.

    Raises:
        ValueError: the module refuses the mini-batch, answers in another shape, or with NaN or infinity.
    """
    try:
        prediction = jacobian.predict(batch)
    except (RuntimeError, TypeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        given = f"inputs of shape {tuple(batch.inputs.shape)}"
        if batch.extras:
            given += f" with {len(batch.extras)} extras"
        raise ValueError(f"the module does not take {given}: {first}") from error
    finite = torch.isfinite(prediction).flatten(1).all(1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0, 0])
        raise ValueError(f"the module's output is not finite at example {bad}")
    return prediction


def refuse_mixing(jacobian: Jacobian, batch: MiniBatch, prediction: Tensor) -> None:
    """One more prediction, of the last example alone, which H takes to be its own business.

    Raises:
        ValueError: it differs from the one beside others by more than a thousandth of the largest output.
    """
    alone = predict(jacobian, batch.select([len(batch) - 1]))[0]
    moved = float((alone - prediction[-1]).abs().max())
    if moved > _MIXING * float(prediction.abs().max()):
        raise ValueError(
            "the module answers differently to an example alone and beside others: it mixes the examples of a batch "
            "(statistics over the batch?) or draws at random, and H is defined for each by itself"
        )


def gradient_set(
    jacobian: Jacobian,
    exact: Jacobian,
    response: Sequence[Observable],
    response_batch: MiniBatch,
    perturbation: Sequence[Observable],
    perturbation_batch: MiniBatch,
) -> GradientSet:
    """Gradients of every (observable, example); residuals come from float64 predictions (``exact``), because mass and
    energy drifts are small differences of large means.

    Raises:
        ValueError: as `residuals`; a gradient overflows the product dtype.
    """
    same = response_batch is perturbation_batch
    wanted = list(perturbation)
    if same:
        known = {o.name for o in wanted}
        wanted += [o for o in response if o.name not in known]
    r, rows, rounding = _checked_gradients(jacobian, exact, wanted, perturbation_batch)
    n = len(perturbation_batch)
    perturbation_rows = np.arange(len(perturbation) * n)
    if same:
        position = {o.name: k for k, o in enumerate(wanted)}
        blocks = [np.arange(n) + position[o.name] * n for o in response]
    else:
        _, other, other_rounding = _checked_gradients(jacobian, exact, response, response_batch)
        rounding = max(rounding, other_rounding)
        first = len(rows)
        rows = torch.cat([rows, other])
        m = len(response_batch)
        blocks = [first + k * m + np.arange(m) for k in range(len(response))]
    return GradientSet(
        rows,
        np.concatenate(blocks),
        perturbation_rows,
        r[: len(perturbation)],
        len(wanted) + (0 if same else len(response)),
        rounding,
    )


def _checked_gradients(
    jacobian: Jacobian, exact: Jacobian, observables: Sequence[Observable], batch: MiniBatch
) -> tuple[Tensor, Tensor, float]:
    """Residuals in the product dtype ``(k, n, C, X, Y)``, gradients ``(k·n, P)``, and their measured rounding."""
    r = residuals(observables, predict(exact, batch), batch)
    narrow = r.to(jacobian.dtype)
    rows = jacobian.per_example_gradients(batch, narrow)
    worst = 0.0
    for observable, true_residuals, own in zip(observables, r, rows, strict=True):
        norms = torch.linalg.vector_norm(own.double(), dim=1)
        if not bool(torch.isfinite(norms).all()):
            bad = int((~torch.isfinite(norms)).nonzero()[0, 0])
            raise ValueError(
                f"the gradient of observable {observable.name!r} at example {bad} is not finite in "
                f"{str(jacobian.dtype)[6:]}"
            )
        order = norms.argsort()[int((norms == 0).sum()) :]
        if jacobian.dtype == torch.float64 or not len(order):
            continue
        chosen = sorted({int(order[k]) for k in (0, len(order) // 2, -1)})
        truth = exact.per_example_gradients(batch.select(chosen), true_residuals[None, chosen])[0]
        error = torch.linalg.vector_norm(own[chosen].double() - truth, dim=1) / norms[chosen]
        worst = max(worst, float(error.max()))
    return narrow, rows.flatten(0, 1), 2 * worst


def measure_rounding(metric: Metric, exact: Jacobian, gradients: GradientSet) -> float:
    """Rounding of the products against float64: the absolute error norm of ``√s·J`` with a unit vector, along the
    largest gradient and a random direction, forward and adjoint; doubled, since a few stand for all."""
    jacobian = metric.jacobian
    reference = Metric(exact, metric.batch)
    reference.scale = metric.scale
    norms = torch.linalg.vector_norm(gradients.rows.double(), dim=1)
    if float(norms.max()) == 0.0:
        return 0.0
    top = int(norms[: len(gradients.perturbation_rows)].argmax())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, metric.n_parameters, generator=generator, dtype=torch.float64).to(jacobian.device)
    tangents = torch.cat([gradients.rows[top : top + 1].double(), noise])
    tangents = _unit(tangents).to(jacobian.dtype)
    trial = Metric(jacobian, metric.batch)
    trial.scale = metric.scale
    image, true_image = trial.forward(tangents).double(), reference.forward(tangents.double())
    worst = torch.linalg.vector_norm(image - true_image, dim=1).max()
    cotangents = _unit(true_image).to(jacobian.dtype)
    pulled, true_pulled = trial.adjoint(cotangents).double(), reference.adjoint(cotangents.double())
    worst = torch.maximum(worst, torch.linalg.vector_norm(pulled - true_pulled, dim=1).max())
    return 2 * float(worst)


def _unit(rows: Tensor) -> Tensor:
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
