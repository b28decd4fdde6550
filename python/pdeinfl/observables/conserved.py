"""Violation of the conservation laws of compressible flow (eqs. 5b, 5c): mass, total energy, momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pdeinfl.observables.base import CHANNEL_EPS, Observable, rms, spatial_axes


@dataclass(frozen=True)
class _MeanDrift(Observable):
    """``(M[ŷ] − M[x])² / (M[x] + 1e-6)``, M the spatial mean of one channel."""

    requires: ClassVar[tuple[str, ...]] = ("density",)

    @property
    def name(self) -> str:
        raise NotImplementedError

    def scale(self, state: Tensor) -> Tensor:
        """The denominator without its epsilon, from one channel ``(n, 1, X, ...)`` of the current state."""
        return state.mean(spatial_axes(state))

    def cost(self, pred: Tensor, target: Tensor, state: Tensor) -> Tensor:
        c = self.index_of(self.requires[0])
        before, after = state[:, c : c + 1], pred[:, c : c + 1]
        # The mean of the difference: the difference of two nearly equal means would cancel.
        drift = (after - before).mean(spatial_axes(pred))
        return (drift.square() / (self.scale(before) + CHANNEL_EPS))[:, 0]


@dataclass(frozen=True)
class Mass(_MeanDrift):
    """``(M[ŷ] − M[x])² / (M[x] + 1e-6)``, M the spatial mean of the channel ``density``.

    Reference: eq. 5b of arXiv 2509.00024.
    """

    @property
    def name(self) -> str:
        return "mass"


@dataclass(frozen=True)
class Energy(_MeanDrift):
    """``(M[ŷ] − M[x])² / (M[x] + 1e-6)``, M the spatial mean of the channel ``energy`` (total energy density).

    Reference: eq. 5c of arXiv 2509.00024.
    """

    requires: ClassVar[tuple[str, ...]] = ("energy",)

    @property
    def name(self) -> str:
        return "energy"


@dataclass(frozen=True)
class _Momentum(_MeanDrift):
    """Drift of a mean momentum, over the RMS of its density: the mean itself may be zero or negative."""

    def scale(self, state: Tensor) -> Tensor:
        return rms(state)


@dataclass(frozen=True)
class MomentumX(_Momentum):
    """``(M[ŷ] − M[x])² / (RMS[x] + 1e-6)``, M and RMS the spatial mean and root mean square of ``momentum_x``.

    The RMS stands where mass has the mean, because the total momentum of a periodic flow is often zero.
    """

    requires: ClassVar[tuple[str, ...]] = ("momentum_x",)

    @property
    def name(self) -> str:
        return "momentum_x"


@dataclass(frozen=True)
class MomentumY(_Momentum):
    """The same as `MomentumX` for the channel ``momentum_y``."""

    requires: ClassVar[tuple[str, ...]] = ("momentum_y",)

    @property
    def name(self) -> str:
        return "momentum_y"
