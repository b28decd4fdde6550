"""Perturbing the real model: order 2, the certified H, and a module that is left alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import conv_net, mini_batch
from pdeinfl import figures
from pdeinfl.analysis.response_checks import EPSILONS, response_check

NET, BATCH = conv_net(width=3).double(), mini_batch(4)


@pytest.fixture(scope="module", params=["dense", "krylov"])
def checked(request):
    result = pi.influence(
        NET, BATCH, ("smse", "mass", "energy"), solver=request.param, damping=pi.Damping.relative(1e-2), tol=1e-3,
        product_dtype="float64",
    )  # fmt: skip
    return result, response_check(NET, BATCH, result)


def test_order_two(checked):
    _, found = checked
    assert found.order == pytest.approx(2.0, abs=0.05)
    assert found.steps.tolist() == list(EPSILONS)


def test_measured_is_minus_h_within_bound_and_error(checked):
    result, found = checked
    for k, j in enumerate(found.perturbations):
        np.testing.assert_array_equal(found.predicted[k], -result.values[:, 0, :, j])
        np.testing.assert_array_equal(found.bound[k], result.error_bound[:, 0, :, j])
    # Evaluations cancel to eps·|Q|/ε at the smallest steps.
    rounding = 64 * np.finfo(float).eps / min(EPSILONS)
    assert (np.abs(found.measured - found.predicted) <= found.bound + 4 * found.error + rounding).all()
    assert found.relative_difference <= 1e-2
    if result.settings["solver"] == "krylov":  # dense: bounds far below the rounding of the evaluations
        assert found.n_exceeding == 0


def test_one_perturbation_per_class_the_strongest(checked):
    result, found = checked
    ids = result.labels.class_ids
    diagonal = np.diagonal(result.values[0, 0])
    assert [ids[j] for j in found.perturbations] == [0, 1]
    for j in found.perturbations:
        assert diagonal[j] == diagonal[ids == ids[j]].max()
    assert found.trust_radius > 0


def test_a_wrong_h_is_found_out():
    result = pi.influence(NET, BATCH, ("smse",), solver="dense", damping=pi.Damping.relative(1e-2))
    object.__setattr__(result, "values", 1.05 * result.values)
    found = response_check(NET, BATCH, result, perturbations=[2])
    assert found.perturbations == (2,)
    assert found.relative_difference == pytest.approx(0.05 / 1.05, rel=1e-3)
    assert found.n_exceeding == found.predicted.size


def test_a_small_observable_that_is_wrong_is_found_out(checked):
    result, found = checked
    assert found.observables == result.response_names
    small = np.array([1.0, 1e-6, 1.0])[:, None]
    measured = found.measured * small * np.array([1.0, 2.0, 1.0])[:, None]
    assert replace(found, predicted=found.predicted * small, measured=measured).relative_difference > 0.9


def test_the_module_is_left_alone():
    net = conv_net(width=2).train()
    before = copy.deepcopy(net.state_dict())
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    result = pi.influence(net, BATCH, ("smse",), solver="dense", damping=pi.Damping.relative(1e-2))
    response_check(net, BATCH, result)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in net.parameters())


def test_figure_and_refusals(checked, tmp_path):
    result, found = checked
    paths = figures.save(figures.response_check(found), tmp_path / "check")
    assert all(path.stat().st_size > 1000 for path in paths)
    result.save(tmp_path / "h.h5")
    with pytest.raises(ValueError, match="not held by a stored result"):
        response_check(NET, BATCH, pi.Influence.load(tmp_path / "h.h5"))
    with pytest.raises(ValueError, match="`epsilons` must decrease by a constant ratio"):
        response_check(NET, BATCH, result, epsilons=[1, 0.5, 0.4])


def test_another_mini_batch_or_another_module_is_refused(checked):
    result, _ = checked
    with pytest.raises(ValueError, match="another mini-batch"):
        response_check(NET, mini_batch(4, seed=5), result)
    with pytest.raises(ValueError, match=f"result is of {result.settings['n_parameters']} parameters"):
        response_check(conv_net(width=4).double(), BATCH, result)
