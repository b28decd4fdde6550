"""`Damping`: absolute, relative, refused."""

import numpy as np
import pytest
import torch

import pdeinfl as pi
from pdeinfl.arguments import is_listed


def test_a_number_is_absolute():
    assert pi.Damping.of(1e-3) == pi.Damping.absolute(1e-3)
    assert pi.Damping.of(1).resolve(50.0) == 1.0
    assert pi.Damping.of(pi.Damping.relative(0.5)) == pi.Damping.relative(0.5)


def test_relative_refers_to_the_largest_eigenvalue():
    assert pi.Damping.relative(1e-3).resolve(200.0) == 0.2
    assert pi.Damping.absolute(1e-3).resolve(200.0) == 1e-3


@pytest.mark.parametrize("value", [0.0, -1e-3, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [pi.Damping.of, pi.Damping.absolute, pi.Damping.relative])
def test_what_is_not_positive_and_finite_is_refused(make, value):
    with pytest.raises(ValueError, match="`damping` must be a positive finite number; got"):
        make(value)


@pytest.mark.parametrize("value", [None, (1.0, 2.0), "1e-3"])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(
        ValueError, match=r"`damping` must be a number or a `pi\.Damping`; got (None|\(1\.0, 2\.0\)|'1e-3')"
    ):
        pi.Damping.of(value)


@pytest.mark.parametrize("value", [np.array(1e-3), torch.tensor(1e-3, dtype=torch.float64), np.float64(1e-3)])
def test_an_array_without_an_axis_is_one_number(value):
    assert not is_listed(value)
    assert pi.Damping.of(value) == pi.Damping.absolute(1e-3)


@pytest.mark.parametrize("value", [np.array([1.0, 2.0]), 10**400])
def test_what_has_no_single_value_is_refused(value):
    with pytest.raises(ValueError, match="`damping` must be a number"):
        pi.Damping.of(value)
