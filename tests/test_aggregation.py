"""Two-time map, lag profile, class transfer and distance decay against loops over pairs (MATH §5)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pdeinfl as pi
from pdeinfl import _core
from pdeinfl.analysis.resampling import column_quantiles, plan
from pdeinfl.engine.influence_matrix import Labels
from reference import quartiles, selected_entries, standardize_rows

EPS = np.finfo(np.float64).eps
NAMES = ("RP", "CRP", "RPUI")
# Quantiles of O(1) entries: a few roundings of the standardisation and one interpolation.
TOLERANCE = {"rtol": 1e3 * EPS, "atol": 1e3 * EPS}


def make(seed=0, mini_batch=0, lengths=(4, 3, 5, 4), classes=(0, 1, 2, 0), **extra):
    """Several trajectories, of unequal lengths, two of them in one class."""
    rng = np.random.default_rng([seed, mini_batch])
    class_ids = np.repeat(classes, lengths)
    trajectory_ids = np.repeat(10 * np.arange(len(lengths)), lengths)
    times = np.concatenate([np.arange(1, n + 1) for n in lengths])
    values = rng.standard_normal((len(times), len(times))) + 2.0 * (class_ids[:, None] == class_ids)
    return pi.Influence.from_arrays(
        values, class_ids, trajectory_ids, times, class_names=NAMES, seed=seed, mini_batch=mini_batch, **extra
    )


def many(n_seeds=3, n_batches=3, **extra):
    return [make(s, b, **extra) for s in range(n_seeds) for b in range(n_batches)]


def examples(labels):
    return list(zip(labels.class_ids, labels.trajectory_ids, labels.times, strict=True))


def flat(results):
    matrices = [standardize_rows(r["smse", "smse"]) for r in results]
    return matrices, [(examples(r.response_labels), examples(r.perturbation_labels)) for r in results]


def members(kind, result):
    """The predicate over pairs of examples for each bin, and the bins' places in the flattened centre."""
    if kind == "two_time":
        return [lambda r, p, t=t, s=s: r[:2] == p[:2] and r[2] == t and p[2] == s
                for t in result.times for s in result.times]  # fmt: skip
    if kind == "lag":
        return [lambda r, p, lag=lag, same=same: (r[0] == p[0]) == same and r[2] - p[2] == lag
                for same in (True, False) for lag in result.lags]  # fmt: skip
    k = range(len(result.class_names))
    any_time = result.style == "paper"
    return [lambda r, p, a=a, b=b: r[0] == a and p[0] == b and (any_time or r[2] == p[2]) for a in k for b in k]


def call(kind, results, **options):
    if kind == "two_time":
        return pi.two_time(results, **options)
    return pi.class_transfer(results, **options) if kind == "class" else pi.lag_profile(results, max_lag=5, **options)


def field(result, name):
    if hasattr(result, "intra"):
        return np.concatenate([getattr(result.intra, name), getattr(result.inter, name)])
    return getattr(result, name).ravel()


@pytest.mark.parametrize("kind", ["two_time", "lag", "class"])
def test_pooled_quartiles(kind):
    results = many(2, 2)
    got = call(kind, results)
    matrices, labels = flat(results)
    expected = np.array([quartiles(selected_entries(matrices, labels, m)) for m in members(kind, got)])
    for column, name in enumerate(("lower", "median", "upper")):
        np.testing.assert_allclose(field(got, name), expected[:, column], **TOLERANCE)


@pytest.mark.parametrize("kind", ["two_time", "lag", "class"])
def test_paper_style(kind):
    results = many(3, 2)
    got = call(kind, results, style="paper")
    assert got.style == "paper"
    matrices, labels = flat(results)
    for place, member in enumerate(members(kind, got)):
        entries = [selected_entries([h], [pair], member) for h, pair in zip(matrices, labels, strict=True)]
        means = np.array([e.mean() if len(e) else np.nan for e in entries])
        spread = means.reshape(3, 2).mean(1) if kind == "lag" else means
        expected = [means.mean(), *np.quantile(spread, (0.25, 0.75))]
        for name, value in zip(("median", "lower", "upper"), expected, strict=True):
            np.testing.assert_allclose(field(got, name)[place], value, **TOLERANCE)


@pytest.mark.parametrize("kind", ["two_time", "lag", "class"])
@pytest.mark.parametrize("style", ["pooled", "paper"])
@pytest.mark.parametrize("n_seeds", [2, 3])
def test_bootstrap_interval(kind, style, n_seeds):
    """The interval of a bootstrap that repeats the drawn mini-batches one by one, with the same draws."""
    results = many(n_seeds, 3)
    got = call(kind, results, style=style, n_bootstrap=40, bootstrap_seed=5)
    assert ("seeds, then mini-batches" in got.interval) == (n_seeds == 3)
    counts = _core.bootstrap_multiplicities([3] * n_seeds, 40, 5, n_seeds == 3)
    matrices, labels = flat(results)
    wanted = members(kind, got)[:: 5 if kind != "class" else 1]
    places = range(0, len(members(kind, got)), 5 if kind != "class" else 1)
    for place, member in zip(places, wanted, strict=True):
        entries = [selected_entries([h], [pair], member) for h, pair in zip(matrices, labels, strict=True)]
        draws = []
        for row in counts:
            drawn = [entries[b] for b in np.repeat(np.arange(len(row)), row)]
            pooled = np.concatenate(drawn) if style == "pooled" else np.array([e.mean() for e in drawn if len(e)])
            if len(pooled):
                draws.append(np.median(pooled) if style == "pooled" else pooled.mean())
        expected = np.quantile(draws, (0.025, 0.975)) if draws else (np.nan, np.nan)
        np.testing.assert_allclose(field(got, "ci_low")[place], expected[0], **TOLERANCE)
        np.testing.assert_allclose(field(got, "ci_high")[place], expected[1], **TOLERANCE)


@pytest.mark.parametrize("style", ["pooled", "paper"])
def test_distance_decay(style):
    rng = np.random.default_rng(1)
    results = [replace(r, input_distance=rng.lognormal(size=(16, 16))) for r in many(3, 3)]
    got = pi.distance_decay(results, style=style, n_bins=4, overlap=2, n_bootstrap=30)
    matrices, _ = flat(results)
    apart = ~np.eye(16, dtype=bool)
    distances = [r.input_distance for r in results]
    low, high = np.quantile(np.concatenate([d[apart] for d in distances]), (0.005, 0.995))
    edges = np.geomspace(low, high, 8)
    np.testing.assert_allclose(got.edges, edges, rtol=64 * EPS)
    np.testing.assert_allclose(got.bin_centers, edges[2:6], rtol=64 * EPS)
    for b in range(4):
        inside = [apart & (d >= got.edges[b]) & (d <= got.edges[b + 4]) for d in distances]
        means = np.array([h[at].mean() for h, at in zip(matrices, inside, strict=True)])
        spread = means if style == "pooled" else means.reshape(3, 3).mean(1)
        centre = np.median(means) if style == "pooled" else means.mean()
        expected = (centre, *np.quantile(spread, (0.25, 0.75)))
        np.testing.assert_allclose((got.median[b], got.lower[b], got.upper[b]), expected, **TOLERANCE)
    assert (got.ci_low <= got.median).all()
    assert (got.median <= got.ci_high).all()


@pytest.mark.parametrize("kind", ["two_time", "lag", "class"])
def test_permuting_examples_changes_nothing(kind):
    result = make()
    order = np.random.default_rng(3).permutation(16)
    labels = result.labels
    shuffled = pi.Influence.from_arrays(
        result["smse", "smse"][np.ix_(order, order)],
        labels.class_ids[order],
        labels.trajectory_ids[order],
        labels.times[order],
        class_names=NAMES,
    )
    for name in ("median", "lower", "upper"):
        np.testing.assert_allclose(field(call(kind, shuffled), name), field(call(kind, result), name), **TOLERANCE)


def test_order_of_results_changes_nothing():
    results = many(3, 3)
    a, b = (pi.class_transfer(r, n_bootstrap=50) for r in (results, results[::-1]))
    np.testing.assert_array_equal(a.ci_low, b.ci_low)
    np.testing.assert_array_equal(a.median, b.median)


def test_planted_orientation():
    """Only time 3 responding to time 1 within a trajectory, only class 0 responding to class 2."""
    result = make(lengths=(4, 4, 4), classes=(0, 1, 2))
    labels = result.labels
    t, c, n = labels.times, labels.class_ids, labels.trajectory_ids
    h = np.zeros((12, 12))
    h[(t[:, None] == 3) & (t == 1) & (n[:, None] == n)] = 5.0
    h[(c[:, None] == 0) & (c == 2) & (t[:, None] == t)] = 7.0
    planted = replace(result, values=h[None, None])
    two = pi.two_time(planted, standardize="none")
    assert two.median[2, 0] == 5.0
    assert np.count_nonzero(two.median) == 1
    transfer = pi.class_transfer(planted, standardize="none")
    assert transfer.median[0, 2] == 7.0
    assert np.count_nonzero(transfer.median) == 1
    lag = pi.lag_profile(planted, standardize="none", style="paper")
    assert lag.intra.median[lag.lags == 2] == 2.5
    assert np.nansum(lag.intra.median) == 2.5


def test_missing_lags_are_nan():
    lag = pi.lag_profile(make())
    assert lag.lags.tolist() == list(range(-11, 12))
    assert pi.lag_profile(make(), style="paper").lags.tolist() == list(range(-8, 9))
    assert pi.lag_profile(make(), style="paper", max_lag=2).lags.tolist() == list(range(-2, 3))
    assert np.isnan(lag.intra.median[np.abs(lag.lags) > 4]).all()
    assert not np.isnan(lag.intra.median[np.abs(lag.lags) <= 3]).any()


def test_nan_entries_are_left_out():
    result = make()
    values = result.values.copy()
    values[0, 0, 3, :] = np.nan
    holed = replace(result, values=values)
    got = pi.class_transfer(holed)
    kept = np.delete(np.arange(16), 3)
    labels = (examples(result.labels), examples(result.labels))
    rows = ([labels[0][i] for i in kept], labels[1])
    matrix = standardize_rows(result["smse", "smse"][kept])
    expected = [quartiles(selected_entries([matrix], [rows], m))[1] for m in members("class", got)]
    np.testing.assert_allclose(got.median.ravel(), expected, **TOLERANCE)
    assert got.n_masked == 1


@pytest.mark.parametrize("kind", ["two_time", "lag", "class"])
def test_rectangular(kind):
    result = make()
    keep = np.arange(1, 16, 2)
    labels = result.labels
    rows = Labels(labels.class_ids[keep], labels.trajectory_ids[keep], labels.times[keep], NAMES)
    part = replace(result, values=result.values[:, :, keep], response_labels=rows)
    matrix, pairs = flat([part])
    got = call(kind, part)
    expected = [quartiles(selected_entries(matrix, pairs, m))[1] for m in members(kind, got)]
    np.testing.assert_allclose(field(got, "median"), expected, **TOLERANCE)


def test_trajectory_ids_may_repeat_across_classes():
    ids = np.repeat([0, 1], 3)
    times = np.tile([1, 2, 3], 2)
    h = np.random.default_rng(0).standard_normal((6, 6))
    same, distinct = (pi.Influence.from_arrays(h, ids, t, times) for t in (0 * ids, ids))
    np.testing.assert_array_equal(pi.two_time(same).median, pi.two_time(distinct).median)


def test_results_with_the_same_label_are_refused():
    one = make()
    with pytest.raises(
        ValueError, match=r"`results` must differ in run, seed, epoch or mini-batch; got two of .*mini_batch=k"
    ):
        pi.lag_profile([one, make(mini_batch=1), one])
    later = replace(one, epoch=one.epoch + 1)
    assert "got 1" in pi.lag_profile([one, later], n_bootstrap=20).interval, "epochs are no second mini-batch"


def test_interval_needs_three_mini_batches():
    got = pi.class_transfer(many(4, 2), n_bootstrap=20)
    assert "at least 3 mini-batches" in got.interval
    assert np.isnan(got.ci_low).all()
    assert pi.class_transfer(many(1, 1)).ci_low is None


def test_thread_count_changes_nothing():
    results = many(3, 4)
    matrices = [np.ascontiguousarray(r["smse", "smse"]) for r in results]
    column = np.concatenate([r.labels.class_ids for r in results])
    times = np.concatenate([r.labels.times for r in results])
    clusters = np.arange(12)
    counts = _core.bootstrap_multiplicities([4, 4, 4], 100, 1, True)
    outs = []
    for threads in (1, 2, 5):
        out, _, draws = _core.pooled_quantiles(
            matrices, (column, times, column, times), clusters, "lag", 5, [0.25, 0.5], counts, threads
        )
        outs.append((out.tobytes(), draws.tobytes()))
    assert len(set(outs)) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_column_quantiles_are_numpys(m, k, seed):
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((m, k)) * 10.0 ** rng.integers(-8, 8)
    got, _ = column_quantiles(table, (0.0, 0.1, 0.25, 0.5, 0.975, 1.0))
    np.testing.assert_array_equal(got, np.quantile(table, (0.0, 0.1, 0.25, 0.5, 0.975, 1.0), axis=0))


def test_plan_rules():
    assert plan([3, 3, 3], 0).multiplicities is None
    assert plan([6, 2, 6], 10).multiplicities is None
    assert "mini-batches only" in plan([6, 6], 10).description
    assert plan([3, 4, 5], 10).multiplicities.shape == (10, 12)
    with pytest.raises(ValueError, match="n_bootstrap"):
        plan([3], -1)


def test_refusals():
    result = make()
    with pytest.raises(ValueError, match="must be one of smse; got 'mass'"):
        pi.two_time(result, response="mass")
    with pytest.raises(ValueError, match="empty"):
        pi.two_time([])
    with pytest.raises(ValueError, match="must be an Influence"):
        pi.two_time([np.eye(3)])
    with pytest.raises(ValueError, match="must be one of pooled, paper"):
        pi.two_time(result, style="mean")
    with pytest.raises(ValueError, match="class names"):
        pi.two_time([result, pi.Influence.from_arrays(np.eye(2), [0, 1], [0, 1], [1, 1])])
    with pytest.raises(ValueError, match="at least 2 perturbations"):
        pi.two_time(pi.Influence.from_arrays([[1.0]], [0], [0], [1]))
    with pytest.raises(ValueError, match="input_distance"):
        pi.distance_decay(result)
    with pytest.raises(ValueError, match="spread"):
        pi.distance_decay(replace(result, input_distance=np.ones((16, 16))))
    with pytest.raises(ValueError, match="max_lag"):
        pi.lag_profile(result, max_lag=-1)


@pytest.mark.parametrize("kind", ["cosine", "trace", "by_response", "by_perturbation"])
def test_a_diagonal_needs_the_same_examples(kind):
    h = np.random.default_rng(0).standard_normal((3, 3))
    labels = ([0, 1, 0], [0, 0, 1], [1, 1, 2])
    other = Labels(*(np.array(x) for x in ([1, 0, 0], [0, 0, 1], [1, 1, 2])), ("class 0", "class 1"))
    result = replace(pi.Influence.from_arrays(h, *labels), response_labels=other)
    with pytest.raises(ValueError, match="same order"):
        pi.class_transfer(result, standardize=kind)
    pi.class_transfer(result)


def test_one_example_works_without_a_scale():
    one = pi.Influence.from_arrays([[2.0]], [0], [0], [1])
    assert pi.two_time(one, standardize="none").median.tolist() == [[2.0]]
    assert pi.class_transfer(one, standardize="none").median.tolist() == [[2.0]]


def test_results_may_stream():
    results = many(2, 2)
    np.testing.assert_array_equal(pi.two_time(r for r in results).median, pi.two_time(results).median)


def test_arrays_in_fortran_order_mean_the_same():
    generator = np.random.default_rng(0)
    h, d = generator.standard_normal((12, 12)), generator.uniform(1, 2, (12, 12))
    labels = np.repeat(np.arange(2), 6), np.repeat(np.arange(2), 6), np.tile(np.arange(6), 2)
    results = [
        pi.Influence.from_arrays(order(h), *labels, input_distance=order(d)) for order in (np.array, np.asfortranarray)
    ]
    plain, turned = (pi.distance_decay([r], n_bins=3) for r in results)
    assert np.array_equal(plain.median, turned.median)
    assert np.array_equal(*(pi.lag_profile([r]).intra.median for r in results), equal_nan=True)
    assert np.array_equal(*(r.standardize("by_response") for r in results))


def test_results_that_answer_different_questions_are_not_pooled_silently():
    one, other = make(), make(mini_batch=1)
    far = [replace(one, damping=1.0), replace(other, damping=3.0)]
    with pytest.warns(UserWarning, match="dampings from 1 to 3 are pooled"):
        pi.lag_profile(far, max_lag=2)
    near = [replace(one, damping=1.0), replace(other, damping=1.5)]
    pi.lag_profile(near, max_lag=2)
    metrics = [replace(r, settings={"metric": m}) for r, m in zip(near, ("sum", "mean"), strict=True)]
    with pytest.raises(ValueError, match="`results` must share their metric; got mean and sum"):
        pi.lag_profile(metrics, max_lag=2)
    networks = [replace(r, settings={"n_parameters": n}) for r, n in zip(near, (200, 1000), strict=True)]
    with pytest.warns(UserWarning, match="networks with 200 and 1,000 parameters are pooled"):
        pi.lag_profile(networks, max_lag=2)
