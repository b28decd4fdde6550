"""Types of the Rust core."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "__version__",
    "bin_sums",
    "bootstrap_multiplicities",
    "combine_into",
    "cross_gram",
    "derivative_into",
    "euler_solve",
    "gram",
    "lie_derivative_into",
    "pairwise_distance",
    "pooled_quantiles",
    "richardson",
    "standardize",
    "translation_defect",
]

__version__: str

_Labels = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

def standardize(
    values: np.ndarray, kind: str, losses: np.ndarray | None = None, num_threads: int | None = None
) -> tuple[np.ndarray, int]: ...
def pooled_quantiles(
    values: Sequence[np.ndarray],
    labels: _Labels,
    clusters: np.ndarray,
    kind: str,
    size: int,
    quantiles: Sequence[float],
    multiplicities: np.ndarray | None = None,
    num_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]: ...
def bin_sums(
    values: Sequence[np.ndarray],
    labels: _Labels,
    clusters: np.ndarray,
    kind: str,
    size: int,
    distances: Sequence[np.ndarray] | None = None,
    edges: np.ndarray | None = None,
    num_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]: ...
def bootstrap_multiplicities(
    group_sizes: Sequence[int], n_resamples: int, seed: int, hierarchical: bool
) -> np.ndarray: ...
def translation_defect(values: np.ndarray, labels: _Labels, accuracy_order: int = 2) -> float: ...
def derivative_into(
    out: np.ndarray,
    fields: np.ndarray,
    axis: int,
    accuracy_order: int,
    spacing: float,
    num_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> None: ...
def lie_derivative_into(
    out: np.ndarray,
    fields: np.ndarray,
    kinds: Sequence[tuple[str, int]],
    generator: str,
    accuracy_order: int,
    spacing: tuple[float, float],
    num_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> None: ...
def richardson(
    ladder: np.ndarray, ratio: float, order: float, increment: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

# --- contraction: a 2-D array (float32, float64, float16; uint16 read as bfloat16 when asked), a file as
# (path, offset, dtype, (n, K), mapped), or a list of these, stacked by rows
_File: TypeAlias = tuple[str, int, str, tuple[int, int], bool]
_Matrix: TypeAlias = NDArray[Any] | _File | list[Any]

def gram(
    a: _Matrix,
    products: str = "float64",
    num_threads: int | None = None,
    bfloat16: bool = False,
    callback: Callable[[int], object] | None = None,
) -> NDArray[np.float64]: ...
def cross_gram(
    a: _Matrix,
    b: _Matrix,
    products: str = "float64",
    num_threads: int | None = None,
    bfloat16: bool = False,
    callback: Callable[[int], object] | None = None,
) -> NDArray[np.float64]: ...
def combine_into(
    coefficients: NDArray[np.float64],
    q: _Matrix,
    rows: NDArray[np.float64],
    num_threads: int | None = None,
    callback: Callable[[int], object] | None = None,
) -> None: ...
def euler_solve(
    primitives: NDArray[np.float64],
    out: NDArray[np.float32] | NDArray[np.float64],
    interval: float,
    gamma: float,
    cfl: float,
    refinement: int = 1,
    num_threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> NDArray[np.uint64]: ...
def pairwise_distance(
    states: NDArray[Any], num_threads: int | None = None, callback: Callable[[int], object] | None = None
) -> NDArray[np.float64]: ...
