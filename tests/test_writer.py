"""Written files read back bit for bit, belong to PDEgym's layout, and are never half there."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import netCDF4
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdeinfl.data.momentum import decode_momentum, encode_momentum
from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.simulators.euler import simulate_euler
from pdeinfl.data.simulators.navier_stokes import simulate_navier_stokes
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.data.writer import TrajectoryWriter, write_trajectories

NAMES = ("density", "momentum_x", "momentum_y", "energy")


def gas_states(n=3, n_times=4, x=6, y=5, seed=0):
    generator = np.random.default_rng(seed)
    states = generator.standard_normal((n, n_times, 4, x, y)).astype(np.float32)
    states[:, :, 0] = generator.uniform(0.01, 5, states[:, :, 0].shape)
    states[:, :, 3] = np.abs(states[:, :, 3]) + 50
    return states


def test_gas_comes_back_bit_for_bit(tmp_path):
    states = gas_states(5)
    states[0, 0, 1], states[0, 0, 2] = 0.0, -0.0
    states[1, 0, 1], states[1, 1, 2] = 1e-42, states[1, 1, 2] * np.float32(1e-30)
    traj = Trajectories.from_arrays(states, [0, 0, 1, 1, 1], ("RP", "CRP"), provenance={"seed": 3}, time_step=0.1)
    paths = write_trajectories(tmp_path / "out", traj)
    assert [p.name for p in paths] == ["CE-RP.nc", "CE-CRP.nc"]
    back = open_trajectories(paths)
    assert [t.tobytes() for t in back] == [t.tobytes() for t in states]
    assert back.class_names == ("RP", "CRP")
    assert back.time_step == 0.1
    assert back.provenance["concatenated"][0]["written_from"] == {"seed": 3}
    assert sorted(os.listdir(tmp_path / "out")) == ["CE-CRP.nc", "CE-RP.nc"]


def test_simulated_gas_comes_back_bit_for_bit(tmp_path):
    states, ids, names = simulate_euler(("RP", "CRP", "RPUI"), 2, 16, 3, seed=0)
    traj = Trajectories.from_arrays(states, ids, names)
    write_trajectories(tmp_path, traj)
    back = open_trajectories(tmp_path)
    assert back.class_names == names
    assert [t.tobytes() for t in back] == [t.tobytes() for t in states]


def test_flow_comes_back_bit_for_bit(tmp_path):
    states, ids = simulate_navier_stokes(("Gauss", "Sines"), 2, 8, 2, seed=0)
    traj = Trajectories.from_arrays(states, ids, ("Gauss", "Sines"))
    back = open_trajectories(write_trajectories(tmp_path, traj))
    assert [t.tobytes() for t in back] == [t.tobytes() for t in states]
    assert open_trajectories(tmp_path).class_names == ("Gauss", "Sines")
    with h5py.File(tmp_path / "NS-Gauss.nc") as file:
        assert file["velocity"].shape == (2, 3, 3, 8, 8)
        assert not file["velocity"][:, :, 2].any()


def test_the_layout_is_that_of_the_release(tmp_path):
    states = gas_states()
    (path,) = write_trajectories(tmp_path / "CE-RP.nc", Trajectories.from_arrays(states))
    with netCDF4.Dataset(path) as file:
        assert file["data"].dimensions == ("sample", "time", "channel", "x", "y")
        assert file["data"].dtype == np.float32
        assert list(file["data"].chunking()) == [1, 1, 5, 6, 5]
        data = np.asarray(file["data"][:])
    np.testing.assert_array_equal(data[:, :, 0], states[:, :, 0])
    np.testing.assert_array_equal(data[:, :, 4], states[:, :, 3])
    np.testing.assert_allclose(data[:, :, 0] * data[:, :, 1], states[:, :, 1], rtol=2**-22)
    rho, mx, my, energy = np.moveaxis(states.astype(np.float64), 2, 0)
    pressure = 0.4 * (energy - 0.5 * (mx**2 + my**2) / rho)
    # Rounding of the float32 pressure, whose scale is that of its two terms.
    np.testing.assert_allclose(data[:, :, 3], pressure, atol=2**-24 * 0.4 * energy.max() * 4, rtol=2**-23)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(2**-60, 2**60, width=32),
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False), min_size=1, max_size=8),
)
def test_momentum_survives_velocity(density, momentum):
    rho, exact = np.float32(density), np.array(momentum, np.float32)
    small = np.abs(exact.astype(np.float64) / rho) < 2.0**-126
    exact[small] = 0  # velocities below float32's normal range are refused or exact: see below
    velocity, ulps = encode_momentum(rho, exact)
    product = rho * velocity
    decode_momentum(product, ulps)
    assert product.tobytes() == exact.tobytes()
    assert np.abs(ulps).max() <= 2


def test_momentum_that_velocity_cannot_hold_is_refused(tmp_path):
    states = gas_states(1)
    states[0, 2, 0], states[0, 2, 1], states[0, 2, 3] = 1e30, 1e-15, 1e30
    with pytest.raises(ValueError, match=r"CE-x\.nc: trajectory 0, snapshot 2: momentum cannot"):
        write_trajectories(tmp_path / "CE-x.nc", Trajectories.from_arrays(states))
    assert os.listdir(tmp_path) == []


def test_pieces_resume_where_they_stopped(tmp_path):
    states, path = gas_states(5), tmp_path / "CE-RP.nc"

    def writer(**other):
        return TrajectoryWriter(path, **{"n_trajectories": 5, "n_times": 4, "resolution": (6, 5)} | other)

    with writer(provenance={"seed": 1}) as first:
        first.append(states[:2])
    assert os.listdir(tmp_path) == ["CE-RP.nc.part"]
    with pytest.raises(ValueError, match=r"unfinished: 2 of 5"):
        open_trajectories(tmp_path / "CE-RP.nc.part")
    with pytest.raises(ValueError, match="no file"):
        open_trajectories(tmp_path)
    for other in ({"provenance": {"seed": 2}}, {"provenance": {"seed": 1}, "n_trajectories": 6}):
        with pytest.raises(ValueError, match="other settings"):
            writer(**other)
    with writer(provenance={"seed": 1}) as second:
        assert second.n_complete == 2
        second.append(states[2:4])
        with pytest.raises(ValueError, match="lacks only 1"):
            second.append(states[:2])
        second.append(states[4:])
    assert os.listdir(tmp_path) == ["CE-RP.nc"]
    assert [t.tobytes() for t in open_trajectories(path)] == [t.tobytes() for t in states]


def test_a_killed_writer_leaves_what_was_complete(tmp_path):
    path = tmp_path / "CE-RP.nc"
    script = f"""
    import sys, numpy as np
    sys.path.insert(0, {os.path.dirname(__file__)!r})
    from test_writer import gas_states
    from pdeinfl.data.writer import TrajectoryWriter
    writer = TrajectoryWriter({str(path)!r}, 100000, 4, (6, 5))
    while True:
        writer.append(gas_states(1, seed=writer.n_complete))
        print(writer.n_complete, flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while int(process.stdout.readline()) < 20:
        pass
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    reported = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    with TrajectoryWriter(path, 100000, 4, (6, 5)) as writer:
        n = writer.n_complete
        assert n >= max(20, *map(int, reported or [0]))
        with h5py.File(writer.part_path) as file:
            for k in (0, n // 2, n - 1):
                np.testing.assert_array_equal(file["data"][k, :, 0], gas_states(1, seed=k)[0, :, 0])


def test_a_part_file_killed_at_birth_is_begun_anew(tmp_path):
    (tmp_path / "CE-RP.nc.part").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    states = gas_states(1)
    with TrajectoryWriter(tmp_path / "CE-RP.nc", 1, 4, (6, 5)) as writer:
        writer.append(states)
    np.testing.assert_array_equal(open_trajectories(tmp_path / "CE-RP.nc")[0], states[0])


def test_overwriting_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "CE-RP.nc"
    old, new = gas_states(2), gas_states(2, seed=1)
    write_trajectories(path, Trajectories.from_arrays(old))
    written = TrajectoryWriter._write_frame

    def fails(self, row, time, state):
        if (row, time) == (1, 2):
            raise OSError(errno.ENOSPC, "Can't write data (file write failed:\n errno = 28, No space left on device)")
        written(self, row, time, state)

    monkeypatch.setattr(TrajectoryWriter, "_write_frame", fails)
    with pytest.raises(OSError, match=r"No space left on device.*CE-RP\.nc") as caught:
        write_trajectories(path, Trajectories.from_arrays(new))
    assert caught.value.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["CE-RP.nc"]
    np.testing.assert_array_equal(open_trajectories(path)[1], old[1])


def test_a_full_disk_is_one_line(tmp_path):
    # A limit on the file's size is as good as a full disk, and needs no privileges.
    script = f"""
    import resource, signal, sys
    sys.path.insert(0, {os.path.dirname(__file__)!r})
    from test_writer import gas_states
    from pdeinfl.data.trajectories import Trajectories
    from pdeinfl.data.writer import write_trajectories
    traj = Trajectories.from_arrays(gas_states(50, x=32, y=32))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    try:
        write_trajectories({str(tmp_path / "CE-RP.nc")!r}, traj)
    except OSError as error:
        print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "CE-RP.nc" in done.stdout
    assert done.stderr == ""
    assert os.listdir(tmp_path) == []


def test_no_room_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(OSError, match=r"no space for 1\.1e\+07 GB") as caught:
        TrajectoryWriter(tmp_path / "CE-RP.nc", 10**9, 10, (5, 10**4))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_axis_order_is_ours(tmp_path):
    states = gas_states(2)
    traj = Trajectories.from_arrays(states.swapaxes(-1, -2).copy(), axis_order="yx")
    (path,) = write_trajectories(tmp_path / "CE-RP.nc", traj)
    np.testing.assert_array_equal(open_trajectories(path)[0], states[0])


def test_refuses(tmp_path):
    three = Trajectories.from_arrays(np.ones((1, 2, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match="channel_names"):
        write_trajectories(tmp_path / "x.nc", three)
    two = Trajectories.from_arrays(gas_states(2), [0, 1], ("RP", "CRP"))
    with pytest.raises(ValueError, match="give a folder"):
        write_trajectories(tmp_path / "x.nc", two)
    with TrajectoryWriter(tmp_path / "x.nc", 2, 4, (6, 5)) as writer:
        for bad, message in [
            (gas_states().astype(np.float64), "float32"),
            (gas_states(x=7), "6, 5"),
            (np.full_like(gas_states(1), np.nan), "NaN"),
        ]:
            with pytest.raises(ValueError, match=message):
                writer.append(bad)
        assert writer.n_complete == 0
    assert os.listdir(tmp_path) == ["x.nc.part"]
