"""Devices by name."""

from __future__ import annotations

from typing import Any

import torch


def check_device(name: str, device: Any) -> torch.device:
    """The device, for None or an empty name the CPU; ValueError for meta and what is no device, or not there."""
    try:
        found = torch.device("cpu" if device is None or device == "" else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`{name}` must name a device such as cpu or cuda; got {device!r}: {error}") from None
    if found.type == "meta":
        raise ValueError(f"`{name}` must hold numbers; got {device!r}: use cpu or cuda")
    if found.type == "cuda" and (not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"`{name}` must be available; got {device!r}: this machine has {_cuda_devices()}")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"`{name}` must be available; got {device!r}: this machine has no MPS device, use cpu")
    return found


def _cuda_devices() -> str:
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"{n} CUDA device(s)" if n else "no CUDA device, use cpu"
