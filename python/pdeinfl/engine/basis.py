"""A growing orthonormal basis whose long vectors may live in memory or on disk."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pdeinfl import _core
from pdeinfl.engine.memory import return_freed_memory
from pdeinfl.engine.precision import float32_products
from pdeinfl.engine.threads import num_threads

# Columns of a panel of long vectors that is widened to float64 at a time, off the CPU.
_PANEL = 1 << 20
# Of the storage dtype's eps: what a new vector may keep of an old one.
_CLEAN = 8
# Squared length that a unit vector must keep when what it holds of the old ones is taken out.
_SOUND = 0.5
# Squared norm, of the longest direction's, that an eigendecomposition of float64 products resolves well.
_RESOLVED = 1e-12


def inner(a: Tensor, b: Tensor | list[Tensor], products: str = "float64") -> Tensor:
    """``a bᵀ`` with float64 (or float32) products, ``(n, K), (m, K) → (n, m)`` float64, on the CPU; a list b is stacked
    by rows.

    CPU operands go to the Rust contraction without a copy; CUDA operands are multiplied in panels.
    """
    blocks = b if isinstance(b, list) else [b]
    if a.device.type == "cpu":
        stacked = [block.contiguous().numpy() for block in blocks]
        return torch.from_numpy(_core.cross_gram(a.contiguous().numpy(), stacked, products, num_threads()))
    dtype = getattr(torch, products)
    out = torch.zeros(len(a), sum(len(block) for block in blocks), dtype=torch.float64, device=a.device)
    with float32_products("float32", a.device):
        for start in range(0, a.shape[1], _PANEL):
            part = slice(start, start + _PANEL)
            left = a[:, part].to(dtype)
            out += torch.cat([left @ block[:, part].to(a.device, dtype).T for block in blocks], 1)
    return out.cpu()


class Basis:
    """Orthonormal rows ``(r, K)``, appended block by block; Q of the stored ones, orthonormal to the rounding of their
    dtype, with ``factor·factorᵀ = QQᵀ``: ``factor⁻¹Q`` is orthonormal in float64.

    Args:
        length: K. dtype: storage dtype. device: where the blocks are used.
        memory_budget: bytes that the rows may hold on the device; beyond it further blocks go to a temporary file.
        pinned_budget: of a CUDA device, bytes of pinned host memory that are filled before files.
        directory: where that file is made; default the system's temporary directory.
    """

    def __init__(
        self,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
        memory_budget: float = float("inf"),
        pinned_budget: float = 0.0,
        directory: str | None = None,
    ) -> None:
        self.length, self.dtype, self.device = length, dtype, device
        self._budget = memory_budget
        self._pinned_budget = pinned_budget if device.type == "cuda" else 0.0
        self._directory = directory
        self._spill: Path | None = None
        self._blocks: list[Tensor] = []
        self.factor = torch.zeros(0, 0, dtype=torch.float64)

    def __len__(self) -> int:
        return sum(len(b) for b in self._blocks)

    @property
    def n_spilled(self) -> int:
        """Rows that live on disk."""
        return 0 if self._spill is None else self._n_spilled

    def append(self, rows: Tensor, among: Tensor | None = None) -> None:
        """Store a block of nearly orthonormal rows as they are; ``among``, where known, is their `inner`."""
        rows = rows.to(self.dtype).contiguous()
        below = torch.linalg.solve_triangular(
            self.factor, (self.inner(rows) if among is None else among).T, upper=False
        )
        corner = torch.linalg.cholesky(inner(rows, rows) - below.T @ below)
        top = torch.nn.functional.pad(self.factor, (0, len(rows)))
        self.factor = torch.cat([top, torch.cat([below.T, corner], 1)])
        size = rows.numel() * rows.element_size()
        if size <= self._budget:
            self._budget -= size
            self._blocks.append(rows)
        elif size <= self._pinned_budget:
            self._pinned_budget -= size
            self._blocks.append(rows.cpu().pin_memory())
        else:
            self._blocks.append(self._to_disk(rows.cpu()))

    def _to_disk(self, rows: Tensor) -> Tensor:
        if self._spill is None:
            self._spill = Path(tempfile.mkdtemp(prefix="pdeinfl-basis-", dir=self._directory))
            weakref.finalize(self, shutil.rmtree, self._spill, ignore_errors=True)
            self._n_spilled = 0
        self._n_spilled += len(rows)
        path = self._spill / f"{len(self._blocks)}.npy"
        array = rows.numpy()
        np.save(path, array)
        return_freed_memory()
        return torch.from_numpy(np.load(path, mmap_mode="r+"))

    def since(self, start: int) -> Tensor:
        """The rows from ``start``, the first of a block, on: ``(r − start, K)``, on the device."""
        blocks: list[Tensor] = []
        n = len(self)
        while n > start:
            blocks.insert(0, self._blocks[-1 - len(blocks)].to(self.device))
            n -= len(blocks[0])
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def inner(self, rows: Tensor, products: str = "float64") -> Tensor:
        """``rows · Qᵀ`` with float64 (or float32) products: ``(k, r)``, on the CPU."""
        if not self._blocks:
            return torch.zeros(len(rows), 0, dtype=torch.float64)
        return inner(rows.to(self.dtype), self._blocks, products)

    def subtract(self, rows: Tensor, coefficients: Tensor) -> None:
        """``rows −= coefficients · Q`` in place; float64 rows ``(k, K)``, coefficients ``(k, r)``."""
        self._accumulate(rows, -coefficients)

    def combine(self, coefficients: Tensor) -> Tensor:
        """``coefficients · Q`` in float64: ``(k, r) → (k, K)``."""
        out = torch.zeros(len(coefficients), self.length, dtype=torch.float64, device=self.device)
        self._accumulate(out, coefficients)
        return out

    def _accumulate(self, rows: Tensor, coefficients: Tensor) -> None:
        if not self._blocks:
            return
        if rows.device.type == "cpu":
            blocks = [block.numpy() for block in self._blocks]
            _core.combine_into(coefficients.contiguous().numpy(), blocks, rows.numpy(), num_threads())
            return
        start = 0
        for block in self._blocks:
            weights = coefficients[:, start : start + len(block)]
            start += len(block)
            if not bool(weights.any()):
                continue
            weights = weights.to(rows.device)
            for low in range(0, self.length, _PANEL):
                part = slice(low, low + _PANEL)
                rows[:, part].addmm_(weights, block[:, part].to(rows.device, non_blocking=True).double())

    def extend(self, rows: Tensor, floor: float) -> Tensor:
        """Append what the rows add to the span and return their coordinates in the grown Q.

        Block Gram–Schmidt, updated in float64; coefficients of the first pass by products in the storage dtype: what
        they miss is found by the second. An eigendecomposition of what is left drops directions of norm at most
        ``floor`` (the rounding of the products that made the rows). The second pass measures in float64 what the rows,
        as they are stored, hold of the old vectors. Only where that is more than ``8·eps`` it is taken out, and what
        becomes shorter than √½ by that dropped: it was rounding of the first pass, as where the space is exhausted.
        Directions a millionth of the longest one and shorter take another turn, from what is left without that one.

        Args:
            rows: ``(k, K)``, any floating dtype. floor: absolute norm below which a direction is noise.

        Returns:
            ``(k, r_new)`` float64: ``rows ≈ coordinates · Q``, up to ``floor`` per dropped direction.
        """
        if not len(rows):
            return torch.zeros(0, len(self), dtype=torch.float64)
        work = rows.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
        eps = torch.finfo(self.dtype).eps
        # What rounding to the storage dtype leaves of the old span must not pass for a new direction.
        floor = max(floor, 4 * eps * float(torch.linalg.vector_norm(work, dim=1).max()))
        coordinates = self.inner(work, str(self.dtype).removeprefix("torch."))
        self.subtract(work, coordinates)
        fresh, weights, is_left = _split(work, floor**2, eps)
        for is_last in (False, False, True):
            if not len(fresh):
                return coordinates
            stored = fresh.to(self.dtype)
            among = self.inner(stored)
            if is_last or not bool((among.abs() > _CLEAN * eps).any()):
                break
            self.subtract(fresh, among)
            coordinates += weights @ among
            fresh, change, _ = _split(fresh, _SOUND, eps)
            weights = weights @ change
        self.append(stored, among)
        coordinates = torch.cat([coordinates, weights], 1)
        if is_left:
            rest = rows.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
            self.subtract(rest, coordinates)
            more = self.extend(rest, floor)
            coordinates = torch.nn.functional.pad(coordinates, (0, more.shape[1] - coordinates.shape[1])) + more
        return coordinates


def _split(rows: Tensor, least: float, eps: float) -> tuple[Tensor, Tensor, bool]:
    """Directions of squared norm above ``least``, orthonormal to about ``eps``, the rows' coordinates in them, and
    whether shorter ones are left, which the products of the longest hide."""
    sizes, vectors = torch.linalg.eigh(inner(rows, rows))
    keep = sizes > max(least, _RESOLVED * float(sizes[-1]))
    is_left = bool((sizes[~keep] > least).any())
    root, vectors = sizes[keep].sqrt(), vectors[:, keep]
    directions, coordinates = (vectors / root).T.to(rows.device) @ rows, vectors * root
    # Rounding of the long ones is as much larger in the short ones.
    if len(root) and float((root[-1] / root[0]) ** 2) * torch.finfo(torch.float64).eps > eps:
        factor = torch.linalg.cholesky(inner(directions, directions))
        directions = torch.linalg.inv(factor).to(rows.device) @ directions
        coordinates = coordinates @ factor
    return directions, coordinates, is_left
