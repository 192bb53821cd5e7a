# SPDX-License-Identifier: Apache-2.0
"""Schedules: shrinking and recovery in turn, so that a network never loses too much at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from pipeline.compress.configs import Iterate, Shrinking, Targeted, Weights
from pipeline.compress.context import Applied, Context
from pipeline.compress.recipe import function_of

__all__ = ["iterate", "partway"]


def partway(shrink: Shrinking, share: float) -> Targeted | Weights:
    """Return the pass with its target moved to `share` of the way, in (0, 1], on a geometric path."""
    config = shrink.config
    if isinstance(config, Weights):
        return config.model_copy(update={"sparsity": 1 - (1 - config.sparsity) ** share})
    name, reduction = config.target
    moved: Targeted = config.model_copy(update={f"{name}_reduction": reduction**share})
    return moved


def iterate(module: nn.Module, config: Iterate, context: Context) -> Applied:
    """Shrink and recover `config.steps` times.

    Args:
        module: Maps raw images to scores; not changed.
        config: Steps, the shrinking pass, the recovery after each.
        context: What they may use.

    Raises:
        CompressionError: if a step's target cannot be met.
    """
    steps: list[Any] = []
    for step in range(1, config.steps + 1):
        own = replace(context, seed=context.seed + 1000 * step)
        shrunk = function_of(config.shrink.method)(module, partway(config.shrink, step / config.steps), own)
        module = function_of("recover")(shrunk.module, config.recover, own).module
        steps.append(dict(shrunk.figures))
    return Applied(module, {"steps": steps})
