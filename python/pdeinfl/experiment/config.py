"""The TOML file that describes a run, checked before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from pdeinfl.engine.damping import Damping
from pdeinfl.engine.metric import METRICS
from pdeinfl.engine.precision import PRODUCT_DTYPES
from pdeinfl.engine.solvers import SOLVERS
from pdeinfl.observables import default_responses

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    """Where trajectories come from: files (``path``), or a simulation."""

    path: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    part_order: str = "numeric"
    equation: str = "CE"
    classes: tuple[str, ...] = ("RP", "CRP", "RPUI")
    per_class: int = 40
    resolution: int = 32
    steps: int = 16
    seed: int = 0
    preset: str = "release_like"
    refinement: int = 2
    snapshots: int = 0
    split: tuple[float, ...] = (0.65, 0.05, 0.30)
    split_seed: int = 10


@dataclass(frozen=True)
class TrainingConfig:
    """How surrogates are trained; a surrogate's own table may override any entry."""

    epochs: int = 20
    batch_size: int = 48
    lr: float = 5e-4
    weight_decay: float = 1e-4
    keep_epochs: tuple[int, ...] = ()
    cache_dtype: str = ""


@dataclass(frozen=True)
class InfluenceConfig:
    """Which influences are computed. ``damping`` is absolute; otherwise ``relative_damping`` counts; ``audit``
    perturbations of each are checked with float64 products; ``control_tol`` is the tolerance of the untrained controls,
    by default ``tol``: without the further responses, which converge as the square root of the answer's own, they would
    stop at less accuracy."""

    response: tuple[str, ...] = ()
    perturbation: tuple[str, ...] = ("smse",)
    solver: str = "krylov"
    metric: str = "sum"
    damping: float = 0.0
    relative_damping: float = 1e-3
    tol: float = 0.02
    control_tol: float = 0.0
    rtol: float = 0.0
    product_dtype: str = "float32"
    audit: int = 0
    mini_batches: int = 6
    per_class: int = 1
    transitions: int = 0
    controls: bool = True
    epochs: tuple[int, ...] = ()
    checks: bool = True

    def requested(self) -> Damping:
        """The damping as written."""
        return Damping.absolute(self.damping) if self.damping > 0 else Damping.relative(self.relative_damping)

    def responses(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """What responds: as written, or by default what the channels allow."""
        return self.response or default_responses(channel_names)

    def control_response(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """What responds in an untrained network: the observable of the report's answer, and those perturbed."""
        responses = self.responses(channel_names)
        answer = "smse" if "smse" in responses else responses[0]
        return self.perturbation if answer in self.perturbation else (answer, *self.perturbation)


@dataclass(frozen=True)
class SurrogateConfig:
    """One surrogate: its class, constructor arguments and training."""

    name: str
    kind: str
    arguments: Mapping[str, Any]
    training: TrainingConfig


@dataclass(frozen=True)
class RunConfig:
    """A whole run; see ``configs/demo.toml`` for every entry in use."""

    name: str
    seeds: tuple[int, ...]
    data: DataConfig
    surrogates: tuple[SurrogateConfig, ...]
    influence: InfluenceConfig
    title: str = ""
    device: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for provenance."""
        return asdict(self)


def load_config(path: str | PathLike[str]) -> RunConfig:
    """Read and check a configuration.

    Raises:
        FileNotFoundError: no such file. ValueError: not TOML, an unknown entry, or a value of the wrong kind; one line
            that names the file and the entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration at {path}")
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    try:
        return parse_config(content, default_name=path.stem)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_config(content: Mapping[str, Any], default_name: str = "run") -> RunConfig:
    """A `RunConfig` from parsed TOML; raises as :func:`load_config`."""
    known = {"run", "data", "training", "influence", "surrogates"}
    _refuse_unknown("", content, known)
    run = content.get("run", {})
    _refuse_unknown("run", run, {"name", "title", "seeds", "device"})
    training = _table(TrainingConfig, "training", content.get("training", {}))
    tables = content.get("surrogates", {})
    if not tables:
        raise ValueError('[surrogates] is empty: add a table such as [surrogates.vit] with kind = "ViT"')
    surrogates = tuple(_surrogate(name, table, training) for name, table in tables.items())
    seeds = _convert(tuple[int, ...], "run.seeds", run.get("seeds", [10, 35, 42]))
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"run.seeds must be different integers, at least one; got {list(seeds)}")
    data = _table(DataConfig, "data", content.get("data", {}))
    influence = _table(InfluenceConfig, "influence", content.get("influence", {}))
    for entry, value, valid in (
        ("influence.solver", influence.solver, SOLVERS),
        ("influence.metric", influence.metric, METRICS),
        ("influence.product_dtype", influence.product_dtype, PRODUCT_DTYPES),
    ):
        if value not in valid:
            raise ValueError(f"{entry} must be one of {', '.join(valid)}; got {value!r}")
    _positive("influence", influence, ("tol", "mini_batches", "per_class"))
    _positive("data", data, ("per_class", "resolution", "steps", "refinement"))
    for surrogate in surrogates:
        _positive(f"surrogates.{surrogate.name}", surrogate.training, ("epochs", "batch_size", "lr"))
    for entry in ("damping", "audit", "control_tol"):
        if getattr(influence, entry) < 0:
            raise ValueError(f"influence.{entry} must not be negative; got {getattr(influence, entry):g}")
    try:
        influence.requested()
    except ValueError as error:
        raise ValueError(f"influence.relative_damping: {error}") from None
    return RunConfig(
        name=str(run.get("name", default_name)),
        title=str(run.get("title", "")),
        device=str(run.get("device", "")),
        seeds=seeds,
        data=data,
        surrogates=surrogates,
        influence=influence,
    )


def _positive(where: str, table: Any, entries: tuple[str, ...]) -> None:
    for entry in entries:
        if not getattr(table, entry) > 0:
            raise ValueError(f"{where}.{entry} must be positive; got {getattr(table, entry)}")


def _surrogate(name: str, table: Mapping[str, Any], training: TrainingConfig) -> SurrogateConfig:
    where = f"surrogates.{name}"
    if not isinstance(table, Mapping) or "kind" not in table:
        raise ValueError(f'[{where}] must be a table with an entry `kind`, "ViT" or "UNet"')
    own = {f.name for f in fields(TrainingConfig)}
    overrides = {key: value for key, value in table.items() if key in own}
    arguments = {key: value for key, value in table.items() if key not in own and key != "kind"}
    merged = _table(TrainingConfig, where, {**asdict(training), **overrides})
    return SurrogateConfig(name, str(table["kind"]), arguments, merged)


def _table(cls: type, where: str, table: Mapping[str, Any]) -> Any:
    known = {f.name: f for f in fields(cls)}
    _refuse_unknown(where, table, set(known))
    hints = cls.__annotations__
    values = {key: _convert(hints[key], f"{where}.{key}", value) for key, value in table.items()}
    missing = [n for n, f in known.items() if f.default is MISSING and n not in values]
    if missing:
        raise ValueError(f"[{where}] lacks {', '.join(missing)}")
    return cls(**values)


def _refuse_unknown(where: str, table: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        place = f"[{where}]" if where else "the top level"
        raise ValueError(f"{place} has the unknown entry {unknown[0]!r}; known: {', '.join(sorted(known))}")


_KINDS: dict[str, tuple[Any, str]] = {
    "str": (str, "a string"),
    "int": (int, "an integer"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}


def _convert(hint: Any, where: str, value: Any) -> Any:
    name = hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))
    text = str(hint) if not isinstance(hint, str) else hint
    if text.startswith("tuple["):
        inner = text.removeprefix("tuple[").split(",")[0].strip()
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(inner, where, item) for item in items)
    kind, described = _KINDS[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and name != "bool"):
        raise ValueError(f"{where} must be {described}; got {value!r}")
    return float(value) if name == "float" else value
