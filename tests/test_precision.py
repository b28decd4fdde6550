"""How a module multiplies: float32, TF32, bfloat16, float64, and what is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import Exact, conv_net, mini_batch, tiny_vit
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.precision import float32_products

CPU = torch.device("cpu")


def flags():
    """Every switch of TensorFloat-32 that this release has."""
    places = [torch.backends.cuda.matmul, torch.backends.cudnn]
    if hasattr(torch.backends.cudnn, "conv"):
        places = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
        return [p.fp32_precision for p in places]
    return [p.allow_tf32 for p in places]


@pytest.mark.parametrize("kind", ["float32", "tf32", "bfloat16"])
def test_switches_are_set_within_and_restored(kind):
    before = flags()

    def fails_within():
        with float32_products(kind, CPU):
            assert all(f in ((True, "tf32") if kind == "tf32" else (False, "ieee")) for f in flags())
            assert torch.is_autocast_enabled("cpu") == (kind == "bfloat16")
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails_within()
    assert flags() == before
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("side", ["jvp", "vjp"])
def test_bfloat16_products_are_as_exact_as_their_name(side):
    """Rounding an operand to 8 bits moves it by 2⁻⁹ at most: more than float32 would, less than a few per cent."""
    module, batch = conv_net(width=16), mini_batch(3)
    exact = Jacobian(module, dtype=torch.float64)
    narrow = exact.in_dtype(torch.float32, "bfloat16")
    shape = (4, exact.n_parameters) if side == "jvp" else (4, *batch.targets.shape)
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want, got = (getattr(j, side)(batch, vectors).double() for j in (exact, narrow))
    error = float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))
    assert 1e-4 < error < 2.0**-9 * 16
    assert getattr(narrow, side)(batch, vectors).dtype == torch.float32


@pytest.mark.parametrize("model", ["conv", "vit"])
@pytest.mark.parametrize("relative", [1.0, 1e-1, 1e-3])
def test_bounds_hold_with_bfloat16_products(model, relative):
    torch.manual_seed(3)
    vit = tiny_vit(width=8)
    module = conv_net(width=8) if model == "conv" else vit
    batch = mini_batch(3, sides=(4, 4))
    truth = Exact(module, batch)
    damping = relative * truth.top
    result = pi.influence(module, batch, ("smse", "mass"), damping=damping, product_dtype="bfloat16")
    for response in ("smse", "mass"):
        h, room = truth.influence(response, "smse", damping)
        a = result.response_names.index(response)
        assert (np.abs(result.values[a, 0] - h) <= result.error_bound[a, 0] + room).all()
    assert result.product_error > 1e-4
    assert result.gradient_error < 1e-5
    assert result.settings["product_dtype"] == "bfloat16"
    assert result.converged == (result.relative_error.max() <= result.tol)


def test_tf32_needs_a_device_that_has_it():
    with pytest.raises(ValueError, match="`product_dtype` 'tf32' needs a CUDA device; the module is on cpu"):
        pi.influence(conv_net(), mini_batch(2), "smse", product_dtype="tf32")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["float32", "tf32", "bfloat16"])
def test_products_on_a_gpu_have_the_precision_of_their_name(kind):
    module, batch = conv_net(width=64), mini_batch(3, sides=(16, 16))
    exact = Jacobian(module, device="cuda", dtype=torch.float64)
    v = torch.randn(4, exact.n_parameters, dtype=torch.float64)
    want, got = exact.jvp(batch, v), exact.in_dtype(torch.float32, kind).jvp(batch, v).double()
    error = float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))
    assert error < {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 5e-2}[kind]
