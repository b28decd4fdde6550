"""Summary numbers on a path of dampings: `pi.damping_path`."""

from __future__ import annotations

import numpy as np
import pytest

import pdeinfl as pi
from engine_problems import conv_net, mini_batch
from pdeinfl.analysis.damping_curves import CLASS_LOCKING, COHERENCE_TIME
from pdeinfl.analysis.summary import summarize
from pdeinfl.analysis.symmetry import Motion


def solved(n_batches=3):
    module = conv_net(width=16)
    batches = [mini_batch(8, sides=(4, 4), seed=k) for k in range(n_batches)]
    return [pi.influence(module, b, "smse", damping=1.0, mini_batch=k, tol=1e-3) for k, b in enumerate(batches)]


def test_a_path_holds_the_summaries_at_its_dampings():
    results = solved()
    top = float(np.median([r.lambda_max for r in results]))
    path = pi.damping_path(results, [1e-3, 1e-1], n_bootstrap=50)
    for k, relative in enumerate((1e-3, 1e-1)):
        summary = summarize([r.at_damping([relative * top])[0] for r in results], n_bootstrap=50)
        for name, number in ((COHERENCE_TIME, summary.coherence_time), (CLASS_LOCKING, summary.class_locking)):
            found = path[name].estimates()[k]
            for part in ("value", "low", "high", "bound_low", "bound_high"):
                np.testing.assert_equal(getattr(found, part), getattr(number, part))
    overlap = [pi.Influence.from_arrays(r.gradient_overlap[0, 0], r.labels.class_ids, r.labels.trajectory_ids,
                                        r.labels.times, mini_batch=r.mini_batch) for r in results]  # fmt: skip
    assert path[CLASS_LOCKING].at_infinity[0] == summarize(overlap, n_bootstrap=0).class_locking.value
    assert path[CLASS_LOCKING].at_zero[0] == 1.0, "P >= N·D: a diagonal locks"


def test_a_symmetry_image_has_no_diagonal_limit():
    """It has its original's labels, yet its gradients are no more in the range of the metric."""
    batch = mini_batch(8, sides=(4, 4), channel_names=("density", "momentum_x", "momentum_y", "energy"))
    image = Motion(quarter_turns=1).on(batch)
    result = pi.influence(conv_net(width=16), batch, "smse", damping=1.0, response_batch=image, tol=1e-3)
    path = pi.damping_path(result, [1e-2], n_bootstrap=0)[CLASS_LOCKING]
    assert np.isnan(path.at_zero).all()


def test_by_default_the_results_own_damping_is_on_the_grid():
    (result,) = solved(1)
    path = pi.damping_path(result, n_bootstrap=0)[CLASS_LOCKING]
    assert path.relative_dampings[[0, -1]] == pytest.approx([1e-10, 10])
    own = result.damping / result.lambda_max
    at = int(np.argmin(np.abs(np.log(path.relative_dampings / own))))
    assert path.relative_dampings[at] == pytest.approx(own, rel=1e-6)
    assert path.values[at] == pytest.approx(summarize(result).class_locking.value)
    figure = pi.figures.damping_path({"net": {CLASS_LOCKING: path}})
    assert figure.axes


def test_a_control_may_share_the_trained_networks_scale():
    trained, control = solved(2), solved(2)
    path = pi.damping_path(control, [1e-2], n_bootstrap=0, lambda_max=2 * trained[0].lambda_max)
    want = summarize([r.at_damping([2e-2 * trained[0].lambda_max])[0] for r in control], n_bootstrap=0)
    assert path[CLASS_LOCKING].values[0] == want.class_locking.value


def test_without_a_path_the_reason_is_given():
    by_hand = pi.Influence.from_arrays(np.eye(2), [0, 1], [0, 1], [1, 1])
    with pytest.raises(ValueError, match="must hold a damping path: the influence matrices were stored or built"):
        pi.damping_path(by_hand)
    with pytest.raises(ValueError, match="must hold a damping path: there are no influence matrices"):
        pi.damping_path([])
    with pytest.raises(ValueError, match="`lambda_max`, the largest eigenvalue of the metric, must be positive"):
        pi.damping_path(solved(1), lambda_max=0.0)
