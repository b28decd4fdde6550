"""UNet: sizes of the paper, translation, torch.func."""

from __future__ import annotations

import pytest
import torch

from func_checks import TORCH_JIT, check_gradients, check_transforms, close, float64_with_noise
from pdeinfl.surrogates import UNet, build
from pdeinfl.surrogates.layers import circular_pad

pytestmark = pytest.mark.filterwarnings(TORCH_JIT)


def small(**changes):
    torch.manual_seed(0)
    return UNet(**({"channels": 4, "width": 4, "kernels": (5, 3), "stem_kernel": 5, "heads": 2} | changes))


def states(n=3, channels=4, shape=(16, 8)):
    return torch.randn(n, channels, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("channels", "count"), [(4, 13_875_081), (2, 13_869_175)])
def test_parameter_counts(channels, count):
    assert UNet(channels=channels).n_parameters == count


def test_widths_and_grids_of_the_paper():
    model = UNet()
    seen = []
    for part in (model.stem, *model.down, model.middle, *model.up):
        part.register_forward_hook(lambda _module, _input, output: seen.append(tuple(output.shape[1:])))
    model(torch.zeros(1, 4, 128, 128))
    down = [(24, 128, 128), (48, 64, 64), (96, 32, 32), (192, 16, 16), (384, 8, 8)]
    up = [(192, 16, 16), (96, 32, 32), (48, 64, 64), (24, 128, 128)]
    assert seen == [*down, (768, 8, 8), *up]


def test_kaiming_normal_start():
    weight = UNet().down[2].conv.weight
    fan_in = weight[0].numel()
    # Standard deviation of a sample of n normals: relative error 1/√(2n); five of them.
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=5 / (2 * weight.numel()) ** 0.5)


def test_circular_pad_is_periodic():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    rows = torch.arange(-2, 5) % 3
    columns = torch.arange(-2, 6) % 4
    assert torch.equal(circular_pad(x, 2), x[..., rows, :][..., columns])
    assert circular_pad(x, 0) is x


@pytest.mark.parametrize("kernels", [(3,), (5, 3), (3, 3, 3)])
def test_shift_by_the_stride_commutes(kernels):
    model = float64_with_noise(small(kernels=kernels))
    x = states(shape=(16, 32))
    stride = model.stride
    assert stride == 2 ** len(kernels)
    out = model(x)
    for shift in ((stride, 0), (0, stride), (-stride, 3 * stride)):
        assert close(model(x.roll(shift, (-2, -1))), out.roll(shift, (-2, -1)))
    assert not close(model(x.roll(1, -1)), out.roll(1, -1), factor=1e9)


def test_gradients_reach_everything():
    # An instance norm takes the mean away, and with it the bias of every convolution that only such norms read.
    vanishing = [f"{side}.{level}.conv.bias" for side in ("down", "up") for level in (0, 1)]
    vanishing += ["down.0.strided.bias", "down.0.skip.bias", "middle.narrow.bias", "up.0.out.bias", "up.0.skip.bias"]
    check_gradients(small().double(), states(), vanishing)


def test_func_transforms():
    check_transforms(float64_with_noise(small()), states())


def test_any_fitting_resolution():
    model = small()
    for shape in ((8, 8), (16, 24), (32, 8)):
        assert model(torch.zeros(1, 4, *shape)).shape == (1, 4, *shape)


def test_config_rebuilds():
    model = small(resolution=16)
    again = build(model.config)
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    x = states(shape=(16, 16)).float()
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": (4, 3)}, "must be odd"),
        ({"kernels": ()}, "must be odd"),
        ({"stem_kernel": 2}, "must be odd"),
        ({"width": 0}, "`width` must be an integer of at least 1; got 0"),
        ({"heads": 5}, "`heads` must divide the middle's width 32; got 5"),
        (
            {"resolution": 18},
            "needs a `resolution` divisible by 4 and at least 8; got \\(18, 18\\): pass fewer kernels",
        ),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        small(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (1, 3, 16, 16), r"takes states \(n, 4, x, y\); got shape \(1, 3, 16, 16\)"),
        ({}, (1, 4, 16, 18), r"divisible by 4 and at least 8; got \(16, 18\)"),
        ({}, (1, 4, 16, 4), r"divisible by 4 and at least 8; got \(16, 4\)"),
        ({"stem_kernel": 19}, (1, 4, 8, 8), "a kernel of 19 cells reaches round a grid of 8 more than once"),
        ({"kernels": (3, 11)}, (1, 4, 8, 16), "a kernel of 11 cells reaches round a grid of 4 more than once"),
        ({"resolution": 16}, (1, 4, 8, 8), r"built for resolution \(16, 16\); got \(8, 8\)"),
    ],
)
def test_bad_states(changes, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        small(**changes)(torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_build_errors():
    with pytest.raises(ValueError, match=r"`kind` of a surrogate must be one of \['UNet', 'ViT'\]; got 'FNO'"):
        build({"kind": "FNO"})
    with pytest.raises(ValueError, match="UNet has no argument 'depth'; valid: channels, width, kernels"):
        build({"kind": "unet", "depth": 3})
