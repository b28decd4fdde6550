"""One small module of every kind that the engine must take, and a mini-batch for each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import pdeinfl as pi
from engine_problems import conv_net, mini_batch


class ResNet(nn.Module):
    """Residual blocks with batch norm, in-place ReLU, in-place addition and dropout."""

    def __init__(self, channels=4, width=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(width, channels, 1)
        self.act = nn.ReLU(inplace=True)
        for norm in self.norms:
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(norm(x))
            y += x
            x = self.act(y)
        return self.head(self.drop(x))


class Counting(nn.Module):
    """Writes to its input, to a buffer and to attributes on every call."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.register_buffer("calls", torch.zeros(()))
        self.count, self.last = 0, None

    def forward(self, x):
        self.calls += 1
        self.count += 1
        x *= 2
        self.last = self.conv(x)
        return torch.tanh(self.last)


class Tied(nn.Module):
    """One weight used twice under two names, one frozen, one that nothing reaches."""

    def __init__(self, channels=4):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.second = nn.Conv2d(channels, channels, 1)
        self.second.weight = self.first.weight
        self.frozen = nn.Conv2d(channels, channels, 1).requires_grad_(False)
        self.unreached = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.frozen(self.second(torch.tanh(self.first(x))))


class Spectral(nn.Module):
    """A Fourier layer with complex weights."""

    def __init__(self, channels=4, modes=2):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, modes, modes, dtype=torch.cfloat) * 0.3)
        self.skip = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        modes = self.weight.shape[-1]
        z = torch.fft.rfft2(x)[..., :modes, :modes]
        z = torch.einsum("ncxy,cdxy->ndxy", z, self.weight)
        z = F.pad(z, (0, x.shape[-1] // 2 + 1 - modes, 0, x.shape[-2] - modes))
        return torch.tanh(torch.fft.irfft2(z, s=x.shape[-2:])) + self.skip(x)


class Attention(nn.Module):
    """scaled_dot_product_attention over grid points."""

    def __init__(self, channels=4):
        super().__init__()
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return (tokens + self.out(mixed)).transpose(1, 2).reshape(x.shape)


class Encoder(nn.Module):
    """nn.MultiheadAttention and a whole nn.TransformerEncoderLayer."""

    def __init__(self, channels=4):
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(channels, 2, 6, batch_first=True, activation="gelu")

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.layer(tokens + self.attention(tokens, tokens, tokens)[0])
        return tokens.transpose(1, 2).reshape(x.shape)


class Recurrent(nn.Module):
    """A recurrent layer along the grid's points."""

    def __init__(self, kind, channels=4, width=3):
        super().__init__()
        self.cell = kind(channels, width, batch_first=True)
        self.head = nn.Linear(width, channels)

    def forward(self, x):
        return self.head(self.cell(x.flatten(2).transpose(1, 2))[0]).transpose(1, 2).reshape(x.shape)


class _Cube(torch.autograd.Function):
    """No setup_context, no vmap, no jvp: functorch refuses it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class _VmapCube(torch.autograd.Function):
    """Takes vmap, but has no forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Custom(nn.Module):
    def __init__(self, function, channels=4):
        super().__init__()
        self.conv, self.function = nn.Conv2d(channels, channels, 1), function

    def forward(self, x):
        return self.function.apply(self.conv(x)) + x


class Branching(nn.Module):
    """Control flow that depends on the data, which vmap refuses and forward mode takes."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        y = self.conv(x)
        return torch.tanh(y) if float(x.sum()) > 0 else y


class Conditioned(nn.Module):
    """Takes a time step and a class after the state."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv, self.classes = nn.Conv2d(channels, channels, 1), nn.Embedding(3, channels)

    def forward(self, x, step, label):
        shift = self.classes(label)[..., None, None]
        return x + step[:, None, None, None] * torch.tanh(self.conv(x) + shift)


def parametrised():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    net = nn.Sequential(
        parametrizations.weight_norm(conv), nn.Tanh(), parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))
    )
    net(torch.rand(2, 4, 4, 5))
    return net


def conditions(n=3):
    return (torch.linspace(0.1, 0.5, n), torch.arange(n) % 3)


EXTRAS = {"conditioned": conditions(), "class of the adapter": conditions()[1:]}
MODULES = {
    "1-d": lambda: conv_net(channels=2, space=1),
    "3-d": lambda: conv_net(channels=2, space=3),
    "resnet": ResNet,
    "counting": Counting,
    "tied": Tied,
    "spectral": Spectral,
    "attention": Attention,
    "encoder": Encoder,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "old function": lambda: Custom(_Cube),
    "function without forward mode": lambda: Custom(_VmapCube),
    "branching": Branching,
    "conditioned": Conditioned,
    "parametrised": parametrised,
    "data parallel": lambda: nn.DataParallel(conv_net()),
    "normalised difference": lambda: pi.Adapter(conv_net(), mean=1.5, std=[0.3, 0.2, 0.4, 0.3], predicts="difference"),
    "channels last": lambda: pi.Adapter(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4)), channels_last=True),
    "two frames": lambda: pi.Adapter(nn.Conv2d(8, 4, 3, padding=1), std=0.5, predicts="difference", n_frames=2),
    "class of the adapter": lambda: pi.Adapter(Conditioned(), extras=(0.3,)),
}


def batch_for(name, n=3):
    if name in ("1-d", "3-d"):
        return mini_batch(n, channels=2, sides=(5,) if name == "1-d" else (2, 3, 2))
    return mini_batch(n, sides=(3, 4), frames=2 if name == "two frames" else 1, extras=EXTRAS.get(name, ()))


def make(name):
    torch.manual_seed(3)
    return MODULES[name]()
