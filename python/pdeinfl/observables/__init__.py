"""Observables: scalar costs ``C(pred, target, input) -> (n,)`` of predicted fields, for training and for the engine.

``resolve`` turns a name, an observable or a callable of yours into a bound observable. All of them differentiate twice,
run under ``torch.func`` transforms, on any device, in any floating dtype.
"""

from pdeinfl.observables.base import CHANNEL_EPS, Observable, UserObservable
from pdeinfl.observables.conserved import Energy, Mass, MomentumX, MomentumY
from pdeinfl.observables.flow import Enstrophy, KineticEnergy
from pdeinfl.observables.registry import available, default_responses, resolve, resolve_all
from pdeinfl.observables.smse import SMSE, BandSMSE, ChannelSMSE, smse_bands, smse_channels

__all__ = [
    "CHANNEL_EPS",
    "SMSE",
    "BandSMSE",
    "ChannelSMSE",
    "Energy",
    "Enstrophy",
    "KineticEnergy",
    "Mass",
    "MomentumX",
    "MomentumY",
    "Observable",
    "UserObservable",
    "available",
    "default_responses",
    "resolve",
    "resolve_all",
    "smse_bands",
    "smse_channels",
]
