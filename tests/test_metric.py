"""The metric in factored form against the explicit matrix."""

import numpy as np
import pytest
import torch

from engine_problems import Exact, conv_net, mini_batch
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.metric import Metric

EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize("kind", ["sum", "mean"])
@pytest.mark.parametrize("width", [2, 16])
def test_products_and_largest_eigenvalue(kind, width):
    module, batch = conv_net(width=width), mini_batch(3)
    truth = Exact(module, batch, kind)
    metric = Metric(Jacobian(module, dtype=torch.float64), batch, kind)
    n, d, p = truth.j.shape
    assert (metric.n_parameters, metric.n_outputs) == (p, n * d)
    j = np.sqrt(truth.scale) * truth.j.reshape(n * d, p)
    generator = np.random.default_rng(0)
    v, u = generator.standard_normal((3, p)), generator.standard_normal((2, n * d))
    atol = 64 * EPS * np.sqrt(p * n * d) * np.abs(j).max()
    np.testing.assert_allclose(metric.forward(torch.tensor(v)).numpy(), v @ j.T, rtol=0, atol=atol)
    np.testing.assert_allclose(metric.adjoint(torch.tensor(u)).numpy(), u @ j, rtol=0, atol=atol)
    assert (metric.n_jvp, metric.n_vjp) == (3, 2)
    applied = metric.apply(torch.tensor(v)).numpy()
    np.testing.assert_allclose(applied, v @ (j.T @ j), rtol=0, atol=atol * np.sqrt(n * d) * np.abs(j).max())
    assert (metric.n_jvp, metric.n_vjp) == (6, 5)
    assert metric.largest_eigenvalue() == pytest.approx(truth.top, rel=1e-6)
    assert metric.largest_eigenvalue(rtol=1e-3) <= truth.top * (1 + 64 * EPS)


def test_a_module_that_ignores_its_parameters_has_no_metric():
    module = conv_net()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    module[2].requires_grad_(False)
    metric = Metric(Jacobian(module, dtype=torch.float64), mini_batch(2))
    assert metric.largest_eigenvalue() == 0.0


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`metric` must be one of sum, mean; got 'max'"):
        Metric(Jacobian(conv_net()), mini_batch(1), "max")
