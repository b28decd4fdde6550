"""The public `simulate`: labels, channels, provenance and refusals."""

import numpy as np
import pytest

import pdeinfl as pi
from pdeinfl.data.simulators.euler import simulate_euler


def test_euler_trajectories_are_labelled():
    traj = pi.simulate("CE", classes=("RP", "RPUI"), n_per_class=2, resolution=16, n_steps=3, seed=5)
    assert len(traj) == 4
    assert traj.n_times == 4
    assert traj.class_names == ("RP", "RPUI")
    assert traj.class_ids.tolist() == [0, 0, 1, 1]
    assert traj.channel_names == ("density", "momentum_x", "momentum_y", "energy")
    assert traj.time_step == 0.05
    states, _, _ = simulate_euler(("RP", "RPUI"), 2, 16, 3, seed=5)
    for got, want in zip(traj, states, strict=True):
        assert got.dtype == np.float32
        assert np.array_equal(got, want)
    assert traj.provenance == {
        "source": "simulated",
        "equation": "CE",
        "version": pi.__version__,
        "gamma": 1.4,
        "cfl": 0.475,
        "refinement": 2,
        "initial_conditions": "release_like",
        "seed": 5,
    }


def test_given_states_are_one_class():
    w = np.ones((2, 4, 8, 8))
    w[:, 1:3] = 0
    traj = pi.simulate("CE", "still", initial_states=w, n_steps=2)
    assert traj.class_names == ("still",)
    assert traj.provenance["initial_conditions"] == "given"
    want = np.array([1, 0, 0, 2.5], np.float32)[:, None, None]
    assert np.array_equal(traj[-1], np.broadcast_to(want, (3, 4, 8, 8)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"equation": "Euler"}, "`equation` must be one of CE, NS; got 'Euler'"),
        ({"preset": "best"}, "`preset` must be one of paper, release_like; got 'best'"),
        ({"classes": ("RP", "Sines")}, "must be among RP, CRP, RPUI for CE; got 'Sines'"),
        ({"equation": "NS", "classes": {"mine": None}}, "`classes` must name classes among BB, Gauss, Sines for NS"),
        ({"equation": "NS", "classes": "BB", "refinement": 2}, "`refinement` is for CE only"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"equation": "CE", "classes": "RP", "n_per_class": 1, "resolution": 8, "n_steps": 1, "seed": 0}
    with pytest.raises(ValueError, match=message):
        pi.simulate(**(good | arguments))
