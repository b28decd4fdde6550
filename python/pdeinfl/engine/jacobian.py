"""Jacobian products of any module: per-example gradients, batched JVPs and VJPs, in chunks that fit in memory."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pdeinfl.data.mini_batch import MiniBatch
from pdeinfl.devices import check_device
from pdeinfl.engine.circular_padding import LeanCircularPadding
from pdeinfl.engine.memory import chunked, free_memory
from pdeinfl.engine.parameters import FlatParameters, evaluation_mode
from pdeinfl.engine.precision import float32_products, float64_throughout
from pdeinfl.engine.transforms import Transforms

# Share of the free memory that one chunk of products may fill.
_MEMORY_SHARE = 0.3
# On a CPU larger chunks gain nothing: saved activations of the examples, and of examples times directions, in bytes.
_CPU_EXAMPLES = 128 * 2**20
_CPU_PRODUCTS = 512 * 2**20
# What PyTorch says of its own inside: the scripted decompositions of forward mode, operators without a batching rule.
_NOT_THE_USERS_BUSINESS = (".*torch.jit.script.* is deprecated", "There is a performance drop because")


class PullBack:
    """``u ↦ Jᵀu`` of some examples by `torch.func`; holds the activations of their forward pass, once it was used."""

    def __init__(self) -> None:
        self._pull: Callable[[Tensor], tuple[Tensor]] | None = None

    def __call__(self, parameters: FlatParameters, x: Tensor, extras: Sequence[Tensor], u: Tensor) -> Tensor:
        """``(k, n, C, …) → (k, P)``; all but u has to be the same at each call."""
        if self._pull is None:
            self._pull = vjp(lambda theta: parameters.call(theta, x, extras), parameters.vector)[1]
        pull = self._pull
        try:
            with torch.no_grad():
                return vmap(lambda c: pull(c)[0])(u)
        except Exception:
            self.clear()
            raise

    def clear(self) -> None:
        """Let the activations go."""
        self._pull = None


class Jacobian:
    """``J = ∂ŷ/∂θ`` of a module, applied from either side without being formed.

    Each kind of product goes the first of several ways that the module takes, with one warning where a slower one had
    to do (`transforms`; what each costs: docs/any_module.md).

    Peak memory of a product: its operands and result, plus at most 30 % of the memory free when the object was made
    (or of ``memory_budget``) for activations; chunks are halved when that estimate fails.

    Args:
        module: maps ``(n, C, X, Y)`` (and the mini-batch's extras) to the next state.
        patterns: names of the parameters that count (`FlatParameters`).
        device: where products run; default the module's own device.
        dtype: dtype of operands and results, float32 or float64.
        products: of float32, how the module multiplies: ``"float32"``, ``"tf32"`` (CUDA) or ``"bfloat16"`` (autocast).
        memory_budget: bytes that a call may use; default what is free.
    """

    def __init__(
        self,
        module: nn.Module,
        patterns: str | Sequence[str] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        memory_budget: int | None = None,
        products: str = "float32",
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"`model` must be a torch.nn.Module; got {type(module).__name__}")
        if device is None:
            device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.device = check_device("device", device)
        self.parameters = FlatParameters(module, patterns, self.device, dtype)
        self.dtype = dtype
        self.products = products
        self._patterns = patterns
        self.memory_budget = memory_budget
        self._bytes_per_example: int | None = None
        self._is_zero = False
        # Of each kind of product, examples times directions that fitted where memory was short.
        self._fitting: dict[str, int] = {}
        self._most_examples = sys.maxsize
        self.transforms = Transforms(type(self.parameters.module).__name__)

    def in_dtype(self, dtype: torch.dtype, products: str = "float32") -> Jacobian:
        """The same Jacobian with products in another dtype or grade; of the transforms that the module does not take,
        the two warn once."""
        other = Jacobian(self.parameters.module, self._patterns, self.device, dtype, self.memory_budget, products)
        other.transforms = self.transforms.sibling()
        return other

    @property
    def n_parameters(self) -> int:
        """P."""
        return len(self.parameters)

    def place(self, batch: MiniBatch) -> MiniBatch:
        """The mini-batch on this Jacobian's device and in its dtype."""
        return batch.to(self.device, self.dtype)

    @contextmanager
    def _products(self) -> Iterator[None]:
        # The math kernel of attention is the one that has forward mode and a batching rule; the fused encoder layers of
        # `nn.MultiheadAttention` have neither.
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with (
                warnings.catch_warnings(),
                evaluation_mode(self.parameters.module),
                sdpa_kernel(SDPBackend.MATH),
                float64_throughout() if self.dtype == torch.float64 else float32_products(self.products, self.device),
            ):
                for message in _NOT_THE_USERS_BUSINESS:
                    warnings.filterwarnings("ignore", message=message)
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)

    def predict(self, batch: MiniBatch) -> Tensor:
        """``ŷ`` of every example, ``(n, C, X, Y)``.

        Raises:
            ValueError: the module refuses the input, or answers with another shape than the targets'.
        """
        batch = self.place(batch)
        out: list[Tensor] = []

        def work(part: slice) -> None:
            extras = [e[part] for e in batch.extras]
            out.append(self.parameters.call(self.parameters.vector, batch.inputs[part], extras))

        with torch.no_grad(), self._products():
            chunked(len(batch), self._examples_chunk(batch), work)
        prediction = torch.cat(out)
        if prediction.shape != batch.targets.shape:
            raise ValueError(
                f"the module maps {tuple(batch.inputs.shape)} to {tuple(prediction.shape)}, "
                f"but the targets have shape {tuple(batch.targets.shape)}"
            )
        return prediction

    def per_example_gradients(self, batch: MiniBatch, residuals: Tensor) -> Tensor:
        """``g_i = J_iᵀ r_i`` for each example and each of several residuals.

        Args:
            batch: n examples. residuals: ``(k, n, C, X, Y)``.

        Returns:
            ``(k, n, P)`` in the product dtype, on this device.
        """
        batch = self.place(batch)
        n, k = len(batch), len(residuals)
        out = torch.empty(k, n, self.n_parameters, dtype=self.dtype, device=self.device)

        def one(x: Tensor, r: Tensor, *extras: Tensor) -> Tensor:
            def forward(theta: Tensor) -> Tensor:
                return self.parameters.call(theta, x[None], [e[None] for e in extras])[0]

            pull = vjp(forward, self.parameters.vector)[1]
            return vmap(lambda u: pull(u)[0])(r)

        def work(part: slice) -> None:
            x, r = batch.inputs[part], residuals[:, part].to(self.device, self.dtype).transpose(0, 1)
            extras = [e[part] for e in batch.extras]

            def loop() -> Tensor:
                each = [
                    self._pull(x[i : i + 1], [e[i : i + 1] for e in extras], r[i][:, None], batched=False)
                    for i in range(len(x))
                ]
                return torch.stack(each)

            ways = (("vmap over examples", lambda: vmap(one)(x, r, *extras)), ("a loop over examples", loop))
            out[:, part] = self.transforms.first_that_works("gradients", ways).transpose(0, 1)

        per_example = self._activation_bytes(batch) * 2 + k * self.n_parameters * out.element_size() * 2
        with self._products(), LeanCircularPadding():
            self._in_chunks("gradients", n, min(int(self._budget() / per_example), 8), 1, work)
        return out

    def jvp(self, batch: MiniBatch, tangents: Tensor) -> Tensor:
        """``J v`` for each row of ``tangents`` ``(k, P)``: ``(k, n, C, X, Y)``."""
        batch = self.place(batch)
        shape = (len(tangents), *batch.targets.shape)
        out = torch.empty(shape, dtype=self.dtype, device=self.device)
        tangents = tangents.to(self.device, self.dtype)
        theta = self.parameters.vector

        def work_on(examples: slice) -> Callable[[slice], None]:
            x, extras = batch.inputs[examples], [e[examples] for e in batch.extras]

            def forward(at: Tensor) -> Tensor:
                return self.parameters.call(at, x, extras)

            def work(part: slice) -> None:
                v = tangents[part]
                ways = (
                    ("forward mode under vmap", lambda: vmap(lambda t: _push(forward, theta, t))(v)),
                    ("a loop of forward mode", lambda: torch.stack([_push(forward, theta, t) for t in v])),
                    ("double backward under vmap", lambda: _push_backward(forward, theta, v, batched=True)),
                    ("a loop of double backward", lambda: _push_backward(forward, theta, v, batched=False)),
                )
                out[part, examples] = self.transforms.first_that_works("jvp", ways)

            return work

        self._chunked_pairs("jvp", batch, len(tangents), work_on, extra_bytes=0)
        return out

    def vjp(self, batch: MiniBatch, cotangents: Tensor, keep: PullBack | None = None) -> Tensor:
        """``Jᵀ u`` for each of ``cotangents`` ``(k, n, C, X, Y)``: ``(k, P)``, summed over examples.

        Args:
            keep: for calls with one and the same mini-batch, which then goes forward once, where it fits in one chunk.
        """
        batch = self.place(batch)
        out = torch.zeros(len(cotangents), self.n_parameters, dtype=self.dtype, device=self.device)
        cotangents = cotangents.to(self.device, self.dtype)

        def work_on(examples: slice) -> Callable[[slice], None]:
            x, extras = batch.inputs[examples], [e[examples] for e in batch.extras]
            pull_back = PullBack()
            if keep is not None and len(x) == len(batch):
                pull_back = keep
            elif keep is not None:
                keep.clear()

            def work(part: slice) -> None:
                u = cotangents[part, examples]
                ways = (
                    ("vjp under vmap", lambda: pull_back(self.parameters, x, extras, u)),
                    ("backward under vmap", lambda: self._pull(x, extras, u, batched=True)),
                    ("a loop of backward", lambda: self._pull(x, extras, u, batched=False)),
                )
                with LeanCircularPadding():
                    out[part] += self.transforms.first_that_works("vjp", ways)

            return work

        self._chunked_pairs("vjp", batch, len(cotangents), work_on, extra_bytes=self.n_parameters * out.element_size())
        return out

    def _pull(self, x: Tensor, extras: Sequence[Tensor], u: Tensor, batched: bool) -> Tensor:
        """``Jᵀu`` by plain autograd: ``(k, n, C, …) → (k, P)``."""
        with torch.enable_grad():
            theta = self.parameters.vector.clone().requires_grad_()
            y = self.parameters.call(theta, x, extras)
            if not y.requires_grad:
                return torch.zeros(len(u), self.n_parameters, dtype=self.dtype, device=self.device)
            if batched:
                return torch.autograd.grad(y, theta, u, is_grads_batched=True, materialize_grads=True)[0]
            rows = [torch.autograd.grad(y, theta, c, retain_graph=True, materialize_grads=True)[0] for c in u]
        return torch.stack(rows)

    def _chunked_pairs(
        self,
        kind: str,
        batch: MiniBatch,
        k: int,
        work_on: Callable[[slice], Callable[[slice], None]],
        extra_bytes: int,
    ) -> None:
        n_examples = self._examples_chunk(batch)
        activations = n_examples * self._activation_bytes(batch)
        # A pull-back that is kept holds the activations of the examples once.
        chunk = int((self._budget() - activations) / (2 * activations + extra_bytes))
        if self.device.type == "cpu":
            chunk = min(chunk, round(_CPU_PRODUCTS / activations))

        parts = [slice(n, min(n + n_examples, len(batch))) for n in range(0, len(batch), n_examples)]
        waiting = [(part, 0) for part in reversed(parts)]
        with self._products():
            while waiting:
                examples, first = waiting.pop()
                n = examples.stop - examples.start
                done = self._directions(kind, work_on(examples), slice(first, k), chunk, n)
                if done < k:
                    # Not even one direction fits: the ones that are not done see the examples in two halves.
                    self._most_examples, middle = n // 2, examples.start + n // 2
                    waiting += [(slice(middle, examples.stop), done), (slice(examples.start, middle), done)]

    def _directions(
        self, kind: str, work: Callable[[slice], None], directions: slice, chunk: int, n_examples: int
    ) -> int:
        """Work on directions for some examples, in chunks; up to which one they are done.

        Raises:
            MemoryError: one direction of one example does not fit.
        """
        done = directions.start

        def counted(part: slice) -> None:
            nonlocal done
            work(slice(directions.start + part.start, directions.start + part.stop))
            done = directions.start + part.stop

        try:
            self._in_chunks(kind, directions.stop - directions.start, chunk, n_examples, counted)
        except MemoryError:
            if n_examples == 1:
                raise
        return done

    def _in_chunks(self, kind: str, k: int, most: int, n_examples: int, work: Callable[[slice], None]) -> None:
        """Work on ``range(k)`` in equal shares of at most ``most`` and of what fitted before; where memory is short,
        what fits is kept (few items say nothing about how many fit)."""
        most = min(most, self._fitting.get(kind, sys.maxsize) // n_examples)
        share = _equal_share(k, max(1, most))
        fitted = chunked(k, share, work)
        if fitted < share:
            self._fitting[kind] = fitted * n_examples

    def _examples_chunk(self, batch: MiniBatch) -> int:
        bytes_each = self._activation_bytes(batch)
        limit = max(1, int(self._budget() / (4 * bytes_each)))
        if self.device.type == "cpu":
            limit = min(limit, max(1, _CPU_EXAMPLES // bytes_each))
        return _equal_share(len(batch), min(limit, self._most_examples))

    def _budget(self) -> float:
        free = free_memory(self.device)
        return _MEMORY_SHARE * (free if self.memory_budget is None else min(free, self.memory_budget))

    def is_zero(self, batch: MiniBatch) -> bool:
        """Whether autograd sees no way from the parameters to the output, as of a forward under no_grad."""
        self._activation_bytes(batch)
        return self._is_zero

    def _activation_bytes(self, batch: MiniBatch) -> int:
        """Bytes that the backward pass of one example saves: the unit in which chunks are sized."""
        if self._bytes_per_example is None:
            total = 0

            def count(t: Tensor) -> Tensor:
                nonlocal total
                total += t.numel() * t.element_size()
                return t.detach()  # the output itself would hold its own graph

            hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda t: t)
            with torch.enable_grad(), self._products(), hooks:
                theta = self.parameters.vector.clone().requires_grad_()
                output = self.parameters.call(theta, batch.inputs[:1], [e[:1] for e in batch.extras])
            self._is_zero = not output.requires_grad
            weights = self.n_parameters * self.parameters.vector.element_size()
            state = math.prod(batch.targets.shape[1:]) * self.parameters.vector.element_size()
            self._bytes_per_example = max(total - weights, state, 1)
        return self._bytes_per_example


def _equal_share(n: int, most: int) -> int:
    """The chunk, at most ``most``, that splits n evenly: a last chunk of two would cost as much as one of ten."""
    return math.ceil(n / math.ceil(n / most)) if n else 1


def _push(forward: Callable[[Tensor], Tensor], theta: Tensor, tangent: Tensor) -> Tensor:
    return jvp(forward, (theta,), (tangent,))[1]


def _push_backward(forward: Callable[[Tensor], Tensor], theta: Tensor, tangents: Tensor, batched: bool) -> Tensor:
    """``J v`` as the derivative of ``(Jᵀu)·v`` with respect to u: ``(k, P) → (k, n, C, …)``."""
    with torch.enable_grad():
        theta = theta.clone().requires_grad_()
        y = forward(theta)
        zero = torch.zeros(len(tangents), *y.shape, dtype=y.dtype, device=y.device)
        if not y.requires_grad:
            return zero
        u = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, theta, u, create_graph=True, materialize_grads=True)
        if not pulled.requires_grad:
            return zero
        if batched:
            return torch.autograd.grad(pulled, u, tangents, is_grads_batched=True, materialize_grads=True)[0].detach()
        rows = [torch.autograd.grad(pulled, u, t, retain_graph=True, materialize_grads=True)[0] for t in tangents]
        return torch.stack(rows).detach()
