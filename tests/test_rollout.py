"""Rollout: the recursion, shapes, dtypes, modes, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pdeinfl.surrogates import ViT, rollout


class Affine(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.scale * x + 1)


def test_recursion():
    start = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    states = rollout(Affine(), start, 3)
    assert states.shape == (2, 4, 3, 4, 5)
    for k in range(4):
        assert torch.equal(states[:, k], 2**k * start + (2**k - 1))  # integers: exact


def test_one_state_and_arrays():
    start = np.ones((3, 4, 5))
    states = rollout(Affine(), start, 2)
    assert states.shape == (1, 3, 3, 4, 5)
    assert states.dtype == torch.float32  # the model's
    assert rollout(Affine(), start[None].astype(np.float32), 0).shape == (1, 1, 3, 4, 5)


def test_leaves_modes_and_gradients_alone():
    model = Affine()
    model.dropout.eval()
    states = rollout(model, torch.ones(1, 1, 2, 2, requires_grad=True), 2)
    assert not states.requires_grad
    assert model.training
    assert not model.dropout.training
    assert model.scale.grad is None


def test_surrogate_matches_by_hand():
    torch.manual_seed(0)
    model = ViT(channels=2, resolution=8, width=8, depth=1)
    start = torch.randn(3, 2, 8, 8)
    with torch.no_grad():
        expected = torch.stack([start, model(start), model(model(start))], 1)
    assert torch.equal(rollout(model, start, 2), expected)


def test_errors():
    model = Affine()
    with pytest.raises(ValueError, match=r"`initial_states` must be floating point of shape \(n, C, X, Y\)"):
        rollout(model, torch.zeros(4, 4), 1)
    with pytest.raises(ValueError, match=r"got torch.int64 \(1, 1, 2, 2\)"):
        rollout(model, torch.zeros(1, 1, 2, 2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="`n_steps` must be a non-negative integer; got -1"):
        rollout(model, torch.zeros(1, 1, 2, 2), -1)
    with pytest.raises(ValueError, match=r"`model` must map a state to one of the same shape, \(1, 1, 2, 2\)"):
        rollout(nn.Flatten(), torch.zeros(1, 1, 2, 2), 1)
