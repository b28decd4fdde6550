"""What `inspect` reports, the axis-order detector behind it, and the conversion between channel sets."""

import numpy as np
import pytest

from layouts import gas, write_pdegym
from pdeinfl.data.conversion import conserved_from_primitive, primitive_from_conserved
from pdeinfl.data.inspection import inspect
from pdeinfl.data.orientation import axis_order_residuals, detect_axis_order
from pdeinfl.data.simulators.navier_stokes import simulate_navier_stokes
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.data.writer import write_trajectories


def vortices(n=2, seed=0):
    states, ids = simulate_navier_stokes(("Gauss", "Sines"), n, 16, 2, seed)
    return Trajectories.from_arrays(states, ids, ("Gauss", "Sines"))


def drifting_gas(n=16, n_times=3, dt=0.05):
    """Uniform flow (0.6, 0.2) that carries a density wave: an exact solution."""
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    t = dt * np.arange(n_times)[:, None, None]
    rho = 1 + 0.3 * np.sin(2 * np.pi * (x - 0.6 * t)) + 0.2 * np.cos(2 * np.pi * (2 * (x - 0.6 * t) + y - 0.2 * t))
    primitive = np.stack([rho, np.full_like(rho, 0.6), np.full_like(rho, 0.2), np.ones_like(rho)], 1)
    return Trajectories.from_arrays(conserved_from_primitive(primitive)[None])


def test_moments_and_totals_are_those_of_the_whole(tmp_path):
    traj = vortices()
    write_trajectories(tmp_path, traj)
    report = inspect(tmp_path)
    states = np.stack(list(traj)).astype(np.float64)
    tolerance = 50 * np.finfo(np.float64).eps
    np.testing.assert_allclose(report.mean, states.mean((0, 1, 3, 4)), atol=tolerance)
    np.testing.assert_allclose(report.std, states.std((0, 1, 3, 4)), rtol=tolerance)
    np.testing.assert_array_equal(report.lowest, states.min((0, 1, 3, 4)))
    np.testing.assert_array_equal(report.highest, states.max((0, 1, 3, 4)))
    np.testing.assert_allclose(report.totals, states.mean((0, 3, 4)), atol=tolerance)
    assert (report.n_trajectories, report.n_read, report.class_counts) == (4, 4, (2, 2))
    assert report.conserved.all()
    np.testing.assert_array_equal(report.thumbnails[1], traj[2][-1])
    assert report.problems == ()
    assert report.axis_residuals["xy"] < 1e-6 < report.axis_residuals["yx"]
    text = report.text()
    for part in ("PDEgym", "2 Gauss, 2 Sines", "velocity_x", "nothing wrong found", "16 x 16"):
        assert part in text


def test_a_subset(tmp_path):
    write_trajectories(tmp_path, vortices(5))
    assert inspect(tmp_path, max_trajectories=3).n_read == 3


def test_faults_are_listed_and_the_rest_is_reported(tmp_path):
    data = gas(n=3)
    data[1, 2, 0, 0, 0] = np.nan
    report = inspect(write_pdegym(tmp_path / "CE-RP.nc", data))
    assert report.n_read == 2
    assert "trajectory 1, snapshot 2: density holds NaN" in report.problems[0]
    assert any("total density drifts" in problem for problem in report.problems)
    assert f"  {len(report.problems)} problem" in report.text()
    assert np.isfinite(report.mean).all()
    with pytest.raises(OSError, match="none"):
        inspect(tmp_path / "none.nc")


def test_exchanged_axes_are_noticed(tmp_path):
    traj = vortices()
    wrong = Trajectories.from_arrays(np.stack(list(traj.transposed())), traj.class_ids, traj.class_names)
    write_trajectories(tmp_path, wrong)
    assert any("axes may be exchanged" in problem for problem in inspect(tmp_path).problems)
    assert inspect(tmp_path, axis_order="yx").problems == ()


@pytest.mark.parametrize("made", [vortices, drifting_gas])
def test_axis_order_is_detected(made):
    traj = made()
    assert detect_axis_order(traj) == "xy"
    assert detect_axis_order(traj.transposed()) == "yx"
    residuals = axis_order_residuals(traj)
    assert residuals["xy"] < 0.05 * residuals["yx"]


def test_axis_order_needs_known_channels():
    with pytest.raises(ValueError, match="two velocities"):
        detect_axis_order(Trajectories.from_arrays(np.ones((1, 2, 3, 4, 4), np.float32)))
    with pytest.raises(ValueError, match="two"):
        detect_axis_order(drifting_gas(n_times=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conversion_round_trip(dtype):
    generator = np.random.default_rng(0)
    primitive = generator.uniform(0.5, 2, (3, 2, 4, 5, 6)).astype(dtype)
    conserved = conserved_from_primitive(primitive)
    assert conserved.dtype == dtype
    rho, vx, vy, p = np.moveaxis(primitive.astype(np.float64), 2, 0)
    np.testing.assert_allclose(conserved[:, :, 3], p / 0.4 + rho * (vx**2 + vy**2) / 2, rtol=2 * np.finfo(dtype).eps)
    # Pressure is a difference: its rounding is that of the energy, at most 21 here.
    np.testing.assert_allclose(primitive_from_conserved(conserved), primitive, atol=21 * 4 * np.finfo(dtype).eps)


def test_conversion_refuses():
    for bad, message in [
        (np.ones((5, 4, 4)), "4, X, Y"),
        (np.ones((4, 4, 4), int), "floating"),
        (np.zeros((4, 4, 4)), "positive"),
    ]:
        for convert in (conserved_from_primitive, primitive_from_conserved):
            with pytest.raises(ValueError, match=message):
                convert(bad)
