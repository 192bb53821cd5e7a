# SPDX-License-Identifier: Apache-2.0
"""A finding: one rule applied to one measurement, with its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from checks.measurement import Measurement, describe_subject, place
from checks.policy import Rule

__all__ = ["Finding", "Reason", "Verdict"]


class Verdict(StrEnum):
    """What a rule says of a measurement."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"
    NO_FINDING = "NO-FINDING"
    NOT_RUN = "NOT-RUN"


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
        further_examples: How many more examples would settle it if what was seen holds, where known.
        further_if_equal: The same if the models are in truth equal.
        detectable: The smallest harm that would be told from none in four cases of five.
        value: Of the pair that decides, for a grouped measurement.
        pair: The levels of a grouped measurement that come closest to the limit, or break it.
        listed: Shown and not waited for: a combination of attributes too small to be judged, which its
            parents answer for.
    """

    rule: Rule
    measurement: Measurement | None
    verdict: Verdict
    message: str
    reason: Reason = Reason.NONE
    bound: float | None = None
    p: float | None = None
    further_examples: int | None = None
    further_if_equal: int | None = None
    detectable: float | None = None
    value: float | None = None
    pair: tuple[str, str] | None = None
    listed: bool = False

    @property
    def blocking(self) -> bool:
        """Whether the decision waits for it."""
        return self.rule.blocking and not self.listed

    @property
    def subject(self) -> str:
        """What it is about, in words; empty where nothing was measured."""
        if self.measurement is None:
            return ""
        return describe_subject(self.measurement.slice, self.pair, self.measurement.target)

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        rule, measurement = self.rule, self.measurement
        keys = ("slice", "versus", "target", "value", "interval", "n", "unit", "method")
        value: dict[str, Any] = dict.fromkeys(keys)
        rises = measurement is not None and measurement.harm == "rise"
        if measurement is not None:
            value = {key: entry for key, entry in measurement.to_json().items() if key in keys}
            value["slice"], value["versus"] = place(measurement.slice, self.pair)
            if self.pair != measurement.pair:  # the interval is that of another pair
                value |= {"value": self.value, "interval": None}
        return value | {
            "rule": rule.id,
            "kind": rule.kind,
            "blocking": self.blocking,
            "listed": self.listed,
            "metric": rule.metric,
            "limit": -rule.value if rule.limit == "margin" and not rises else rule.value,
            "limit_kind": "max" if rule.limit == "margin" and rises else rule.limit,
            "rule_reason": rule.reason,
            "verdict": str(self.verdict),
            "reason": str(self.reason),
            "message": self.message,
            "bound": self.bound,
            "p": self.p,
            "detectable": self.detectable,
            "further_examples": self.further_examples,
            "further_if_equal": self.further_if_equal,
        }
