"""Circular padding whose backward pass copies a gradient once for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class LeanCircularPadding(TorchFunctionMode):
    """Within, ``F.pad(mode="circular")``, which periodic convolutions call, has the same value by another way.

    PyTorch writes five slices into an empty tensor; the backward pass of each write fills, copies and adds a tensor of
    the padded size, two thirds of a VJP of a small convolutional net. Here an axis is split into three and joined from
    five: its backward pass cuts the gradient into views and joins three. Forward mode gains nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.pad:
            return func(*args, **kwargs)
        return _pad(*args, **kwargs)


def _pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    n_axes = len(pad) // 2
    if mode != "circular" or value is not None or len(pad) % 2 or n_axes + 2 != input.ndim:
        return F.pad(input, pad, mode, value)
    axes = [(input.ndim - 1 - k, pad[2 * k], pad[2 * k + 1]) for k in range(n_axes)]
    if any(min(before, after) < 0 or before + after > input.shape[axis] for axis, before, after in axes):
        return F.pad(input, pad, mode, value)
    for axis, before, after in axes:
        first, middle, last = input.split([after, input.shape[axis] - before - after, before], axis)
        input = torch.cat([last, first, middle, last, first], axis)
    return input
