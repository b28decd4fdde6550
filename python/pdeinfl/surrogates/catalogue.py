"""Our surrogates by name, so that a configuration file or a checkpoint can rebuild one."""

from __future__ import annotations

import inspect
from typing import Any

from pdeinfl.surrogates.base import Surrogate
from pdeinfl.surrogates.unet import UNet
from pdeinfl.surrogates.vit import ViT

_KINDS: dict[str, type[Surrogate]] = {"UNet": UNet, "ViT": ViT}


def build(config: dict[str, Any]) -> Surrogate:
    """The surrogate that a `Surrogate.config` describes: ``kind`` (any case) and its constructor's arguments.

    Weights are drawn anew, from torch's global generator.

    Raises:
        ValueError: unknown kind or argument, with the valid ones.

    >>> build({"kind": "ViT", "resolution": 16, "width": 32, "depth": 1}).n_parameters
    14147
    """
    arguments = dict(config)
    wanted = arguments.pop("kind", None)
    kinds = {name.lower(): kind for name, kind in _KINDS.items()}
    if not isinstance(wanted, str) or wanted.lower() not in kinds:
        raise ValueError(f"`kind` of a surrogate must be one of {list(_KINDS)}; got {wanted!r}")
    kind = kinds[wanted.lower()]
    valid = list(inspect.signature(kind).parameters)
    unknown = sorted(set(arguments) - set(valid))
    if unknown:
        raise ValueError(f"{kind.__name__} has no argument {unknown[0]!r}; valid: {', '.join(valid)}")
    return kind(**arguments)
