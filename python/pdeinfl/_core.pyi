"""Types of the Rust core."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__version__: str

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
def pairwise_distance(
    states: NDArray[Any], num_threads: int | None = None, callback: Callable[[int], object] | None = None
) -> NDArray[np.float64]: ...
