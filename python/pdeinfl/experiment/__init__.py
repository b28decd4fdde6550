"""A run from its configuration: simulate or open, train, influence, report; finished stages are skipped."""

from pdeinfl.experiment.config import RunConfig, load_config, parse_config
from pdeinfl.experiment.stages import run_experiment

__all__ = ["RunConfig", "load_config", "parse_config", "run_experiment"]
