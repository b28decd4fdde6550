"""Observables against slow NumPy versions, their sums, their errors, and their behaviour under torch.func."""

from __future__ import annotations

import functools
import math
import pickle

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jvp, vmap

import reference
from pdeinfl import observables as obs
from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS

# Forward mode makes torch itself call its deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

EPS = torch.finfo(torch.float64).eps
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
PLAIN_CE = ("smse", "mass", "energy", "momentum_x", "momentum_y")
PLAIN_NS = ("smse", "kinetic_energy", "enstrophy")


def fields(n=3, channels=4, space=(7, 5), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.rand(n, channels, *space, generator=generator, dtype=torch.float64) + 0.3 for _ in range(3)]
    return tuple(t.to(dtype) for t in draw)


def every(channel_names, space):
    found = [obs.resolve(name, channel_names) for name in obs.available(channel_names)]
    return [*found, *obs.smse_bands(space, channel_names=channel_names)]


CASES = [(names, o) for names in (CE_CHANNELS, NS_CHANNELS) for o in every(names, (7, 5))]


def label(value):
    return value.name if isinstance(value, obs.Observable) else str(len(value))


def test_available_names():
    assert obs.available(CE_CHANNELS) == [*PLAIN_CE, *(f"smse:{c}" for c in CE_CHANNELS)]
    assert obs.available(NS_CHANNELS) == [*PLAIN_NS, "smse:velocity_x", "smse:velocity_y"]


@pytest.mark.parametrize("space", [(7, 5), (1, 1), (6,), (3, 4, 5)])
def test_smse_and_channels_match_reference(space):
    pred, target, state = fields(space=space)
    expected = np.array([reference.smse(p, t) for p, t in zip(pred, target, strict=True)])
    whole = obs.SMSE()(pred, target, state)
    assert whole.shape == (3,)
    np.testing.assert_allclose(whole, expected.mean(1), rtol=64 * EPS)
    shares = torch.stack([o(pred, target, state) for o in obs.smse_channels(CE_CHANNELS)], 1)
    np.testing.assert_allclose(shares, expected / 4, rtol=64 * EPS)
    np.testing.assert_allclose(shares.sum(1), whole, rtol=8 * EPS)


def test_conserved_match_reference():
    pred, target, state = fields()
    state[:, 1] -= state[:, 1].mean((-2, -1), keepdim=True)  # total momentum zero: the denominator must survive it
    for c, name in enumerate(("mass", "momentum_x", "momentum_y", "energy")):
        got = obs.resolve(name, CE_CHANNELS)(pred, target, state)
        x = state[:, c].numpy()
        scale = np.sqrt((x**2).mean((1, 2))) if "momentum" in name else x.mean((1, 2))
        expected = [reference.drift(p[c], s[c], m) for p, s, m in zip(pred, state, scale, strict=True)]
        np.testing.assert_allclose(got, expected, rtol=1e4 * EPS)  # the reference subtracts two nearly equal means


def test_mass_does_not_cancel_in_float32():
    pred, target, state = fields(space=(32, 32))
    pred = state + 1e-5 * (pred - 0.5)
    exact = obs.Mass()(pred, target, state)
    single = obs.Mass()(pred.float(), target.float(), state.float())
    # Rounding the two inputs perturbs each cell's 1e-5 difference by eps/2 at random; means of 1,024 cells, squared.
    bound = 2 * torch.finfo(torch.float32).eps / math.sqrt(1024) / 1e-5 * 8
    np.testing.assert_allclose(single, exact, rtol=bound)


@pytest.mark.parametrize("space", [(7, 5), (6, 4), (5, 6), (8, 1)])
def test_bands_match_reference_and_add_up(space):
    pred, target, state = fields(space=space, channels=2)
    bands = obs.smse_bands(space, edges=(1, math.sqrt(5), 3))
    values = torch.stack([band(pred, target, state) for band in bands], 1)
    for b, band in enumerate(bands):
        expected = [reference.band_smse(p, t, band.low, band.high) for p, t in zip(pred, target, strict=True)]
        np.testing.assert_allclose(values[:, b], expected, atol=64 * EPS)
    np.testing.assert_allclose(values.sum(1), obs.SMSE()(pred, target, state), rtol=64 * EPS)


@pytest.mark.parametrize("space", [(9,), (8,), (4, 6, 5)])
def test_bands_add_up_in_one_and_three_dimensions(space):
    pred, target, state = fields(space=space)
    total = sum(band(pred, target, state) for band in obs.smse_bands(space))
    np.testing.assert_allclose(total, obs.SMSE()(pred, target, state), rtol=64 * EPS)


def test_default_bands_are_octaves():
    names = [band.name for band in obs.smse_bands(32)]
    assert names == [f"smse:band({b})" for b in ("0-1", "1-2", "2-4", "4-8", "8-inf")]
    assert all(obs.resolve(name, CE_CHANNELS).name == name for name in names)


def test_flow_integrals_match_reference():
    pred, target, state = fields(channels=2)
    energy, enstrophy = obs.KineticEnergy()(pred, target, state), obs.Enstrophy()(pred, target, state)
    for i in range(3):
        p, t = pred[i].numpy(), target[i].numpy()
        k_p, k_t = 0.5 * (p**2).mean((1, 2)).sum(), 0.5 * (t**2).mean((1, 2)).sum()
        np.testing.assert_allclose(energy[i], (k_p - k_t) ** 2 / (k_t + 1e-6), rtol=1e4 * EPS)
        z_p, z_t = reference.enstrophy(p), reference.enstrophy(t)
        np.testing.assert_allclose(enstrophy[i], (z_p - z_t) ** 2 / (z_t + 1e-6), rtol=1e4 * EPS)


def test_enstrophy_of_a_known_flow():
    x = torch.arange(16, dtype=torch.float64) / 16
    v = torch.cos(2 * math.pi * 3 * x)[:, None].expand(16, 12)  # ω = ∂x v = −6π sin(6πx), ½ mean ω² = 9π²
    target = torch.stack([torch.zeros(16, 12, dtype=torch.float64), v])[None]
    got = obs.Enstrophy()(2 * target, target, target)
    assert got.item() == pytest.approx((3 * 9 * math.pi**2) ** 2 / (9 * math.pi**2 + 1e-6), rel=256 * EPS)


@pytest.mark.parametrize(("names", "observable"), CASES, ids=label)
def test_zero_and_flat_at_the_reference(names, observable):
    pred, target, state = fields(channels=len(names))
    exact = state if observable.name in ("mass", "energy", "momentum_x", "momentum_y") else target
    value, slope = observable(exact, target, state), grad(lambda p: observable(p, target, state).sum())(exact)
    assert torch.count_nonzero(value) == 0
    assert torch.count_nonzero(slope) == 0
    assert (observable(pred, target, state) > 0).all()


@pytest.mark.parametrize(("names", "observable"), CASES, ids=label)
def test_func_transforms(names, observable):
    pred, target, state = fields(channels=len(names))
    direction = fields(channels=len(names), seed=1)[0]

    def one(p, y, x):
        return observable(p[None], y[None], x[None])[0]

    whole = observable(pred, target, state)
    np.testing.assert_allclose(vmap(one)(pred, target, state), whole, rtol=256 * EPS)
    residual = vmap(grad(one))(pred, target, state)
    batched = grad(lambda p: observable(p, target, state).sum())(pred)
    np.testing.assert_allclose(residual, batched, rtol=0, atol=256 * EPS * residual.abs().max())
    _, forward = jvp(lambda p: observable(p, target, state), (pred,), (direction,))
    np.testing.assert_allclose(forward, (residual * direction).flatten(1).sum(1), rtol=1e4 * EPS)
    curvature = hessian(one)(pred[0], target[0], state[0]).reshape(pred[0].numel(), -1)
    np.testing.assert_allclose(curvature, curvature.T, rtol=0, atol=256 * EPS * curvature.abs().max())
    if observable.name not in ("kinetic_energy", "enstrophy"):  # the others are quadratic, so Euler's identity holds
        reference_point = state if observable.name in ("mass", "energy", "momentum_x", "momentum_y") else target
        step = (pred - reference_point)[0].flatten()
        half = (0.5 * step @ curvature @ step).item()
        assert half == pytest.approx(whole[0].item(), rel=1e5 * EPS)


@pytest.mark.parametrize(("names", "observable"), CASES, ids=label)
def test_backward_through_backward(names, observable):
    pred, target, state = fields(channels=len(names), n=2, space=(3, 4))
    torch.autograd.gradgradcheck(lambda p: observable(p, target, state), pred.requires_grad_())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("names", "observable"), CASES, ids=label)
def test_dtypes_and_devices(names, observable, dtype, device):
    exact = fields(channels=len(names), dtype=dtype)
    value = observable(*(t.to(device) for t in exact)).cpu()
    assert value.dtype == dtype
    expected = observable(*(t.double() for t in exact)).numpy()
    scale = obs.SMSE()(*(t.double() for t in exact)).numpy() + expected
    np.testing.assert_allclose(value.double(), expected, rtol=0, atol=32 * torch.finfo(dtype).eps * scale.max())


def test_frames_are_read_from_the_last():
    pred, target, state = fields()
    frames = torch.cat([torch.zeros_like(state), state], 1)
    assert torch.equal(obs.Mass()(pred, target, frames), obs.Mass()(pred, target, state))


def cubic(pred, target, input):
    return (pred - target).abs().pow(3).flatten(1).sum(1)


def test_callables():
    pred, target, state = fields()
    mine = obs.resolve(cubic, CE_CHANNELS)
    assert mine.name == "cubic"
    assert torch.equal(mine(pred, target, state), cubic(pred, target, state))
    assert obs.resolve(lambda p, t, x: p.flatten(1).sum(1), CE_CHANNELS).name == "lambda"
    assert obs.resolve(functools.partial(cubic), CE_CHANNELS).name == "partial"
    with pytest.raises(ValueError, match=r"`cubic` must return a tensor of shape \(3,\).*got \(\)"):
        obs.UserObservable(lambda p, t, x: p.sum(), "cubic")(pred, target, state)


def test_resolve_all():
    first, second = (lambda p, t, x: p.flatten(1).sum(1)), (lambda p, t, x: p.flatten(1).mean(1))
    found = obs.resolve_all(["smse", obs.Mass, obs.Energy(), first, second], CE_CHANNELS)
    assert [o.name for o in found] == ["smse", "mass", "energy", "lambda", "lambda_2"]
    assert [o.name for o in obs.resolve_all("smse", CE_CHANNELS)] == ["smse"]
    assert [o.name for o in obs.resolve_all(cubic, CE_CHANNELS)] == ["cubic"]
    assert [o.name for o in obs.resolve_all(obs.Mass(), CE_CHANNELS)] == ["mass"]
    with pytest.raises(ValueError, match="`smse` is listed twice"):
        obs.resolve_all(["smse", obs.SMSE()], CE_CHANNELS)
    with pytest.raises(ValueError, match="`cubic` is listed twice"):
        obs.resolve_all([cubic, cubic], CE_CHANNELS)
    with pytest.raises(ValueError, match="at least one observable"):
        obs.resolve_all([], CE_CHANNELS)


def test_bound_observables_compare_and_pickle():
    assert obs.resolve("smse:density", CE_CHANNELS) == obs.smse_channels(CE_CHANNELS)[0]
    for _, observable in CASES:
        assert pickle.loads(pickle.dumps(observable)) == observable


@pytest.mark.parametrize(
    ("spec", "names", "message"),
    [
        ("smsé", CE_CHANNELS, r"unknown observable 'smsé'.*valid: smse, mass, energy,.*smse:density"),
        ("smse:pressure", CE_CHANNELS, r"unknown observable.*smse:band\(LOW-HIGH\)"),
        ("mass", NS_CHANNELS, "`mass` needs the channel 'density'"),
        (obs.Energy(), NS_CHANNELS, "`energy` needs the channel 'energy'"),
        ("enstrophy", CE_CHANNELS, "`enstrophy` needs the channel 'velocity_x'"),
        ("smse:band(4-2)", CE_CHANNELS, "low < high"),
        (3, CE_CHANNELS, "an observable is a name"),
    ],
)
def test_bad_specs(spec, names, message):
    with pytest.raises(ValueError, match=message) as caught:
        obs.resolve(spec, names)
    assert "\n" not in str(caught.value)


def test_bad_fields():
    pred, target, state = fields()
    smse = obs.resolve("smse", CE_CHANNELS)
    with pytest.raises(ValueError, match=r"`pred` must have shape \(n, channel, x, ...\)"):
        smse(pred[0, 0], target[0, 0], state[0, 0])
    with pytest.raises(ValueError, match=r"`target` must have the shape of `pred`, \(3, 4, 7, 5\); got \(3, 4, 7, 4\)"):
        smse(pred, target[..., :4], state)
    with pytest.raises(ValueError, match="`input` must have the shape of `pred`"):
        smse(pred, target, state[:, :3])
    with pytest.raises(ValueError, match="got fields with 2 channels"):
        smse(pred[:, :2], target[:, :2], state[:, :2])
    with pytest.raises(ValueError, match="needs the channel 'density'"):
        obs.Mass()(pred[:, :2], target[:, :2], state[:, :2])
    with pytest.raises(ValueError, match=r"needs fields \(n, channel, x, y\)"):
        obs.resolve("enstrophy", NS_CHANNELS)(*fields(channels=2, space=(5,)))


def test_names_mean_the_same_on_both_sides_of_h():
    first, second = (lambda p, t, x: p.flatten(1).sum(1)), (lambda p, t, x: p.flatten(1).mean(1))
    other_side = obs.resolve_all([second, "smse"], CE_CHANNELS)
    found = obs.resolve_all([first, second, "smse"], CE_CHANNELS, beside=other_side)
    assert [o.name for o in other_side] == ["lambda", "smse"]
    assert [o.name for o in found] == ["lambda_2", "lambda", "smse"]
    assert obs.resolve_all([first], CE_CHANNELS)[0].name == "lambda"

    class Louder(obs.SMSE):
        pass

    with pytest.raises(ValueError, match="two different observables are named `smse`"):
        obs.resolve_all([Louder()], CE_CHANNELS, beside=other_side)
