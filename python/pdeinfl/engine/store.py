"""Influence on disk: one HDF5 file per result, and the folder that holds those of a run.

HDF5 is not crash-safe: a process killed while it flushes can lose a file's finished groups with the one it was writing.
So every result is a file of its own, written beside its place and renamed into it; ranks and array jobs write to one
folder without talking to each other, and there is nothing to merge.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pdeinfl.atomic import atomic_path
from pdeinfl.engine.audit import Audit
from pdeinfl.engine.certificate import DampingPath, row_norms
from pdeinfl.engine.result import Influence, Labels
from pdeinfl.engine.sketch_path import SketchPath

_FORMAT = "pdeinfl influence"
_VERSION = 2
_ARRAYS = (
    "values",
    "error_bound",
    "row_error",
    "relative_error",
    "gradient_overlap",
    "ritz_values",
    "losses",
    "persistence_losses",
    "input_distance",
)
_NUMBERS = ("damping", "lambda_max", "subspace_dof", "product_error", "gradient_error", "tol")
_INTEGERS = ("n_jvp", "n_vjp", "seed", "epoch", "mini_batch")
_RECORDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Audit, DampingPath, SketchPath)}
_LABELS = ("response_labels", "perturbation_labels")


def save_influence(path: str | PathLike[str], result: Influence) -> None:
    """Write a result to its own HDF5 file, atomically.

    Raises:
        OSError: the file cannot be written (one line naming it); whatever stood at ``path`` is unharmed.
    """
    try:
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
            _write(file, result)
    except OSError as error:
        raise OSError(f"cannot write influence file {path}: {error}") from error


def _write(file: h5py.File, result: Influence) -> None:
    file.attrs["format"], file.attrs["version"] = _FORMAT, _VERSION
    for name in (*_NUMBERS, *_INTEGERS, "run", "converged"):
        file.attrs[name] = getattr(result, name)
    for name in ("response_names", "perturbation_names"):
        file.attrs[name] = json.dumps(getattr(result, name))
    file.attrs["settings"] = json.dumps(dict(result.settings))
    if result.effective_dof is not None:
        file.attrs["effective_dof"] = result.effective_dof
    for name in _ARRAYS:
        array = getattr(result, name)
        if array is not None:
            file.create_dataset(name, data=array, fletcher32=array.size > 0, chunks=True if array.size else None)
    for name in _LABELS:
        labels = getattr(result, name)
        group = file.create_group(name)
        group.attrs["class_names"] = json.dumps(labels.class_names)
        for field in ("class_ids", "trajectory_ids", "times"):
            group.create_dataset(field, data=getattr(labels, field))
    if result.path is not None:
        _write_record(file.create_group("path"), result.path)
    if result.audit is not None:
        _write_record(file.create_group("audit"), result.audit)


def _write_record(group: h5py.Group, record: Any) -> None:
    """A dataclass of arrays and numbers."""
    group.attrs["kind"] = type(record).__name__
    for field in _stored_fields(type(record)):
        value = getattr(record, field)
        if isinstance(value, np.ndarray):
            group.create_dataset(field, data=value)
        elif value is not None:
            group.attrs[field] = value


def _read_record(group: h5py.Group) -> Any:
    kind = _RECORDS[str(group.attrs["kind"])]
    names = _stored_fields(kind)
    arrays = {name: group[name][...] for name in names if name in group}
    numbers = {name: group.attrs[name].item() for name in names if name in group.attrs}
    return kind(**arrays, **numbers)


def _stored_fields(kind: type[Any]) -> list[str]:
    return [f.name for f in fields(kind) if not f.name.startswith("_")]


def is_influence_file(path: str | PathLike[str]) -> bool:
    """Whether a file is HDF5 and says that it holds an influence result."""
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == _FORMAT)
    except (OSError, RuntimeError, KeyError):
        return False


def load_influence(path: str | PathLike[str]) -> Influence:
    """Read a result.

    Raises:
        FileNotFoundError: no such file. OSError: truncated or corrupt. ValueError: not an influence file, or one of a
            newer version.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no influence file at {path}")
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("format")
            if found != _FORMAT:
                raise ValueError(f"{path} is not an influence file (its format is {found!r}, expected {_FORMAT!r})")
            if file.attrs["version"] != _VERSION:
                raise ValueError(f"{path} has version {file.attrs['version']}; this pdeinfl reads version {_VERSION}")
            return _read(file)
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise OSError(f"{path} is truncated or corrupt: {error}") from error


def _read(file: h5py.File) -> Influence:
    attributes = file.attrs
    arrays: dict[str, Any] = {name: file[name][...] if name in file else None for name in _ARRAYS}
    if arrays["row_error"] is None:  # written before there was one
        arrays["row_error"] = row_norms(arrays["error_bound"])
    labels: dict[str, Any] = {name: _read_labels(file[name]) for name in _LABELS}
    numbers: dict[str, Any] = {name: float(attributes[name]) for name in _NUMBERS}
    integers: dict[str, Any] = {name: int(attributes[name]) for name in _INTEGERS}
    path, audit = (_read_record(file[name]) if name in file else None for name in ("path", "audit"))
    dof = tuple(float(v) for v in attributes["effective_dof"]) if "effective_dof" in attributes else None
    return Influence(
        **arrays,
        **labels,
        **numbers,
        **integers,
        run=str(attributes["run"]),
        converged=bool(attributes["converged"]),
        response_names=tuple(json.loads(attributes["response_names"])),
        perturbation_names=tuple(json.loads(attributes["perturbation_names"])),
        settings=json.loads(attributes["settings"]),
        effective_dof=dof,  # type: ignore[arg-type]
        audit=audit,
        path=path,
    )


def _read_labels(group: Any) -> Labels:
    ids, trajectories, times = (group[field][...] for field in ("class_ids", "trajectory_ids", "times"))
    return Labels(ids, trajectories, times, tuple(json.loads(group.attrs["class_names"])))


@dataclass(frozen=True, order=True)
class Key:
    """What identifies a result within a store."""

    run: str
    seed: int
    epoch: int
    mini_batch: int

    @classmethod
    def of(cls, result: Influence) -> Key:
        """The key that a result carries."""
        return cls(result.run, result.seed, result.epoch, result.mini_batch)

    @property
    def file_name(self) -> str:
        """Name of the result's file."""
        run = f"{self.run}-" if self.run else ""
        return f"{run}seed{self.seed}-epoch{self.epoch:04d}-batch{self.mini_batch:03d}.h5"


class InfluenceStore:
    """The influence results of a run: a folder with one file per `Key`; safe to kill at any moment."""

    def __init__(self, directory: str | PathLike[str]) -> None:
        self.directory = Path(directory)

    def path(self, key: Key) -> Path:
        """Where the result of a key lives."""
        return self.directory / key.file_name

    def put(self, result: Influence) -> Path:
        """Write a result under its own key, replacing an older one."""
        path = self.path(Key.of(result))
        save_influence(path, result)
        return path

    def get(self, key: Key) -> Influence:
        """Read the result of a key; raises as :func:`load_influence`."""
        return load_influence(self.path(key))

    def has(self, key: Key, settings: Mapping[str, Any]) -> bool:
        """Whether a readable result with these settings (a subset of its own) is there."""
        try:
            held = self.get(key).settings
        except (OSError, ValueError):
            return False
        wanted = json.loads(json.dumps(dict(settings)))
        return all(name in held and held[name] == value for name, value in wanted.items())

    def __iter__(self) -> Iterator[Influence]:
        """Every result, in the order of the file names."""
        for path in sorted(self.directory.glob("*.h5")):
            yield load_influence(path)


__all__ = ["InfluenceStore", "Key", "is_influence_file", "load_influence", "save_influence"]
