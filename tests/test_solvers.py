"""Every solver against the dense float64 answer: values, bounds, order, cost."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import Exact, conv_net, mini_batch, tiny_unet, tiny_vit
from pdeinfl.engine.jacobian import Jacobian

MODELS = {
    "more outputs than parameters": lambda: conv_net(width=2),
    "more parameters than outputs": lambda: conv_net(width=16),
    "unet": tiny_unet,
    "vit": tiny_vit,
}
RELATIVE = (1e-1, 1e-3, 1e-5)
OPTIONS = {
    "dense": {},
    "krylov": {},
    "krylov, stopped early": {"max_products": 12},
    "krylov, whole blocks": {"block_share": 1.0, "max_products": 18},
    "cg": {"rtol": 1e-3},
    "cg, preconditioned": {"rtol": 1e-3, "nystrom_rank": 20},
    "span": {},
    "craigmr": {"max_cycles": 3},
}


@cache
def problem(name):
    torch.manual_seed(2)
    module, batch = MODELS[name](), mini_batch(3, sides=(4, 4))
    return module, batch, Exact(module, batch)


def solve(name, solver, damping, response=("smse", "mass", "energy"), **settings):
    module, batch, _ = problem(name)
    options = {"product_dtype": "float64", **OPTIONS[solver], **settings}
    return pi.influence(module, batch, response, solver=solver.split(",")[0], damping=damping, **options)


def test_the_models_cover_the_primal_and_the_dual_form():
    shapes = {name: problem(name)[2].j.shape for name in MODELS}
    sides = {name: "primal" if p <= n * d else "dual" for name, (n, d, p) in shapes.items()}
    assert sides["more outputs than parameters"] == "primal"
    assert sides["more parameters than outputs"] == "dual"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("relative", RELATIVE)
def test_dense_agrees_with_the_explicit_jacobian(name, relative):
    truth = problem(name)[2]
    result = solve(name, "dense", relative * truth.top)
    for response in ("smse", "mass", "energy"):
        h, room = truth.influence(response, "smse", relative * truth.top)
        assert (np.abs(result[response, "smse"] - h) <= room).all()
    assert result.lambda_max == pytest.approx(truth.top, rel=1e-12)
    assert result.converged


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("solver", OPTIONS)
@pytest.mark.parametrize("relative", RELATIVE)
def test_bounds_hold_in_float64(name, solver, relative):
    truth = problem(name)[2]
    damping = relative * truth.top
    result = solve(name, solver, damping)
    for a, response in enumerate(("smse", "mass", "energy")):
        h, room = truth.influence(response, "smse", damping)
        assert (np.abs(result.values[a, 0] - h) <= result.error_bound[a, 0] + room).all()
    h, room = truth.influence("smse", "smse", damping)
    n = len(h)
    lower, upper = result.path.lower(damping)[:n], result.path.upper(damping)[:n]
    spread = np.linalg.norm(room)
    assert np.linalg.eigvalsh(h - lower).min() >= -spread
    assert np.linalg.eigvalsh(upper - h).min() >= -spread


@pytest.mark.parametrize("name", ["more outputs than parameters", "vit"])
@pytest.mark.parametrize("solver", ["krylov", "cg", "span", "craigmr"])
def test_bounds_hold_with_float32_products(name, solver):
    truth = problem(name)[2]
    for relative in RELATIVE:
        damping = relative * truth.top
        result = solve(name, solver, damping, product_dtype="float32")
        for a, response in enumerate(("smse", "mass", "energy")):
            h, room = truth.influence(response, "smse", damping)
            assert (np.abs(result.values[a, 0] - h) <= result.error_bound[a, 0] + room).all()
        assert result.product_error > 0


@pytest.mark.parametrize("name", MODELS)
def test_both_sides_are_monotone_in_the_number_of_blocks(name):
    truth = problem(name)[2]
    damping = 1e-4 * truth.top
    room = np.linalg.norm(truth.influence("smse", "smse", damping)[1])
    paths = [solve(name, "krylov", damping, "smse", tol=1e-12, max_products=k).path for k in (3, 9, 15, 27)]
    for coarse, fine in itertools.pairwise(paths):
        assert len(fine.ritz) > len(coarse.ritz)
        assert np.linalg.eigvalsh(fine.lower(damping) - coarse.lower(damping)).min() >= -room
        assert np.linalg.eigvalsh(coarse.upper(damping) - fine.upper(damping)).min() >= -room


def test_reported_error_is_within_five_times_the_true_one():
    ratios = []
    for name in MODELS:
        truth = problem(name)[2]
        for relative in (1e-1, 1e-3):
            for tol in (0.05, 0.01):
                result = solve(name, "krylov", relative * truth.top, "smse", tol=tol)
                assert result.converged
                h, _ = truth.influence("smse", "smse", relative * truth.top)
                true = np.linalg.norm(result["smse", "smse"] - h) / np.linalg.norm(h)
                ratios.append(result.relative_error[0, 0] / true)
    assert min(ratios) >= 1.0
    assert np.median(ratios) <= 5.0


@pytest.mark.parametrize("solver", ["dense", "krylov", "span", "cg"])
def test_other_dampings_cost_no_products_and_have_their_own_bounds(solver, monkeypatch):
    name = "more parameters than outputs"
    truth = problem(name)[2]
    result = solve(name, solver, 1e-3 * truth.top)

    def refuse(*args):
        raise AssertionError("a Jacobian product")

    monkeypatch.setattr(Jacobian, "jvp", refuse)
    monkeypatch.setattr(Jacobian, "vjp", refuse)
    asked = [1e-1 * truth.top, pi.Damping.relative(1e-2), 1e-4 * truth.top, 1e3 * truth.top]
    for other, relative in zip(result.at_damping(asked), (1e-1, 1e-2, 1e-4, 1e3), strict=True):
        assert other.damping == pytest.approx(relative * truth.top, rel=1e-5)
        for a, response in enumerate(("smse", "mass", "energy")):
            h, room = truth.influence(response, "smse", other.damping)
            assert (np.abs(other.values[a, 0] - h) <= other.error_bound[a, 0] + room).all()
    assert result.at_damping([result.damping])[0] is result


def test_one_run_serves_every_damping_that_it_was_asked_for():
    name = "more parameters than outputs"
    top = problem(name)[2].top
    result = solve(name, "krylov", [1e-1 * top, 1e-3 * top, 1e-5 * top], "smse", tol=0.01)
    assert all(r.converged for r in result.at_damping([1e-1 * top, 1e-3 * top, 1e-5 * top]))


@pytest.mark.parametrize("solver", ["dense", "krylov", "cg", "craigmr", "span"])
def test_parameter_steps_solve_the_damped_system(solver):
    name = "more outputs than parameters"
    module, batch, truth = problem(name)
    damping = 1e-2 * truth.top
    options = {"rtol": 1e-10} if solver == "cg" else {"rtol": 1e-8, "max_cycles": 40} if solver == "craigmr" else {}
    result = pi.influence(module, batch, "smse", ("smse", "mass"), solver=solver, damping=damping,
                          product_dtype="float64", tol=1e-9, **options)  # fmt: skip
    j = truth.j.reshape(-1, truth.j.shape[-1])
    eta = j.T @ j + damping * np.eye(j.shape[1])
    for observable in ("smse", "mass"):
        want = -np.linalg.solve(eta, truth.gradients(observable, batch).T).T
        for k in (0, -1):
            got = result.parameter_step(k, observable).numpy()
            assert got.shape == (j.shape[1],)
            error = np.sqrt((got - want[k]) @ eta @ (got - want[k]) / (want[k] @ eta @ want[k]))
            # `span` drops up to 1e-4 of the gradients' squared energy; the others solve to their tolerance.
            assert error <= (1.0 if solver == "span" else 1e-4)
    with pytest.raises(IndexError, match="index into 3 examples; got 3"):
        result.parameter_step(3)
    with pytest.raises(KeyError, match="no perturbation observable 'energy'"):
        result.parameter_step(0, "energy")


def test_products_are_counted():
    name = "more parameters than outputs"
    result = solve(name, "krylov", 1e-2 * problem(name)[2].top, "smse", max_products=24, tol=1e-12)
    assert result.n_jvp + result.n_vjp <= 24 + 3 + 1
    dense = solve(name, "dense", 1.0, "smse")
    assert dense.n_jvp + dense.n_vjp == problem(name)[2].j.shape[0] * problem(name)[2].j.shape[1] + 1


def test_dense_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"solver 'dense' needs .* GiB .*: use solver='krylov'") as caught:
        solve("vit", "dense", 1.0, memory_budget=100_000)
    assert "\n" not in str(caught.value)


def test_a_basis_beyond_the_budget_goes_to_disk_and_changes_nothing():
    name = "more parameters than outputs"
    top = problem(name)[2].top
    plain = solve(name, "krylov", 1e-3 * top, "smse", tol=0.01)
    tight = solve(name, "krylov", 1e-3 * top, "smse", tol=0.01, memory_budget=20_000)
    assert tight.settings["solver_basis_spilled"] > 0
    room = problem(name)[2].influence("smse", "smse", 1e-3 * top)[1]
    assert (np.abs(plain.values[0, 0] - tight.values[0, 0]) <= plain.error_bound[0, 0] + room).all()
