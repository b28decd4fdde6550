"""The contraction: values against exact sums, bits against thread counts, sources against memory, and good manners."""

from __future__ import annotations

import multiprocessing
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdeinfl import _core
from pdeinfl.contraction import FileMatrix, gram, pairwise_distance
from reference import gram_reference, pairwise_distance_reference

EPS32, EPS64 = 2.0**-24, 2.0**-53
GRADES = ("float64", "float32")


def heavy_tailed(shape: tuple[int, ...], seed: int = 0, dtype: object = np.float32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp(1.5 * rng.standard_normal(shape))).astype(dtype)


def scale_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.outer(*(np.sqrt((m.astype(np.float64) ** 2).sum(1)) for m in (a, b)))


def tolerance(products: str, columns: int, rounds_storage: bool = False) -> float:
    """Relative to ‖a_i‖‖b_j‖ (Cauchy–Schwarz): one rounding per product and per addition in the longest chain."""
    if products == "float64":
        return (columns + 4) * EPS64
    chain = min(columns, 32) + 4  # products in a lane, then up to 16 lanes pairwise
    return (chain + 1 + 2 * rounds_storage) * EPS32 + (columns + 4) * EPS64


@pytest.mark.parametrize("columns", [1, 2, 15, 17, 511, 512, 513, 1023, 1024, 1025, 2053])
@pytest.mark.parametrize("rows", [(1, 1), (2, 5), (5, 3), (6, 4), (7, 13), (13, 12)])
@pytest.mark.parametrize("products", GRADES)
def test_awkward_shapes_match_exact_sums(rows, columns, products):
    a, b = heavy_tailed((rows[0], columns), 1), heavy_tailed((rows[1], columns), 2)
    limit = tolerance(products, columns)
    got = gram(a, products=products)
    assert got.dtype == np.float64
    assert np.array_equal(got, got.T)
    assert (np.abs(got - gram_reference(a)) <= limit * scale_of(a, a)).all()
    assert (np.abs(gram(a, b, products) - gram_reference(a, b)) <= limit * scale_of(a, b)).all()


@pytest.mark.parametrize(("n", "m", "columns"), [(0, 0, 5), (0, 3, 5), (3, 0, 5), (3, 2, 0), (0, 0, 0)])
def test_empty_shapes(n, m, columns):
    a, b = np.ones((n, columns), np.float32), np.ones((m, columns), np.float32)
    assert np.array_equal(gram(a), np.full((n, n), float(columns)))
    assert np.array_equal(gram(a, b), np.zeros((n, m)))


@pytest.mark.parametrize("n", [95, 97, 193, 1019, 1021, 1030])
def test_cache_and_output_tile_edges(n):
    a = heavy_tailed((n, 30), n)
    wide = a.astype(np.float64)
    assert (np.abs(gram(a) - wide @ wide.T) <= 2 * tolerance("float64", 30) * scale_of(a, a)).all()
    b = a[: n // 2]
    assert np.array_equal(gram(a, b), gram(a)[:, : n // 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("products", GRADES)
def test_storage_dtypes(dtype, products):
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((9, 1500)).astype(dtype), rng.standard_normal((7, 1500)).astype(dtype)
    limit = tolerance(products, 1500, rounds_storage=dtype is np.float64)
    assert (np.abs(gram(a, b, products) - gram_reference(a, b)) <= limit * scale_of(a, b)).all()


def test_bfloat16_tensors_are_read_as_such():
    a = torch.randn(5, 1300, generator=torch.Generator().manual_seed(0)).bfloat16()
    wide = a.float().numpy()
    assert np.array_equal(gram(a), gram(wide))
    assert np.array_equal(gram([a, a.float()]), gram(np.concatenate([wide, wide])))


def test_mixed_dtypes_of_the_two_sides():
    a, b = heavy_tailed((4, 700), 5), heavy_tailed((3, 700), 6, np.float64)
    assert np.array_equal(gram(a, b), gram(a.astype(np.float64), b))


@pytest.mark.parametrize("products", GRADES)
def test_bits_do_not_depend_on_threads(products):
    a, b = heavy_tailed((50, 30_011), 7), heavy_tailed((11, 30_011), 8)
    one = gram(a, None, products, num_threads=1), gram(a, b, products, num_threads=1)
    for threads in (2, 3, 5):
        assert np.array_equal(gram(a, None, products, num_threads=threads), one[0])
        assert np.array_equal(gram(a, b, products, num_threads=threads), one[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 2**31))
def test_permutation_and_positivity(n, columns, seed):
    a = heavy_tailed((n, columns), seed)
    order = np.random.default_rng(seed).permutation(n)
    whole = gram(a)
    # Places in a register tile differ, sums in a lane do not.
    assert np.array_equal(gram(np.ascontiguousarray(a[order])), whole[np.ix_(order, order)])
    assert np.linalg.eigvalsh(whole).min() >= -4 * n * (columns + n) * EPS64 * np.trace(whole)


def test_float32_products_on_heavy_tails_are_within_3e_7():
    a = heavy_tailed((24, 200_000), 11)
    wide = a.astype(np.float64)
    error = np.abs(gram(a, products="float32") - wide @ wide.T) / scale_of(a, a)
    assert error.max() <= 3e-7


def test_nan_and_infinity_propagate():
    a = heavy_tailed((5, 1100), 12)
    a[2, 1099] = np.nan
    got = gram(a)
    bad = np.isnan(got)
    assert bad[2].all()
    assert bad[:, 2].all()
    assert bad.sum() == 9


def test_tensors_and_views_are_borrowed():
    base = heavy_tailed((8, 2000), 13)
    expected = gram(np.ascontiguousarray(base[::2, 100:1700]))
    assert np.array_equal(gram(base[::2, 100:1700]), expected)
    assert np.array_equal(gram(torch.from_numpy(base)[::2, 100:1700]), expected)
    assert np.array_equal(gram(torch.from_numpy(base).requires_grad_()[::2, 100:1700]), expected)
    assert np.array_equal(gram(np.asfortranarray(base[::2, 100:1700])), expected)
    frozen = base[::2, 100:1700]
    frozen.flags.writeable = False
    assert np.array_equal(gram(frozen), expected)


@pytest.fixture
def stored(tmp_path):
    a = heavy_tailed((9, 5003), 14)
    raw = tmp_path / "rows.bin"
    raw.write_bytes(b"head" + a.tobytes())
    return a, raw


@pytest.mark.parametrize("products", GRADES)
def test_files_give_the_bits_of_memory(stored, products, tmp_path):
    a, raw = stored
    expected = gram(a, products=products)
    assert np.array_equal(gram(FileMatrix(raw, 4, "float32", a.shape), products=products), expected)
    assert np.array_equal(gram(FileMatrix(raw, 4, "float32", a.shape, mapped=True), products=products), expected)
    mapped = np.memmap(raw, np.float32, "r", 4, a.shape)
    assert np.array_equal(gram(mapped, products=products), expected)
    with h5py.File(tmp_path / "rows.h5", "w", userblock_size=512) as file:
        file["before"] = np.arange(5)
        dataset = file.create_dataset("rows", data=a)
        assert np.array_equal(gram(dataset, products=products), expected)
        assert np.array_equal(gram([dataset, a[:2]], products=products), gram([a, a[:2]], products=products))


def test_stacks_equal_their_concatenation(stored):
    a, raw = stored
    parts = [a[:2], FileMatrix(raw, 4 + 2 * 5003 * 4, "float32", (3, 5003)), torch.from_numpy(a[5:5]), a[5:]]
    assert np.array_equal(gram(parts), gram(a))
    assert np.array_equal(gram(parts, a[:3]), gram(a, a[:3]))


def test_bfloat16_files(tmp_path):
    a = torch.randn(4, 900, generator=torch.Generator().manual_seed(1)).bfloat16()
    (tmp_path / "b.bin").write_bytes(a.view(torch.int16).numpy().tobytes())
    assert np.array_equal(gram(FileMatrix(tmp_path / "b.bin", 0, "bfloat16", (4, 900))), gram(a))


A = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gram(np.ones(3, np.float32)), r"`a` must have shape \(n, K\).*got \(3,\)"),
        (lambda: gram(torch.ones(3, dtype=torch.bfloat16)), r"`a` must have shape \(n, K\).*got \(3,\)"),
        (lambda: gram(A, np.ones((2, 4), np.float32)), "one length; got 3 and 4"),
        (lambda: gram(np.ones((2, 3), np.int64)), "`a` must hold float32.*got int64"),
        (lambda: gram(A, np.ones((2, 3), np.complex64)), "`b` must hold float32.*got complex64"),
        (lambda: gram(A.astype(">f4")), "native byte order"),
        (lambda: gram([]), "empty list"),
        (lambda: gram([A, A[:, :2]]), r"stack rows of one length; a\[0\] has 3, a\[1\] 2"),
        (lambda: gram("rows"), "got str"),
        (lambda: gram(torch.ones(2, 3, device="meta")), "must be on the CPU"),
        (lambda: gram(A, products="float16"), "`products` must be 'float64' or 'float32'"),
        (lambda: gram(A, num_threads=0), "`num_threads` must be an integer of at least 1"),
        (lambda: FileMatrix(sys.executable, 0, "int8", (1, 1)), "`dtype` must be one of"),
        (lambda: FileMatrix(sys.executable, 0, "float32", (-1, 1)), "`shape` must be"),
        (lambda: FileMatrix(sys.executable, -1, "float32", (1, 1)), "`offset` must be"),
        (lambda: pairwise_distance(np.ones((3, 4), np.float32)), r"`states` must have shape \(n, C, ...\)"),
        (lambda: pairwise_distance(np.ones((3, 1, 4), int)), "`states` must be an array"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_files_that_do_not_fit(tmp_path, stored):
    _, raw = stored
    with pytest.raises(FileNotFoundError):
        FileMatrix(tmp_path / "none", 0, "float32", (1, 1))
    with pytest.raises(OSError, match="the file has"):
        FileMatrix(raw, 8, "float32", (9, 5003))
    late = FileMatrix(raw, 4, "float32", (9, 5003))
    raw.write_bytes(b"short")
    with pytest.raises(OSError, match=re.escape(raw.name)):
        gram(late)
    with h5py.File(tmp_path / "chunked.h5", "w") as file:
        dataset = file.create_dataset("rows", data=A, chunks=(1, 3), compression="gzip")
        with pytest.raises(ValueError, match="contiguous and uncompressed"):
            gram(dataset)
    with pytest.raises(ValueError, match="larger than any file"):
        _core.gram((str(raw), 0, "float32", (2**62, 2**62), False))


def test_progress_errors_come_through():
    def refuse(done: int) -> None:
        raise RuntimeError("enough")

    a = np.ones((600, 400_000), np.float16)
    start = time.perf_counter()
    with pytest.raises(RuntimeError, match="enough"):
        gram(a, num_threads=1, progress=refuse)
    assert time.perf_counter() - start < 5


def _in_child(connection, a):
    connection.send(gram(a, num_threads=2))
    connection.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_after_the_parent_used_the_pool():
    a = heavy_tailed((5, 20_000), 15)
    expected = gram(a, num_threads=2)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(theirs, a))
    child.start()
    try:
        assert ours.poll(30), "the child hangs"
        assert np.array_equal(ours.recv(), expected)
    finally:
        child.join(5)
        if child.is_alive():
            child.kill()
            child.join()
    assert child.exitcode == 0


def test_interrupt_ends_a_long_call_within_a_second():
    script = (
        "import numpy as np, sys\n"
        "from pdeinfl.contraction import gram\n"
        "a = np.broadcast_to(np.ones((1, 100_000), np.float32), (1000, 100_000))\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs
        "print('ready', flush=True)\n"
        "try:\n"
        "    while True: gram(a, num_threads=1)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(7)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.4)
        start = time.perf_counter()
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(20) == 7
        finally:
            child.kill()
        # One call takes a second or two here; the interpreter's own end is in this time too.
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("mapped", [False, True])
def test_resident_memory_stays_bounded_out_of_core(tmp_path, mapped):
    rows, columns = 24, 2_500_000  # 240 MB
    path = tmp_path / "big.bin"
    with path.open("wb") as file:
        row = np.ones(columns, np.float32)
        for _ in range(rows):
            row.tofile(file)
    script = (
        "import sys, resource\n"
        "from pdeinfl.contraction import FileMatrix, gram\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "gram(FileMatrix(sys.argv[1], 0, 'float32', (2, 1000)), num_threads=2)\n"
        "before = peak()\n"
        f"g = gram(FileMatrix(sys.argv[1], 0, 'float32', ({rows}, {columns}), {mapped}), num_threads=2)\n"
        f"assert (g == {columns}).all()\n"
        "print(peak() - before)\n"
    )
    grown = int(subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=True).stdout)
    assert grown < 120e6, f"{grown / 1e6:.0f} MB for a 240 MB file"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 4, 5, 6), (13, 2, 33)])
def test_distances_match_differences(shape, dtype):
    states = 1 + np.random.default_rng(1).standard_normal(shape).astype(dtype)
    got, expected = pairwise_distance(states), pairwise_distance_reference(states)
    points = int(np.prod(shape[2:]))
    assert np.array_equal(got, got.T)
    assert (np.abs(got - expected) <= 1e3 * (points + 16) * EPS64 * expected).all()
    assert np.array_equal(pairwise_distance(torch.from_numpy(states), num_threads=1), got)


@pytest.mark.parametrize("offset", [1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-12])
def test_nearly_equal_states_keep_their_digits(offset):
    rng = np.random.default_rng(2)
    base = 1 + rng.random((1, 3, 400))
    states = base + offset * rng.standard_normal((6, 3, 400))
    states[3] = states[2]
    got, expected = pairwise_distance(states), pairwise_distance_reference(states)
    assert got[2, 3] == 0
    assert (np.abs(got - expected) <= 1e3 * (400 + 16) * EPS64 * expected).all()


@pytest.mark.parametrize("mapped", [False, True])
def test_combinations_of_arrays_and_files(tmp_path, mapped):
    generator = np.random.default_rng(0)
    q = generator.standard_normal((5, 1300)).astype(np.float32)
    coefficients, rows = generator.standard_normal((3, 7)), generator.standard_normal((3, 1300))
    other = generator.standard_normal((2, 1300))
    q.tofile(tmp_path / "q")
    want = rows + coefficients @ np.concatenate([q, other])
    stored = (str(tmp_path / "q"), 0, "float32", q.shape, mapped)
    for stack in ([q, other], [stored, other]):
        out = rows.copy()
        _core.combine_into(coefficients, stack, out)
        np.testing.assert_allclose(out, want, rtol=0, atol=16 * np.finfo(float).eps * np.abs(want).max())


def test_combinations_that_do_not_fit_are_refused():
    q, rows = np.ones((4, 6), np.float32), np.zeros((2, 6))
    for c, out in ((np.ones((2, 3)), rows), (np.ones((2, 4)), rows[:, :5].copy()), (np.ones((3, 4)), rows)):
        with pytest.raises(ValueError, match=r"must have shapes \(k, r\), \(r, K\) and \(k, K\)"):
            _core.combine_into(c, q, out)
    held = rows.view()
    held.flags.writeable = False
    with pytest.raises(TypeError, match="not writeable"):
        _core.combine_into(np.ones((2, 4)), q, held)
    assert not rows.any()
