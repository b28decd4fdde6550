"""The adaptive block of `krylov`: which directions go on, and when it stops."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import Exact, conv_net, mini_batch
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.jacobian import Jacobian
from pdeinfl.engine.metric import Metric
from pdeinfl.engine.solvers.problem import Problem
from pdeinfl.engine.solvers.subspace import Subspace, _Coordinates

EPS = np.finfo(np.float64).eps


@cache
def problem():
    module, batch = conv_net(width=16), mini_batch(6, sides=(4, 4))
    return module, batch, Exact(module, batch)


def solve(relative, response="smse", **options):
    module, batch, truth = problem()
    options = {"product_dtype": "float64", "tol": 0.02, **options}
    return pi.influence(module, batch, response, damping=relative * truth.top, **options)


@cache
def subspace():
    """Q from the gradients, after one block of J and of Jᵀ, float64."""
    module, batch, truth = problem()
    g = torch.from_numpy(truth.gradients("smse", batch))
    rows = np.arange(len(g))
    setting = Problem(
        metric=Metric(Jacobian(module, dtype=torch.float64), batch), gradients=g, response_rows=rows,
        perturbation_rows=rows, overlap=(g @ g.T).numpy(), residuals=None, in_range=True, shape=(1, 1, len(g), len(g)),
        dampings=(Damping.of(1.0),), lambda_max=truth.top, tol=0.02,
    )  # fmt: skip
    grown = Subspace(setting)
    grown.add_parameters(g)
    grown.holds_perturbations = True
    grown.forward()
    grown.adjoint()
    return grown, g.numpy(), truth.j.reshape(-1, truth.j.shape[-1])


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_leading_directions_hold_the_share_of_what_is_missing(share):
    """Against explicit matrices: ``r = (1 − ηQ(QᵀηQ)⁻¹Qᵀ)g`` and B, both on the directions that wait."""
    grown, g, j = subspace()
    truth = problem()[2]
    damping = 1e-3 * truth.top
    q = grown.q.combine(torch.eye(len(grown.q), dtype=torch.float64)).numpy()
    u = grown.u.combine(torch.eye(len(grown.u), dtype=torch.float64)).numpy()
    solved = q[: len(g)]
    eta = j.T @ j + damping * np.eye(j.shape[1])
    r = g - g @ solved.T @ np.linalg.inv(solved @ eta @ solved.T) @ solved @ eta
    k = u @ j
    b = (np.eye(j.shape[1]) - k.T @ np.linalg.solve(damping * np.eye(len(k)) + k @ k.T, k)) / damping
    waiting = q[len(g) :]
    values, vectors = np.linalg.eigh(waiting @ b @ waiting.T)
    weighted = r @ waiting.T @ (vectors * np.sqrt(values.clip(0))) @ vectors.T
    np.testing.assert_allclose(r @ waiting.T @ waiting, r, atol=1e-9 * np.abs(r).max())
    sizes = np.linalg.svd(weighted, compute_uv=False) ** 2
    directions = grown.leading(damping, share).numpy()
    n = len(directions)
    slack = 1e3 * EPS * truth.top / damping
    assert np.abs(directions @ directions.T - np.eye(n)).max() <= slack
    held = np.linalg.norm(weighted @ directions.T) ** 2
    assert held == pytest.approx(sizes[:n].sum(), rel=slack)
    assert sizes[: n - 1].sum() < share * sizes.sum() <= sizes[:n].sum() * (1 + slack)


def test_more_share_is_more_directions_and_all_of_them_are_a_whole_block():
    grown = subspace()[0]
    sizes = [len(grown.leading(1e-3, share)) for share in (0.2, 0.5, 0.9)]
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[-1] <= grown.n_waiting


def test_residuals_are_not_known_before_the_gradients_are_held():
    grown = Subspace(subspace()[0].problem)
    grown.add_parameters(torch.from_numpy(subspace()[1]))
    assert not grown.knows_residuals
    assert grown.leading(1.0, 0.7) is None


@pytest.mark.parametrize("relative", [1e-2, 1e-3, 1e-5])
def test_adaptive_blocks_certify_the_same_with_fewer_products(relative):
    truth = problem()[2]
    h, _ = truth.influence("smse", "smse", relative * truth.top)
    products = {}
    for share in (0.7, 1.0):
        result = solve(relative, block_share=share)
        assert result.converged
        assert np.linalg.norm(result["smse", "smse"] - h) <= 0.02 * np.linalg.norm(h)
        products[share] = result.n_jvp + result.n_vjp
    assert products[0.7] < products[1.0]


def test_a_small_damping_asked_for_beside_takes_nothing_from_the_others():
    module, batch, truth = problem()
    alone = solve(1e-3)
    spent = alone.n_jvp + alone.n_vjp
    dampings = [1e-9 * truth.top, 1e-3 * truth.top]
    both = pi.influence(module, batch, "smse", damping=dampings, product_dtype="float64", max_products=spent)
    assert both.relative_error.max() > 0.5, "the small damping is far from served"
    assert both.at_damping(dampings)[1].relative_error.max() <= 0.02


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_directions_run_out_with_the_exact_answer(share):
    """Asked for more than any number of products gives, the iteration ends by itself, where rounding hides the gap."""
    truth = problem()[2]
    result = solve(1e-2, ("smse", "mass"), block_share=share, tol=1e-15, max_products=10**6)
    for response in ("smse", "mass"):
        h, room = truth.influence(response, "smse", 1e-2 * truth.top)
        assert (np.abs(result[response, "smse"] - h) <= room + 1e-9 * np.abs(h).max()).all()


def test_stops_where_rounding_forbids_the_tolerance():
    """In float32 at a damping where rounding alone is more than ``tol``, further products would not help."""
    result = solve(1e-6, product_dtype="float32", tol=1e-5)
    patient = solve(1e-6, product_dtype="float64", tol=1e-5)
    assert not result.converged
    assert result.n_jvp + result.n_vjp < patient.n_jvp + patient.n_vjp


def uneven():
    """The problem with targets moved towards the predictions, so that residuals differ by four orders of magnitude."""
    module, batch, _ = problem()
    with torch.no_grad():
        said = module(batch.inputs)
    share = torch.logspace(0, -4, len(said))[torch.randperm(len(said), generator=torch.Generator().manual_seed(0))]
    return module, batch.with_fields(batch.inputs, said + share[:, None, None, None] * (batch.targets - said))


def relative_row_errors(result):
    h = result["smse", "smse"]
    return result.row_error[0, 0] / np.linalg.norm(h - h.mean(1, keepdims=True), axis=1)


def test_small_rows_are_resolved_too():
    module, batch = uneven()
    exact = Exact(module, batch)
    h, _ = exact.influence("smse", "smse", 1e-4 * exact.top)
    norms = np.linalg.norm(h, axis=1)
    assert norms.max() > 1e3 * norms.min()
    options = {"damping": 1e-4 * exact.top, "product_dtype": "float64", "tol": 0.05}
    whole = pi.influence(module, batch, "smse", row_tol=np.inf, **options)
    assert whole.converged
    assert relative_row_errors(whole).max() > 0.5
    result = pi.influence(module, batch, "smse", **options)
    assert relative_row_errors(result).max() <= 0.5
    finer = pi.influence(module, batch, "smse", row_tol=0.1, **options)
    assert relative_row_errors(finer).max() <= 0.1
    for found in (whole, result, finer):
        assert (np.linalg.norm(found["smse", "smse"] - h, axis=1) <= found.row_error[0, 0]).all()
    spent = [r.n_jvp + r.n_vjp for r in (whole, result, finer)]
    assert spent[0] < spent[1] <= spent[2] <= 2 * spent[0] + 2 * len(batch)


def test_rows_take_at_most_as_many_products_as_the_whole_did():
    module, batch = uneven()
    exact = Exact(module, batch)
    options = {"damping": 1e-3 * exact.top, "product_dtype": "float64", "tol": 0.1}
    spent = []
    for row_tol in (np.inf, 1e-9):
        result = pi.influence(module, batch, "smse", row_tol=row_tol, **options)
        spent.append(result.n_jvp + result.n_vjp)
    assert spent[0] < spent[1] <= 2 * spent[0] + 2 * len(batch)


def test_rows_of_equal_size_cost_nothing_more():
    spent = [r.n_jvp + r.n_vjp for r in (solve(1e-2, tol=0.01), solve(1e-2, tol=0.01, row_tol=np.inf))]
    assert spent[0] == spent[1]


@pytest.mark.parametrize("row_tol", [0.0, -1.0, float("nan")])
def test_row_tol_must_be_positive(row_tol):
    with pytest.raises(ValueError, match="`row_tol` must be positive; got"):
        solve(1e-2, row_tol=row_tol)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_block_share_must_be_a_share(share):
    with pytest.raises(ValueError, match=r"`block_share` must lie in \(0, 1\]; got"):
        solve(1e-2, block_share=share)


@pytest.mark.parametrize("relative", [1e-1, 1e-3, 1e-5])
def test_a_whitened_path_is_the_diagonalised_one_at_its_damping(relative):
    grown = subspace()[0]
    damping = relative * problem()[2].top
    whole, one = grown.path(), grown.path(damping)
    for value in ("lower", "upper"):
        want, got = getattr(whole, value)(damping), getattr(one, value)(damping)
        assert np.abs(got - want).max() <= 1e3 * EPS / relative * np.abs(want).max()
    want, got = whole.residual_gaps(damping)[1], one.residual_gaps(damping)[1]
    assert np.abs(got - want).max() <= 1e3 * EPS / relative * np.abs(whole.upper(damping)).max()


def test_a_matrix_that_rounding_made_indefinite_is_diagonalised():
    coordinates = _Coordinates()
    coordinates.gram = torch.diag(torch.tensor([1.0, -1e-15], dtype=torch.float64))
    values, whiten = coordinates.diagonalised(1e-18)
    assert float(values.min()) == 0
    vectors = whiten(torch.eye(2, dtype=torch.float64))
    assert torch.allclose(vectors @ vectors.T, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("options", [{}, {"solver": "cg"}, {"solver": "craigmr"}, {"audit": 8}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(4))
def test_more_gradients_than_parameters_are_taken(options, dtype, seed):
    """Of a bias alone: rows of every block depend on each other."""
    module, batch = conv_net(width=3, seed=seed), mini_batch(4, seed=seed + 1)
    truth = Exact(module, batch, names=("2.bias",))
    damping = 1e-3 * truth.top
    found = pi.influence(module, batch, ("smse", "mass"), ("smse", "mass"), damping=damping, parameters="2.bias",
                         product_dtype=dtype, **options)  # fmt: skip
    assert found.converged
    for i, response in enumerate(("smse", "mass")):
        for j, perturbation in enumerate(("smse", "mass")):
            h, room = truth.influence(response, perturbation, damping)
            assert bool((np.abs(found.values[i, j] - h) <= found.error_bound[i, j] + room).all())


@pytest.mark.parametrize("relative", [1e-6, 1e-8, 1e-9, 1e-10, 6e-11, 1e-11, 1e-12])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bounds_hold_far_below_what_products_resolve(relative, dtype):
    """float32 storage of the bases, which are orthonormal to its rounding only, must not enter times λ_max/λ."""
    module, batch, truth = problem()
    damping = relative * truth.top
    h, room = truth.influence("smse", "smse", damping)
    coarse = pi.influence(module, batch, "smse", damping=1e-3 * truth.top, product_dtype=dtype)
    fine = pi.influence(module, batch, "smse", damping=damping, product_dtype=dtype, max_products=400)
    for result in (fine, *coarse.at_damping([damping])):
        assert (np.abs(result.values[0, 0] - h) <= result.error_bound[0, 0] + room).all()
        assert not result.converged or np.linalg.norm(result.values[0, 0] - h) <= 0.02 * np.linalg.norm(h) * 1.03


@pytest.mark.parametrize("parameters", [("0.bias", "2.bias"), "2.*"])
@pytest.mark.parametrize("responses", [("smse",), ("smse", "mass")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_parameter_space_that_runs_out_is_certified(parameters, responses, dtype):
    """With few parameters Q fills the whole space: nothing new may pass for a direction, nor nothing for a block."""
    module, batch = conv_net(width=8, seed=2), mini_batch(4, seed=3, sides=(4, 4))
    for relative in (1e-4, 1e-6, 1e-7):
        asked = {"damping": pi.Damping.relative(relative), "parameters": parameters}
        truth = pi.influence(module, batch, responses, solver="dense", product_dtype="float64", **asked)
        asked["damping"] = truth.damping
        result = pi.influence(module, batch, responses, product_dtype=dtype, **asked)
        room = 1e-15 * len(batch) / relative * np.abs(truth.values).max()
        assert (np.abs(result.values - truth.values) <= result.error_bound + room).all()
        assert result.converged


def test_sides_in_the_wrong_order_certify_nothing():
    module, batch, truth = problem()
    result = pi.influence(module, batch, "smse", damping=1e-2 * truth.top, product_dtype="float64")
    path = replace(result.path, overlap=0.5 * result.path.overlap, gram_response=0.5 * result.path.gram_response,
                   gram_perturbation=0.5 * result.path.gram_perturbation)  # fmt: skip
    certified = path.certified(result.values.shape, result.damping, 0.0, 0.02)
    assert not certified.converged
    assert np.isinf(certified.error_bound).all()
    assert np.isinf(certified.relative_error).all()
