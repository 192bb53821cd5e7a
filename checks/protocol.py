# SPDX-License-Identifier: Apache-2.0
"""The check protocol, and the built-in checks by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from checks.evidence import Evidence
from checks.measurement import Measurement, Method

__all__ = ["Check", "built_in_checks", "look_up", "metric_methods"]

Entry = TypeVar("Entry")


class Check(Protocol):
    """A pure function from evidence to measurements, with a name and the metrics it declares."""

    @property
    def name(self) -> str:
        """Unique name, `accuracy` for example."""
        ...

    @property
    def metrics(self) -> Mapping[str, Method]:
        """Every metric it measures and how; a trailing `*` stands for any whole number."""
        ...

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure; the same evidence always gives the same measurements.

        Raises:
            EvidenceError: if the evidence does not allow a measurement.
        """
        ...


def built_in_checks() -> tuple[Check, ...]:
    """Return the checks LeanGate brings, in the order reports show them."""
    from checks.accuracy import AccuracyCheck
    from checks.contract import ContractCheck
    from checks.cost import CostCheck
    from checks.disparity import DisparityCheck
    from checks.group_table import GroupTableCheck
    from checks.latency import LatencyCheck
    from checks.robustness import RobustnessCheck

    return (
        ContractCheck(),
        AccuracyCheck(),
        DisparityCheck(),
        GroupTableCheck(),
        RobustnessCheck(),
        LatencyCheck(),
        CostCheck(),
    )


def metric_methods(checks: Sequence[Check]) -> dict[str, Method]:
    """Return every metric the checks declare, and how it is measured."""
    return {metric: method for check in checks for metric, method in check.metrics.items()}


def look_up(metric: str, table: Mapping[str, Entry]) -> Entry | None:
    """Return what `table` holds under the declared metric that `metric` is an instance of, or None."""
    for declared, entry in table.items():
        if re.fullmatch(re.escape(declared).replace(r"\*", r"[1-9]\d*"), metric):
            return entry
    return None
