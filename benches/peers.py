"""Adapters: ``H = Gᵀ(JᵀJ + λ)⁻¹G`` of one problem, asked of other libraries, each in its own conventions.

Every peer gets the loss ``C = ½Σ(f − y)²``, whose Gauss–Newton matrix is exactly A = JᵀJ. Libraries that only know
Hessians get it on the data ``(x, f(x))``: there the residual vanishes and the Hessian *is* JᵀJ. Whole mini-batch in one
batch, all right-hand sides at once wherever the library can; no determinism checks, no progress bars.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.utils.data import DataLoader, Dataset, TensorDataset

from problems import BenchProblem


@dataclass(frozen=True)
class Answer:
    """H and what it cost: Jacobian products (JVPs + VJPs over the mini-batch), None where they cannot be counted."""

    values: np.ndarray
    products: int | None


@dataclass(frozen=True)
class Method:
    """One way to get H: ``run(knob)`` for each of ``knobs``, listed from cheap to accurate."""

    name: str
    run: Callable[[Any], Answer]
    knobs: Sequence[Any] = (None,)


@dataclass(frozen=True)
class Setting:
    """A problem in one dtype at one absolute damping λ, with λ_max for peers that start CG at x₀ = b."""

    model: nn.Module
    x: Tensor
    y: Tensor
    damping: float
    lambda_max: float

    @classmethod
    def of(cls, problem: BenchProblem, dtype: torch.dtype, damping: float, lambda_max: float) -> Setting:
        """A private copy of the problem, outputs flattened to ``(n, D)``."""
        model = nn.Sequential(copy.deepcopy(problem.model), nn.Flatten()).to(dtype).eval()
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 0:  # curvlinops takes none without an axis
                    setattr(module, name, nn.Parameter(parameter.detach()[None]))
        x, y = problem.batch.inputs.to(dtype), problem.batch.targets.to(dtype).flatten(1)
        return cls(model, x, y, damping, lambda_max)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Detached parameters by name."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def predictions(self) -> Tensor:
        """``f(x)``, the targets at which the Hessian of the loss is JᵀJ."""
        with torch.no_grad():
            return self.model(self.x)

    def gradients(self) -> Tensor:
        """Per-example gradients ``(n, P)``, for libraries that only invert."""

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return half_squared_error(functional_call(self.model, parameters, x[None]), y[None])

        rows = vmap(grad(loss), in_dims=(None, 0, 0))(self.parameters, self.x, self.y)
        return torch.cat([g.flatten(1) for g in rows.values()], 1)


def half_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """``½Σ(f − y)²`` over everything."""
    return 0.5 * (prediction - target).square().sum()


def overlap(gradients: Tensor, solved: Tensor) -> np.ndarray:
    """``H_ij = g_iᵀz_j`` in float64."""
    return (gradients.double() @ solved.double().T).numpy()


def curvlinops_methods(setting: Setting) -> list[Method]:
    """GGN operator with batched CG; KFAC and EKFAC inverses. ``MSELoss('sum')`` makes their GGN 2A, hence 2λ and ×2."""
    from curvlinops import (
        CGInverseLinearOperator,
        EKFACLinearOperator,
        GGNLinearOperator,
        KFACInverseLinearOperator,
        KFACLinearOperator,
    )

    loss = nn.MSELoss(reduction="sum")
    data = [(setting.x, setting.y)]

    class DampedGGN(GGNLinearOperator):
        n_products = 0

        def _matmat(self, M: list[Tensor]) -> list[Tensor]:
            self.n_products += 2 * M[0].shape[-1]
            return [g.add_(m, alpha=2 * setting.damping) for g, m in zip(super()._matmat(M), M, strict=True)]

    def parameters() -> list[nn.Parameter]:
        return list(setting.model.parameters())

    def cg(tolerance: float) -> Answer:
        gradients = setting.gradients()
        operator = DampedGGN(setting.model, loss, parameters(), data, check_deterministic=False)
        inverse = CGInverseLinearOperator(operator, tolerance=tolerance, max_iter=20_000)
        return Answer(2 * overlap(gradients, (inverse @ gradients.T).T), operator.n_products)

    def kronecker(kind: type) -> Callable[[Any], Answer]:
        def run(_: Any) -> Answer:
            gradients = setting.gradients()
            factors = kind(setting.model, loss, parameters(), data, check_deterministic=False, fisher_type="type-2",
                           separate_weight_and_bias=False)  # fmt: skip
            inverse = KFACInverseLinearOperator(factors, damping=2 * setting.damping, use_exact_damping=True)
            return Answer(2 * overlap(gradients, (inverse @ gradients.T).T), None)

        return run

    return [
        Method("curvlinops GGN + CG", cg, tolerances(1.0)),
        Method("curvlinops KFAC", kronecker(KFACLinearOperator)),
        Method("curvlinops EKFAC", kronecker(EKFACLinearOperator)),
    ]


def pydvl_methods(setting: Setting) -> list[Method]:
    """Block CG on the Hessian at zero residual, and on a Gauss–Newton operator written for it; Nyström in both roles.

    Its CG starts at ``x₀ = b``: the loss is divided by λ_max, so that this start is a sensible one.
    """
    from pydvl.influence.torch import CgInfluence, NystroemSketchInfluence
    from pydvl.influence.torch.base import TensorOperator
    from pydvl.influence.torch.operator import CgOperator
    from pydvl.influence.torch.preconditioner import NystroemPreconditioner

    scale = 1 / setting.lambda_max
    damping = setting.damping * scale
    loader = DataLoader(TensorDataset(setting.x, setting.predictions()), batch_size=len(setting.x))
    options = {"atol": 0.0, "maxiter": 20_000, "warn_on_max_iteration": False}

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        return scale * half_squared_error(prediction, target)

    class GaussNewton(TensorOperator):
        """``scale·JᵀJ`` as one vmapped JVP and VJP."""

        def __init__(self) -> None:
            self.n_products = 0
            self.parameters = setting.parameters
            self.sizes = [p.numel() for p in self.parameters.values()]

        @property
        def device(self) -> torch.device:
            return setting.x.device

        @property
        def dtype(self) -> torch.dtype:
            return setting.x.dtype

        @property
        def input_size(self) -> int:
            return sum(self.sizes)

        def to(self, device: torch.device) -> GaussNewton:
            return self

        def _apply_to_vec(self, vec: Tensor) -> Tensor:
            return self._apply_to_mat(vec[None])[0]

        def _apply_to_mat(self, mat: Tensor) -> Tensor:
            self.n_products += 2 * len(mat)

            def forward(parameters: dict[str, Tensor]) -> Tensor:
                return functional_call(setting.model, parameters, setting.x)

            tangents = {
                name: part.reshape(len(mat), *p.shape)
                for (name, p), part in zip(self.parameters.items(), mat.split(self.sizes, 1), strict=True)
            }
            with torch.no_grad():
                _, pull = vjp(forward, self.parameters)
                pushed = vmap(lambda t: jvp(forward, (self.parameters,), (t,))[1])(tangents)
                pulled = vmap(pull)(pushed)[0]
            return scale * torch.cat([g.flatten(1) for g in pulled.values()], 1)

    def hessian_cg(rank: int) -> Callable[[float], Answer]:
        def run(rtol: float) -> Answer:
            preconditioner = NystroemPreconditioner(rank) if rank else None
            influence = CgInfluence(setting.model, loss, damping, rtol=rtol**0.5, solve_simultaneously=True,
                                    preconditioner=preconditioner, **options)  # fmt: skip
            values = influence.fit(loader).influences(setting.x, setting.y)
            return Answer(values.detach().double().numpy() / scale, None)

        return run

    def operator_cg(rank: int) -> Callable[[float], Answer]:
        def run(rtol: float) -> Answer:
            gradients = setting.gradients()
            operator = GaussNewton()
            preconditioner = NystroemPreconditioner(rank).fit(operator, damping) if rank else None
            solver = CgOperator(operator, damping, rtol=rtol**0.5, use_block_cg=True, preconditioner=preconditioner,
                                **options)  # fmt: skip
            return Answer(scale * overlap(gradients, solver.apply(gradients)), operator.n_products)

        return run

    def nystrom(rank: int) -> Answer:
        sketch = NystroemSketchInfluence(setting.model, loss, damping, rank=rank)
        return Answer(sketch.fit(loader).influences(setting.x, setting.y).detach().double().numpy() / scale, None)

    # It stops at ‖r‖ ≤ rtol²·‖b‖: the knob is that whole factor.
    return [
        Method("pyDVL block CG, its Hessian products", hessian_cg(0), tolerances(1.0)),
        Method("pyDVL block CG, JVP·VJP operator", operator_cg(0), tolerances(1.0)),
        Method("pyDVL block CG, JVP·VJP operator, Nyström 100", operator_cg(100), tolerances(1.0)),
        Method("pyDVL Nyström sketch, rank 1000", nystrom, (1000,)),
    ]


def dattri_methods(setting: Setting) -> list[Method]:
    """CG on the Hessian at zero residual, forward over reverse, vmapped; it has no tolerance, only a count. It starts
    at ``x₀ = b``: the loss is divided by λ_max. Without ``no_grad`` autograd records every iteration: 140 MB each,
    in twice the time. The explicit inverse is not tried where P² is too much memory."""
    from dattri.algorithm.influence_function import IFAttributorCG, IFAttributorExplicit
    from dattri.task import AttributionTask

    scale = 1 / setting.lambda_max
    n = len(setting.x)

    def loss(parameters: dict[str, Tensor], data: Sequence[Tensor]) -> Tensor:
        x, y = data
        return scale * half_squared_error(functional_call(setting.model, parameters, x), y)

    def solve(kind: Callable[..., Any], **options: Any) -> np.ndarray:
        task = AttributionTask(loss, setting.model, {k: v.clone() for k, v in setting.model.state_dict().items()})
        attributor = kind(task, regularization=setting.damping * scale, **options)
        attributor.cache(DataLoader(TensorDataset(setting.x, setting.predictions()), batch_size=n))
        examples = DataLoader(TensorDataset(setting.x, setting.y), batch_size=n)
        with torch.no_grad():
            return attributor.attribute(examples, examples).double().numpy() / scale

    def cg(iterations: int) -> Answer:
        return Answer(solve(IFAttributorCG, max_iter=iterations, mode="rev-fwd"), 2 * n * (iterations + 1))

    def explicit(_: Any) -> Answer:
        n_parameters = sum(p.numel() for p in setting.model.parameters())
        needed = 4 * n_parameters * (3 * n_parameters + 40 * setting.x.numel())
        if needed > 8 * 2**30:
            raise MemoryError(f"not run: its dense Hessian in one vmap takes about {needed / 2**30:.0f} GiB")
        return Answer(solve(IFAttributorExplicit), None)

    counts = sorted({round(2 * 1.15**k) for k in range(56)})
    return [Method("dattri CG", cg, counts), Method("dattri explicit", explicit)]


def kronfluence_methods(setting: Setting) -> list[Method]:
    """EKFAC with the true Fisher: targets drawn from ``N(f, 1)`` make it A/N; 64 draws per example."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
    from kronfluence.utils.dataset import DataLoaderKwargs

    n, draws = len(setting.x), 64

    class Regression(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            x, y = batch
            prediction = model(x)
            if sample:
                y = (prediction + torch.randn_like(prediction)).detach()
            return half_squared_error(prediction, y)

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    class Repeated(Dataset):
        def __len__(self) -> int:
            return n * draws

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return setting.x[index % n], setting.y[index % n]

    def run(_: Any) -> Answer:
        task = Regression()
        model = prepare_model(copy.deepcopy(setting.model), task)
        examples = TensorDataset(setting.x, setting.y)
        with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
            analyzer = Analyzer("bench", model, task, cpu=True, output_dir=directory, disable_tqdm=True)
            analyzer.set_dataloader_kwargs(DataLoaderKwargs(num_workers=0))
            analyzer.fit_all_factors("ekfac", Repeated(), per_device_batch_size=n * 8, overwrite_output_dir=True,
                                     factor_args=FactorArguments(strategy="ekfac"))  # fmt: skip
            analyzer.compute_pairwise_scores(
                "scores", "ekfac", examples, examples, per_device_query_batch_size=n, per_device_train_batch_size=n,
                score_args=ScoreArguments(damping_factor=setting.damping / n), overwrite_output_dir=True,
            )  # fmt: skip
            scores = analyzer.load_pairwise_scores("scores")["all_modules"]
        return Answer(scores.double().numpy() / n, None)

    return [Method("kronfluence EKFAC", run)]


def tolerances(largest: float) -> list[float]:
    """Residual tolerances from loose to tight, a factor 0.7 apart."""
    return [largest * 0.7**k for k in range(40)]


LIBRARIES: dict[str, tuple[str, Callable[[Setting], list[Method]]]] = {
    "curvlinops": ("curvlinops-for-pytorch", curvlinops_methods),
    "pyDVL": ("pyDVL", pydvl_methods),
    "dattri": ("dattri", dattri_methods),
    "kronfluence": ("kronfluence", kronfluence_methods),
}


@contextlib.contextmanager
def quiet() -> Any:
    """Peers' warnings, log lines and progress bars out of the table."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
