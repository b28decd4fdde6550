"""Random splits by trajectory, every class divided alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def part_sizes(n: int, fractions: Sequence[float]) -> list[int]:
    """``n`` divided by ``fractions``: sizes that add up, by largest remainder, none of them zero.

    Raises:
        ValueError: ``n`` is smaller than the number of parts.
    """
    if n < len(fractions):
        raise ValueError(f"{n} trajectories cannot fill {len(fractions)} parts")
    exact = np.asarray(fractions) / np.sum(fractions) * n
    # A share such as 0.65 · 20 must count as 13 whatever its last bits.
    sizes = np.floor(exact + 1e-9).astype(int)
    order = np.argsort(sizes - exact, kind="stable")
    sizes[order[: n - sizes.sum()]] += 1
    while sizes.min() == 0:
        sizes[sizes.argmax()] -= 1
        sizes[sizes.argmin()] += 1
    return [int(size) for size in sizes]


def stratified_split(
    class_ids: np.ndarray, class_names: Sequence[str], fractions: Sequence[float], seed: int
) -> list[np.ndarray]:
    """Positions of each part, ascending. Every class is shuffled on its own and divided by the same fractions.

    Raises:
        ValueError: a fraction is not positive, or they do not sum to one; a class is too small to give every part one.
    """
    shares = [float(f) for f in fractions]
    if len(shares) < 2 or not all(0 < f < 1 for f in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"`fractions` must be two or more positive numbers that sum to 1; got {tuple(fractions)}")
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for class_id in np.unique(class_ids):
        members = np.flatnonzero(class_ids == class_id)
        try:
            sizes = part_sizes(len(members), shares)
        except ValueError:
            raise ValueError(
                f"class {class_names[class_id]} has {len(members)} trajectories, too few for {len(shares)} parts: "
                f"give every class at least {len(shares)}"
            ) from None
        order = np.random.default_rng(np.random.SeedSequence([seed, int(class_id)])).permutation(members)
        for part, piece in zip(parts, np.split(order, np.cumsum(sizes)[:-1]), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]
