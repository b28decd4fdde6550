"""Gradients on disk: whole rows or none, whatever happens to the writer."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pdeinfl.engine.gradient_store import ROUNDOFF, GradientStore

P = 37


def rows(n, seed=0, spread=1.0):
    """Heavy-tailed gradients ``(n, P)``: entries over ``spread`` decades."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((n, P)) * 10 ** (spread * generator.uniform(-1, 1, (n, P)))
    return torch.from_numpy(values.astype(np.float32))


def filled(path, n=5, dtype="float32", name="0", first=0, **settings):
    store = GradientStore(path, P, dtype, **settings)
    keys = [f"k{first + i}" for i in range(n)]
    with store.writer(name) as writer:
        writer.append(keys[:2], rows(n)[:2])
        writer.append(keys[2:], rows(n)[2:])
    return store, keys


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("spread", [0.5, 6.0])
@pytest.mark.parametrize("size", [1.0, 1e-20, 1e20])
def test_rows_come_back_within_the_round_off_of_their_storage(tmp_path, dtype, spread, size):
    """In the norm of the row, whatever its size and however heavy its tails."""
    given = rows(4, spread=spread) * size
    store = GradientStore(tmp_path, P, dtype)
    with store.writer() as writer:
        writer.append(list("abcd"), given)
    for k, key in enumerate("abcd"):
        for view in (store, GradientStore(tmp_path)):
            error = torch.linalg.vector_norm(view[key].double() - given[k].double())
            assert error <= ROUNDOFF[dtype] * torch.linalg.vector_norm(given[k].double())
    assert ROUNDOFF[dtype] == 0 or not torch.equal(store["a"], given[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_inner_products_are_those_of_the_rows(tmp_path, dtype):
    store, keys = filled(tmp_path, dtype=dtype)
    order = [keys[3], keys[0], keys[1], keys[4], keys[2]]
    matrix = torch.stack([store[k] for k in order]).double().numpy()
    room = 4 * P * np.finfo(float).eps * np.outer(*[np.linalg.norm(matrix, axis=1)] * 2)
    assert (np.abs(store.gram(order) - matrix @ matrix.T) <= room).all()
    assert (np.abs(store.gram(order[:2], order[1:]) - matrix[:2] @ matrix[1:].T) <= room[:2, 1:]).all()


def test_writers_of_one_folder_are_read_as_one(tmp_path):
    filled(tmp_path, 3, name="rank1", first=10)
    filled(tmp_path, 4, name="rank0")
    store = GradientStore(tmp_path)
    assert store.keys() == [*[f"k{i}" for i in range(4)], *[f"k{i}" for i in range(10, 13)]]
    assert store.missing(["k2", "k5", "k11"]) == ["k5"]
    assert store.bytes_per_row == 4 * P
    store.verify()
    watching = GradientStore(tmp_path)
    filled(tmp_path, 2, name="rank2", first=20)
    assert "k20" not in watching
    watching.refresh()
    assert "k20" in watching


def test_of_two_rows_with_one_key_the_first_writer_counts(tmp_path):
    for name, value in (("b", 2.0), ("a", 1.0)):
        with GradientStore(tmp_path, P).writer(name) as writer:
            writer.store._rows.clear()  # as two ranks that do not see each other
            writer.append(["k"], torch.full((1, P), value))
    assert float(GradientStore(tmp_path)["k"][0]) == 1.0


@pytest.mark.parametrize("part", ["index", "rows"])
def test_a_file_cut_anywhere_leaves_whole_rows_and_a_writer_goes_on(tmp_path, part):
    store, keys = filled(tmp_path)
    want = {k: store[k] for k in keys}
    whole = {name: (tmp_path / name).read_bytes() for name in ("0.index", "0.rows")}
    for cut in range(0, len(whole[f"0.{part}"]), 11):
        for name, content in whole.items():
            (tmp_path / name).write_bytes(content[:cut] if name.endswith(part) else content)
        seen = GradientStore(tmp_path, P)
        seen.verify()
        assert seen.keys() == keys[: len(seen)]
        with seen.writer() as writer:
            lacking = seen.missing(keys)
            writer.append(lacking, torch.stack([want[k] for k in lacking]) if lacking else torch.empty(0, P))
        again = GradientStore(tmp_path)
        assert again.keys() == keys
        assert all(torch.equal(again[k], want[k]) for k in keys)


@pytest.mark.parametrize("byte", [0, 4 * P * 2 + 5])
def test_a_damaged_row_is_named(tmp_path, byte):
    store, keys = filled(tmp_path)
    content = bytearray((tmp_path / "0.rows").read_bytes())
    content[byte] ^= 1
    (tmp_path / "0.rows").write_bytes(content)
    row = byte // (4 * P)
    with pytest.raises(OSError, match=rf"0.rows: row {row} \({keys[row]}\) is damaged: ") as caught:
        store.verify()
    assert "\n" not in str(caught.value)


def test_a_damaged_line_hides_its_row_and_those_after_it(tmp_path):
    filled(tmp_path)
    content = (tmp_path / "0.index").read_bytes().replace(b'"k3"', b'"k9"')
    (tmp_path / "0.index").write_bytes(content)
    assert GradientStore(tmp_path).keys() == ["k0", "k1", "k2"]


WRITE = """
import sys
import torch
from pdeinfl.engine.gradient_store import GradientStore
store = GradientStore(sys.argv[1], 20_000)
with store.writer() as writer:
    k = len(store)
    while True:
        writer.append([f"k{k}"], torch.full((1, 20_000), float(k)))
        print(k, flush=True)
        k += 1
"""


def test_a_killed_writer_leaves_whole_rows(tmp_path):
    told = -1
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
            for _ in range(5):
                told = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
        store = GradientStore(tmp_path)
        store.verify()
        assert len(store) >= told + 1
        assert all(float(store[f"k{k}"][0]) == k for k in range(len(store)))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """A limit on the size of files stands in for the disk: the fourth row does not fit."""

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 80_000 + 100, 3 * 80_000 + 100))

    program = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + WRITE
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True,
                         preexec_fn=limited)  # fmt: skip
    assert run.stderr.splitlines()[-1].startswith(f"OSError: cannot write {tmp_path / '0.rows'}: ")
    store = GradientStore(tmp_path)
    assert store.keys() == ["k0", "k1", "k2"]
    store.verify()
    with store.writer() as writer:
        writer.append(["more"], torch.ones(1, 20_000))
    assert len(GradientStore(tmp_path)) == 4


def test_one_name_has_one_writer(tmp_path):
    store, _ = filled(tmp_path)
    with store.writer(), pytest.raises(ValueError, match=r"another process writes .*0.index: choose another"):
        store.writer()
    with pytest.raises(ValueError, match="`name` of a writer must be letters"):
        store.writer("../x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_parameters": P + 1}, f"holds gradients with n_parameters {P}, not {P + 1}"),
        ({"dtype": "float16"}, "holds gradients with dtype 'float32', not 'float16'"),
        ({"provenance": {"checkpoint": "b"}}, "holds gradients with provenance"),
        ({"dtype": "int8"}, "`dtype` must be one of float32, bfloat16, float16; got 'int8'"),
    ],
)
def test_another_store_is_refused(tmp_path, settings, message):
    filled(tmp_path, provenance={"checkpoint": "a"})
    with pytest.raises(ValueError, match=message) as caught:
        GradientStore(tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(OSError, match=r"no gradients at .*: give `n_parameters` to start a store"):
        GradientStore(tmp_path / "absent")
    Path(tmp_path / "x.index").write_text("something else\n")
    with pytest.raises(ValueError, match=r"x\.index is not an index of gradients, or its header is damaged"):
        GradientStore(tmp_path, P)


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        (["a"], torch.zeros(1, P + 1), rf"`gradients` must have shape \(1, {P}\); got \(1, {P + 1}\)"),
        (["a", "b"], torch.stack([torch.zeros(P), torch.full((P,), torch.nan)]), "the gradient 'b' is not finite"),
        (["a", "a"], torch.zeros(2, P), "the store already holds 'a': ask `missing` which rows to compute"),
        (["k1"], torch.zeros(1, P), "the store already holds 'k1'"),
    ],
)
def test_bad_rows_are_refused_and_nothing_is_written(tmp_path, keys, values, message):
    store, held = filled(tmp_path)
    with store.writer() as writer, pytest.raises(ValueError, match=message):
        writer.append(keys, values)
    assert GradientStore(tmp_path).keys() == held
    assert (tmp_path / "0.rows").stat().st_size == 5 * 4 * P
