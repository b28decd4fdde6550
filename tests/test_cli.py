"""The command line: what every command prints and leaves, and its exit codes."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import pdeinfl as pi
from pdeinfl.cli import cli, invoke
from pdeinfl.surrogates.checkpoint import save_checkpoint

CE = ["simulate", "--equation", "CE", "--classes", "RP,CRP", "--per-class", "2", "--steps", "2", "--seed", "0"]


@pytest.fixture
def call(capsys):
    """``call(*arguments)`` runs a command in this process: exit code, standard output and error."""

    def run(*arguments):
        code = invoke([str(a) for a in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 × 16 Euler trajectories of two classes, and a ViT's checkpoint for them."""
    folder = tmp_path_factory.mktemp("data")
    assert invoke([*CE, "--resolution", "16", "--out", str(folder / "ce")]) == 0
    torch.manual_seed(0)
    model = pi.surrogates.ViT(channels=4, resolution=16, width=16, depth=1)
    save_checkpoint(folder / "vit.pt", model, settings={"seed": 3})
    return folder


def refused(answer, *parts):
    """Exit code 2 with one line on standard error, no traceback."""
    code, _, err = answer
    line = err.strip()
    assert code == 2, err
    assert line.startswith("error: ")
    assert "\n" not in line
    for part in parts:
        assert part in line, line


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("equation", "classes", "resolution"), [("CE", "RP,CRP,RPUI", 32), ("NS", "BB,Gauss,Sines", 16)]
)
def test_simulate_writes_the_numbers_of_simulate(call, tmp_path, equation, classes, resolution):
    size = ["--per-class", 2, "--resolution", resolution, "--steps", 4, "--seed", 0]
    code, out, _ = call("simulate", "--equation", equation, "--classes", classes, *size, "--out", tmp_path)
    names = classes.split(",")
    assert code == 0
    assert out.split() == [str(tmp_path / f"{equation}-{name}.nc") for name in names]
    got = pi.open_trajectories(tmp_path)
    want = pi.simulate(equation, names, 2, resolution, 4, 0)
    assert got.class_names == want.class_names == tuple(names)
    assert got.channel_names == want.channel_names
    assert got.class_ids.tolist() == want.class_ids.tolist()
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    before = files(tmp_path)
    assert call("simulate", "--equation", equation, "--classes", classes, *size, "--out", tmp_path)[0] == 0
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"--classes": "RP,BB"}, ("`classes` must be among RP, CRP, RPUI for CE; got 'BB'",)),
        ({"--classes": ","}, ("--classes", "at least one name")),
        ({"--equation": "MHD"}, ("--equation", "'MHD' is not one of 'CE', 'NS'")),
        ({"--per-class": "0"}, ("--per-class",)),
        ({"--resolution": "x"}, ("--resolution", "'x' is not a valid integer")),
        ({"--preset": "best"}, ("`preset` must be one of paper, release_like; got 'best'",)),
        ({"--seed": "1"}, ("holds a simulation with seed 0; asked for 1",)),
        ({"--equation": "NS", "--classes": "BB", "--refinement": "2"}, ("`refinement` is for CE only",)),
        ({"--sise": "3"}, ("No such option", "--sise")),
    ],
)
def test_bad_simulations_leave_everything_as_it_was(call, data, changes, parts):
    before = files(data)
    arguments = dict(zip(CE[1::2], CE[2::2], strict=True)) | {"--resolution": "16", "--out": data / "ce"} | changes
    refused(call("simulate", *(word for pair in arguments.items() for word in pair)), *parts)
    assert files(data) == before


def test_simulate_does_not_take_foreign_files_for_its_own(call, data, tmp_path):
    (tmp_path / "CE-RP.nc").write_bytes(b"mine")
    refused(call(*CE, "--resolution", 16, "--out", tmp_path), "CE-RP.nc is there already")
    assert files(tmp_path) == {tmp_path / "CE-RP.nc": b"mine"}


def test_inspect_trajectories(call, data, tmp_path):
    code, out, _ = call("inspect", data / "ce", "--figure", tmp_path / "sheet")
    assert code == 0
    for part in ("2 RP, 2 CRP", "momentum_x", "(conserved)", "nothing wrong found", "sheet.png"):
        assert part in out
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    refused(call("inspect", data / "ce", data / "ce", "--figure", tmp_path / "two"), "one FILE")


def test_inspect_influence_and_checkpoint(call, data, tmp_path):
    batch = pi.open_trajectories(data / "ce").mini_batch(0, n_transitions=1)
    model = torch.nn.Conv2d(4, 4, 1)
    pi.influence(model, batch, solver="dense", run="conv", seed=5).save(tmp_path / "h.h5")
    code, out, _ = call("inspect", tmp_path / "h.h5", data / "vit.pt")
    assert code == 0
    for part in ("conv, seed 5, epoch 0", "2 examples (1 RP, 1 CRP)", "H mass, smse", "dense", "ViT (", "untrained"):
        assert part in out


def test_inspect_goes_on_after_a_file_that_it_cannot_read(call, data, tmp_path):
    (tmp_path / "notes.txt").write_text("none of ours")
    code, out, err = call("inspect", tmp_path / "notes.txt", data / "vit.pt")
    assert code == 2
    assert out.startswith("error: ")
    assert "vit.pt" in out
    assert "1 problem found, listed above" in err


def test_inspect_says_what_is_wrong(call, data, tmp_path):
    good = (data / "ce" / "CE-RP.nc").read_bytes()
    (tmp_path / "CE-RP.nc").write_bytes(good[: len(good) // 2])
    refused(call("inspect", tmp_path / "CE-RP.nc"), "CE-RP.nc", "truncated")
    (tmp_path / "w.pt").write_bytes((data / "vit.pt").read_bytes()[:1000])
    refused(call("inspect", tmp_path / "w.pt"), "w.pt is not a readable checkpoint")
    refused(call("inspect", tmp_path / "none.nc"), "none.nc")
    holed = bytearray(good)
    at = good.index(np.float32(pi.open_trajectories(data / "ce")[0][0, 0, 0, 0]).tobytes())
    holed[at : at + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "CE-CRP.nc").write_bytes(holed)
    code, out, err = call("inspect", tmp_path / "CE-CRP.nc")
    assert code == 2
    assert "density holds NaN" in out
    assert "1 problem found" in err


def test_check(call, data, tmp_path):
    arguments = ["--transitions", 1, "--relative-damping", 0.1, "--tol", 0.5, "--figure", tmp_path / "check"]
    code, out, _ = call("check", data / "vit.pt", data / "ce", *arguments)
    assert code == 0
    assert "the model answers as H says: all " in out
    assert "observed order                 2.0" in out
    assert out.count("perturbation ") == 2
    assert (tmp_path / "check.pdf").exists()


def test_check_refuses_what_does_not_fit(call, data, tmp_path):
    for equation, name, size, parts in (
        ("NS", "Sines", "16", ("takes states (n, 4, x, y); got shape (1, 2, 16, 16)",)),
        ("CE", "RP", "12", ("resolution (16, 16); got (12, 12)",)),
    ):
        out = tmp_path / f"{equation}{size}"
        made = call("simulate", "--equation", equation, "--classes", name, "--per-class", 1, "--resolution", size,
                    "--steps", 1, "--out", out)  # fmt: skip
        assert made[0] == 0
        refused(call("check", data / "vit.pt", out), *parts)
    refused(call("check", data / "none.pt", data / "ce"), "none.pt")
    refused(call("check", data / "vit.pt", data / "ce", "--mini-batch", 2), "`index` must be between 0 and 1")
    refused(call("check", data / "vit.pt", data / "ce", "--relative-damping", -1), "positive finite number")
    refused(call("check", data / "vit.pt", data / "ce", "--response", "vorticity"), "vorticity")


def test_runs_refuse_bad_configurations(call, tmp_path):
    config = tmp_path / "c.toml"
    for command in ("run", "train", "influence"):
        refused(call(command, tmp_path / "none.toml"), "no configuration at")
        config.write_text('[surrogates.a]\nkind = "ViT"\n[data]\nsise = 3\n')
        refused(call(command, config), "c.toml: [data] has the unknown entry 'sise'; known: ")
        config.write_text('[surrogates.a]\nkind = "ViT"\n[data]\nresolution = 30\n')
        refused(call(command, config, "--out", tmp_path / "out"), "[surrogates.a]", "30")
    config.write_text('[surrogates.a]\nkind = "ViT"\n[run]\ndevice = "abacus"\n')
    refused(call("run", config, "--out", tmp_path / "out"), "`run.device` must name a device", "'abacus'")
    refused(call("run", config, "--stages", "data,trian"), "unknown stage 'trian'; stages are data, train")
    assert not (tmp_path / "out").exists()
    refused(call("report", tmp_path), "is not the folder of a run")
    config.write_text('[surrogates.a]\nkind = "ViT"\n')
    refused(call("influence", config, "--out", tmp_path / "out"), "run the data stage first")


def test_demo_of_either_equation_runs_its_own_configuration(call, monkeypatch, tmp_path):
    asked = []

    def record(config, out, *, command):
        asked.append((config.data.equation, str(out), command))

    monkeypatch.setattr("pdeinfl.experiment.run_experiment", record)
    assert call("demo")[0] == 0
    assert call("demo", "--equation", "NS", "--out", tmp_path)[0] == 0
    commands = ["pdeinfl demo --equation CE", f"pdeinfl demo --equation NS --out {tmp_path}"]
    assert asked == [("CE", "runs/demo", commands[0]), ("NS", str(tmp_path), commands[1])]


def test_info_help_and_version(call):
    code, out, _ = call("info")
    assert code == 0
    for part in ("pdeinfl ", pi.__version__, "torch ", "free memory"):
        assert part in out
    for command in cli.commands:
        code, out, _ = call(command, "--help")
        assert code == 0
        assert out.startswith(f"Usage: pdeinfl {command}")
    assert call("--version")[0] == 0
    refused(call("simulat"), "No such command 'simulat'")
    assert call()[0] == 2


def test_a_fault_of_ours_is_not_called_bad_input(call, monkeypatch):
    monkeypatch.setattr("platform.platform", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("info")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_work_is_kept_and_goes_on(tmp_path, sent):
    out = tmp_path / "out"
    size = ["--per-class", "200", "--resolution", "32", "--steps", "1", "--part-size", "25", "--refinement", "1"]
    # A shell's background jobs ignore SIGINT, and so do their children: undo that.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from pdeinfl.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, *CE[:5], *size, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **piped) as process:
        while not (out / "CE-RP" / "data_0.nc").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.001)
        process.send_signal(sent)
        _, err = process.communicate()
    assert process.returncode == 130, err
    assert "run the same command to go on" in err
    assert "Traceback" not in err
    done = {path: path.stat().st_mtime_ns for path in out.rglob("*.nc")}
    assert 1 <= len(done) < 16
    finished = subprocess.run(command, **piped)
    assert finished.returncode == 0, finished.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len(pi.open_trajectories([out / "CE-RP", out / "CE-CRP"])) == 400
