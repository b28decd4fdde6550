"""Gram matrices of very long rows, in memory or in files, and pairwise distances of states."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from pdeinfl import _core
from pdeinfl.arguments import check_count, check_one_of

_DTYPES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
_FLOATS = ("float32", "float64", "float16")


@dataclass(frozen=True)
class FileMatrix:
    """A row-major matrix that stays in a file and is read in bounded pieces.

    Args:
        path: the file.
        offset: byte at which the first element starts.
        dtype: ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``, little-endian.
        shape: ``(n, K)``.
        mapped: map the file instead of reading it; a mapped file must not shrink while it is used.

    Raises:
        ValueError: an argument is negative or unknown.
        FileNotFoundError: there is no such file.
        OSError: the file is too short for the shape.
    """

    path: str | os.PathLike[str]
    offset: int
    dtype: str
    shape: tuple[int, int]
    mapped: bool = False

    def __post_init__(self) -> None:
        check_one_of("dtype", self.dtype, _DTYPES)
        if len(self.shape) != 2 or min(self.shape) < 0:
            raise ValueError(f"`shape` must be (n, K), both non-negative; got {self.shape}")
        if self.offset < 0:
            raise ValueError(f"`offset` must be a non-negative number of bytes; got {self.offset}")
        needed = self.offset + math.prod(self.shape) * _DTYPES[self.dtype]
        length = os.stat(self.path).st_size
        if length < needed:
            raise OSError(
                f"{os.fspath(self.path)}: {self.shape} {self.dtype} needs {needed} bytes; the file has {length}"
            )


def _of_dataset(name: str, dataset: Any) -> FileMatrix:
    where = f"`{name}`, the dataset {dataset.name} of {dataset.file.filename},"
    if dataset.chunks is not None or dataset.is_virtual or dataset.external:
        raise ValueError(f"{where} must be contiguous and uncompressed to be read in place; pass {name}[...]")
    if dataset.ndim != 2:
        raise ValueError(f"{where} must have shape (n, K); got {dataset.shape}")
    if dataset.dtype.name not in _FLOATS or dataset.dtype.newbyteorder("<") != dataset.dtype:
        raise ValueError(f"{where} must hold little-endian float32, float64 or float16; got {dataset.dtype}")
    dataset.file.flush()
    offset = dataset.id.get_offset()
    if offset is None:
        if dataset.size:
            raise ValueError(f"{where} has never been written")
        offset = 0
    return FileMatrix(dataset.file.filename, offset, dataset.dtype.name, dataset.shape)


def _of_array(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.name not in _FLOATS:
        raise ValueError(f"`{name}` must hold float32, float64 or float16; got {array.dtype}: convert it first")
    if array.ndim != 2:
        raise ValueError(f"`{name}` must have shape (n, K), rows to be contracted; got {array.shape}")
    if not array.dtype.isnative:
        raise ValueError(f"`{name}` must be in native byte order; got {array.dtype.str}: use .astype")
    rows_lie_in_order = array.strides[1] == array.itemsize and array.strides[0] >= 0
    whole = array.strides[0] % array.itemsize == 0 and array.flags.aligned
    return array if rows_lie_in_order and whole else np.ascontiguousarray(array)


def _of_tensor(name: str, tensor: Any) -> NDArray[Any]:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise ValueError(f"`{name}` must be on the CPU; got {tensor.device}: use .cpu()")
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype != torch.bfloat16:
        return _of_array(name, tensor.resolve_conj().numpy())
    if tensor.ndim != 2:
        raise ValueError(f"`{name}` must have shape (n, K), rows to be contracted; got {tuple(tensor.shape)}")
    if tensor.stride(1) != 1 and tensor.numel():
        tensor = tensor.contiguous()
    return cast(NDArray[Any], tensor.view(torch.int16).numpy().view(np.uint16))


def _source(name: str, matrix: Any) -> tuple[Any, tuple[int, int]]:
    """The form of a matrix that the core borrows, and its shape."""
    if isinstance(matrix, (list, tuple)):
        if not matrix:
            raise ValueError(f"`{name}` is an empty list; pass at least one matrix")
        parts = [_source(f"{name}[{k}]", part) for k, part in enumerate(matrix)]
        for k, (_, shape) in enumerate(parts):
            if shape[1] != parts[0][1][1]:
                raise ValueError(
                    f"`{name}` must stack rows of one length; {name}[0] has {parts[0][1][1]}, {name}[{k}] {shape[1]}"
                )
        return [part for part, _ in parts], (sum(shape[0] for _, shape in parts), parts[0][1][1])
    torch, h5py = sys.modules.get("torch"), sys.modules.get("h5py")
    if h5py is not None and isinstance(matrix, h5py.Dataset):
        matrix = _of_dataset(name, matrix)
    if isinstance(matrix, FileMatrix):
        rows, columns = (int(n) for n in matrix.shape)
        place = (os.fspath(matrix.path), matrix.offset, matrix.dtype, (rows, columns), matrix.mapped)
        return place, (rows, columns)
    if torch is not None and isinstance(matrix, torch.Tensor):
        matrix = _of_tensor(name, matrix)
    elif isinstance(matrix, np.ndarray):
        matrix = _of_array(name, matrix)
    else:
        raise ValueError(
            f"`{name}` must be an array, a CPU tensor, a contiguous h5py dataset, a FileMatrix or a list of these; "
            f"got {type(matrix).__name__}"
        )
    return matrix, matrix.shape


def gram(
    a: Any,
    b: Any = None,
    products: Literal["float64", "float32"] = "float64",
    num_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> NDArray[np.float64]:
    r"""The contraction over rows, :math:`a a^\top` or :math:`a b^\top`, in float64.

    The same bits for any number of threads. ``a aᵀ`` is exactly symmetric. NaN and infinity propagate. Memory beside
    arguments and result: per thread the packed panels (4 KiB a row, at most 1,020 rows a side) and, for files, about
    32 MiB a side; and a few partial results. Files are read by up to 8 threads more, some of which wait for the disk,
    and past the page cache where they are not in it.

    Args:
        a: ``(n, K)``, one of: NumPy array or memmap, CPU tensor (float32, float64, float16, also bfloat16 tensors;
            borrowed unless the elements of a row are apart), contiguous uncompressed h5py dataset, `FileMatrix` (both
            read in place), or a list of these, stacked by rows.
        b: ``(m, K)``, likewise; ``None`` for ``a``.
        products: ``"float64"``: products and sums in float64; products of narrower storage are exact. ``"float32"``:
            float32 products, summed in float32 in chains of 32 and by panels of 1,024, then in float64; about twice
            as fast.
        num_threads: default ``RAYON_NUM_THREADS``, else all cores.
        progress: called every 50 ms with the number of panels done.

    Returns:
        float64 ``(n, n)`` or ``(n, m)``.

    Raises:
        ValueError: a matrix is not 2-D or not floating point, lengths differ, or an option is unknown.
        OSError: a file is missing, too short or unreadable.

    Example:
        >>> gram(np.array([[1.0, 2.0], [0.0, 3.0]]))
        array([[5., 6.],
               [6., 9.]])
    """
    if products not in ("float64", "float32"):
        raise ValueError(f"`products` must be 'float64' or 'float32'; got {products!r}")
    if num_threads is not None:
        check_count("num_threads", num_threads)
    left, left_shape = _source("a", a)
    if b is None:
        return _core.gram(left, products, num_threads, True, progress)
    right, right_shape = _source("b", b)
    if left_shape[1] != right_shape[1]:
        raise ValueError(f"`a` and `b` must have rows of one length; got {left_shape[1]} and {right_shape[1]}")
    return _core.cross_gram(left, right, products, num_threads, True, progress)


def pairwise_distance(
    states: Any, num_threads: int | None = None, progress: Callable[[int], object] | None = None
) -> NDArray[np.float64]:
    r"""Distances of states, scaled per channel, in float64 (the abscissa of distance decay).

    .. math:: d_{ij} = \frac1C \sum_c \frac{\langle |x_{i,c} - x_{j,c}|^2 \rangle}
        {\tfrac12 (\mathrm{RMS}_{i,c} + \mathrm{RMS}_{j,c}) + 10^{-6}}

    with means over space. Computed through :func:`gram`; pairs that nearly cancel are summed again from differences, so
    that the relative error is at most ``1e3·eps·S``, S points, also between nearly equal states.

    Args:
        states: ``(n, C, ...)``, NumPy array or CPU tensor, float32, float64 or float16.
        num_threads: default ``RAYON_NUM_THREADS``, else all cores.
        progress: called every 50 ms with the number of panels done.

    Returns:
        float64 ``(n, n)``, symmetric, zero diagonal.

    Raises:
        ValueError: not floating point, fewer than three axes, or an axis other than the first is empty.

    Example:
        >>> float(pairwise_distance(np.array([[[1.0, 1.0]], [[3.0, 3.0]]]))[0, 1]) * (2 + 1e-6)
        4.0
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(states, torch.Tensor):
        if states.device.type != "cpu":
            raise ValueError(f"`states` must be on the CPU; got {states.device}: use .cpu()")
        states = states.detach().numpy() if states.dtype != torch.bfloat16 else states.detach().float().numpy()
    if not isinstance(states, np.ndarray) or states.dtype.name not in _FLOATS or not states.dtype.isnative:
        got = states.dtype if isinstance(states, np.ndarray) else type(states).__name__
        raise ValueError(f"`states` must be an array or CPU tensor of float32, float64 or float16; got {got}")
    if states.ndim < 3 or 0 in states.shape[1:]:
        raise ValueError(f"`states` must have shape (n, C, ...) with channels and points; got {states.shape}")
    points = math.prod(states.shape[2:])
    fields = np.ascontiguousarray(states).reshape(len(states), states.shape[1], points)
    return _core.pairwise_distance(fields, num_threads, progress)


__all__: Sequence[str] = ("FileMatrix", "gram", "pairwise_distance")
