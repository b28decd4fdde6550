"""Autoregressive rollout: a surrogate applied to its own output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Train or eval mode for a while; every submodule gets its own flag back."""
    flags = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def rollout(model: nn.Module, initial_states: Any, n_steps: int) -> Tensor:
    """Trajectories that the surrogate predicts: ``s^{k+1} = f(s^k)``.

    Args:
        model: maps states ``(n, C, X, Y)`` to next states; runs in eval mode, without gradients, in its own dtype and
            on its own device.
        initial_states: ``(n, C, X, Y)``, or one state ``(C, X, Y)``; a tensor or an array.
        n_steps: how many steps to take.

    Returns:
        ``(n, n_steps + 1, C, X, Y)``, the initial states first, on the device of ``initial_states``.

    Raises:
        ValueError: wrong shapes, or a model whose output is not shaped like its input.
    """
    given = initial_states if isinstance(initial_states, Tensor) else torch.as_tensor(np.asarray(initial_states))
    if given.ndim not in (3, 4) or not given.is_floating_point():
        raise ValueError(f"`initial_states` must be floating point of shape (n, C, X, Y) or (C, X, Y); "
                         f"got {given.dtype} {tuple(given.shape)}")  # fmt: skip
    if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 0:
        raise ValueError(f"`n_steps` must be a non-negative integer; got {n_steps!r}")
    parameter = next(model.parameters(), given)
    state = (given if given.ndim == 4 else given[None]).detach().to(parameter.device, parameter.dtype)
    states = [state]
    with in_mode(model, training=False), torch.no_grad():
        for _ in range(n_steps):
            state = model(state)
            if state.shape != states[0].shape:
                raise ValueError(f"`model` must map a state to one of the same shape, {tuple(states[0].shape)}; "
                                 f"got {tuple(state.shape)}")  # fmt: skip
            states.append(state)
    return torch.stack(states, 1).to(given.device)
