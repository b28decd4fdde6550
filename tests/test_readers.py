"""Files in the public layouts come out as they should; anything else gives one line of ours."""

import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from layouts import conserved, gas, write_pdebench, write_pdegym, write_well
from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.streaming import stream_batches


def everything(traj):
    return np.stack(list(traj))


def refused(path, *parts, **settings):
    """The one-line message with which opening or the first reading of ``path`` fails."""
    with pytest.raises((ValueError, OSError)) as caught:
        everything(open_trajectories(path, **settings))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_pdegym_compressible(tmp_path):
    data = gas()
    traj = open_trajectories(write_pdegym(tmp_path / "CE-RP.nc", data))
    assert traj.class_names == ("RP",)
    assert traj.channel_names == ("density", "momentum_x", "momentum_y", "energy")
    assert (traj.n_times, traj.resolution, traj.time_step) == (4, (6, 5), 0.05)
    np.testing.assert_array_equal(everything(traj), conserved(data))
    np.testing.assert_array_equal(traj.read(-1, 1, 3), conserved(data)[-1, 1:3])
    assert not traj.in_memory
    assert traj.provenance["format"] == "PDEgym"


@pytest.mark.parametrize("channels", [2, 3])
def test_pdegym_incompressible_leaves_out_the_tracer(tmp_path, channels):
    data = gas()[:, :, :channels]
    traj = open_trajectories(str(write_pdegym(tmp_path / "NS-Gauss.nc", data, "velocity")))
    assert traj.class_names == ("Gauss",)
    assert traj.equation == "NS"
    np.testing.assert_array_equal(everything(traj), data[:, :, :2])


def test_format_comes_from_the_content(tmp_path):
    data = gas()
    for writer, name in [(write_pdegym, "a.hdf5"), (write_well, "data_0.nc"), (write_pdebench, "CE-RP.nc")]:
        traj = open_trajectories(writer(tmp_path / writer.__name__ / name, data))
        np.testing.assert_allclose(everything(traj)[:, :, :3], conserved(data)[:, :, :3], rtol=2**-23)


@pytest.mark.parametrize(("order", "first"), [("numeric", [0, 1, 2, 10]), ("lexicographic", [0, 1, 10, 2])])
def test_parts_in_both_orders(tmp_path, order, first):
    parts = {k: gas(n=1 + k % 2, seed=k) for k in (0, 1, 2, 10)}
    for k, data in parts.items():
        write_pdegym(tmp_path / "CE-CRP" / f"data_{k}.nc", data)
    traj = open_trajectories(tmp_path / "CE-CRP", part_order=order)
    assert traj.class_names == ("CRP",)
    np.testing.assert_array_equal(everything(traj), conserved(np.concatenate([parts[k] for k in first])))
    assert traj.provenance["concatenated"][0]["part_order"] == order


def test_classes_from_a_folder_several_paths_and_labels(tmp_path):
    for name in ("CRP", "RP", "RPUI"):
        write_pdegym(tmp_path / f"CE-{name}.nc", gas(n=2, seed=len(name)))
    folder = open_trajectories(tmp_path)
    assert folder.class_names == ("RP", "CRP", "RPUI")
    np.testing.assert_array_equal(folder.class_ids, [0, 0, 1, 1, 2, 2])
    paths = [tmp_path / "CE-RP.nc", tmp_path / "CE-CRP.nc"]
    assert open_trajectories(paths).class_names == ("RP", "CRP")
    assert open_trajectories(paths, labels=("a", "b")).class_names == ("a", "b")
    assert open_trajectories(paths[0], labels="mine").class_names == ("mine",)
    refused(paths, "labels", "2", labels=("a",))
    assert open_trajectories(write_pdegym(tmp_path / "plain.nc", gas())).class_names == ("plain",)


def test_the_well_broadcasts_absent_axes(tmp_path):
    data = gas(n=2)
    absent = {"density": (1,), "momentum": (0, 3), "energy": (0, 1, 2)}
    traj = open_trajectories(write_well(tmp_path / "a.hdf5", data, 1.22, absent))
    expected = conserved(data)
    expected[:, :, 0] = expected[:, :1, 0]
    expected[:, :, 1:3] = expected[:1, :, 1:3, :, :1]
    expected[:, :, 3] = expected[:1, :1, 3, :1]
    np.testing.assert_array_equal(everything(traj), expected)
    assert traj.gamma == 1.22
    assert traj.class_names == ("gamma=1.22",)
    np.testing.assert_allclose(traj.time_step, 0.015, rtol=1e-6)
    np.testing.assert_allclose(traj.domain, (1, 1), rtol=1e-6)


def test_the_well_has_a_class_for_each_gamma(tmp_path):
    for gamma in (1.22, 1.4):
        write_well(tmp_path / f"euler_gamma_{gamma}.hdf5", gas(n=2), gamma)
    both = open_trajectories(tmp_path)
    assert both.class_names == ("gamma=1.22", "gamma=1.4")
    assert np.isnan(both.gamma)
    assert both[both.class_ids == 1].class_names == both.class_names


def test_pdebench_energy(tmp_path):
    data = gas()
    traj = open_trajectories(write_pdebench(tmp_path / "2D_CFD.hdf5", data))
    rho, vx, vy, p = np.moveaxis(data[:, :, :4].astype(np.float64), 2, 0)
    energy = p / (5 / 3 - 1) + 0.5 * rho * (vx**2 + vy**2)
    np.testing.assert_array_equal(everything(traj)[:, :, 3], energy.astype(np.float32))
    assert traj.gamma == 5 / 3


def test_bad_files_are_named(tmp_path):
    good = gas()

    def ce(data, **options):
        return write_pdegym(tmp_path / "CE-RP.nc", data, **options)

    refused(tmp_path / "none.nc", "none.nc", "No such file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty", "no file")
    (tmp_path / "CE-X.nc").write_bytes(b"not a file of numbers")
    refused(tmp_path / "CE-X.nc", "CE-X.nc", "not an HDF5 file")
    refused(ce(good.astype(np.float64)), "CE-RP.nc", "'data'", "float32", "float64")
    refused(ce(good[:, :, :4]), "CE-RP.nc", "5 channels")
    refused(ce(good, variable="temperature"), "unknown format", "temperature")
    refused(ce(good[:0], chunks=None), "none of them empty")
    for value, what in [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]:
        bad = good.copy()
        bad[1, 2, 4, 0, 0] = value
        refused(ce(bad), "CE-RP.nc", "'data'", "trajectory 1", "snapshot 2", "energy", what)
    for value in (0.0, -1.0):
        bad = good.copy()
        bad[2, 3, 0, 1, 1] = value
        refused(ce(bad), "trajectory 2", "snapshot 3", "density must be positive")
    for lacking in ("pressure", "Vx", "t-coordinate"):
        path = write_pdebench(tmp_path / "cfd.h5", good)
        with h5py.File(path, "a") as file:
            del file[lacking]
        refused(path, "cfd.h5", lacking)
    path = write_well(tmp_path / "well.h5", good)
    with h5py.File(path, "a") as file:
        del file["t1_fields/momentum"]
    refused(path, "well.h5", "momentum")
    refused([ce(good), write_pdegym(tmp_path / "CE-CRP.nc", gas(x=7))], "resolution", "RP", "CRP")
    refused([ce(good), write_pdegym(tmp_path / "NS-BB.nc", good[:, :, :3], "velocity")], "channel_names")
    refused([], "empty")
    refused(ce(good), "part_order", part_order="random")


def test_too_few_snapshots(tmp_path):
    traj = open_trajectories(write_pdegym(tmp_path / "CE-RP.nc", gas(n_times=1)))
    for use in (traj.mini_batch, traj.transitions, lambda: stream_batches(traj, 1, 0, 0)):
        with pytest.raises(ValueError, match="transitions"):
            use()


def test_a_file_that_changes_is_noticed(tmp_path):
    path = write_pdegym(tmp_path / "CE-RP.nc", gas())
    traj = open_trajectories(path)
    traj[0]
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"CE-RP\.nc: the file has changed"):
        traj[0]
    path.unlink()
    with pytest.raises(OSError, match=r"CE-RP\.nc"):
        traj[0]


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("writer", [write_pdegym, write_well, write_pdebench])
def test_truncated_files(tmp_path, writer, fraction):
    path = writer(tmp_path / "CE-RP.nc", gas())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * fraction)])
    refused(path, "CE-RP.nc")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_our_errors_or_numbers(tmp_path, data):
    path = tmp_path / "CE-RP.nc"
    writer = data.draw(st.sampled_from([write_pdegym, write_well, write_pdebench]))
    whole = bytearray(writer(path, gas(n=2, n_times=2, x=3, y=2)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        length = data.draw(st.integers(1, 8))
        whole[at : at + length] = data.draw(st.binary(min_size=length, max_size=length))
    path.write_bytes(whole)
    message = ""
    try:
        assert np.isfinite(everything(open_trajectories(path))).all()
    except (ValueError, OSError) as error:
        message = str(error)
    assert message == "" or "CE-RP.nc" in message
    assert "\n" not in message


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), signed=st.booleans())
def test_random_bytes_are_refused(tmp_path, content, signed):
    (tmp_path / "CE-RP.nc").write_bytes((b"\x89HDF\r\n\x1a\n" if signed else b"") + content)
    refused(tmp_path / "CE-RP.nc", "CE-RP.nc")


def read_elsewhere(traj, queue):
    queue.put([t.tobytes() for t in traj])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_open_their_own_handles(tmp_path, method):
    traj = open_trajectories(write_pdegym(tmp_path / "CE-RP.nc", gas()))
    expected = [t.tobytes() for t in traj]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=read_elsewhere, args=(traj, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    for _ in processes:
        assert queue.get(timeout=60) == expected
    for process in processes:
        process.join()
    assert [t.tobytes() for t in traj] == expected
    assert [t.tobytes() for t in pickle.loads(pickle.dumps(traj))] == expected


def test_data_loader_workers(tmp_path):
    data = gas()
    traj = open_trajectories(write_pdegym(tmp_path / "CE-RP.nc", data))
    inputs = np.concatenate([x.numpy() for x, _ in DataLoader(traj.transitions(), batch_size=4, num_workers=2)])
    np.testing.assert_array_equal(inputs, conserved(data)[:, :-1].reshape(9, 4, 6, 5))


@pytest.mark.parametrize("chunks", [None, (1, 1, 5, 128, 128)])
def test_a_20_gb_file_is_read_within_300_mb(tmp_path, chunks):
    path, shape = tmp_path / "CE-RP.nc", (2900, 21, 5, 128, 128)
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("data", shape, np.float32, chunks=chunks, fillvalue=None if chunks is None else 1)
        stored[1234, 7] = np.ones(shape[2:], np.float32)
        if chunks is None:
            stored[-1, -1, 0] = 1.0
    assert 4 * np.prod(shape) > 19e9
    script = f"""
    import resource
    from pdeinfl.data.readers import open_trajectories
    traj = open_trajectories({str(path)!r})
    traj.read(1234, 7, 8)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, -1))
    assert traj.read(1234, 7, 8).min() == 1.0
    if {chunks is not None}:
        assert traj[100].shape == (21, 4, 128, 128)
        batch = traj.mini_batch(7, n_transitions=3)
        assert len(batch) == 3
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, env=environment)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
