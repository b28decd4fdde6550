"""`UNet`: the paper's convolutional encoder–decoder for fields on a periodic grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pdeinfl.arguments import check_counts
from pdeinfl.surrogates.base import Surrogate, as_resolution
from pdeinfl.surrogates.layers import Attention, CircularConv2d, InstanceNorm, RMSNorm, circular_pad


class UNet(Surrogate):
    """Circular convolutions down to a grid ``2**levels`` times coarser, attention there, and back up with skips.

    Every level down doubles the width and halves the grid, with one kernel size per level; the middle works at twice
    the deepest width; every level up is a pixel shuffle, then the encoder's output of that resolution is concatenated.
    The defaults are the paper's network, 13,875,081 parameters. Biases of convolutions that only instance norms read
    have no effect and no gradient.

    Args:
        channels: C, channels of the state.
        width: width after the stem, c; the deepest level has ``c · 2**levels``, the middle twice that.
        kernels: odd kernel size of each level, finest first; their number is the number of levels.
        stem_kernel: odd kernel size of the first and the last convolutions.
        heads: attention heads in the middle; must divide its width.
        mlp_ratio: hidden width of the middle's feed-forward over its width.
        resolution: None, any grid that fits: sides divisible by ``2**levels`` with at least two cells left, and no
            kernel reaching round its level more than once. A given resolution is checked now and at every call.

    Raises:
        ValueError: an argument is out of range, or a call brings states of another shape.

    Reference: arXiv 2509.00024, section 4 and appendix.

    >>> UNet(channels=2, width=4, kernels=(3, 3), stem_kernel=3)(torch.zeros(1, 2, 16, 8)).shape
    torch.Size([1, 2, 16, 8])
    """

    def __init__(
        self,
        channels: int = 4,
        width: int = 24,
        kernels: Sequence[int] = (9, 7, 5, 3),
        stem_kernel: int = 11,
        heads: int = 4,
        mlp_ratio: int = 2,
        resolution: int | Sequence[int] | None = None,
    ) -> None:
        channels, width, stem_kernel, heads, mlp_ratio = check_counts(
            1, channels=channels, width=width, stem_kernel=stem_kernel, heads=heads, mlp_ratio=mlp_ratio
        )
        kernels = tuple(kernels)
        if not kernels or any(not isinstance(k, int) or k < 1 or k % 2 == 0 for k in (*kernels, stem_kernel)):
            raise ValueError(
                f"`kernels` and `stem_kernel` must be odd, one kernel per level; got {kernels}, {stem_kernel}"
            )
        middle = width * 2 ** (len(kernels) + 1)
        if middle % heads:
            raise ValueError(f"`heads` must divide the middle's width {middle}; got {heads}")
        sides = None if resolution is None else as_resolution(resolution)
        config = {
            "channels": channels, "width": width, "kernels": list(kernels), "stem_kernel": stem_kernel, "heads": heads,
            "mlp_ratio": mlp_ratio, "resolution": None if sides is None else list(sides),
        }  # fmt: skip
        super().__init__(config, channels, sides)
        self.kernels, self.stem_kernel = kernels, stem_kernel
        if sides is not None:
            self.check_resolution(sides)
        self.stem = CircularConv2d(channels, width, stem_kernel, kaiming=True)
        self.down = nn.ModuleList(_Down(width * 2**level, kernel) for level, kernel in enumerate(kernels))
        self.middle = _Middle(middle // 2, heads, mlp_ratio)
        self.up = nn.ModuleList(_Up(width * 2 ** (level + 2), k) for level, k in reversed(list(enumerate(kernels))))
        self.head = nn.Sequential(
            RMSNorm((-2, -1)),
            nn.SiLU(),
            CircularConv2d(2 * width, 2 * width, stem_kernel, kaiming=True),
            RMSNorm((-2, -1)),
            nn.SiLU(),
            CircularConv2d(2 * width, 2 * width, stem_kernel, kaiming=True),
            CircularConv2d(2 * width, channels, 1, kaiming=True),
        )

    @property
    def stride(self) -> int:
        """Cells per cell of the deepest grid, ``2**levels``: shifts by it commute with the network."""
        return 2 ** len(self.kernels)

    def check_resolution(self, resolution: tuple[int, int]) -> None:
        super().check_resolution(resolution)
        if any(side % self.stride or side < 2 * self.stride for side in resolution):
            raise ValueError(f"a UNet of {len(self.kernels)} levels needs a `resolution` divisible by {self.stride} "
                             f"and at least {2 * self.stride}; got {resolution}: pass fewer kernels")  # fmt: skip
        levels = [(self.stem_kernel, 1), *((kernel, 2**level) for level, kernel in enumerate(self.kernels))]
        for kernel, coarsening in levels:
            if (kernel - 1) // 2 > min(resolution) // coarsening:
                raise ValueError(f"a kernel of {kernel} cells reaches round a grid of {min(resolution) // coarsening} "
                                 f"more than once at resolution {resolution}: pass smaller kernels")  # fmt: skip

    def forward(self, state: Tensor) -> Tensor:
        """Next states, ``(n, C, X, Y)`` from ``(n, C, X, Y)``."""
        self.check_state(state)
        x = self.stem(state)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up in self.up:
            x = torch.cat([up(x), skips.pop()], 1)
        return self.head(x)


class _Down(nn.Module):
    """Half the grid, twice the width."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.norm = InstanceNorm(width)
        self.conv = CircularConv2d(width, 2 * width, kernel, kaiming=True)
        self.inner_norm = InstanceNorm(2 * width)
        self.strided = CircularConv2d(2 * width, 2 * width, kernel, stride=2, kaiming=True)
        self.skip = CircularConv2d(width, 2 * width, 1, kaiming=True)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm(x))
        main = self.strided(F.silu(self.inner_norm(self.conv(h))))
        skip = F.avg_pool2d(circular_pad(self.skip(h), (self.kernel - 1) // 2), self.kernel, stride=2)
        return (main + skip) / math.sqrt(2)


class _Up(nn.Module):
    """Twice the grid, a quarter of the width."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = InstanceNorm(width)
        self.skip = CircularConv2d(width // 4, width // 4, 1, kaiming=True)
        self.conv = CircularConv2d(width // 4, width // 4, kernel, kaiming=True)
        self.inner_norm = InstanceNorm(width // 4)
        self.out = CircularConv2d(width // 4, width // 4, kernel, kaiming=True)

    def forward(self, x: Tensor) -> Tensor:
        h = F.pixel_shuffle(F.silu(self.norm(x)), 2)
        return (self.out(F.silu(self.inner_norm(self.conv(h)))) + self.skip(h)) / math.sqrt(2)


class _Middle(nn.Module):
    """Twice the width, then one attention block over the positions of the deepest grid, without position code."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        inner = 2 * width
        self.norm = RMSNorm((-2, -1))
        self.conv = CircularConv2d(width, inner, 3, kaiming=True)
        self.attention_norm = RMSNorm((-2, -1))
        self.attention = Attention(inner, heads)
        self.mlp_norm = RMSNorm((-2, -1))
        self.widen = CircularConv2d(inner, mlp_ratio * inner, 1, kaiming=True)
        self.narrow = CircularConv2d(mlp_ratio * inner, inner, 1, kaiming=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.silu(self.norm(x)))
        attended = self.attention(self.attention_norm(x).flatten(2).transpose(1, 2))
        u = x + attended.transpose(1, 2).unflatten(2, x.shape[2:])
        return (u + self.narrow(F.silu(self.widen(self.mlp_norm(u))))) / math.sqrt(2)
