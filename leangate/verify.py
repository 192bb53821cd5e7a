# SPDX-License-Identifier: Apache-2.0
"""`leangate verify`: a bundle checked offline, step by step."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from leangate.terminal import Line, Table, render

if TYPE_CHECKING:
    from checks.errors import LeanGateError
    from pipeline.verification import Step

__all__ = ["HELP", "verify"]

HELP = """Check a bundle from its own files alone, without network, MLflow, torch or ONNX Runtime: that every
file has the digest it is named with; that decision, policy, records and evidence are about this ONNX
file; that every measurement and verdict follows from the evidence; that the card says nothing else;
and, with --trust, that one of the keys there signed all of it.

exit codes:
  0  all of it holds
  1  something does not; the last line says what
  2  wrong use, or no bundle there
  4  could not be checked: a file cannot be read, or the policy names checks that are not installed
"""


def _table(steps: list[Step], error: LeanGateError | None) -> Table:
    rows = [("holds", step.name, step.said) for step in steps]
    styles = ["green"] * len(rows)
    if error is not None:
        rows.append(("FAILS", "", str(error)))
        styles.append("red")
    return Table(heads=("", "Step", "What was checked"), rows=rows, styles=styles)


def verify(folder: Path, trust: Path | None, *, as_json: bool) -> tuple[str, int]:
    """Return what to print, and the exit code.

    Raises:
        InputError: if there is no such folder, or no key to trust.
        LeanGateError: if it cannot be checked.
    """
    from checks.errors import EvidenceError, InputError, PolicyError
    from pipeline.card.contents import MANIFEST
    from pipeline.verification import verify_bundle

    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"expected a bundle, got no {MANIFEST}",
            where=str(folder),
            hint="name the folder that the stage `bundle` writes, artifacts/bundle",
        )
    trusted = None
    if trust is not None:
        from pipeline.attestation.keys import read_trusted

        trusted = read_trusted(trust)
    steps: list[Step] = []
    error: LeanGateError | None = None
    try:
        for step in verify_bundle(folder, trusted):
            steps.append(step)  # noqa: PERF402 - what held before one does not is shown
    except (EvidenceError, PolicyError) as caught:
        error = caught
    if as_json:
        value = {
            "verified": error is None,
            "steps": [asdict(step) for step in steps],
            "error": None if error is None else str(error),
        }
        return json.dumps(value, indent=2) + "\n", int(error is not None)
    end = Line("verified", "bold green") if error is None else Line("NOT verified", "bold red")
    return render([_table(steps, error), end]), int(error is not None)
