"""A training epoch from disk against the same from memory: seconds and their ratio.

Bar: the streamed epoch is no slower than the in-memory one by more than 15 % on the demo's model while the page cache
holds the file. Epochs alternate, and the median ratio of neighbouring pairs is reported. `--small` is a quick check
that the benchmark runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdeinfl.data.readers import open_trajectories
from pdeinfl.data.streaming import stream_batches
from pdeinfl.data.trajectories import Trajectories
from pdeinfl.data.writer import write_trajectories
from pdeinfl.observables import SMSE
from pdeinfl.surrogates import ViT


def made(n: int, n_times: int, resolution: int) -> Trajectories:
    """Trajectories of noise: a benchmark of reading does not look at the numbers."""
    generator = np.random.default_rng(0)
    states = generator.random((n, n_times, 4, resolution, resolution), np.float32) + 0.5
    states[:, :, 3] += 10
    return Trajectories.from_arrays(states)


def epoch_seconds(traj: Trajectories, model: torch.nn.Module | None, epoch: int, settings: dict[str, Any]) -> float:
    """Seconds of one epoch; ``model=None`` only fetches."""
    smse = SMSE()
    start = time.perf_counter()
    for x, y in stream_batches(traj, 48, 0, epoch, **settings):
        if model is not None:
            model.zero_grad(set_to_none=True)
            smse(model(x), y, x).mean().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    n, n_times, resolution, rounds = (12, 5, 16, 2) if arguments.small else (120, 17, 32, arguments.rounds)
    memory = made(n, n_times, resolution)
    model = ViT(channels=4, resolution=resolution, width=64, depth=4)
    n_transitions = n * (n_times - 1)
    megabytes = n_transitions * 2 * 4 * 4 * resolution**2 / 1e6
    print(f"{n_transitions} transitions at {resolution}², {megabytes:.0f} MB of pairs, "
          f"{torch.get_num_threads()} torch threads")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_trajectories(Path(folder) / "CE-RP.nc", memory)
        disk = open_trajectories(path)
        for name, settings in (("streamed", {}), ("streamed, bf16 cache", {"cache_dtype": "bfloat16"})):
            epoch_seconds(disk, None, 0, settings)  # the page cache, and the other one, are warm from here on
            for what, module in (("fetch only", None), ("forward and backward", model)):
                ratios, speeds = [], []
                for epoch in range(rounds):
                    in_memory = epoch_seconds(memory, module, epoch, {})
                    streamed = epoch_seconds(disk, module, epoch, settings)
                    ratios.append(streamed / in_memory)
                    speeds.append(n_transitions / streamed)
                print(f"{name:<22} {what:<22} {statistics.median(speeds):9.0f} transitions/s, "
                      f"{statistics.median(ratios):5.2f} x the in-memory epoch")  # fmt: skip


if __name__ == "__main__":
    main()
