"""Simulating into files: the numbers of `simulate`, in parts, after a kill, by several ranks."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import pdeinfl as pi
from pdeinfl.data.simulators.simulation_files import simulate_to_files

SET = {"classes": ("RP", "CRP"), "n_per_class": 5, "resolution": 8, "n_steps": 2, "seed": 3}


def assert_same(paths, want):
    got = pi.open_trajectories(paths)
    assert got.class_names == want.class_names
    assert got.class_ids.tolist() == want.class_ids.tolist()
    for a, b in zip(got, want, strict=True):
        assert np.array_equal(a, b)


def test_one_file_per_class(tmp_path):
    paths = simulate_to_files(tmp_path, **SET)
    assert paths == [tmp_path / "CE-RP.nc", tmp_path / "CE-CRP.nc"]
    assert_same(paths, pi.simulate("CE", **SET))


def test_parts_hold_the_same_numbers(tmp_path):
    paths = simulate_to_files(tmp_path, **SET, part_size=2)
    assert paths == [tmp_path / "CE-RP", tmp_path / "CE-CRP"]
    assert sorted(p.name for p in paths[0].iterdir()) == ["data_0.nc", "data_1.nc", "data_2.nc"]
    assert_same(paths, pi.simulate("CE", **SET))


def test_ranks_share_the_parts(tmp_path):
    for rank in (1, 0, 2):
        paths = simulate_to_files(tmp_path, **SET, part_size=2, rank=rank, n_ranks=3)
    assert_same(paths, pi.simulate("CE", **SET))


@pytest.mark.parametrize("part_size", [None, 3])
def test_a_killed_run_goes_on(tmp_path, part_size):
    """Killed in the middle of its second class; what it had finished is not simulated again."""
    settings = SET | {"n_per_class": 24, "resolution": 16, "part_size": part_size}
    code = (
        "import sys\n"
        "from pdeinfl.data.simulators.euler_plan import EulerPlan\n"
        "from pdeinfl.data.simulators.simulation_files import simulate_to_files\n"
        "EulerPlan.chunk_size = lambda self: 2\n"
        f"simulate_to_files(sys.argv[1], **{settings!r})\n"
    )
    begun = tmp_path / "CE-CRP" / "data_1.nc" if part_size else tmp_path / "CE-CRP.nc.part"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "CE-CRP.nc").exists()
    done = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.nc")}
    assert done
    arguments = {k: v for k, v in settings.items() if k != "part_size"}
    paths = simulate_to_files(tmp_path, **settings)
    assert all(p.stat().st_mtime_ns == when for p, when in done.items())
    assert not list(tmp_path.rglob("*.part"))
    assert_same(paths, pi.simulate("CE", **arguments))


def test_other_settings_are_refused(tmp_path):
    simulate_to_files(tmp_path, **SET)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="holds a simulation with seed 3; asked for 4"):
        simulate_to_files(tmp_path, **(SET | {"seed": 4}))
    with pytest.raises(ValueError, match="holds a simulation with initial_conditions release_like; asked for paper"):
        simulate_to_files(tmp_path, **SET, preset="paper")
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part_size": 0}, "`part_size` must be an integer of at least 1; got 0"),
        ({"rank": 2, "n_ranks": 2}, "`rank` must be below `n_ranks` 2; got 2"),
        ({"classes": "BB"}, "must be among RP, CRP, RPUI"),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        simulate_to_files(tmp_path / "out", **(SET | change))
    assert not (tmp_path / "out").exists()
