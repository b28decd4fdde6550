"""Common scales for influence matrices of different mini-batches, seeds and surrogates (MATH §4)."""

from __future__ import annotations

import numpy as np

from pdeinfl import _core

KINDS = ("standard", "cosine", "trace", "by_response", "by_perturbation", "loss", "none")


def standardize_values(
    values: np.ndarray, kind: str = "standard", losses: np.ndarray | None = None, num_threads: int | None = None
) -> tuple[np.ndarray, int]:
    """A stack of influence matrices on a common scale, and the number of rows without one.

    ``standard`` (the paper's, §5.1) divides row i by the sample standard deviation (ddof 1) of ``H[i, :]``; a diagonal
    H then has ``√N`` on its diagonal. ``cosine``: ``H_ij / √(H_ii H_jj)``; ``trace``: by ``tr H / N``;
    ``by_response`` / ``by_perturbation``: by ``H_ii`` / ``H_jj``; ``loss``: by the response example's loss.

    Args:
        values: ``(m, n_response, n_perturbation)`` or one matrix, float64; NaN entries are left out.
        kind: one of `KINDS`.
        losses: ``(m, n_response)`` or ``(n_response,)``, for ``kind="loss"``.
        num_threads: threads of the core.

    Returns:
        The standardised copy, and how many rows (for ``cosine``: rows and columns, for ``by_perturbation``: columns)
        became NaN because their divisor is no larger than ``n_perturbation · ε · max|H|``.

    Raises:
        ValueError: unknown kind; ``standard`` with one perturbation; a diagonal of a matrix that is not square;
            ``loss`` without losses.

    >>> standardize_values(np.diag([1.0, 5.0, 2.0, 3.0]))[0].diagonal()
    array([2., 2., 2., 2.])
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (2, 3):
        raise ValueError(f"`values` must have shape (m, n_response, n_perturbation); got {array.shape}")
    stack = array if array.ndim == 3 else array[None]
    scale = None
    if losses is not None:
        scale = np.ascontiguousarray(np.broadcast_to(np.asarray(losses, dtype=np.float64), stack.shape[:2]))
    out, n_masked = _core.standardize(stack, kind, scale, num_threads)
    return out.reshape(array.shape), n_masked
