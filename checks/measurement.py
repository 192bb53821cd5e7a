# SPDX-License-Identifier: Apache-2.0
"""What checks return: measurements, with the statistics a judge needs and no threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from checks.errors import CheckError

__all__ = ["DISPLAY_ALPHA", "OVERALL", "Measurement", "Method", "Slice"]

DISPLAY_ALPHA = 0.05
"""One-sided error of each end of a measurement's interval, so that the interval is a 90 % one."""


class Method(StrEnum):
    """How a measurement was made, and so which statistic a judge may apply to it."""

    PAIRED_EXACT = "paired_exact"
    """Difference of two paired proportions; statistics `losses`, `gains`."""
    MOVER_TANGO = "mover_tango"
    """Difference of two slices' paired differences; statistics `losses_g`, `gains_g`, `n_g`, `..._h`."""
    CLOPPER_PEARSON = "clopper_pearson"
    """Proportion; statistic `successes`."""
    HODGES_LEHMANN = "hodges_lehmann"
    """Ratio of times over fresh session pairs; statistics `log_ratios`, `control_log_ratios`."""
    EXACT_VALUE = "exact_value"
    """A value without sampling error, such as a file size."""


@dataclass(frozen=True, order=True)
class Slice:
    """A named subset of examples: every example, or those whose `attribute` equals `level`."""

    attribute: str = ""
    level: str = ""

    def __str__(self) -> str:
        return f"{self.attribute}={self.level}" if self.attribute else "overall"


OVERALL = Slice()


@dataclass(frozen=True)
class Measurement:
    """One value measured on one slice.

    Attributes:
        metric: Name of the metric, as policies refer to it.
        slice: The examples it was measured on.
        versus: The second slice of a comparison between slices, else None.
        value: The estimate, in `unit`.
        interval: Lower and upper end, each a one-sided 95 % bound; None where there is no sampling error.
        n: Number of independent units behind the value, >= 1.
        unit: `proportion`, `ratio`, `bytes`, `count`, `1`.
        method: Which statistic applies.
        statistics: The sufficient statistics a judge needs, finite numbers or lists of them.
    """

    metric: str
    slice: Slice
    value: float
    interval: tuple[float, float] | None
    n: int
    unit: str
    method: Method
    versus: Slice | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = [self.value, *(self.interval or ())]
        for entry in self.statistics.values():
            numbers.extend(entry if isinstance(entry, list | tuple) else [entry])
        if not all(math.isfinite(number) for number in numbers):
            raise CheckError(
                f"expected finite numbers, got {numbers}", where=f"{self.metric} on {self.slice}"
            )
        if self.n < 1:
            raise CheckError(f"expected n >= 1, got {self.n}", where=f"{self.metric} on {self.slice}")

    @property
    def subject(self) -> str:
        """The slice, or the pair of slices, in words."""
        return f"{self.slice} against {self.versus}" if self.versus else str(self.slice)

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as plain JSON values."""
        return {
            "metric": self.metric,
            "slice": str(self.slice),
            "versus": str(self.versus) if self.versus else None,
            "value": self.value,
            "interval": list(self.interval) if self.interval else None,
            "n": self.n,
            "unit": self.unit,
            "method": str(self.method),
            "statistics": {
                key: list(value) if isinstance(value, list | tuple) else value
                for key, value in sorted(self.statistics.items())
            },
        }
