"""`influence` as a whole: symmetries, limits, labels, batches, the response check, refusals."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest
import torch

import pdeinfl as pi
from engine_problems import Exact, conv_net, mini_batch, tiny_unet, tiny_vit
from pdeinfl import observables as obs
from pdeinfl.engine.gradients import gradient_set
from pdeinfl.engine.jacobian import Jacobian

EPS = np.finfo(np.float64).eps


def exactly(module, batch, response="smse", perturbation="smse", damping=1e-2, **settings):
    return pi.influence(module, batch, response, perturbation, solver="dense", damping=damping, **settings)


def close(a, b, stretch, units=1e3):
    """Equal up to what two float64 solutions of the same system may differ by."""
    scale = max(np.abs(a).max(), np.abs(b).max())
    return bool((np.abs(a - b) <= units * EPS * (1 + stretch) * scale).all())


MODELS = {
    "conv": lambda: conv_net(),
    "unet": tiny_unet,
    "vit": lambda: tiny_vit(width=4),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_real_parameter_step_changes_every_observable_as_predicted(name):
    torch.manual_seed(0)
    module = MODELS[name]().double()
    batch = mini_batch(3, sides=(4, 4)).to(dtype=torch.float64)
    names = ("smse", "mass", "energy")
    result = exactly(module, batch, names, damping=pi.Damping.relative(1e-2))
    observables = [pi.observables.resolve(n, batch.channel_names) for n in names]
    start = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
    step = result.parameter_step(1)
    unit = 2e-3 * start.norm() / step.norm()

    def costs(epsilon):
        moved = copy.deepcopy(module)
        torch.nn.utils.vector_to_parameters(start + epsilon * step, moved.parameters())
        with torch.no_grad():
            prediction = moved(batch.inputs)
            return torch.stack([o(prediction, batch.targets, batch.inputs) for o in observables]).numpy()

    errors = []
    for k in range(3):
        epsilon = float(unit) * 2.0**-k
        slope = (costs(epsilon) - costs(-epsilon)) / (2 * epsilon)
        errors.append(np.abs(slope + result.values[:, 0, :, 1]).max())
    assert errors[-1] < errors[0]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(orders - 2).max() < 0.2


def test_permuting_examples_permutes_the_matrix():
    module, batch = conv_net(), mini_batch(4)
    order = np.array([2, 0, 3, 1])
    here, there = exactly(module, batch, ("smse", "mass")), exactly(module, batch.select(order), ("smse", "mass"))
    assert close(here.values[:, :, order][..., order], there.values, here.lambda_max / here.damping)
    assert np.array_equal(here.labels.times[order], there.labels.times)
    assert np.array_equal(here.labels.class_ids[order], there.labels.class_ids)


def test_doubling_a_residual_doubles_its_rows_and_columns():
    def base(pred, target, state):
        return (pred - target).square().mean((1, 2, 3))

    def doubled(pred, target, state):
        return 2 * base(pred, target, state)

    result = exactly(conv_net(), mini_batch(3), (base, doubled), (base, doubled))
    h = result["base", "base"]
    stretch = result.lambda_max / result.damping
    assert close(result["doubled", "base"], 2 * h, stretch)
    assert close(result["base", "doubled"], 2 * h, stretch)
    assert close(result["doubled", "doubled"], 4 * h, stretch)


def test_channel_blocks_add_up_to_the_whole():
    shares = tuple(f"smse:{c}" for c in ("density", "momentum_x", "momentum_y", "energy"))
    module, batch = conv_net(), mini_batch(3)
    result = exactly(module, batch, ("smse", *shares), ("smse", *shares))
    assert close(result.values[1:, 1:].sum((0, 1)), result["smse", "smse"], result.lambda_max / result.damping)
    truth = Exact(module, batch)
    h, room = truth.influence("smse:density", "smse:energy", 1e-2)
    assert (np.abs(result["smse:density", "smse:energy"] - h) <= room).all()


def test_several_observables_at_once_are_what_each_is_alone():
    module, batch = conv_net(), mini_batch(3)
    joint = exactly(module, batch, ("energy", "smse"), ("mass", "smse"))
    assert joint.values.shape == (2, 2, 3, 3)
    for a in ("energy", "smse"):
        for b in ("mass", "smse"):
            alone = exactly(module, batch, a, b)
            assert close(joint[a, b], alone[a, b], joint.lambda_max / joint.damping)


def test_the_matrix_is_symmetric_and_positive():
    h = exactly(conv_net(), mini_batch(4))["smse", "smse"]
    assert close(h, h.T, 1e3)
    assert np.linalg.eigvalsh(0.5 * (h + h.T)).min() >= -1e3 * EPS * np.abs(h).max()


def test_small_damping_makes_the_matrix_diagonal_and_its_standard_form_root_n():
    module, batch = conv_net(width=40), mini_batch(3, sides=(3, 3))
    truth = Exact(module, batch)
    assert truth.eigenvalues[-1] > 1e-9 * truth.top  # J has full row rank
    damping = 1e-4 * truth.eigenvalues[-1]
    result = exactly(module, batch, damping=damping)
    h = result["smse", "smse"]
    diagonal = np.diag(np.diag(h))
    # Off the diagonal sΠ differs from the identity by at most λ/λ_min.
    assert np.abs(h - diagonal).max() <= 2e-4 * np.diag(h).max()
    standard = pi.Influence.from_arrays(diagonal, [0] * 3, [0] * 3, [1, 2, 3]).standardize("standard")[0, 0]
    np.testing.assert_allclose(standard, np.sqrt(3) * np.eye(3), rtol=0, atol=8 * EPS)


def test_large_damping_gives_gradient_overlap():
    module, batch = conv_net(), mini_batch(3)
    result = exactly(module, batch, damping=1e9)
    overlap = result.gradient_overlap
    # λH = GᵀG − GᵀA(A + λ)⁻¹G.
    room = (result.lambda_max / 1e9 + 64 * EPS) * np.abs(overlap).max()
    assert np.abs(result.values * 1e9 - overlap).max() <= room


@pytest.mark.parametrize("solver", ["dense", "krylov", "cg"])
@pytest.mark.parametrize("metric", ["sum", "mean"])
def test_response_perturbation_and_metric_batches_may_differ(solver, metric):
    module = conv_net(width=2)
    batch, response_batch, metric_batch = mini_batch(2, seed=5), mini_batch(3, seed=6), mini_batch(4, seed=7)
    truth = Exact(module, batch, metric, response_batch=response_batch, metric_batch=metric_batch)
    damping = 1e-2 * truth.top
    options = {"rtol": 1e-6} if solver == "cg" else {}
    result = pi.influence(module, batch, ("smse", "mass"), ("smse", "energy"), solver=solver, damping=damping,
                          metric=metric, product_dtype="float64", tol=1e-3, response_batch=response_batch,
                          metric_batch=metric_batch, **options)  # fmt: skip
    assert result.values.shape == (2, 2, 3, 2)
    assert len(result.response_labels) == 3
    assert len(result.perturbation_labels) == 2
    for a in ("smse", "mass"):
        for b in ("smse", "energy"):
            h, room = truth.influence(a, b, damping)
            bound = result.error_bound[result.pair_index(a, b)]
            assert (np.abs(result[a, b] - h) <= bound + room).all()


def test_one_example_works_and_cannot_be_standardised():
    module, batch = conv_net(), mini_batch(1)
    result = pi.influence(module, batch, "smse", product_dtype="float64")
    h, room = Exact(module, batch).influence("smse", "smse", result.damping)
    assert abs(result.values[0, 0] - h) <= result.error_bound[0, 0] + room
    with pytest.raises(ValueError, match="standard"):
        result.standardize("standard")


def test_classes_with_several_trajectories_of_unequal_length_keep_their_labels():
    batch = mini_batch(5, class_ids=[0, 0, 0, 1, 0], trajectory_ids=[4, 4, 7, 9, 7], times=[1, 2, 1, 3, 2],
                       class_names=("RP", "CRP"))  # fmt: skip
    result = pi.influence(conv_net(), batch, "smse", tol=0.1)
    assert result.labels.class_names == ("RP", "CRP")
    assert result.labels.trajectory_ids.tolist() == [4, 4, 7, 9, 7]
    assert result.labels.times.tolist() == [1, 2, 1, 3, 2]
    assert result.losses.shape == (5,)


def test_selected_parameters_are_those_that_count():
    module, batch = conv_net(), mini_batch(3)
    names = ["0.weight", "2.bias"]
    truth = Exact(module, batch, names=names)
    result = exactly(module, batch, parameters=("0.w*", "2.bias"), damping=1e-2 * truth.top)
    h, room = truth.influence("smse", "smse", 1e-2 * truth.top)
    assert (np.abs(result["smse", "smse"] - h) <= room).all()
    assert result.settings["n_parameters"] == sum(dict(module.named_parameters())[n].numel() for n in names)


def test_a_memory_budget_changes_nothing_but_rounding():
    module, batch = conv_net(), mini_batch(4)
    plain = pi.influence(module, batch, "smse", product_dtype="float64", tol=1e-3)
    tight = pi.influence(module, batch, "smse", product_dtype="float64", tol=1e-3, memory_budget=30_000)
    bound = plain.error_bound + tight.error_bound
    assert (np.abs(plain.values - tight.values) <= bound + 1e3 * EPS * 1e3 * np.abs(plain.values).max()).all()


def test_a_perfect_model_has_no_influence():
    module, batch = conv_net(), mini_batch(2)
    with torch.no_grad():
        perfect = pi.MiniBatch(batch.inputs.double(), module.double()(batch.inputs.double()), batch.class_ids,
                               batch.trajectory_ids, batch.times)  # fmt: skip
    result = pi.influence(module, perfect, "smse", damping=1e-2)
    assert np.abs(result.values).max() == 0
    assert np.abs(result.error_bound).max() == 0
    assert result.converged


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("solver", ["krylov", "cg", "span"])
def test_repeated_examples_and_ones_without_error_are_taken(solver, dtype):
    module, batch = conv_net(width=2), mini_batch(3)
    with torch.no_grad():
        targets = batch.targets.clone()
        targets[1] = module(batch.inputs)[1]
    batch = pi.MiniBatch(batch.inputs, targets, batch.class_ids, batch.trajectory_ids, batch.times).select([0, 1, 0, 2])
    truth = Exact(module, batch)
    result = pi.influence(module, batch, ("smse", "mass"), solver=solver, damping=1e-2 * truth.top, product_dtype=dtype)
    for a, response in enumerate(("smse", "mass")):
        h, room = truth.influence(response, "smse", 1e-2 * truth.top)
        assert (np.abs(result.values[a, 0] - h) <= result.error_bound[a, 0] + room).all()


@pytest.mark.parametrize("solver", ["dense", "krylov", "span"])
def test_pickling_keeps_everything_but_the_steps(solver):
    result = pi.influence(conv_net(), mini_batch(2), ("smse", "mass"), solver=solver)
    copied = pickle.loads(pickle.dumps(result))
    assert np.array_equal(copied.values, result.values)
    assert np.array_equal(copied.error_bound, result.error_bound)
    other = 10 * result.damping
    assert np.array_equal(copied.at_damping([other])[0].values, result.at_damping([other])[0].values)
    with pytest.raises(ValueError, match="parameter steps are not held"):
        copied.parameter_step(0)


def test_presets_are_the_settings_of_the_published_codes():
    module, batch = conv_net(width=2), mini_batch(2)
    companion = pi.influence(module, batch, "smse", preset="companion")
    settings = companion.settings
    assert (settings["solver"], settings["metric"], companion.damping) == ("span", "mean", 1e-6)
    paper = pi.influence(module, batch, "smse", preset="paper")
    assert (paper.settings["solver"], paper.settings["metric"], paper.damping) == ("craigmr", "sum", 1e-4)


BATCH = mini_batch(2)
REFUSALS = {
    "solver": ({"solver": "magic"}, "`solver` must be one of cg, craigmr, dense, krylov, sketch, span; got 'magic'"),
    "metric": ({"metric": "median"}, "`metric` must be one of sum, mean; got 'median'"),
    "damping": ({"damping": -1.0}, "`damping` must be a positive finite number; got -1.0"),
    "no damping": ({"damping": ()}, "`damping` is empty"),
    "tol": ({"tol": 0.0}, "`tol` must be a positive finite number; got 0.0"),
    "dtype": ({"product_dtype": "float16"}, "`product_dtype` must be one of float32, tf32, bfloat16, float64; got"),
    "parameters": ({"parameters": "head.*"}, "`parameters`: 'head.*' matches none of 0.weight"),
    "preset": ({"preset": "ours"}, "`preset` must be one of paper, companion; got 'ours'"),
    "observable": ({"response": "speed"}, "unknown observable 'speed'"),
    "text for a number": ({"tol": "0.1"}, "`tol` must be a positive finite number; got '0.1'"),
    "part of an audit": ({"audit": 2.5}, "`audit` must be an integer of at least 0; got 2.5"),
    "no memory": ({"memory_budget": 0}, "`memory_budget` must be a positive finite number; got 0"),
    "number for an observable": ({"response": 3}, "an observable is a name, an Observable or a callable"),
    "number for a pattern": ({"parameters": 3}, "`parameters`: 3 matches none of 0.weight"),
    "too many extras": (
        {"batch": mini_batch(2, extras=(torch.zeros(2),))},
        "does not take inputs of shape (2, 4, 4, 5) with 1 extras: ",
    ),
    "threads": ({"num_threads": 0}, "`num_threads` must be an integer of at least 1; got 0"),
    "batch": ({"batch": BATCH.inputs}, "`batch` must be a MiniBatch; got Tensor"),
    "channels": ({"batch": mini_batch(2, channels=5)}, "does not take inputs of shape (2, 5, 4, 5)"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_one_line_and_name_the_argument(case):
    settings, message = REFUSALS[case]
    given = {"batch": BATCH, "response": "smse", **settings}
    with pytest.raises(ValueError) as caught:
        pi.influence(conv_net(), **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_answers_with_nan_is_refused():
    module = conv_net()
    with torch.no_grad():
        module[0].bias[0] = float("nan")
    with pytest.raises(ValueError, match="output is not finite at example 0"):
        pi.influence(module, BATCH, "smse")


@pytest.mark.parametrize("solver", ["dense", "krylov"])
@pytest.mark.parametrize("damping", [1e-2, 1e-4])
def test_an_example_with_a_tiny_gradient_keeps_its_row(solver, damping):
    """Its influence lies far below the rounding of the others', and may not be dropped as such."""
    module, batch = conv_net(), mini_batch(n=3)
    tiny = 3e-7

    def scaled(pred, target, input):
        weight = torch.ones(len(pred), dtype=pred.dtype)
        if len(pred) == 3:
            weight[2] = tiny
        return weight * ((pred - target) ** 2).flatten(1).mean(1)

    found = pi.influence(module, batch, scaled, scaled, solver, pi.Damping.relative(damping), tol=1e-3).values[0, 0]
    whole = lambda p, t, x: ((p - t) ** 2).flatten(1).mean(1)  # noqa: E731
    exact = pi.influence(module, batch, whole, whole, "dense", pi.Damping.relative(damping)).values[0, 0]
    scale = np.array([1.0, 1.0, tiny])
    expected = exact * np.outer(scale, scale)
    assert np.diag(found) == pytest.approx(np.diag(expected), rel=2e-3)


def test_gradients_that_are_all_zero_give_zero_for_every_solver():
    module, batch = conv_net(), mini_batch()
    nothing = lambda pred, target, input: 0.0 * pred.flatten(1).sum(1)  # noqa: E731
    for solver in ("dense", "krylov", "span", "cg", "craigmr"):
        result = pi.influence(module, batch, nothing, nothing, solver, damping=1.0)
        assert not result.values.any(), solver


def test_effective_dof_comes_with_an_interval_where_asked_for():
    module, batch = conv_net(), mini_batch()
    result = pi.influence(module, batch, "smse", damping=pi.Damping.relative(1e-2), effective_dof_probes=16)
    dense = pi.influence(module, batch, "smse", solver="dense", damping=result.damping)
    value, low, high = result.effective_dof
    assert low <= dense.subspace_dof <= high
    assert low <= value <= high
    assert dense.effective_dof is None


def test_settings_hold_what_decided_the_numbers():
    module, batch = conv_net(), mini_batch()
    settings = pi.influence(module, batch, "smse", solver="cg", rtol=1e-2, parameters="0.*").settings
    assert settings["solver_options"] == {"rtol": 1e-2}
    assert settings["parameters"] == ["0.*"]
    assert settings["response_batch_sha256"] is None
    other = mini_batch(seed=9)
    assert pi.influence(module, batch, "smse", response_batch=other).settings["response_batch_sha256"] == other.sha256()


def test_standardisations_by_the_diagonal_need_the_same_examples():
    module, batch = conv_net(), mini_batch()
    reordered = batch.select([3, 2, 1, 0])
    result = pi.influence(module, batch, "smse", response_batch=reordered)
    assert np.isnan(result.participation)
    with pytest.raises(ValueError, match="same examples"):
        result.standardize("cosine")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rtol": 1e-2}, "'rtol' is neither an argument nor an option of solver 'krylov'"),
        ({"solver": "dense", "max_products": 5}, "it has none"),
        ({"preset": "paper", "damping": 0.5}, "leave them out"),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_once(arguments, match):
    with pytest.raises(ValueError, match=match):
        pi.influence(conv_net(), mini_batch(), **arguments)


def test_two_callables_of_one_name_are_two_observables():
    module, batch = conv_net(), mini_batch(4)

    def mean(p, t, x):
        return p.mean((1, 2, 3))

    def square(p, t, x):
        return (p - t).square().mean((1, 2, 3))

    want = pi.influence(module, batch, mean, square, solver="dense", damping=1e-2)
    got = pi.influence(module, batch, lambda p, t, x: mean(p, t, x), lambda p, t, x: square(p, t, x), solver="dense",
                       damping=1e-2)  # fmt: skip
    assert np.array_equal(got.values, want.values)
    assert (got.response_names, got.perturbation_names) == (("lambda_2",), ("lambda",))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_observables_that_measure_almost_the_same_keep_their_bounds(dtype):
    """Their residuals differ by 1e-4: a shortcut through them would multiply the gradients' rounding by 1e4."""
    module, batch = conv_net(width=8), mini_batch(4)

    def nearly(p, t, x):
        return (p - t).square().mean((1, 2, 3)) + 1e-4 * (p * x).sin().mean((1, 2, 3))

    def whole(p, t, x):
        return (p - t).square().mean((1, 2, 3))

    top = pi.influence(module, batch, whole, whole, solver="dense", damping=1.0).lambda_max
    for relative in (1e-1, 1e-3):
        sides = {"response": (whole, nearly), "perturbation": (whole, nearly), "damping": relative * top}
        truth = pi.influence(module, batch, solver="dense", **sides)
        result = pi.influence(module, batch, product_dtype=dtype, tol=1e-4, **sides)
        assert (np.abs(result.values - truth.values) <= result.error_bound + truth.error_bound).all()


def test_rounding_of_responses_is_measured_too():
    module, batch, other = conv_net(), mini_batch(3), mini_batch(2, seed=5)
    jacobian, exact = Jacobian(module), Jacobian(module, dtype=torch.float64)
    for response_batch in (batch, other):
        observables = obs.resolve_all(("smse", "mass"), batch.channel_names)
        found = gradient_set(jacobian, exact, observables, response_batch, observables[:1], batch)
        truth = gradient_set(exact, exact, observables, response_batch, observables[:1], batch)
        error = torch.linalg.vector_norm(found.rows.double() - truth.rows, dim=1)
        each = (error / torch.linalg.vector_norm(found.rows.double(), dim=1)).numpy()
        assert found.rounding == pytest.approx(2 * each.max(), rel=1e-6)
        assert truth.rounding == 0.0


def test_a_gradient_that_overflows_float32_is_refused():
    def huge(p, t, x):
        return 1e30 * (1e9 * (p - t)).square().mean((1, 2, 3))

    with pytest.raises(ValueError, match="gradient of observable 'huge' at example 0 is not finite in float32"):
        pi.influence(conv_net(), mini_batch(2), huge, huge)


def test_a_given_eigenvalue_resolves_dampings_and_no_bound_shrinks_with_it():
    module, batch = conv_net(), mini_batch(4)
    own = pi.influence(module, batch, "smse", damping=1e-2)
    given = pi.influence(module, batch, "smse", damping=1e-2, lambda_max=1e-6)
    np.testing.assert_allclose(given.error_bound, own.error_bound, rtol=1e-9)
    assert given.lambda_max == 1e-6
    relative = given.at_damping([pi.Damping.relative(1e3)])[0]
    assert relative.damping == pytest.approx(1e-3)
    np.testing.assert_allclose(relative.error_bound, own.at_damping([relative.damping])[0].error_bound, rtol=1e-9)


def test_all_dampings_must_meet_the_tolerance():
    module, batch = conv_net(width=8), mini_batch(6)
    one = pi.influence(module, batch, "smse", damping=pi.Damping.relative(1.0), tol=0.1, max_products=6)
    both = pi.influence(module, batch, "smse", damping=[pi.Damping.relative(r) for r in (1.0, 1e-7)], tol=0.1,
                        max_products=6)  # fmt: skip
    assert one.converged
    assert not both.converged
    assert both.at_damping([both.damping])[0].relative_error.max() <= 0.1


def test_labelled_dataset_holds_h_under_its_names():
    result = pi.influence(conv_net(), mini_batch(4), ("smse", "mass"), "smse", damping=1e-2)
    data = result.to_xarray()
    block = data.influence.sel(response_observable="mass", perturbation_observable="smse")
    np.testing.assert_array_equal(block.values, result["mass", "smse"])
    np.testing.assert_array_equal(data.error_bound.values, result.error_bound)
    names = np.array(result.labels.class_names)
    np.testing.assert_array_equal(data.response_class.values, names[result.labels.class_ids])
    assert data.attrs["damping"] == result.damping
    assert block.groupby("response_time").mean().sizes["response_time"] == len(set(result.labels.times))


def test_labelled_data_without_xarray_say_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"`to_xarray` needs xarray: pip install 'pdeinfl\[xarray\]'"):
        exactly(conv_net(), mini_batch(2)).to_xarray()


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (("density", "momentum_x", "momentum_y", "energy"), ("smse", "mass", "energy")),
        (("velocity_x", "velocity_y"), ("smse", "kinetic_energy", "enstrophy")),
        (("r", "g", "b"), ("smse",)),
    ],
)
def test_what_responds_by_default_is_what_the_channels_have(channels, names):
    batch = mini_batch(3, channels=len(channels), channel_names=channels)
    result = pi.influence(conv_net(channels=len(channels)), batch, damping=pi.Damping.relative(1e-1))
    assert result.response_names == names


@pytest.mark.parametrize(
    ("device", "match"),
    [("cudda", "`device` must name a device"), ("cuda:77", "this machine has"), ("meta", "must hold numbers")],
)
def test_devices_that_are_not_there_are_refused(device, match):
    with pytest.raises(ValueError, match=match) as caught:
        pi.influence(conv_net(), mini_batch(2), device=device)
    assert "\n" not in str(caught.value)


def test_a_single_name_or_damping_where_several_belong_is_refused():
    result = pi.influence(conv_net(), mini_batch(2), "smse", damping=pi.Damping.relative(1e-1))
    with pytest.raises(KeyError, match=r'result\["smse", "smse"\]'):
        result["smse"]
    for one in (5.0, pi.Damping.relative(0.1), "1e-3"):
        with pytest.raises(ValueError, match="`dampings` must be a list"):
            result.at_damping(one)
    assert len(result.at_damping(np.array([1.0, 2.0]))) == 2
