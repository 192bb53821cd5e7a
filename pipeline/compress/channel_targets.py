# SPDX-License-Identifier: Apache-2.0
"""Targets: what is counted, how a count is guessed before it is measured, and how guesses are corrected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from pipeline.compress.channel_latency import Stopwatch
from pipeline.compress.channel_search import BAND, Counts, Unreachable
from pipeline.compress.configs import Targeted
from pipeline.compress.context import Context
from pipeline.compress.macs import count_macs
from pipeline.models.export import cost_of

__all__ = ["Target", "meet", "target_of"]

_ATTEMPTS = 5
_LATENCY_ATTEMPTS = 9
_LATENCY_BAND = 0.95
_MACS = "multiply-accumulates"


@dataclass(frozen=True)
class Target:
    """A target of a pass.

    Attributes:
        allowed: The most.
        unit: What is counted, for messages.
        proxy: What is counted instead while searching: `macs` or `parameters`.
        factor: Of the proxy in the unit.
        measure: Of a network.
        timed: Whether measuring it twice gives two answers.
    """

    allowed: float
    unit: str
    proxy: str
    factor: float
    measure: Callable[[nn.Module], float] = field(repr=False)
    timed: bool = False

    def shown(self, value: float) -> str:
        """Return a value for a message."""
        return f"{value:.0%} {self.unit}" if self.timed else f"{value:.0f} {self.unit}"


def target_of(config: Targeted, context: Context) -> Target:
    """Return the target a pass was given."""
    name, allowed = context.allowed(config)
    if name == "latency":
        watch = Stopwatch(context.teacher, context.shape, context.dataset.pixel_max, context.seed)
        return Target(allowed, "of the baseline's time", "macs", 1.0, watch.share, timed=True)

    def measure(module: nn.Module) -> float:
        return float(getattr(cost_of(module, context.shape), name))

    if name == "macs":
        image = context.examples(1)[0]
        counted = count_macs(context.teacher, image)
        if counted == context.baseline.macs:
            # Both ways of counting know every operation of this network, and this one is faster.
            return Target(allowed, _MACS, "macs", 1.0, lambda module: float(count_macs(module, image)))
        return Target(allowed, _MACS, "macs", context.baseline.macs / max(1, counted), measure)
    return Target(allowed, name, "parameters", 4.0 if name == "bytes" else 1.0, measure)


def meet(
    target: Target,
    now: float,
    most: Counts,
    cost: Callable[[Counts], float],
    attempt: Callable[[float], Counts],
    measure: Callable[[Counts], float],
) -> Counts:
    """Return counts that meet a target: guess by the proxy, measure, correct the guess.

    Args:
        target: The target.
        now: The truth while nothing is removed.
        most: Counts of everything removed that may go.
        cost: The proxy, of counts.
        attempt: Returns counts whose proxy is at most what it is given.
        measure: The truth, of counts.

    Raises:
        Unreachable: with the closest that can be reached.
    """
    if target.timed:
        return _meet_timed(target, most, cost, attempt, measure)
    aim = target.allowed - (now - cost(0 * most))
    best: Counts | None = None
    reached, closest = 0.0, float("inf")
    for _ in range(_ATTEMPTS):
        try:
            counts = attempt(aim)
        except Unreachable:
            break
        came = measure(counts)
        closest = min(closest, came)
        if came <= target.allowed and (best is None or came > reached):
            best, reached = counts, came
        if BAND * target.allowed <= reached or abs(came - cost(counts) - target.allowed + aim) < 0.5:
            break
        aim = target.allowed - (came - cost(counts))
    if best is None:
        raise Unreachable(min(closest, measure(most)))
    return best


def _meet_timed(
    target: Target,
    most: Counts,
    cost: Callable[[Counts], float],
    attempt: Callable[[float], Counts],
    measure: Callable[[Counts], float],
) -> Counts:
    """Bisect the multiply-accumulates until the measured time fits."""
    least = measure(most)
    if least > target.allowed:
        raise Unreachable(least)
    low, high = cost(most), cost(0 * most)
    best, reached = most, least
    for _ in range(_LATENCY_ATTEMPTS):
        aim = (low + high) / 2
        counts = attempt(aim)
        came = measure(counts)
        if came > target.allowed:
            high = aim
            continue
        low = aim
        if came > reached:
            best, reached = counts, came
        if came >= _LATENCY_BAND * target.allowed:
            break
    return best
