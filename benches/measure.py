"""What the Python benches share: the machine in one line, a speed probe, interleaved timing, markdown tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


def machine() -> str:
    """CPU model, cores, PyTorch version and threads."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads{load}"


def one_thread_probe() -> float:
    """Seconds of a fixed float64 computation on one thread."""
    values = np.linspace(1.0, 2.0, 200_000)
    start = time.perf_counter()
    for _ in range(10):
        np.sqrt(values, out=values)
    return time.perf_counter() - start


def speed_probe() -> float:
    """Seconds of one fixed float32 matrix product, best of three: a slow spell of the machine shows here."""
    a = torch.ones(768, 768)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return best


@dataclass(frozen=True)
class Timing:
    """Medians over repeats: seconds of the call, and of the speed probe right before it."""

    seconds: float
    probe: float


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Time every call once per round, ``repeats`` rounds: a slow spell hits all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    probes: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            probes[name].append(speed_probe())
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(statistics.median(seconds[name]), statistics.median(probes[name])) for name in calls}


def markdown(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A markdown table; floats with three digits, None as a dash."""

    def cell(value: Any) -> str:
        if value is None:
            return "–"
        return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")

    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    lines += ["| " + " | ".join(cell(v) for v in row) + " |" for row in rows]
    return "\n".join(lines)


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """The figures of a run, with the machine they come from."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **content}, indent=1) + "\n")
