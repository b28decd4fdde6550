"""What the certified error of H leaves certain of its standardised form (MATH §4)."""

from __future__ import annotations

import numpy as np

DIAGONAL_KINDS = ("cosine", "trace", "by_response", "by_perturbation")
"""Standardisations by the diagonal of H, which only has a meaning where the responses are the perturbed examples."""


def standardized_error(
    values: np.ndarray, error_bound: np.ndarray, row_error: np.ndarray, kind: str, losses: np.ndarray | None = None
) -> np.ndarray:
    r"""Largest ``|S_ij − S*_ij|`` of standardised entries S, when each ``H_ij`` and each row lie within their bounds.

    With ``S = H/d``, ``|H − H*| ≤ e`` and a divisor known to ``|d − d*| ≤ δ|d|``,
    ``|S − S*| ≤ (e/|d| + δ|S|)/(1 − δ)``; infinite where ``δ ≥ 1``: the divisor itself is not resolved. The standard
    deviation of a row is known to its ``row_error/√(n − 1)``.

    Args:
        values, error_bound: ``(…, n_response, n_perturbation)``; row_error: ``(…, n_response)``.
        kind: as `Influence.standardize`. losses: ``(n_response,)``, for ``loss``.

    Returns:
        The bound, the shape of ``values``; NaN where the bounds are.
    """
    one = np.ones_like(values)
    diagonal = np.einsum("...ii->...i", values) if kind in DIAGONAL_KINDS else None
    divisor, unsure = one, np.zeros_like(values)
    if kind == "standard":
        n = values.shape[-1]
        divisor = values.std(-1, ddof=1, keepdims=True) if n > 1 else 0 * one
        unsure = _over(row_error[..., None] / np.sqrt(max(n - 1, 1)), divisor)
    elif kind == "loss":
        assert losses is not None
        divisor = np.asarray(losses)[:, None]
    elif diagonal is not None:
        slack = np.einsum("...ii->...i", error_bound)
        if kind == "trace":
            divisor = diagonal.mean(-1)[..., None, None]
            unsure = _over(slack.mean(-1)[..., None, None], divisor)
        else:
            part = np.minimum(_over(slack, diagonal), 1.0)
            rows, columns = diagonal[..., :, None], diagonal[..., None, :]
            left, right = part[..., :, None], part[..., None, :]
            if kind == "cosine":
                divisor = np.sqrt(np.maximum(rows * columns, 0.0))
                unsure = 1 - np.sqrt((1 - left) * (1 - right))
            else:
                divisor, unsure = (rows, left) if kind == "by_response" else (columns, right)
    room = np.maximum(1 - unsure, 0.0)
    return _over(_over(error_bound, divisor) + unsure * np.abs(_over(values, divisor)), room * one)


def _over(value: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """``value/|divisor|``, infinite where the divisor is zero."""
    value, divisor = np.broadcast_arrays(value, np.abs(divisor))
    return np.divide(value, divisor, out=np.where(np.isnan(value), np.nan, np.inf), where=divisor != 0)
