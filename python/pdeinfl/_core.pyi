"""Types of the Rust core."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__version__: str

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
