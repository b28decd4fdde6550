"""Results made by hand that several tests draw or tabulate."""

from __future__ import annotations

import numpy as np

from pdeinfl.analysis.response_checks import ResponseCheck


def response_check(predicted, measured, steps, errors, order=2.0, radius=0.1, observables=("smse",)):
    """Of ``(k, n_obs, n)`` predictions, or ``(n,)`` of one perturbation and observable; one trust radius for all."""
    n_obs, n = len(observables), np.shape(predicted)[-1]
    predicted, measured = (np.reshape(np.asarray(a, dtype=np.float64), (-1, n_obs, n)) for a in (predicted, measured))
    return ResponseCheck(
        predicted=predicted,
        measured=measured,
        error=np.zeros_like(predicted),
        bound=np.zeros_like(predicted),
        steps=np.asarray(steps, dtype=np.float64),
        errors=np.asarray(errors, dtype=np.float64),
        order=order,
        trust_radii=np.full(predicted.shape, radius),
        perturbations=tuple(range(len(predicted))),
        observables=tuple(observables),
    )
