# SPDX-License-Identifier: Apache-2.0
"""What a claim is made of, and what each is asked: which harm would show, how much more data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from checks.finding import Reason
from checks.measurement import GROUPED, Measurement
from checks.policy import Rule

__all__ = ["Claim", "FailLevels", "Further", "detectable_harm", "fewest_units", "grow"]

_POWER_QUANTILE = 0.8416212335729143
"""Normal quantile of 0.8."""

_MOST_GROWTH = 1024
"""More than so many times the data nobody collects."""


@dataclass(frozen=True)
class FailLevels:
    """Error at which one FAIL may be claimed: the strictest of the Holm family, and of one claim on time."""

    family: float
    time: float


@dataclass(frozen=True)
class Further:
    """How many more examples would settle it, if what was seen holds, and if the models are equal."""

    if_seen: int | None
    if_equal: int | None = None


@dataclass(frozen=True)
class Claim:
    """A rule on a measurement before verdicts.

    Attributes:
        rule: The rule.
        measurement: What was measured.
        passed: Whether it is proven that the rule is kept.
        bound: The one-sided bound that decides, in the measurement's unit.
        p: The p-value that decides, where there is one.
        harm_p: A p-value of "the rule is in fact kept".
        reason: Why it did not pass, if nothing is proven.
        further: How many more examples would settle it; asked only where that matters.
        value: Of the pair that decides, for a grouped method.
        pair: The levels that decide, for a grouped method.
        detectable: The smallest harm that would be told from none in four cases of five.
        note: What is wrong with the data, if anything.
    """

    rule: Rule
    measurement: Measurement
    passed: bool
    bound: float | None
    harm_p: float
    p: float | None = None
    reason: Reason = Reason.BORDERLINE
    further: Callable[[], Further] = lambda: Further(None)
    value: float | None = None
    pair: tuple[str, str] | None = None
    detectable: float | None = None
    note: str = ""


def fewest_units(measurement: Measurement) -> int:
    """Return the units behind a measurement; of its smallest level, if it compares levels."""
    if measurement.method in GROUPED:
        return int(min(measurement.statistics["n"]))
    return measurement.n


def detectable_harm(value: float, bound: float, alpha: float) -> float | None:
    """Scale the width of the bound to the power asked for; exact for a normal estimate."""
    from scipy.special import ndtri

    width = abs(bound - value)
    return width * (1 + _POWER_QUANTILE / float(ndtri(1 - alpha))) if math.isfinite(width) else None


def grow(passes: Callable[[float], bool], n: int) -> Further:
    """Find how much more of the same data would pass, by doubling, then halving the step."""
    enough = 2.0
    while not passes(enough):
        enough *= 2
        if enough > _MOST_GROWTH:
            return Further(None)
    short = enough / 2
    while enough - short > 0.02 * enough:
        middle = (enough + short) / 2
        short, enough = (short, middle) if passes(middle) else (middle, enough)
    return Further(math.ceil((enough - 1) * n))
