"""Precision of a module's products: float64 all the way, also where its code names float32; float32, TF32, bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
# By name: not every release types the complex casts.
_CASTS: dict[Any, Callable[..., Any]] = {
    getattr(Tensor, narrow): getattr(Tensor, wide)
    for narrow, wide in (("float", "double"), ("half", "double"), ("bfloat16", "double"), ("cfloat", "cdouble"))
}


class _Widening(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.dtype.__get__:  # type: ignore[attr-defined]
            return func(*args)
        kwargs = {k: _wider(v) for k, v in (kwargs or {}).items()}
        return _CASTS.get(func, func)(*(_wider(a) for a in args), **kwargs)


def _wider(argument: Any) -> Any:
    return _WIDER.get(argument, argument) if isinstance(argument, torch.dtype) else argument


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Within, every floating dtype that a call names is float64 (complex128), and so is the default dtype.

    Fourier layers write their modes into ``zeros(..., dtype=complex64)``: without this the float64 products that
    measure rounding would be rounded to float32 themselves.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widening():
            yield
    finally:
        torch.set_default_dtype(default)


PRODUCT_DTYPES = ("float32", "tf32", "bfloat16", "float64")


@contextmanager
def float32_products(kind: str, device: torch.device) -> Iterator[None]:
    """Within, matrix products and convolutions of float32 tensors have the precision of their name.

    PyTorch's own default rounds the convolutions of CUDA devices to TF32; ``"float32"`` does not. ``"bfloat16"`` is
    autocast: operands rounded to bfloat16, tensors between operations bfloat16 or float32 as autocast decides.
    """
    places: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    name, value = "allow_tf32", kind == "tf32"  # type: str, bool | str
    if hasattr(torch.backends.cudnn, "conv"):
        # PyTorch 2.9 and later: a string per operation; reading the old flags after setting these raises.
        places = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
        name, value = "fp32_precision", "tf32" if kind == "tf32" else "ieee"
    before = [getattr(place, name) for place in places]
    narrow = torch.autocast(device.type, torch.bfloat16, enabled=kind == "bfloat16", cache_enabled=False)
    try:
        for place in places:
            setattr(place, name, value)
        with narrow:
            yield
    finally:
        for place, old in zip(places, before, strict=True):
            setattr(place, name, old)
