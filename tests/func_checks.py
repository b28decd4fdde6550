"""What the engine asks of a module, checked through torch.func: shared by the tests of the surrogates."""

from __future__ import annotations

import torch
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

EPS = torch.finfo(torch.float64).eps
# Forward mode makes torch itself call its deprecated torch.jit.script.
TORCH_JIT = "ignore:.*torch.jit.script:DeprecationWarning"


def float64_with_noise(model):
    """The model in float64, every parameter moved off its initial value so that no gradient vanishes by symmetry."""
    generator = torch.Generator().manual_seed(1)
    model = model.double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return model


def close(a, b, factor=1e5):
    scale = max(a.abs().max().item(), b.abs().max().item())
    return (a - b).abs().max().item() <= factor * EPS * scale


def check_transforms(model, states):
    """Batched tangents, batched cotangents, per-example gradients, double backward: each against plain autograd.

    A missing batching rule makes torch warn of its fallback loop, which pytest turns into an error.
    """
    generator = torch.Generator().manual_seed(2)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def f(p):
        return functional_call(model, p, (states,))

    def draw(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    tangents = {name: draw((3, *p.shape)) for name, p in parameters.items()}
    cotangents = draw((3, *states.shape))
    with sdpa_kernel(SDPBackend.MATH):
        forward = vmap(lambda t: jvp(f, (parameters,), (t,))[1])(tangents)
        output, pull = vjp(f, parameters)
        backward = vmap(lambda u: pull(u)[0])(cotangents)
        pairing = torch.einsum("s...,t...->st", cotangents, forward)
        transposed = sum(torch.einsum("s...,t...->st", backward[n], tangents[n]) for n in parameters)
        assert close(pairing, transposed)

        def loss(p, x):
            return functional_call(model, p, (x[None],)).pow(3).sum()

        per_example = vmap(grad(loss), (None, 0))(parameters, states)
        for i, x in enumerate(states):
            named = dict(model.named_parameters())
            plain = torch.autograd.grad(model(x[None]).pow(3).sum(), list(named.values()))
            mine = torch.cat([per_example[name][i].flatten() for name in named])
            assert close(mine, torch.cat([g.flatten() for g in plain]))

        def against(u):
            return pull(u)[0]

        # Reverse over reverse: the transpose of the linear map u -> Jᵀu is v -> Jv.
        _, pull_back = vjp(against, torch.zeros_like(output))
        first = {name: t[0] for name, t in tangents.items()}
        assert close(pull_back(first)[0], forward[0])
    assert close(output, model(states).detach())


def check_gradients(model, states, vanishing=()):
    """Finite gradients everywhere, zero to rounding for the parameters named in ``vanishing``, non-zero elsewhere."""
    model(states).square().sum().backward()
    gradients = {name: p.grad.abs().max().item() for name, p in model.named_parameters()}
    largest = max(gradients.values())
    assert largest < float("inf")
    for name, size in gradients.items():
        assert (size < 1e4 * EPS * largest) == (name in vanishing), name
