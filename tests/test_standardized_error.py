"""Bounds of standardised entries, aggregations and summary numbers from the bounds of H (MATH §§3–5)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pdeinfl as pi
from engine_problems import Exact, conv_net, mini_batch
from pdeinfl.analysis.summary import summarize

EPS = np.finfo(np.float64).eps
KINDS = ("standard", "none", "cosine", "trace", "by_response", "by_perturbation", "loss")
CLASSES, TRAJECTORIES, TIMES = np.repeat([0, 1], 6), np.repeat([0, 1, 2, 3], 3), np.tile([1, 2, 3], 4)
N = len(CLASSES)
DISTANCE = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) + np.eye(N)


def hand_made(values, error_bound=None, mini_batch=0):
    return pi.Influence.from_arrays(
        values, CLASSES, TRAJECTORIES, TIMES, mini_batch=mini_batch, error_bound=error_bound,
        input_distance=DISTANCE, losses=np.linspace(1, 2, N),
    )  # fmt: skip


def matrix(rng):
    """Positive semidefinite, rows of very different size, with a bound on each entry and a matrix within it."""
    root = rng.standard_normal((N, N + 2)) * np.geomspace(1, 30, N)[:, None]
    h = root @ root.T
    size = np.sqrt(np.outer(np.diag(h), np.diag(h)))
    bound = rng.uniform(0.001, 0.2) * size * rng.uniform(0.2, 1, h.shape)
    other = h + bound * rng.choice([-1.0, 1.0, 0.3], h.shape)
    return h, bound, other


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(KINDS))
def test_no_matrix_within_the_bounds_leaves_them_when_standardised(seed, kind):
    h, bound, other = matrix(np.random.default_rng(seed))
    error = hand_made(h, bound).standardized_error(kind)
    standardised = hand_made(h).standardize(kind)
    moved = np.abs(hand_made(other).standardize(kind) - standardised)
    assert (moved <= error * (1 + 64 * EPS) + 64 * N * EPS * np.abs(standardised).max()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_small_bounds_are_no_looser_than_their_three_sources(kind):
    """To first order an entry moves by its own error and by its divisor's, which is the root of two entries' for
    ``cosine``: the worst of many matrices within the bounds comes within a factor of it."""
    rng = np.random.default_rng(0)
    h, bound, _ = matrix(rng)
    bound = 1e-6 * np.abs(h)
    error = hand_made(h, bound).standardized_error(kind)
    worst = np.zeros_like(h)
    base = hand_made(h).standardize(kind)[0, 0]
    for _ in range(400):
        moved = hand_made(h + bound * rng.choice([-1, 1], h.shape)).standardize(kind)[0, 0]
        worst = np.maximum(worst, np.abs(moved - base))
    moves = worst > 0  # the diagonal of a matrix over its diagonal does not
    assert np.median(error[0, 0][moves] / worst[moves]) <= 3


def test_an_unresolved_row_says_so():
    h = np.eye(N) + 0.1
    bound = np.full_like(h, 1e-6)
    bound[3] = 2.0
    result = hand_made(h, bound)
    assert np.isinf(result.standardized_error()[0, 0, 3]).all()
    assert np.isfinite(np.delete(result.standardized_error()[0, 0], 3, 0)).all()
    np.testing.assert_array_equal(np.flatnonzero(result.unresolved_rows[0, 0]), [3])
    assert "1 of 12 rows unresolved" in repr(result)


def test_unknown_bounds_stay_unknown():
    result = hand_made(np.eye(N))
    assert np.isnan(result.standardized_error()).all()
    assert not result.unresolved_rows.any()
    assert "unresolved" not in repr(result)
    assert pi.two_time(result).bound_low is None
    assert pi.lag_profile(result).intra.bound_high is None
    summary = summarize(result)
    assert np.isnan([summary.coherence_time.bound_low, summary.class_locking.bound_high]).all()


def test_rows_without_a_scale_have_no_error():
    h = np.eye(N)
    h[2] = 1.0
    error = hand_made(h, np.full_like(h, 1e-3)).standardized_error()
    assert np.isnan(error[0, 0, 2]).all()
    assert np.isfinite(np.delete(error[0, 0], 2, 0)).all()


def test_bounds_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`error_bound` must have the shape of `values`, \(12, 12\); got"):
        hand_made(np.eye(N), np.eye(3))


AGGREGATIONS = {
    "two_time": lambda r, **o: pi.two_time(r, **o),
    "lag": lambda r, **o: pi.lag_profile(r, max_lag=2, **o).intra,
    "lag, other class": lambda r, **o: pi.lag_profile(r, max_lag=2, **o).inter,
    "class": lambda r, **o: pi.class_transfer(r, **o),
    "distance": lambda r, **o: pi.distance_decay(r, n_bins=4, **o),
}


@pytest.mark.parametrize("style", ["pooled", "paper"])
@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_aggregations_of_any_matrix_within_the_bounds_lie_within_theirs(kind, style):
    rng = np.random.default_rng(7)
    drawn = [matrix(rng) for _ in range(3)]
    bounds = [0.2 * bound for _, bound, _ in drawn]
    given_results = [hand_made(h, bound, k) for k, ((h, _, _), bound) in enumerate(zip(drawn, bounds, strict=True))]
    found = AGGREGATIONS[kind](given_results, style=style)
    assert (found.bound_low <= found.median).all()
    assert (found.median <= found.bound_high).all()
    assert np.isfinite(found.bound_high).any()
    for _ in range(20):
        others = [hand_made(h + bound * rng.uniform(-1, 1, h.shape), mini_batch=k)
                  for k, ((h, _, _), bound) in enumerate(zip(drawn, bounds, strict=True))]  # fmt: skip
        centre = AGGREGATIONS[kind](others, style=style).median
        assert (found.bound_low <= centre).all()
        assert (centre <= found.bound_high).all()


@pytest.mark.parametrize("style", ["pooled", "paper"])
@pytest.mark.parametrize("kind", AGGREGATIONS)
def test_exact_matrices_have_no_room(kind, style):
    h, _, _ = matrix(np.random.default_rng(3))
    found = AGGREGATIONS[kind](hand_made(h, np.zeros_like(h)), style=style)
    np.testing.assert_array_equal(found.bound_low, found.median)
    np.testing.assert_array_equal(found.bound_high, found.median)


def test_many_unresolved_rows_leave_a_centre_open():
    h, bound, _ = matrix(np.random.default_rng(1))
    found = pi.class_transfer(hand_made(h, 1e3 * np.abs(h) + bound))
    assert (found.bound_low == -np.inf).all()
    assert (found.bound_high == np.inf).all()
    summary = summarize(hand_made(h, 1e3 * np.abs(h)))
    assert (summary.class_locking.bound_low, summary.class_locking.bound_high) == (-np.inf, np.inf)
    assert (summary.coherence_time.bound_low, summary.coherence_time.bound_high) == (0, np.inf)


def test_summary_numbers_of_any_matrix_within_the_bounds_lie_within_theirs():
    rng = np.random.default_rng(5)
    widths = []
    for _ in range(20):
        h, bound, _ = matrix(rng)
        h += 20 * np.sqrt(np.outer(np.diag(h), np.diag(h))) * (CLASSES[:, None] == CLASSES)
        bound = 0.1 * bound
        found = summarize(hand_made(h, bound))
        for _ in range(10):
            other = summarize(hand_made(h + bound * rng.uniform(-1, 1, h.shape)))
            for name in ("coherence_time", "class_locking"):
                own = getattr(found, name)
                assert own.bound_low <= getattr(other, name).value <= own.bound_high
        widths.append(found.class_locking.bound_high - found.class_locking.bound_low)
    assert np.median(widths) < 0.5, "or the test could not fail"


@pytest.mark.parametrize("options", [{"tol": 0.1}, {"solver": "span"}, {"solver": "cg", "rtol": 1e-2}, {"tol": 1e-3}])
def test_a_real_solve_brackets_the_exact_summary(options):
    module, batch = conv_net(width=16), mini_batch(8, sides=(4, 4))
    exact = Exact(module, batch)
    damping = 1e-2 * exact.top
    h, _ = exact.influence("smse", "smse", damping)
    result = pi.influence(module, batch, "smse", damping=damping, product_dtype="float64", **options)
    truth = replace(result, values=h[None, None])
    error = np.abs(truth.standardize() - result.standardize())
    assert (np.linalg.norm(h - result["smse", "smse"], axis=1) <= result.row_error[0, 0]).all()
    assert (error <= result.standardized_error()).all()
    assert np.isfinite(result.standardized_error()[~result.unresolved_rows]).all()
    assert result.unresolved_rows.any() == (options.get("tol") != 1e-3), "rows that hardly vary need a small `tol`"
    for name in ("coherence_time", "class_locking"):
        own, exactly = (getattr(summarize(r), name) for r in (result, truth))
        assert own.bound_low <= exactly.value <= own.bound_high
    for at in result.at_damping([1e-3 * exact.top, 10 * exact.top]):
        h, _ = exact.influence("smse", "smse", at.damping)
        assert (np.linalg.norm(h - at["smse", "smse"], axis=1) <= at.row_error[0, 0]).all()
