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
from pdeinfl.engine.threads import num_threads

# Columns of a panel in which long vectors are updated in float64.
_PANEL = 1 << 16
# Squared length that a unit vector must keep through the second pass of Gram–Schmidt: then twice is enough.
_SOUND = 0.5


def inner(a: Tensor, b: Tensor | list[Tensor]) -> Tensor:
    """``a bᵀ`` with float64 products, ``(n, K), (m, K) → (n, m)``, on the CPU; a list b is stacked by rows.

    CPU operands go to the Rust contraction without a copy; CUDA operands are multiplied in float64 panels.
    """
    blocks = b if isinstance(b, list) else [b]
    if a.device.type == "cpu":
        stacked = [block.contiguous().numpy() for block in blocks]
        return torch.from_numpy(_core.cross_gram(a.contiguous().numpy(), stacked, "float64", num_threads()))
    out = torch.zeros(len(a), sum(len(block) for block in blocks), dtype=torch.float64, device=a.device)
    for start in range(0, a.shape[1], _PANEL * 16):
        part = slice(start, start + _PANEL * 16)
        left = a[:, part].double()
        out += torch.cat([left @ block[:, part].to(a.device).double().T for block in blocks], 1)
    return out.cpu()


class Basis:
    """Orthonormal rows ``(r, K)``, appended block by block.

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

    def __len__(self) -> int:
        return sum(len(b) for b in self._blocks)

    @property
    def n_spilled(self) -> int:
        """Rows that live on disk."""
        return 0 if self._spill is None else self._n_spilled

    def append(self, rows: Tensor) -> None:
        """Store a block of rows as they are."""
        rows = rows.to(self.dtype).contiguous()
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

    def last(self) -> Tensor:
        """The block appended last."""
        return self._blocks[-1]

    def inner(self, rows: Tensor) -> Tensor:
        """``rows · Qᵀ`` with float64 products: ``(k, r)``, on the CPU."""
        if not self._blocks:
            return torch.zeros(len(rows), 0, dtype=torch.float64)
        return inner(rows.to(self.dtype), self._blocks)

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
        coefficients = coefficients.to(rows.device)
        start = 0
        for block in self._blocks:
            weights = coefficients[:, start : start + len(block)]
            start += len(block)
            if not bool(weights.any()):
                continue
            for low in range(0, self.length, _PANEL):
                part = slice(low, low + _PANEL)
                rows[:, part].addmm_(weights, block[:, part].to(rows.device, non_blocking=True).double())

    def extend(self, rows: Tensor, floor: float) -> Tensor:
        """Append what the rows add to the span and return their coordinates in the grown basis.

        Two passes of block Gram–Schmidt in float64; in between, a rank-revealing eigendecomposition of the block drops
        directions of norm at most ``floor`` (the rounding of the products that made the rows). What the second pass
        makes shorter than √½ was rounding of the first, as where the space is exhausted, and is dropped as well: it
        held less than √eps of the longest row.

        Args:
            rows: ``(k, K)``, any floating dtype. floor: absolute norm below which a direction is noise.

        Returns:
            ``(k, r_new)`` float64: ``rows ≈ coordinates · Q``, up to ``floor`` per dropped direction.
        """
        if not len(rows):
            return torch.zeros(0, len(self), dtype=torch.float64)
        work = rows.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
        old = self.inner(work)
        self.subtract(work, old)
        # What rounding to the storage dtype leaves of the old span must not pass for a new direction.
        noise = 4 * torch.finfo(self.dtype).eps * float(torch.linalg.vector_norm(rows.double(), dim=1).max())
        eigenvalues, vectors = torch.linalg.eigh(inner(work, work))
        keep = eigenvalues > max(floor, noise) ** 2
        if not bool(keep.any()):
            return old
        weights = vectors[:, keep] * eigenvalues[keep].sqrt()
        fresh = (vectors[:, keep] / eigenvalues[keep].sqrt()).T.to(work.device) @ work
        again = self.inner(fresh)
        self.subtract(fresh, again)
        coordinates = old + weights @ again
        sizes, vectors = torch.linalg.eigh(inner(fresh, fresh))
        sound = sizes > _SOUND
        if not bool(sound.all()):
            if not bool(sound.any()):
                return coordinates
            weights = weights @ (vectors[:, sound] * sizes[sound].sqrt())
            fresh = (vectors[:, sound] / sizes[sound].sqrt()).T.to(work.device) @ fresh
            again = self.inner(fresh)
            self.subtract(fresh, again)
            coordinates += weights @ again
        factor = torch.linalg.cholesky(inner(fresh, fresh))
        fresh = torch.linalg.solve_triangular(factor.to(fresh.device), fresh, upper=False)
        self.append(fresh)
        return torch.cat([coordinates, weights @ factor], 1)


def pad_columns(blocks: list[Tensor], n_columns: int) -> Tensor:
    """Stack coordinate blocks of growing width into one matrix of ``n_columns``."""
    out = torch.zeros(sum(len(b) for b in blocks), n_columns, dtype=torch.float64)
    start = 0
    for block in blocks:
        out[start : start + len(block), : block.shape[1]] = block
        start += len(block)
    return out
