"""Influence files: bit-equal, whole or absent, refused in one line."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

import pdeinfl as pi
from engine_problems import conv_net, mini_batch
from pdeinfl.engine.certificate import DampingPath
from pdeinfl.engine.store import InfluenceStore, Key


@pytest.fixture(scope="module")
def result():
    found = pi.influence(conv_net(width=2), mini_batch(3), ("smse", "mass"), run="toy", seed=10, epoch=4, mini_batch=2)
    return dataclasses.replace(found, effective_dof=(3.5, 3.0, 4.0))


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a) if f.name != "step")
    return a == b or (a != a and b != b)


def test_what_is_loaded_is_what_was_saved_bit_for_bit(result, tmp_path):
    result.save(tmp_path / "h.h5")
    loaded = pi.Influence.load(str(tmp_path / "h.h5"))
    assert same(loaded, result)
    assert isinstance(loaded.path, DampingPath)
    other = 7 * result.damping
    assert same(loaded.at_damping([other])[0].values, result.at_damping([other])[0].values)
    with pytest.raises(ValueError, match="not held by a stored result"):
        loaded.parameter_step(0)


def test_a_matrix_without_a_path_goes_through_too(tmp_path):
    built = pi.Influence.from_arrays(np.eye(2), [0, 1], [0, 1], [1, 1])
    built.save(tmp_path / "h.h5")
    assert same(pi.Influence.load(tmp_path / "h.h5"), built)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_os_error_of_one_line(result, tmp_path, share):
    path = tmp_path / "h.h5"
    result.save(path)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(OSError, match=r"h\.h5 is truncated or corrupt") as caught:
        pi.Influence.load(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_in_the_matrix_is_noticed(result, tmp_path):
    path = tmp_path / "h.h5"
    result.save(path)
    with h5py.File(path) as file:
        offset = file["values"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        file.seek(offset + 3)
        byte = file.read(1)[0]
        file.seek(offset + 3)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(OSError, match="truncated or corrupt"):
        pi.Influence.load(path)


def test_other_files_are_refused(result, tmp_path):
    with pytest.raises(FileNotFoundError, match="no influence file at"):
        pi.Influence.load(tmp_path / "absent.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1.0]
    with pytest.raises(ValueError, match="not an influence file"):
        pi.Influence.load(tmp_path / "other.h5")
    result.save(tmp_path / "newer.h5")
    with h5py.File(tmp_path / "newer.h5", "a") as file:
        file.attrs["version"] = 99
    with pytest.raises(ValueError, match="has version 99; this pdeinfl reads version 2"):
        pi.Influence.load(tmp_path / "newer.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(OSError, match="truncated or corrupt"):
        pi.Influence.load(tmp_path / "text.h5")


def test_a_failed_write_leaves_what_was_there(result, tmp_path):
    path = tmp_path / "h.h5"
    result.save(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        dataclasses.replace(result, settings={"not": object()}).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["h.h5"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write influence file"):
        result.save(tmp_path / "file" / "h.h5")


def test_the_store_is_keyed_by_run_seed_epoch_and_mini_batch(result, tmp_path):
    store = InfluenceStore(tmp_path / "h")
    assert list(store) == []
    store.put(result)
    store.put(dataclasses.replace(result, epoch=5))
    key = Key("toy", 10, 4, 2)
    assert same(store.get(key), result)
    assert [r.epoch for r in store] == [4, 5]
    assert store.has(key, {"solver": "krylov", "metric": "sum"})
    assert not store.has(key, {"solver": "dense"})
    assert not store.has(key, {"something": "else"})
    assert not store.has(Key("toy", 10, 4, 3), {})
    os.truncate(store.path(key), 100)
    assert not store.has(key, {})


WRITER = """
import sys, dataclasses, numpy as np
from pdeinfl.engine.result import Influence
from pdeinfl.engine.store import InfluenceStore
store, n = InfluenceStore(sys.argv[1]), 96
for k in range(10**6):
    h = np.full((n, n), float(k))
    store.put(Influence.from_arrays(h, [0] * n, [0] * n, range(1, n + 1), run="r", mini_batch=k % 3, losses=h[0]))
    print(k, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_files(tmp_path):
    store, moments = InfluenceStore(tmp_path), random.Random(0)
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            assert writer.stdout.readline()
        time.sleep(moments.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = list(store)
        assert len(found) == 3
        for one in found:
            k = one.values[0, 0, 0, 0]
            assert (one.values == k).all()
            assert (one.losses == k).all()
            assert k % 3 == one.mini_batch


def test_file_names_have_no_leading_dash():
    assert Key("", 1, 2, 3).file_name == "seed1-epoch0002-batch003.h5"
    assert Key("ViT", 1, 2, 3).file_name == "ViT-seed1-epoch0002-batch003.h5"


def test_a_file_without_bounds_of_rows_has_those_of_its_entries(tmp_path):
    result = pi.influence(conv_net(), mini_batch(3), "smse", damping=1.0)
    result.save(tmp_path / "h.h5")
    np.testing.assert_array_equal(pi.Influence.load(tmp_path / "h.h5").row_error, result.row_error)
    with h5py.File(tmp_path / "h.h5", "r+") as file:
        del file["row_error"]
    found = pi.Influence.load(tmp_path / "h.h5").row_error
    np.testing.assert_allclose(found, np.linalg.norm(result.error_bound, axis=-1))
    assert (found >= result.row_error * (1 - 1e-12)).all()
