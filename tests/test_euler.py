"""The Euler solver against exact solutions, a NumPy version of its scheme, and its conservation laws."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import reference
from pdeinfl.data.simulators.euler import solve_euler

EPS = np.finfo(np.float64).eps


def smooth_random(n, nx, ny, seed=0):
    """Smooth primitive states with every channel varying along both axes."""
    rng = np.random.default_rng(seed)
    x, y = (np.arange(nx) + 0.5) / nx, (np.arange(ny) + 0.5) / ny
    phases = rng.uniform(0, 2 * np.pi, (n, 4, 2))
    waves = np.sin(2 * np.pi * x[:, None] + phases[..., :1, None]) * np.cos(2 * np.pi * y + phases[..., 1:, None])
    return np.array([1.0, 0.0, 0.0, 1.0])[:, None, None] + 0.4 * waves


def sod_error(n, axis, n_steps=2):
    """L1 density error of two mirrored Sod tubes, high state in the middle half, before their waves meet."""
    x = (np.arange(n) + 0.5) / n
    inside = abs(x - 0.5) < 0.25
    w = np.zeros((1, 4, n, 3))
    w[:, 0], w[:, 3] = np.where(inside, 1.0, 0.125)[:, None], np.where(inside, 1.0, 0.1)[:, None]
    out, _ = solve_euler(w if axis == 0 else w.swapaxes(2, 3), n_steps)
    density = out[0, -1, 0] if axis == 0 else out[0, -1, 0].T
    # 8 points a cell resolve the mean over the cell next to a jump.
    fine = (np.arange(8 * n) + 0.5) / (8 * n)
    speeds = (abs(fine - 0.5) - 0.25) / (0.05 * n_steps)
    exact = reference.riemann_exact((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), speeds)[0].reshape(n, 8).mean(1)
    return np.mean(abs(density - exact[:, None]))


def test_exact_riemann_solution_is_toros():
    """Sod's star region: p* = 0.30313, u* = 0.92745, densities 0.42632 and 0.26557 (five printed figures)."""
    rho, u, p = reference.riemann_exact((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), np.array([0.5, 1.2]))
    np.testing.assert_allclose(rho, [0.42632, 0.26557], atol=5e-6)
    np.testing.assert_allclose([*u, *p], [0.92745, 0.92745, 0.30313, 0.30313], atol=5e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_double_sod_tube_converges(axis):
    errors = np.array([sod_error(n, axis) for n in (64, 128, 256)])
    # First order is the limit at shocks and contacts; second order inside the fan only helps.
    assert np.log2(errors[0] / errors[-1]) / 2 >= 0.8
    assert np.all(np.log2(errors[:-1] / errors[1:]) >= 0.8)
    # Two contacts and two shocks smeared over about four cells with jumps up to 0.3.
    assert errors[-1] < 2 * 2 * 4 * 0.3 / 256


def advection_error(n, velocity=(1.0, 0.5), end=0.1):
    centres, mean = (np.arange(n) + 0.5) / n, np.sinc(1 / n) ** 2

    def density(t):
        phase = centres[:, None] - velocity[0] * t + centres - velocity[1] * t
        return 1 + 0.2 * mean * np.sin(2 * np.pi * phase)

    w = np.ones((1, 4, n, n))
    w[0, 0], w[0, 1], w[0, 2] = density(0), *velocity
    out, _ = solve_euler(w, 2, interval=end / 2)
    return np.mean(abs(out[0, -1, 0] - density(end)))


def test_smooth_advection_is_second_order():
    errors = np.array([advection_error(n) for n in (64, 128, 256)])
    assert np.all(np.log2(errors[:-1] / errors[1:]) >= 1.9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1), (2, 64), (7, 67), (5, 130)])
def test_matches_the_numpy_scheme(shape):
    rng = np.random.default_rng(sum(shape))
    w = np.stack([rng.uniform(0.1, 1, shape), *rng.uniform(-1, 1, (2, *shape)), rng.uniform(0.1, 1, shape)])
    u = reference.euler_conserved(w)
    # One interval of exactly one step: the longest that is allowed.
    _, dt = reference.euler_step(u)
    for _ in range(4):
        _, dt = reference.euler_step(u)
        want, _ = reference.euler_step(u, longest=0.9 * dt)
        got, steps = solve_euler(reference.euler_primitive(u)[None], 1, interval=0.9 * dt)
        assert steps[0] == 1
        # Each face sums terms of size |u| ≲ 10 over some tens of operations.
        np.testing.assert_allclose(got[0, 1], want, rtol=0, atol=300 * EPS * 10)
        u = want


def test_conserves_mass_momentum_energy():
    out, steps = solve_euler(smooth_random(3, 48, 40), 4)
    totals = out.sum((-2, -1))
    # At most some roundings per cell and stage, each of half an ulp of the largest conserved quantity.
    bound = 8 * EPS * steps[:, None, None] * abs(out).sum((-2, -1)).max(-1, keepdims=True)
    assert np.all(abs(totals - totals[:, :1]) <= bound)


def test_snapshots_are_conserved_and_start_with_the_initial_state():
    w = smooth_random(2, 8, 6)
    out, steps = solve_euler(w, 3)
    assert out.shape == (2, 4, 4, 8, 6)
    assert steps.min() > 0
    np.testing.assert_allclose(out[:, 0].swapaxes(0, 1), reference.euler_conserved(w.swapaxes(0, 1)), rtol=4 * EPS)


def test_snapshot_times_are_exact():
    """Uniform flow of a passive profile: the snapshot after k intervals is where the flow has carried it."""
    n = 32
    w = np.ones((1, 4, n, 1))
    w[0, 1] = 1 / (0.05 * n) * 0.5
    w[0, 0, :, 0] = 1 + 0.1 * np.sin(2 * np.pi * (np.arange(n) + 0.5) / n)
    out, _ = solve_euler(w, 8)
    modes = np.fft.fft(out[0, :, 0, :, 0])[:, 1]
    carried = np.angle(modes[1:] / modes[:-1])
    # Half a cell per interval; the phase error of the scheme at 32 cells a wave is below one per cent.
    np.testing.assert_allclose(carried, -2 * np.pi * 0.5 / n, rtol=1e-2)


def test_refinement_averages_blocks():
    w = smooth_random(1, 12, 8)
    fine, _ = solve_euler(w, 1)
    coarse, _ = solve_euler(w, 1, refinement=2)
    want = fine.reshape(1, 2, 4, 6, 2, 4, 2).mean((4, 6))
    np.testing.assert_allclose(coarse, want, rtol=0, atol=8 * EPS * abs(fine).max())


def test_bits_do_not_depend_on_threads():
    for shape in ((1, 64, 66), (3, 50, 50), (4, 9, 7)):
        one, steps = solve_euler(smooth_random(*shape), 1, num_threads=1)
        for threads in (2, 3):
            again, again_steps = solve_euler(smooth_random(*shape), 1, num_threads=threads)
            assert np.array_equal(one, again)
            assert np.array_equal(steps, again_steps)


def test_float32_snapshots_are_rounded_once():
    w = smooth_random(1, 8, 8)
    assert np.array_equal(solve_euler(w, 2, dtype=np.float32)[0], solve_euler(w, 2)[0].astype(np.float32))


def test_near_vacuum_and_strong_collision_stay_positive():
    w = np.ones((2, 4, 32, 32))
    w[0, 1, :16], w[0, 1, 16:] = -20.0, 20.0
    w[1, 2] = np.where(np.arange(32) < 16, 30.0, -30.0)
    w[1, 3], w[1, 0, 8:20] = 1e-6, 1e-6
    out, _ = solve_euler(w, 1)
    states = reference.euler_primitive(out.swapaxes(0, 2).swapaxes(1, 2))
    assert states[0].min() > 0
    assert states[3].min() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cfl": 0.6}, "`cfl` must lie in"),
        ({"gamma": 1.0}, "`gamma`"),
        ({"interval": -1.0}, "`interval`"),
        ({"n_steps": 0}, "`n_steps` must be an integer of at least 1; got 0"),
        ({"refinement": 3}, "`refinement` must divide the 8 x 8 cells; got 3"),
        ({"num_threads": 0}, "`num_threads`"),
        ({"primitives": np.ones((4, 8, 8))}, r"must have shape \(n, 4, X, Y\).*got \(4, 8, 8\)"),
        ({"primitives": np.ones((1, 5, 8, 8))}, r"got \(1, 5, 8, 8\)"),
        ({"primitives": np.zeros((1, 4, 8, 8))}, "density 0.*must be positive"),
        ({"primitives": np.full((1, 4, 8, 8), np.nan)}, "NaN or infinity"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"primitives": np.ones((1, 4, 8, 8)), "n_steps": 1} | change
    with pytest.raises(ValueError, match=message):
        solve_euler(arguments.pop("primitives"), arguments.pop("n_steps"), **arguments)


def test_progress_counts_intervals_and_its_exception_stops_the_run():
    seen = []

    def stop(done):
        seen.append(done)
        if len(seen) > 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        solve_euler(smooth_random(2, 96, 96), 10_000, dtype=np.float32, interval=0.001, progress=stop)
    assert 0 <= seen[0] <= seen[-1] < 20_000


def test_interrupt_ends_within_a_second():
    code = (
        "import time, numpy as np\n"
        "from pdeinfl.data.simulators.euler import solve_euler\n"
        "states = np.ones((3, 4, 256, 256))\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs
        "print('ready', flush=True)\n"
        "try:\n"
        "    solve_euler(states, 1, interval=1e5)\n"
        "except KeyboardInterrupt:\n"
        "    print(time.monotonic())\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        assert process.poll() is None
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        limit = threading.Timer(20, process.kill)  # the solve itself would take for ever
        limit.start()
        # The monotonic clock is the same in both processes.
        assert float(process.stdout.readline()) - sent < 1
        limit.cancel()
    assert process.returncode == 0
