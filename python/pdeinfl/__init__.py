"""Has a neural PDE surrogate learned the dynamics, or memorised them?

Influence functions for autoregressive PDE surrogates (arXiv 2509.00024) with certified error. Names load on first use,
so that ``import pdeinfl`` and the command line stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdeinfl import figures as figures
    from pdeinfl import observables as observables
    from pdeinfl import surrogates as surrogates
    from pdeinfl.analysis.aggregation import class_transfer as class_transfer
    from pdeinfl.analysis.aggregation import distance_decay as distance_decay
    from pdeinfl.analysis.aggregation import lag_profile as lag_profile
    from pdeinfl.analysis.aggregation import two_time as two_time
    from pdeinfl.analysis.damping_curves import damping_path as damping_path
    from pdeinfl.analysis.dynamics import training_dynamics as training_dynamics
    from pdeinfl.analysis.response_checks import response_check as response_check
    from pdeinfl.analysis.rollout_link import rollout_link as rollout_link
    from pdeinfl.contraction import gram as gram
    from pdeinfl.data.mini_batch import MiniBatch as MiniBatch
    from pdeinfl.data.readers import open_trajectories as open_trajectories
    from pdeinfl.data.simulators import simulate as simulate
    from pdeinfl.data.trajectories import Trajectories as Trajectories
    from pdeinfl.engine.adapter import Adapter as Adapter
    from pdeinfl.engine.damping import Damping as Damping
    from pdeinfl.engine.gradient_store import GradientStore as GradientStore
    from pdeinfl.engine.influence_matrix import Influence as Influence
    from pdeinfl.engine.influence_matrix import influence as influence
    from pdeinfl.html_report import report as report
    from pdeinfl.surrogates.training import train as train

_HOMES = {
    "Adapter": "pdeinfl.engine.adapter",
    "Damping": "pdeinfl.engine.damping",
    "GradientStore": "pdeinfl.engine.gradient_store",
    "Influence": "pdeinfl.engine.influence_matrix",
    "MiniBatch": "pdeinfl.data.mini_batch",
    "Trajectories": "pdeinfl.data.trajectories",
    "class_transfer": "pdeinfl.analysis.aggregation",
    "damping_path": "pdeinfl.analysis.damping_curves",
    "distance_decay": "pdeinfl.analysis.aggregation",
    "gram": "pdeinfl.contraction",
    "influence": "pdeinfl.engine.influence_matrix",
    "lag_profile": "pdeinfl.analysis.aggregation",
    "open_trajectories": "pdeinfl.data.readers",
    "report": "pdeinfl.html_report",
    "response_check": "pdeinfl.analysis.response_checks",
    "rollout_link": "pdeinfl.analysis.rollout_link",
    "simulate": "pdeinfl.data.simulators",
    "train": "pdeinfl.surrogates.training",
    "training_dynamics": "pdeinfl.analysis.dynamics",
    "two_time": "pdeinfl.analysis.aggregation",
}
_ROOMS = ("figures", "observables", "surrogates")

__all__ = ["__version__", *sorted(_HOMES), *_ROOMS]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("pdeinfl._core").__version__
    if name in _ROOMS:
        return importlib.import_module(f"pdeinfl.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pdeinfl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
