"""Why a result did not converge, in one line with the remedy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pdeinfl as pi
from engine_problems import conv_net, mini_batch
from pdeinfl.engine.audit import Audit


def solve(relative=1e-2, response=("smse",), **options):
    return pi.influence(conv_net(), mini_batch(6), response, damping=pi.Damping.relative(relative), **options)


def test_a_converged_result_has_none():
    result = solve()
    assert result.shortfall == ""
    assert repr(result).endswith("converged)")
    assert "= 0.01 λ_max" in repr(result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tol": 1e-6}, 'rounding of float32 products: product_dtype="float64", or a larger damping'),
        ({"relative": 1e-13, "product_dtype": "float64", "tol": 1e-4}, "rounding of float64 products: a larger"),
        ({"max_products": 3}, "stopped by max_products=3"),
        ({"max_products": 3, "tol": 1e-6}, "stopped by max_products=3"),
        ({"solver": "span", "tol": 1e-3}, "solver 'span' does not iterate until `tol`"),
        ({"solver": "sketch", "probes": 2, "max_probes": 2, "relative": 1e-6}, "too few probes"),
    ],
)
def test_the_reason_is_named(options, said):
    result = solve(**options)
    assert not result.converged
    assert f"worst smse | smse: {said}" in result.shortfall
    assert f"not converged to {result.tol:g} (worst smse | smse: {said}" in repr(result)


def test_the_worst_pair_is_named():
    result = solve(response=("smse", "mass"), max_products=8)
    worst = result.response_names[int(np.argmax(result.relative_error[:, 0]))]
    assert result.shortfall.startswith(f"worst {worst} | smse")


def test_a_contradicting_audit_and_another_damping_are_named():
    result = solve()
    one = np.ones((1, 1))
    audit = Audit(np.zeros(1, int), one, 0.1 * one, 0 * one, np.zeros(1), 2 * one, 0.1 * one)
    assert not audit.agrees
    assert "audit" in replace(result, audit=audit, converged=False).shortfall
    assert "another damping" in replace(result, converged=False).shortfall
    assert pi.Influence.from_arrays(np.eye(2), [0, 0], [0, 0], [1, 2]).shortfall == ""
