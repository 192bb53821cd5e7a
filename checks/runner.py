# SPDX-License-Identifier: Apache-2.0
"""The runner: runs every check, re-validates what it returns, and turns whatever breaks into an error."""

from __future__ import annotations

import contextlib
import random
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass

import numpy as np

from checks.errors import CheckError, LeanGateError, PolicyError
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
        seconds: Check to the processor time it took; for people, no part of any decision.
    """

    measurements: tuple[Measurement, ...]
    broken: Mapping[str, str]
    seconds: Mapping[str, float] = field(default_factory=dict)


@contextlib.contextmanager
def _seeded(name: str) -> Iterator[None]:
    """Seed the global generators, which a check should not use and may, and put them back."""
    seed = zlib.crc32(name.encode())
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002


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
        declared = look_up(measurement.metric, check.metrics)
        if declared is None or declared.method is not measurement.method:
            raise CheckError(
                f"expected the metrics it declares {sorted(check.metrics)}, got {measurement.metric} "
                f"by {measurement.method}",
                where=f"check {check.name}",
            )
        key = (measurement.metric, measurement.slice, measurement.target)
        if key in seen:
            raise CheckError(
                f"expected one {measurement.metric} on {measurement.subject}, got two", where=check.name
            )
        seen.add(key)
    return list(returned)


def _freeze(value: object) -> None:
    """Make every array within read-only: bounds are drawn later, from what all checks have seen."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif is_dataclass(value):
        for entry in vars(value).values():
            _freeze(entry)
    elif isinstance(value, Mapping):
        for entry in value.values():
            _freeze(entry)


def run_checks(checks: Sequence[Check], evidence: Evidence) -> Run:
    """Run `checks` on `evidence`.

    Returns:
        The measurements of the checks that worked, and why the others did not.

    Raises:
        PolicyError: of a built-in check, if the policy asks for what does not exist.
    """
    _freeze(evidence)
    measurements: list[Measurement] = []
    broken: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for check in checks:
        start = time.process_time()
        try:
            with _seeded(check.name):
                measurements += _validated(check, check.measure(evidence))
        except LeanGateError as error:
            if isinstance(error, PolicyError) and type(check).__module__.partition(".")[0] == "checks":
                raise
            broken |= dict.fromkeys(check.metrics, f"check {check.name}: {error}")
        except (Exception, SystemExit) as error:  # a crashed check must end as ERROR, whatever it raised
            broken |= dict.fromkeys(
                check.metrics, f"check {check.name} broke: {type(error).__name__}: {error}"
            )
        seconds[check.name] = time.process_time() - start
    return Run(tuple(measurements), broken, seconds)
