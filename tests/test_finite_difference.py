"""Periodic stencils and Lie derivatives of fields against `np.roll`, with their observed order (MATH §6)."""

from __future__ import annotations

import numpy as np
import pytest

from pdeinfl.analysis.lie import channel_kinds, derivative, lie_derivative
from reference import periodic_derivative, rotation_lie_derivative

ORDERS = (2, 4, 6)
NAMES = ("density", "momentum_x", "momentum_y", "energy")


def fields(shape, dtype=np.float64):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("shape", [(1, 1, 7, 7), (2, 3, 8, 13), (3, 4, 17, 32), (0, 4, 8, 8)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axis", [-2, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matches_roll(shape, order, axis, dtype):
    u = fields(shape, dtype)
    got = derivative(u, axis, order, 0.25)
    assert got.dtype == dtype
    expected = periodic_derivative(u.astype(float), axis, order, 0.25)
    # Each of at most three terms is rounded as a difference, a weight, a product and in the sums. Σ|weights| < 1.
    sizes = 2 * np.abs(u).max(initial=0.0) / 0.25
    np.testing.assert_allclose(got, expected, rtol=0, atol=6 * np.finfo(dtype).eps * sizes)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("axis", [-2, -1])
def test_observed_order(order, axis):
    errors = []
    for n in (16, 32):
        x = np.arange(n) / n
        wave, slope = np.sin(2 * np.pi * x), 2 * np.pi * np.cos(2 * np.pi * x)
        shape = (1, 1, n, 1) if axis == -2 else (1, 1, 1, n)
        u, exact = (np.broadcast_to(v.reshape(shape), (1, 1, n, n)) for v in (wave, slope))
        errors.append(np.abs(derivative(u, axis, order, 1 / n) - exact).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("order", ORDERS)
def test_lie_derivatives_match_reference(order):
    u = fields((2, 4, 9, 12))
    spacing = (1 / 9, 1 / 12)
    tolerance = {"rtol": 1e-12, "atol": 1e3 * np.finfo(float).eps * 12}
    np.testing.assert_allclose(
        lie_derivative(u, "x", NAMES, order), periodic_derivative(u, -2, order, spacing[0]), **tolerance
    )
    np.testing.assert_allclose(
        lie_derivative(u, "y", NAMES, order), periodic_derivative(u, -1, order, spacing[1]), **tolerance
    )
    expected = rotation_lie_derivative(u, (1, 2), order, spacing)
    np.testing.assert_allclose(lie_derivative(u, "rotation", NAMES, order), expected, **tolerance)


@pytest.mark.parametrize("order", ORDERS)
def test_rotation_order(order):
    """A radial scalar and a radial vector field do not change under rotation."""
    errors = []
    for n in (48, 96):
        x = (np.arange(n) - (n - 1) / 2) / n
        bump = np.exp(-(x[:, None] ** 2 + x**2) / 0.008)
        u = np.stack([bump, x[:, None] * bump, x[None, :] * bump])[None]
        errors.append(np.abs(lie_derivative(u, "rotation", ("density", "v_x", "v_y"), order)).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.5)


def test_linearity_and_constants():
    u, v = fields((1, 2, 8, 8)), fields((1, 2, 8, 8))[::-1] + 1.0
    together = derivative(2.0 * u - v, -1)
    apart = 2.0 * derivative(u, -1) - derivative(v, -1)
    np.testing.assert_allclose(together, apart, atol=1e3 * np.finfo(float).eps)
    assert not derivative(np.full((1, 1, 8, 8), 3.7), -2).any()


def test_thread_count_changes_nothing():
    u = fields((5, 4, 16, 24), np.float32)
    outs = {lie_derivative(u, "rotation", NAMES, num_threads=n).tobytes() for n in (1, 2, 5)}
    outs_flat = {derivative(u, -2, num_threads=n).tobytes() for n in (1, 2, 5)}
    assert len(outs) == len(outs_flat) == 1


def test_strided_input():
    u = fields((2, 2, 9, 8))
    np.testing.assert_array_equal(derivative(u.transpose(0, 1, 3, 2), -1), derivative(u, -2).transpose(0, 1, 3, 2))


def test_refusals():
    u = fields((1, 4, 6, 8))
    with pytest.raises(ValueError, match="2, 4 or 6"):
        derivative(u, -1, 3)
    with pytest.raises(ValueError, match="at least 7 points"):
        derivative(u, -2, 6)
    with pytest.raises(ValueError, match="axis"):
        derivative(u, 0)
    with pytest.raises(ValueError, match="spacing"):
        derivative(u, -1, 2, 0.0)
    with pytest.raises(ValueError, match="shape"):
        derivative(u[0], -1)
    with pytest.raises(TypeError, match="float32"):
        derivative(u.astype(np.int64), -1)
    with pytest.raises(ValueError, match="generator"):
        lie_derivative(u, "z", NAMES, 2)
    with pytest.raises(ValueError, match="channel_names"):
        lie_derivative(u, "x", NAMES[:2], 2)
    with pytest.raises(ValueError, match="no 'v_y'"):
        channel_kinds(("v_x", "density"))
