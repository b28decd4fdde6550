"""Richardson ladders and the response check on functions whose derivatives are known (MATH §6.1)."""

from __future__ import annotations

import numpy as np
import pytest

from pdeinfl.analysis.lie import response_ladder, richardson, trust_radius

EPS = np.finfo(np.float64).eps
STEPS = 0.4 * 0.5 ** np.arange(6)
RATES = np.array([[1.0, -0.5, 2.0], [0.3, 0.7, -1.2]])


def evaluate(epsilon):
    return np.exp(RATES * epsilon)


def test_ladder_finds_the_derivative():
    got = response_ladder(evaluate, STEPS, RATES)
    # Differences of values near 1 at the smallest step lose EPS / ε.
    floor = 8 * EPS / STEPS[-1]
    assert (np.abs(got.value - RATES) <= np.maximum(4 * got.error, floor)).all()
    assert np.abs(got.value - RATES).max() < 1e3 * floor
    np.testing.assert_allclose(got.observed_order, 2.0, atol=0.05)
    assert got.differences.shape == (6, 2, 3)
    np.testing.assert_allclose(got.differences[0], np.sinh(RATES * 0.4) / 0.4, rtol=16 * EPS / 0.4)


def test_raw_differences_have_order_two():
    got = response_ladder(evaluate, STEPS, RATES)
    errors = np.abs(got.differences - RATES)
    np.testing.assert_allclose(np.log2(errors[1] / errors[2]), 2.0, atol=0.05)


def test_trust_radius_of_a_quadratic():
    """Q = ε + ε² departs from its tangent by the fraction ε: the radius is the largest step of at most 0.1."""
    steps = 0.1 * 2.0 ** np.arange(3, -6, -1)
    got = response_ladder(lambda e: np.array([[e + e * e]]), steps, np.array([[1.0]]))
    assert got.trust_radius[0, 0] in (0.1, 0.05)
    assert response_ladder(lambda e: np.array([[3 * e]]), steps, np.array([[3.0]])).trust_radius[0, 0] == steps[0]
    assert np.isnan(response_ladder(lambda e: np.array([[3 * e]]), steps, np.array([[1.0]])).trust_radius[0, 0])


def test_trust_radius_stops_at_the_first_violation():
    steps = np.array([8.0, 4.0, 2.0, 1.0])
    changes = steps[:, None] * np.array([[1.01], [1.5], [1.05], [1.0]])  # good again, by accident, at the largest
    assert trust_radius(steps, changes, np.array([1.0])).tolist() == [2.0]
    noisy = steps[:, None] * np.array([[1.5], [1.05], [1.0], [2.0]])  # the smallest drowns in rounding
    assert trust_radius(steps, noisy, np.array([1.0])).tolist() == [4.0]


def test_trust_radius_does_not_hold_where_the_observable_is_nan():
    steps = np.array([8.0, 4.0, 2.0, 1.0])
    changes = steps[:, None] * np.array([[np.nan], [1.05], [1.0], [1.0]])  # the largest step left the domain
    assert trust_radius(steps, changes, np.array([1.0])).tolist() == [4.0]
    assert np.isnan(trust_radius(steps, np.full((4, 1), np.nan), np.array([1.0]))).all()


@pytest.mark.parametrize("ratio", [2.0, 3.0])
@pytest.mark.parametrize("order", [1.0, 2.0])
def test_richardson_cancels_powers(ratio, order):
    steps = ratio ** -np.arange(4.0)
    ladder = 5.0 + 0.3 * steps**order - 0.2 * steps ** (order + order) + 0.1 * steps ** (3 * order)
    value, error, observed = richardson(ladder[:, None], ratio, order, order)
    assert abs(value[0] - 5.0) < 200 * EPS * 5.0
    assert error.shape == (1,)
    assert observed[0] == pytest.approx(order, abs=0.4)


def test_shapes_pass_through():
    value, error, observed = richardson(np.ones((3, 2, 4)))
    assert value.shape == error.shape == observed.shape == (2, 4)
    assert np.isnan(observed).all()
    np.testing.assert_array_equal(value, 1.0)


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 steps"):
        richardson(np.ones((1, 3)))
    with pytest.raises(ValueError, match="ratio"):
        richardson(np.ones((3, 3)), ratio=1.0)
    for bad in ([1.0, 0.5], [0.5, 1.0, 2.0], [1.0, 0.5, -0.25]):
        with pytest.raises(ValueError, match="decreasing"):
            response_ladder(evaluate, bad, RATES)
    with pytest.raises(ValueError, match="constant ratio"):
        response_ladder(evaluate, [1.0, 0.5, 0.3], RATES)
    with pytest.raises(ValueError, match="shape of `prediction`"):
        response_ladder(evaluate, STEPS, RATES[0])
