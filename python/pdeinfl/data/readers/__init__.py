"""Open files of trajectories in any of the formats known here, recognised by what they contain."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdeinfl.data.hdf5_file import HDF5File
from pdeinfl.data.readers import pdebench, pdegym, the_well
from pdeinfl.data.trajectories import Trajectories

_FORMATS: tuple[tuple[str, Any, Any], ...] = (
    ("The Well", the_well.recognises, the_well.WellSource),
    ("PDEgym", pdegym.recognises, pdegym.PDEgymSource),
    ("PDEBench", pdebench.recognises, pdebench.PDEBenchSource),
)
_SUFFIXES = (".nc", ".h5", ".hdf5", ".hdf")
_PART = re.compile(r"^(data|velocity)_(\d+)$")
_CLASS = re.compile(r"(?:^|[^A-Za-z])(?:CE|NS)-([A-Za-z0-9]+)")

PathLike = str | os.PathLike[str]


def open_trajectories(
    path: PathLike | Sequence[PathLike],
    labels: str | Sequence[str] | None = None,
    part_order: str = "numeric",
    axis_order: str = "xy",
) -> Trajectories:
    """Open PDEgym, The Well or PDEBench 2D_CFD files; nothing is read until a trajectory is asked for.

    A folder holds either the parts of one class (``data_0.nc``, … or ``velocity_0.nc``, …) or a file per class. The
    class is the ``X`` of ``CE-X`` or ``NS-X`` in the file's name, else in its folder's, else the gas's gamma (The
    Well), else the file's name without its ending. Files of one class are put one after the other.

    Args:
        path: a file or folder, or several; each is one class unless it is a folder of assembled files.
        labels: class names instead, one for each path (for each file of a folder of assembled files, by name).
        part_order: ``"numeric"`` (``data_2`` before ``data_10``) or ``"lexicographic"``; the released data's own
            scripts disagree, and it decides which trajectory has which index. Recorded in the provenance.
        axis_order: of the fields in the files, ``"xy"`` or ``"yx"``, see `Trajectories`.

    Raises:
        OSError: a path does not exist or cannot be read.
        ValueError: an unknown format, a damaged or unfinished file, or classes that differ in shape or channels; one
            line with the file's name.
    """
    if part_order not in ("numeric", "lexicographic"):
        raise ValueError(f"`part_order` must be 'numeric' or 'lexicographic'; got {part_order!r}")
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise ValueError("`path` is empty: give at least one file or folder")
    groups = [group for given in paths for group in _groups(Path(given), part_order)]
    names = _labels(labels, groups)
    opened = []
    for group, label in zip(groups, names, strict=True):
        opened += [_open_file(file, label, part_order, axis_order) for file in group]
    try:
        return Trajectories.concatenate(opened) if len(opened) > 1 else opened[0]
    except ValueError as error:
        first = opened[0].provenance["file"]
        raise ValueError(f"{first} and the files opened with it do not fit together: {error}") from None


def _groups(path: Path, part_order: str) -> list[list[Path]]:
    """Files of each class under ``path``, every group one class."""
    if not path.is_dir():
        return [[path]]
    try:
        files = sorted(f for f in path.iterdir() if f.suffix in _SUFFIXES and not f.name.startswith("."))
    except OSError as error:
        raise OSError(error.errno, f"cannot read the folder ({error.strerror})", str(path)) from None
    if not files:
        raise ValueError(f"{path}: the folder holds no file that ends in {', '.join(_SUFFIXES)}")
    numbers = [_PART.match(f.stem) for f in files]
    if not all(numbers):
        return [[f] for f in files]
    if part_order == "numeric":
        files = [f for _, f in sorted((int(m[2]), f) for m, f in zip(numbers, files, strict=True) if m)]
    return [files]


def _labels(labels: str | Sequence[str] | None, groups: list[list[Path]]) -> list[str | None]:
    if labels is None:
        return [None] * len(groups)
    names = [labels] if isinstance(labels, str) else list(labels)
    if len(names) != len(groups):
        what = ", ".join(str(g[0] if len(g) == 1 else g[0].parent) for g in groups)
        raise ValueError(f"`labels` must name each of the {len(groups)} ({what}); got {len(names)} labels")
    return list(names)


def _open_file(path: Path, label: str | None, part_order: str, axis_order: str) -> Trajectories:
    file = HDF5File(path)
    with file.opened() as handle:
        found = [(name, source) for name, recognises, source in _FORMATS if recognises(handle)]
        held = ", ".join(sorted(handle)) or "nothing"
    if not found:
        raise ValueError(
            f"{path}: unknown format: must be PDEgym ('data' or 'velocity' with 5 axes), The Well or PDEBench 2D_CFD; "
            f"the file holds {held}"
        )
    format_name, make = found[0]
    source = make(file)
    n = source.shape[0]
    gamma = getattr(source, "gamma", None)
    name = label or _class_of(path, gamma if format_name == "The Well" else None)
    provenance = {
        "file": str(path), "format": format_name, "part_order": part_order, "n_trajectories": n,
        **getattr(source, "attributes", {}),
    }  # fmt: skip
    return Trajectories(
        [source], np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int64), [name], source.channel_names,
        getattr(source, "time_step", 0.05), getattr(source, "domain", (1.0, 1.0)), axis_order, gamma, provenance,
    )  # fmt: skip


def _class_of(path: Path, gamma: float | None) -> str:
    for text in (path.stem, path.absolute().parent.name):
        match = _CLASS.search(text)
        if match:
            return match[1]
    return path.stem if gamma is None else f"gamma={gamma:g}"
