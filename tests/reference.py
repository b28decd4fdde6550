"""Slow, obvious NumPy and PyTorch versions of what the package computes fast. Tests compare against these."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

# --- contraction -----------------------------------------------------------------------------------------------------


def gram_reference(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """``a bᵀ`` with every product exact (for float32 and narrower) and every sum correctly rounded; slow."""
    left = a.astype(np.float64)
    right = left if b is None else b.astype(np.float64)
    return np.array([[math.fsum(x * y) for y in right] for x in left]).reshape(len(left), len(right))


def pairwise_distance_reference(states: np.ndarray) -> np.ndarray:
    """MATH 5: mean over channels of the mean squared difference over the mean RMS, from differences."""
    fields = states.astype(np.float64).reshape(*states.shape[:2], -1)
    rms = np.sqrt((fields**2).mean(-1))
    distances = np.zeros((len(fields), len(fields)))
    for i, x in enumerate(fields):
        for j, y in enumerate(fields):
            distances[i, j] = (((x - y) ** 2).mean(-1) / (0.5 * (rms[i] + rms[j]) + 1e-6)).mean()
    return distances


# --- euler and initial conditions ------------------------------------------------------------------------------------

GAMMA = 1.4


def euler_conserved(w):
    """(ρ, ρvx, ρvy, E) of (ρ, vx, vy, p) along axis 0."""
    rho, vx, vy, p = w
    return np.stack([rho, rho * vx, rho * vy, p / (GAMMA - 1) + 0.5 * rho * (vx**2 + vy**2)])


def euler_primitive(u):
    """(ρ, vx, vy, p) of (ρ, ρvx, ρvy, E) along axis 0."""
    rho, mx, my, energy = u
    return np.stack([rho, mx / rho, my / rho, (GAMMA - 1) * (energy - 0.5 * (mx**2 + my**2) / rho)])


def euler_flux_x(w):
    """Exact flux along x."""
    rho, vx, vy, p = w
    return np.stack([rho * vx, rho * vx**2 + p, rho * vx * vy, vx * (euler_conserved(w)[3] + p)])


def euler_hllc_x(left, right):
    """HLLC flux along x with Einfeldt's wave speeds, written as its four cases."""
    (rl, ul, _, pl), (rr, ur, _, pr) = left, right
    sl, sr = np.sqrt(rl), np.sqrt(rr)
    cl, cr = np.sqrt(GAMMA * pl / rl), np.sqrt(GAMMA * pr / rr)
    mean = (sl * ul + sr * ur) / (sl + sr)
    spread = np.sqrt((sl * cl**2 + sr * cr**2) / (sl + sr) + 0.5 * sl * sr / (sl + sr) ** 2 * (ur - ul) ** 2)
    slow, fast = np.minimum(ul - cl, mean - spread), np.maximum(ur + cr, mean + spread)
    middle = (pr - pl + rl * ul * (slow - ul) - rr * ur * (fast - ur)) / (rl * (slow - ul) - rr * (fast - ur))

    def star(w, wave):
        rho, u, v, p = w
        energy = euler_conserved(w)[3]
        inner = energy / rho + (middle - u) * (middle + p / (rho * (wave - u)))
        state = rho * (wave - u) / (wave - middle) * np.stack([np.ones_like(u), middle, v, inner])
        return euler_flux_x(w) + wave * (state - euler_conserved(w))

    cases = [slow >= 0, middle >= 0, fast > 0]
    fluxes = [euler_flux_x(left), star(left, slow), star(right, fast)]
    return np.select(cases, fluxes, euler_flux_x(right))


def euler_rate_of_change(u):
    """``−(F_{i+½} − F_{i−½})/Δx − (G_{j+½} − G_{j−½})/Δy`` by MUSCL with the monotonised-central limiter."""
    total = np.zeros_like(u)
    for axis in (0, 1):
        # With the channels of the velocities and the axes swapped, y is x.
        turn = (lambda a: a) if axis == 0 else (lambda a: a[[0, 2, 1, 3]].swapaxes(1, 2))
        w = euler_primitive(turn(u))
        back, ahead = w - np.roll(w, 1, 1), np.roll(w, -1, 1) - w
        size = np.minimum(np.minimum(2 * abs(back), 2 * abs(ahead)), abs(back + ahead) / 2)
        half = np.where(back * ahead > 0, np.sign(back) * size, 0) / 2
        positive = (w[0] > abs(half[0])) & (w[3] > abs(half[3]))
        half = np.where(positive, half, 0)
        flux = euler_hllc_x(w + half, np.roll(w - half, -1, 1))
        total += turn((np.roll(flux, 1, 1) - flux) * w.shape[1])
    return total


def euler_step(u, cfl=0.475, longest=np.inf):
    """One SSP-RK2 step of conserved ``(4, X, Y)`` on the periodic unit square, and its length."""
    w = euler_primitive(u)
    sound = np.sqrt(GAMMA * w[3] / w[0])
    dt = min(cfl / np.max((abs(w[1]) + sound) * u.shape[1] + (abs(w[2]) + sound) * u.shape[2]), longest)
    first = u + dt * euler_rate_of_change(u)
    return (u + first + dt * euler_rate_of_change(first)) / 2, dt


def riemann_exact(left, right, speeds):
    """Exact solution (ρ, u, p) of the 1-D Riemann problem at ``x/t = speeds``, without vacuum."""

    def wave(p, side):
        """Velocity change across the wave on one side when the pressure behind it is ``p``."""
        rho, _, q = side
        if p > q:
            return (p - q) * np.sqrt(2 / (rho * ((GAMMA + 1) * p + (GAMMA - 1) * q)))
        return 2 * np.sqrt(GAMMA * q / rho) / (GAMMA - 1) * ((p / q) ** ((GAMMA - 1) / (2 * GAMMA)) - 1)

    low, high = 1e-12, 1e3
    for _ in range(200):
        p = (low * high) ** 0.5
        excess = wave(p, left) + wave(p, right) + right[1] - left[1]
        low, high = (low, p) if excess > 0 else (p, high)
    u = (left[1] + right[1] + wave(p, right) - wave(p, left)) / 2

    def side(state, x, sign):
        """Solution on one side of the contact; ``sign`` −1 left (mirrored into the right-hand case), 1 right."""
        rho, v, q = state[0], sign * state[1], state[2]
        x, contact, c = sign * x, sign * u, np.sqrt(GAMMA * q / rho)
        if p > q:
            shock = v + c * np.sqrt((GAMMA + 1) / (2 * GAMMA) * p / q + (GAMMA - 1) / (2 * GAMMA))
            ratio = (GAMMA - 1) / (GAMMA + 1)
            behind = rho * (p / q + ratio) / (ratio * p / q + 1)
            return [np.where(x < shock, a, b) for a, b in ((behind, rho), (u, state[1]), (p, q))]
        tail = contact + c * (p / q) ** ((GAMMA - 1) / (2 * GAMMA))
        fan_u = (2 * (x - c) + (GAMMA - 1) * v) / (GAMMA + 1)
        fan_c = np.clip((2 * c + (GAMMA - 1) * (x - v)) / (GAMMA + 1), 0, None)
        fan = (rho * (fan_c / c) ** (2 / (GAMMA - 1)), sign * fan_u, q * (fan_c / c) ** (2 * GAMMA / (GAMMA - 1)))
        star = (rho * (p / q) ** (1 / GAMMA), u, p)
        return [np.select([x < tail, x < v + c], [a, b], d) for a, b, d in zip(star, fan, state, strict=True)]

    return np.stack(
        [np.where(speeds < u, a, b) for a, b in zip(side(left, speeds, -1), side(right, speeds, 1), strict=True)]
    )


# --- surrogates and observables --------------------------------------------------------------------------------------


def smse(pred, target):
    """Eq. 8 for one example, ``(C, X, ...)``: a list of per-channel terms; the SMSE is their mean."""
    terms = []
    for p, t in zip(np.asarray(pred, float), np.asarray(target, float), strict=True):
        terms.append(np.mean((p - t) ** 2) / (np.sqrt(np.mean(t**2)) + 1e-6))
    return terms


def drift(pred, state, scale):
    """``(M[ŷ] − M[x])² / (scale + 1e-6)`` of one channel of one example."""
    return (np.mean(np.asarray(pred, float)) - np.mean(np.asarray(state, float))) ** 2 / (scale + 1e-6)


def band_smse(pred, target, low, high):
    """SMSE of one example, ``(C, X, Y)``, with the error projected on modes ``low <= |k| < high``."""
    pred, target = np.asarray(pred, float), np.asarray(target, float)
    nx, ny = pred.shape[1:]
    x, y = np.arange(nx) / nx, np.arange(ny) / ny
    total = 0.0
    for p, t in zip(pred, target, strict=True):
        error, kept = p - t, np.zeros((nx, ny), complex)
        for kx in range(-(nx // 2), nx - nx // 2):
            for ky in range(-(ny // 2), ny - ny // 2):
                if low**2 <= kx**2 + ky**2 < high**2:
                    wave = np.exp(2j * np.pi * (kx * x[:, None] + ky * y[None, :]))
                    kept += np.mean(error * wave.conj()) * wave
        total += np.mean(np.abs(kept) ** 2) / (np.sqrt(np.mean(t**2)) + 1e-6)
    return total / len(pred)


def enstrophy(velocity):
    """``½ mean ω²`` of ``(2, X, Y)`` velocities on the unit square, by differentiation matrices of odd-sized grids."""

    def derivative(n):
        i = np.arange(n)
        gap = i[:, None] - i[None, :]
        with np.errstate(divide="ignore"):
            matrix = np.pi * (-1.0) ** gap / np.sin(np.pi * gap / n)
        matrix[i, i] = 0
        return matrix

    u, v = np.asarray(velocity, float)
    assert u.shape[0] % 2 == 1
    assert u.shape[1] % 2 == 1
    vorticity = derivative(u.shape[0]) @ v - u @ derivative(u.shape[1]).T
    return 0.5 * np.mean(vorticity**2)


# --- engine ----------------------------------------------------------------------------------------------------------


def in_float64(module):
    """A float64, complex128 copy in eval mode."""
    module = copy.deepcopy(module).eval()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            tensor.data = tensor.data.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return module


def explicit_jacobian(module, inputs, extras=(), names=None):
    """``(N, D, P)`` by one backward pass per output number, one example at a time, in float64."""
    module = in_float64(module)
    named = dict(module.named_parameters())
    names = [k for k, p in named.items() if p.requires_grad] if names is None else names
    parameters = [named[name].requires_grad_() for name in names]
    examples = []
    for i in range(len(inputs)):
        given = [e[i : i + 1].double() if e.is_floating_point() else e[i : i + 1] for e in extras]
        y = module(inputs[i : i + 1].detach().double().clone(), *given)
        rows = []
        for number in y.flatten():
            grads = torch.autograd.grad(number, parameters, retain_graph=True, allow_unused=True)
            pieces = []
            for p, g in zip(parameters, grads, strict=True):
                g = torch.zeros_like(p) if g is None else g
                pieces.append((torch.view_as_real(g.resolve_conj()) if g.is_complex() else g).flatten())
            rows.append(torch.cat(pieces))
        examples.append(torch.stack(rows))
    return torch.stack(examples).numpy()


def residual(name, pred, target, state):
    """``dC/dŷ`` of one example, ``(C, X, ...)``, written out by hand for the paper's observables and SMSE shares."""
    pred, target, state = (np.asarray(a, float) for a in (pred, target, state))
    out = np.zeros_like(pred)
    size = pred[0].size
    channels = {"mass": 0, "energy": 3, "smse:density": 0, "smse:momentum_x": 1, "smse:momentum_y": 2, "smse:energy": 3}
    if name.startswith("smse"):
        for c in range(len(pred)) if name == "smse" else [channels[name]]:
            out[c] = 2 * (pred[c] - target[c]) / (np.sqrt(np.mean(target[c] ** 2)) + 1e-6) / (size * len(pred))
    else:
        c = channels[name]
        out[c] = 2 * (pred[c].mean() - state[c].mean()) / (state[c].mean() + 1e-6) / size
    return out


def gradients(jacobian, name, module, batch):
    """``g_i = J_iᵀ r_i`` of every example, ``(N, P)``."""
    module = in_float64(module)
    rows = []
    for i, j in enumerate(jacobian):
        given = [e[i : i + 1].double() if e.is_floating_point() else e[i : i + 1] for e in batch.extras]
        with torch.no_grad():
            pred = module(batch.inputs[i : i + 1].double().clone(), *given)[0].numpy()
        state = batch.inputs[i, -pred.shape[0] :].numpy()
        rows.append(residual(name, pred, batch.targets[i].numpy(), state).ravel() @ j)
    return np.array(rows)


def influence(jacobian, response, perturbation, damping, scale=1.0):
    """``G_responseᵀ (s·JᵀJ + λ)⁻¹ G_perturbation`` by one solve with the P×P matrix; gradients are rows."""
    j = jacobian.reshape(-1, jacobian.shape[-1])
    eta = scale * (j.T @ j) + damping * np.eye(j.shape[1])
    return response @ np.linalg.solve(eta, perturbation.T)


# --- aggregations and summaries --------------------------------------------------------------------------------------


def selected_entries(matrices, labels, member):
    """Entries of all matrices whose pair of examples ``member`` admits; examples are (class, trajectory, time)."""
    out = []
    for h, (rows, columns) in zip(matrices, labels, strict=True):
        for i, response in enumerate(rows):
            for j, perturbation in enumerate(columns):
                if member(response, perturbation) and not np.isnan(h[i, j]):
                    out.append(h[i, j])
    return np.array(out)


def quartiles(entries):
    """Lower quartile, median, upper quartile; NaN of nothing."""
    return np.quantile(entries, (0.25, 0.5, 0.75)) if len(entries) else np.full(3, np.nan)


def standardize_rows(h):
    """Each row over its sample standard deviation."""
    return np.array([row / np.std(row, ddof=1) for row in h])


def translation_defect_interior(h, n_times):
    """Second-order derivative of a one-trajectory matrix along its diagonals, one-sided at the ends."""
    squares, norm = 0.0, 0.0
    for offset in range(-(n_times - 3), n_times - 2):
        d = np.diagonal(h, offset)
        slope = np.gradient(d, edge_order=2)
        squares, norm = squares + np.sum(slope**2), norm + np.sum(d**2)
    for offset in (-(n_times - 2), n_times - 2):
        d = np.diagonal(h, offset)
        squares, norm = squares + 2 * (d[1] - d[0]) ** 2, norm + np.sum(d**2)
    return np.sqrt(squares / norm)


def mean_influence(h):
    """Mean of the entries i = j and of the entries i ≠ j of a square matrix."""
    n = len(h)
    on = [h[i, j] for i in range(n) for j in range(n) if i == j]
    off = [h[i, j] for i in range(n) for j in range(n) if i != j]
    return math.fsum(on) / len(on), math.fsum(off) / len(off) if off else math.nan


def trajectory_ratio(h, members):
    """Σ_{i≠j} H_ij / Σ_i H_ii over the examples of one trajectory."""
    off = math.fsum(h[i, j] for i in members for j in members if i != j)
    return off / math.fsum(h[i, i] for i in members)


def pearson(x, y):
    """Pearson correlation, summed without rounding."""
    x, y = list(x), list(y)
    mx, my = math.fsum(x) / len(x), math.fsum(y) / len(y)
    covariance = math.fsum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return covariance / math.sqrt(math.fsum((a - mx) ** 2 for a in x) * math.fsum((b - my) ** 2 for b in y))


def rollout_error(model, states, horizon):
    """Median over start times of the SMSE summed over ``horizon`` steps of a rollout along ``(T + 1, C, X, Y)``."""
    totals = []
    for start in range(len(states) - horizon):
        state, total = states[start][None], 0.0
        for step in range(1, horizon + 1):
            with torch.no_grad():
                state = model(state)
            total += np.mean(smse(state[0].numpy(), states[start + step].numpy()))
        totals.append(total)
    return float(np.median(totals))


# --- finite differences ----------------------------------------------------------------------------------------------


def periodic_derivative(fields, axis, accuracy_order, spacing):
    """Central differences with `np.roll`, float64."""
    weights = {2: (1 / 2,), 4: (2 / 3, -1 / 12), 6: (3 / 4, -3 / 20, 1 / 60)}[accuracy_order]
    u = np.asarray(fields, dtype=np.float64)
    terms = [w * (np.roll(u, -k, axis) - np.roll(u, k, axis)) for k, w in enumerate(weights, 1)]
    return sum(terms) / spacing


def rotation_lie_derivative(fields, vector, accuracy_order, spacing):
    """``−y ∂x u + x ∂y u`` about the centre; the channels in ``vector`` = (x component, y component) also turn."""
    n_x, n_y = fields.shape[-2:]
    x = ((np.arange(n_x) - (n_x - 1) / 2) * spacing[0])[:, None]
    y = ((np.arange(n_y) - (n_y - 1) / 2) * spacing[1])[None, :]
    out = x * periodic_derivative(fields, -1, accuracy_order, spacing[1])
    out = out - y * periodic_derivative(fields, -2, accuracy_order, spacing[0])
    out[:, vector[0]] += fields[:, vector[1]]
    out[:, vector[1]] -= fields[:, vector[0]]
    return out
