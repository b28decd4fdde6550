"""What a file of trajectories holds, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdeinfl.data.mini_batch import CE_CHANNELS
from pdeinfl.data.orientation import axis_order_residuals
from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.trajectories import Trajectories

_MOST_PROBLEMS = 20
# Above this a total did not stay: float32 storage of an exactly conserved field leaves some 1e-7.
_DRIFT = 1e-4
_HEADINGS = ("mean", "std", "lowest", "highest", "last total")


@dataclass(frozen=True, eq=False)
class Inspection:
    """What `inspect` found. Arrays are float64 unless said otherwise.

    Attributes:
        path: what was looked at.
        formats: format of the files, such as ``PDEgym``.
        n_trajectories, n_read: how many there are, and how many were read without fault.
        class_names, class_counts: classes and their trajectories.
        n_times, resolution, time_step, channel_names: as of `Trajectories`.
        mean, std, lowest, highest: per channel ``(C,)``, over trajectories, time and space.
        totals: space means of every channel, averaged over trajectories, ``(time, C)``.
        drift: largest change of a trajectory's space mean from its first snapshot, over the channel's root mean
            square, ``(time, C)``.
        conserved: whether the equation keeps each channel's total, ``(C,)`` bool.
        axis_residuals: see ``orientation.axis_order_residuals``; empty where it does not apply.
        thumbnails: last snapshot of each class's first readable trajectory, float32 ``(K, C, x, y)``; NaN where none.
        problems: what is wrong, a line each; empty if nothing is.
    """

    path: str
    formats: tuple[str, ...]
    n_trajectories: int
    n_read: int
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    n_times: int
    resolution: tuple[int, int]
    time_step: float
    channel_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    totals: np.ndarray
    drift: np.ndarray
    conserved: np.ndarray
    axis_residuals: dict[str, float]
    thumbnails: np.ndarray
    problems: tuple[str, ...]

    def text(self) -> str:
        """The report as plain text."""
        classes = ", ".join(f"{n} {name}" for name, n in zip(self.class_names, self.class_counts, strict=True))
        lines = [
            f"{self.path}: {', '.join(self.formats)}",
            f"  {self.n_trajectories} trajectories ({classes}), {self.n_read} read",
            f"  {self.n_times} snapshots {self.time_step:g} apart, {self.resolution[0]} x {self.resolution[1]} points",
            "",
            "  " + " ".join([f"{'channel':<12}", *(f"{h:>11}" for h in _HEADINGS), f"{'drift':>9}"]),
        ]
        for c, name in enumerate(self.channel_names):
            values = (self.mean[c], self.std[c], self.lowest[c], self.highest[c], self.totals[-1, c])
            kept = f"{self.drift[:, c].max():9.1e}" + (" (conserved)" if self.conserved[c] else "")
            lines.append(f"  {name:<12} " + " ".join(f"{value:11.4g}" for value in values) + " " + kept)
        if self.axis_residuals:
            shown = ", ".join(f"{order} {value:.2g}" for order, value in self.axis_residuals.items())
            lines += ["", f"  violation of the equation by axis order: {shown}"]
        n = len(self.problems)
        lines += ["", f"  {n} problem{'s' if n > 1 else ''}:" if n else "  nothing wrong found"]
        return "\n".join(lines + [f"  - {problem}" for problem in self.problems])


def inspect(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    max_trajectories: int | None = None,
    **settings: Any,
) -> Inspection:
    """Read files of trajectories, one trajectory in memory at a time, and report what they hold.

    Args:
        path, settings: as for `open_trajectories`.
        max_trajectories: read only so many, spread evenly; default all.

    Raises:
        ValueError, OSError: the files cannot be opened at all. Faults found while reading are in ``problems``.
    """
    traj = open_trajectories(path, **settings)
    n = len(traj) if max_trajectories is None else min(len(traj), max(1, max_trajectories))
    tally = _Tally(traj)
    for i in np.unique(np.linspace(0, len(traj) - 1, n).astype(int)):
        try:
            tally.add(traj[i], int(traj.class_ids[i]))
        except (ValueError, OSError) as error:
            tally.problem(str(error))
    residuals = {}
    if traj.n_times > 1 and traj.equation is not None and not tally.problems:
        residuals = axis_order_residuals(traj)
        if residuals[traj.axis_order] > 1.5 * min(residuals.values()):
            other = min(residuals, key=lambda order: residuals[order])
            tally.problem(f"the fields fit axis_order={other!r} better than {traj.axis_order!r}: axes may be exchanged")
    return tally.report(path, traj, residuals)


class _Tally:
    """Moments and totals, gathered a trajectory at a time."""

    def __init__(self, traj: Trajectories) -> None:
        c = len(traj.channel_names)
        self.n, self.mean, self.square = 0, np.zeros(c), np.zeros(c)
        self.lowest, self.highest = np.full(c, np.inf), np.full(c, -np.inf)
        self.totals, self.change = np.zeros((traj.n_times, c)), np.zeros((traj.n_times, c))
        self.thumbnails = np.full((len(traj.class_names), c, *traj.resolution), np.nan, np.float32)
        self.problems: list[str] = []
        self.n_problems = 0

    def problem(self, text: str) -> None:
        self.n_problems += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)

    def add(self, states: np.ndarray, class_id: int) -> None:
        means = np.empty((len(states), states.shape[1]))
        spread = np.zeros(states.shape[1])
        for t, snapshot in enumerate(states):
            fields = snapshot.astype(np.float64)
            means[t] = fields.mean((1, 2))
            spread += fields.var((1, 2)) / len(states)
            self.lowest = np.minimum(self.lowest, fields.min((1, 2)))
            self.highest = np.maximum(self.highest, fields.max((1, 2)))
        mean, square = means.mean(0), spread + means.var(0)
        # Chan's update: no difference of large squares.
        self.n += 1
        shift = mean - self.mean
        self.mean += shift / self.n
        self.square += (square - self.square) / self.n + shift**2 * (self.n - 1) / self.n**2
        self.totals += (means - self.totals) / self.n
        self.change = np.maximum(self.change, np.abs(means - means[0]))
        if np.isnan(self.thumbnails[class_id]).all():
            self.thumbnails[class_id] = states[-1]

    def report(self, path: Any, traj: Trajectories, residuals: dict[str, float]) -> Inspection:
        scale = np.sqrt(self.square + self.mean**2)
        drift = self.change / np.maximum(scale, np.finfo(np.float32).tiny)
        conserved = np.full(len(scale), traj.channel_names == CE_CHANNELS or traj.equation == "NS")
        for name, kept, moved in zip(traj.channel_names, conserved, drift.max(0), strict=True):
            if kept and moved > _DRIFT:
                self.problem(f"total {name} drifts by {moved:.1e} of its root mean square, though it is conserved")
        if self.n_problems > len(self.problems):
            self.problems.append(f"… and {self.n_problems - len(self.problems)} more")
        sources = traj.provenance.get("concatenated", [traj.provenance])
        shown = path if isinstance(path, str | os.PathLike) else ", ".join(map(str, path))
        counts = np.bincount(traj.class_ids, minlength=len(traj.class_names))
        return Inspection(
            str(shown), tuple(dict.fromkeys(source["format"] for source in sources)), len(traj), self.n,
            traj.class_names, tuple(map(int, counts)), traj.n_times, traj.resolution, traj.time_step,
            traj.channel_names, self.mean, np.sqrt(self.square), self.lowest, self.highest, self.totals, drift,
            conserved, residuals, self.thumbnails, tuple(self.problems),
        )  # fmt: skip
