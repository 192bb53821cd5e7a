# SPDX-License-Identifier: Apache-2.0
"""A finding: one rule applied to one measurement, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from checks.measurement import Measurement
from checks.policy import Rule

__all__ = ["Finding", "Reason", "Verdict"]


class Verdict(StrEnum):
    """What a rule says of a measurement."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


class Reason(StrEnum):
    """Why a verdict is INCONCLUSIVE."""

    NONE = ""
    TOO_SMALL = "too_small"
    UNDERPOWERED = "underpowered"
    BORDERLINE = "borderline"
    NOISY_HOST = "noisy_host"


@dataclass(frozen=True)
class Finding:
    """One rule on one measurement.

    Attributes:
        rule: The rule.
        measurement: What was measured; None if it could not be.
        verdict: What follows.
        message: One sentence for people.
        reason: Why INCONCLUSIVE, else empty.
        bound: The one-sided bound that decides, in the measurement's unit.
        p: The p-value that decides, where there is one.
        further_examples: How many more examples of the slice would settle it, where that is known.
    """

    rule: Rule
    measurement: Measurement | None
    verdict: Verdict
    message: str
    reason: Reason = Reason.NONE
    bound: float | None = None
    p: float | None = None
    further_examples: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        rule, measurement = self.rule, self.measurement
        value: dict[str, Any] = dict.fromkeys(("slice", "versus", "value", "interval", "n", "unit", "method"))
        if measurement is not None:
            value = {key: entry for key, entry in measurement.to_json().items() if key in value}
        return value | {
            "rule": rule.id,
            "kind": rule.kind,
            "blocking": rule.blocking,
            "metric": rule.metric,
            "limit": -rule.value if rule.limit == "margin" else rule.value,
            "limit_kind": rule.limit,
            "rule_reason": rule.reason,
            "verdict": str(self.verdict),
            "reason": str(self.reason),
            "message": self.message,
            "bound": self.bound,
            "p": self.p,
            "further_examples": self.further_examples,
        }
