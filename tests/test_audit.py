"""Right-hand sides checked with float64 products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import pdeinfl as pi
import reference
from engine_problems import Exact, conv_net, mini_batch
from pdeinfl.engine.audit import spread

MODULE, BATCH = conv_net(width=12), mini_batch(5)
TRUTH = Exact(MODULE, BATCH)


def solve(solver="krylov", relative=1e-3, **options):
    return pi.influence(MODULE, BATCH, ("smse", "mass"), ("smse", "mass"), solver=solver,
                        damping=relative * TRUTH.top, **options)  # fmt: skip


def truth_of(rows, relative):
    """H among the audited right-hand sides, from the explicit Jacobian: the first five are SMSE, the others mass."""
    g = np.concatenate([TRUTH.gradients(name, BATCH) for name in ("smse", "mass")])[rows]
    return reference.influence(TRUTH.j, g, g, relative * TRUTH.top, TRUTH.scale)


@pytest.mark.parametrize("solver", ["krylov", "cg", "craigmr", "span", "dense"])
@pytest.mark.parametrize("relative", [1e-1, 1e-3])
def test_audited_values_bracket_the_truth_whatever_made_the_solutions(solver, relative):
    audit = solve(solver, relative, audit=4).audit
    h = truth_of(audit.rows, relative)
    room = 1e4 * np.finfo(float).eps / relative * np.sqrt(np.outer(np.diag(h), np.diag(h)))
    assert (np.abs(audit.values - h) <= audit.error_bound + room).all()
    assert (audit.error_bound >= 0).all()
    assert audit.agrees


def test_rounding_of_float32_products_is_seen_and_lies_under_its_bound():
    single, double = solve(audit=10), solve(audit=10, product_dtype="float64")
    assert double.audit.rounding < 1e-3 * single.audit.rounding
    stretch = np.sqrt(1 + single.lambda_max / single.damping)
    assert 0 < single.audit.rounding <= 2 * (single.product_error + single.gradient_error) * stretch


def test_a_result_that_the_audit_contradicts_has_not_converged(monkeypatch):
    """A device that multiplies wrongly where nothing else can notice: the gradients are right, the metric is not."""
    from pdeinfl.engine.metric import Metric

    honest = Metric.adjoint

    def wrong(self, cotangents):
        factor = 1.0 if self.jacobian.dtype == torch.float64 else 1.5
        return honest(self, cotangents) * factor

    monkeypatch.setattr(Metric, "adjoint", wrong)
    monkeypatch.setattr("pdeinfl.engine.influence_matrix.measure_rounding", lambda *args: 0.0)
    trusting, audited = solve("cg", rtol=1e-8), solve("cg", rtol=1e-8, audit=3)
    assert trusting.converged
    assert not audited.audit.agrees
    assert not audited.converged
    beside = audited.at_damping([1.1 * audited.damping])[0]
    assert not beside.converged
    assert "contradicts" in beside.shortfall


def test_what_the_audit_holds():
    result = solve(audit=3)
    audit = result.audit
    np.testing.assert_array_equal(audit.rows, [0, 4, 9])
    examples = audit.rows % 5
    np.testing.assert_array_equal(audit.reported[:2, :2], result["smse", "smse"][np.ix_(examples[:2], examples[:2])])
    assert audit.reported[2, 0] == result["mass", "smse"][4, 0]
    assert audit.reported[0, 2] == result["smse", "mass"][0, 4]
    assert solve().audit is None
    assert result.at_damping([1.0])[0].audit is None


def test_observables_that_do_not_respond_are_not_compared():
    result = pi.influence(MODULE, BATCH, "energy", "smse", damping=1e-2 * TRUTH.top, audit=2)
    assert np.isnan(result.audit.reported).all()
    assert result.audit.agrees


@pytest.mark.parametrize(("n", "k", "rows"), [(10, 1, [0]), (10, 3, [0, 4, 9]), (3, 7, [0, 1, 2]), (1, 1, [0])])
def test_rows_are_spread(n, k, rows):
    np.testing.assert_array_equal(spread(n, k), rows)


def test_a_stored_result_keeps_its_audit(tmp_path):
    result = solve(audit=3)
    result.save(tmp_path / "h.h5")
    held = pi.Influence.load(tmp_path / "h.h5").audit
    for name in ("rows", "values", "error_bound", "correction", "residual_norms", "reported", "reported_bound"):
        np.testing.assert_array_equal(getattr(held, name), getattr(result.audit, name))
    changed = replace(held, reported=held.reported + 2 * (held.error_bound + held.reported_bound) + 1)
    assert held.agrees
    assert not changed.agrees


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audit": -1}, "`audit` must be an integer of at least 0; got -1"),
        ({"audit": 2, "response_batch": mini_batch(2)}, "`audit` must be a number of perturbations that also respond"),
    ],
)
def test_bad_audits_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        solve(**options)
    assert "\n" not in str(caught.value)


def test_a_check_that_is_not_a_number_agrees_with_nothing():
    audit = solve(audit=3).audit
    assert audit.agrees
    assert not replace(audit, values=np.full_like(audit.values, np.nan)).agrees
    assert replace(audit, reported=np.full_like(audit.reported, np.nan)).agrees
