"""A CUDA device for machines that have none: its tensors are on the CPU, and refuse to meet others as on a real one.

Within `pretended_card`, ``.to("cuda:0")``, factories such as ``torch.zeros(…, device="cuda:0")`` and modules moved
there give tensors that say they are on ``cuda:0``. Every operation is computed by the CPU, after a check of devices: an
operand on the CPU is refused unless it is a number or an index, ``numpy()`` is refused, and copies, ``item()`` and the
like are the only ways out. It shows where data are in the wrong place; not how fast a kernel is, nor how cuBLAS rounds.
Autocast, cuDNN and ``torch.tensor(…, device=…)`` are not pretended; a copy to where a tensor is already copies.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("cuda", 0)
# What PyTorch's own code sees: a device that needs no driver and whose autograd runs on the calling thread.
_INSIDE = torch.device("lazy", 0)
_ATEN = torch.ops.aten


class OnCard(torch.Tensor):
    """A tensor that claims to be on the card; ``held`` has its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CARD)
    is_cuda = property(lambda self: True)

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, device=_INSIDE, **layout)

    def __init__(self, held):
        self.held = held

    def __getitem__(self, index):
        return super().__getitem__(_with_tensors(index))

    def __setitem__(self, index, value):
        super().__setitem__(_with_tensors(index), value)

    def __repr__(self):
        return f"OnCard({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


class _EverythingPassesHere(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {})


def _with_tensors(index):
    """The index with its lists and arrays as tensors, which PyTorch would put on the device by itself."""
    if isinstance(index, tuple):
        return tuple(map(_with_tensors, index))
    return torch.as_tensor(index) if isinstance(index, list | np.ndarray) else index


def _is_the_card(device):
    return device is not None and torch.device(device).type in ("cuda", _INSIDE.type)


# Their second argument may be on the CPU.
_INDEXED = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}
_INDEXED |= {_ATEN._unsafe_index.Tensor, _ATEN._unsafe_index_put.default}


def _refuse_mixing(func, args, tensors):
    indices = {id(i) for i in args[1] if i is not None} if func in _INDEXED else ()
    for t in tensors:
        if not isinstance(t, OnCard) and t.ndim and id(t) not in indices:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({func})")


def _computed(func, args, kwargs):
    tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
    on_card = [t for t in tensors if isinstance(t, OnCard)]
    asked = kwargs.get("device")
    if not on_card and not _is_the_card(asked):
        return func(*args, **kwargs)
    if func is _ATEN.copy_.default:
        result_on_card = isinstance(args[0], OnCard)
    else:
        if func is not _ATEN._to_copy.default:
            _refuse_mixing(func, args, tensors)
        result_on_card = bool(on_card) if asked is None else _is_the_card(asked)
    ours = {id(t.held): t for t in on_card}

    def on_cpu(a):
        if isinstance(a, OnCard):
            return a.held
        return torch.device("cpu") if isinstance(a, torch.device) and _is_the_card(a) else a

    def from_cpu(a):
        if not isinstance(a, torch.Tensor):
            return a
        if id(a) in ours:
            return ours[id(a)]
        return OnCard(a) if result_on_card else a

    out = func(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():  # the shape that PyTorch sees changes, too
            args[0].data = OnCard(args[0].held)
    if func is _ATEN._efficientzerotensor.default:
        out = torch.zeros(out.shape, dtype=out.dtype)
    return tree_map(from_cpu, out)


@contextmanager
def pretended_card(monkeypatch, free=4 << 30):
    """A card with ``free`` bytes of memory, which nothing uses up."""
    answers = {"_lazy_init": None, "is_available": True, "device_count": 1, "current_device": 0, "empty_cache": None}
    answers |= {"mem_get_info": (free, 2 * free), "memory_reserved": 0, "memory_allocated": 0}
    answers |= {"get_rng_state": torch.zeros(16, dtype=torch.uint8), "set_rng_state": None}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        monkeypatch.setattr(torch.optim.Optimizer, name, lambda self: None, raising=False)
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _EverythingPassesHere():
            yield CARD
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
