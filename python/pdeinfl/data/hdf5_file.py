"""An HDF5 file that is opened when it is read, in whichever process reads it, and whose faults become one line."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_MAX_TRAJECTORIES = 2**31
_MAX_BYTES = 2**40  # of one trajectory


class HDF5File:
    """A file to read. Pickles and survives fork: each process opens its own handle at its first read.

    Args:
        path: the file.

    Raises:
        OSError: it does not exist, or cannot be read.
        ValueError: it is not HDF5, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._signature = self._stat()
        self._forget()
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_signature": self._signature}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._handle: Any = None
        self._pid = -1
        self._lock = threading.Lock()

    def _stat(self) -> tuple[int, int]:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise type(error)(error.errno, f"cannot read the file ({error.strerror})", str(self.path)) from None
        return status.st_size, status.st_mtime_ns

    def _open(self) -> Any:
        if self._pid != os.getpid():
            # A handle inherited through fork is dropped unused: its file offset and caches belong to the parent.
            try:
                self._handle = h5py.File(self.path, "r")
            except (OSError, RuntimeError, KeyError) as error:
                if isinstance(error, PermissionError | IsADirectoryError):
                    raise OSError(error.errno, f"cannot read the file ({error.strerror})", str(self.path)) from None
                raise ValueError(f"{self.path}: not an HDF5 file, or damaged ({_reason(error)})") from None
            self._pid = os.getpid()
        return self._handle

    def close(self) -> None:
        """Let go of this process's handle; the next reading opens another."""
        if self._pid == os.getpid() and self._handle is not None:
            self._handle.close()
        self._handle, self._pid = None, -1

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The ``h5py.File``, unchanged since this object was made; library errors inside become a ValueError."""
        if self._stat() != self._signature:
            raise ValueError(f"{self.path}: the file has changed since it was opened: open it again")
        with self._lock:
            try:
                yield self._open()
            except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
                if isinstance(error, ValueError) and str(self.path) in str(error):
                    raise
                raise ValueError(f"{self.path}: damaged file ({_reason(error)})") from None

    def read(self, dataset: str, selection: tuple[Any, ...], into: np.ndarray | None = None) -> np.ndarray:
        """``dataset[selection]``, nothing more of the file; written to ``into`` where given.

        Raises:
            ValueError: the file has changed, or that part of it cannot be read.
        """
        with self.opened() as file:
            try:
                if into is None:
                    return file[dataset][selection]
                file[dataset].read_direct(into, selection)
                return into
            except (OSError, RuntimeError, KeyError, TypeError) as error:
                where = ", ".join(_shown(s) for s in selection)
                raise ValueError(
                    f"{self.path}: cannot read dataset {dataset!r} at [{where}], truncated or damaged file "
                    f"({_reason(error)})"
                ) from None


def _shown(index: Any) -> str:
    if isinstance(index, slice):
        return f"{'' if index.start is None else index.start}:{'' if index.stop is None else index.stop}"
    return str(index)


def _reason(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip().strip("'\"") or type(error).__name__


def find_dataset(file: HDF5File, handle: Any, name: str) -> Any:
    """The ``h5py.Dataset`` of that name.

    Raises:
        ValueError: it is missing, or no dataset.
    """
    if name not in handle:
        held = ", ".join(sorted(handle)) or "nothing"
        raise ValueError(f"{file.path}: dataset {name!r} is missing; the file holds {held}")
    found = handle[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{file.path}: {name!r} must be a dataset; it is a {type(found).__name__.lower()}")
    return found


def describe_dataset(file: HDF5File, handle: Any, name: str, n_axes: int) -> tuple[int, ...]:
    """Shape of a float32 dataset with so many axes, none of them empty.

    Raises:
        ValueError: it is missing, no dataset, or has another dtype or number of axes.
    """
    dataset = find_dataset(file, handle, name)
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize != 4:
        raise ValueError(f"{file.path}: dataset {name!r} must be float32; got {dataset.dtype}")
    if dataset.ndim != n_axes or 0 in dataset.shape:
        raise ValueError(
            f"{file.path}: dataset {name!r} must have {n_axes} axes, none of them empty; got shape {dataset.shape}"
        )
    if dataset.shape[0] >= _MAX_TRAJECTORIES or 4 * math.prod(dataset.shape[1:]) >= _MAX_BYTES:
        raise ValueError(f"{file.path}: dataset {name!r} has the impossible shape {dataset.shape}: damaged file")
    check_extent(file, dataset)
    return dataset.shape


def check_extent(file: HDF5File, dataset: Any) -> None:
    """Refuse a contiguous dataset that reaches past the end of its file, which reading would fill with zeros."""
    offset = dataset.id.get_offset()
    if offset is not None and dataset.chunks is None:
        end, size = offset + dataset.id.get_storage_size(), file.path.stat().st_size
        if end > size:
            raise ValueError(f"{file.path}: truncated: dataset {dataset.name!r} ends at byte {end} of {size}")
