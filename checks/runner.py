# SPDX-License-Identifier: Apache-2.0
"""The runner: runs every check, re-validates what it returns, and turns whatever breaks into an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from checks.errors import CheckError, LeanGateError
from checks.evidence import Evidence
from checks.measurement import Measurement
from checks.protocol import Check, look_up

__all__ = ["Run", "run_checks"]


@dataclass(frozen=True)
class Run:
    """What all checks returned.

    Attributes:
        measurements: Of the checks that worked.
        broken: Metric to the reason it was not measured, for the checks that did not.
    """

    measurements: tuple[Measurement, ...]
    broken: Mapping[str, str]


def _validated(check: Check, returned: object) -> list[Measurement]:
    """What a check claims is checked again here: a plugin's slip must not become a verdict."""
    if not isinstance(returned, list | tuple) or not returned:
        raise CheckError("expected measurements, got none", where=f"check {check.name}")
    seen = set()
    for measurement in returned:
        if not isinstance(measurement, Measurement):
            raise CheckError(
                f"expected a Measurement, got {type(measurement).__name__}", where=f"check {check.name}"
            )
        if look_up(measurement.metric, check.metrics) is not measurement.method:
            raise CheckError(
                f"expected the metrics it declares {sorted(check.metrics)}, got {measurement.metric} "
                f"by {measurement.method}",
                where=f"check {check.name}",
            )
        key = (measurement.metric, measurement.slice, measurement.versus)
        if key in seen:
            raise CheckError(
                f"expected one {measurement.metric} on {measurement.subject}, got two", where=check.name
            )
        seen.add(key)
    return list(returned)


def run_checks(checks: Sequence[Check], evidence: Evidence) -> Run:
    """Run `checks` on `evidence`.

    Returns:
        The measurements of the checks that worked, and why the others did not.
    """
    measurements: list[Measurement] = []
    broken: dict[str, str] = {}
    for check in checks:
        try:
            measurements += _validated(check, check.measure(evidence))
        except LeanGateError as error:
            broken |= dict.fromkeys(check.metrics, f"check {check.name}: {error}")
        except Exception as error:  # a crashed check must end as ERROR, whatever it raised
            broken |= dict.fromkeys(
                check.metrics, f"check {check.name} broke: {type(error).__name__}: {error}"
            )
    return Run(tuple(measurements), broken)
