# SPDX-License-Identifier: Apache-2.0
"""A zoo of topologies: small networks in plain torch whose channels depend on each other in every known way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pipeline.compress.context import Context
from pipeline.compress.macs import count_macs
from pipeline.models.cost import Cost
from pipeline.models.export import export_onnx
from pipeline.params import Model
from pipeline.probes.session import open_session, predict
from tests.pass_context import dataset_of

SHAPE = (3, 16, 16)
CLASSES = 4


def _conv(inputs: int, outputs: int, kernel: int = 3, **options: object) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(
            _conv(3, 16), nn.MaxPool2d(2), _conv(16, 32), _conv(32, 32),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES),
        )  # fmt: skip


class _Block(nn.Module):
    def __init__(self, inputs, outputs, shortcut):
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class _Residual(nn.Module):
    def __init__(self, shortcut):
        super().__init__()
        self.stem = _conv(3, 16)
        self.blocks = nn.Sequential(_Block(16, 16, nn.Identity()), _Block(16, 32, shortcut))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class _Pad(nn.Module):
    """The shortcut without parameters of He et al. 2016: every second pixel, channels padded with zeros."""

    def __init__(self, each):
        super().__init__()
        self.each = each

    def forward(self, x):
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.each, self.each))


class _PadTo(nn.Module):
    """The same to a number of channels that does not follow the network's."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, x):
        missing = self.outputs - x.shape[1]
        x = x[:, :, ::2, ::2]
        return torch.cat([x, x.new_zeros(x.shape[0], missing, x.shape[2], x.shape[3])], 1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        gate = torch.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.expand(gate))


class DepthwiseSqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 16)
        self.expand = _conv(16, 32, 1)
        self.depthwise = _conv(32, 32, groups=32)
        self.excite = SqueezeExcite(32)
        self.project = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.excite(self.depthwise(self.expand(x))))
        return self.head(functional.hardswish(x).mean((2, 3)))


class DepthwiseMultiplier(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 12)
        self.depthwise = _conv(12, 24, groups=12)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x):
        return self.head(self.depthwise(self.stem(x)).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 12)
        self.first = _conv(12, 8)
        self.second = _conv(20, 8)
        self.transition = _conv(28, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.first(x)], 1)
        x = torch.cat([x, self.second(x)], 1)
        return self.head(self.transition(x).mean((2, 3)))


class SelfConcat(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 16)
        self.second = _conv(32, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.second(torch.cat([x, -x], 1)).mean((2, 3)))


class Grouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 16)
        self.grouped = _conv(16, 32, groups=4)
        self.mix = _conv(32, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.mix(self.grouped(x))).mean((2, 3)))


def _shuffle(x, groups):
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ChannelShuffle(nn.Module):
    """The unit of Zhang et al. 2018: grouped 1x1, shuffle, depthwise, grouped 1x1."""

    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 24)
        self.squeeze = _conv(24, 16, 1, groups=2)
        self.depthwise = _conv(16, 16, groups=16)
        self.expand = nn.Sequential(nn.Conv2d(16, 24, 1, groups=2, bias=False), nn.BatchNorm2d(24))
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        y = self.expand(self.depthwise(_shuffle(self.squeeze(x), 2)))
        return self.head(torch.relu(x + y).mean((2, 3)))


class ShuffleHalves(nn.Module):
    """The unit of Ma et al. 2018: half of the channels pass, then a shuffle."""

    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 24)
        self.branch = nn.Sequential(_conv(12, 12, 1), _conv(12, 12, groups=12), _conv(12, 12, 1))
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x):
        left, right = self.stem(x).chunk(2, dim=1)
        return self.head(_shuffle(torch.cat([left, self.branch(right)], 1), 2).mean((2, 3)))


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 16)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.other = nn.Conv2d(16, 16, 3, padding=1)
        self.other.weight = self.block.weight
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = torch.relu(self.block(self.stem(x)))
        return self.head(torch.relu(self.block(x) + self.other(x)).mean((2, 3)))


class FlattenLinear(nn.Sequential):
    def __init__(self):
        super().__init__(
            _conv(3, 16), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16 * 16, 32), nn.ReLU(),
            nn.Linear(32, CLASSES),
        )  # fmt: skip


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = _conv(3, 12), _conv(12, 24)
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.merge = _conv(24, 12)
        self.head = nn.Conv2d(12, CLASSES, 1)

    def forward(self, x):
        high = self.down1(x)
        low = self.down2(functional.max_pool2d(high, 2))
        x = self.merge(torch.cat([high, self.up(low)], 1))
        return self.head(x).mean((2, 3))


class _Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        n, t, _ = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query @ key.transpose(-2, -1) * self.scale).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).reshape(n, t, -1))


class _Encoder(nn.Module):
    def __init__(self, width, attention):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, attention=None):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.position = nn.Parameter(torch.zeros(1, 17, 16))
        self.block = _Encoder(16, attention or _Attention(16, 2))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.block(x))[:, 0])


class _Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


class _Fused(_Attention):
    def forward(self, x):
        n, t, _ = x.shape
        query, key, value = self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class SplitChunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 24)
        self.left, self.right = _conv(12, 12), _conv(12, 12)
        self.gate = nn.Conv2d(24, 32, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        left, right = torch.split(x, x.shape[1] // 2, dim=1)
        x = torch.cat([self.left(left), self.right(right)], 1)
        values, gates = self.gate(x).chunk(2, 1)
        return self.head((values * torch.sigmoid(gates)).mean((2, 3)))


class ConvAttention(nn.Module):
    """Attention over pixels, with heads cut out by reshapes."""

    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 16)
        self.query, self.key, self.value = (nn.Conv2d(16, 16, 1) for _ in range(3))
        self.out = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = functional.avg_pool2d(self.stem(x), 2)
        n, _, h, w = x.shape
        query, key, value = (part(x).reshape(n, 2, -1, h * w) for part in (self.query, self.key, self.value))
        weights = torch.softmax(torch.einsum("ncdi,ncdj->ncij", query, key) * 0.3, -1)
        y = torch.einsum("ncij,ncdj->ncdi", weights, value).reshape(n, -1, h, w)
        return self.head((x + self.out(y)).mean((2, 3)))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = _conv(3, 16), _conv(16, 32)
        self.lateral = nn.Conv2d(16, 32, 1)
        self.classes = nn.Conv2d(32, CLASSES, 1)
        self.boxes = nn.Sequential(_conv(32, 16), nn.Conv2d(16, 4, 1))

    def forward(self, x):
        high = self.stem(x)
        low = self.body(functional.max_pool2d(high, 2))
        merged = self.lateral(high) + functional.interpolate(low, scale_factor=2.0, mode="nearest")
        return self.classes(merged), self.boxes(merged)


class Recurrent(nn.Module):
    def __init__(self, kind=nn.GRU):
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16), _conv(16, 12))
        self.rows = kind(12, 10, batch_first=True)
        self.hidden = nn.Linear(10, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x).mean(3).transpose(1, 2)
        return self.head(torch.relu(self.hidden(self.rows(x)[0][:, -1])))


class GroupNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.second, self.alone = nn.Conv2d(16, 24, 3, padding=1), nn.GroupNorm(24, 24)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.alone(self.second(x))).amax((2, 3)))


class PixelShuffle(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 32)
        self.grow = nn.Sequential(nn.PixelShuffle(2), nn.PReLU(8), nn.Conv2d(8, 12, 3, padding=1))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x):
        return self.head(self.grow(self.stem(functional.max_pool2d(x, 2))).mean((2, 3)))


class FixedReshape(nn.Module):
    """A forward that knows the number of channels by heart."""

    def __init__(self):
        super().__init__()
        self.stem, self.second = _conv(3, 16), _conv(16, 16)
        self.third = _conv(16, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.second(self.stem(x)).reshape(-1, 2, 8, 16, 16).transpose(1, 2).reshape(-1, 16, 16, 16)
        return self.head(self.third(x).mean((2, 3)))


class FixedSlice(nn.Module):
    """A forward that cuts at a channel it knows by heart."""

    def __init__(self):
        super().__init__()
        self.stem, self.second = _conv(3, 16), _conv(10, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.second(self.stem(x)[:, 3:13]).mean((2, 3)))


class Interleaved(nn.Module):
    """A shuffle by index, which no shape follows."""

    def __init__(self):
        super().__init__()
        self.stem, self.second = _conv(3, 16), _conv(16, 16)
        self.register_buffer("order", torch.arange(16).reshape(2, 8).T.flatten())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.second(self.stem(x)[:, self.order]).mean((2, 3)))


class SpatialGate(nn.Module):
    """A gate from the mean and the maximum over channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.second = _conv(3, 16), _conv(16, 16)
        self.gate = nn.Conv2d(2, 1, 3, padding=1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.second(self.stem(x))
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head((x * torch.sigmoid(self.gate(pooled))).mean((2, 3)))


class EarlyExit(nn.Module):
    """Control flow that depends on the values of the images."""

    def __init__(self):
        super().__init__()
        self.stem, self.second = _conv(3, 16), _conv(16, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        if x.mean() > 0:
            x = self.second(x)
        return self.head(x.mean((2, 3)))


def _non_finite():
    module = Plain()
    with torch.no_grad():
        module[2][0].weight[3, 2] = float("nan")
    return module


@dataclass(frozen=True)
class Topology:
    """One network of the zoo.

    Attributes:
        build: Makes it.
        refused: What the refusal names; None if it can be pruned.
        held: Layers some or all of whose channels stay, with a word of the reason.
        outputs: Tensors it returns.
    """

    build: Callable[[], nn.Module]
    refused: str | None = None
    held: tuple[tuple[str, str], ...] = ()
    outputs: int = 1


ZOO = {
    "plain": Topology(Plain),
    "residual, projected": Topology(
        lambda: _Residual(nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32)))
    ),
    "residual, option A": Topology(lambda: _Residual(_Pad(8)), held=(("blocks.1.conv2", "add"),)),
    "residual, padded to 32": Topology(lambda: _Residual(_PadTo(32)), held=(("stem.0", ""),)),
    "depthwise, squeeze-excite": Topology(DepthwiseSqueezeExcite),
    "depthwise, multiplier": Topology(DepthwiseMultiplier),
    "dense concat": Topology(Dense),
    "self-concat": Topology(SelfConcat),
    "grouped": Topology(Grouped),
    "channel shuffle": Topology(ChannelShuffle),
    "shuffled halves": Topology(ShuffleHalves),
    "shared weights": Topology(Shared),
    "flatten to linear": Topology(FlattenLinear),
    "U-Net, transposed": Topology(UNet),
    "vision transformer": Topology(VisionTransformer, held=(("patch", "layer_norm"),)),
    "packed attention": Topology(lambda: VisionTransformer(_Packed()), held=(("patch", "layer_norm"),)),
    "fused attention": Topology(
        lambda: VisionTransformer(_Fused(16, 2)),
        held=(("block.attention.qkv", "scaled_dot_product_attention"),),
    ),
    "split and chunk": Topology(SplitChunk),
    "attention by reshape": Topology(ConvAttention),
    "detector, two outputs": Topology(Detector, outputs=2),
    "recurrent, GRU": Topology(Recurrent, held=(("stem.1.0", "gru in rows"),)),
    "recurrent, LSTM": Topology(lambda: Recurrent(nn.LSTM), held=(("stem.1.0", "lstm in rows"),)),
    "group norm": Topology(GroupNormed, held=(("first", "group_norm in norm"),)),
    "pixel shuffle": Topology(PixelShuffle),
    "reshape by heart": Topology(FixedReshape, held=(("second.0", "without them"),)),
    "slice by heart": Topology(FixedSlice, held=(("stem.0", "without them"),)),
    "shuffle by index": Topology(Interleaved, held=(("stem.0", "index"),)),
    "spatial gate": Topology(SpatialGate, held=(("second.0", "mean"),)),
    "dynamic control flow": Topology(EarlyExit, refused="depend on the values of images"),
    "non-finite weights": Topology(_non_finite, refused="2.0.weight"),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """Return a network of the zoo in eval mode; weights, and statistics of normalisations, are random."""
    torch.manual_seed(seed)
    module = ZOO[name].build()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.copy_(torch.rand_like(layer.weight) + 0.5)
                layer.bias.copy_(torch.randn_like(layer.bias) * 0.5)
                layer.running_mean.copy_(torch.randn_like(layer.running_mean) * 0.5)
                layer.running_var.copy_(torch.rand_like(layer.running_var) + 0.5)
    return module.eval()


def context_of(module: nn.Module, seed: int = 0) -> Context:
    """Return a context whose baseline is `module`; its costs are counted in torch, nothing is exported."""
    macs = count_macs(module, torch.zeros(1, *SHAPE))
    model = Model(factory="net.py:build", code="net.py", weights=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    cost = Cost(bytes=0, gzip_bytes=0, macs=macs, parameters=0)
    return Context(dataset_of(SHAPE, CLASSES), copy.deepcopy(module).eval(), cost, model, Path(), seed)


def _kept(before: torch.Tensor, after: torch.Tensor) -> list[torch.Tensor]:
    """Return, for every dimension, which positions of `before` are still in `after`, found by their values."""
    order = before.flatten().sort()
    places = torch.searchsorted(order.values, after.flatten())
    assert torch.equal(order.values[places], after.flatten())
    return [index.unique() for index in torch.unravel_index(order.indices[places], before.shape)]


def masked_like(module: nn.Module, pruned: nn.Module) -> nn.Module:
    """Return a copy of `module` in which everything that `pruned` no longer has is zero.

    What is gone is read off the random weights themselves, each of which occurs once; no part of the
    pruning code is trusted.
    """
    masked = copy.deepcopy(module)
    left = dict(pruned.named_parameters())
    with torch.no_grad():
        for key, before in module.named_parameters():
            if before.shape == left[key].shape or before.unique().numel() < before.numel():
                continue
            for dim, kept in enumerate(_kept(before, left[key])):
                assert len(kept) == left[key].shape[dim]
                gone = torch.ones(before.shape[dim], dtype=torch.bool)
                gone[kept] = False
                dict(masked.named_parameters())[key].index_fill_(dim, gone.nonzero().flatten(), 0)
    return masked


def outputs_of(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return all tensors a network returns."""
    with torch.no_grad():
        made = module(images)
    return list(made) if isinstance(made, tuple) else [made]


def difference(module: nn.Module, pruned: nn.Module, images: torch.Tensor) -> float:
    """Return the largest difference between `pruned` and `module` with the same channels at zero.

    Relative to the largest output where that is above 1.
    """
    masked = masked_like(module, pruned)
    pairs = list(zip(outputs_of(masked, images), outputs_of(pruned, images), strict=True))
    assert all(want.shape == came.shape and came.isfinite().all() for want, came in pairs)
    return max(float((want - came).abs().max()) / max(1.0, float(want.abs().max())) for want, came in pairs)


class OneTensor(nn.Module):
    """All outputs of a network in one `(N, K)`, as an exported file has it."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        made = self.module(x)
        parts = made if isinstance(made, tuple) else (made,)
        return torch.cat([part.flatten(1) for part in parts], 1)


def onnx_difference(pruned: nn.Module, images: torch.Tensor) -> float:
    """Export with a dynamic batch; return the largest difference of ONNX Runtime to torch at two batch sizes."""
    whole = OneTensor(pruned).eval()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(whole, SHAPE, path)
        session = open_session(path)
        most = 0.0
        for size in (1, len(images)):
            [want] = outputs_of(whole, images[:size])
            came = predict(session, images[:size].numpy(), size)
            most = max(most, float(np.abs(want.numpy() - came).max()) / max(1.0, float(want.abs().max())))
    return most
