# SPDX-License-Identifier: Apache-2.0
"""Depth pruning: whole residual blocks whose input and output have one shape are removed.

A block is found by experiment, not by its class: whatever has weights inside is made to answer zeros, and
what comes out must be what went in, or an activation of it. Such a block adds to its input, so that without
it the network still computes the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from checks.errors import CompressionError
from pipeline.compress.configs import Blocks
from pipeline.compress.context import Applied, Context
from pipeline.compress.layers import expect_runs, kept_apart, replace_layer, while_watching
from pipeline.compress.macs import count_macs
from pipeline.models.training import as_logits

__all__ = ["find_blocks", "remove_blocks"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ACTIVATIONS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda x: x,
    functional.relu,
    functional.relu6,
    functional.leaky_relu,
    functional.silu,
    functional.gelu,
    functional.hardswish,
)
_BATCH = 256
_SETTLING_IMAGES = 1024


def _zeros_like(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return torch.zeros_like(output)
    if isinstance(output, tuple):
        return tuple(_zeros_like(item) for item in output)
    return output


def _has_skip(block: nn.Module, shape: torch.Size) -> bool:
    """Whether the block itself adds to its input: what its parts with weights answer is set to zero."""
    probe = copy.deepcopy(block).eval()
    for part in probe.modules():
        if part is not probe and any(True for _ in part.parameters()):
            part.register_forward_hook(lambda _part, _given, output: _zeros_like(output))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in probe.parameters(recurse=False):
            parameter.zero_()
        try:
            # A copy, since a block may change its input in place.
            came = probe(x.clone())
        except Exception:  # whatever a part's zeros break is no block
            return False
        return any(torch.allclose(came, activation(x), atol=1e-6) for activation in _ACTIVATIONS)


def find_blocks(module: nn.Module, images: torch.Tensor) -> list[str]:
    """Return the names of residual blocks that keep the shape of their input, in the order they run.

    Of blocks inside blocks the outermost counts; a chain of blocks is no block itself.

    Args:
        module: Maps raw images to scores; not changed.
        images: `(N, C, H, W)` raw.
    """
    calls: dict[str, list[torch.Size | None]] = {}

    def see(
        name: str, _: nn.Module, given: tuple[object, ...], named: dict[str, object], output: Any
    ) -> None:
        plain = len(given) == 1 and not named and isinstance(output, torch.Tensor)
        first = given[0] if plain else None
        kept = isinstance(first, torch.Tensor) and first.shape == output.shape
        calls.setdefault(name, []).append(output.shape if kept else None)

    weighted = [
        (name, part)
        for name, part in module.named_modules()
        if name and any(isinstance(layer, nn.Conv2d | nn.Linear) for layer in part.modules())
    ]
    while_watching(module, weighted, images, see)
    found: list[str] = []
    parts = dict(weighted)
    for name, shapes in calls.items():
        shape = shapes[0]
        if len(shapes) == 1 and shape is not None and _has_skip(parts[name], shape):
            found.append(name)
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


def _loss(module: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: Context) -> float:
    """Mean cross-entropy in nats."""
    total = 0.0
    with torch.no_grad():
        for batch, target in zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True):
            logits = as_logits(module(batch), context.model.output)
            total += float(functional.cross_entropy(logits, target, reduction="sum"))
    return total / len(labels)


def _settle(module: nn.Module, images: torch.Tensor) -> None:
    """Estimate the statistics of batch normalization anew, in place.

    With those of the deeper network a candidate is judged by what any recovery mends at once (Li et al. 2020,
    arXiv:2007.02491).
    """
    norms = [
        layer for layer in module.modules() if isinstance(layer, _BATCH_NORMS) and layer.track_running_stats
    ]
    if not norms:
        return
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    chosen = images[:_SETTLING_IMAGES]
    with torch.no_grad():
        for batch in torch.tensor_split(chosen, -(-len(chosen) // _BATCH)):
            module(batch)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def _without(module: nn.Module, name: str, images: torch.Tensor) -> nn.Module:
    shorter = copy.deepcopy(module)
    replace_layer(shorter, shorter.get_submodule(name), nn.Identity().eval())
    expect_runs(shorter, module, images[:2], f"blocks: without {name}")
    _settle(shorter, images)
    return shorter


def _influences(module: nn.Module, names: Sequence[str], images: torch.Tensor) -> dict[str, float]:
    """1 - mean cosine of input and output over images (Men et al. 2024, arXiv:2403.03853)."""
    total, inputs = dict.fromkeys(names, 0.0), dict[nn.Module, torch.Tensor]()

    def keep(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        inputs[layer] = given[0].clone()

    def see(name: str, layer: nn.Module, _: object, __: object, output: Any) -> None:
        cosine = functional.cosine_similarity(inputs[layer].flatten(1), output.flatten(1), dim=1)
        total[name] += float((1 - cosine).sum())

    layers = [(name, module.get_submodule(name)) for name in names]
    handles = [layer.register_forward_pre_hook(keep) for _, layer in layers]
    try:
        for batch in torch.split(images, _BATCH):
            while_watching(module, layers, batch, see)
    finally:
        for handle in handles:
            handle.remove()
    return {name: value / len(images) for name, value in total.items()}


def _expect_enough(left: Sequence[str], found: Sequence[str], config: Blocks) -> None:
    if config.remove > len(left):
        kept = [name for name in found if name not in left]
        skipped = f", and {kept} under `skip`" if kept else ""
        raise CompressionError(
            f"expected at least {config.remove} residual blocks of one shape, got {len(left)}: "
            f"{list(left)}{skipped}",
            where="blocks.remove",
            hint="a block is a module of its own, called once, that adds to its input and keeps its shape",
        )


def remove_blocks(module: nn.Module, config: Blocks, context: Context) -> Applied:
    """Remove residual blocks one by one, after each removal looking at all that are left.

    An identity stands where a block was: names and weights of everything else stay what they were.
    Statistics of batch normalization are estimated anew.

    Args:
        module: Maps raw images to scores; not changed.
        config: How many, by which criterion, and which not.
        context: Gives training images to measure on.

    Raises:
        CompressionError: if there are fewer blocks than asked, or the network does not run without one.
    """
    original = copy.deepcopy(module).eval()
    images, labels = context.examples()
    few = images[:2]
    found = find_blocks(original, few)
    skipped = kept_apart(config.skip, found, "blocks.skip", module=original, before=context.teacher)
    left = [name for name in found if name not in skipped]
    _expect_enough(left, found, config)
    shorter, removed = original, list[dict[str, Any]]()
    for _ in range(config.remove):
        if config.criterion == "similarity":
            ranks = _influences(shorter, left, images)
        else:
            ranks = {}
            for name in left:
                ranks[name] = _loss(_without(shorter, name, images), images, labels, context)
        # The first of equals goes, so that the same network is always cut alike.
        chosen = min(left, key=lambda name: ranks[name])
        shorter = _without(shorter, chosen, images)
        left.remove(chosen)
        removed.append({"name": chosen, config.criterion: ranks[chosen]})
    expect_runs(shorter, original, images[:16], "blocks")
    before, after = count_macs(original, few[:1]), count_macs(shorter, few[:1])
    if after >= before:
        raise CompressionError(
            f"expected fewer than {before} multiply-accumulates without blocks, got {after}", where="blocks"
        )
    return Applied(shorter, {"removed": removed, "kept": [*left, *sorted(skipped)]})
