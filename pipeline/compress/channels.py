# SPDX-License-Identifier: Apache-2.0
"""Structured channel pruning: whole channels are removed until a target of multiply-accumulates is met.

torch-pruning traces which layers share channels; this adapter chooses how much to prune, and afterwards
compares the pruned network with the original whose same channels are set to zero. Both must agree, or
nothing is returned: a wrongly traced network is refused, never shipped.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from checks.errors import CompressionError
from pipeline.compress.configs import Channels
from pipeline.compress.context import Applied, Context

__all__ = ["count_macs", "prune_channels"]

_SEARCH_STEPS = 10
_TOLERANCE = 1e-3


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            yield name, layer


def _width(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features


def count_macs(module: nn.Module, image: torch.Tensor) -> int:
    """Count multiply-accumulates of convolutions and linear layers on one image `(1, C, H, W)`."""
    total = 0

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += layer.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel() * (output.numel() // output.shape[-1])

    handles = [layer.register_forward_hook(count) for _, layer in _layers(module)]
    try:
        with torch.no_grad():
            module(image)
    finally:
        for handle in handles:
            handle.remove()
    return total


def _output_layer(module: nn.Module, image: torch.Tensor) -> nn.Module:
    """The layer that runs last: its outputs are the classes, which are never pruned."""
    seen: list[nn.Module] = []
    handles = [
        layer.register_forward_hook(lambda layer, *_: seen.append(layer)) for _, layer in _layers(module)
    ]
    try:
        with torch.no_grad():
            module(image)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise CompressionError(
            "expected a network with convolutions or linear layers, got none", where="prune"
        )
    return seen[-1]


def _importance(criterion: str) -> Any:
    import torch_pruning as tp

    classes = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "batchnorm": tp.importance.BNScaleImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "random": tp.importance.RandomImportance,
    }
    return classes[criterion]()


def _copy_with_gradients(module: nn.Module) -> nn.Module:
    duplicate = copy.deepcopy(module)
    for new, old in zip(duplicate.parameters(), module.parameters(), strict=True):
        new.grad = None if old.grad is None else old.grad.clone()
    return duplicate


class _Mask:
    """The original network with removed channels set to zero, kept in step with the pruning."""

    def __init__(self, module: nn.Module) -> None:
        self.reference = copy.deepcopy(module)
        self._layers = dict(self.reference.named_modules())
        self._alive: dict[str, torch.Tensor] = {}

    def remove(self, graph: Any, group: Any) -> None:
        names = graph._module2name
        for dependency, indices in group:
            layer = dependency.target.module
            if not graph.is_out_channel_pruning_fn(dependency.handler) or not isinstance(layer, nn.Module):
                continue
            name = names.get(layer, "")
            twin = self._layers.get(name)
            if twin is None or not isinstance(getattr(twin, "weight", None), torch.Tensor):
                continue
            self._zero(name, twin, indices)

    def _zero(self, name: str, twin: nn.Module, indices: list[int]) -> None:
        weight: torch.Tensor = twin.weight  # type: ignore[assignment]
        alive = self._alive.setdefault(name, torch.arange(weight.shape[0]))
        gone = torch.zeros(len(alive), dtype=torch.bool)
        gone[list(indices)] = True
        with torch.no_grad():
            weight[alive[gone]] = 0
            bias = getattr(twin, "bias", None)
            if isinstance(bias, torch.Tensor):
                bias[alive[gone]] = 0
        self._alive[name] = alive[~gone]


def _prune_by_ratio(
    module: nn.Module, image: torch.Tensor, config: Channels, ratio: float, seed: int
) -> tuple[nn.Module, _Mask]:
    import torch_pruning as tp

    torch.manual_seed(seed)
    pruned = _copy_with_gradients(module)
    mask = _Mask(module)
    pruner = tp.pruner.BasePruner(
        pruned,
        image,
        importance=_importance(config.criterion),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=config.max_ratio,
        round_to=config.round_to if config.round_to > 1 else None,
        ignored_layers=[_output_layer(pruned, image)],
    )
    for group in pruner.step(interactive=True):
        mask.remove(pruner.DG, group)
        group.prune()
    trainable = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    for name, parameter in pruned.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(trainable[name])
    return pruned, mask


def _verify(pruned: nn.Module, reference: nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        want, came = reference.eval()(images), pruned.eval()(images)
    if want.shape != came.shape:
        raise CompressionError(
            f"expected scores of shape {tuple(want.shape)}, got {tuple(came.shape)}", where="prune"
        )
    if not torch.isfinite(came).all():
        raise CompressionError("expected finite scores after pruning, got NaN or infinity", where="prune")
    difference = float((want - came).abs().max())
    allowed = _TOLERANCE * (1 + float(want.abs().max()))
    if difference > allowed:
        raise CompressionError(
            f"expected the pruned network to agree with the same channels set to zero within {allowed:.2g}, "
            f"got a difference of {difference:.2g}",
            where="prune",
            hint="an operation mixes channels in a way that cannot be traced (normalisation over channels, "
            "shuffles, padded shortcuts); rewrite it or use the variant without pruning",
        )


def _gradients(module: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    # Frozen layers take part in pruning as others do, so their channels need a gradient to be ranked by.
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    module.zero_grad()
    batches = zip(torch.split(images, 128), torch.split(labels, 128), strict=True)
    for batch, target in batches:
        functional.cross_entropy(module(batch), target, reduction="sum").backward()  # type: ignore[no-untyped-call]
    for parameter in frozen:
        parameter.requires_grad_(False)


def _search(
    module: nn.Module, image: torch.Tensor, config: Channels, target: float, seed: int
) -> tuple[nn.Module, _Mask, int]:
    """Bisect the ratio of pruned channels: the gentlest pruning found that meets `target`."""
    low, high = 0.0, 1.0
    best: tuple[nn.Module, _Mask, int] | None = None
    fewest: int | None = None
    for _ in range(_SEARCH_STEPS):
        ratio = (low + high) / 2
        pruned, mask = _prune_by_ratio(module, image, config, ratio, seed)
        macs = count_macs(pruned, image)
        fewest = macs if fewest is None else min(fewest, macs)
        if macs <= target:
            high = ratio
            if best is None or macs >= best[2]:
                best = (pruned, mask, macs)
        else:
            low = ratio
    if best is None:
        raise CompressionError(
            f"expected at most {target:.0f} multiply-accumulates, reached {fewest}",
            where="channels.macs_reduction",
            hint=f"every layer keeps {1 - config.max_ratio:.0%} of its channels; ask for less",
        )
    return best


def prune_channels(module: nn.Module, config: Channels, context: Context) -> Applied:
    """Remove channels until the target is met.

    Args:
        module: Maps raw images to scores `(N, K)`; not changed.
        config: What to prune.
        context: Gives training images, for the Taylor criterion and for verification.

    Raises:
        CompressionError: if the target cannot be met, or the network cannot be pruned safely.
    """
    images, labels = context.examples()
    module = copy.deepcopy(module).eval()
    image = images[:1]
    before = count_macs(module, image)
    _, target = context.allowed(config)
    widths = {name: _width(layer) for name, layer in _layers(module)}
    if before <= target:
        return Applied(module, {"channels": {name: [width, width] for name, width in widths.items()}})
    if config.criterion == "taylor":
        _gradients(module, images, labels)
    try:
        pruned, mask, _ = _search(module, image, config, target, context.seed)
    except CompressionError:
        raise
    except Exception as error:
        raise CompressionError(
            f"expected a network whose channels can be traced, got {type(error).__name__}: {error}",
            where="channels",
            hint="the network was not changed; use the variant without pruning, or rewrite the operation",
        ) from error
    _verify(pruned, mask.reference, images[:16])
    return Applied(
        pruned, {"channels": {name: [widths[name], _width(layer)] for name, layer in _layers(pruned)}}
    )
