"""Initial-condition classes of CE: what they draw, from which stream, and the moments of their flows."""

import numpy as np
import pytest

import reference
from pdeinfl.data.simulators.euler import simulate_euler
from pdeinfl.data.simulators.initial_conditions import (
    CE_CLASSES,
    PRESETS,
    initial_condition,
    trajectory_generator,
)


def primitives_of(states):
    """(n, time, 4, X, Y) conserved to (4, n, time, X, Y) primitive, float64."""
    return reference.euler_primitive(states.astype(np.float64).transpose(2, 0, 1, 3, 4))


def test_rp_is_four_quadrants():
    state = initial_condition("RP")(np.random.default_rng(0), 16)
    quadrants = state.reshape(4, 2, 8, 2, 8)
    assert np.all(quadrants == quadrants[:, :, :1, :, :1])
    assert len(np.unique(state[0])) == 4


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", CE_CLASSES)
def test_values_span_their_ranges(name, preset):
    function = initial_condition(name, preset)
    states = np.stack([function(np.random.default_rng(k), 16) for k in range(200)])
    for channel, (low, high) in enumerate((function.density, function.velocity, function.velocity, function.pressure)):
        values = states[:, channel]
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    patches = [len(np.unique(state[0])) for state in states]
    assert max(patches) == (function.p + 1) ** 2


@pytest.mark.parametrize("name", ["CRP", "RPUI"])
def test_borders_are_the_printed_ones(name):
    """The patch of a cell by loops over the printed formula, from the same draws."""
    function, n = initial_condition(name), 24
    p, shift = function.p, function.frequency_shift
    assert (p, shift) == ((3, 0) if name == "CRP" else (1, 2 * p**2))
    state = function(np.random.default_rng(5), n)
    rng = np.random.default_rng(5)
    values = [rng.uniform(*r, (p + 1, p + 1)) for r in (function.density, *2 * [function.velocity], function.pressure)]
    waves = [(rng.uniform(-function.amplitude, function.amplitude, (p, p)), rng.uniform(0, 1, (p, p))) for _ in "xy"]
    for a in range(n):
        for b in range(n):
            x, y = (a + 0.5) / n, (b + 0.5) / n
            patch = []
            for position, (alpha, beta) in zip((x, y), waves, strict=True):
                sigma = sum(
                    alpha[i, j] * np.sin(2 * np.pi * ((i + 1 + shift) * x + (j + 1 + shift) * y + beta[i, j]))
                    for i in range(p)
                    for j in range(p)
                )
                patch.append(int((p + 1) * ((position + sigma) % 1)))
            assert np.array_equal(state[:, a, b], [v[patch[0], patch[1]] for v in values])


@pytest.mark.parametrize("name", CE_CLASSES)
def test_one_flow_at_every_resolution(name):
    """Cell centres of a grid of n are cell centres of a grid of 3n."""
    coarse, fine = (initial_condition(name)(np.random.default_rng(3), n) for n in (20, 60))
    assert np.mean(coarse == fine[:, 1::3, 1::3]) > 0.99


def test_streams_are_independent_and_named():
    draws = {
        trajectory_generator(seed, name, k).integers(2**62)
        for seed in (0, 1, 2**40)
        for name in ("RP", "CRP", "PR")
        for k in range(3)
    }
    assert len(draws) == 27
    assert trajectory_generator(7, "RP", 2).integers(2**62) == trajectory_generator(7, "RP", 2).integers(2**62)


def test_trajectories_do_not_depend_on_company():
    both, ids, names = simulate_euler(("RP", "CRP"), 3, 8, 2, seed=4)
    assert both.dtype == np.float32
    assert both.shape == (6, 3, 4, 8, 8)
    assert names == ("RP", "CRP")
    assert ids.tolist() == [0, 0, 0, 1, 1, 1]
    alone, _, _ = simulate_euler("CRP", 2, 8, 2, seed=4, num_threads=1)
    assert np.array_equal(alone, both[3:5])
    other, _, _ = simulate_euler("CRP", 2, 8, 2, seed=5)
    assert not np.array_equal(alone, other)


def test_refinement_simulates_finer_cells():
    coarse, _, _ = simulate_euler("CRP", 1, 16, 1, seed=0, refinement=2)
    fine, _, _ = simulate_euler("CRP", 1, 32, 1, seed=0, refinement=1)
    means = fine.astype(np.float64).reshape(1, 2, 4, 16, 2, 16, 2).mean((4, 6))
    np.testing.assert_allclose(coarse, means, rtol=0, atol=2 * np.finfo(np.float32).eps * abs(fine).max())


def test_given_states():
    rng = np.random.default_rng(0)
    w = np.stack([rng.uniform(0.5, 1, (3, 6, 8)), *rng.uniform(-1, 1, (2, 3, 6, 8)), rng.uniform(0.5, 1, (3, 6, 8))], 1)
    states, ids, names = simulate_euler(initial_states=w, n_steps=2)
    assert names == ("custom",)
    assert ids.tolist() == [0, 0, 0]
    want = reference.euler_conserved(w.swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(states[:, 0], want, rtol=np.finfo(np.float32).eps)
    _, _, names = simulate_euler("mine", 3, n_steps=1, initial_states=w)
    assert names == ("mine",)
    # Cut up into 2 x 2 equal cells: another simulation of the same initial state.
    cut, _, _ = simulate_euler(initial_states=w, n_steps=2, refinement=2)
    assert np.array_equal(cut[:, 0], states[:, 0])
    assert not np.array_equal(cut[:, 1], states[:, 1])
    # Given finer than asked for: simulated as given, averaged down.
    fine = w.repeat(2, -1).repeat(2, -2)
    assert np.array_equal(simulate_euler(initial_states=fine, resolution=8, n_steps=2)[0], cut)


def test_custom_classes():
    def still(generator, resolution):
        state = np.ones((4, resolution, resolution))
        state[1:3] = 0
        state[0] = generator.uniform(1, 2)
        return state

    states, _, names = simulate_euler({"still": still, "RP": initial_condition("RP")}, 2, 8, 1, seed=1)
    assert names == ("still", "RP")
    assert np.array_equal(states[:2, 0], states[:2, 1])
    assert states[0, 0, 0, 0, 0] != states[1, 0, 0, 0, 0]
    assert np.array_equal(states[2:], simulate_euler("RP", 2, 8, 1, seed=1)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "BB"}, "must be among RP, CRP, RPUI for CE; got 'BB'"),
        ({"classes": ()}, "`classes` is empty"),
        ({"classes": ("RP", "RP")}, "must not repeat a name"),
        ({"classes": (3,)}, "must hold names; got 3"),
        ({"classes": {"mine": 3}}, r"`classes\['mine'\]` must be a function"),
        (
            {"classes": {"mine": lambda g, n: np.ones((4, n))}},
            r"class 'mine' must return .*\(4, 16, 16\); got \(4, 16\)",
        ),
        ({"classes": {"mine": lambda g, n: -np.ones((4, n, n))}}, "class 'mine', trajectory 0 has density -1"),
        ({"classes": None}, "must be given unless `initial_states` is"),
        ({"preset": "best"}, "`preset` must be one of paper, release_like; got 'best'"),
        ({"n_per_class": 0}, "`n_per_class` must be an integer of at least 1; got 0"),
        ({"resolution": 16.5}, "`resolution` must be an integer of at least 4; got 16.5"),
        ({"seed": -1}, "`seed` must be an integer of at least 0; got -1"),
        ({"refinement": 0}, "`refinement` must be an integer of at least 1; got 0"),
        ({"initial_states": np.ones((2, 4, 8, 8))}, "`classes` must name the one class"),
        ({"classes": None, "initial_states": np.ones((3, 4, 8, 8))}, "`n_per_class` must be None or the 3"),
        ({"classes": None, "n_per_class": None, "initial_states": np.ones((3, 4, 8, 8)), "resolution": 3}, "or divide"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"classes": ("RP", "CRP"), "n_per_class": 2, "resolution": 8, "n_steps": 1, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        simulate_euler(**arguments)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", CE_CLASSES)
def test_200_draws_stay_positive(name, preset):
    states, _, _ = simulate_euler(name, 200, 16, 4, seed=2, preset=preset, refinement=1)
    rho, _, _, p = primitives_of(states)
    assert rho.min() > 0
    # Float32 loses the internal energy below an ulp of the total energy.
    energy = states.astype(np.float64)[:, :, 3]
    assert np.all(p > -np.finfo(np.float32).eps * energy)


# Published mean and standard deviation over space and time of the released files (DATA): density, vx, pressure.
PUBLISHED = {
    "RP": ((1.252, 0.547), (0.009, 0.258), (0.209, 0.114)),
    "CRP": ((0.548, 0.323), (0.0, 0.275), (0.552, 0.170)),
    "RPUI": ((0.544, 0.362), (-0.003, 0.211), (0.549, 0.200)),
}


@pytest.mark.parametrize("name", CE_CLASSES)
def test_release_like_moments(name):
    """Within four sampling errors plus 10 % of the published standard deviation; diffusion of 64 cells lowers CRP's
    density by 15 % (docs of the preset), which the sampling error of 16 trajectories covers."""
    n = 16
    states, _, _ = simulate_euler(name, n, 64, 20, seed=1, refinement=1)
    rho, vx, _, p = primitives_of(states)
    for field, (mean, deviation) in zip((rho, vx, p), PUBLISHED[name], strict=True):
        per_trajectory = field.mean((1, 2, 3))
        assert abs(field.mean() - mean) <= 4 * per_trajectory.std(ddof=1) / n**0.5 + 0.1 * deviation
        squares = ((field - field.mean()) ** 2).mean((1, 2, 3))
        error = squares.std(ddof=1) / n**0.5 / (2 * field.std())
        assert abs(field.std() - deviation) <= 4 * error + 0.1 * deviation


def test_deviation_rises_with_resolution():
    """The same CRP flows on finer cells: less numerical diffusion, larger density contrast, by shrinking steps."""
    deviations = [simulate_euler("CRP", 6, 32, 20, seed=1, refinement=r)[0][:, :, 0].std() for r in (1, 2)] + [
        simulate_euler("CRP", 6, 64, 20, seed=1, refinement=1)[0][:, :, 0].std()
    ]
    assert deviations[0] < deviations[1] < deviations[2]


def test_progress_is_plain_lines_in_a_log(capsys):
    simulate_euler(("RP", "CRP"), 2, 8, 3, seed=0, progress=True)
    assert capsys.readouterr().err.splitlines()[-1] == "simulate CE: 12 of 12 intervals"
    simulate_euler("RP", 2, 8, 3, seed=0)
    assert capsys.readouterr().err == ""
