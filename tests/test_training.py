"""Training: loss curves, resuming, interruption, checkpoints, several processes, errors."""

from __future__ import annotations

import json
import math
import os
import sys

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

import pdeinfl as pi
from pdeinfl.data.streaming import stream_batches
from pdeinfl.surrogates import (
    History,
    TrainingDiverged,
    UNet,
    ViT,
    checkpoint_info,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from pdeinfl.surrogates import checkpoint as checkpoint_module

CHANNELS = ("velocity_x", "velocity_y")


def waves(n=6, n_times=5, seed=0):
    """Travelling waves: ``s(t+1)`` is ``s(t)`` shifted by one cell."""
    start = np.random.default_rng(seed).standard_normal((n, 1, 2, 8, 8))
    states = np.concatenate([np.roll(start, t, -1) for t in range(n_times)], 1).astype(np.float32)
    return pi.Trajectories.from_arrays(states, channel_names=CHANNELS)


def model(seed=0, **changes):
    torch.manual_seed(seed)
    return ViT(**({"channels": 2, "resolution": 8, "width": 16, "depth": 1, "heads": 2} | changes))


def fit(net, epochs, directory=None, **changes):
    settings = {"seed": 3, "batch_size": 5, "lr": 5e-3, "progress": False} | changes
    return pi.train(net, waves(), waves(2, seed=1), epochs, checkpoint_dir=directory, **settings)


def same_weights(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


class WithDropout(nn.Module):
    """Draws from the global generator and has a buffer: what a resumed run must get right."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm2d(2)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.dropout(self.norm(self.conv(x)))


# --- the loop --------------------------------------------------------------------------------------------------------


def test_history_and_untrained_control(tmp_path):
    net = model()
    untrained = {k: v.clone() for k, v in net.state_dict().items()}
    history = fit(net, 4, tmp_path)
    assert history.epoch.tolist() == [0, 1, 2, 3, 4]
    assert math.isnan(history.train_loss[0])
    assert np.isfinite(history.train_loss[1:]).all()
    assert history.n_parameters == net.n_parameters
    assert (history.seconds > 0).all()
    assert history.val_loss[-1] < 0.8 * history.val_loss[0]
    assert list(list_checkpoints(tmp_path)) == [0, 4]
    control, info = load_checkpoint(list_checkpoints(tmp_path)[0])
    assert info.epoch == 0
    assert all(torch.equal(v, untrained[k]) for k, v in control.state_dict().items())
    trained, info = load_checkpoint(list_checkpoints(tmp_path)[4])
    assert same_weights(trained, net)
    assert (info.seed, info.config, info.settings["channel_names"]) == (3, net.config, list(CHANNELS))
    np.testing.assert_array_equal(info.history.val_loss, history.val_loss)
    assert np.array_equal(History.load(tmp_path / "history.json").val_loss, history.val_loss)


def test_losses_match_a_loop_by_hand():
    """Two epochs written out, losses computed with the slow reference."""
    import reference

    train, val = waves(), waves(2, seed=1)
    net = model()
    history = fit(model(), 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=1e-4)
    eps = torch.finfo(torch.float32).eps
    for epoch in (1, 2):
        seen = []
        for x, y in stream_batches(train, 5, 3, epoch):
            out = net(x)
            seen += [np.mean(reference.smse(p, t)) for p, t in zip(out.detach().numpy(), y.numpy(), strict=True)]
            scale = y.square().mean((2, 3), keepdim=True).sqrt() + 1e-6
            optimizer.zero_grad()
            ((out - y) ** 2 / scale).mean().backward()
            optimizer.step()
        # The order of summation differs; Adam turns an eps in a gradient into at most eps·lr·√steps of weights.
        assert history.train_loss[epoch] == pytest.approx(np.mean(seen), rel=1e3 * eps)
        with torch.no_grad():
            pairs = [(net(torch.from_numpy(s[:-1].copy())).numpy(), s[1:]) for s in val]
        by_hand = np.mean([np.mean(reference.smse(p, t)) for out, ys in pairs for p, t in zip(out, ys, strict=True)])
        assert history.val_loss[epoch] == pytest.approx(by_hand, rel=1e3 * eps)


def test_unet_trains():
    torch.manual_seed(0)
    history = fit(UNet(2, width=2, kernels=(3,), stem_kernel=3, heads=1), 3)
    assert history.val_loss[-1] < history.val_loss[0]


def test_seed_decides_and_global_generator_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    net = WithDropout()
    torch.set_rng_state(before)
    first = fit(net, 2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert np.array_equal(first.train_loss, fit(WithDropout(), 2).train_loss, equal_nan=True)
    assert not np.array_equal(first.train_loss[1:], fit(WithDropout(), 2, seed=4).train_loss[1:])


def test_modes_are_given_back():
    net = WithDropout()
    net.dropout.eval()
    fit(net, 1)
    assert net.training
    assert not net.dropout.training


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [model, WithDropout])
def test_resumed_run_is_the_uninterrupted_one(tmp_path, make):
    whole = make()
    expected = fit(whole, 5, tmp_path / "whole")
    fit(make(), 2, tmp_path / "parts")
    resumed = make()
    with torch.no_grad():
        for p in resumed.parameters():
            p.add_(1.0)  # whatever the new process starts from
    history = fit(resumed, 5, tmp_path / "parts")
    assert np.array_equal(history.train_loss, expected.train_loss, equal_nan=True)
    assert np.array_equal(history.val_loss, expected.val_loss)
    assert same_weights(resumed, whole)


def test_finished_run_is_loaded_not_repeated(tmp_path):
    net = model()
    expected = fit(net, 2, tmp_path)
    stamp = list_checkpoints(tmp_path)[2].stat().st_mtime_ns
    again = model(seed=1)
    history = fit(again, 2, tmp_path)
    assert np.array_equal(history.seconds, expected.seconds)
    assert same_weights(again, net)
    assert list_checkpoints(tmp_path)[2].stat().st_mtime_ns == stamp


@pytest.mark.parametrize("stop_at", [1, 7, 11])
def test_interrupt_leaves_the_last_whole_epoch(tmp_path, stop_at):
    class Interrupting(ViT):
        calls = 0

        def forward(self, state):
            if self.training:
                self.calls += 1
                if self.calls == stop_at:
                    raise KeyboardInterrupt
            return super().forward(state)

    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(2, 8, width=16, depth=1, heads=2), 4, tmp_path)
    whole_epochs = (stop_at - 1) // 5  # 24 transitions in batches of 5
    assert max(list_checkpoints(tmp_path)) == whole_epochs
    resumed = model()
    history = fit(resumed, 4, tmp_path)
    uninterrupted = model()
    assert np.array_equal(history.val_loss, fit(uninterrupted, 4).val_loss)
    assert same_weights(resumed, uninterrupted)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "epoch_0000.pt"
    save_checkpoint(path, model())
    before = path.read_bytes()
    with pytest.raises(TypeError, match="pickle"):
        save_checkpoint(path, model(), settings={"a generator": (n for n in ())})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_same_content_same_digest(tmp_path):
    digests = []
    for name in ("a.pt", "b.pt"):
        save_checkpoint(tmp_path / name, model())
        digests.append(checkpoint_module.sha256(tmp_path / name))
    assert digests[0] == digests[1]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".epoch_0001.pt.4711.tmp").write_bytes(b"half")
    fit(model(), 1, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0000.pt", "epoch_0001.pt", "history.json"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0, 6]),
        ({"keep_epochs": "all"}, [0, 1, 2, 3, 4, 5, 6]),
        ({"keep_epochs": (1, 4)}, [0, 1, 4, 6]),
        ({"keep_epochs": "all", "checkpoint_every": 4}, [0, 4, 6]),
        ({"keep_epochs": (1,), "checkpoint_every": 4}, [0, 1, 6]),
    ],
)
def test_which_checkpoints_stay(tmp_path, changes, expected):
    fit(model(), 6, tmp_path, **changes)
    assert list(list_checkpoints(tmp_path)) == expected


def test_resume_false_starts_over(tmp_path):
    fit(model(), 3, tmp_path, keep_epochs="all")
    history = fit(model(), 1, tmp_path, seed=8, resume=False)
    assert list(list_checkpoints(tmp_path)) == [0, 1]
    assert len(history.epoch) == 2


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoint_holds_plain_values_only(tmp_path):
    fit(model(), 1, tmp_path)
    path = list_checkpoints(tmp_path)[1]
    content = torch.load(path, weights_only=True)
    json.dumps({k: v for k, v in content.items() if k not in ("model", "optimizer")})
    assert checkpoint_module.sha256(path) == checkpoint_info(path).sha256()
    assert len(checkpoint_module.sha256(path)) == 64


def test_foreign_modules(tmp_path):
    net = WithDropout()
    fit(net, 1, tmp_path)
    path = list_checkpoints(tmp_path)[1]
    with pytest.raises(ValueError, match="holds a module of another kind than ours: pass `model`"):
        load_checkpoint(path)
    loaded, info = load_checkpoint(path, WithDropout())
    assert same_weights(loaded, net)
    assert info.config is None
    with pytest.raises(ValueError, match="its weights do not fit this ViT") as caught:
        load_checkpoint(path, model())
    assert "\n" not in str(caught.value)


def test_loading_leaves_the_global_generator_alone(tmp_path):
    save_checkpoint(tmp_path / "c.pt", model())
    before = torch.get_rng_state()
    loaded, info = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training
    assert info.epoch == 0


def test_bad_checkpoints(tmp_path):
    path = tmp_path / "epoch_0001.pt"
    with pytest.raises(FileNotFoundError):
        load_checkpoint(path)
    save_checkpoint(path, model())
    whole = path.read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"epoch_0001\.pt is not a readable checkpoint") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of this package"):
        load_checkpoint(path)
    torch.save(nn.Linear(2, 2), path)  # a pickled object: weights_only refuses it
    with pytest.raises(ValueError, match="is not a readable checkpoint"):
        load_checkpoint(path)


def test_history_round_trip_and_errors(tmp_path):
    history = fit(model(), 2)
    history.save(tmp_path / "h.json")
    again = History.load(tmp_path / "h.json")
    for name in ("epoch", "train_loss", "val_loss", "seconds"):
        assert np.array_equal(getattr(again, name), getattr(history, name), equal_nan=True)
    assert again.n_parameters == history.n_parameters
    assert "NaN" not in (tmp_path / "h.json").read_text()
    for text in ("", "{}", '{"epoch": [0], "train_loss": [], "val_loss": [1], "seconds": [1], "n_parameters": 1}'):
        (tmp_path / "h.json").write_text(text)
        with pytest.raises(ValueError, match="is not a training history"):
            History.load(tmp_path / "h.json")


# --- progress --------------------------------------------------------------------------------------------------------


def test_a_log_gets_a_line_per_epoch(capsys):
    fit(model(), 2, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    fit(model(), 1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(model(), 2, progress=True)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "48.0/48.0" in shown


# --- errors ----------------------------------------------------------------------------------------------------------


def test_divergence_is_named(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"training loss became (nan|inf) by epoch \d+, batch \d+: lower `lr`"):
        fit(model(), 50, tmp_path, lr=1e20)
    found = list_checkpoints(tmp_path)
    assert np.isfinite(checkpoint_info(found[max(found)]).history.train_loss[1:]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model(channels=4), r"this ViT takes states \(n, 4, x, y\); got shape \(1, 2, 8, 8\)"),
        (lambda: model(resolution=16), r"this ViT is built for resolution \(16, 16\); got \(8, 8\)"),
        (lambda: UNet(2, width=2, kernels=(3, 3, 3), stem_kernel=3), r"divisible by 8 and at least 16; got \(8, 8\)"),
        (lambda: nn.Bilinear(2, 2, 2), r"`model` cannot take one state of shape \(2, 8, 8\) alone: "),
        (lambda: nn.Conv2d(3, 3, 1), r"`model` cannot take one state of shape \(2, 8, 8\)"),
        (
            lambda: nn.Conv2d(2, 3, 1),
            r"`model` must map a state to one of the same shape, \(2, 8, 8\); got \(3, 8, 8\)",
        ),
    ],
)
def test_unfit_models_are_refused_before_anything_is_written(tmp_path, make, message):
    with pytest.raises(ValueError, match=message) as caught:
        fit(make(), 1, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "`seed` must be an integer of at least 0; got -1"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1; got 0"),
        ({"checkpoint_every": 0}, "`checkpoint_every` must be an integer of at least 1"),
        ({"lr": 0.0}, "`lr` must be positive"),
        ({"lr": math.nan}, "`lr` must be positive"),
        ({"weight_decay": -1.0}, "`weight_decay` non-negative"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        fit(model(), 1, **changes)


def test_nothing_to_train():
    with pytest.raises(ValueError, match="`model` has no trainable parameters"):
        fit(model().requires_grad_(False), 1)


def test_bad_data():
    short, empty, other = waves(n_times=1), waves().select([]), waves()
    other.channel_names = ("u", "v")
    for train, val, message in (
        (short, waves(), "`train` holds no transitions: 6 trajectories of 1 snapshots"),
        (waves(), empty, "`val` holds no transitions: 0 trajectories"),
        (waves(), other, "`train` and `val` must have the same channel_names"),
    ):
        with pytest.raises(ValueError, match=message):
            pi.train(model(), train, val, 1, progress=False)


def test_another_run_is_not_overwritten(tmp_path):
    fit(model(), 2, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    net = model(seed=1)
    start = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"epoch_0002\.pt is of another run: its seed is 3, this one's 4"):
        fit(net, 3, tmp_path, seed=4)
    with pytest.raises(ValueError, match=r"is of another run: its lr is 0\.005, this one's 0\.1"):
        fit(net, 3, tmp_path, lr=0.1)
    with pytest.raises(ValueError, match="is of another run: its data is"):
        pi.train(net, waves(seed=5), waves(2, seed=1), 3, 3, tmp_path, batch_size=5, lr=5e-3, progress=False)
    with pytest.raises(ValueError, match="`epochs` must be at least 2"):
        fit(net, 1, tmp_path)
    with pytest.raises(ValueError, match="do not fit this ViT"):
        fit(model(width=8), 3, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert all(torch.equal(v, start[k]) for k, v in net.state_dict().items())


# --- several processes, several devices ------------------------------------------------------------------------------


def train_as_rank(rank, port, directory):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    history = fit(model(seed=rank), 3, directory, batch_size=4)  # different weights: rank 0's must win
    history.save(f"{directory}/rank{rank}.json")


def test_two_processes_train_as_one(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(train_as_rank, (port, str(tmp_path)), nprocs=2)
    net = model()
    alone = fit(net, 3, batch_size=8)
    together = [History.load(tmp_path / f"rank{rank}.json") for rank in (0, 1)]
    np.testing.assert_array_equal(together[0].val_loss, together[1].val_loss)
    # Averages of two halves against one mean: rounding, which nine Adam steps of 5e-3 can amplify where g ≈ 0.
    tolerance = 1e4 * torch.finfo(torch.float32).eps
    np.testing.assert_allclose(together[0].train_loss[1:], alone.train_loss[1:], rtol=tolerance)
    np.testing.assert_allclose(together[0].val_loss, alone.val_loss, rtol=tolerance)
    assert list(list_checkpoints(tmp_path)) == [0, 3]


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_devices(device):
    net = model()
    history = fit(net, 2, device=device)
    assert next(net.parameters()).device.type == device
    np.testing.assert_allclose(history.val_loss, fit(model(), 2).val_loss, rtol=1e-3 if device == "cuda" else 0)
