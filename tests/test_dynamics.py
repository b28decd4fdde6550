"""Training dynamics against a loop over entries; quartiles over (seed, mini-batch); what is refused (MATH §5)."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest

import pdeinfl as pi
from reference import mean_influence, quartiles

EPS = np.finfo(np.float64).eps


def make(n, epoch=0, seed=0, mini_batch=0, observables=("smse",), offset=0.0):
    rng = np.random.default_rng([n, epoch, seed, mini_batch])
    h = rng.standard_normal((len(observables), 1, n, n)) + offset
    ids = np.arange(n) % 2
    return pi.Influence.from_arrays(
        h, ids, ids, np.arange(n), observables, seed=seed, epoch=epoch, mini_batch=mini_batch
    )


@pytest.mark.parametrize("n", [1, 2, 7, 48])
def test_against_the_reference(n):
    keys = [(epoch, seed, batch) for seed in (3, 10) for epoch in (9, 0, 4) for batch in range(3)]
    results = [make(n, *key, ("mass", "smse")) for key in keys]
    found = pi.training_dynamics(iter(results))
    np.testing.assert_array_equal(found.epochs, [0, 4, 9])
    np.testing.assert_array_equal(found.n_results, [6, 6, 6])
    for k, epoch in enumerate(found.epochs):
        means = np.array([mean_influence(r["smse", "smse"]) for r in results if r.epoch == epoch])
        for part, curve in enumerate((found.on_diagonal, found.off_diagonal)):
            want = quartiles(means[~np.isnan(means[:, part]), part])
            got = [curve.lower[k], curve.median[k], curve.upper[k]]
            # A mean of n² numbers of size about 1, and an interpolation.
            np.testing.assert_allclose(got, want, atol=4 * n * EPS)
    other = pi.training_dynamics(results, response="mass")
    assert not np.array_equal(other.on_diagonal.median, found.on_diagonal.median)


def test_an_off_diagonal_mean_is_not_the_difference_of_two_large_sums():
    h = np.diag(np.full(5, 1e16)) + 1.0 - np.eye(5)
    found = pi.training_dynamics(pi.Influence.from_arrays(h, *[np.arange(5)] * 3))
    assert found.off_diagonal.median[0] == 1.0


def test_epochs_may_hold_different_mini_batches():
    found = pi.training_dynamics([make(4, 0, 1, 0), make(4, 5, 1, 0), make(4, 5, 1, 1)])
    np.testing.assert_array_equal(found.n_results, [1, 2])
    on, off = mean_influence(make(4, 0, 1, 0)["smse", "smse"])
    for curve, value in ((found.on_diagonal, on), (found.off_diagonal, off)):
        np.testing.assert_allclose([curve.lower[0], curve.median[0], curve.upper[0]], value, atol=16 * EPS)


def test_results_are_consumed_one_at_a_time():
    made = []

    def stream():
        for epoch in range(4):
            assert sum(reference() is not None for reference in made) <= 1
            result = make(3, epoch)
            made.append(weakref.ref(result))
            yield result
            del result

    assert len(pi.training_dynamics(stream()).epochs) == len(made) == 4


def test_what_is_refused():
    with pytest.raises(ValueError, match="`results` is empty"):
        pi.training_dynamics([])
    with pytest.raises(ValueError, match="`response` must be one of smse; got 'mass'"):
        pi.training_dynamics(make(3), response="mass")
    with pytest.raises(ValueError, match=r"got two of \(5, '', 1, 0\)"):
        pi.training_dynamics([make(3, 5, 1), make(3, 0, 1), make(3, 5, 1)])
    result = make(3)
    labels = replace(result.response_labels, times=np.array([4, 5, 6]))
    with pytest.raises(ValueError, match="must respond on the examples that perturb"):
        pi.training_dynamics(replace(result, response_labels=labels))
