# SPDX-License-Identifier: Apache-2.0
"""What checks return: measurements, with the statistics a judge needs and no threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from checks.errors import CheckError

__all__ = [
    "DISPLAY_ALPHA",
    "GROUPED",
    "OVERALL",
    "Measurement",
    "Method",
    "Slice",
    "describe_subject",
    "place",
]

DISPLAY_ALPHA = 0.05
"""One-sided error of each end of a measurement's interval, so that the interval is a 90 % one."""


class Method(StrEnum):
    """How a measurement was made, and so which statistic a judge may apply to it."""

    PAIRED_EXACT = "paired_exact"
    """Difference of two paired proportions; statistics `losses` (harm), `gains` (the reverse)."""
    CLOPPER_PEARSON = "clopper_pearson"
    """Proportion; statistic `successes`."""
    MOVER_TANGO = "mover_tango"
    """Gap between groups' paired changes; statistics `losses`, `gains`, `n`, one entry a level."""
    MIETTINEN_NURMINEN = "miettinen_nurminen"
    """Gap between groups' proportions; statistics `successes`, `n`, one entry a level."""
    MOVER_WILSON = "mover_wilson"
    """Ratio between groups' proportions; statistics `successes`, `n`, one entry a level."""
    HODGES_LEHMANN = "hodges_lehmann"
    """Ratio over fresh session pairs; statistics `log_ratios`, and `control_log_ratios` of a control."""
    BOOTSTRAP_T = "bootstrap_t"
    """Mean over units, by `bounds`; statistic `largest_harm`, the most one unit can add."""
    JACKKNIFE_T = "jackknife_t"
    """Statistic without a closed form; statistics `standard_error`, `groups`, `largest_harm`."""
    ORDER_STATISTIC = "order_statistic"
    """Quantile, by `bounds`; an infinite bound says that there are too few values."""
    EXACT_TEST = "exact_test"
    """A search for concentration; statistic `p`. Only for rules of kind `screen`."""
    EXACT_VALUE = "exact_value"
    """A value without sampling error, such as a file size."""


GROUPED = (Method.MOVER_TANGO, Method.MIETTINEN_NURMINEN, Method.MOVER_WILSON)
"""Methods that compare the levels of an attribute: one measurement covers every ordered pair of them."""


@dataclass(frozen=True, order=True)
class Slice:
    """A named subset of examples: every example, or those whose `attribute` equals `level`.

    Without a level it stands for all levels of the attribute, compared with each other.
    """

    attribute: str = ""
    level: str = ""

    def __str__(self) -> str:
        if not self.attribute:
            return "overall"
        return f"{self.attribute}={self.level}" if self.level else self.attribute


OVERALL = Slice()


@dataclass(frozen=True)
class Measurement:
    """One value measured on one slice.

    Attributes:
        metric: Name of the metric, as policies refer to it.
        slice: The examples it was measured on; for a grouped method the attribute.
        value: The estimate, in `unit`.
        interval: Lower and upper end, each a one-sided 95 % bound; None where there is no sampling error.
        n: Number of independent units behind the value, >= 1.
        unit: `proportion`, `ratio`, `bytes`, `count`, `ms`, `1`; `proxy` is never judged.
        method: Which statistic applies.
        target: The class of a metric that takes one class against the rest, or the operating point; else
            empty.
        levels: Of the attribute, for a grouped method: what the entries of the statistics are about.
        pair: The two levels that `value` compares, first against second.
        harm: Whether a `fall` or a `rise` of the value is the harm that a margin bounds.
        statistics: The sufficient statistics a judge needs, finite numbers or lists of them.
        bounds: One-sided lower and upper bound at a given error, where no statistics suffice.
    """

    metric: str
    slice: Slice
    value: float
    interval: tuple[float, float] | None
    n: int
    unit: str
    method: Method
    target: str = ""
    levels: tuple[str, ...] = ()
    pair: tuple[str, str] | None = None
    harm: Literal["fall", "rise"] = "fall"
    statistics: Mapping[str, Any] = field(default_factory=dict)
    bounds: Callable[[float], tuple[float, float]] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = f"{self.metric} on {self.slice}"
        numbers = [self.value, *(self.interval or ())]
        for entry in self.statistics.values():
            numbers.extend(entry if isinstance(entry, list | tuple) else [entry])
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise CheckError(f"expected finite numbers, got {numbers}", where=where)
        if self.n < 1:
            raise CheckError(f"expected n >= 1, got {self.n}", where=where)
        if (self.method in GROUPED) != bool(self.levels):
            raise CheckError(f"expected levels of a grouped method alone, got {self.levels}", where=where)

    @property
    def subject(self) -> str:
        """The slice, or the pair of slices, and the target, in words."""
        return describe_subject(self.slice, self.pair, self.target)

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as plain JSON values."""
        where, versus = place(self.slice, self.pair)
        return {
            "metric": self.metric,
            "slice": where,
            "versus": versus,
            "target": self.target or None,
            "value": self.value,
            "interval": list(self.interval) if self.interval else None,
            "n": self.n,
            "unit": self.unit,
            "method": str(self.method),
            "levels": list(self.levels),
            "statistics": {
                key: list(value) if isinstance(value, list | tuple) else value
                for key, value in sorted(self.statistics.items())
            },
        }


def place(where: Slice, pair: tuple[str, str] | None) -> tuple[str, str | None]:
    """Return the slice, and the one it is compared with, in words."""
    if pair is None:
        return str(where), None
    first, second = (str(Slice(where.attribute, level)) for level in pair)
    return first, second


def describe_subject(where: Slice, pair: tuple[str, str] | None, target: str) -> str:
    """Return what a measurement is about, in words."""
    first, second = place(where, pair)
    words = f"{first} against {second}" if second else first
    return f"{words} for {target}" if target else words
