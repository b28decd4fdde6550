"""Chunks that shrink when memory runs out."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from engine_problems import conv_net, mini_batch
from pdeinfl.engine.jacobian import Jacobian, PullBack
from pdeinfl.engine.memory import chunked, free_memory, is_out_of_memory
from pdeinfl.engine.metric import Metric
from pdeinfl.engine.parameters import FlatParameters

OUT = [
    MemoryError(),
    RuntimeError("CUDA out of memory. Tried"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT)
@pytest.mark.parametrize(("n", "fits"), [(1, 1), (7, 1), (7, 3), (8, 8), (13, 5)])
def test_every_index_is_worked_on_once_in_order(n, fits, error):
    seen = []

    def work(part):
        if part.stop - part.start > fits:
            raise error
        seen.extend(range(part.start, part.stop))

    size = chunked(n, n, work)
    assert seen == list(range(n))
    assert 1 <= size <= fits


def test_no_items_no_work():
    assert chunked(0, 4, lambda part: pytest.fail("called")) == 1


def test_one_item_that_does_not_fit_is_a_memory_error_of_one_line():
    def work(part):
        raise RuntimeError("out of memory")

    with pytest.raises(MemoryError, match="one Jacobian product does not fit in memory: ") as caught:
        chunked(4, 4, work)
    assert "\n" not in str(caught.value)


def test_other_errors_pass_through():
    def work(part):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        chunked(4, 4, work)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_free_memory_is_a_positive_number_of_bytes():
    assert free_memory(torch.device("cpu")) > 2**20


def test_products_survive_a_device_that_takes_one_example_at_a_time(monkeypatch):
    module, batch = conv_net(), mini_batch(5)
    jacobian = Jacobian(module, dtype=torch.float64)
    v = torch.randn(3, jacobian.n_parameters, dtype=torch.float64)
    u = torch.randn(4, *batch.targets.shape, dtype=torch.float64)
    want = [jacobian.predict(batch), jacobian.jvp(batch, v), jacobian.vjp(batch, u),
            jacobian.per_example_gradients(batch, u)]  # fmt: skip
    call, refused = FlatParameters.call, []

    def small(self, vector, inputs, extras=()):
        if len(inputs) > 1:
            refused.append(len(inputs))
            raise RuntimeError("out of memory")
        return call(self, vector, inputs, extras)

    monkeypatch.setattr(FlatParameters, "call", small)
    fresh = Jacobian(module, dtype=torch.float64)
    got = [fresh.predict(batch), fresh.jvp(batch, v), fresh.vjp(batch, u), fresh.per_example_gradients(batch, u)]
    assert refused
    for a, b in zip(want, got, strict=True):
        atol = 64 * np.finfo(float).eps * float(a.abs().max())
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=0, atol=atol)
    assert jacobian.transforms.in_use("jvp") == fresh.transforms.in_use("jvp") == "forward mode under vmap"


def test_products_survive_a_device_that_takes_one_direction_at_a_time(monkeypatch):
    module, batch = conv_net(), mini_batch(3)
    want = Jacobian(module, dtype=torch.float64)
    u = torch.randn(4, *batch.targets.shape, dtype=torch.float64)
    pull = PullBack.__call__

    def small(self, parameters, x, extras, cotangents):
        if len(cotangents) > 1:
            raise MemoryError
        return pull(self, parameters, x, extras, cotangents)

    monkeypatch.setattr(PullBack, "__call__", small)
    got = Jacobian(module, dtype=torch.float64).vjp(batch, u)
    monkeypatch.undo()
    assert torch.allclose(got, want.vjp(batch, u), rtol=0, atol=64 * np.finfo(float).eps * float(got.abs().max()))


def counting(monkeypatch):
    """How many examples each forward pass from now on sees."""
    call, passes = FlatParameters.call, []

    def counted(self, vector, inputs, extras=()):
        passes.append(len(inputs))
        return call(self, vector, inputs, extras)

    monkeypatch.setattr(FlatParameters, "call", counted)
    return passes


def test_a_metric_goes_forward_once_for_all_its_adjoint_products(monkeypatch):
    module, batch = conv_net(), mini_batch(3)
    jacobian = Jacobian(module, dtype=torch.float64)
    metric = Metric(jacobian, batch)
    u = torch.randn(6, metric.n_outputs, dtype=torch.float64)
    metric.adjoint(u[:1])
    passes = counting(monkeypatch)
    got = torch.cat([metric.adjoint(u[:4]), metric.adjoint(u[4:])])
    assert passes == []
    assert torch.equal(got[4:], Metric(jacobian, batch).adjoint(u[4:]))


def test_a_metric_whose_batch_does_not_fit_holds_no_activations(monkeypatch):
    module, batch = conv_net(), mini_batch(4)
    jacobian = Jacobian(module, dtype=torch.float64)
    metric = Metric(jacobian, batch)
    u = torch.randn(2, metric.n_outputs, dtype=torch.float64)
    want = metric.adjoint(u)
    call = FlatParameters.call

    def narrow(self, vector, inputs, extras=()):
        if len(inputs) > 2:
            raise MemoryError
        return call(self, vector, inputs, extras)

    monkeypatch.setattr(FlatParameters, "call", narrow)
    fresh = Metric(jacobian, batch)
    got = fresh.adjoint(u)
    assert fresh._pull_back._pull is None
    assert torch.allclose(got, want, rtol=0, atol=64 * np.finfo(float).eps * float(got.abs().max()))


def test_activations_go_with_the_metric_that_kept_them():
    """By counting references, without waiting for the garbage collector: on a GPU nobody would call it in time."""
    metric = Metric(Jacobian(conv_net()), mini_batch(3))
    gc.collect()
    gc.disable()
    try:
        metric.adjoint(torch.randn(2, metric.n_outputs))
        kept = weakref.ref(metric._pull_back)
        assert kept() is not None
        del metric
        assert kept() is None
    finally:
        gc.enable()


def test_a_small_block_does_not_narrow_the_next(monkeypatch):
    module, batch = conv_net(), mini_batch(3)
    jacobian = Jacobian(module, dtype=torch.float64)
    u = torch.randn(6, *batch.targets.shape, dtype=torch.float64)
    jacobian.vjp(batch, u[:1])
    passes = counting(monkeypatch)
    jacobian.vjp(batch, u)
    assert passes == [3]


PEAK = """
import sys, threading
import torch
import pdeinfl as pi
from engine_problems import mini_batch

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())

def solve(products):
    return pi.influence(model, batch, "smse", damping=pi.Damping.relative(1e-6), tol=1e-9, max_products=products,
                        memory_budget=int(sys.argv[1]))

torch.set_num_threads(1)
torch.manual_seed(0)
model = pi.surrogates.ViT(resolution=8, width=128, depth=1, heads=2, patch=2)
batch = mini_batch(6, sides=(8, 8))
solve(20)
done, base = threading.Event(), anonymous()
peak = base
watcher = threading.Thread(target=watch)
watcher.start()
result = solve(300)
done.set()
watcher.join()
print(peak - base, result.settings["solver_basis_spilled"])
"""


def peak_of_a_solve(budget):
    """Memory, but for mapped files, that a `krylov` solve in a process of its own takes beyond what that held before,
    and the rows of its basis on disk."""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", PEAK, str(budget)], capture_output=True, text=True,
                         cwd=Path(__file__).parent, check=True)  # fmt: skip
    peak, spilled = map(int, run.stdout.split())
    return peak, spilled


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_solve_stays_within_its_memory_budget():
    """Here the bases alone are 80 MiB, the gradients and the copies of one block 30 MiB."""
    budget = 64 * 2**20
    peak, spilled = peak_of_a_solve(budget)
    assert peak <= budget
    assert spilled > 0
    unbounded, none = peak_of_a_solve(2**34)
    assert unbounded > budget
    assert none == 0
