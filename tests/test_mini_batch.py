"""`MiniBatch`: labels, moves, choices, refusals."""

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import mini_batch
from pdeinfl.analysis.symmetry import Motion

X = torch.rand(3, 4, 2, 2)
LABELS = {"class_ids": [0, 1, 0], "trajectory_ids": [0, 1, 0], "times": [1, 1, 2]}


def test_labels_are_integers_and_names_have_defaults():
    batch = pi.MiniBatch(X, X, **LABELS)
    assert len(batch) == 3
    assert batch.class_names == ("class 0", "class 1")
    assert batch.channel_names == ("density", "momentum_x", "momentum_y", "energy")
    assert batch.times.dtype == np.int64
    assert pi.MiniBatch(X[:, :2], X[:, :2], **LABELS).channel_names == ("velocity_x", "velocity_y")
    assert pi.MiniBatch(X[:, :3], X[:, :3], **LABELS).channel_names == ("channel 0", "channel 1", "channel 2")


def test_it_prints_on_one_line():
    text = repr(pi.MiniBatch(X, X, **LABELS))
    assert text == (
        "MiniBatch(3 transitions of 2 trajectories, 4 x 2 x 2; classes class 0, class 1; "
        "channels density, momentum_x, momentum_y, energy (assumed))"
    )


@pytest.mark.parametrize("sides", [(5,), (3, 4), (2, 3, 2)])
def test_states_have_one_to_three_space_axes(sides):
    assert mini_batch(2, channels=2, sides=sides).inputs.shape == (2, 2, *sides)


def test_numpy_arrays_and_several_frames_are_taken():
    batch = pi.MiniBatch(np.ones((3, 8, 2, 2), np.float32), np.ones((3, 4, 2, 2), np.float32), **LABELS)
    assert batch.inputs.shape[1] == 2 * batch.targets.shape[1]


def test_moves_change_fields_but_not_integer_extras():
    batch = pi.MiniBatch(X, X, extras=(torch.arange(3), torch.rand(3)), **LABELS).to(dtype=torch.float64)
    assert batch.inputs.dtype == batch.targets.dtype == batch.extras[1].dtype == torch.float64
    assert batch.extras[0].dtype == torch.int64


@pytest.mark.parametrize("indices", [[2, 0], slice(1, None), np.array([True, False, True])])
def test_selection_takes_fields_labels_and_extras_together(indices):
    batch = pi.MiniBatch(X, 2 * X, extras=(torch.arange(3),), **LABELS)
    order = np.arange(3)[indices]
    chosen = batch.select(indices)
    assert torch.equal(chosen.inputs, X[order])
    assert torch.equal(chosen.targets, 2 * X[order])
    assert chosen.extras[0].tolist() == order.tolist()
    assert chosen.times.tolist() == np.array(LABELS["times"])[order].tolist()
    assert chosen.class_names == batch.class_names


def test_the_digest_tells_fields_labels_and_names_apart():
    base = pi.MiniBatch(X, X, **LABELS)
    assert base.sha256() == pi.MiniBatch(X.clone(), X, **LABELS).sha256()
    others = [
        pi.MiniBatch(X + 1, X, **LABELS),
        pi.MiniBatch(X, X + 1, **LABELS),
        pi.MiniBatch(X, X, **{**LABELS, "times": [1, 1, 3]}),
        pi.MiniBatch(X, X, class_names=("a", "b"), **LABELS),
        pi.MiniBatch(X, X, channel_names=("a", "b", "c", "d"), **LABELS),
        pi.MiniBatch(X, X, extras=(torch.arange(3),), **LABELS),
        pi.MiniBatch(X.double(), X, **LABELS),
    ]
    assert len({base.sha256(), *(o.sha256() for o in others)}) == 8


BAD = X.clone()
BAD[1, 0, 0, 0] = float("nan")
REFUSALS = {
    "empty": ({"inputs": X[:0]}, "`inputs` holds no examples"),
    "nan": ({"targets": BAD}, r"`targets` holds NaN or infinity \(first at example 1\)"),
    "integers": ({"inputs": X.int()}, r"`inputs` must be a floating-point tensor; got torch\.int32"),
    "flat": ({"inputs": X[:, :, 0, 0]}, r"`inputs` must have shape \(n, channel, x, \.\.\.\); got \(3, 4\)"),
    "lengths": ({"targets": X[:2]}, "`inputs` and `targets` must have the same length; got 3 and 2"),
    "missing": ({"times": None}, "`times` must be given"),
    "short": ({"times": [1, 2]}, r"`times` must have shape \(3,\), one integer per example; got \(2,\)"),
    "fractions": ({"class_ids": [0.0, 1.0, 0.0]}, "`class_ids` must hold integers; got dtype float64"),
    "negative": ({"class_ids": [0, -1, 0]}, "`class_ids` must be non-negative; got -1"),
    "names": ({"class_names": ("RP",)}, "`class_names` must name every class: ids reach 1, got 1 names"),
    "channels": ({"channel_names": ("a",)}, "`channel_names` must name the 4 channels of `targets`.*; got 1 name"),
    "twice": ({"times": [1, 1, 1]}, r"examples 0 and 2 have the same class, trajectory and time \(0, 0, 1\)"),
    "extras": ({"extras": (torch.zeros(2),)}, r"`extras\[0\]` must have length 3, one entry per example; got \(2,\)"),
    "a number for all": ({"extras": (0.05,)}, r"`extras\[0\]` must be a tensor of length 3; got float: what is the"),
    "a bare number": ({"extras": 0.05}, r"`extras\[0\]` must be a tensor of length 3; got float"),
    "an array": ({"extras": np.zeros(3)}, r"`extras\[0\]` must be a tensor of length 3; got ndarray"),
    "extras that are not finite": ({"extras": torch.tensor([0.0, 1.0, float("nan")])}, r"`extras\[0\]` holds NaN"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_one_line_and_name_the_argument(case):
    settings, message = REFUSALS[case]
    with pytest.raises(ValueError, match=message) as caught:
        pi.MiniBatch(**{"inputs": X, "targets": X, **LABELS, **settings})
    assert "\n" not in str(caught.value)


def test_assumed_channels_say_so_and_decide_nothing_by_default():
    fields = torch.rand(3, 2, 4, 4)
    labels = {"class_ids": [0, 0, 0], "trajectory_ids": [0, 0, 0], "times": [1, 2, 3]}
    unnamed = pi.MiniBatch(fields, fields + 1, **labels)
    named = pi.MiniBatch(fields, fields + 1, **labels, channel_names=("velocity_x", "velocity_y"))
    assert unnamed.channel_names == named.channel_names
    assert "(assumed)" in repr(unnamed)
    assert "(assumed)" not in repr(named)
    for batch in (unnamed, unnamed.select([0, 2]), unnamed.to(dtype=torch.float64)):
        assert batch.channels_are_assumed
    module = torch.nn.Conv2d(2, 2, 1)
    assert pi.influence(module, unnamed, damping=1.0).response_names == ("smse",)
    assert pi.influence(module, named, damping=1.0).response_names == ("smse", "kinetic_energy", "enstrophy")
    assert pi.influence(module, unnamed, "kinetic_energy", damping=1.0).response_names == ("kinetic_energy",)


def test_assumed_vectors_turn_with_a_warning():
    fields = torch.rand(2, 2, 4, 4)
    labels = {"class_ids": [0, 0], "trajectory_ids": [0, 0], "times": [1, 2]}
    unnamed = pi.MiniBatch(fields, fields + 1, **labels)
    with pytest.warns(UserWarning, match="velocity_x and velocity_y are assumed and turn as a vector"):
        Motion(quarter_turns=1).on(unnamed)
    Motion(shift_x=1).on(unnamed)
    Motion(quarter_turns=1).on(pi.MiniBatch(fields, fields, **labels, channel_names=("u", "v")))


def test_one_tensor_is_one_extra():
    steps = torch.rand(3)
    batch = pi.MiniBatch(X, X, **LABELS, extras=steps)
    assert len(batch.extras) == 1
    assert batch.extras[0] is steps
    with pytest.raises(ValueError, match=r"`extras\[0\]` must have length 3"):
        pi.MiniBatch(X, X, **LABELS, extras=steps[:2])
