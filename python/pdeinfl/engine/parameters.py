"""A module's parameters as one flat real vector, and the module as a function of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from pdeinfl.arguments import is_listed


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, `DataParallel` and `DistributedDataParallel`, whose parameters it shares."""
    while True:
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for every submodule; on leaving, each gets back its own flag and every attribute that ``forward`` set.

    Recurrent layers and the older weight norm keep tensors of the last call as attributes.
    """
    held = [(m, m.training, dict(vars(m))) for m in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for m, training, before in held:
            m.training = training
            now = vars(m)
            for name in [name for name in now if name not in before]:
                del now[name]
            now.update(before)


class FlatParameters:
    """The selected parameters of a module as a flat real vector ``(P,)`` in the product dtype.

    A tied parameter counts once, a complex one as its real and imaginary parts. Everything the module computes with is
    a copy: its own weights, buffers and gradients are never touched.

    Args:
        module: any module.
        patterns: shell patterns (``blocks.*.weight``) of the parameter names that count; default all that require
            gradients. A selected parameter counts whether it is frozen or not.
        device, dtype: where and in which real dtype products run.

    Raises:
        ValueError: a pattern matches nothing, or no parameter is left.
    """

    def __init__(
        self, module: nn.Module, patterns: str | Sequence[str] | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        module = unwrapped(module)
        self.module = module
        named = dict(module.named_parameters())
        if patterns is None:
            chosen = [name for name, p in named.items() if p.requires_grad]
            if not chosen:
                raise ValueError("the module has no parameter that requires gradients: select some with `parameters`")
        else:
            wanted: tuple[Any, ...] = tuple(patterns) if is_listed(patterns) else (patterns,)
            for pattern in wanted:
                if not isinstance(pattern, str) or not any(fnmatchcase(name, pattern) for name in named):
                    raise ValueError(f"`parameters`: {pattern!r} matches none of {', '.join(named)}")
            chosen = [name for name in named if any(fnmatchcase(name, pattern) for pattern in wanted)]
        complex_dtype = {torch.float64: torch.complex128}.get(dtype, torch.complex64)

        def convert(t: Tensor) -> Tensor:
            t = t.detach()
            if t.is_complex():
                return t.to(device, complex_dtype, copy=True)
            return t.to(device, dtype if t.is_floating_point() else t.dtype, copy=True)

        self.names = tuple(chosen)
        self.device, self.dtype = device, dtype
        selected = [convert(named[name]) for name in chosen]
        self._shapes = [t.shape for t in selected]
        self._complex = [t.is_complex() for t in selected]
        self._sizes = [math.prod(t.shape) * (2 if t.is_complex() else 1) for t in selected]
        self._constants = {name: convert(p) for name, p in named.items() if name not in set(chosen)}
        self._buffers = {name: convert(b) for name, b in module.named_buffers()}
        self.vector = torch.cat([self._real(t).reshape(-1) for t in selected])

    def __len__(self) -> int:
        return len(self.vector)

    @staticmethod
    def _real(t: Tensor) -> Tensor:
        return torch.view_as_real(t) if t.is_complex() else t

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Named parameters from a flat vector ``(P,)``; differentiable, and batched under ``vmap``."""
        out = {}
        for name, piece, shape, is_complex in zip(
            self.names, vector.split(self._sizes), self._shapes, self._complex, strict=True
        ):
            out[name] = torch.view_as_complex(piece.view(*shape, 2)) if is_complex else piece.view(shape)
        return out

    def call(self, vector: Tensor, inputs: Tensor, extras: Sequence[Tensor] = ()) -> Tensor:
        """The module's output for a batch of inputs at the parameters ``vector``."""
        # Clones: a module may write to its buffers and inputs in place.
        buffers = {name: b.clone() for name, b in self._buffers.items()}
        state = {**self._constants, **buffers, **self.unflatten(vector)}
        arguments = tuple(t.clone() for t in (inputs, *extras))
        output = torch.func.functional_call(self.module, state, arguments, tie_weights=True)
        if not isinstance(output, Tensor) or output.is_complex():
            got = "a complex tensor" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(
                f"the module must return the next state as one real tensor; got {got}: "
                f"pick it with `pi.Adapter(module, output=...)`"
            )
        return output.to(self.dtype)
