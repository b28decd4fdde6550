"""Rollout errors against a loop over start times and steps; their file; what is refused."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import pdeinfl as pi
from pdeinfl.surrogates import RolloutErrors, rollout_errors
from reference import rollout_error

EPS32 = float(np.finfo(np.float32).eps)


def batch_of(n_steps, trajectories=((0, 7), (1, 3)), channels=2, interleaved=False):
    rng = np.random.default_rng(n_steps)
    states = torch.from_numpy(rng.normal(1, 0.3, (len(trajectories), n_steps + 1, channels, 5, 6)).astype(np.float32))
    class_ids, ids = (np.repeat([t[k] for t in trajectories], n_steps) for k in (0, 1))
    times = np.tile(np.arange(1, n_steps + 1), len(trajectories))
    batch = pi.MiniBatch(states[:, :-1].flatten(0, 1), states[:, 1:].flatten(0, 1), class_ids, ids, times)
    return states, batch.select(np.argsort(times, kind="stable")) if interleaved else batch


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3, padding=1))


@pytest.mark.parametrize(("n_steps", "interleaved"), [(1, False), (2, True), (5, False), (5, True)])
def test_against_the_reference(n_steps, interleaved):
    states, batch = batch_of(n_steps, interleaved=interleaved)
    model = small_model()
    found = rollout_errors(model, batch)
    assert model.training, "its mode is left alone"
    assert found.errors.shape == (2, n_steps) == (2, found.longest)
    model.eval()
    for k, horizon in product(range(2), range(1, n_steps + 1)):
        want = rollout_error(model, states[k], horizon)
        # Float32 predictions in batches of another size, fed back; the costs are summed in float64.
        assert found.errors[k, horizon - 1] == pytest.approx(want, rel=50 * horizon * EPS32)
        assert found.at(horizon)[((0, 7), (1, 3))[k]] == found.errors[k, horizon - 1]


def test_a_model_without_parameters_that_is_exact_has_no_error():
    _, batch = batch_of(3)
    assert (rollout_errors(nn.Identity(), batch).errors > 0).all()
    still = pi.MiniBatch(batch.inputs[:3], batch.inputs[:3], *[np.zeros(3, int)] * 2, np.arange(3))
    still.inputs[:] = still.inputs[0]
    still.targets[:] = still.inputs[0]
    np.testing.assert_array_equal(rollout_errors(nn.Identity(), still).errors, 0)


def test_a_rollout_that_blows_up_has_infinite_error(tmp_path):
    class Explosive(nn.Module):
        def forward(self, x):
            return (x * 1e20) ** 2 - (x * 1e20) ** 2  # inf − inf from the first step on

    _, batch = batch_of(3)
    found = rollout_errors(Explosive(), batch)
    assert np.isposinf(found.errors).all()
    found.save(tmp_path / "e.json")
    assert "Infinity" not in (tmp_path / "e.json").read_text()
    np.testing.assert_array_equal(RolloutErrors.load(tmp_path / "e.json").errors, found.errors)


def test_what_was_saved_comes_back(tmp_path):
    _, batch = batch_of(4)
    found = rollout_errors(small_model(), batch, "abc")
    found.save(tmp_path / "deep" / "e.json")
    back = RolloutErrors.load(tmp_path / "deep" / "e.json")
    for name in ("class_ids", "trajectory_ids", "errors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert back.made_from("abc", batch.sha256())
    assert not back.made_from("abd", batch.sha256())
    assert not back.made_from("abc", batch_of(3)[1].sha256())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"class_ids": [1]}'])
def test_a_file_of_another_kind_is_named(tmp_path, text):
    path = tmp_path / "e.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"e\.json holds no rollout errors"):
        RolloutErrors.load(path)
    rollout_errors(small_model(), batch_of(2)[1]).save(path)
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "class_ids": [0]}))
    with pytest.raises(ValueError, match="its lists differ in length"):
        RolloutErrors.load(path)


def test_what_is_refused():
    _, batch = batch_of(4)
    with pytest.raises(ValueError, match=r"`horizon` must be between 1 and 4 steps; got 5"):
        rollout_errors(small_model(), batch).at(5)
    with pytest.raises(ValueError, match=r"\(1, 3\) has the times \[1, 2, 3\], the first trajectory 4 of them"):
        rollout_errors(small_model(), batch.select(slice(0, 7)))
    with pytest.raises(ValueError, match=r"\(0, 7\) has the times \[1, 3, 4\]"):
        rollout_errors(small_model(), batch.select([0, 2, 3]))
    with pytest.raises(ValueError, match="`model` must map a state to one of the same shape"):
        rollout_errors(nn.Conv2d(2, 3, 1), batch)
