"""ViT: sizes of the paper, layouts, translation, torch.func."""

from __future__ import annotations

import pytest
import torch

from func_checks import TORCH_JIT, check_gradients, check_transforms, close, float64_with_noise
from pdeinfl.surrogates import ViT, build

pytestmark = pytest.mark.filterwarnings(TORCH_JIT)


def small(**changes):
    torch.manual_seed(0)
    return ViT(**({"channels": 4, "resolution": (16, 8), "width": 16, "depth": 2, "heads": 2} | changes))


def states(n=3, channels=4, shape=(16, 8)):
    return torch.randn(n, channels, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"channels": 4}, 4_504_913),
        ({"channels": 2}, 4_483_889),
        ({"channels": 4, "depth": 6, "mlp_ratio": 4}, 5_030_733),
        ({"channels": 4, "resolution": 32, "width": 64, "depth": 4}, 146_569),
    ],
)
def test_parameter_counts(arguments, count):
    assert ViT(**arguments).n_parameters == count


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("output_layout", ["unpatchify", "reference"])
def test_shapes(patch, output_layout):
    model = small(resolution=(12, 24), patch=patch, output_layout=output_layout)
    assert model(torch.zeros(2, 4, 12, 24)).shape == (2, 4, 12, 24)


@pytest.mark.parametrize("patch", [1, 2, 3, 4])
def test_shift_by_a_patch_commutes_without_positions(patch):
    model = float64_with_noise(small(resolution=(12, 24), patch=patch))
    x = states(shape=(12, 24))

    def defect(shift):
        moved = model(x.roll(shift, (-2, -1)))
        return moved, model(x).roll(shift, (-2, -1))

    assert not close(*defect((patch, -2 * patch)), factor=1e9)
    with torch.no_grad():
        model.positions.zero_()
    assert close(*defect((patch, -2 * patch)))
    if patch > 1:
        assert not close(*defect((1, 0)), factor=1e9)


@pytest.mark.parametrize("patch", [3, 4])
def test_a_token_reads_its_patch(patch):
    """With every block silenced, a token's output depends on the patch it belongs to and a rim around it only."""
    model = float64_with_noise(small(resolution=12, patch=patch))
    for block in model.blocks:
        torch.nn.init.zeros_(block.attention.out.weight)
        torch.nn.init.zeros_(block.narrow.weight)
    x = states(n=1, shape=(12, 12)).requires_grad_()
    model(x)[0, :, patch : 2 * patch, 0:patch].sum().backward()
    touched = (x.grad.abs().sum((0, 1)) > 0).nonzero()
    rim = (patch | 1) // 2
    # The kernel is centred on the patch's first cell, as padding (K − 1)/2 implies.
    assert set(touched[:, 0].tolist()) == set(range(patch - rim, patch + rim + 1))
    assert set(touched[:, 1].tolist()) == {i % 12 for i in range(-rim, rim + 1)}


def test_output_layouts():
    """Both layouts hold the same numbers; each puts a token's 16 values where its name says."""
    model = float64_with_noise(small())
    x = states()
    plain = model(x)
    model.output_layout = "reference"
    strung = model(x)
    for k in range(8):  # token k of the 4 × 2 tokens
        row, column = divmod(k, 2)
        patch = plain[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten(2)
        assert torch.equal(patch, strung.flatten(2)[:, :, 16 * k : 16 * k + 16])


def test_reference_layout_writes_strips_at_128():
    model = ViT(channels=2, width=8, depth=1, output_layout="reference")
    values = torch.zeros(1, 1024, 32)
    values[0, 33] = 1.0  # token (1, 1), which reads around cells 4…7 × 4…7
    rows, columns = model._to_grid(values)[0, 0].nonzero(as_tuple=True)
    assert set(rows.tolist()) == {33 // 8}
    assert columns.tolist() == list(range(16 * (33 % 8), 16 * (33 % 8) + 16))


def test_gradients_reach_everything():
    check_gradients(small().double(), states())


@pytest.mark.parametrize("output_layout", ["unpatchify", "reference"])
def test_func_transforms(output_layout):
    check_transforms(float64_with_noise(small(output_layout=output_layout)), states())


def test_config_rebuilds():
    model = small(output_layout="reference", mlp_ratio=3)
    again = build(model.config)
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(states().float()), model(states().float()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 18}, "`resolution` must be divisible by patch = 4; got (18, 18)"),
        ({"resolution": 0}, "`resolution` must be a positive integer or a pair (X, Y) of them; got 0"),
        ({"heads": 3}, "`heads` must divide width = 16; got 3"),
        ({"depth": 0}, "`depth` must be an integer of at least 1; got 0"),
        ({"output_layout": "rows"}, "`output_layout` must be one of ['unpatchify', 'reference']; got 'rows'"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError) as caught:
        small(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5, 16, 8), "this ViT takes states (n, 4, x, y); got shape (1, 5, 16, 8)"),
        ((4, 16, 8), "this ViT takes states (n, 4, x, y); got shape (4, 16, 8)"),
        ((1, 4, 8, 16), "this ViT is built for resolution (16, 8); got (8, 16): build one with resolution=(8, 16)"),
    ],
)
def test_bad_states(shape, message):
    with pytest.raises(ValueError) as caught:
        small()(torch.zeros(shape))
    assert str(caught.value) == message
