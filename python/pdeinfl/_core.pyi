"""Types of the Rust core."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__version__: str

# --- contraction: a 2-D array (float32, float64, float16; uint16 read as bfloat16 when asked), or a list of them stacked
_Matrix: TypeAlias = NDArray[Any] | list[NDArray[Any]]

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
