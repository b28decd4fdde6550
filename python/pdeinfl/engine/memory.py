"""Free memory, and loops that shrink their chunks when memory runs out."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def _meminfo_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 * 2**30


def _cgroup_available() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device: the CUDA driver's figure plus what PyTorch caches, or the smaller
    of the system's available memory and the control group's remainder."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    group = _cgroup_available()
    system = _meminfo_available()
    return system if group is None else max(0, min(system, group))


def return_freed_memory() -> None:
    """Have the allocator give what is free back to the system: glibc keeps the aligned blocks that PyTorch frees, and
    takes as much again for the next ones. Does nothing with another allocator."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that an allocation failed, on any device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in message or "can't allocate memory" in message)


def chunked(n: int, chunk: int, work: Callable[[slice], None]) -> int:
    """Call ``work`` on consecutive slices of ``range(n)``, halving the slice and retrying when memory runs out.

    Returns:
        The chunk size that fitted, to start with next time.

    Raises:
        MemoryError: one item alone does not fit.
    """
    chunk = max(1, min(chunk, n))
    start = 0
    while start < n:
        failed = False
        try:
            work(slice(start, min(start + chunk, n)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if chunk == 1:
                raise MemoryError(
                    "one Jacobian product does not fit in memory: "
                    "use a smaller resolution or model, or a device with more memory"
                ) from error
            failed = True
        if failed:  # outside the handler: the traceback would keep the failed chunk's tensors alive
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            chunk = max(1, chunk // 2)
            continue
        start += chunk
    return chunk
