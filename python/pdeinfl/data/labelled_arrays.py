"""Trajectories as a labelled array of xarray, an optional dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pdeinfl.data.trajectories import Trajectories


def import_xarray() -> Any:
    """The module xarray.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        import xarray
    except ImportError:
        raise ImportError("`to_xarray` needs xarray: pip install 'pdeinfl[xarray]'") from None
    return xarray


def trajectories_to_xarray(trajectories: Trajectories) -> Any:
    """See `Trajectories.to_xarray`."""
    xarray = import_xarray()
    states = np.empty((len(trajectories), *trajectories.shape[1:]), np.float32)
    for row, trajectory in enumerate(trajectories):
        states[row] = trajectory
    sides = dict(zip(("x", "y"), trajectories.domain, strict=True))
    space = tuple(trajectories.axis_order)
    cells = {
        axis: (np.arange(n) + 0.5) * sides[axis] / n for axis, n in zip(space, trajectories.resolution, strict=True)
    }
    classes = np.array(trajectories.class_names)[trajectories.class_ids]
    return xarray.DataArray(
        states,
        dims=("trajectory", "time", "channel", *space),
        coords={
            "trajectory": trajectories.trajectory_ids,
            "initial_condition_class": ("trajectory", classes),
            "time": np.arange(trajectories.n_times) * trajectories.time_step,
            "channel": list(trajectories.channel_names),
            **cells,
        },
        name="state",
        attrs={} if trajectories.gamma is None else {"gamma": trajectories.gamma},
    )
