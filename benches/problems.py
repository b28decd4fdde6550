"""Problems that the engine's benches solve: a conv net on advected fields, and surrogates of the demo's kind."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pdeinfl as pi

CLASS_NAMES = ("smooth", "medium", "rough")


@dataclass(frozen=True)
class BenchProblem:
    """A trained module and the mini-batch whose influence is asked for."""

    name: str
    model: nn.Module
    batch: pi.MiniBatch

    @property
    def n_parameters(self) -> int:
        """P."""
        return sum(p.numel() for p in self.model.parameters())

    def __str__(self) -> str:
        n, *state = self.batch.targets.shape
        return f"{self.name}: {self.n_parameters} parameters, {n} examples of {'x'.join(map(str, state))}"


class ConvNet(nn.Module):
    """Periodic 3×3 convolutions with tanh in between, predicting the change of the state: any peer takes its layers.

    Padding is explicit, so that Kronecker-factored peers see plain unpadded convolutions.
    """

    def __init__(self, channels: int = 4, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        widths = [channels, *[width] * (depth - 1), channels]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(widths))

    def forward(self, state: Tensor) -> Tensor:
        x = state
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(F.pad(x, (1, 1, 1, 1), mode="circular")))
        return state + self.layers[-1](F.pad(x, (1, 1, 1, 1), mode="circular"))


def advected(n_per_class: int, n_times: int, channels: int, resolution: int, seed: int) -> Tensor:
    """Exact solutions of linear advection, ``(class, trajectory, time, channel, x, y)``: random periodic fields whose
    spectrum falls off faster in smooth classes, carried with a class-dependent velocity per channel and damped by
    ``exp(−ν|k|²t)``."""
    generator = np.random.default_rng(seed)
    k = np.fft.fftfreq(resolution, 1 / resolution)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    out = np.empty((len(CLASS_NAMES), n_per_class, n_times, channels, resolution, resolution), np.float32)
    for c, cutoff in enumerate((1.5, 2.5, 4.0)):
        envelope = np.exp(-(kx**2 + ky**2) / (2 * cutoff**2))
        noise = generator.standard_normal((n_per_class, channels, resolution, resolution))
        spectrum = np.fft.fft2(noise) * envelope
        spectrum /= np.sqrt(np.mean(np.abs(np.fft.ifft2(spectrum)) ** 2, axis=(-2, -1), keepdims=True))
        for ch in range(channels):
            angle = 2 * np.pi * (ch / channels + c / 7)
            drift = np.exp(-2j * np.pi * 0.03 * (np.cos(angle) * kx + np.sin(angle) * ky) - 2e-3 * (kx**2 + ky**2))
            for t in range(n_times):
                out[c, :, t, ch] = np.fft.ifft2(spectrum[:, ch] * drift**t).real
    return torch.from_numpy(out)


def small_problem(train_steps: int = 300, seed: int = 0) -> BenchProblem:
    """The conv net of 20,836 parameters and 12 examples (3 classes × 4 times) of 4×16×16 advected fields."""
    torch.manual_seed(seed)
    fields = advected(n_per_class=6, n_times=9, channels=4, resolution=16, seed=seed)
    train, test = fields[:, :5], fields[:, 5]
    x, y = train[:, :, :-1].flatten(0, 2), train[:, :, 1:].flatten(0, 2)
    model = ConvNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(train_steps):
        rows = torch.randint(len(x), (16,))
        loss = F.mse_loss(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    times = np.arange(4)
    batch = pi.MiniBatch(
        test[:, times].flatten(0, 1),
        test[:, times + 1].flatten(0, 1),
        class_ids=np.repeat(np.arange(3), 4),
        trajectory_ids=np.repeat(np.arange(3), 4),
        times=np.tile(times + 1, 3),
        class_names=CLASS_NAMES,
    )
    return BenchProblem("conv net", model.eval(), batch)


def demo_problem(kind: str, n_times: int = 8, resolution: int = 32, epochs: int = 6, seed: int = 0) -> BenchProblem:
    """A ViT (147 k parameters) or UNet (176 k) of the demo's kind, trained for a few epochs, and ``3·n_times``
    examples."""
    torch.manual_seed(seed)
    model: nn.Module
    if kind == "ViT":
        model = pi.surrogates.ViT(channels=4, resolution=resolution, width=64, depth=4)
    elif kind == "UNet":
        model = pi.surrogates.UNet(channels=4, resolution=resolution, width=6, kernels=(3, 3, 3), stem_kernel=3)
    else:
        raise ValueError(f"`kind` must be ViT or UNet; got {kind!r}")
    return trained_on_advected(kind, model, n_times, resolution, epochs, seed)


def trained_on_advected(
    name: str,
    model: nn.Module,
    n_times: int,
    resolution: int,
    epochs: int,
    seed: int = 0,
    n_per_class: int = 8,
    device: Any = None,
) -> BenchProblem:
    """The module after some epochs on advected fields offset to positive density and energy, with the mini-batch of one
    unseen trajectory of each class. Draws from the global generator."""
    fields = advected(n_per_class + 1, n_times + 1, channels=4, resolution=resolution, seed=seed)
    fields = 0.3 * fields + torch.tensor([1.0, 0.0, 0.0, 2.5])[:, None, None]
    train, test = fields[:, :-1].to(device), fields[:, -1]
    x, y = train[:, :, :-1].flatten(0, 2), train[:, :, 1:].flatten(0, 2)
    model = model.to(device)
    smse = pi.observables.SMSE()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(16):
            loss = smse(model(x[rows]), y[rows], x[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    batch = pi.MiniBatch(
        test[:, :-1].flatten(0, 1),
        test[:, 1:].flatten(0, 1),
        class_ids=np.repeat(np.arange(3), n_times),
        trajectory_ids=np.repeat(np.arange(3), n_times),
        times=np.tile(np.arange(n_times) + 1, 3),
        class_names=CLASS_NAMES,
    )
    return BenchProblem(name, model.eval(), batch)


def problem(name: str, small: bool = False) -> BenchProblem:
    """A problem by name, ``conv``, ``ViT`` or ``UNet``; ``small`` has the surrogates at 3 × 2 examples of 16×16."""
    if name == "conv":
        return small_problem()
    return demo_problem(name, n_times=2, resolution=16, epochs=2) if small else demo_problem(name)


PROBLEMS = ("conv", "ViT", "UNet")
