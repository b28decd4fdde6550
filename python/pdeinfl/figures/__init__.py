"""Figures: one function per aggregation, each returning a `matplotlib.figure.Figure`; :func:`save` writes PNG and PDF.

Every function takes one aggregation or a mapping ``{surrogate: aggregation}``; those drawn per observable also take
``{surrogate: {observable: aggregation}}``. Rows of H respond and run upward; columns perturb and run to the right.
"""

from pdeinfl.figures.channel_blocks import channel_resolved
from pdeinfl.figures.class_transfer_matrices import class_transfer
from pdeinfl.figures.damping_paths import damping_path
from pdeinfl.figures.distance_decays import distance_decay
from pdeinfl.figures.dynamics_curves import training_dynamics
from pdeinfl.figures.eigenvalue_spectra import eigenvalues
from pdeinfl.figures.lag_profiles import lag_profile
from pdeinfl.figures.main_figure import summary
from pdeinfl.figures.optimisation_curves import optimisation_curve
from pdeinfl.figures.prediction_panels import predictions, rollout
from pdeinfl.figures.response_checks import response_check
from pdeinfl.figures.rollout_links import rollout_link
from pdeinfl.figures.style import save
from pdeinfl.figures.thumbnail_sheets import thumbnails
from pdeinfl.figures.two_time_maps import two_time

__all__ = [
    "channel_resolved",
    "class_transfer",
    "damping_path",
    "distance_decay",
    "eigenvalues",
    "lag_profile",
    "optimisation_curve",
    "predictions",
    "response_check",
    "rollout",
    "rollout_link",
    "save",
    "summary",
    "thumbnails",
    "training_dynamics",
    "two_time",
]
