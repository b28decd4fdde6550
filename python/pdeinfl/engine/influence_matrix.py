"""`influence`: the influence matrix of a module on a mini-batch, with its certificate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pdeinfl import _core
from pdeinfl.arguments import check_counts, check_one_of, check_positive, is_listed
from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.engine.audit import Audit, audit_solutions, spread
from pdeinfl.engine.basis import inner
from pdeinfl.engine.certificate import Certified, relative_error, rounding_factor, row_norms
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.gradients import gradient_set, measure_rounding, predict, refuse_mixing, residuals
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.memory import free_memory
from pdeinfl.engine.metric import METRICS, Metric
from pdeinfl.engine.precision import PRODUCT_DTYPES
from pdeinfl.engine.result import Influence, Labels
from pdeinfl.engine.solvers import SOLVERS, Problem, SketchProblem, Solution, check_options, solve
from pdeinfl.engine.spectrum import effective_dof
from pdeinfl.engine.threads import num_threads, thread_limit
from pdeinfl.observables import SMSE, Observable, default_responses, resolve_all

__all__ = ["PRESETS", "Influence", "Labels", "influence"]

Observables = Any  # a name, an observable, a callable, or a tuple of them

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"metric": "sum", "damping": 1e-4, "solver": "craigmr"},
    "companion": {"metric": "mean", "damping": 1e-6, "solver": "span"},
}
DEFAULT_DAMPING = Damping.relative(1e-3)


def influence(
    model: nn.Module,
    batch: MiniBatch,
    response: Observables | None = None,
    perturbation: Observables = ("smse",),
    solver: str = "krylov",
    damping: float | Damping | Sequence[float | Damping] = DEFAULT_DAMPING,
    metric: str = "sum",
    tol: float = 0.02,
    *,
    preset: str | None = None,
    response_batch: MiniBatch | None = None,
    metric_batch: MiniBatch | None = None,
    parameters: str | Sequence[str] | None = None,
    device: torch.device | str | None = None,
    product_dtype: str | torch.dtype = "float32",
    memory_budget: int | None = None,
    num_threads: int | None = None,
    progress: bool | Callable[[str], None] = False,
    lambda_max: float | None = None,
    keep_steps: bool = True,
    audit: int = 0,
    seed: int = 0,
    run: str = "",
    epoch: int = 0,
    mini_batch: int = 0,
    provenance: Mapping[str, Any] | None = None,
    effective_dof_probes: int = 0,
    **solver_options: Any,
) -> Influence:
    r"""Influence of perturbation examples on response examples through one regularised descent step.

    .. math:: H_{AB}[i, j] = g_{A,i}^T η^{-1} g_{B,j}, \qquad η = s·J^T J + λ, \qquad g_{A,i} = J_i^T ∂C_A/∂ŷ_i.

    Positive means that a descent step on perturbation j lowers observable A at response i (MATH §2).

    The module is left as it was found: weights, buffers, gradients, train/eval flags.

    Peak memory: ``memory_budget``. The gradients (``n_rows·P`` numbers) and the copies of one block (32 bytes each of
    ``N·max(P, N·D)`` numbers) are held whatever it says; 30 % of it is for activations; the solver's bases (`krylov`:
    about ``n_products/2·(P + N·D)`` numbers) take what is left, and go to the temporary directory beyond that (with
    CUDA to pinned memory first). `sketch` holds no gradients: they are on disk (`solvers.sketch`).

    Args:
        model: any module that maps ``(n, C, X, Y)`` (and the mini-batch's extras) to the next state.
        batch: the perturbations; also the responses and the metric unless given apart.
        response, perturbation: a name, an observable, a user callable ``(pred, target, input) -> (n,)``, or a tuple;
            by default ``smse`` perturbs and `pdeinfl.observables.default_responses` of the channels respond (``smse``,
            ``mass``, ``energy`` for compressible Euler; ``smse`` alone where the mini-batch's channels have no names).
        solver: ``krylov``, ``dense``, ``cg``, ``span``, ``craigmr``, or ``sketch`` for thousands of examples, whose
            bound is an estimate; its own options as further keywords (``rtol``, ``nystrom_rank``, ``max_products``,
            ``probes``, ``directory``, …).
        damping: λ; a float is absolute. Of several, the first is reported and all must meet ``tol``.
        metric: ``"sum"`` or ``"mean"``.
        tol: certified relative error of H to reach, Frobenius norm per pair of observables.
        preset: ``"paper"`` or ``"companion"``: metric, damping and solver of those codes.
        response_batch, metric_batch: default the same as ``batch``.
        parameters: shell patterns of the parameter names that count; default all trainable ones.
        device: default where the module lives. product_dtype: ``"float32"``, ``"float64"`` (always for
            `dense`), ``"tf32"`` (CUDA) or ``"bfloat16"``; the last two only for the products with the metric, of which
            they double the speed at best and raise the error ρ, which is measured, a thousandfold.
        memory_budget: bytes; default what is free. num_threads: CPU threads; default each library's.
        progress: True for a line per step on standard error, or a callable that gets it.
        lambda_max: largest eigenvalue that relative dampings refer to; default this mini-batch's own.
        keep_steps: keep what `Influence.parameter_step` needs (the solver's basis) alive with the result.
        audit: check so many perturbations, evenly spread, with float64 products (`Audit`, 4 products each); a result
            that they contradict is not ``converged``.
        seed, run, epoch, mini_batch: labels of the result; the seed also starts random probes.
        effective_dof_probes: probes of stochastic Lanczos for ``effective_dof`` (0: leave it out; else at least 2).
        provenance: further entries of the result's ``settings`` (JSON-able), e.g. the checkpoint's digest.

    Returns:
        An `Influence`.

    Raises:
        ValueError: an argument or the mini-batch does not fit; the module answers with NaN, or not at all, or to an
            example otherwise alone than beside others.

    Reference:
        arXiv 2509.00024, eqs. 1–4, 11; MATH §§1–3.
    """
    if preset is not None:
        check_one_of("preset", preset, PRESETS)
        if (solver, damping, metric) != ("krylov", DEFAULT_DAMPING, "sum"):
            raise ValueError("`preset` sets `solver`, `damping` and `metric`: leave them out, or the preset")
        chosen = PRESETS[preset]
        metric, damping, solver = chosen["metric"], chosen["damping"], chosen["solver"]
    if not isinstance(batch, MiniBatch):
        raise ValueError(f"`batch` must be a MiniBatch; got {type(batch).__name__}: build one with `pi.MiniBatch`")
    check_one_of("solver", solver, SOLVERS)
    check_one_of("metric", metric, METRICS)
    tol = check_positive("tol", tol)
    audit, seed = check_counts(0, audit=audit, seed=seed)
    if memory_budget is not None:
        check_positive("memory_budget", memory_budget)
    check_options(solver, solver_options)
    if solver == "sketch" and (audit or str(product_dtype).removeprefix("torch.") not in ("float32", "float64")):
        raise ValueError("solver 'sketch' has no products to audit or to narrow: leave out `audit` and `product_dtype`")
    if audit and response_batch not in (None, batch):
        raise ValueError(
            f"`audit` must be a number of perturbations that also respond, without `response_batch`; got {audit}"
        )
    products = "float64" if solver == "dense" else _product_dtype(product_dtype)
    dtype = torch.float64 if products == "float64" else torch.float32
    dampings = tuple(Damping.of(d) for d in (damping if is_listed(damping) else (damping,)))
    if not dampings:
        raise ValueError("`damping` is empty: give at least one")
    response_batch = batch if response_batch is None else response_batch
    metric_batch = batch if metric_batch is None else metric_batch
    perturbation_observables = resolve_all(perturbation, batch.channel_names)
    if response is None:
        response = default_responses(() if response_batch.channels_are_assumed else response_batch.channel_names)
    response_observables = resolve_all(response, response_batch.channel_names, beside=perturbation_observables)
    report = _reporter(progress)

    with thread_limit(num_threads):
        jacobian = Jacobian(model, parameters, device, dtype, memory_budget)
        exact = jacobian if dtype == torch.float64 else jacobian.in_dtype(torch.float64)
        if products == "tf32" and jacobian.device.type != "cuda":
            raise ValueError(f"`product_dtype` 'tf32' needs a CUDA device; the module is on {jacobian.device}")
        # First of all, so that a module that does not fit is refused here.
        for given_batch in (batch, metric_batch):
            if given_batch is not response_batch:
                predict(exact, given_batch)
        prediction = predict(exact, response_batch)
        refuse_mixing(exact, response_batch, prediction)
        placed = exact.place(response_batch)
        losses, last = _losses(prediction, placed), placed.inputs[:, -placed.targets.shape[1] :]
        narrow = products in ("tf32", "bfloat16")
        operator = Metric(jacobian.in_dtype(dtype, products) if narrow else jacobian, metric_batch, metric)
        if jacobian.is_zero(operator.batch):
            raise ValueError("the module's output does not depend on its parameters: is its forward under no_grad?")
        # `krylov` and `dense` find the largest eigenvalue on the way; the others need not.
        relative = solver != "dense" and any(d.is_relative for d in dampings)
        if lambda_max is None and (relative or solver not in ("dense", "krylov")):
            lambda_max = operator.largest_eigenvalue(seed=seed)
        work = _Work(
            jacobian=jacobian,
            exact=exact,
            metric=operator,
            metric_batch=metric_batch,
            response=(response_observables, response_batch),
            perturbation=(perturbation_observables, batch),
            dampings=dampings,
            lambda_max=lambda_max,
            tol=tol,
            memory_budget=free_memory(jacobian.device) if memory_budget is None else memory_budget,
            seed=seed,
            report=report,
        )
        noise, gradient_error, solution = (work.sketched if solver == "sketch" else work.solved)(solver, solver_options)
        shape = (len(response_observables), len(perturbation_observables), len(response_batch), len(batch))

        top = max(solution.path.largest, lambda_max or 0.0)
        lambda_max = top if lambda_max is None else lambda_max
        values = [d.resolve(lambda_max) if lambda_max > 0 or not d.is_relative else d.value for d in dampings]
        value = values[0]
        dof = None
        if effective_dof_probes:
            where: dict[str, Any] = {
                "patterns": parameters,
                "device": device,
                "dtype": dtype,
                "memory_budget": memory_budget,
            }
            found = effective_dof(model, metric_batch, value, metric, effective_dof_probes, seed=seed, **where)
            dof = (found.value, found.low, found.high)
        product_error = noise / np.sqrt(top) if top > 0 else 0.0

        def rounding(at: float) -> float:
            return rounding_factor(product_error, gradient_error, top, at)

        certified = _certified(solution, shape, value, rounding(value), tol)
        others = [solution.path.certified(shape, d, rounding(d), tol) for d in values[1:]]
        audited = None
        if audit:
            audited = _audit(audit, certified, value, solution, Metric(exact, metric_batch, metric),
                             perturbation_observables, response_observables, batch)  # fmt: skip
        distance = _input_distance(response_batch, batch)
    n_a, n_b, n_r, n_p = shape
    overlap = solution.path.overlap.reshape(n_a, n_r, n_b, n_p).transpose(0, 2, 1, 3)
    return Influence(
        values=certified.values,
        error_bound=certified.error_bound,
        row_error=certified.row_error,
        relative_error=certified.relative_error,
        converged=all(c.converged for c in (certified, *others)) and (audited is None or audited.agrees),
        response_names=tuple(o.name for o in response_observables),
        perturbation_names=tuple(o.name for o in perturbation_observables),
        response_labels=_labels(response_batch),
        perturbation_labels=_labels(batch),
        damping=value,
        lambda_max=lambda_max,
        gradient_overlap=np.ascontiguousarray(overlap),
        n_jvp=operator.n_jvp,
        n_vjp=operator.n_vjp,
        ritz_values=solution.ritz,
        subspace_dof=solution.path.subspace_dof(value),
        effective_dof=dof,
        audit=audited,
        product_error=product_error,
        gradient_error=gradient_error,
        tol=tol,
        losses=losses,
        persistence_losses=_losses(last, placed) if last.shape == placed.targets.shape else None,
        input_distance=distance,
        run=run,
        seed=seed,
        epoch=epoch,
        mini_batch=mini_batch,
        settings={
            "solver": solver,
            "metric": metric,
            "bound": "estimate" if solver == "sketch" else "certificate",
            "product_dtype": products,
            "n_parameters": jacobian.n_parameters,
            "n_outputs": operator.n_outputs,
            "device": str(jacobian.device),
            "damping_requested": [{"value": d.value, "relative": d.is_relative} for d in dampings],
            "mini_batch_sha256": batch.sha256(),
            "response_batch_sha256": None if response_batch is batch else response_batch.sha256(),
            "metric_batch_sha256": None if metric_batch is batch else metric_batch.sha256(),
            "parameters": [parameters] if isinstance(parameters, str) else list(parameters or []),
            "preset": preset,
            "solver_options": dict(solver_options),
            "torch": torch.__version__,
            "pdeinfl": _core.__version__,
            "damping": value,
            "tol": tol,
            "audit": audit,
            **(provenance or {}),
            **{f"solver_{k}": v for k, v in solution.details.items()},
        },
        path=solution.path,
        step=solution.step if keep_steps else None,
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """What there is to solve, checked and on its device."""

    jacobian: Jacobian
    exact: Jacobian
    metric: Metric
    metric_batch: MiniBatch
    response: tuple[Sequence[Observable], MiniBatch]
    perturbation: tuple[Sequence[Observable], MiniBatch]
    dampings: tuple[Damping, ...]
    lambda_max: float | None
    tol: float
    memory_budget: float
    seed: int
    report: Callable[[str], None]

    def solved(self, solver: str, options: Mapping[str, Any]) -> tuple[float, float, Solution]:
        """By a solver that holds all gradients: the measured rounding of products and of gradients, and H."""
        (response, response_batch), (perturbation, batch) = self.response, self.perturbation
        gradients = gradient_set(self.jacobian, self.exact, response, response_batch, perturbation, batch)
        self.report(f"{len(gradients.rows)} gradients of {self.jacobian.n_parameters} parameters")
        self.metric.n_vjp += gradients.n_products
        wide = self.jacobian.dtype == torch.float64
        noise = 0.0 if wide else measure_rounding(self.metric, self.exact, gradients)
        problem = Problem(
            metric=self.metric,
            gradients=gradients.rows,
            response_rows=gradients.response_rows,
            perturbation_rows=gradients.perturbation_rows,
            overlap=inner(gradients.rows, gradients.rows).numpy(),
            residuals=gradients.residuals.flatten(2) if self.metric_batch is batch else None,
            in_range=self.metric_batch is batch and response_batch is batch,
            shape=(len(response), len(perturbation), len(response_batch), len(batch)),
            dampings=self.dampings,
            lambda_max=self.lambda_max,
            tol=self.tol,
            product_noise=noise,
            gradient_error=gradients.rounding,
            memory_budget=self.memory_budget,
            seed=self.seed,
            report=self.report,
        )
        solution = solve(solver, problem, **options)
        self.metric.release()
        return noise, gradients.rounding, solution

    def sketched(self, solver: str, options: Mapping[str, Any]) -> tuple[float, float, Solution]:
        """By `sketch`, which holds none; the rounding of its rows is part of its estimate."""
        assert self.lambda_max is not None
        names = ("metric", "exact", "response", "perturbation", "metric_batch", "dampings", "lambda_max", "tol",
                 "memory_budget", "seed", "report")  # fmt: skip
        problem = SketchProblem(**{name: getattr(self, name) for name in names})
        return 0.0, 0.0, solve(solver, problem, **options)


def _product_dtype(given: str | torch.dtype) -> str:
    name = str(given).removeprefix("torch.")
    check_one_of("product_dtype", name, PRODUCT_DTYPES)
    return name


def _reporter(progress: bool | Callable[[str], None]) -> Callable[[str], None]:
    if callable(progress):
        return progress
    if progress:
        return lambda message: print(message, file=sys.stderr, flush=True)
    return lambda message: None


def _labels(batch: MiniBatch) -> Labels:
    return Labels(batch.class_ids, batch.trajectory_ids, batch.times, batch.class_names)


def _losses(prediction: torch.Tensor, batch: MiniBatch) -> np.ndarray:
    return SMSE().bind(batch.channel_names)(prediction, batch.targets, batch.inputs).double().cpu().numpy()


def _input_distance(response: MiniBatch, perturbation: MiniBatch) -> np.ndarray | None:
    if response.inputs.shape[1:] != perturbation.inputs.shape[1:]:
        return None
    states = [
        b.inputs.double().flatten(2).cpu() for b in (response, perturbation)[: 1 if response is perturbation else 2]
    ]
    distance = _core.pairwise_distance(torch.cat(states).numpy(), num_threads())
    n = len(response)
    return distance if response is perturbation else distance[:n, n:]


def _audit(
    k: int,
    certified: Certified,
    damping: float,
    solution: Solution,
    exact: Metric,
    perturbation: Sequence[Observable],
    response: Sequence[Observable],
    batch: MiniBatch,
) -> Audit:
    """Right-hand sides spread over the perturbations, with what the result says of each pair of them."""
    n = len(batch)
    rows = spread(len(perturbation) * n, k)
    observable, example = rows // n, rows % n
    r = residuals(perturbation, predict(exact.jacobian, batch), batch)
    each = exact.jacobian.per_example_gradients(batch.select(example), r[:, example])
    gradients = each[observable, np.arange(len(rows))]
    names = [o.name for o in response]
    reported, bound = np.full((2, len(rows), len(rows)), np.nan)
    for i, (own, at) in enumerate(zip(observable, example, strict=True)):
        if perturbation[own].name in names:
            pair = names.index(perturbation[own].name), observable, at, example
            reported[i], bound[i] = certified.values[pair], certified.error_bound[pair]
    assert solution.step is not None
    return audit_solutions(exact, rows, gradients, solution.step, damping, reported, bound)


def _certified(
    solution: Solution, shape: tuple[int, int, int, int], damping: float, rounding: float, tol: float
) -> Certified:
    certified = solution.path.certified(shape, damping, rounding, tol)
    if solution.values is None or solution.error_bound is None:
        return certified
    n_a, n_b, n_r, n_p = shape
    values = solution.values.reshape(n_a, n_r, n_b, n_p).transpose(0, 2, 1, 3)
    bound = solution.error_bound.reshape(n_a, n_r, n_b, n_p).transpose(0, 2, 1, 3) + certified.rounding
    relative = relative_error(values, bound)
    return Certified(values, bound, row_norms(bound), relative, certified.rounding, bool((relative <= tol).all()))
