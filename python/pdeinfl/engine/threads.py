"""The number of CPU threads of one call, for PyTorch and the Rust core alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from pdeinfl.arguments import check_count

_num_threads: ContextVar[int | None] = ContextVar("num_threads", default=None)


def num_threads() -> int | None:
    """What the innermost :func:`thread_limit` asked for; None leaves each library its default."""
    return _num_threads.get()


@contextmanager
def thread_limit(n: int | None) -> Iterator[None]:
    """Run PyTorch and the Rust core with n threads, then restore PyTorch's number.

    Raises:
        ValueError: n is not a positive integer.
    """
    if n is None:
        yield
        return
    n = check_count("num_threads", n)
    before, token = torch.get_num_threads(), _num_threads.set(n)
    try:
        torch.set_num_threads(n)
        yield
    finally:
        torch.set_num_threads(before)
        _num_threads.reset(token)
