"""Standardisation of influence matrices (MATH §4)."""

from __future__ import annotations

import numpy as np
import pytest

import pdeinfl as pi
from pdeinfl.analysis.standardization import KINDS, standardize_values
from reference import standardize_rows

EPS = np.finfo(np.float64).eps


@pytest.fixture
def stack():
    a = np.random.default_rng(0).standard_normal((3, 7, 11))
    return a @ a.transpose(0, 2, 1) + 0.1 * np.eye(7)


def test_standard_matches_reference(stack):
    out, masked = standardize_values(stack)
    assert masked == 0
    for got, h in zip(out, stack, strict=True):
        np.testing.assert_allclose(got, standardize_rows(h), rtol=32 * 7 * EPS)


def test_rectangular_rows(stack):
    wide = stack[:, :3]
    np.testing.assert_array_equal(standardize_values(wide)[0], standardize_values(stack)[0][:, :3])


@pytest.mark.parametrize("n", [2, 3, 16, 48])
def test_diagonal_gives_root_n(n):
    h = np.diag(np.random.default_rng(n).uniform(0.1, 10.0, n))
    np.testing.assert_allclose(np.diagonal(standardize_values(h)[0]), np.sqrt(n), rtol=4 * n * EPS)


def test_other_kinds(stack):
    h = stack[0]
    d = np.diagonal(h)
    losses = np.arange(1.0, 8.0)
    expected = {
        "cosine": h / np.sqrt(np.outer(d, d)),
        "trace": h / d.mean(),
        "by_response": h / d[:, None],
        "by_perturbation": h / d[None, :],
        "loss": h / losses[:, None],
        "none": h,
    }
    assert set(expected) | {"standard"} == set(KINDS)
    for kind, value in expected.items():
        np.testing.assert_allclose(standardize_values(h, kind, losses)[0], value, rtol=16 * EPS)


def test_flat_rows_are_masked_and_counted(stack):
    h = stack[0].copy()
    h[2], h[4] = 0.1, 0.0
    out, masked = standardize_values(h)
    assert masked == 2
    assert np.isnan(out[[2, 4]]).all()
    assert not np.isnan(np.delete(out, [2, 4], 0)).any()


def test_nan_entries_stay_out_of_the_scale(stack):
    h = stack[0].copy()
    h[1, 3] = np.nan
    out, masked = standardize_values(h)
    assert masked == 0
    kept = np.delete(h[1], 3)
    np.testing.assert_allclose(np.delete(out[1], 3), kept / kept.std(ddof=1), rtol=32 * 7 * EPS)
    assert np.isnan(out[1, 3])


def test_zero_losses_are_masked(stack):
    losses = np.ones(7)
    losses[3] = 0.0
    out, masked = standardize_values(stack[0], "loss", losses)
    assert masked == 1
    assert np.isnan(out[3]).all()


def test_scale_invariance(stack):
    np.testing.assert_allclose(standardize_values(1e-9 * stack)[0], standardize_values(stack)[0], rtol=64 * EPS)


def test_thread_count_changes_nothing(stack):
    one, many = (standardize_values(stack, num_threads=n)[0] for n in (1, 3))
    assert one.tobytes() == many.tobytes()


def test_refusals(stack):
    with pytest.raises(ValueError, match="at least 2 perturbations"):
        standardize_values(np.ones((1, 1)))
    with pytest.raises(ValueError, match="must be one of standard, cosine"):
        standardize_values(stack, "cosin")
    with pytest.raises(ValueError, match="losses"):
        standardize_values(stack, "loss")
    with pytest.raises(ValueError, match="diagonal"):
        standardize_values(stack[:, :3], "trace")
    with pytest.raises(ValueError, match="shape"):
        standardize_values(np.ones(3))


def test_influence_standardize_agrees(stack):
    labels = np.arange(7)
    result = pi.Influence.from_arrays(stack[0], 0 * labels, 0 * labels, labels)
    np.testing.assert_array_equal(result.standardize("standard")[0, 0], standardize_values(stack[0])[0])
