"""Per-example gradients on disk: rows that are whole or not there, read in place by the contraction."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdeinfl.arguments import check_one_of
from pdeinfl.atomic import sync
from pdeinfl.contraction import FileMatrix, gram
from pdeinfl.engine.threads import num_threads

_FORMAT, _VERSION = "pdeinfl gradients", 1
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Largest magnitude of a stored row, a power of two: what float16 has below it spans 2**39.
_LARGEST = {"float32": None, "bfloat16": 1.0, "float16": 2.0**14}
# Relative error of a stored row, beside that of its float32 entries.
ROUNDOFF = {"float32": 0.0, "bfloat16": 2.0**-8, "float16": 2.0**-11}


@dataclass(frozen=True)
class _Row:
    """Where a row lies: the writer's matrix, the row in it, its scale and checksum."""

    matrix: Path
    position: int
    scale: float
    checksum: int


class GradientStore:
    r"""A folder of gradients ``g`` ``(P,)`` under string keys, appended by any number of processes.

    Each writer (a rank) has two files of its own: ``<writer>.rows``, the rows one after the other, little-endian and
    without gaps, and ``<writer>.index``, a line for each with its key, scale and CRC-32, under a header. A row counts
    once its line is there, and the line is written when the row is on the disk: a process killed at any moment leaves
    whole rows, and the next writer of that name cuts off what follows them. Readers see the rows of all writers; of two
    rows with one key the first in the order of the writers' names counts.

    A row takes 4P bytes (``float32``) or 2P, plus about 60 bytes and its key. 16-bit rows are scaled by a power of two
    so that their largest entry lies between 1 and 2 (``bfloat16``) or at 2¹⁴ (``float16``, which then spans 2³⁹ below
    it): rounding moves a row by at most 2⁻⁸ or 2⁻¹¹ of its norm (`ROUNDOFF`).

    Args:
        path: the folder; made where it is not.
        n_parameters: P; may be left out for reading.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; likewise.
        provenance: plain values that must be the same in all files, such as the digest of the checkpoint.

    Raises:
        ValueError: the folder holds gradients of another length, dtype or provenance.
        OSError: it holds nothing and P is not given; a file is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_parameters: int | None = None,
        dtype: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        if dtype is not None:
            check_one_of("dtype", dtype, _DTYPES)
        wanted = {"n_parameters": n_parameters, "dtype": dtype, "provenance": provenance and dict(provenance)}
        wanted = json.loads(json.dumps({k: v for k, v in wanted.items() if v is not None}))
        header: dict[str, Any] = dict(wanted)
        for index in sorted(self.path.glob("*.index")):
            held = _header(index)
            if held is None:
                continue
            for name, value in wanted.items():
                if held[name] != value:
                    raise ValueError(f"{index} holds gradients with {name} {held[name]!r}, not {value!r}")
            header = held
        if "n_parameters" not in header:
            raise OSError(f"no gradients at {self.path}: give `n_parameters` to start a store")
        self.n_parameters = int(header["n_parameters"])
        self.dtype = str(header.get("dtype", "float32"))
        self.provenance: Mapping[str, Any] = header.get("provenance") or {}
        self._rows: dict[str, _Row] = {}
        self.refresh()

    def refresh(self) -> None:
        """See what other writers have added since."""
        self._rows = {}
        for index in sorted(self.path.glob("*.index")):
            for key, row in self._whole_rows(index):
                self._rows.setdefault(key, row)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def keys(self) -> list[str]:
        """Keys of the whole rows."""
        return list(self._rows)

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Those that are not here."""
        return [key for key in keys if key not in self._rows]

    @property
    def bytes_per_row(self) -> int:
        """Of the matrix."""
        return self.n_parameters * _DTYPES[self.dtype].itemsize

    def __getitem__(self, key: str) -> Tensor:
        """One gradient, float32 ``(P,)``, checked against its checksum.

        Raises:
            KeyError: no such row. OSError: it is damaged.
        """
        row = self._rows[key]
        with open(row.matrix, "rb") as file:
            file.seek(row.position * self.bytes_per_row)
            content = file.read(self.bytes_per_row)
        if len(content) != self.bytes_per_row or zlib.crc32(content) != row.checksum:
            raise OSError(
                f"{row.matrix}: row {row.position} ({key}) is damaged: delete the store, or its writer's files"
            )
        values = torch.frombuffer(bytearray(content), dtype=_DTYPES[self.dtype]).float()
        return values * row.scale

    def verify(self) -> None:
        """Read every row against its checksum.

        Raises:
            OSError: one is damaged; the message names it.
        """
        for key in self._rows:
            self[key]

    def gram(self, keys: Sequence[str], others: Sequence[str] | None = None, products: str = "float64") -> np.ndarray:
        """Inner products of rows with each other, or with other rows, out of core: float64 ``(n, n)`` or ``(n, m)``.

        Memory beside the result as `pi.gram` on files.

        Raises:
            KeyError: no such row. OSError: a file is missing or too short.
        """
        left, scale = self._matrix(keys)
        right, other_scale = (None, scale) if others is None else self._matrix(others)
        out = gram(left, right, products, num_threads())  # type: ignore[arg-type]
        out *= scale[:, None]
        out *= other_scale
        return out

    def _matrix(self, keys: Sequence[str]) -> tuple[list[FileMatrix], np.ndarray]:
        """The rows as stretches of the writers' files, and their scales."""
        rows = [self._rows[key] for key in keys]
        stretches: list[list[_Row]] = []
        for row in rows:
            last = stretches[-1][-1] if stretches else None
            if last is not None and (last.matrix, last.position + 1) == (row.matrix, row.position):
                stretches[-1].append(row)
            else:
                stretches.append([row])
        matrices = [
            FileMatrix(s[0].matrix, s[0].position * self.bytes_per_row, self.dtype, (len(s), self.n_parameters))
            for s in stretches
        ]
        return matrices, np.array([row.scale for row in rows])

    def _whole_rows(self, index: Path) -> Iterator[tuple[str, _Row]]:
        """Rows of a writer whose line is whole and whose bytes are there."""
        matrix = index.with_suffix(".rows")
        length = matrix.stat().st_size if matrix.is_file() else 0
        for position, (_, record) in enumerate(_lines(index, skip_header=True)):
            if (position + 1) * self.bytes_per_row > length:
                return
            yield record["key"], _Row(matrix, position, record["scale"], record["crc"])

    def writer(self, name: str = "0") -> GradientWriter:
        """Append under a writer's name, one process at a time for each.

        Raises:
            ValueError: another process writes under that name. OSError: the folder cannot be written.
        """
        return GradientWriter(self, name)


class GradientWriter:
    """Appends rows to a `GradientStore`; a context manager. Made by `GradientStore.writer`."""

    def __init__(self, store: GradientStore, name: str) -> None:
        if not name or set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"):
            raise ValueError(f"`name` of a writer must be letters, digits, - and _; got {name!r}")
        self.store = store
        store.path.mkdir(parents=True, exist_ok=True)
        self._index_path = store.path / f"{name}.index"
        self._rows_path = store.path / f"{name}.rows"
        with _one_line(store.path):
            # Unbuffered: an error leaves nothing behind that a later close would try to write again.
            self._index = open(self._index_path, "a+b", buffering=0)  # noqa: SIM115
            try:
                fcntl.flock(self._index, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._index.close()
                raise ValueError(f"another process writes {self._index_path}: choose another writer's name") from None
            self._rows = open(self._rows_path, "a+b", buffering=0)  # noqa: SIM115
            self._recover()

    def _recover(self) -> None:
        """Cut off what is not whole; write the header where there is none."""
        if _header(self._index_path) is None:
            self._index.truncate(0)
            self._n_rows = 0
            content = {
                "format": _FORMAT,
                "version": _VERSION,
                "n_parameters": self.store.n_parameters,
                "dtype": self.store.dtype,
                "provenance": dict(self.store.provenance),
            }
            self._write(self._index, _line(content))
            sync(self.store.path)
        else:
            whole = list(self.store._whole_rows(self._index_path))
            self._n_rows = len(whole)
            ends = [end for end, _ in _lines(self._index_path)]
            self._index.truncate(ends[self._n_rows])
        self._rows.truncate(self._n_rows * self.store.bytes_per_row)
        self._end = os.fstat(self._index.fileno()).st_size

    def append(self, keys: Sequence[str], gradients: Tensor) -> None:
        """Store rows ``(k, P)``, any floating dtype; on return they are on the disk.

        Raises:
            ValueError: a wrong shape, NaN or infinity, or a key that is already there.
            OSError: the disk is full; the rows that were whole stay so, and the writer goes on where they end.
        """
        store = self.store
        if isinstance(keys, str):
            raise ValueError(f"`keys` must be a list of names, one per row; got the string {keys!r}")
        if tuple(gradients.shape) != (len(keys), store.n_parameters):
            raise ValueError(
                f"`gradients` must have shape ({len(keys)}, {store.n_parameters}); got {tuple(gradients.shape)}"
            )
        for k, key in enumerate(keys):
            if key in store or key in keys[:k]:
                raise ValueError(f"the store already holds {key!r}: ask `missing` which rows to compute")
        finite = torch.isfinite(gradients).all(1)
        if not bool(finite.all()):
            raise ValueError(f"the gradient {keys[int((~finite).nonzero()[0, 0])]!r} is not finite")
        contents, lines, rows = [], [], []
        for k, key in enumerate(keys):
            stored, scale = _scaled(gradients[k], store.dtype)
            content = stored.view(torch.uint8).numpy().tobytes()
            contents.append(content)
            row = _Row(self._rows_path, self._n_rows + k, scale, zlib.crc32(content))
            lines.append(_line({"key": key, "scale": scale, "crc": row.checksum}))
            rows.append(row)
        with _one_line(self._rows_path):
            try:
                for content in contents:
                    self._write(self._rows, content)
                os.fsync(self._rows.fileno())
                self._write(self._index, b"".join(lines))
                os.fsync(self._index.fileno())
            except BaseException:
                self._index.truncate(self._end)
                self._rows.truncate(self._n_rows * store.bytes_per_row)
                raise
        self._n_rows += len(keys)
        self._end += sum(map(len, lines))
        for key, row in zip(keys, rows, strict=True):
            store._rows[key] = row

    @staticmethod
    def _write(file: Any, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]

    def close(self) -> None:
        """Close the files; another process may then write under this name."""
        self._rows.close()
        self._index.close()

    def __enter__(self) -> GradientWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _scaled(row: Tensor, dtype: str) -> tuple[Tensor, float]:
    """The stored form of a row, on the CPU, and the power of two that takes it back."""
    largest = _LARGEST[dtype]
    row = row.detach().cpu()
    if largest is None:
        return row.float().contiguous(), 1.0
    top = float(row.abs().max()) if len(row) else 0.0
    scale = 2.0 ** (math.frexp(top)[1] - math.frexp(largest)[1]) if top > 0 else 1.0
    return (row.double() / scale).to(_DTYPES[dtype]).contiguous(), scale


def _line(content: Mapping[str, Any]) -> bytes:
    """A line of an index: its CRC-32, then JSON."""
    text = json.dumps(content, sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(index: Path, skip_header: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole lines up to the first that is not: the byte where each ends, and its content."""
    end = 0
    for k, line in enumerate(io.BytesIO(index.read_bytes())):
        check, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(text):
            return
        end += len(line)
        if not (skip_header and k == 0):
            yield end, json.loads(text)


def _header(index: Path) -> dict[str, Any] | None:
    """The first line of an index; None where none is whole (a writer was killed as it started).

    Raises:
        ValueError: the file is something else, or of another version.
    """
    first = next(_lines(index), None)
    if first is None:
        if b"\n" in index.read_bytes()[:4096]:
            raise ValueError(f"{index} is not an index of gradients, or its header is damaged")
        return None
    header = first[1]
    if header.get("format") != _FORMAT or header.get("version") != _VERSION:
        raise ValueError(f"{index} is not an index of gradients of version {_VERSION}")
    return header


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


__all__ = ["ROUNDOFF", "GradientStore", "GradientWriter"]
