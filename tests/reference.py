"""Slow, obvious NumPy and PyTorch versions of what the package computes fast. Tests compare against these."""

from __future__ import annotations

import copy

import numpy as np
import torch

# --- contraction -----------------------------------------------------------------------------------------------------

# --- euler and initial conditions ------------------------------------------------------------------------------------

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

# --- finite differences ----------------------------------------------------------------------------------------------
