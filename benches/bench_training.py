"""Throughput of ``pdeinfl.train`` on the demo's surrogates, against a bare loop over tensors in memory.

Run: ``python benches/bench_training.py [--small] [--device cuda] [--epochs 3]``

For each surrogate the two alternate, epoch by epoch, on the same transitions; the ratio is what streaming, loss
bookkeeping, validation (on a twelfth as many transitions) and checkpoints cost. Beside each timing stands the rate of
a 512 × 512 matrix product measured right then: where it dips, the machine was busy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import numpy as np
import torch

import pdeinfl as pi
from pdeinfl.observables import SMSE

SURROGATES = {
    "ViT 147k": {"kind": "ViT", "width": 64, "depth": 4},
    "UNet 139k": {"kind": "UNet", "width": 10, "kernels": (5, 3), "stem_kernel": 3},
}
BATCH = 48


def probe(device: torch.device) -> float:
    """GFLOP/s of a float32 matrix product, best of five."""
    a = torch.randn(512, 512, device=device)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * 512**3 / best / 1e9


def bare_epoch(model, optimizer, x, y, seed):
    """Seconds of one epoch over tensors that are already on the device."""
    smse = SMSE()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x))).to(x.device)
    start = time.perf_counter()
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for chosen in order.split(BATCH):
        optimizer.zero_grad()
        loss = smse(model(x[chosen]), y[chosen], x[chosen]).mean()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    total.item()
    return time.perf_counter() - start


def measure(name, train, val, device, epochs):
    config = {**SURROGATES[name], "channels": len(train.channel_names), "resolution": train.resolution}
    fields = [torch.from_numpy(np.array(train[i])).to(device) for i in range(len(train))]
    x, y = torch.cat([f[:-1] for f in fields]), torch.cat([f[1:] for f in fields])
    bare = pi.surrogates.build(config).to(device)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=5e-4, weight_decay=1e-4)
    bare_epoch(bare, optimizer, x, y, 0)
    seconds: dict[str, list[float]] = {"bare": [], "train": []}
    with tempfile.TemporaryDirectory() as directory:
        model = pi.surrogates.build(config).to(device)
        pi.train(model, train, val, 1, checkpoint_dir=directory, batch_size=BATCH, progress=False)
        for epoch in range(epochs):
            seconds["bare"].append(bare_epoch(bare, optimizer, x, y, epoch + 1))
            history = pi.train(model, train, val, epoch + 2, checkpoint_dir=directory, batch_size=BATCH, progress=False)
            seconds["train"].append(float(history.seconds[-1]))
    rate = {kind: len(x) / statistics.median(values) for kind, values in seconds.items()}
    print(
        f"{name:10s} P = {bare.n_parameters:7d}  {device.type:4s}  pdeinfl.train {rate['train']:8.0f} images/s  "
        f"bare loop {rate['bare']:8.0f}  ratio {rate['train'] / rate['bare']:.2f}  "
        f"{1e3 / rate['train']:.2f} s per 1,000 transitions  (probe {probe(device):.0f} GFLOP/s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a few trajectories at 16², to see that it runs")
    parser.add_argument("--device", default=None, help="default: CPU, and CUDA too if there is one")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs, of which the median is reported")
    arguments = parser.parse_args()
    resolution, n_per_class, n_steps = (16, 4, 4) if arguments.small else (32, 20, 16)
    data = pi.simulate("CE", ("RP", "CRP", "RPUI"), n_per_class, resolution, n_steps, seed=0)
    train, val, _ = data.split((0.65, 0.05, 0.30), seed=10)
    found = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in [arguments.device] if arguments.device else found:
        for name in SURROGATES:
            torch.manual_seed(0)
            measure(name, train, val, torch.device(device), arguments.epochs)


if __name__ == "__main__":
    main()
