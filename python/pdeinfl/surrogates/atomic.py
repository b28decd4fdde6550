"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_SUFFIX = ".partial"


@contextmanager
def write_atomically(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write to: on a clean exit it reaches the disk and is renamed to ``path``, else it is removed."""
    path = Path(path)
    partial = path.with_name(path.name + _SUFFIX)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    # The rename itself survives a power cut only once the directory is on disk.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_partial_files(directory: str | Path) -> None:
    """Delete what a killed process left half-written."""
    for partial in Path(directory).glob(f"*{_SUFFIX}"):
        partial.unlink(missing_ok=True)
