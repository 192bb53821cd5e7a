# SPDX-License-Identifier: Apache-2.0
"""Low rank: a layer becomes two thinner ones in a row, by the singular values of its weight.

A linear layer or 1x1 convolution of rank r becomes one to r channels and one from r channels. A k x l
convolution becomes a k x 1 and a 1 x l one (Jaderberg et al. 2014, arXiv:1405.3866). Of all such pairs none
comes closer to the weight in the Frobenius norm (Eckart and Young 1936).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.configs import LowRank
from pipeline.compress.context import Applied, Context
from pipeline.compress.layers import expect_runs, kept_apart, replace_layer, while_watching
from pipeline.models.export import cost_of
from pipeline.models.zeros import holds_zeros

__all__ = ["factorize", "factorize_layer"]

_HALVINGS = 60


def _kind(layer: nn.Module) -> str | None:
    """Kind of a layer that two can stand for; a subclass that computes something else is none."""
    if isinstance(layer, nn.Linear):
        return "linear" if type(layer).forward is nn.Linear.forward else None
    if isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward and layer.groups == 1:
        return "pointwise" if layer.kernel_size == (1, 1) else "spatial"
    return None


def _matrix(layer: nn.Linear | nn.Conv2d) -> torch.Tensor:
    """The weight as the matrix whose rank counts: `(outputs, inputs)`, spatial `(inputs k, outputs l)`."""
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.Linear):
        return weight
    outputs, inputs, height, width = weight.shape
    if (height, width) == (1, 1):
        return weight.reshape(outputs, inputs)
    return weight.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)


def _pair(layer: Any, rank: int) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    """Two layers of the right shapes, without their weights."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=bias)
    (height, width), (down, right), (tall, wide) = layer.kernel_size, layer.stride, layer.dilation
    if isinstance(layer.padding, str):
        above: Any = layer.padding
        beside: Any = layer.padding
    else:
        above, beside = (layer.padding[0], 0), (0, layer.padding[1])
    mode = layer.padding_mode
    if (height, width) == (1, 1):
        first = nn.Conv2d(
            layer.in_channels, rank, 1, layer.stride, layer.padding, bias=False, padding_mode=mode
        )
        return first, nn.Conv2d(rank, layer.out_channels, 1, bias=bias)
    first = nn.Conv2d(
        layer.in_channels, rank, (height, 1), (down, 1), above, (tall, 1), bias=False, padding_mode=mode
    )
    second = nn.Conv2d(
        rank, layer.out_channels, (1, width), (1, right), beside, (1, wide), bias=bias, padding_mode=mode
    )
    return first, second


def factorize_layer(layer: nn.Linear | nn.Conv2d, rank: int) -> nn.Sequential:
    """Return two layers in a row that compute the nearest of `rank` to what `layer` computes.

    Args:
        layer: A linear layer, or a convolution without groups.
        rank: At least 1, at most the smaller side of the weight's matrix.
    """
    left, values, right = torch.linalg.svd(_matrix(layer), full_matrices=False)
    root = values[:rank].sqrt()
    left, right = left[:, :rank] * root, right[:rank] * root[:, None]
    first, second = _pair(layer, rank)
    if _kind(layer) == "spatial":
        # Here the rows of the matrix belong to the input, so that the left factor comes first.
        left, right = right.T, left.T
        height, width = layer.kernel_size  # type: ignore[misc]
        shaped = (
            right.reshape(rank, -1, height, 1),
            left.reshape(-1, width, rank).permute(0, 2, 1)[:, :, None],
        )
    else:
        shaped = right.reshape(first.weight.shape), left.reshape(second.weight.shape)
    with torch.no_grad():
        for new, value in zip((first, second), shaped, strict=True):
            new.weight.copy_(value)
            new.weight.requires_grad_(layer.weight.requires_grad)
        if layer.bias is not None and second.bias is not None:
            second.bias.copy_(layer.bias)
            second.bias.requires_grad_(layer.bias.requires_grad)
    return nn.Sequential(first, second).train(layer.training)


@dataclass(frozen=True)
class _Choice:
    """What one layer offers.

    Attributes:
        full: The largest rank.
        kept: Share of the squared singular values kept at rank 1, 2, ...
        whole: Multiply-accumulates, or parameters, as it is.
        per_rank: The same of the pair, a rank.
    """

    full: int
    kept: torch.Tensor
    whole: int
    per_rank: int

    def rank(self, energy: float) -> int | None:
        """The smallest rank that keeps `energy`; None if that saves nothing."""
        rank = min(self.full, int(torch.searchsorted(self.kept, energy)) + 1)
        return rank if rank * self.per_rank < self.whole else None

    def saved(self, energy: float) -> int:
        rank = self.rank(energy)
        return 0 if rank is None else self.whole - rank * self.per_rank


def _weights(layer: nn.Linear | nn.Conv2d) -> list[int]:
    """Weights, as they are and a rank."""
    if isinstance(layer, nn.Linear):
        return [layer.weight.numel(), layer.in_features + layer.out_features]
    height, width = layer.kernel_size
    return [layer.weight.numel(), layer.in_channels * height + layer.out_channels * width]


def _calls(
    module: nn.Module, layers: Mapping[str, nn.Linear | nn.Conv2d], image: torch.Tensor
) -> dict[str, list[int]]:
    """Multiply-accumulates on one image, as they are and a rank; only layers that are called."""
    costs: dict[str, list[int]] = {}

    def see(name: str, layer: Any, given: tuple[Any, ...], _: dict[str, object], output: Any) -> None:
        own = costs.setdefault(name, [0, 0])
        if isinstance(layer, nn.Linear):
            places = output.numel() // layer.out_features
            own[0] += layer.weight.numel() * places
            own[1] += (layer.in_features + layer.out_features) * places
            return
        height, width = layer.kernel_size
        rows, columns = output.shape[2:]
        own[0] += layer.weight.numel() * rows * columns
        # Between the two of a spatial pair, rows are strided already and columns are as they came.
        between = columns if _kind(layer) == "pointwise" else given[0].shape[-1]
        own[1] += layer.in_channels * height * rows * between + layer.out_channels * width * rows * columns

    while_watching(module, layers.items(), image, see)
    return costs


def _choices(
    module: nn.Module, config: LowRank, image: torch.Tensor, counted: str, before: nn.Module
) -> dict[str, _Choice]:
    kinds = {name: _kind(layer) for name, layer in module.named_modules()}
    uses = Counter(id(layer.weight) for layer in module.modules() if _kind(layer))
    layers: dict[str, Any] = {
        name: layer
        for name, layer in module.named_modules()
        # Two full factors would bring back every weight that was pruned; tied ones would come apart.
        if kinds[name] in config.kinds and not holds_zeros(layer) and uses[id(layer.weight)] == 1
    }
    names = [name for name, kind in kinds.items() if kind]
    skipped = kept_apart(config.skip, names, "low_rank.skip", module=module, before=before)
    layers = {name: layer for name, layer in layers.items() if name not in skipped}
    choices = {}
    for name, macs in _calls(module, layers, image).items():
        squares = torch.linalg.svdvals(_matrix(layers[name])).square()
        if float(squares.sum()) > 0:
            costs = macs if counted == "macs" else _weights(layers[name])
            choices[name] = _Choice(len(squares), squares.cumsum(0) / squares.sum(), *costs)
    if not choices:
        raise CompressionError(
            f"expected layers of kinds {list(config.kinds)} that may be factorized, got none",
            where="low_rank",
        )
    return choices


def _energy_for(choices: Mapping[str, _Choice], now: int, allowed: float, counted: str) -> float:
    """The highest energy, one for all layers, with which at most `allowed` of what is counted are left."""

    def left(energy: float) -> int:
        return now - sum(choice.saved(energy) for choice in choices.values())

    if left(0.0) > allowed:
        what = "multiply-accumulates" if counted == "macs" else counted
        raise CompressionError(
            f"expected at most {allowed:.0f} {what}, reached {left(0.0)} with every rank 1",
            where=f"low_rank.{counted}_reduction",
            hint="ask for less, or allow more kinds of layers",
        )
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) <= allowed else (low, middle)
    return low


def factorize(module: nn.Module, config: LowRank, context: Context) -> Applied:
    """Replace layers by pairs of thinner ones where that saves multiply-accumulates, or parameters.

    Args:
        module: Maps raw images to scores; not changed.
        config: The share of squared singular values to keep, or the reduction to find it by; which layers.
        context: Gives the shape of images and the baseline's cost.

    Raises:
        CompressionError: if no layer can be factorized, or ranks of 1 do not reach the target.
    """
    original = copy.deepcopy(module).eval()
    images, _ = context.examples(16)
    counted, reduction = config.target or ("macs", 1.0)
    choices = _choices(original, config, images[:1], counted, context.teacher)
    if config.energy is None:
        allowed = getattr(context.baseline, counted) / reduction
        now = getattr(cost_of(original, context.shape), counted)
        if now <= allowed:
            return Applied(original, {"energy": 1.0, "ranks": {}})
        energy = _energy_for(choices, now, allowed, counted)
    else:
        energy = config.energy
    factorized, ranks = copy.deepcopy(original), {}
    for name, choice in choices.items():
        rank = choice.rank(energy)
        if rank is not None:
            layer: Any = factorized.get_submodule(name)
            replace_layer(factorized, layer, factorize_layer(layer, rank))
            ranks[name] = [choice.full, rank]
    expect_runs(factorized, original, images, "low_rank")
    return Applied(factorized, {"energy": energy, "ranks": ranks})
