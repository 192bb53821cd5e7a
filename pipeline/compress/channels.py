# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: whole channels, or neurons of hidden linear layers, go until a target is met.

A graph says which channels can only go together (`channel_graph`); a trial on copies finds out whether it
is right (`channel_trials`); what is right is ranked (`channel_criteria`), chosen (`channel_search`) and
removed (`channel_surgery`). What was chosen is compared once more with the same channels at zero, on the
weights as they are: a network that disagrees is never returned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.channel_criteria import accumulate_gradients, load_criterion, mean_loss, score_units
from pipeline.compress.channel_graph import OUTPUT_REASON, ChannelGraph, Group, trace_channels
from pipeline.compress.channel_search import (
    Candidates,
    Costs,
    Counts,
    Unreachable,
    find_counts,
    levels_of,
    rank_units,
)
from pipeline.compress.channel_surgery import mask_channels, probe_of, removal_of, remove_channels
from pipeline.compress.channel_targets import Target, meet, target_of
from pipeline.compress.channel_trials import failing, try_groups
from pipeline.compress.configs import Channels, Neurons
from pipeline.compress.context import Applied, Context
from pipeline.compress.layers import kept_apart

__all__ = ["prune_channels", "prune_neurons"]

_TRIAL_IMAGES = 3
_SENSITIVITY_EXAMPLES = 512
_SENSITIVITY_RATIOS = (0.25, 0.5, 0.75)
_MAX_NAMED = 6


@dataclass
class _Job:
    """One pass at work.

    Attributes:
        method: `channels` or `neurons`.
        module: A copy in eval mode; gets gradients, nothing else.
        config: Its options.
        context: What it may use.
        held: Layer to the reason why some or all of its outputs stay.
    """

    method: str
    module: nn.Module
    config: Channels | Neurons
    context: Context
    held: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The key of the target."""
        return f"{self.method}.{self.config.target[0]}_reduction"


def _held_by_user(module: nn.Module, before: nn.Module, skip: tuple[str, ...], where: str) -> dict[str, str]:
    """Return the parameters below the layers a user wants left as they are."""
    known = {
        name: layer
        for name, layer in module.named_modules()
        if name and any(True for _ in layer.parameters())
    }
    first = {id(tensor): name for name, tensor in reversed(list(module.named_parameters()))}
    return {
        first[id(tensor)]: "named under skip"
        for name in sorted(kept_apart(skip, known, where, module=module, before=before))
        for tensor in known[name].parameters()
    }


def _why_held(held: Mapping[str, str], max_ratio: float) -> str:
    # That outputs stay goes without saying; whatever else holds something comes first.
    told = sorted(held.items(), key=lambda entry: entry[1] == OUTPUT_REASON)
    named = [f"{name} ({reason})" for name, reason in told]
    more = f", and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    kept = f"kept: {', '.join(named[:_MAX_NAMED])}{more}; " if named else ""
    return f"{kept}of no layer goes more than max_ratio {max_ratio:g}: raise it, or ask for less"


def _usable(job: _Job, graph: ChannelGraph) -> list[Group]:
    if job.method == "neurons":
        return [group for group in graph.groups if group.kinds == {"linear"}]
    return list(graph.groups)


def _candidates(job: _Job, graph: ChannelGraph, groups: list[Group]) -> Candidates:
    """Score the units of the groups, and say how many of each may go."""
    narrowed = ChannelGraph(
        tuple(groups), graph.held, graph.layers, graph.macs, graph.parameters, graph.norms
    )
    where = f"{job.method}.criterion"
    scored = score_units(job.module, narrowed, job.config.criterion, job.context.seed, where)
    round_to = getattr(job.config, "round_to", 1)
    chosen: list[tuple[Group, npt.NDArray[np.int64], npt.NDArray[np.float64], tuple[int, ...]]] = []
    for group, scores in zip(groups, scored, strict=True):
        if scores is None:
            job.held |= dict.fromkeys(group.layers, "no batch normalisation to rank its channels by")
            continue
        axes = [graph.layers[name] for name in group.layers]
        each = [int((axis == group.roots[0]).sum()) for axis in axes]
        levels = levels_of(group, [len(axis) for axis in axes], each, round_to, job.config.max_ratio)
        if len(levels) == 1:
            reason = f"no number of channels fits max_ratio {job.config.max_ratio:g} and round_to {round_to}"
            job.held |= {name: job.held.get(name, reason) for name in group.layers}
            continue
        order = np.argsort(scores, kind="stable")
        chosen.append((group, order, scores[order], levels))
    columns: Any = zip(*chosen, strict=True) if chosen else ((), (), (), ())
    return Candidates(*(tuple(column) for column in columns))


def _priorities(
    job: _Job, candidates: Candidates, cost: Callable[[Counts], float]
) -> list[npt.NDArray[np.float64]]:
    """Return, by rank in its group, what the loss suffers from a unit for what the unit saves.

    Each group is masked at a few ratios, on training examples; between them the loss is a straight line.
    """
    images, labels = job.context.examples(_SENSITIVITY_EXAMPLES)
    output = job.context.model.output
    unpruned = mean_loss(job.module, images, labels, output)
    none = np.zeros(len(candidates.groups), dtype=np.int64)
    made = []
    for place, (group, order) in enumerate(zip(candidates.groups, candidates.orders, strict=True)):
        shares, losses = [0.0], [0.0]
        for ratio in _SENSITIVITY_RATIOS:
            count = int(ratio * group.size)
            if count / group.size <= shares[-1]:
                continue
            masked = mask_channels(job.module, removal_of([(group, order[:count])]))
            shares.append(count / group.size)
            losses.append(mean_loss(masked, images, labels, output) - unpruned)
        if len(shares) == 1:
            slopes = np.zeros(group.size)
        else:
            steep = np.diff(losses) / np.diff(shares) / group.size
            ranks = (np.arange(group.size) + 0.5) / group.size
            slopes = steep[np.minimum(np.searchsorted(shares, ranks) - 1, len(steep) - 1)]
        one = none.copy()
        one[place] = 1
        saved = max(cost(none) - cost(one), 1e-9)
        made.append(slopes / saved)
    return made


def _choose(
    job: _Job, target: Target, now: float, graph: ChannelGraph, groups: list[Group]
) -> tuple[Candidates, Counts]:
    """Choose what goes, so that the target is met."""
    candidates = _candidates(job, graph, groups)
    costs = Costs(graph, candidates.groups)

    def cost(counts: Counts) -> float:
        return target.factor * costs.of(target.proxy, counts)

    priorities = _priorities(job, candidates, cost) if job.config.scope == "sensitivity" else None
    ranked = rank_units(candidates, job.config.scope, priorities)

    def attempt(aim: float) -> Counts:
        return find_counts(candidates, ranked, cost, aim)

    def measure(counts: Counts) -> float:
        return target.measure(remove_channels(job.module, removal_of(candidates.chosen(counts))))

    return candidates, meet(target, now, candidates.most(), cost, attempt, measure)


def _figures(
    graph: ChannelGraph, candidates: Candidates | None, counts: Counts | None, held: Mapping[str, str]
) -> dict[str, Any]:
    gone = np.zeros(0, dtype=np.int64)
    if candidates is not None and counts is not None:
        gone = np.concatenate([gone, *(group.roots[units] for group, units in candidates.chosen(counts))])
    widths = {
        name: [len(axis), len(axis) - int(np.isin(axis, gone).sum())] for name, axis in graph.layers.items()
    }
    return {"channels": widths, "kept": dict(held)}


def _timings(target: Target, reached: float) -> dict[str, float]:
    """What a latency target reached, as a share of the baseline's time, and what was asked for."""
    if not target.timed:
        return {}
    return {"latency_ratio": round(reached, 4), "latency_ratio_allowed": round(target.allowed, 4)}


def _prune(job: _Job) -> Applied:
    config, context, module = job.config, job.context, job.module
    images, labels = context.examples()
    load_criterion(config.criterion, f"{job.method}.criterion")
    hold = _held_by_user(module, context.teacher, config.skip, f"{job.method}.skip")
    graph = trace_channels(module, images[:2], hold, job.method)
    job.held |= graph.held
    target = target_of(config, context)
    now = target.measure(module)
    if now <= target.allowed:
        return Applied(module, _figures(graph, None, None, job.held), _timings(target, now))
    trial = images[:_TRIAL_IMAGES]
    probe = probe_of(module, trial, context.seed)
    groups, broken = try_groups(probe, _usable(job, graph), trial, context.seed)
    job.held |= broken
    if config.criterion == "taylor" or "/" in config.criterion:
        accumulate_gradients(module, images, labels, context.model.output)
    while True:
        try:
            candidates, counts = _choose(job, target, now, graph, groups)
        except Unreachable as error:
            reduction = config.target[1] * target.allowed / error.closest
            raise CompressionError(
                f"expected at most {target.shown(target.allowed)}, reached {target.shown(error.closest)}, a "
                f"reduction of {reduction:.3g}",
                where=job.where,
                hint=_why_held(job.held, job.config.max_ratio),
            ) from error
        choice = candidates.chosen(counts)
        wrong = failing(probe, choice, trial) | failing(module, choice, trial)
        if not wrong:
            break
        for place, reason in wrong.items():
            job.held |= dict.fromkeys(choice[place][0].layers, reason)
        stay = {id(choice[place][0]) for place in wrong}
        groups = [group for group in groups if id(group) not in stay]
    pruned = remove_channels(module, removal_of(choice))
    # Once more: the measurement by which it was chosen is one that happened to fit.
    timings = _timings(target, target.measure(pruned)) if target.timed else {}
    return Applied(pruned, _figures(graph, candidates, counts, job.held), timings)


def prune_channels(module: nn.Module, config: Channels, context: Context) -> Applied:
    """Remove channels until the target is met.

    Args:
        module: Maps raw images to scores `(N, K)`; not changed.
        config: What to prune.
        context: Gives training images, for criteria and trials.

    Raises:
        CompressionError: if the target cannot be met, or the network cannot be pruned safely.
    """
    return _prune(_Job("channels", copy.deepcopy(module).eval(), config, context))


def prune_neurons(module: nn.Module, config: Neurons, context: Context) -> Applied:
    """Remove outputs of hidden linear layers until the target is met.

    Args:
        module: Maps raw images to scores `(N, K)`; not changed.
        config: What to prune.
        context: Gives training images, for criteria and trials.

    Raises:
        CompressionError: if the target cannot be met, or the network cannot be pruned safely.
    """
    return _prune(_Job("neurons", copy.deepcopy(module).eval(), config, context))
