# SPDX-License-Identifier: Apache-2.0
"""Sensitive slice columns, which no bundle holds: where their table lies, and what can be told without it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.canonical import sha256_file
from checks.decision import measure
from checks.errors import EvidenceError, InputError
from checks.evidence import RESTRICTED, Evidence
from checks.group_table import GroupTableCheck
from checks.measurement import Measurement
from checks.protocol import Check, look_up, metrics_of
from pipeline.card.contents import SHA256
from pipeline.decision_entries import attribute_of
from pipeline.decision_file import DECISION_SCHEMA
from pipeline.fields import read_fields
from pipeline.policy_file import PolicyFile

__all__ = [
    "RESTRICTED_VARIABLE",
    "find_restricted",
    "measure_shown",
    "measurements_shown",
    "restricted_folder",
]

RESTRICTED_VARIABLE = "LEANGATE_RESTRICTED"
"""Environment variable: a folder of restricted tables, each named `<sha256>.npz`."""


def restricted_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder of restricted tables that the environment names, if it names one.

    Raises:
        InputError: if it is no folder.
    """
    named = environment.get(RESTRICTED_VARIABLE, "").strip()
    if not named:
        return None
    if not Path(named).is_dir():
        raise InputError(
            f"expected a folder of restricted tables, got {named!r:.200}", where=RESTRICTED_VARIABLE
        )
    return Path(named)


def find_restricted(bundle: Path, place: Path | None) -> Path | None:
    """Return the restricted table that the decision of a bundle names, its digest checked.

    Args:
        bundle: The bundle.
        place: The table, or a folder that may hold it as `<sha256>.npz`; None for nowhere.

    Returns:
        The file; None if the bundle needs none and no file was given, or the folder holds none.

    Raises:
        EvidenceError: if the decision cannot be read.
        InputError: if the file given, or found, is not the one that is named.
    """
    if place is None:
        return None
    recorded = read_fields(bundle / "decision.json", DECISION_SCHEMA).inner("evidence")
    want, in_folder = recorded.maybe_text(RESTRICTED), place.is_dir()
    if want is None:
        if in_folder:
            return None
        raise InputError("expected none, since the bundle holds all its evidence, got one", where=str(place))
    if not SHA256.fullmatch(want):  # it becomes the name of a file
        raise EvidenceError("expected a SHA-256", where=f"{recorded.where} {RESTRICTED}")
    path = place / f"{want}.npz" if in_folder else place
    if in_folder and not path.exists():
        return None
    if not path.is_file():
        raise InputError(f"expected the restricted table {want}, got no file", where=str(path))
    came = sha256_file(path)
    if came != want:
        raise InputError(
            f"expected the restricted table {want}, got {came}",
            where=str(path),
            hint="it is restricted.npz in artifacts/evidence/SLOT of the project that made the bundle",
        )
    return path


def _shown_checks(file: PolicyFile) -> list[Check]:
    """Checks that measure slice by slice; what others make of all columns together cannot be told."""
    return [
        check
        for check in file.checks
        if type(check).__module__.partition(".")[0] == "checks" and not isinstance(check, GroupTableCheck)
    ]


def measure_shown(evidence: Evidence, file: PolicyFile) -> tuple[Measurement, ...]:
    """Measure what needs no withheld column: the slices of the others, by checks of this distribution."""
    return measure(_shown_checks(file), evidence, file.policy).measurements


def measurements_shown(
    measurements: Sequence[Mapping[str, Any]], evidence: Evidence, file: PolicyFile
) -> list[Mapping[str, Any]]:
    """Return those of a decision's measurements that `measure_shown` must arrive at.

    Args:
        measurements: As a decision holds them.
        evidence: Whose columns are withheld.
        file: The policy.
    """
    withheld, known = set(evidence.examples.withheld), metrics_of(_shown_checks(file))
    return [
        entry
        for entry in measurements
        if look_up(entry["metric"], known) and not withheld & set(attribute_of(entry["slice"]).split("*"))
    ]
