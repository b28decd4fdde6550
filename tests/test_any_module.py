"""The engine's products for modules of every kind, against the explicit Jacobian."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import pdeinfl as pi
import reference
from engine_problems import Exact, conv_net, mini_batch
from module_zoo import MODULES, batch_for, make
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.precision import float64_throughout


def snapshot(module):
    """Everything a caller could notice, bit for bit."""
    return (
        {name: t.detach().clone() for name, t in module.state_dict().items()},
        [(name, p.requires_grad, p.grad, id(p)) for name, p in module.named_parameters()],
        [(name, id(b)) for name, b in module.named_buffers()],
        [(name, m.training, {k: id(v) for k, v in vars(m).items()}) for name, m in module.named_modules()],
    )


def assert_unchanged(before, after):
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    for name, tensor in before[0].items():
        assert torch.equal(tensor, after[0][name]), name


quiet = pytest.mark.filterwarnings("ignore:.*does not take every transform")


def check_products(module, batch, want):
    n, d, p = want.shape
    generator = torch.Generator().manual_seed(0)
    jacobian = Jacobian(module)
    assert jacobian.n_parameters == p
    v = torch.randn(3, p, generator=generator, dtype=torch.float64)
    u = torch.randn(2, *batch.targets.shape, generator=generator, dtype=torch.float64)
    shaped = u.numpy().reshape(2, n, d)
    for one in (jacobian, jacobian.in_dtype(torch.float64)):
        # Each entry of J is a chain of rounded products; p or n·d of them add up.
        atol = 32 * torch.finfo(one.dtype).eps * np.sqrt(p * n * d) * np.abs(want).max()
        pushed = one.jvp(batch, v.to(one.dtype)).double().numpy().reshape(3, n, d)
        np.testing.assert_allclose(pushed, np.einsum("ndp,kp->knd", want, v.numpy()), rtol=0, atol=atol)
        pulled = one.vjp(batch, u.to(one.dtype)).double().numpy()
        np.testing.assert_allclose(pulled, np.einsum("ndp,knd->kp", want, shaped), rtol=0, atol=atol)
        each = one.per_example_gradients(batch, u.to(one.dtype)).double().numpy()
        np.testing.assert_allclose(each, np.einsum("ndp,knd->knp", want, shaped), rtol=0, atol=atol)
    return jacobian


@quiet
@pytest.mark.parametrize("name", MODULES)
def test_products_agree_with_the_explicit_jacobian_and_leave_the_module_alone(name):
    module, batch = make(name), batch_for(name)
    for k, m in enumerate(module.modules()):
        m.training = k % 2 == 0
    before, inputs = snapshot(module), batch.inputs.clone()
    want = reference.explicit_jacobian(getattr(module, "module", module) if "parallel" in name else module,
                                       batch.inputs, batch.extras)  # fmt: skip
    check_products(module, batch, want)
    assert_unchanged(before, snapshot(module))
    assert torch.equal(batch.inputs, inputs)


@quiet
@pytest.mark.parametrize(
    "name", ["resnet", "spectral", "attention", "lstm", "old function", "normalised difference", "two frames"]
)
def test_influence_of_any_module_is_the_exact_one_within_its_bound(name):
    module, batch = make(name), batch_for(name)
    truth = Exact(module, batch)
    h, room = truth.influence("mass", "smse", 1e-3 * truth.top)
    for dtype in ("float64", "float32"):
        result = pi.influence(module, batch, ("smse", "mass"), product_dtype=dtype, damping=1e-3 * truth.top, tol=0.01)
        assert result.converged
        assert (np.abs(result["mass", "smse"] - h) <= result.error_bound[1, 0] + room).all()


@quiet
@pytest.mark.parametrize("name", ["lstm", "resnet"])
def test_gradients_that_the_user_holds_are_untouched(name):
    module, batch = make(name), batch_for(name)
    module(batch.inputs).sum().backward()
    held = [(p.grad, p.grad.clone()) for p in module.parameters()]
    pi.influence(module, batch, "smse", tol=0.1)
    for p, (grad, value) in zip(module.parameters(), held, strict=True):
        assert p.grad is grad
        assert torch.equal(grad, value)


def test_neuraloperator_fno():
    from neuralop.models import FNO

    torch.manual_seed(0)
    module = FNO(n_modes=(2, 2), in_channels=4, out_channels=4, hidden_channels=4, n_layers=1)
    batch = mini_batch(2, sides=(4, 6))
    with float64_throughout():  # its Fourier layer names complex64
        want = reference.explicit_jacobian(module, batch.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jacobian = check_products(module, batch, want).in_dtype(torch.float64)
        v = torch.randn(1, jacobian.n_parameters, dtype=torch.float64)
        u = torch.randn(1, *batch.targets.shape, dtype=torch.float64)
        left, right = float((jacobian.jvp(batch, v) * u).sum()), float((jacobian.vjp(batch, u) * v).sum())
    size = float(jacobian.jvp(batch, v).norm() * u.norm())
    assert abs(left - right) <= 64 * np.finfo(float).eps * size


def test_float64_throughout_reaches_named_dtypes():
    with float64_throughout():
        assert torch.zeros(2, dtype=torch.cfloat).dtype == torch.complex128
        assert torch.ones(2).to(torch.float32).dtype == torch.float64
        assert torch.ones(2).float().dtype == torch.float64
        assert torch.zeros(2).dtype == torch.float64
        assert torch.zeros(2, dtype=torch.int64).dtype == torch.int64
    assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(2, dtype=torch.cfloat).dtype == torch.complex64


def test_a_module_that_cannot_be_vmapped_says_so_once_for_both_dtypes():
    module, batch = make("lstm"), batch_for("lstm")
    with pytest.warns(UserWarning, match=r"Recurrent does not take every transform") as caught:
        pi.influence(module, batch, "smse", tol=0.1)
    assert len(caught) == 1


@quiet
def test_each_kind_of_product_falls_back_on_its_own():
    def ways(name):
        module, batch = make(name), batch_for(name)
        jacobian = Jacobian(module)
        u = torch.ones(1, *batch.targets.shape)
        jacobian.jvp(batch, torch.ones(2, jacobian.n_parameters))
        jacobian.vjp(batch, u)
        jacobian.per_example_gradients(batch, u)
        return [jacobian.transforms.in_use(kind) for kind in ("gradients", "jvp", "vjp")]

    assert ways("attention") == ["vmap over examples", "forward mode under vmap", "vjp under vmap"]
    assert ways("branching") == ["a loop over examples", "forward mode under vmap", "vjp under vmap"]
    without_forward = ways("function without forward mode")
    assert without_forward == ["vmap over examples", "double backward under vmap", "vjp under vmap"]
    assert ways("old function") == ["a loop over examples", "double backward under vmap", "backward under vmap"]


@quiet
@pytest.mark.parametrize("kind", ["gradients", "jvp", "vjp"])
def test_every_way_gives_the_same_numbers(kind):
    module, batch = make("conditioned"), batch_for("conditioned")
    values = []
    for rank in range({"gradients": 2, "jvp": 4, "vjp": 3}[kind]):
        jacobian = Jacobian(module, dtype=torch.float64)
        jacobian.transforms.start_at(kind, rank)
        u = torch.linspace(-1, 1, 2 * batch.targets.numel(), dtype=torch.float64).reshape(2, *batch.targets.shape)
        v = torch.linspace(-1, 1, 3 * jacobian.n_parameters, dtype=torch.float64).reshape(3, -1)
        call = {"gradients": jacobian.per_example_gradients, "jvp": jacobian.jvp, "vjp": jacobian.vjp}[kind]
        values.append(call(batch, v if kind == "jvp" else u))
    scale = float(values[0].abs().max())
    for value in values[1:]:
        assert float((value - values[0]).abs().max()) <= 64 * np.finfo(float).eps * scale


def test_an_error_of_the_module_is_its_own():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.calls = nn.Conv2d(4, 4, 1), 0

        def forward(self, x):
            if torch.is_grad_enabled():
                raise RuntimeError("no such luck")
            return self.conv(x)

    with pytest.raises(ValueError, match="no such luck"):
        pi.influence(Broken(), mini_batch(2), "smse")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MaxPool2d(1, return_indices=True), "no parameter that requires gradients"),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.MaxPool2d(1, return_indices=True)), "one real tensor; got a tuple: pick"),
        (nn.Conv2d(4, 3, 1), r"maps \(2, 4, 4, 5\) to \(2, 3, 4, 5\), but the targets"),
        (nn.Conv2d(5, 4, 1), r"does not take inputs of shape \(2, 4, 4, 5\)"),
        (len, "`model` must be a torch.nn.Module; got builtin_function_or_method"),
    ],
)
def test_modules_that_do_not_fit_are_refused_in_one_line(module, message):
    with pytest.raises(ValueError, match=message) as caught:
        pi.influence(module, mini_batch(2), "smse")
    assert "\n" not in str(caught.value)


def test_wrappers_are_looked_through():
    module, batch = conv_net(), mini_batch(3)
    want = pi.influence(module, batch, "smse", solver="dense", damping=1e-2).values
    for wrapped in (torch.compile(module, backend="eager"), nn.DataParallel(module)):
        got = pi.influence(wrapped, batch, "smse", solver="dense", damping=1e-2, parameters="0.*", tol=0.1)
        assert got.settings["n_parameters"] == sum(p.numel() for p in module[0].parameters())
        assert np.array_equal(pi.influence(wrapped, batch, "smse", solver="dense", damping=1e-2).values, want)


class BatchStatistics(nn.Module):
    """Subtracts the mean over the batch, as a batch norm without running statistics."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        return self.norm(self.conv(x))


def test_a_module_that_mixes_examples_is_refused():
    with pytest.raises(ValueError, match="mixes the examples of a batch") as caught:
        pi.influence(BatchStatistics(), mini_batch(4), "smse", damping=1.0)
    assert "\n" not in str(caught.value)
    assert pi.influence(BatchStatistics(), mini_batch(1), "smse", damping=1.0).values.shape == (1, 1, 1, 1)


def test_a_module_that_draws_at_random_is_refused():
    class Noisy(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 0.1 * torch.randn(x.shape)

    with pytest.raises(ValueError, match="draws at random"):
        pi.influence(Noisy(4, 4, 1), mini_batch(3), "smse", damping=1.0)


@pytest.mark.parametrize("solver", ["krylov", "cg", "dense", "sketch"])
def test_a_forward_without_gradients_is_refused(solver):
    class Cut(torch.nn.Conv2d):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(ValueError, match="output does not depend on its parameters"):
        pi.influence(Cut(4, 4, 1), mini_batch(), "smse", damping=1.0, solver=solver)
