"""One pair of observables from one or many results, standardised, with labels and the clusters that are resampled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pdeinfl.analysis.standardization import standardize_values
from pdeinfl.engine.influence_matrix import Influence, Labels
from pdeinfl.engine.standardized_error import DIAGONAL_KINDS, standardized_error

# Dampings apart by more are other questions; by less they may be the same relative one.
_SAME_DAMPING = 2.0

LabelArrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
ResultKey = tuple[str, int, int, int]
"""(run, seed, epoch, mini-batch) of a result."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Blocks ``(n_response, n_perturbation)`` of many results.

    Attributes:
        keys: (run, seed, epoch, mini-batch) of each block.
        values: the blocks. rows, columns: labels of each block's responses and perturbations.
        errors: the error of each entry that the certificates of H allow, infinite where a scale is not resolved; None
            where a result has no bounds.
        clusters: ``(m,)``, the (run, seed, mini-batch) of each block, numbered seed by seed.
        seeds: ``(m,)``, the (run, seed) of each block. group_sizes: number of mini-batches of each (run, seed).
        n_masked: rows that have no scale and are NaN.
    """

    keys: tuple[ResultKey, ...]
    values: list[np.ndarray]
    errors: list[np.ndarray] | None
    rows: list[Labels]
    columns: list[Labels]
    distances: list[np.ndarray | None]
    clusters: np.ndarray
    seeds: np.ndarray
    group_sizes: tuple[int, ...]
    class_names: tuple[str, ...]
    n_masked: int

    def sides(self, attribute: str) -> tuple[np.ndarray, np.ndarray]:
        """One label array for the rows and one for the columns of all blocks, concatenated."""
        rows, columns = (np.concatenate([getattr(x, attribute) for x in side]) for side in (self.rows, self.columns))
        return rows.astype(np.int64, copy=False), columns.astype(np.int64, copy=False)

    def class_labels(self) -> LabelArrays:
        """Class and time of rows and columns."""
        (row_class, column_class), (row_time, column_time) = self.sides("class_ids"), self.sides("times")
        return row_class, row_time, column_class, column_time

    def trajectory_labels(self) -> LabelArrays:
        """A number per (class, trajectory), and time, of rows and columns."""
        row_class, row_time, column_class, column_time = self.class_labels()
        ids = np.concatenate(self.sides("trajectory_ids"))
        code = np.unique(ids, return_inverse=True)[1].reshape(ids.shape) * len(self.class_names)
        n = len(row_class)
        return code[:n] + row_class, row_time, code[n:] + column_class, column_time


def require_same_examples(result: Influence) -> None:
    """Refuse a result that has no diagonal.

    Raises:
        ValueError: its responses are not the perturbed examples in the same order.
    """
    if not result.same_examples:
        raise ValueError("`results` must respond on the examples that perturb, in the same order; one does not")


def _check_alike(dampings: Sequence[float], metrics: set[str], sizes: set[int]) -> None:
    """One question for all: the damping, the metric and the network decide what H means.

    Raises:
        ValueError: metrics differ.
    """
    if len(metrics) > 1:
        raise ValueError(f"`results` must share their metric; got {' and '.join(sorted(metrics))}")
    known = [d for d in dampings if math.isfinite(d)]
    if known and max(known) > _SAME_DAMPING * min(known):
        warnings.warn(
            f"results at dampings from {min(known):.3g} to {max(known):.3g} are pooled: solve all of them at one, "
            "`pi.influence(..., damping=first.damping)`, or take them there by `at_damping`",
            stacklevel=3,
        )
    if len(sizes) > 1:
        counts = " and ".join(f"{size:,}" for size in sorted(sizes))
        warnings.warn(
            f"results of networks with {counts} parameters are pooled: aggregate those of each network by themselves",
            stacklevel=3,
        )


def select(
    results: Influence | Iterable[Influence],
    response: str = "smse",
    perturbation: str = "smse",
    standardize: str = "standard",
) -> Selection:
    """The ``(response, perturbation)`` block of every result, standardised mini-batch by mini-batch.

    An iterable is consumed one result at a time and only the block is kept, so results may stream from a store.

    Warns where their dampings are more than a factor of two apart, or their networks of different size.

    Raises:
        ValueError: nothing given, an observable that a result lacks, class names or metrics that differ, two results of
            the same run, seed, epoch and mini-batch, or a standardisation that a block cannot take.
    """
    blocks: list[np.ndarray] = []
    losses: list[np.ndarray | None] = []
    bounds: list[tuple[np.ndarray, np.ndarray]] = []
    rows, columns, distances = [], [], []
    keys: dict[ResultKey, None] = {}
    names: tuple[str, ...] | None = None
    dampings: list[float] = []
    metrics: set[str] = set()
    sizes: set[int] = set()
    for result in (results,) if isinstance(results, Influence) else results:
        if not isinstance(result, Influence):
            raise ValueError(f"`results` must be an Influence or a sequence of them; got {type(result).__name__}")
        if standardize in DIAGONAL_KINDS:
            require_same_examples(result)
        for argument, name, known in (
            ("response", response, result.response_names),
            ("perturbation", perturbation, result.perturbation_names),
        ):
            if name not in known:
                raise ValueError(f"`{argument}` must be one of {', '.join(known)}; got {name!r}")
        for labels in (result.response_labels, result.perturbation_labels):
            names = tuple(labels.class_names) if names is None else names
            if tuple(labels.class_names) != names:
                raise ValueError(f"results must share their class names; got {names} and {tuple(labels.class_names)}")
        dampings.append(result.damping)
        if "metric" in result.settings:
            metrics.add(result.settings["metric"])
        if "n_parameters" in result.settings:
            sizes.add(result.settings["n_parameters"])
        blocks.append(np.ascontiguousarray(result[response, perturbation], dtype=np.float64))
        losses.append(result.losses)
        pair = result.pair_index(response, perturbation)
        bounds.append((result.error_bound[pair], result.row_error[pair]))
        rows.append(result.response_labels)
        columns.append(result.perturbation_labels)
        distances.append(result.input_distance)
        key = (result.run, result.seed, result.epoch, result.mini_batch)
        if key in keys:
            raise ValueError(
                f"`results` must differ in run, seed, epoch or mini-batch; got two of {key}: label each "
                "with `pi.influence(..., mini_batch=k)`, or `seed`, `epoch`, `run`"
            )
        keys[key] = None
    if names is None:
        raise ValueError("`results` is empty: give at least one Influence")
    _check_alike(dampings, metrics, sizes)
    values, n_masked = _standardize(blocks, losses, standardize)
    errors = None
    if not any(np.isnan(array).any() for array in (*(bound for bound, _ in bounds), *blocks)):
        errors = [
            standardized_error(block, *bound, standardize, loss)
            for block, bound, loss in zip(blocks, bounds, losses, strict=True)
        ]
    # Epochs of one mini-batch are not independent: they are resampled together.
    cluster_keys = [(run, seed, mini_batch) for run, seed, _, mini_batch in keys]
    clusters = sorted(set(cluster_keys))
    numbers = {key: k for k, key in enumerate(clusters)}
    seeds = sorted({key[:2] for key in clusters})
    seed_numbers = {seed: k for k, seed in enumerate(seeds)}
    return Selection(
        keys=tuple(keys),
        values=values,
        errors=errors,
        rows=rows,
        columns=columns,
        distances=distances,
        clusters=np.array([numbers[key] for key in cluster_keys], dtype=np.int64),
        seeds=np.array([seed_numbers[key[:2]] for key in keys], dtype=np.int64),
        group_sizes=tuple(sum(seed == other[:2] for other in clusters) for seed in seeds),
        class_names=names,
        n_masked=n_masked,
    )


def _standardize(blocks: list[np.ndarray], losses: list[np.ndarray | None], kind: str) -> tuple[list[np.ndarray], int]:
    """Standardise blocks of equal shape in one call each."""
    if kind == "loss" and any(x is None for x in losses):
        raise ValueError('standardize="loss" needs `losses`, which at least one result lacks')
    out: list[np.ndarray] = list(blocks)
    n_masked = 0
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for k, block in enumerate(blocks):
        by_shape.setdefault(block.shape, []).append(k)
    for indices in by_shape.values():
        scale = np.stack([np.asarray(losses[k]) for k in indices]) if kind == "loss" else None
        values, masked = standardize_values(np.stack([blocks[k] for k in indices]), kind, scale)
        n_masked += masked
        for k, block in zip(indices, values, strict=True):
            out[k] = block
    return out, n_masked
