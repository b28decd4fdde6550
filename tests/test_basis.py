"""The growing orthonormal basis: orthogonality, coordinates, its Gram matrix, and what it drops."""

import numpy as np
import pytest
import torch

from pdeinfl.engine.basis import Basis

LENGTH = 5_000
DTYPES = [torch.float32, torch.float64]


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def stacked(basis):
    return torch.cat(basis._blocks).double()


def extended(basis, rows, floor=0.0):
    """The coordinates, after the checks that hold for any rows: Q orthonormal, its factor, the rows reproduced."""
    rows = rows.to(basis.dtype)
    coordinates = basis.extend(rows, floor)
    q, eps = stacked(basis), torch.finfo(basis.dtype).eps
    identity = torch.eye(len(q), dtype=torch.float64)
    gram = q @ q.T
    assert float((gram - identity).abs().max()) <= 16 * eps
    assert float((basis.factor @ basis.factor.T - gram).abs().max()) <= 1e-14
    assert coordinates.shape == (len(rows), len(basis))
    left = rows.double() - coordinates @ q
    size = float(torch.linalg.vector_norm(rows.double(), dim=1).max())
    # What may be dropped: directions of a few eps of the longest row, each or below the floor.
    assert float(torch.linalg.vector_norm(left, dim=1).max()) <= len(rows) * max(floor, 8 * eps * size)
    return coordinates


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_any_kind_keep_it_orthonormal(dtype):
    basis = Basis(LENGTH, dtype, torch.device("cpu"))
    for seed in range(6):
        extended(basis, random(5, LENGTH, seed=seed))
    assert len(basis) == 30


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outside", [1e-2, 1e-4, 1e-6, 1e-8])
def test_what_is_almost_inside_leaves_an_orthogonal_rest(dtype, outside):
    """Rows whose part outside the span is smaller and smaller: the first pass leaves the more of the span in it."""
    basis = Basis(LENGTH, dtype, torch.device("cpu"))
    extended(basis, random(20, LENGTH))
    inside = random(6, 20, seed=1) @ stacked(basis)
    inside /= torch.linalg.vector_norm(inside, dim=1, keepdim=True)
    fresh = random(6, LENGTH, seed=2)
    extended(basis, inside + outside * fresh / torch.linalg.vector_norm(fresh, dim=1, keepdim=True))
    resolved = outside > 32 * torch.finfo(dtype).eps
    assert len(basis) == 26 if resolved else 20 <= len(basis) <= 26


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_of_very_unequal_directions_is_orthonormal(dtype):
    basis = Basis(LENGTH, dtype, torch.device("cpu"))
    sizes = torch.logspace(0, -5, 8, dtype=torch.float64)
    mixed = torch.linalg.qr(random(8, 8, seed=3)).Q @ (sizes[:, None] * random(8, LENGTH))
    extended(basis, mixed)
    assert len(basis) == 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_added_by_what_lies_inside(dtype):
    basis = Basis(LENGTH, dtype, torch.device("cpu"))
    extended(basis, random(10, LENGTH))
    extended(basis, stacked(basis)[:3] * 7)
    assert len(basis) == 10


def test_directions_below_the_floor_are_dropped():
    basis = Basis(LENGTH, torch.float64, torch.device("cpu"))
    rows = torch.linalg.qr(random(LENGTH, 3)).Q.T * torch.tensor([[1.0], [1e-3], [1e-6]], dtype=torch.float64)
    assert basis.extend(rows, 1e-4).shape == (3, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [4, 200])
@pytest.mark.parametrize("seed", range(12))
def test_dependent_rows_add_their_rank(dtype, length, seed):
    """Copies, multiples and sums of rows: what is left of one below the rounding of another is no direction."""
    generator = np.random.default_rng(seed)
    whole = torch.from_numpy(generator.integers(-2, 3, (7, length)).astype(float))
    unit = random(3, length, seed=seed)[torch.from_numpy(generator.integers(0, 3, 7))]
    unit /= torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    for rows in (whole, unit, torch.cat([whole, -2 * whole]), unit + 3 * unit.roll(1, 0)):
        basis = Basis(length, dtype, torch.device("cpu"))
        floor = 64 * torch.finfo(dtype).eps * float(torch.linalg.matrix_norm(rows))
        extended(basis, rows, floor)
        assert len(basis) == np.linalg.matrix_rank(rows.numpy())
        extended(basis, rows.flip(0), floor)
        assert len(basis) == np.linalg.matrix_rank(rows.numpy())
