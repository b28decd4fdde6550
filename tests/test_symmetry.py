"""Motions of states, equivariance errors and spatial Lie derivatives of models (MATH §6.3, §7)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import Exact, conv_net, mini_batch
from pdeinfl.analysis.lie import lie_derivative
from pdeinfl.analysis.symmetry import Motion, dihedral, equivariance_error, spatial_lie_derivative, third_quartile
from pdeinfl.data.mini_batch import CE_CHANNELS

NAMES = ("density", "momentum_x", "momentum_y", "energy")
EPS = torch.finfo(torch.float64).eps


def states(n=3, size=8):
    return torch.randn(n, 4, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def batch(inputs=None):
    x = states() if inputs is None else inputs
    n = torch.arange(len(x))
    return pi.MiniBatch(x, x.roll(1, 0) + 2.0, class_ids=n, trajectory_ids=n, times=n, channel_names=NAMES)


def test_quarter_turn_of_a_marked_point():
    """A cell east of the centre goes north, and its velocity to the east turns north."""
    u = torch.zeros(1, 4, 5, 5)
    u[0, 0, 4, 2], u[0, 1, 4, 2] = 1.0, 1.0
    turned = Motion(quarter_turns=1)(u, NAMES)
    assert turned[0, 0, 2, 4] == 1.0
    assert turned[0, 2, 2, 4] == 1.0
    assert turned.abs().sum() == 2.0
    north = Motion(quarter_turns=1)(turned, NAMES)
    assert north[0, 0, 0, 2] == 1.0
    assert north[0, 1, 0, 2] == -1.0


def test_flip_negates_the_component_along_its_axis():
    u = states()
    flipped = Motion(flip_x=True)(u, NAMES)
    torch.testing.assert_close(flipped[:, 1], -u[:, 1].flip(-2), rtol=0, atol=0)
    torch.testing.assert_close(flipped[:, 2], u[:, 2].flip(-2), rtol=0, atol=0)


def test_group_relations():
    u = states()
    four = u
    for _ in range(4):
        four = Motion(quarter_turns=1)(four, NAMES)
    assert torch.equal(four, u)
    flip, turn = Motion(flip_x=True), Motion(quarter_turns=1)
    assert torch.equal(flip(flip(u, NAMES), NAMES), u)
    # s r s = r⁻¹
    assert torch.equal(flip(turn(flip(u, NAMES), NAMES), NAMES), Motion(quarter_turns=3)(u, NAMES))
    images = [m(u, NAMES) for m in dihedral()]
    assert len({i.numpy().tobytes() for i in images}) == 8
    assert torch.equal(Motion(3, -2)(Motion(-3, 2)(u, NAMES), NAMES), u)


def test_turning_commutes_with_the_rotation_generator():
    u = states(size=9)
    turn = Motion(quarter_turns=1)
    of_turned = lie_derivative(turn(u, NAMES).numpy(), "rotation", NAMES)
    turned = turn(torch.from_numpy(lie_derivative(u.numpy(), "rotation", NAMES)), NAMES).numpy()
    np.testing.assert_allclose(of_turned, turned, atol=1e4 * EPS)


def blur(x):
    """Commutes with every motion of the square: it treats channels alike and its stencil is symmetric."""
    near = sum(x.roll(s, d) for s in (1, -1) for d in (-1, -2))
    return x + 0.1 * near


@pytest.mark.parametrize("motion", [*dihedral(), Motion(3, 5), Motion(1, 2, 3, True)])
def test_equivariant_model_has_error_one(motion):
    errors = equivariance_error(blur, batch(), motion)
    assert errors.shape == (3,)
    np.testing.assert_allclose(errors, 1.0, rtol=1e3 * EPS)


def test_model_with_a_preferred_place_or_direction_is_seen():
    mask = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)[:, None]
    assert np.abs(equivariance_error(lambda x: x * mask, batch(), Motion(4, 0)) - 1).max() > 1e-2
    np.testing.assert_allclose(equivariance_error(lambda x: x * mask, batch(), Motion(0, 4)), 1.0, rtol=1e3 * EPS)

    def swap(x):  # treats the vector as two scalars
        return x[:, [0, 2, 1, 3]]

    assert np.abs(equivariance_error(swap, batch(), Motion(quarter_turns=1)) - 1).max() > 1e-2


def test_a_mini_batch_that_repeats_an_example_is_moved_too():
    twice = batch().select([0, 0, 2])
    moved = Motion(shift_x=1).on(twice)
    assert torch.equal(moved.inputs, twice.inputs.roll(1, -2))
    assert (moved.trajectory_ids == twice.trajectory_ids).all()


def test_third_quartile():
    assert third_quartile(np.arange(5.0)) == 3.0


@pytest.mark.parametrize("generator", ["x", "y"])
def test_spatial_lie_derivative_of_an_equivariant_model(generator):
    x = states(size=9)
    size = torch.as_tensor(lie_derivative(x.numpy(), generator, NAMES)).abs().max()
    residual = spatial_lie_derivative(blur, x, NAMES, generator).abs().max()
    assert residual < 64 * EPS * size


def test_spatial_lie_derivative_of_a_nonlinear_pointwise_model_converges():
    """Pointwise maps commute with translations, but stencils obey the chain rule only up to their order."""
    errors = []
    for n in (16, 32):
        wave = torch.sin(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n)
        x = wave[:, None].expand(1, 4, n, n)
        errors.append(spatial_lie_derivative(lambda u: u**2, x, NAMES, "x", 4).abs().max())
    assert float(torch.log2(errors[0] / errors[1])) == pytest.approx(4, abs=0.3)


def test_spatial_lie_derivative_of_a_mask_is_its_slope():
    n = 16
    mask = torch.sin(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n)[:, None]
    x = torch.ones(1, 4, n, n, dtype=torch.float64)
    got = spatial_lie_derivative(lambda u: u * mask, x, NAMES, "x", 2)
    expected = (mask.roll(-1, 0) - mask.roll(1, 0)) * n / 2
    torch.testing.assert_close(got, expected.expand_as(got), rtol=0, atol=64 * EPS * n)


def test_refusals():
    u = states()
    with pytest.raises(ValueError, match="channel per name"):
        Motion()(u, NAMES[:2])
    with pytest.raises(ValueError, match="square grid"):
        Motion(quarter_turns=1)(u[..., :4], NAMES)
    with pytest.raises(ValueError, match="no 'v_y'"):
        Motion()(u[:, :2], ("density", "v_x"))


@pytest.mark.parametrize("motion", [Motion(quarter_turns=1), Motion(flip_x=True), Motion(shift_x=2, shift_y=1)])
def test_influence_on_an_orbit_matches_explicit_jacobians(motion):
    """``H^g = g_A(g·x, g·y)ᵀ η⁻¹ g_B``, η and g_B those of the unmoved mini-batch (MATH §7)."""
    module, own = conv_net(), mini_batch(4, sides=(4, 4), channel_names=CE_CHANNELS)
    moved = motion.on(own)
    truth = Exact(module, own, response_batch=moved)
    damping = 1e-2 * truth.top
    h, room = truth.influence("smse", "smse", damping)
    for solver in ("dense", "krylov"):
        result = pi.influence(module, own, "smse", response_batch=moved, metric_batch=own, solver=solver, tol=0.02,
                              damping=damping, product_dtype="float64")  # fmt: skip
        got = result["smse", "smse"]
        assert (np.abs(got - h) <= result.error_bound[0, 0] + room).all()
    assert not np.allclose(h, pi.influence(module, own, "smse", damping=damping)["smse", "smse"], rtol=1e-3)


@pytest.mark.parametrize("wrong", [{"shift_x": 0.5}, {"quarter_turns": 1.0}])
def test_a_motion_moves_by_whole_points(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be an integer; got"):
        Motion(**wrong)
