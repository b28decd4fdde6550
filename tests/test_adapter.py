"""`Adapter`: normalisation, differences, frames, layouts and extras written out by hand."""

import doctest

import pytest
import torch
from torch import nn

import pdeinfl as pi
from pdeinfl.engine import adapter

X = torch.rand(3, 4, 5, 6)
M, S = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0])


def column(t):
    return t[:, None, None]


class Spy(nn.Module):
    """Keeps what it was called with; answers with the last two channels."""

    def forward(self, *args):
        self.args = args
        return args[0][:, -2:]


def test_doctests():
    failed, run = doctest.testmod(adapter, extraglobs={"nn": nn, "torch": torch})
    assert failed == 0
    assert run > 5


def test_normalised_states():
    spy, x = Spy(), X[:, :2]
    y = pi.Adapter(spy, mean=M, std=S)(x)
    assert torch.equal(spy.args[0], (x - column(M)) / column(S))
    torch.testing.assert_close(y, x, rtol=0, atol=8 * torch.finfo(torch.float32).eps * 2)


def test_differences():
    spy, x = Spy(), X[:, :2]
    y = pi.Adapter(spy, mean=M, std=S, predicts="difference", target_mean=0.25, target_std=[2.0, 3.0])(x)
    assert torch.equal(y, x + (0.25 + column(torch.tensor([2.0, 3.0])) * spy.args[0]))
    y = pi.Adapter(spy, mean=M, std=S, predicts="difference")(x)
    assert torch.equal(y, x + column(S) * spy.args[0])


def test_frames_are_normalised_alike_and_the_last_is_the_current_one():
    spy = Spy()
    y = pi.Adapter(spy, mean=M, std=S, n_frames=2, predicts="difference", target_std=1.0)(X)
    want = (X - column(M.repeat(2))) / column(S.repeat(2))
    assert torch.equal(spy.args[0], want)
    assert torch.equal(y, X[:, 2:] + want[:, 2:])
    pi.Adapter(spy, n_frames=2, frames="axis", output=lambda out: out[:, -1])(X)
    assert torch.equal(spy.args[0], X.reshape(3, 2, 2, 5, 6))


def test_channels_last():
    class Last(Spy):
        def forward(self, *args):
            self.args = args
            return args[0][..., -2:]

    spy = Last()
    y = pi.Adapter(spy, channels_last=True, n_frames=2)(X)
    assert torch.equal(spy.args[0], X.permute(0, 2, 3, 1))
    assert torch.equal(y, X[:, 2:])
    pi.Adapter(spy, channels_last=True, n_frames=2, frames="axis", output=lambda out: out[:, -1])(X)
    assert torch.equal(spy.args[0], X.reshape(3, 2, 2, 5, 6).permute(0, 1, 3, 4, 2))


@pytest.mark.parametrize("sides", [(5,), (2, 3, 4)])
def test_other_dimensions(sides):
    x = torch.rand(2, 2, *sides)
    torch.testing.assert_close(pi.Adapter(Spy(), mean=M, std=S)(x), x, rtol=0, atol=1e2 * torch.finfo(x.dtype).eps)


def test_extras_fixed_and_per_example():
    spy = Spy()
    pi.Adapter(spy, extras=(0.5, torch.tensor([1, 2])))(X, torch.arange(3))
    assert torch.equal(spy.args[1], torch.full((3,), 0.5))
    assert torch.equal(spy.args[2], torch.tensor([[1, 2]] * 3))
    assert torch.equal(spy.args[3], torch.arange(3))


def test_parameters_are_those_of_the_module_and_statistics_are_not_among_them():
    wrapped = pi.Adapter(nn.Conv2d(2, 2, 1), mean=M, std=S)
    assert [name for name, _ in wrapped.named_parameters()] == ["module.weight", "module.bias"]


def test_outputs_are_picked():
    class Two(nn.Module):
        def forward(self, x):
            return {"next": x, "other": None}

    assert torch.equal(pi.Adapter(Two(), output="next")(X), X)
    with pytest.raises(ValueError, match="the module returned a dict: say with `output` which part"):
        pi.Adapter(Two())(X)
    with pytest.raises(ValueError, match="`output` is 'last', which the module's dict with the keys 'next', "):
        pi.Adapter(Two(), output="last")(X)


def test_picking_from_a_single_tensor_is_refused():
    """Index 0 of a tensor would be its first example."""
    with pytest.raises(ValueError, match="`output` is 0, but the module returns one tensor: leave it out"):
        pi.Adapter(Spy(), output=0)(X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"predicts": "rate"}, "`predicts` must be 'state' or 'difference'; got 'rate'"),
        ({"frames": "time"}, "`frames` must be 'channels' or 'axis'; got 'time'"),
        ({"n_frames": 0}, "`n_frames` must be an integer of at least 1; got 0"),
        ({"std": [1.0, 0.0]}, "`std` must be positive"),
        ({"mean": float("nan")}, "`mean` must be a finite number or one for each channel; got nan"),
        ({"mean": "one"}, "`mean` must be a finite number or one for each channel; got 'one'"),
        ({"mean": [[1.0]]}, "`mean` must be a finite number or one for each channel"),
    ],
)
def test_arguments_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pi.Adapter(Spy(), **settings)


def test_states_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"`x` must have shape \(n, 3·channels, x, \.\.\.\) for 3 frames; got \(3, 4, 5"
    ):
        pi.Adapter(Spy(), n_frames=3)(X)
    with pytest.raises(ValueError, match="`mean` has 2 entries, but the fields have 4 channels"):
        pi.Adapter(Spy(), mean=M)(X)
