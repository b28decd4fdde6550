"""Circular padding by another way: the same values, derivatives and errors as PyTorch's own, in fewer copies."""

import pytest
import torch
import torch.nn.functional as F

from engine_problems import conv_net, mini_batch
from pdeinfl.engine.circular_padding import LeanCircularPadding
from pdeinfl.engine.jacobian import Jacobian

CASES = [
    ((2, 3, 7), (2, 1)),
    ((2, 3, 4, 5), (1, 1, 1, 1)),
    ((2, 3, 4, 5), (0, 2, 3, 0)),
    ((2, 3, 4, 6), (3, 3, 2, 2)),
    ((2, 3, 4, 5), (5, 5, 4, 4)),  # more than the axis holds: PyTorch's own way
    ((2, 1, 3, 4, 5), (1, 2, 2, 1, 1, 1)),
]


def nodes(tensor):
    """Names of the autograd nodes behind a tensor."""
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [n for n, _ in node.next_functions]
    return {node.name() for node in seen}


@pytest.mark.parametrize(("shape", "pad"), CASES)
def test_value_and_gradient_are_pytorchs(shape, pad):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected = F.pad(x, pad, mode="circular")
    with LeanCircularPadding():
        got = F.pad(x, pad, mode="circular")
        assert torch.equal(F.pad(x, pad, "circular"), got)
    assert torch.equal(got, expected)
    cotangent = torch.randn_like(expected)
    (a,), (b,) = (torch.autograd.grad(y, x, cotangent) for y in (got, expected))
    # Each cell is the sum of at most 3 images per axis, added in another order.
    torch.testing.assert_close(a, b, rtol=0, atol=27 * torch.finfo(a.dtype).eps * float(cotangent.abs().max()))


def test_backward_writes_no_slices():
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    assert any("CopySlices" in name for name in nodes(F.pad(x, (1, 1, 1, 1), mode="circular")))
    with LeanCircularPadding():
        assert not any("CopySlices" in name for name in nodes(F.pad(x, (1, 1, 1, 1), mode="circular")))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_other_modes_pass(mode):
    x = torch.randn(1, 2, 5, 5)
    with LeanCircularPadding():
        got = F.pad(x, (1, 2, 2, 1), mode=mode)
    assert torch.equal(got, F.pad(x, (1, 2, 2, 1), mode=mode))


@pytest.mark.parametrize("pad", [(9, 9, 1, 1), (1, 1, 1), (1, 1)])
def test_errors_are_pytorchs(pad):
    x = torch.randn(1, 2, 5, 5)
    with pytest.raises(Exception) as expected:
        F.pad(x, pad, mode="circular")
    with LeanCircularPadding(), pytest.raises(type(expected.value)) as got:
        F.pad(x, pad, mode="circular")
    assert str(got.value) == str(expected.value)


def test_products_of_a_circular_net_agree_with_autograd():
    net, batch = conv_net(space=2).double(), mini_batch(sides=(6, 6))
    x = batch.inputs.double()
    u = torch.randn(2, *x.shape, dtype=torch.float64)
    rows = [torch.cat([g.reshape(-1) for g in torch.autograd.grad(net(x), list(net.parameters()), c)]) for c in u]
    rows = torch.stack(rows)
    jacobian = Jacobian(net, dtype=torch.float64)
    # A gradient is a sum over examples, channels and cells, of a convolution's 9 taps.
    atol = x.numel() * 9 * torch.finfo(torch.float64).eps * float(rows.abs().max())
    torch.testing.assert_close(jacobian.vjp(batch, u), rows, rtol=0, atol=atol)
    torch.testing.assert_close(jacobian.per_example_gradients(batch, u).sum(1), rows, rtol=0, atol=atol)
