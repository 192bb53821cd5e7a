# SPDX-License-Identifier: Apache-2.0
"""The check protocol, and the built-in checks by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

from checks.evidence import Evidence
from checks.measurement import Measurement, Method

if TYPE_CHECKING:
    from checks.policy import OperatingPoint

__all__ = [
    "Check",
    "Metric",
    "Narrowing",
    "Places",
    "Targets",
    "Wanted",
    "built_in_checks",
    "look_up",
    "metrics_of",
]

Targets = Literal["", "class", "operating_point"]

Places = Literal["slices", "overall", "levels"]

Wanted = Callable[[str, str, str], bool]
"""Takes metric, attribute of a slice and target, and says whether any rule asks for that."""

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Metric:
    """What a check declares about one of its metrics.

    Attributes:
        method: How it is measured, and so which rules may bound it.
        targets: What it is measured once for each of: nothing, each `class` against the rest, or each
            `operating_point` of the policy.
        gateable: Whether a policy may bound it; what is only a proxy may not be.
        on_demand: Whether measurements that no rule selects are left out of the decision.
        control: Whether it comes with a control, two copies of one file, that a rule sets a tolerance for.
        limits: Which limits bound it, where its method allows more: a least count of faults bounds nothing.
        places: Where it is measured: on all examples and on every level (`slices`), on all examples alone
            (`overall`), or on levels alone (`levels`).
    """

    method: Method
    targets: Targets = ""
    gateable: bool = True
    on_demand: bool = False
    control: bool = False
    places: Places = "slices"
    limits: tuple[str, ...] | None = None


class Check(Protocol):
    """A pure function from evidence to measurements, with a name and the metrics it declares."""

    @property
    def name(self) -> str:
        """Unique name, `accuracy` for example."""
        ...

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric it measures; a trailing `*` stands for any whole number."""
        ...

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure; the same evidence always gives the same measurements.

        Raises:
            EvidenceError: if the evidence does not allow a measurement.
        """
        ...


@runtime_checkable
class Narrowing(Protocol):
    """A check that can leave out what nobody asks for."""

    def narrow(self, wanted: Wanted) -> Check:
        """Return a check that measures what is wanted alone."""
        ...


def built_in_checks(operating_points: Sequence[OperatingPoint] = ()) -> tuple[Check, ...]:
    """Return the checks LeanGate brings, in the order reports show them.

    They are the same ones whatever the policy, so that a policy can be parsed before it is known.

    Args:
        operating_points: Of the policy: the thresholds that sensitivity and specificity are measured at.
            Without any, those are not measured, and no rule may ask for them.
    """
    from checks.accuracy import AccuracyCheck
    from checks.calibration import CalibrationCheck
    from checks.contract import ContractCheck
    from checks.cost import CostCheck
    from checks.disparity import DisparityCheck
    from checks.energy import EnergyCheck
    from checks.fairness import FairnessCheck
    from checks.flips import FlipsCheck
    from checks.group_table import GroupTableCheck
    from checks.latency import LatencyCheck
    from checks.operating_point import OperatingPointCheck
    from checks.probability_shift import ProbabilityShiftCheck
    from checks.rates import RatesCheck
    from checks.robustness import RobustnessCheck

    return (
        ContractCheck(),
        AccuracyCheck(),
        RatesCheck(),
        OperatingPointCheck(tuple(operating_points)),
        FlipsCheck(),
        ProbabilityShiftCheck(),
        CalibrationCheck(),
        DisparityCheck(),
        FairnessCheck(),
        GroupTableCheck(),
        RobustnessCheck(),
        LatencyCheck(),
        EnergyCheck(),
        CostCheck(),
    )


def metrics_of(checks: Sequence[Check]) -> dict[str, Metric]:
    """Return every metric the checks declare."""
    return {name: metric for check in checks for name, metric in check.metrics.items()}


def look_up(metric: str, table: Mapping[str, Entry]) -> Entry | None:
    """Return what `table` holds under the declared metric that `metric` is an instance of, or None."""
    for declared, entry in table.items():
        if re.fullmatch(re.escape(declared).replace(r"\*", r"[1-9]\d*"), metric):
            return entry
    return None
