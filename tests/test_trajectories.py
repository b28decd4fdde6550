"""`Trajectories`, its splits, transitions and mini-batches."""

import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pdeinfl.data.sources import from_bfloat16, to_bfloat16
from pdeinfl.data.splitting import part_sizes
from pdeinfl.data.trajectories import Trajectories

CLASSES = ("RP", "CRP", "RPUI")


def made(n_per_class=10, n_times=5, channels=4, x=6, y=7, classes=CLASSES, seed=0):
    generator = np.random.default_rng(seed)
    states = generator.uniform(0.5, 1.5, (n_per_class * len(classes), n_times, channels, x, y)).astype(np.float32)
    return Trajectories.from_arrays(states, np.repeat(np.arange(len(classes)), n_per_class), classes), states


def test_indexing_follows_lists():
    traj, states = made()
    assert len(traj) == 30
    assert traj.shape == (30, 5, 4, 6, 7)
    assert traj[3].dtype == np.float32
    np.testing.assert_array_equal(traj[-1], states[-1])
    np.testing.assert_array_equal(traj[np.int64(4)], states[4])
    np.testing.assert_array_equal(np.stack(list(traj[2:20:3])), states[2:20:3])
    np.testing.assert_array_equal(traj[[5, -1]][1], states[-1])
    np.testing.assert_array_equal(traj[traj.class_ids == 1][0], states[10])
    assert len(traj[4:4]) == 0 == len(traj[[]]) == traj[4:4].n_mini_batches
    for bad in (30, -31):
        with pytest.raises(IndexError, match="30"):
            traj[bad]
    with pytest.raises(TypeError, match="integers"):
        traj["RP"]


def test_labels_and_kinds():
    traj, _ = made()
    assert traj.class_names == CLASSES
    assert traj.channel_names == ("density", "momentum_x", "momentum_y", "energy")
    assert traj.channel_kinds == ("scalar", "x_component", "y_component", "energy")
    assert (traj.n_times, traj.resolution, traj.time_step, traj.domain) == (5, (6, 7), 0.05, (1.0, 1.0))
    assert (traj.equation, traj.axis_order, traj.gamma) == ("CE", "xy", 1.4)
    assert made(channels=2)[0].equation == "NS"


@pytest.mark.parametrize("n_per_class", [3, 7, 10, 20, 61])
def test_split_covers_everything_once_and_balanced(n_per_class):
    traj, _ = made(n_per_class, n_times=2, x=1, y=1)
    parts = traj.split((0.65, 0.05, 0.30), seed=10)
    ids = np.concatenate([part.trajectory_ids for part in parts])
    assert sorted(ids) == list(range(3 * n_per_class))
    for fraction, part in zip((0.65, 0.05, 0.30), parts, strict=True):
        counts = np.bincount(part.class_ids, minlength=3)
        assert len(set(counts)) == 1
        assert counts[0] >= 1
        assert abs(counts[0] - fraction * n_per_class) < 2
    again = traj.split((0.65, 0.05, 0.30), seed=10)
    other = traj.split((0.65, 0.05, 0.30), seed=11)
    assert all((a.trajectory_ids == b.trajectory_ids).all() for a, b in zip(parts, again, strict=True))
    if n_per_class > 3:
        assert any(list(a.trajectory_ids) != list(b.trajectory_ids) for a, b in zip(parts, other, strict=True))
    assert json.loads(json.dumps(parts[2].provenance))["split"]["seed"] == 10
    assert parts[2].provenance["split"]["part"] == 2
    assert "split" not in traj.provenance


def test_part_sizes_are_the_exact_shares_where_there_are_such():
    assert part_sizes(20, (0.65, 0.05, 0.30)) == [13, 1, 6]
    assert part_sizes(40, (0.65, 0.05, 0.30)) == [26, 2, 12]
    assert part_sizes(10, (0.65, 0.05, 0.30)) == [6, 1, 3]


def test_split_refuses():
    traj, _ = made(2)
    with pytest.raises(ValueError, match="RP has 2 trajectories"):
        traj.split()
    for fractions in ((0.5, 0.6), (1.0,), (1.2, -0.2), (0.5, 0.5, 0.0)):
        with pytest.raises(ValueError, match="sum to 1"):
            traj.split(fractions)


def test_mini_batch_holds_all_transitions_of_one_trajectory_per_class():
    traj, states = made()
    batch = traj.mini_batch(2)
    assert len(batch) == 12
    assert batch.inputs.dtype == torch.float32
    np.testing.assert_array_equal(batch.times, [1, 2, 3, 4] * 3)
    np.testing.assert_array_equal(batch.trajectory_ids, np.repeat([2, 12, 22], 4))
    np.testing.assert_array_equal(batch.class_ids, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(batch.inputs[5], states[12, 1])
    np.testing.assert_array_equal(batch.targets[5], states[12, 2])
    assert batch.class_names == CLASSES
    two = traj.mini_batch(1, per_class=2, n_transitions=3)
    np.testing.assert_array_equal(two.trajectory_ids, np.repeat([2, 3, 12, 13, 22, 23], 3))
    np.testing.assert_array_equal(traj.mini_batch(trajectories=[-1, 0]).trajectory_ids, np.repeat([29, 0], 4))
    assert traj.n_mini_batches == 10
    assert traj[5:].n_mini_batches == 5
    assert set(traj[:3].mini_batch().class_ids) == {0}


def test_mini_batch_refuses():
    traj, _ = made()
    for arguments, message in [
        ({"index": 10}, "between 0 and 9"),
        ({"index": -1}, "between 0 and 9"),
        ({"per_class": 11}, "smallest class has 10"),
        ({"per_class": 0}, "at least 1"),
        ({"n_transitions": 5}, "between 1 and 4"),
        ({"trajectories": [30]}, "below 30"),
        ({"trajectories": []}, "empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            traj.mini_batch(**arguments)
    with pytest.raises(ValueError, match="n_transitions"):
        made(n_times=1)[0].mini_batch()


def test_transitions_work_with_a_data_loader():
    traj, states = made(2, n_times=4)
    data = traj.transitions()
    assert len(data) == 18
    np.testing.assert_array_equal(data[7][0], states[2, 1])
    np.testing.assert_array_equal(data[-1][1], states[5, 3])
    with pytest.raises(IndexError, match="18"):
        data[18]
    inputs, targets = zip(*DataLoader(data, batch_size=5), strict=True)
    np.testing.assert_array_equal(torch.cat(inputs), states[:, :-1].reshape(18, 4, 6, 7))
    np.testing.assert_array_equal(torch.cat(targets), states[:, 1:].reshape(18, 4, 6, 7))


def test_what_comes_out_can_be_written_to_without_harm():
    traj, states = made(1)
    before = states.copy()
    batch = traj.mini_batch()
    batch.inputs.zero_()
    traj.transitions()[0][0].zero_()
    np.testing.assert_array_equal(traj[0], before[0])


def test_concatenation_merges_classes_by_name():
    a, states = made(2, classes=("RP", "CRP"))
    b, more = made(3, classes=("RPUI", "RP"), seed=1)
    both = Trajectories.concatenate([a, b])
    assert both.class_names == CLASSES
    np.testing.assert_array_equal(both.class_ids, [0, 0, 1, 1, 2, 2, 2, 0, 0, 0])
    np.testing.assert_array_equal(both[6], more[2])
    np.testing.assert_array_equal(both[3], states[3])
    np.testing.assert_array_equal(both.trajectory_ids, np.arange(10))
    with pytest.raises(ValueError, match="resolution"):
        Trajectories.concatenate([a, made(2, x=8)[0]])
    with pytest.raises(ValueError, match="channel_names"):
        Trajectories.concatenate([a, made(2, channels=2)[0]])
    with pytest.raises(ValueError, match="empty"):
        Trajectories.concatenate([])


def test_pickles_and_transposes_and_shortens():
    traj, states = made(2)
    copy = pickle.loads(pickle.dumps(traj))
    np.testing.assert_array_equal(copy[3], traj[3])
    turned = traj.transposed()
    assert turned.axis_order == "yx"
    assert turned.resolution == (7, 6)
    np.testing.assert_array_equal(turned[1], states[1].swapaxes(-1, -2))
    short = traj.first_snapshots(3)
    assert short[0].shape == (3, 4, 6, 7)
    assert len(short.mini_batch()) == 6
    with pytest.raises(ValueError, match="between 1 and 5"):
        traj.first_snapshots(6)


def test_cache_rounds_once_and_stays():
    traj, states = made(1)
    cached = traj.cached("bfloat16")
    assert traj.cached("bfloat16") is cached
    expected = torch.from_numpy(states).bfloat16().float().numpy()
    for _ in range(2):
        np.testing.assert_array_equal(cached[2], expected[2])
        np.testing.assert_array_equal(cached.read(1, 2, 4), expected[1, 2:4])
    with pytest.raises(ValueError, match="bfloat16"):
        traj.cached("int8")


def test_bfloat16_rounds_as_torch_does():
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    bits[:70_000] = (bits[:70_000] & 0xFFFF0000) | 0x8000  # ties
    values = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45])])
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    rounded = from_bfloat16(to_bfloat16(values))
    np.testing.assert_array_equal(rounded, expected)
    np.testing.assert_array_equal(np.signbit(rounded)[~np.isnan(values)], np.signbit(values)[~np.isnan(values)])


def test_from_arrays_refuses():
    good = np.ones((2, 3, 4, 5, 5), np.float32)
    for states, settings, message in [
        (good[0], {}, "trajectory, time, channel"),
        (good[:0], {}, "none empty"),
        (good.astype(int), {}, "floating point"),
        (good, {"class_ids": [0]}, "one per trajectory"),
        (good, {"class_ids": [0, 1], "class_names": ["RP"]}, "index the 1 class names"),
        (good, {"channel_names": ["density"]}, "name the 4 channels"),
        (good, {"axis_order": "ij"}, "axis_order"),
        (good, {"time_step": 0.0}, "time_step"),
        (np.where(np.arange(4)[:, None, None] == 0, 0 * good, good), {}, "density must be positive"),
        (np.full_like(good, np.nan), {}, "trajectory 0, snapshot 0: density holds NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            Trajectories.from_arrays(states, **settings)


def test_labelled_array_holds_the_states_under_their_names():
    states = np.random.default_rng(0).uniform(1, 2, (3, 2, 4, 4, 6)).astype(np.float32)
    traj = Trajectories.from_arrays(states, [1, 0, 1], ("a", "b"), time_step=0.1, domain=(2.0, 3.0))
    array = traj.to_xarray()
    assert array.dims == ("trajectory", "time", "channel", "x", "y")
    np.testing.assert_array_equal(array.values, states)
    assert list(array.initial_condition_class.values) == ["b", "a", "b"]
    second = array.sel(trajectory=1, channel="energy").isel(time=1)
    np.testing.assert_array_equal(second.values, states[1, 1, 3])
    np.testing.assert_allclose(array.time, [0, 0.1])
    np.testing.assert_allclose(array.x, [0.25, 0.75, 1.25, 1.75])
    turned = traj.transposed().to_xarray()
    assert turned.dims[-2:] == tuple(traj.transposed().axis_order)
