"""Rollout link against a loop over trajectories; matching of errors; intervals; Simpson's paradox (MATH §5)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import pdeinfl as pi
from pdeinfl.analysis.rollout_link import pearson
from reference import pearson as slow_pearson
from reference import trajectory_ratio

EPS = np.finfo(np.float64).eps
CLASSES = ("RP", "CRP", "RPUI")


def make(seed, mini_batch, lengths=(3, 1, 5), epoch=2, n_classes=3):
    """One trajectory of each length, classes in turn; its examples are shuffled among those of the others."""
    rng = np.random.default_rng([seed, mini_batch, len(lengths)])
    order = rng.permutation(sum(lengths))
    trajectory = np.repeat(np.arange(len(lengths)), lengths)[order]
    times = np.concatenate([np.arange(1, t + 1) for t in lengths])[order]
    h = rng.standard_normal((len(order), len(order))) + 3 * np.eye(len(order))
    ids = 10 * mini_batch + trajectory // n_classes
    return pi.Influence.from_arrays(h, trajectory % n_classes, ids, times, class_names=CLASSES, run="UNet", seed=seed,
                                    epoch=epoch, mini_batch=mini_batch)  # fmt: skip


def key_of(result):
    return (result.run, result.seed, result.epoch, result.mini_batch)


def errors_of(results):
    rng = np.random.default_rng(0)
    out = {}
    for r in results:
        pairs = set(zip(r.labels.class_ids.tolist(), r.labels.trajectory_ids.tolist(), strict=True))
        out[key_of(r)] = {pair: float(rng.uniform(0.1, 5)) for pair in sorted(pairs, key=str)}
    return out


def many(seeds=(1, 5, 7), batches=3, lengths=(3, 2, 5, 4)):
    return [make(s, b, lengths) for s in seeds for b in range(batches)]


@pytest.mark.parametrize("lengths", [(3, 2, 5, 4), (1, 1, 1), (2, 7, 1, 3, 1, 2, 6)])
def test_against_the_reference(lengths):
    results = many(lengths=lengths)
    errors = errors_of(results)
    found = pi.rollout_link(iter(results), errors)
    points = []
    for r in results:
        for (class_id, trajectory), error in errors[key_of(r)].items():
            labels = zip(r.labels.class_ids, r.labels.trajectory_ids, strict=True)
            members = [i for i, pair in enumerate(labels) if pair == (class_id, trajectory)]
            points.append((class_id, error, trajectory_ratio(r["smse", "smse"], members)))
    got = sorted(zip(found.class_ids, found.error, found.ratio, strict=True))
    np.testing.assert_allclose(got, sorted(points), rtol=200 * EPS, atol=200 * EPS)
    assert found.pooled.n == len(points) == len(results) * len(lengths)
    if max(lengths) == 1:
        assert math.isnan(found.pooled.value), "no pairs: every ρ is 0"
        return
    sets = [points, *([p for p in points if p[0] == k] for k in range(3))]
    for correlation, chosen in zip((found.pooled, *found.by_class), sets, strict=True):
        assert correlation.n == len(chosen)
        want = slow_pearson([p[2] for p in chosen], [p[1] for p in chosen])
        assert correlation.value == pytest.approx(want, abs=1e3 * EPS)
        assert math.isnan(correlation.low)
    assert "not asked for" in found.interval


def test_the_order_of_results_and_errors_does_not_matter():
    results = many()
    errors = errors_of(results)
    turned = {key: dict(reversed(errors[key].items())) for key in reversed(errors)}
    a, b = pi.rollout_link(results, errors), pi.rollout_link(results[::-1], turned)
    assert a.pooled.value == pytest.approx(b.pooled.value, abs=100 * EPS)


def test_simpson():
    """Within every class the error rises with ρ; over all of them it falls."""
    results, errors = [], {}
    for mini_batch in range(4):
        ids, t = np.repeat(np.arange(3), 2), np.tile([1, 2], 3)
        off = np.array([0.1, 0.5, 0.9])[ids] + 0.01 * mini_batch
        h = np.where(ids[:, None] == ids, off[:, None], 0.0)
        np.fill_diagonal(h, 1.0)
        r = pi.Influence.from_arrays(h, ids, ids, t, class_names=CLASSES, mini_batch=mini_batch)
        results.append(r)
        errors[key_of(r)] = {(k, k): 3.0 - k + 0.1 * mini_batch for k in range(3)}
    found = pi.rollout_link(results, errors)
    assert found.pooled.value < -0.9
    assert [c.value for c in found.by_class] == pytest.approx([1.0] * 3, abs=1e5 * EPS)


def test_intervals_resample_seeds_and_mini_batches():
    results = many(batches=4)
    errors = errors_of(results)
    found = pi.rollout_link(results, errors, n_bootstrap=200, bootstrap_seed=3)
    again = pi.rollout_link(results, errors, n_bootstrap=200, bootstrap_seed=3)
    assert found.interval == "95% percentile bootstrap over 3 seeds, then mini-batches within each, 200 resamples"
    for c in (found.pooled, *found.by_class):
        assert -1 <= c.low < c.high <= 1
    assert found.pooled == again.pooled
    few = pi.rollout_link(results[:2], errors, n_bootstrap=200)
    assert math.isnan(few.pooled.low)
    assert "at least 3 mini-batches per seed; got 2" in few.interval


def test_a_rollout_that_blew_up_is_left_out_and_counted():
    results = many()
    errors = errors_of(results)
    blown = {key: dict(held) for key, held in errors.items()}
    first = next(iter(blown[key_of(results[0])]))
    blown[key_of(results[0])][first] = math.inf
    found = pi.rollout_link(results, blown, n_bootstrap=20)
    assert found.n_left_out == 1
    assert found.pooled.n == pi.rollout_link(results, errors).pooled.n - 1
    assert np.isfinite(found.error).all()


def test_pearson_under_weights_is_that_of_repeated_points():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 9)) + 100
    weights = rng.integers(0, 4, (20, 9))
    for row, got in zip(weights, pearson(x, y, weights.astype(float)), strict=True):
        want = slow_pearson(np.repeat(x, row), np.repeat(y, row))
        assert got == pytest.approx(want, abs=1e5 * EPS)


def test_pearson_without_spread_or_points_is_undefined():
    ones = np.ones((1, 4))
    assert np.isnan(pearson(np.full(4, 0.1), np.arange(4.0), ones))
    assert np.isnan(pearson(np.arange(4.0), np.full(4, 1e9 / 3), ones))
    assert np.isnan(pearson(np.arange(2.0), np.arange(2.0), np.ones((1, 2))))
    assert np.isnan(pearson(np.arange(4.0), np.arange(4.0), np.array([[5.0, 5.0, 0.0, 0.0]])))
    assert pearson(np.empty(0), np.empty(0), np.ones((1, 0))).shape == (1,)


def test_what_does_not_match_is_refused():
    results = many()
    errors = errors_of(results)
    key = key_of(results[1])
    with pytest.raises(ValueError, match=r"`errors` must hold \('UNet', 1, 2, 1\)"):
        pi.rollout_link(results, {k: v for k, v in errors.items() if k != key})
    for wrong in ({}, {**errors[key], (0, 99): 1.0}, errors[key_of(results[0])]):
        with pytest.raises(ValueError, match=r"must be keyed by the result's \(class, trajectory\)"):
            pi.rollout_link(results, {**errors, key: wrong})
    with pytest.raises(ValueError, match="must not be negative; got -1"):
        pi.rollout_link(results, {**errors, key: dict.fromkeys(errors[key], -1.0)})
    with pytest.raises(ValueError, match="got two of"):
        pi.rollout_link([*results, results[0]], errors)
    with pytest.raises(ValueError, match="is empty"):
        pi.rollout_link([], errors)
    with pytest.raises(ValueError, match="`response` must be one of smse"):
        pi.rollout_link(results, errors, response="mass")
    labels = replace(results[0].labels, times=results[0].labels.times + 1)
    with pytest.raises(ValueError, match="must respond on the examples that perturb"):
        pi.rollout_link([replace(results[0], response_labels=labels)], errors)
