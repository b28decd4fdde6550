"""Largest and leading eigenvalues and degrees of freedom of the metric, against dense eigenvalues."""

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import Exact, conv_net, mini_batch
from pdeinfl.engine.spectrum import effective_dof, largest_eigenvalue, leading_eigenvalues

NET, BATCH = conv_net(width=3), mini_batch(3)
DENSE = {kind: np.sort(Exact(NET, BATCH, kind).eigenvalues)[::-1] for kind in ("sum", "mean")}
DOUBLE = {"dtype": torch.float64}


@pytest.mark.parametrize("metric", ["sum", "mean"])
@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_largest_eigenvalue(metric, rtol):
    top = largest_eigenvalue(NET, BATCH, metric, rtol, **DOUBLE)
    assert abs(top - DENSE[metric][0]) <= rtol * DENSE[metric][0]


@pytest.mark.parametrize("metric", ["sum", "mean"])
@pytest.mark.parametrize(("k", "block", "max_basis"), [(1, 1, None), (10, 4, None), (6, 2, 10), (5, 3, 11), (4, 1, 6)])
def test_leading_eigenvalues_lie_within_their_residuals(metric, k, block, max_basis):
    dense = DENSE[metric]
    found = leading_eigenvalues(NET, BATCH, k, metric, 1e-6, block, max_basis, **DOUBLE)
    assert found.values.shape == found.residuals.shape == (k,)
    assert (np.diff(found.values) <= 0).all()
    assert (found.residuals <= 1e-6 * dense[0]).all()
    # A Ritz value is at most the residual away from an eigenvalue; rounding of float64 products besides.
    rounding = 64 * np.finfo(float).eps * np.sqrt(len(dense)) * dense[0]
    assert (np.abs(found.values - dense[:k]) <= found.residuals + rounding).all()


def test_a_restarted_basis_needs_more_products_and_finds_the_same():
    """With so little room the basis is compressed several times over."""
    free = leading_eigenvalues(NET, BATCH, 6, rtol=1e-6, block=2, max_basis=200, **DOUBLE)
    tight = leading_eigenvalues(NET, BATCH, 6, rtol=1e-6, block=2, max_basis=10, **DOUBLE)
    assert tight.n_products > free.n_products > 2 * 10
    np.testing.assert_allclose(tight.values, free.values, atol=2e-6 * free.values[0])


def test_multiple_eigenvalues_need_a_block():
    """Repeating every example doubles the eigenvalues of the sum and adds none."""
    order = np.repeat(np.arange(3), 2)
    found = leading_eigenvalues(NET, BATCH.select(order), 4, rtol=1e-7, **DOUBLE)
    np.testing.assert_allclose(found.values, 2 * DENSE["sum"][:4], rtol=1e-6)


def test_float32_products_are_good_to_their_rounding():
    found = leading_eigenvalues(NET, BATCH, 5, rtol=1e-4)
    limit = found.residuals + 64 * np.finfo(np.float32).eps * np.sqrt(len(DENSE["sum"])) * DENSE["sum"][0]
    assert (np.abs(found.values - DENSE["sum"][:5]) <= limit).all()


def test_all_eigenvalues_when_the_rank_is_small():
    net = torch.nn.Conv2d(4, 4, 1, bias=False)
    dense = np.sort(Exact(net, BATCH).eigenvalues)[::-1][:16]
    found = leading_eigenvalues(net, BATCH, 16, rtol=1e-9, **DOUBLE)
    np.testing.assert_allclose(found.values, dense, atol=1e-9 * dense[0])
    for k in (0, 17):
        with pytest.raises(ValueError, match=r"`k` must be between 1 and 16"):
            leading_eigenvalues(net, BATCH, k)


@pytest.mark.parametrize("relative", [1e-1, 1e-3])
def test_effective_dof_interval_holds_the_exact_value(relative):
    """At 95 % confidence, 20 seeds miss more than 4 times with probability 0.3 %."""
    dense = DENSE["sum"]
    damping = relative * dense[0]
    exact = float(np.sum(dense / (dense + damping)))
    missed = 0
    for seed in range(20):
        found = effective_dof(NET, BATCH, damping, n_probes=6, n_steps=20, seed=seed, **DOUBLE)
        assert 0 <= found.low <= found.value <= found.high
        missed += not found.low <= exact <= found.high
    assert missed <= 4


def test_effective_dof_tightens_with_steps_and_takes_relative_damping():
    damping = pi.Damping.relative(1e-2)
    few, many = (
        effective_dof(NET, BATCH, damping, n_probes=4, n_steps=n, lambda_max=DENSE["sum"][0], **DOUBLE) for n in (3, 30)
    )
    assert many.high - many.low < few.high - few.low
    assert many.n_products > few.n_products
    # The value depends on λ_max, which is computed where it is not given, to 1e-6.
    computed = effective_dof(NET, BATCH, damping, n_probes=4, n_steps=30, **DOUBLE)
    assert computed.value == pytest.approx(many.value, rel=1e-5)
    with pytest.raises(ValueError, match="`n_probes` must be an integer of at least 2"):
        effective_dof(NET, BATCH, damping, n_probes=1)
