"""Jacobian products: linear, adjoint to each other, the same in any chunks."""

import numpy as np
import pytest
import torch
from torch import nn

import reference
from engine_problems import conv_net, mini_batch
from pdeinfl.engine.jacobian import Jacobian, PullBack
from pdeinfl.engine.memory import chunked

EPS = np.finfo(np.float64).eps


def operands(jacobian, batch, k=3):
    generator = torch.Generator().manual_seed(4)
    v = torch.randn(k, jacobian.n_parameters, generator=generator, dtype=torch.float64)
    u = torch.randn(k, *batch.targets.shape, generator=generator, dtype=torch.float64)
    return v, u


def products(jacobian, batch):
    v, u = operands(jacobian, batch)
    return [t.detach() for t in (jacobian.predict(batch), jacobian.jvp(batch, v), jacobian.vjp(batch, u),
                                 jacobian.per_example_gradients(batch, u))]  # fmt: skip


def assert_equal_to_rounding(one, other, terms):
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= 16 * EPS * np.sqrt(terms) * float(a.abs().max())


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("sides", [(1, 1), (3, 4), (7, 2)])
def test_products_are_those_of_the_explicit_jacobian(n, sides):
    module, batch = conv_net(), mini_batch(n, sides=sides)
    want = reference.explicit_jacobian(module, batch.inputs)
    jacobian = Jacobian(module, dtype=torch.float64)
    v, u = operands(jacobian, batch)
    rows = u.numpy().reshape(3, n, -1)
    prediction, pushed, pulled, each = products(jacobian, batch)
    with torch.no_grad():
        assert torch.equal(prediction, reference.in_float64(module)(batch.inputs.double()))
    atol = 16 * EPS * np.sqrt(want.size) * np.abs(want).max()
    np.testing.assert_allclose(pushed.reshape(3, n, -1), np.einsum("ndp,kp->knd", want, v), rtol=0, atol=atol)
    np.testing.assert_allclose(pulled, np.einsum("ndp,knd->kp", want, rows), rtol=0, atol=atol)
    np.testing.assert_allclose(each, np.einsum("ndp,knd->knp", want, rows), rtol=0, atol=atol)


def test_gradients_of_the_examples_add_up_to_the_adjoint_product():
    module, batch = conv_net(), mini_batch(5)
    _, _, pulled, each = products(Jacobian(module, dtype=torch.float64), batch)
    assert_equal_to_rounding([pulled], [each.sum(1)], batch.targets.numel())


def test_both_products_are_linear_and_adjoint():
    module, batch = conv_net(), mini_batch(4)
    jacobian = Jacobian(module, dtype=torch.float64)
    v, u = operands(jacobian, batch)
    pushed, pulled = jacobian.jvp(batch, v), jacobian.vjp(batch, u)
    left, right = torch.einsum("knchw,lnchw->kl", pushed, u), v @ pulled.T
    terms = batch.targets.numel() * jacobian.n_parameters
    size = float(pushed.flatten(1).norm(dim=1).max() * u.flatten(1).norm(dim=1).max())
    assert float((left - right).abs().max()) <= 16 * EPS * np.sqrt(terms) * size
    combined = jacobian.jvp(batch, (2 * v[0] - 3 * v[1])[None])[0]
    assert_equal_to_rounding([combined], [2 * pushed[0] - 3 * pushed[1]], terms)


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 2, 4])
def test_chunks_change_nothing_but_rounding(chunk, most):
    module, batch = conv_net(), mini_batch(5)
    whole, split = Jacobian(module, dtype=torch.float64), Jacobian(module, dtype=torch.float64)
    split._fitting = {"jvp": chunk * most, "vjp": chunk * most, "gradients": chunk}
    split._most_examples = most
    assert_equal_to_rounding(products(whole, batch), products(split, batch), batch.targets.numel())


def test_a_small_budget_shrinks_the_chunks_and_changes_nothing_but_rounding(monkeypatch):
    module, batch = conv_net(), mini_batch(5)
    whole, tight = Jacobian(module, dtype=torch.float64), Jacobian(module, dtype=torch.float64, memory_budget=1)
    want, seen = products(whole, batch), []

    def watched(n, chunk, work):
        seen.append(chunk)
        return chunked(n, chunk, work)

    monkeypatch.setattr("pdeinfl.engine.jacobian.chunked", watched)
    assert_equal_to_rounding(want, products(tight, batch), batch.targets.numel())
    assert set(seen) == {1}


def test_a_chunk_of_few_examples_says_nothing_about_many(monkeypatch):
    """What fitted counts examples times directions: three examples at four directions are six at two."""
    module, batch = conv_net(), mini_batch(6)
    jacobian = Jacobian(module, dtype=torch.float64)
    u = torch.randn(4, *batch.targets.shape, dtype=torch.float64)
    call, seen = PullBack.__call__, []

    def small(self, parameters, x, extras, cotangents):
        if len(x) * len(cotangents) > 12:
            raise MemoryError
        seen.append((len(x), len(cotangents)))
        return call(self, parameters, x, extras, cotangents)

    monkeypatch.setattr(PullBack, "__call__", small)
    jacobian.vjp(batch.select([0, 1, 2]), u[:, :3])
    jacobian.vjp(batch, u)
    jacobian.vjp(batch.select([0, 1, 2]), u[:, :3])
    assert seen == [(3, 4), (6, 2), (6, 2), (3, 4)]


def test_a_budget_bounds_what_a_chunk_saves():
    module, batch = conv_net(width=8), mini_batch(6, sides=(16, 16))
    jacobian = Jacobian(module, memory_budget=2**21)
    products(jacobian.in_dtype(torch.float32), batch)
    each = jacobian._activation_bytes(jacobian.place(batch))
    saved = 4 * 256 * 8  # tanh keeps its output, width 8 in float32
    assert saved <= each <= 16 * saved
    assert jacobian._examples_chunk(batch) * each * 4 <= 0.3 * 2**21


def test_no_directions_give_no_rows():
    module, batch = conv_net(), mini_batch(2)
    jacobian = Jacobian(module)
    assert jacobian.jvp(batch, torch.zeros(0, jacobian.n_parameters)).shape == (0, *batch.targets.shape)
    assert jacobian.vjp(batch, torch.zeros(0, *batch.targets.shape)).shape == (0, jacobian.n_parameters)


def test_parameters_that_nothing_reaches_get_zero_gradient():
    module = conv_net()
    module.register_module("idle", nn.Identity())
    module.idle.weight = nn.Parameter(torch.ones(7))
    _, _, pulled, each = products(Jacobian(module, dtype=torch.float64), mini_batch(3))
    assert float(pulled[:, -7:].abs().max()) == float(each[..., -7:].abs().max()) == 0.0
    only = Jacobian(module, "idle.*", dtype=torch.float64)
    assert all(float(t.abs().max()) == 0.0 for t in products(only, mini_batch(3))[1:])


def test_products_follow_the_dtype():
    module, batch = conv_net(), mini_batch(2)
    one = Jacobian(module)
    other = one.in_dtype(torch.float64)
    assert [t.dtype for t in products(one, batch)] == [torch.float32] * 4
    assert [t.dtype for t in products(other, batch)] == [torch.float64] * 4
    bound = 64 * np.finfo(np.float32).eps * np.sqrt(batch.targets.numel())
    for a, b in zip(products(one, batch), products(other, batch), strict=True):
        assert float((a.double() - b).abs().max()) <= bound * float(b.abs().max())


def test_a_prediction_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"the module maps \(2, 4, 4, 5\) to \(2, 1, 4, 5\), but the targets have"):
        Jacobian(nn.Conv2d(4, 1, 1)).predict(mini_batch(2))
