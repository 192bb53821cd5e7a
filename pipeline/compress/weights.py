# SPDX-License-Identifier: Apache-2.0
"""Single weights set to zero: a share of all of them, or two in every four.

Zeros make no dense kernel faster. They make a compressed file smaller, and two in four is what sparse tensor
cores of NVIDIA read (Mishra et al. 2021, arXiv:2104.08378).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from checks.errors import CompressionError
from pipeline.compress.configs import Weights
from pipeline.compress.context import Applied, Context
from pipeline.compress.layers import expect_runs, kept_apart
from pipeline.models.zeros import mark_zeros

__all__ = ["prune_weights"]

_GROUP = 4
_BATCH = 32


def _prunable(module: nn.Module, config: Weights, before: nn.Module) -> dict[str, torch.Tensor]:
    """Weights by the name of their layer, shared ones once; the output layer is one like any other."""
    layers: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, layer in module.named_modules():
        # What a parametrization computes is no parameter: zeros in it would be gone with the next call.
        if (
            isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
            and isinstance(layer.weight, nn.Parameter)
            and id(layer.weight) not in seen
        ):
            seen.add(id(layer.weight))
            layers[name] = layer.weight
    skipped = kept_apart(config.skip, layers, "weights.skip", module=module, before=before)
    chosen = {name: weight for name, weight in layers.items() if name not in skipped}
    if not chosen:
        raise CompressionError(
            "expected convolutions or linear layers whose weights may be pruned, got none", where="weights"
        )
    return chosen


def _squared_gradients(
    module: nn.Module, weights: Mapping[str, torch.Tensor], context: Context
) -> dict[str, torch.Tensor]:
    """Squared gradient of the cross-entropy, a mean over batches of training images; of frozen weights too.

    Squared first: over all images the gradients of a trained network cancel, and what is left is noise.
    """
    images, labels = context.examples()
    frozen = [parameter for parameter in module.parameters() if not parameter.requires_grad]
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    batches = list(zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True))
    for batch, target in batches:
        scores = module(batch)
        if context.model.output == "probabilities":
            scores = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
        loss = functional.cross_entropy(scores, target)
        # A layer that takes no part has no gradient, and nothing is lost with it.
        came = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, came, strict=True):
            if gradient is not None:
                total[name] += gradient.square() / len(batches)
    for parameter in frozen:
        parameter.requires_grad_(False)
    return total


def _scores(
    module: nn.Module, weights: Mapping[str, torch.Tensor], config: Weights, context: Context
) -> dict[str, torch.Tensor]:
    """How much each weight matters; of single weights l2 has the order of l1.

    taylor is the square of weight x gradient (Molchanov et al. 2019, arXiv:1906.10771). What is
    zero already goes first, so that more sparsity keeps every zero there is.
    """
    if config.criterion in ("l1", "l2"):
        scores = {name: weight.detach().abs() for name, weight in weights.items()}
    elif config.criterion == "taylor":
        squares = _squared_gradients(module, weights, context)
        scores = {name: weight.detach().square() * squares[name] for name, weight in weights.items()}
    else:
        generator = torch.Generator().manual_seed(context.seed)
        scores = {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}
    return {name: score.masked_fill(weights[name].detach() == 0, -1.0) for name, score in scores.items()}


def _in_groups(weight: torch.Tensor) -> torch.Tensor:
    """View with the dimension that is summed over, inputs, last: `(..., inputs)`."""
    return weight.movedim(1, -1)


def _worst_two(score: torch.Tensor) -> torch.Tensor:
    """True for the two lowest of every four consecutive inputs, the first of equals."""
    grouped = _in_groups(score)
    fours = grouped.reshape(-1, _GROUP)
    order = fours.argsort(dim=1, stable=True)
    worst = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, order[:, :2], value=True)
    return worst.reshape(grouped.shape).movedim(-1, 1)


def _lowest(scores: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """True for the lowest `share` of finite scores, the first of equals; the count is rounded."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    candidates = int(torch.isfinite(flat).sum())
    gone = torch.zeros_like(flat, dtype=torch.bool)
    gone[flat.argsort(stable=True)[: round(share * candidates)]] = True
    parts = torch.split(gone, [score.numel() for score in scores.values()])
    return {
        name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def _chosen(scores: Mapping[str, torch.Tensor], config: Weights) -> dict[str, torch.Tensor]:
    share = config.sparsity
    if config.pattern == "2:4":
        fitting = {name: score for name, score in scores.items() if score.shape[1] % _GROUP == 0}
        if not fitting:
            raise CompressionError(
                f"expected a layer whose inputs are a multiple of {_GROUP}, got none", where="weights.pattern"
            )
        # On the way there, as in a schedule, zeros lie where all of the pattern's will be.
        share = min(1.0, 2 * share)
        scores = {
            name: score.masked_fill(~_worst_two(score), float("inf")) for name, score in fitting.items()
        }
    if config.scope == "global":
        return _lowest(scores, share)
    return {name: _lowest({name: score}, share)[name] for name, score in scores.items()}


def prune_weights(module: nn.Module, config: Weights, context: Context) -> Applied:
    """Set the weights that matter least to zero; training after it keeps them there.

    With pattern 2:4, layers whose inputs are no multiple of four stay dense: inputs of a linear layer, input
    channels of a convolution, as NVIDIA's sparse kernels read them.

    Args:
        module: Maps raw images to scores; not changed.
        config: Which share, by which criterion, counted globally or in each layer.
        context: Gives training images for the Taylor criterion, and the seed of `random`.

    Raises:
        CompressionError: if nothing can be pruned, a layer would lose all its weights, or `skip` names none.
    """
    original = copy.deepcopy(module).eval()
    pruned = copy.deepcopy(original)
    weights = _prunable(pruned, config, context.teacher)
    before = _prunable(original, config, context.teacher)
    gone = _chosen(_scores(pruned, weights, config, context), config)
    with torch.no_grad():
        for name, zero in gone.items():
            weights[name].masked_fill_(zero, 0.0)
    for name in gone:
        mark_zeros(pruned.get_submodule(name))
    counts = {name: [weight.numel(), int((weight == 0).sum())] for name, weight in weights.items()}
    empty = [name for name, (size, zeros) in counts.items() if zeros == size and bool(before[name].any())]
    if empty:
        raise CompressionError(
            f"expected something left of every layer, got only zeros in {empty}",
            where="weights",
            hint="use a lower sparsity" + ("" if config.scope == "layer" else ", or `scope: layer`"),
        )
    expect_runs(pruned, original, context.examples(16)[0], "weights")
    return Applied(pruned, {"zeros": counts})
