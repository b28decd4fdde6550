"""`ViT`: the paper's vision transformer for fields on a periodic grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdeinfl.arguments import check_counts
from pdeinfl.surrogates.base import Surrogate, as_resolution
from pdeinfl.surrogates.layers import Attention, CircularConv2d, RMSNorm

_LAYOUTS = ("unpatchify", "reference")


class ViT(Surrogate):
    """Pre-norm transformer on patch tokens of a periodic field, learned positions, one linear read-out per token.

    A circular convolution of stride ``patch`` (odd kernel ``patch | 1``) makes the tokens; each block is
    ``x += MHA(RMS x)``, then ``x += W₂ SiLU(W₁ RMS x)``; final RMS, then a linear map to ``patch² C`` values a token.
    The defaults are the paper's network, 4,504,913 parameters.

    Args:
        channels: C, channels of the state.
        resolution: the grid, an integer or ``(X, Y)``; both divisible by ``patch``.
        width: width of a token.
        depth: number of blocks (the paper's text says six, with ``mlp_ratio=4``).
        heads: attention heads; must divide ``width``; default one per 32, at least one.
        mlp_ratio: hidden width of a block's MLP over ``width``.
        patch: side of a token's patch in cells, which is also the stride of the embedding.
        output_layout: ``"unpatchify"`` writes each token's values back onto its patch; ``"reference"`` strings them
            along the last axis, row after row of tokens, as the authors' code does: a token then writes a strip of
            ``patch²`` cells away from where it reads.

    Raises:
        ValueError: an argument is out of range, or a call brings states of another shape.

    Reference: arXiv 2509.00024, section 4 and appendix; lanl/PDEHats for the layout.

    >>> ViT(channels=4, resolution=32, width=64, depth=4)(torch.zeros(2, 4, 32, 32)).shape
    torch.Size([2, 4, 32, 32])
    """

    def __init__(
        self,
        channels: int = 4,
        resolution: int | Sequence[int] = 128,
        width: int = 256,
        depth: int = 8,
        heads: int | None = None,
        mlp_ratio: int = 2,
        patch: int = 4,
        output_layout: Literal["unpatchify", "reference"] = "unpatchify",
    ) -> None:
        heads = max(1, width // 32) if heads is None else heads
        channels, width, depth, heads, mlp_ratio, patch = check_counts(
            1, channels=channels, width=width, depth=depth, heads=heads, mlp_ratio=mlp_ratio, patch=patch
        )
        sides = as_resolution(resolution)
        if sides[0] % patch or sides[1] % patch:
            raise ValueError(f"`resolution` must be divisible by patch = {patch}; got {sides}")
        if width % heads:
            raise ValueError(f"`heads` must divide width = {width}; got {heads}")
        if output_layout not in _LAYOUTS:
            raise ValueError(f"`output_layout` must be one of {list(_LAYOUTS)}; got {output_layout!r}")
        config = {
            "channels": channels, "resolution": list(sides), "width": width, "depth": depth, "heads": heads,
            "mlp_ratio": mlp_ratio, "patch": patch, "output_layout": output_layout,
        }  # fmt: skip
        super().__init__(config, channels, sides)
        self.patch = patch
        self.output_layout = output_layout
        self.tokens = (sides[0] // patch, sides[1] // patch)
        self.embed = CircularConv2d(channels, width, patch | 1, stride=patch)
        self.positions = nn.Parameter(torch.randn(self.tokens[0] * self.tokens[1], width))
        self.blocks = nn.ModuleList(_Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = RMSNorm((-1,))
        self.read_out = nn.Linear(width, patch * patch * channels)

    def forward(self, state: Tensor) -> Tensor:
        """Next states, ``(n, C, X, Y)`` from ``(n, C, X, Y)``."""
        self.check_state(state)
        x = self.embed(state).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        return self._to_grid(self.read_out(self.norm(x)))

    def _to_grid(self, values: Tensor) -> Tensor:
        # values: (n, tokens, C · patch²), channel-major within a token
        n, (rows, columns), p = len(values), self.tokens, self.patch
        if self.output_layout == "reference":
            per_channel = values.unflatten(-1, (self.channels, p * p)).transpose(1, 2)
            return per_channel.reshape(n, self.channels, rows * p, columns * p)
        patches = values.reshape(n, rows, columns, self.channels, p, p)
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(n, self.channels, rows * p, columns * p)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm((-1,))
        self.attention = Attention(width, heads)
        self.mlp_norm = RMSNorm((-1,))
        self.widen = nn.Linear(width, mlp_ratio * width)
        self.narrow = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.narrow(F.silu(self.widen(self.mlp_norm(x))))
