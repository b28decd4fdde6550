"""Flat parameters: what counts, once, in which order; the module as a function of them."""

import numpy as np
import pytest
import torch
from torch import nn

from engine_problems import conv_net
from pdeinfl.engine.parameters import FlatParameters, evaluation_mode, unwrapped

CPU = torch.device("cpu")


def flat(module, patterns=None, dtype=torch.float64):
    return FlatParameters(module, patterns, CPU, dtype)


def test_the_vector_is_the_parameters_in_their_order_and_back():
    module = conv_net()
    parameters = flat(module)
    want = torch.nn.utils.parameters_to_vector(module.parameters()).double()
    assert torch.equal(parameters.vector, want)
    assert len(parameters) == len(want)
    for name, tensor in parameters.unflatten(parameters.vector).items():
        assert torch.equal(tensor, dict(module.named_parameters())[name].double())


def test_calling_with_the_own_vector_is_calling_the_module():
    module, x = conv_net(), torch.rand(2, 4, 3, 3)
    assert torch.equal(flat(module, dtype=torch.float32).call(flat(module, dtype=torch.float32).vector, x), module(x))
    moved = flat(module).vector + 1
    module.double()
    with torch.no_grad():
        for p in module.parameters():
            p += 1
        want = module(x.double())
    eps = np.finfo(float).eps
    assert torch.allclose(flat(conv_net()).call(moved, x.double()), want, rtol=1e3 * eps, atol=1e3 * eps)


def test_tied_parameters_count_once_and_complex_ones_as_two():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    assert len(flat(module)) == 9 + 3 + 3
    module.register_parameter("modes", nn.Parameter(torch.tensor([1 + 2j, 3 - 1j])))
    parameters = flat(module)
    assert len(parameters) == 15 + 4
    assert parameters.vector[:4].tolist() == [1.0, 2.0, 3.0, -1.0]
    assert parameters.unflatten(parameters.vector)["modes"].dtype == torch.complex128


def test_frozen_parameters_count_only_when_selected():
    module = conv_net()
    module[0].requires_grad_(False)
    assert set(flat(module).names) == {"2.weight", "2.bias"}
    assert set(flat(module, "0.*").names) == {"0.weight", "0.bias"}
    assert set(flat(module, ["*.bias", "2.weight"]).names) == {"0.bias", "2.bias", "2.weight"}


def test_nothing_to_count_is_refused():
    with pytest.raises(ValueError, match=r"`parameters`: 'head\.\*' matches none of 0\.weight, 0\.bias, 2\.weight"):
        flat(conv_net(), "head.*")
    with pytest.raises(ValueError, match="no parameter that requires gradients: select some with `parameters`"):
        flat(conv_net().requires_grad_(False))


def test_evaluation_mode_gives_every_flag_and_attribute_back():
    module = nn.Sequential(nn.LSTM(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    module[1].eval()
    before = [(m.training, dict(vars(m))) for m in module.modules()]

    def work():
        with evaluation_mode(module):
            assert not any(m.training for m in module.modules())
            module[0].seen = torch.ones(1)
            module[1].p = 0.9
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    after = [(m.training, dict(vars(m))) for m in module.modules()]
    for (flag, attributes), (flag_after, attributes_after) in zip(before, after, strict=True):
        assert flag is flag_after
        assert attributes.keys() == attributes_after.keys()
        assert all(attributes[k] is attributes_after[k] for k in attributes)


def test_wrappers_are_peeled():
    module = conv_net()
    assert unwrapped(module) is module
    assert unwrapped(nn.DataParallel(module)) is module
    assert unwrapped(nn.DataParallel(torch.compile(module, backend="eager"))) is module
