"""`sketch`: thousands of examples, from gradients and probes on disk and their inner products."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.gradient_store import ROUNDOFF, GradientStore, GradientWriter
from pdeinfl.engine.gradients import predict, residuals
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.metric import Metric
from pdeinfl.engine.sketch_path import SketchPath, signs
from pdeinfl.engine.solvers.problem import Solution
from pdeinfl.observables import Observable

# Share of the memory budget that one chunk of gradients may take.
_SHARE = 0.1
# Examples whose residuals are computed at once.
_CHUNK = 64


@dataclass(frozen=True, eq=False)
class SketchProblem:
    """What `sketch` needs: unlike `Problem` it holds no gradients.

    Attributes:
        metric: A, for its module, mini-batch and scale. exact: the Jacobian in float64, for residuals.
        response, perturbation: observables and their mini-batches.
        lambda_max: largest eigenvalue of A. memory_budget: bytes. seed: of the probes.
    """

    metric: Metric
    exact: Jacobian
    response: tuple[Sequence[Observable], MiniBatch]
    perturbation: tuple[Sequence[Observable], MiniBatch]
    metric_batch: MiniBatch
    dampings: tuple[Damping, ...]
    lambda_max: float
    tol: float
    memory_budget: float
    seed: int
    report: Callable[[str], None]

    @property
    def known(self) -> list[Observable]:
        """Observables whose gradients on the metric mini-batch are among those of the problem."""
        sides = [observables for observables, batch in (self.perturbation, self.response) if batch is self.metric_batch]
        return list({o.name: o for observables in sides for o in observables}.values())

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of H."""
        return len(self.response[0]), len(self.perturbation[0]), len(self.response[1]), len(self.perturbation[1])


def solve_sketch(
    problem: SketchProblem,
    probes: int = 4,
    max_probes: int = 32,
    directory: str | PathLike[str] | None = None,
    storage: str = "float32",
) -> Solution:
    """H by Woodbury from stored gradients (`SketchPath`), with an estimated error.

    The number of probes doubles until the estimate meets ``tol`` at every damping, or is ``max_probes``. On disk are
    ``(n_rows + k·N)`` rows (`GradientStore`); what is there already is not computed again. In memory are the inner
    products, ``8·(n_rows + k·N)²`` bytes, about four times that while a damping is solved, and a chunk of gradients.

    Args:
        probes, max_probes: draws for each example of the metric mini-batch.
        directory: where the gradients stay; default a temporary folder.
        storage: ``"float32"``, or ``"bfloat16"`` or ``"float16"`` at half the size.

    Raises:
        ValueError: a number of probes below 2, or ``max_probes`` below ``probes``; ``directory`` holds the gradients of
            another model. OSError: the disk is full; what was complete stays and is used next time.
    """
    if not 2 <= probes <= max_probes:
        raise ValueError(f"`probes` must be at least 2 and at most `max_probes`; got {probes} and {max_probes}")
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="pdeinfl-gradients-") as temporary:
            return _solve(problem, probes, max_probes, temporary, storage)
    return _solve(problem, probes, max_probes, directory, storage)


def _solve(
    problem: SketchProblem, probes: int, max_probes: int, directory: str | PathLike[str], storage: str
) -> Solution:
    jacobian = problem.metric.jacobian
    store = GradientStore(directory, jacobian.n_parameters, storage, {"module_sha256": _module_digest(jacobian)})
    with store.writer() as writer:
        perturbation = _store_gradients(problem, writer, *problem.perturbation)
        response = _store_gradients(problem, writer, *problem.response)
        row_error = ROUNDOFF[storage]
        for keys, (observables, batch) in ((perturbation, problem.perturbation), (response, problem.response)):
            row_error = max(row_error, _row_error(problem, store, keys, observables, batch))
        rows = list(dict.fromkeys([*perturbation, *response]))
        at = {key: k for k, key in enumerate(rows)}
        own = store.gram(rows)
        sides = [at[k] for k in response], [at[k] for k in perturbation]
        known = _known_directions(problem)
        digest = problem.metric_batch.sha256()[:16]
        names = [o.name for o in problem.known]
        images = np.array([[at[f"{digest}/{name}/{i}"] for i in range(len(known))] for name in names], dtype=np.int64)
        held: list[str] = []
        cross, among = np.empty((0, len(rows))), np.empty((0, 0))
        while True:
            drawn = len(held) // len(problem.metric_batch)
            fresh = _store_probes(problem, writer, known, drawn, probes)
            cross = np.concatenate([cross, store.gram(fresh, rows)])
            among = _grown(among, store.gram(fresh, held) if held else np.empty((len(fresh), 0)), store.gram(fresh))
            held, drawn = held + fresh, probes
            path = _path(problem, own, cross, among, sides, (known, images), row_error)
            dampings = [d.resolve(problem.lambda_max) for d in problem.dampings]
            found = [path.certified(problem.shape, d, 0.0, problem.tol) for d in dampings]
            worst = max(float(c.relative_error.max()) for c in found)
            problem.report(f"{drawn} probes an example, estimated error {worst:.1e}")
            if drawn >= max_probes or all(c.converged for c in found):
                break
            probes = min(2 * drawn, max_probes)
    first = path.estimate(dampings[0])
    size = np.linalg.norm(first.values)
    details: dict[str, float | int | str] = {
        "probes": drawn,
        "raw_bias": float(np.linalg.norm(first.raw - first.values) / size) if size else 0.0,
        "bias": float(np.linalg.norm(first.bias) / size) if size else 0.0,
        "deviation": float(np.linalg.norm(first.deviation) / size) if size else 0.0,
        "weights_exist": int(first.feasible),
        "bytes_per_row": store.bytes_per_row,
        "storage": storage,
    }
    return Solution(path=path, ritz=np.empty(0), step=None, details=details)


def _grown(old: np.ndarray, between: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.block([[old, between.T], [between, new]]) if len(old) else new


def _path(
    problem: SketchProblem,
    own: np.ndarray,
    cross: np.ndarray,
    among: np.ndarray,
    sides: tuple[list[int], list[int]],
    known: tuple[np.ndarray, np.ndarray],
    row_error: float,
) -> SketchPath:
    """From the inner products of the gradients, of the probes with them, and of the probes; the known columns are
    combinations of gradients."""
    (response, perturbation), (directions, images) = sides, known
    n, square, q = len(problem.metric_batch), np.diag(own), len(images)
    drawn = len(among) // n

    def image(products: np.ndarray) -> np.ndarray:
        """Inner products with the known columns, from those with all gradients: ``(r, n_rows) → (r, q·N)``."""
        return np.einsum("rqi,iqb->rbi", products[:, images], directions).reshape(len(products), q * n)

    if q:
        with_gradients = image(own)
        columns = _grown(image(with_gradients.T), image(cross), among)
        products = np.concatenate([with_gradients, cross.T], 1)
    else:
        columns, products = among, cross.T
    right = products[perturbation]
    return SketchPath(
        response=right if response == perturbation else products[response],
        perturbation=right,
        columns=columns,
        overlap=own[np.ix_(response, perturbation)],
        square_response=square[response],
        square_perturbation=square[perturbation],
        example=np.tile(np.arange(n), q + drawn),
        draw=np.repeat(np.maximum(np.arange(-q, drawn), -1), n),
        scale=problem.metric.scale,
        row_error=row_error,
        lambda_max=problem.lambda_max,
    )


def _known_directions(problem: SketchProblem) -> np.ndarray:
    """``C`` such that the columns of ``R_i = Σ_a r_a,i C[i, a]`` are orthonormal, or zero where residuals of example i
    depend on each other: ``(N, q, q)``."""
    observables, batch = problem.known, problem.metric_batch
    if not observables:
        return np.empty((len(batch), 0, 0))
    out = []
    for start in range(0, len(batch), _CHUNK):
        part = batch.select(np.arange(start, min(start + _CHUNK, len(batch))))
        r = residuals(observables, predict(problem.exact, part), part).flatten(2).transpose(0, 1)
        sizes = torch.linalg.vector_norm(r, dim=2)
        unit = torch.where(sizes > 0, 1 / sizes, 0.0)
        values, vectors = torch.linalg.eigh(unit[:, :, None] * (r @ r.transpose(1, 2)) * unit[:, None, :])
        inverse = torch.where(values > 1e-8, values, torch.inf).rsqrt()
        out.append(unit[:, :, None] * vectors * inverse[:, None, :])
    return torch.cat(out).cpu().numpy()


def _store_gradients(
    problem: SketchProblem, writer: GradientWriter, observables: Sequence[Observable], batch: MiniBatch
) -> list[str]:
    """Gradients of observables on a mini-batch, those that are not there yet; their keys, observable-major."""
    digest = batch.sha256()[:16]
    keys = [[f"{digest}/{o.name}/{i}" for i in range(len(batch))] for o in observables]

    def cotangents(part: MiniBatch, examples: range) -> Tensor:
        return residuals(observables, predict(problem.exact, part), part)

    _store(problem, writer, batch, keys, cotangents)
    return [key for row in keys for key in row]


def _store_probes(
    problem: SketchProblem, writer: GradientWriter, known: np.ndarray, drawn: int, wanted: int
) -> list[str]:
    """Probes number ``drawn`` to ``wanted`` of each example, those that are not there yet; their keys, draw-major."""
    batch, observables = problem.metric_batch, problem.known
    digest, draws = batch.sha256()[:16], range(drawn, wanted)
    beside = ", ".join(o.name for o in observables)
    keys = [
        [f"{digest}/probe {m} of seed {problem.seed} beside {beside}/{i}" for i in range(len(batch))] for m in draws
    ]
    shape = tuple(batch.targets.shape[1:])

    def cotangents(part: MiniBatch, examples: range) -> Tensor:
        xi = torch.stack([torch.stack([signs(problem.seed, i, m, shape) for i in examples]) for m in draws])
        if not observables:
            return xi
        r = residuals(observables, predict(problem.exact, part), part).flatten(2)
        directions = torch.from_numpy(known[examples.start : examples.stop]).to(r.device)
        basis = torch.einsum("aid,iab->ibd", r, directions)
        flat = xi.to(r.device, torch.float64).flatten(2)
        inside = torch.einsum("mid,ibd->mib", flat, basis)
        return (flat - torch.einsum("mib,ibd->mid", inside, basis)).reshape(xi.shape)

    _store(problem, writer, batch, keys, cotangents)
    return [key for row in keys for key in row]


def _store(
    problem: SketchProblem,
    writer: GradientWriter,
    batch: MiniBatch,
    keys: list[list[str]],
    cotangents: Callable[[MiniBatch, range], Tensor],
) -> None:
    """``J_iᵀu`` of each example and several cotangents each, in chunks of examples; counts products over a mini-batch,
    rounded up."""
    jacobian, n, computed = problem.metric.jacobian, len(batch), 0
    bytes_each = len(keys) * jacobian.n_parameters * 8
    chunk = max(1, min(n, int(_SHARE * problem.memory_budget / bytes_each)))
    for start in range(0, n, chunk):
        examples = range(start, min(start + chunk, n))
        lacking = [k for k, row in enumerate(keys) if writer.store.missing([row[i] for i in examples])]
        if not lacking:
            continue
        part = batch.select(np.arange(examples.start, examples.stop))
        rows = jacobian.per_example_gradients(part, cotangents(part, examples)[lacking])
        computed += len(lacking) * len(examples)
        for k, own in zip(lacking, rows, strict=True):
            names = [keys[k][i] for i in examples]
            new = [j for j, name in enumerate(names) if name not in writer.store]
            writer.append([names[j] for j in new], own[new])
        problem.report(f"{len(writer.store)} gradients stored")
    problem.metric.n_vjp += -(-computed // n)


def _module_digest(jacobian: Jacobian) -> str:
    """Of everything that a module computes with, and of which parameters count."""
    module, digest = jacobian.parameters.module, hashlib.sha256()
    digest.update(repr((module, jacobian.parameters.names)).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        held = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + held.numpy().tobytes())
    return digest.hexdigest()


def _row_error(
    problem: SketchProblem, store: GradientStore, keys: list[str], observables: Sequence[Observable], batch: MiniBatch
) -> float:
    """Relative error of stored gradients, measured on the first, middle and last example of each observable against
    float64 and doubled.

    Raises:
        ValueError: they are gradients of something else.
    """
    n, worst = len(batch), 0.0
    for k, observable in enumerate(observables):
        for i in sorted({0, n // 2, n - 1}):
            part = batch.select([i])
            r = residuals([observable], predict(problem.exact, part), part)
            want = problem.exact.per_example_gradients(part, r)[0, 0].cpu()
            size = float(torch.linalg.vector_norm(want))
            error = float(torch.linalg.vector_norm(store[keys[k * n + i]].double() - want))
            if error > 0.1 * size:
                raise ValueError(
                    f"{store.path} holds gradients of another model or observable than {observable.name!r}: give "
                    f"another `directory`"
                )
            worst = max(worst, error / size if size else 0.0)
    return 2 * worst
