"""The spectral solver against exact flows, its order, its invariants, and the initial-condition classes."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from pdeinfl.data.simulators.navier_stokes import PRE_EVOLUTION, simulate_navier_stokes
from pdeinfl.data.simulators.spectral_flow import SpectralFlow
from pdeinfl.data.simulators.turbulence_initial_conditions import BrownianBridge, Gauss, Sines, velocity_of

EPS = np.finfo(np.float64).eps


def points(n):
    line = 2 * np.pi * np.arange(n) / n
    return np.meshgrid(line, line, indexing="ij")


def modes_of(flow, velocity):
    return flow.to_modes(torch.from_numpy(np.asarray(velocity)[None]))


def divergence(flow, modes):
    return (flow.kx * modes[:, 0] + flow.ky * modes[:, 1]).abs().max().item()


@pytest.mark.parametrize(("n", "m"), [(16, 1), (16, 3), (15, 2)])
def test_taylor_green_decays_at_its_exact_rate(n, m):
    # −νΔ on every mode: u = cos·sin, v = −sin·cos decays by exp(−2ν(2πm)²t); the advection is a pressure gradient.
    x, y = points(n)
    flow = SpectralFlow(n, viscosity=0.01, cutoff=0.0)
    velocity = np.stack([np.cos(m * x) * np.sin(m * y), -np.sin(m * x) * np.cos(m * y)])
    rate, steps = 2 * 0.01 * (2 * np.pi * m) ** 2, 40
    modes = modes_of(flow, velocity)
    dt = torch.full((1, 1, 1, 1), 0.2 / steps, dtype=torch.float64)
    for _ in range(steps):
        modes = flow.step(modes, dt)
    z = -rate * 0.2 / steps
    exact_scheme = (1 + z + z**2 / 2 + z**3 / 6) ** steps
    error = np.abs(flow.to_points(modes)[0].numpy() - exact_scheme * velocity).max()
    assert error < 100 * EPS * steps
    # And the scheme's damping is the exact one up to z⁴/24 for each step.
    assert abs(exact_scheme - np.exp(-rate * 0.2)) < steps * z**4 / 20


def test_a_mode_above_the_cutoff_is_damped_and_one_below_is_not():
    n = 32
    flow = SpectralFlow(n)
    k0 = 2 * np.pi * np.sqrt(n)
    for m in (5, 6, 12):
        _, y = points(n)
        shear = np.stack([np.sin(m * y), np.zeros_like(y)])
        k = 2 * np.pi * m
        rate = 0.05 / n * k**2 * (1 - np.exp(-((k / k0) ** 18))) if k > k0 else 0.0
        out = flow.to_points(flow.advance(modes_of(flow, shear), 0.1))[0].numpy()
        # Third-order steps no longer than h/2 each: at most ten of them with (rate·dt)⁴/24 each.
        slack = 1e-13 + 10 * (rate * 0.5 / n) ** 4
        np.testing.assert_allclose(out, np.exp(-rate * 0.1) * shear, atol=slack)


def test_order_in_time_is_three():
    flow = SpectralFlow(16, viscosity=0.005, cutoff=0.0)
    start = modes_of(flow, Sines(p=3)(np.random.default_rng(0), 16))

    def after(steps):
        modes, dt = start, torch.full((1, 1, 1, 1), 0.2 / steps, dtype=torch.float64)
        for _ in range(steps):
            modes = flow.step(modes, dt)
        return modes

    fine = after(640)
    errors = [(after(steps) - fine).abs().max().item() for steps in (10, 20, 40)]
    assert min(np.log2(errors[0] / errors[1]), np.log2(errors[1] / errors[2])) >= 2.8


@pytest.mark.parametrize("n", [16, 15])
def test_right_hand_side_matches_the_sum_over_triads(n):
    flow = SpectralFlow(n, viscosity=0.0)
    modes = modes_of(flow, Sines(p=3)(np.random.default_rng(1), n))
    rate = flow.rate(modes)[0].numpy()
    full = np.fft.fft2(flow.to_points(modes)[0].numpy(), norm="forward")
    modes_1d = np.fft.fftfreq(n, 1 / n).astype(int)
    products = {}
    for a, pa in enumerate(modes_1d):
        for b, pb in enumerate(modes_1d):
            if np.abs(full[:, a, b]).max() > 1e-14:
                products[pa, pb] = full[:, a, b]
    for k in [(1, 0), (2, 1), (0, 3), (-3, 2)]:
        wave = 2 * np.pi * np.array(k)
        total = np.zeros(2, complex)
        for p, u in products.items():
            other = products.get((k[0] - p[0], k[1] - p[1]))
            if other is not None:
                total -= 1j * (wave @ u) * other
        total -= wave * (wave @ total) / (wave @ wave)
        assert np.abs(rate[:, k[0], k[1]] - total).max() < 1e-11


def test_divergence_stays_at_round_off_and_energy_does_not_grow():
    flow = SpectralFlow(32)
    modes = modes_of(flow, Gauss()(np.random.default_rng(2), 32))
    size = (modes.abs() * 2 * np.pi * 16).max().item()
    energies = []
    for _ in range(6):
        energies.append(flow.to_points(modes).square().mean().item())
        assert divergence(flow, modes) <= 100 * EPS * size
        assert modes[:, :, 0, 0].abs().max() < 100 * EPS
        modes = flow.advance(modes, 0.05)
    assert all(b <= a * (1 + 100 * EPS) for a, b in pairwise(energies))
    assert energies[-1] > 0.5 * energies[0]


def test_projection_is_a_projection():
    flow = SpectralFlow(12)
    velocity = np.random.default_rng(3).standard_normal((2, 12, 12))
    once = modes_of(flow, velocity)
    assert divergence(flow, once) < 100 * EPS * 2 * np.pi * 6
    torch.testing.assert_close(flow.projected(once), once, rtol=0, atol=20 * EPS)


@pytest.mark.parametrize(("function", "u", "v"), [(Gauss(), 0.615, 0.608), (Sines(), 0.335, 0.335)])
def test_moments_match_the_published_ones(function, u, v):
    # The published numbers are over the whole release and t = 0…1; inviscid large scales keep their energy.
    flow = SpectralFlow(64)
    drawn = np.stack([function(np.random.default_rng(k), 64) for k in range(200)])
    fields = flow.to_points(flow.to_modes(torch.from_numpy(drawn))).numpy()
    for component, published in ((0, u), (1, v)):
        variances = fields[:, component].var((1, 2))
        deviation = np.sqrt(variances.mean())
        sampling = variances.std() / np.sqrt(len(variances)) / (2 * deviation)
        assert abs(deviation - published) < 4 * sampling + 0.1 * published


def test_vorticity_is_recovered():
    x, y = points(16)
    velocity = velocity_of(np.sin(x) * np.cos(2 * y))
    ik = 2j * np.pi * np.fft.fftfreq(16, 1 / 16)
    curl = np.fft.ifft(ik[:, None] * np.fft.fft(velocity[1], axis=0), axis=0)
    curl = curl - np.fft.ifft(ik * np.fft.fft(velocity[0], axis=1), axis=1)
    np.testing.assert_allclose(curl.real, np.sin(x) * np.cos(2 * y), atol=1e-13)


def test_brownian_bridge_has_its_spectrum_and_one_flow_for_all_resolutions():
    coarse = np.fft.rfft2(BrownianBridge()(np.random.default_rng(5), 16), norm="forward")
    fine = np.fft.rfft2(BrownianBridge()(np.random.default_rng(5), 32), norm="forward")
    np.testing.assert_allclose(coarse[:, 1:8, 1:8], fine[:, 1:8, 1:8], atol=1e-14)
    np.testing.assert_allclose(coarse[:, -7:, :8], fine[:, -7:, :8], atol=1e-14)
    # E|û|² = a²·4/3: cc − ss and cs + sc have variance 2/3 each.
    draws = [np.fft.rfft2(BrownianBridge()(np.random.default_rng(k), 16), norm="forward") for k in range(400)]
    power = np.mean([np.abs(d[:, 2, 3]) ** 2 for d in draws])
    expected = 4 / 3 * (4 * np.pi**2 * 13) ** -1.5
    assert abs(power / expected - 1) < 6 / np.sqrt(800)


def test_brownian_bridge_starts_half_a_unit_earlier():
    from pdeinfl.data.simulators.initial_conditions import trajectory_generator

    states, _ = simulate_navier_stokes("BB", 1, 16, 1, seed=4)
    flow = SpectralFlow(16)
    drawn = modes_of(flow, BrownianBridge()(trajectory_generator(4, "BB", 0), 16))
    assert PRE_EVOLUTION == {"BB": 0.5}
    earlier = flow.to_points(flow.advance(drawn, 0.5))[0].numpy().astype(np.float32)
    np.testing.assert_array_equal(states[0, 0], earlier)
    assert np.abs(flow.to_points(drawn)[0].numpy() - earlier).max() > 0.01 * np.abs(earlier).max()


def test_a_trajectory_depends_on_seed_class_and_index_alone():
    all_of_it, ids = simulate_navier_stokes(("BB", "Gauss", "Sines"), 3, 16, 2, seed=7)
    assert all_of_it.shape == (9, 3, 2, 16, 16)
    assert all_of_it.dtype == np.float32
    np.testing.assert_array_equal(ids, np.repeat([0, 1, 2], 3))
    alone, _ = simulate_navier_stokes("Sines", 1, 16, 2, seed=7)
    np.testing.assert_array_equal(alone[0], all_of_it[6])
    longer, _ = simulate_navier_stokes("Gauss", 2, 16, 3, seed=7)
    np.testing.assert_array_equal(longer[:, :3], all_of_it[3:5])
    other, _ = simulate_navier_stokes("Sines", 1, 16, 2, seed=8)
    assert np.abs(other - alone).max() > 0.1


def test_a_class_of_ones_own():
    def shear(generator, n):
        return np.stack([np.sin(points(n)[1]) * generator.uniform(1, 2), np.zeros((n, n))])

    states, _ = simulate_navier_stokes({"shear": shear}, 2, 16, 2, seed=0)
    np.testing.assert_allclose(states[:, 2], states[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RP", 1, 16, 1, 0), "BB, Gauss, Sines"),
        (("BB", 0, 16, 1, 0), "n_per_class"),
        (("BB", 1, 3, 1, 0), "resolution"),
        (({"mine": lambda g, n: np.zeros((2, 3, 3))}, 1, 16, 1, 0), "must return shape"),
        (({"mine": lambda g, n: np.full((2, n, n), np.nan)}, 1, 16, 1, 0), "NaN"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_navier_stokes(*arguments)
