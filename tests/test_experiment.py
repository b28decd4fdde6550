"""A whole run, tiny: every stage, skipped when done, resumed when killed, shared by processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import astuple

import h5py
import numpy as np
import pytest

import pdeinfl as pi
from pdeinfl.cli import invoke
from pdeinfl.data.writer import write_trajectories
from pdeinfl.engine.store import InfluenceStore, Key
from pdeinfl.experiment import load_config, run_experiment
from pdeinfl.experiment.shares import others_finished, share
from pdeinfl.run_directory import RunDirectory, load_run, read_json

CONFIG = """
[run]
seeds = [1]
[data]
classes = ["RP", "CRP"]
per_class = 6
resolution = 16
steps = 3
split = [0.4, 0.2, 0.4]
[training]
epochs = 1
batch_size = 8
[surrogates.ViT]
kind = "ViT"
width = 16
depth = 1
[surrogates.UNet]
kind = "UNet"
width = 4
kernels = [3]
stem_kernel = 3
[influence]
relative_damping = 1e-1
tol = 0.5
mini_batches = 2
transitions = 2
"""
KEYS = {(name, 1, epoch, index) for name in ("ViT", "UNet") for epoch in (0, 1) for index in (0, 1)}
ALONE = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """A run with its data and models."""
    return run_experiment(load_config(config), tmp_path_factory.mktemp("run") / "trained", stages=("data", "train"))


@pytest.fixture(scope="module")
def finished(config, trained, tmp_path_factory):
    """A run with its influences, and what it said."""
    out, said = tmp_path_factory.mktemp("run") / "finished", []
    shutil.copytree(trained, out)
    run_experiment(load_config(config), out, stages=("influence",), say=said.append)
    return out, said


@pytest.fixture
def run(config, trained, tmp_path):
    """``run(*stages, **environment)`` starts the command line on a copy of the trained run."""
    out = shutil.copytree(trained, tmp_path / "copy")

    def start(*stages, **environment):
        command = [sys.executable, "-m", "pdeinfl.cli", "run", str(config), "--out", str(out)]
        command += ["--stages", ",".join(stages)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **ALONE, **environment})

    start.out = out
    return start


def keys(out):
    return {(r.run, r.seed, r.epoch, r.mini_batch) for r in InfluenceStore(RunDirectory(out).influence)}


def assert_same_influences(out, reference):
    """Within the certified errors, and 1e-5 for λ: float32 products round differently with another thread count."""
    pairs = zip(*(InfluenceStore(RunDirectory(folder).influence) for folder in (out, reference)), strict=True)
    for a, b in pairs:
        assert a.damping == pytest.approx(b.damping, rel=1e-5)
        assert (np.abs(a.values - b.values) <= a.error_bound + b.error_bound + 1e-5 * np.abs(b.values)).all()


def modified(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_the_stages_leave_a_run_that_can_be_reported(config, finished, tmp_path):
    out, said = finished
    assert keys(out) == KEYS
    assert sum("products, certified error" in line for line in said) == len(KEYS)
    contents = load_run(out)
    assert {name: len(held) for name, held in contents.results.items()} == {"ViT": 2, "UNet": 2}
    assert {name: len(held) for name, held in contents.controls.items()} == {"ViT": 2, "UNet": 2}
    assert all(held[0].val_loss.shape == (2,) for held in contents.histories.values())
    assert [s.trajectory.split(",")[0] for s in contents.samples] == ["RP", "CRP"]
    assert {r.response_names for held in contents.controls.values() for r in held} == {("smse",)}
    assert contents.channel_names == ("density", "momentum_x", "momentum_y", "energy")
    for check in contents.checks.values():
        assert check.order == pytest.approx(2, abs=0.2)
        assert check.predicted.shape == (2, 3, 4)
        assert check.observables == ("smse", "mass", "energy")
    assert all(result.converged for held in contents.results.values() for result in held)


def test_the_report_and_then_everything_is_skipped(config, finished, tmp_path):
    out, said = shutil.copytree(finished[0], tmp_path / "copy"), []
    run_experiment(load_config(config), out, say=said.append)
    page = out / "report" / "report.html"
    assert page.stat().st_size > 10_000
    assert {"[data]", "[train]", "[influence]"} == {line.split()[0] for line in said if "already there" in line}
    before, said = modified(out), []
    run_experiment(load_config(config), out, say=said.append)
    assert sum("already there" in line for line in said) == 4
    assert modified(out) == before


def test_rollout_errors_belong_to_the_influences(finished):
    contents = load_run(finished[0])
    held = contents.rollout_errors
    assert set(held) == {Key.of(r) for rs in contents.results.values() for r in rs}
    for results in contents.results.values():
        for r in results:
            errors = held[Key.of(r)]
            assert errors.errors.shape == (2, 2)
            assert set(errors.at(2)) == set(zip(r.labels.class_ids, r.labels.trajectory_ids, strict=True))
            np.testing.assert_allclose(errors.errors[:, 0], _median_loss(r, errors), rtol=1e-4)
        keyed = {astuple(key): errors.at(2) for key, errors in held.items()}
        assert pi.rollout_link(results, keyed).pooled.n == 4


def _median_loss(result, errors):
    """The error over one step is the median loss of the trajectory's examples, which the influence stored."""
    labels = result.labels
    pairs = zip(errors.class_ids, errors.trajectory_ids, strict=True)
    return [np.median(result.losses[(labels.class_ids == c) & (labels.trajectory_ids == t)]) for c, t in pairs]


@pytest.mark.parametrize("fault", ["missing", "broken", "of another checkpoint"])
def test_rollout_errors_that_are_not_valid_are_computed_again(config, finished, tmp_path, fault):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    victim = sorted((out / "rollouts").glob("*.json"))[2]
    whole = victim.read_text()
    if fault == "missing":
        victim.unlink()
    elif fault == "broken":
        victim.write_text(whole[:40])
    else:
        victim.write_text(json.dumps({**json.loads(whole), "checkpoint_sha256": "0" * 64}))
        assert len(load_run(out).rollout_errors) == 3
    before = modified(out)
    run_experiment(load_config(config), out, stages=("influence",))
    after = modified(out)
    assert {path for path in after if after[path] != before.get(path)} == {victim}
    assert victim.read_text() == whole


def test_further_epochs_are_kept_and_drawn(monkeypatch, tmp_path):
    further = tmp_path / "further.toml"
    text = CONFIG.replace("epochs = 1", "epochs = 2").replace("mini_batches = 2", "mini_batches = 1\nepochs = [1]")
    text = text[: text.index("[surrogates.UNet]")] + text[text.index("[influence]") :]
    further.write_text(text)
    out = run_experiment(load_config(further), tmp_path / "out")
    contents = load_run(out)
    assert [r.epoch for r in contents.between["ViT"]] == [1]
    assert contents.between["ViT"][0].path is None
    assert [r.epoch for r in contents.results["ViT"]] == [2]
    names = {path.stem for path in (out / "report" / "figures").iterdir()}
    assert {"training_dynamics", "rollout_link"} <= names
    rollouts = list((out / "rollouts").iterdir())
    assert [path.name for path in rollouts] == ["ViT-seed1-epoch0002-batch000.json"]
    rollouts[0].unlink()
    said: list[str] = []
    monkeypatch.setattr("pdeinfl.html_report.report", lambda root, **_: root)
    run_experiment(load_config(further), out, stages=("influence", "report"), say=said.append)
    assert not any("already there" in line for line in said), "the report follows the rollouts"


def test_damping_is_resolved_once_and_shared(finished):
    out, _ = finished
    for name in ("ViT", "UNet"):
        held = read_json(RunDirectory(out).damping(name))
        assert len(held["lambda_max_each"]) == 2
        assert held["damping"] == pytest.approx(0.1 * np.median(held["lambda_max_each"]), rel=1e-12)
        shared = {r.damping for r in InfluenceStore(RunDirectory(out).influence) if r.run == name}
        assert shared == {held["damping"]}


def test_another_configuration_is_refused_and_nothing_changes(config, finished, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(CONFIG.replace("relative_damping = 1e-1", "relative_damping = 1e-2"))
    before = modified(finished[0])
    with pytest.raises(ValueError, match=r"holds a run with another \[influence\]: choose another folder"):
        run_experiment(load_config(other), finished[0])
    assert modified(finished[0]) == before


def test_what_cannot_run_leaves_no_folder(config, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text(CONFIG.replace("resolution = 16", "resolution = 18"))
    with pytest.raises(ValueError, match=r"\[surrogates.ViT\]"):
        run_experiment(load_config(bad), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_killed_in_the_influence_stage_it_goes_on(config, run, finished):
    folder = run.out / "influence"
    with run("influence") as process:
        while not list(folder.glob("*.h5")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    done = {path: path.stat().st_mtime_ns for path in folder.glob("*.h5")}
    assert 1 <= len(done) < len(KEYS)
    run_experiment(load_config(config), run.out, stages=("influence",))
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert keys(run.out) == KEYS
    assert_same_influences(run.out, finished[0])


def test_a_damaged_influence_file_alone_is_computed_again(config, finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "copy")
    victim = sorted((out / "influence").glob("*.h5"))[1]
    os.truncate(victim, victim.stat().st_size // 2)
    before = modified(out)
    run_experiment(load_config(config), out, stages=("influence",))
    after = modified(out)
    assert {path for path in after if after[path] != before.get(path)} == {victim}
    assert_same_influences(out, finished[0])


def test_damaged_data_are_simulated_again(config, trained, tmp_path):
    out = shutil.copytree(trained, tmp_path / "copy")
    victim = out / "data" / "CE-CRP.nc"
    whole = pi.open_trajectories(victim)
    want = [states.copy() for states in whole]
    os.truncate(victim, victim.stat().st_size // 2)
    run_experiment(load_config(config), out, stages=("data",))
    for a, b in zip(pi.open_trajectories(victim), want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_processes_share_the_units(run, finished):
    ranks = [run("influence", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    said = [process.communicate()[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    counts = [text.count("products, certified error") for text in said]
    assert counts == [len(KEYS) // 2] * 2
    assert keys(run.out) == KEYS
    assert len({(r.run, r.damping) for r in InfluenceStore(run.out / "influence")}) == 2
    assert_same_influences(run.out, finished[0])


def test_shares(monkeypatch, tmp_path):
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert share() == (0, 1)
    for name, value in (("ID", "7"), ("MIN", "5"), ("COUNT", "3")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert share() == (2, 3)
    missing = [tmp_path / "absent"]
    assert not others_finished(missing, print, "data")  # array tasks may run at other times: nothing to wait for
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    with pytest.raises(ValueError, match="rank 2 of 2"):
        share()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert share() == (1, 2)
    missing[0].touch()
    assert others_finished(missing, print, "data")


def test_the_configuration_is_kept(trained):
    held = json.loads((trained / "config.json").read_text())
    assert held["data"]["classes"] == ["RP", "CRP"]
    assert held["influence"]["relative_damping"] == 0.1


@pytest.mark.parametrize("fault", ["NaN", "truncated", "channels"])
def test_bad_data_end_a_run_with_one_line(trained, tmp_path, capsys, fault):
    for name in ("CE-RP.nc", "CE-CRP.nc"):
        shutil.copy(trained / "data" / name, tmp_path)
    victim = tmp_path / "CE-CRP.nc"
    if fault == "NaN":
        with h5py.File(victim, "r+") as file:
            file["data"][:, 1, 0, 0, 0] = np.nan
    elif fault == "truncated":
        os.truncate(victim, victim.stat().st_size - 1000)
    else:
        victim.unlink()
        write_trajectories(tmp_path, pi.simulate("NS", ("Sines",), 6, 16, 3))
        victim = tmp_path / "NS-Sines.nc"
    config = tmp_path / "c.toml"
    paths = json.dumps([str(tmp_path / "CE-RP.nc"), str(victim)])
    config.write_text(CONFIG.replace('classes = ["RP", "CRP"]', f"path = {paths}"))
    assert invoke(["run", str(config), "--out", str(tmp_path / "out")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert {"NaN": "density holds NaN", "truncated": "truncated", "channels": "channel"}[fault] in lines[0]
    assert not list(tmp_path.rglob("*.pt"))


def test_the_device_of_a_local_rank(monkeypatch):
    from pdeinfl.experiment.influence_stage import local_device

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert [local_device(d) for d in ("", "cpu", "cuda")] == [None, "cpu", "cuda"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [local_device(d) for d in ("", "cpu", "cuda")] == [None, "cpu", "cuda:1"]
