"""`influence`: the influence matrix of a module on a mini-batch."""

from __future__ import annotations

from pdeinfl.engine.result import Influence, Labels

__all__ = ["Influence", "Labels"]
