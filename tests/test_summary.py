"""Summary numbers: planted values, intervals, and the reasons where there are none (MATH §5)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pdeinfl as pi
from pdeinfl import _core
from pdeinfl.analysis.estimate import Estimate
from pdeinfl.analysis.spectrum import largest_eigenvalues
from pdeinfl.analysis.summary import (
    class_locking,
    coherence_time,
    decay_constant,
    fold_lags,
    summarize,
    translation_defect,
)
from reference import translation_defect_interior

EPS = np.finfo(np.float64).eps
K, T = 3, 12
CLASS = np.repeat(np.arange(K), T)
TIME = np.tile(np.arange(1, T + 1), K)
LAG = TIME[:, None] - TIME


def make(h, seed=0, mini_batch=0):
    return pi.Influence.from_arrays(h, CLASS, CLASS, TIME, seed=seed, mini_batch=mini_batch)


def planted(tau, transfer=0.0, noise=0.0, seed=0, mini_batch=0):
    rng = np.random.default_rng([seed, mini_batch])
    same = CLASS[:, None] == CLASS
    h = np.exp(-np.abs(LAG) / tau) * np.where(same, 1.0, transfer)
    return make(h + noise * rng.standard_normal(h.shape), seed, mini_batch)


def test_fold_averages_both_signs():
    curve = np.array([4.0, np.nan, 1.0, 5.0, 2.0])
    np.testing.assert_array_equal(fold_lags(curve), [1.0, 5.0, 3.0])


def test_coherence_time_cases():
    def of(*values):
        return float(coherence_time(np.array(values)))

    assert of(3.0, 2.0, 0.0) == 1.5
    assert of(0.9, 0.5) == 0.0
    assert of(3.0, 1.0, 1.0) == np.inf
    assert of(3.0, np.nan, 0.0) == pytest.approx(4 / 3, rel=4 * EPS)
    assert np.isnan(of(np.nan, np.nan))
    assert coherence_time(np.array([[3.0, 0.0], [0.0, 0.0]])).shape == (2,)


@pytest.mark.parametrize("tau", [0.3, 1.0, 2.5, 8.0])
def test_decay_constant_recovers_a_planted_one(tau):
    curve = 3.0 * np.exp(-np.arange(12) / tau) - 0.4
    # The misfit is quadratic at its minimum: τ is resolved to about the square root of rounding.
    assert float(decay_constant(curve)) == pytest.approx(tau, rel=100 * np.sqrt(EPS))


def test_coherence_time_of_an_infinite_bound():
    """The supremum over what an unresolved entry may be: the curve falls at the next lag, and no sooner."""
    assert coherence_time(np.array([np.inf, 0.5])) == 1.0
    assert coherence_time(np.array([2.0, -np.inf])) == 0.0


def test_the_interval_moves_out_with_the_error_of_the_solves():
    """Every resample may be off as far as the value is: their sum, not the larger of the two."""
    e = Estimate(0.54, low=0.515, high=0.6, bound_low=0.51, bound_high=0.56)
    assert e.span == pytest.approx((0.485, 0.62))
    assert (e.side(0.5), replace(e, bound_low=0.53).side(0.5)) == (0, 1)
    assert Estimate(np.inf, low=4.0, high=np.inf, bound_low=3.0, bound_high=np.inf).span == (3.0, np.inf)
    assert Estimate(np.inf, low=4.0, high=np.inf, bound_low=np.inf, bound_high=np.inf).span == (4.0, np.inf)


def test_decay_constant_limits():
    assert float(decay_constant(np.array([5.0, 1.0, 1.0, 1.0, 1.0]))) == 0.0
    assert float(decay_constant(5.0 - np.arange(8.0))) == np.inf
    assert np.isnan(decay_constant(np.arange(8.0) ** 0.5))
    assert np.isnan(decay_constant(np.ones(8)))
    assert np.isnan(decay_constant(np.array([3.0, 1.0, np.nan])))


def test_class_locking_cases():
    assert class_locking(np.eye(3)) == 1.0
    assert class_locking(np.ones((3, 3))) == 0.0
    assert np.isnan(class_locking(np.ones((1, 1))))
    assert np.isnan(class_locking(np.zeros((2, 2))))


def test_diagonal_matrix_is_locked_and_incoherent():
    got = summarize(make(np.diag(np.random.default_rng(0).uniform(1, 2, K * T))))
    assert got.class_locking.value == 1.0
    # √36 = 6 at lag 0 and 0 at lag 1: the line crosses 1 at 5/6.
    assert got.coherence_time.value == pytest.approx(5 / 6, rel=64 * EPS)
    assert "at least 3 mini-batches" in got.coherence_time.interval
    assert np.isnan(got.coherence_time.low)


def test_full_transfer_is_not_locked():
    assert summarize(planted(2.0, transfer=1.0)).class_locking.value == pytest.approx(0.0, abs=64 * EPS)


def test_toeplitz_has_no_defect():
    for order in (2, 4, 6):
        assert translation_defect(planted(2.0, transfer=0.3), accuracy_order=order).value == 0.0


def test_defect_matches_reference():
    h = np.random.default_rng(0).standard_normal((9, 9))
    ids, times = np.zeros(9, int), np.arange(9)
    result = pi.Influence.from_arrays(h, ids, ids, times)
    assert translation_defect(result).value == pytest.approx(translation_defect_interior(h, 9), rel=100 * EPS)
    order = np.random.default_rng(1).permutation(9)
    shuffled = pi.Influence.from_arrays(h[np.ix_(order, order)], ids, ids, times[order])
    assert translation_defect(shuffled).value == pytest.approx(translation_defect(result).value, rel=100 * EPS)


@pytest.mark.parametrize("order", [2, 4, 6])
def test_defect_order(order):
    """On a smooth matrix the derivative along long diagonals converges at the stated order, ends included."""
    errors = []
    for n in (32, 64):
        t = np.arange(n + 1)
        smooth = np.exp(0.5 * (t[:, None] + t) / n)  # its derivative per step is itself / n
        smooth[np.abs(t[:, None] - t) > n // 2] = np.nan  # short diagonals fall back to lower orders
        ids = np.zeros(n + 1, int)
        errors.append(abs(_core.translation_defect(smooth, (ids, t, ids, t), order) * n - 1.0))
    assert np.log2(errors[0] / errors[1]) > order - 0.5


def test_irregular_times_are_explained():
    times = np.where(TIME == T, T + 3, TIME)
    result = pi.Influence.from_arrays(np.eye(K * T), CLASS, CLASS, times)
    got = summarize(result).translation_defect
    assert np.isnan(got.value)
    assert str(got) == "undefined"


@pytest.mark.parametrize("n_seeds", [2, 4])
def test_intervals_cover_the_estimate(n_seeds):
    results = [planted(2.0, 0.2, 0.1, s, b) for s in range(n_seeds) for b in range(4)]
    got = summarize(results, n_bootstrap=200)
    expected = "seeds, then mini-batches" if n_seeds == 4 else "mini-batches only"
    for name in ("coherence_time", "decay_constant", "class_locking", "translation_defect"):
        estimate = getattr(got, name)
        assert estimate.low < estimate.value < estimate.high, name
        assert expected in estimate.interval
    assert got == summarize(results, n_bootstrap=200)
    assert got != summarize(results, n_bootstrap=200, bootstrap_seed=1)


def test_paper_style():
    results = [planted(2.0, 0.2, 0.1, s, b) for s in range(3) for b in range(3)]
    pooled, paper = (summarize(results, n_bootstrap=0, style=style) for style in ("pooled", "paper"))
    assert paper.coherence_time.value == pytest.approx(pooled.coherence_time.value, rel=0.3)
    assert "not asked for" in paper.coherence_time.interval


@pytest.mark.parametrize(("max_lag", "limit"), [(None, T - 1), (20, T - 1), (4, 4)])
def test_the_limit_is_the_longest_lag_with_an_entry(max_lag, limit):
    got = summarize(make(np.exp(-np.abs(LAG) / 1e3)), standardize="none", max_lag=max_lag)
    assert got.coherence_time.limit == got.decay_constant.limit == limit
    flat = summarize(make(np.full((K * T, K * T), 2.0)), standardize="none", max_lag=max_lag)
    assert str(flat.coherence_time) == f"> {limit}"
    short = pi.Influence.from_arrays(np.full((6, 6), 2.0), np.zeros(6, int), np.zeros(6, int), np.arange(6))
    assert str(summarize(short, standardize="none").coherence_time) == "> 5"


def test_text():
    assert str(Estimate(np.inf, 3.0, np.inf, "", 11)) == "> 11 [3, > 11]"
    assert str(Estimate(1.25, np.nan, np.nan, "")) == "1.25"


def test_one_class_has_no_locking():
    labels = np.zeros(5, int)
    h = np.random.default_rng(0).standard_normal((5, 5))
    got = summarize(pi.Influence.from_arrays(h, labels, labels, np.arange(1, 6)))
    assert np.isnan(got.class_locking.value)
    assert "undefined" in got.class_locking.interval


def test_largest_eigenvalues():
    results = [replace(make(np.eye(K * T), s, b), lambda_max=10.0 * s + b, damping=0.5) for s in (1, 2) for b in (0, 1)]
    got = largest_eigenvalues(results)
    assert got.values.tolist() == [10.5, 11.5, 20.5, 21.5]
    assert got.seeds.tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match=r"pi\.influence"):
        largest_eigenvalues(make(np.eye(K * T)))
