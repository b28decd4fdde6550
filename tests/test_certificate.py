"""The two-sided certificate on random matrices, where everything is known."""

import numpy as np
import pytest

from pdeinfl.engine.certificate import DampingPath, certify, observable_blocks, relative_error, rounding_factor

EPS = np.finfo(np.float64).eps


class Known:
    """``A = JᵀJ`` with a prescribed spectrum, gradients in its range, and the certificate of a random subspace."""

    def __init__(self, seed=0, n_outputs=30, n_parameters=50, n=4, decay=0.6):
        rng = np.random.default_rng(seed)
        left = np.linalg.qr(rng.standard_normal((n_outputs, n_outputs)))[0]
        right = np.linalg.qr(rng.standard_normal((n_parameters, n_outputs)))[0]
        self.j = (left * decay ** np.arange(n_outputs)) @ right.T
        self.rng, self.n = rng, n
        self.a = rng.standard_normal((n, n_outputs)) @ self.j
        self.b = rng.standard_normal((n, n_outputs)) @ self.j

    def exact(self, damping, left=None, right=None):
        eta = self.j.T @ self.j + damping * np.eye(self.j.shape[1])
        return (self.a if left is None else left) @ np.linalg.solve(eta, (self.b if right is None else right).T)

    def grams(self, n_a=1, n_b=1):
        return [observable_blocks(g @ g.T, np.arange(len(g)), n) for g, n in ((self.a, n_a), (self.b, n_b))]

    def path(self, q, u, n_a=1, n_b=1):
        """Q ``(r, P)`` and U ``(m, N·D)`` with orthonormal rows."""
        m, k = q @ self.j.T, u @ self.j
        ritz, inside = np.linalg.eigh(m @ m.T)
        upper_ritz, above = np.linalg.eigh(k @ k.T)
        lower = [g @ q.T @ inside for g in (self.a, self.b)]
        upper = [g @ k.T @ above for g in (self.a, self.b)]
        return DampingPath(ritz.clip(0), *lower, upper_ritz.clip(0), *upper, self.a @ self.b.T, *self.grams(n_a, n_b))

    def subspaces(self, r):
        q = np.linalg.qr(np.concatenate([self.b, self.rng.standard_normal((r, self.j.shape[1]))]).T)[0].T
        u = np.linalg.qr((q @ self.j.T).T)[0].T
        return q, u


DAMPINGS = (1e1, 1e-1, 1e-3, 1e-5)


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("seed", range(3))
def test_any_subspace_gives_two_sided_bounds(damping, seed):
    known = Known(seed)
    known.a = known.b
    path = known.path(*known.subspaces(6))
    h = known.exact(damping)
    room = 64 * EPS * (1 + 1 / damping) * np.abs(h).max()
    assert np.linalg.eigvalsh(h - path.lower(damping)).min() >= -room
    assert np.linalg.eigvalsh(path.upper(damping) - h).min() >= -room
    for tol in (1e-12, 1e12):  # H_L and the midpoint
        certified = certify(path, (1, 1, known.n, known.n), damping, 0.0, tol)
        assert (np.abs(certified.values[0, 0] - h) <= certified.error_bound[0, 0] + room).all()
        assert certified.converged is (tol > 1)


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_were_not_in_the_start_block_are_bounded_too(damping, seed):
    known = Known(seed)
    path = known.path(*known.subspaces(4))
    h = known.exact(damping)
    sizes = [np.diag(known.exact(damping, g, g)) for g in (known.a, known.b)]
    room = 64 * EPS * (1 + 1 / damping) * np.sqrt(np.outer(*sizes))
    for tol in (1e-12, 1e12):
        certified = certify(path, (1, 1, known.n, known.n), damping, 0.0, tol)
        assert (np.abs(certified.values[0, 0] - h) <= certified.error_bound[0, 0] + room).all()


@pytest.mark.parametrize("damping", DAMPINGS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tol", [1e-12, 1e12], ids=["lower", "midpoint"])
def test_relative_error_bounds_the_frobenius_norm_and_is_no_larger_than_the_elementwise_bounds(damping, seed, tol):
    known = Known(seed, n=6)
    shape = (2, 3, 3, 2)
    certified = certify(known.path(*known.subspaces(5), 2, 3), shape, damping, 0.0, tol)
    h = known.exact(damping).reshape(2, 3, 3, 2).transpose(0, 2, 1, 3)
    true = np.linalg.norm(certified.values - h, axis=(2, 3)) / np.linalg.norm(certified.values, axis=(2, 3))
    assert (true <= certified.relative_error + 64 * EPS * (1 + 1 / damping)).all()
    elementwise = relative_error(certified.values, certified.error_bound)
    assert (certified.relative_error <= elementwise * (1 + 64 * EPS)).all()
    assert (certified.relative_error < 0.95 * elementwise).any()
    rows, norms = np.linalg.norm(certified.values - h, axis=-1), np.linalg.norm(certified.error_bound, axis=-1)
    assert (rows <= certified.row_error + 64 * EPS * (1 + 1 / damping) * np.abs(h).max()).all()
    assert (certified.row_error <= norms * (1 + 64 * EPS)).all()
    assert (certified.row_error < 0.999 * norms).any()


def test_nested_subspaces_tighten_both_sides():
    known = Known()
    known.a = known.b
    q, u = known.subspaces(12)
    for damping in DAMPINGS:
        paths = [known.path(q[:r], u[:r]) for r in (4, 8, 16)]
        room = 64 * EPS * (1 + 1 / damping) * np.abs(known.exact(damping)).max()
        for coarse, fine in ((paths[0], paths[1]), (paths[1], paths[2])):
            assert np.linalg.eigvalsh(fine.lower(damping) - coarse.lower(damping)).min() >= -room
            assert np.linalg.eigvalsh(coarse.upper(damping) - fine.upper(damping)).min() >= -room


def test_rounding_that_hides_a_narrow_width_does_not_cancel_a_wide_one():
    # One perturbation whose two sides agree by rounding (true width 2ρH), one response whose sides are far apart.
    n, rho = 1, 1e-6
    one, far = np.array([[1.0]]), np.array([[0.5]])
    path = DampingPath(np.array([0.0]), far, one, np.array([0.0]), one * 0, one * 0, np.array([[1.0]]),
                       one[None], one[None])  # fmt: skip
    certified = certify(path, (1, 1, n, n), 1.0, rho, 1e-12)
    wide = 1.0 - 0.25
    assert certified.error_bound[0, 0, 0, 0] >= np.sqrt(wide * 2 * rho)
    assert certified.rounding[0, 0, 0, 0] == rho


def test_exact_paths_report_rounding_alone():
    known = Known()
    values, vectors = np.linalg.eigh(known.j.T @ known.j)
    empty = np.empty((known.n, 0))
    path = DampingPath(values.clip(0), known.a @ vectors, known.b @ vectors, np.empty(0), empty, empty,
                       known.a @ known.b.T, *known.grams(), exact=True)  # fmt: skip
    for damping in (1e-1, 1e-3):
        certified = certify(path, (1, 1, known.n, known.n), damping, 1e-9, 1e-6)
        h = known.exact(damping)
        size = np.sqrt(np.outer(*(np.diag(side.upper[0]) for side in path.sides(damping))))
        np.testing.assert_allclose(certified.values[0, 0], h, rtol=0, atol=64 * EPS * size.max() / damping)
        np.testing.assert_allclose(certified.error_bound[0, 0], 1e-9 * size, rtol=64 * EPS)
        np.testing.assert_allclose(certified.row_error[0, 0], 1e-9 * np.linalg.norm(size, axis=1), rtol=64 * EPS)
        assert certified.converged


def test_blocks_are_observable_major():
    known = Known(n=6)
    path = known.path(*known.subspaces(4), 2, 3)
    certified = certify(path, (2, 3, 3, 2), 1e-2, 0.0, 1e-12)
    assert certified.values.shape == (2, 3, 3, 2)
    assert certified.values[1, 2, 0, 1] == path.lower(1e-2)[3, 5]
    assert certified.relative_error.shape == (2, 3)


def test_degrees_of_freedom_grow_with_the_subspace_and_shrink_with_damping():
    known = Known()
    q, u = known.subspaces(12)
    small, large = known.path(q[:6], u[:6]), known.path(q, u)
    true = np.linalg.eigvalsh(known.j @ known.j.T)
    for damping in DAMPINGS:
        whole = np.sum(true / (true + damping))
        assert small.subspace_dof(damping) <= large.subspace_dof(damping) <= whole * (1 + 64 * EPS / damping)
    assert large.subspace_dof(1e-3) > large.subspace_dof(1e-1)


def test_residual_form_bounds_the_lower_side():
    """After Golub–Kahan from G, ``(H − H_L)_jj = r_jᵀη⁻¹r_j`` lies under the residual form, which shrinks with it."""
    known = Known(n=3)
    q, u = np.linalg.qr(known.b.T)[0].T, None
    for _ in range(3):
        u = np.linalg.qr((q @ known.j.T).T)[0].T
        grown = np.linalg.qr(np.concatenate([q, u @ known.j]).T)[0].T
        previous, q = q, grown
    m, k = previous @ known.j.T, u @ known.j
    ritz, inside = np.linalg.eigh(m @ m.T)
    upper_ritz, above = np.linalg.eigh(k @ k.T)
    fresh = k @ q[len(previous) :].T
    low, up = known.b @ previous.T @ inside, known.b @ k.T @ above
    gram = (known.b @ known.b.T)[None]
    path = DampingPath(
        ritz.clip(0), low, low, upper_ritz.clip(0), up, up, gram[0], gram, gram,
        (inside.T @ (m @ u.T) @ fresh).T, *[known.b @ q[len(previous) :].T] * 2, above.T @ fresh, np.ones(3, bool),
    )  # fmt: skip
    for damping in DAMPINGS:
        h = known.exact(damping, known.b, known.b)
        above = path.residual_gaps(damping)[1][0] * (1 + 1e-6) - (h - path.lower(damping))
        assert np.linalg.eigvalsh(above).min() >= -64 * EPS * (1 + 1 / damping) * np.abs(h).max()
    assert np.diag(path.residual_gaps(1e-1)[1][0]).max() < 10 * np.diag(known.exact(1e-1, known.b, known.b)).max()


def test_relative_error_of_nothing_is_zero_and_of_something_about_nothing_infinite():
    values, bound = np.zeros((1, 2, 2, 2)), np.zeros((1, 2, 2, 2))
    bound[0, 1] = 1.0
    assert relative_error(values, bound).tolist() == [[0.0, np.inf]]


@pytest.mark.parametrize("stretch", [1e1, 1e3, 1e6])
def test_the_rounding_factor_bounds_the_effect_of_perturbed_products(stretch):
    known = Known(decay=0.8)
    top = np.linalg.norm(known.j, 2) ** 2
    damping, delta = top / stretch, 1e-7
    gradient = known.b
    h = known.exact(damping, gradient, gradient)
    worst = 0.0
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal(known.j.shape)
        moved = Known(decay=0.8)
        moved.j = known.j + delta * np.sqrt(top) * noise / np.linalg.norm(noise, 2)
        change = np.abs(moved.exact(damping, gradient, gradient) - h)
        worst = max(worst, float((change / np.sqrt(np.outer(np.diag(h), np.diag(h)))).max()))
    assert worst <= rounding_factor(delta, 0.0, top, damping)


def test_not_a_number_is_no_certainty():
    ones, unknown = np.ones((1, 1, 2, 2)), np.full((1, 1, 2, 2), np.nan)
    assert np.isnan(relative_error(ones, unknown)).all()
    assert (relative_error(unknown, ones) == np.inf).all()
    assert relative_error(0 * ones, 0 * ones) == 0
    assert relative_error(0 * ones, ones) == np.inf
