# SPDX-License-Identifier: Apache-2.0
"""Schedules: shrinking and recovery in turn, so that a network never loses too much at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from checks.errors import ParamsError
from pipeline.compress.configs import Gradual, Iterate, Shrinking, Targeted, Weights
from pipeline.compress.context import Applied, Context
from pipeline.compress.macs import count_macs
from pipeline.compress.recipe import function_of
from pipeline.compress.recovery import recover
from pipeline.models.training import Part, count_steps

__all__ = ["iterate", "partway", "shrink_gradually"]


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
    timings: Mapping[str, float] = {}
    for step in range(1, config.steps + 1):
        own = replace(context, seed=context.seed + 1000 * step)
        shrunk = function_of(config.shrink.method)(module, partway(config.shrink, step / config.steps), own)
        module = function_of("recover")(shrunk.module, config.recover, own).module
        steps.append(dict(shrunk.figures))
        timings = shrunk.timings
    return Applied(module, {"steps": steps}, timings)


def _ramp(shrink: Shrinking, share: float) -> Targeted | Weights:
    """Return the pass with what it removes scaled by `share`, in (0, 1]."""
    config = shrink.config
    if isinstance(config, Weights):
        return config.model_copy(update={"sparsity": config.sparsity * share})
    name, reduction = config.target
    # At the end of the way the target is the one asked for, to the last bit.
    so_far = reduction if share == 1 else 1 / (1 - (1 - 1 / reduction) * share)
    moved: Targeted = config.model_copy(update={f"{name}_reduction": so_far})
    return moved


def _event_steps(config: Gradual, steps: int) -> list[int]:
    """Steps before which something is removed: evenly spaced, the last at `until`."""
    at = [round(steps * config.until * event / config.events) for event in range(1, config.events + 1)]
    if at[0] < 1 or len(set(at)) < len(at) or at[-1] >= steps:
        raise ParamsError(
            f"expected a training step before, between and after {config.events} events, got {steps} steps "
            f"in all, of which {config.until:g} are for them",
            where="gradual.events",
            hint="ask for fewer events, or train longer",
        )
    return at


def shrink_gradually(module: nn.Module, config: Gradual, context: Context) -> Applied:
    """Train once, and shrink on the way: much at first, ever less later.

    After event i of n, what is removed is 1 - (1 - i / n)^3 of all that will be (Zhu and Gupta 2017,
    arXiv:1710.01878). The learning rate runs through one cycle; the optimizer starts afresh at each event.

    Args:
        module: Maps raw images to scores; not changed.
        config: What shrinks, how training goes, when something is removed.
        context: What they may use.

    Raises:
        ParamsError: if there are more events than steps for them.
        CompressionError: if an event's target cannot be met.
    """
    image = context.examples(1)[0]
    steps = count_steps(config.recover, len(context.dataset.split("train").labels))
    before, spent, events = count_macs(module, image), 0, list[dict[str, Any]]()
    timings: Mapping[str, float] = {}
    first = 0
    for event, last in enumerate([*_event_steps(config, steps), steps], 1):
        module = recover(module, config.recover, context, part=Part(first, last)).module
        spent += count_macs(module, image) * (last - first)
        first = last
        if event <= config.events:
            share = 1 - (1 - event / config.events) ** 3
            own = replace(context, seed=context.seed + 1000 * event)
            shrunk = function_of(config.shrink.method)(module, _ramp(config.shrink, share), own)
            module = shrunk.module
            events.append({"step": last, **shrunk.figures})
            timings = shrunk.timings
    return Applied(module, {"events": events, "training_macs_share": spent / (before * steps)}, timings)
