# SPDX-License-Identifier: Apache-2.0
"""`leangate verify`: a bundle checked offline, step by step."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from leangate.terminal import Line, Table, render

if TYPE_CHECKING:
    from checks.errors import LeanGateError
    from pipeline.verification import Step

__all__ = ["HELP", "add_arguments", "verify"]

HELP = """Check a bundle from its own files alone, without network, MLflow, torch or ONNX Runtime: that every
file has the digest it is named with; that decision, policy, records and evidence are about this ONNX
file; that every measurement and verdict follows from the evidence; that what blocks and ships all the same
is waived by an approver of the policy, and still is on the day of --at; that the card says nothing else;
and, with --trust, that one of the keys there signed all of it, none of them named in a file `revoked` there.

exit codes:
  0  all of it holds
  1  something does not; the last line says what
  2  wrong use, or no bundle there
  4  could not be checked: a file cannot be read or is of a schema that is not known here, the policy names
     checks that are not installed; or, where no trusted signature answers for it, the card is of another
     version, or verdicts need sensitive columns that the bundle leaves out and --restricted does not give
"""


_ENDS = {
    0: ("verified", "bold green"),
    1: ("NOT verified", "bold red"),
    4: ("NOT verified: not all of it could be checked", "bold yellow"),
}
_STYLES = {"holds": "green", "none": "dim", "unchecked": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the folder")
    parser.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="KEYS",
        help="folder of public keys (*.pub, *.pem), or one of them; may be given again",
    )
    parser.add_argument(
        "--at", metavar="YYYY-MM-DD", help="judge waivers as of this day, UTC; by default today"
    )
    parser.add_argument(
        "--restricted",
        type=Path,
        metavar="FILE",
        help="table of the sensitive slice columns, which the bundle names by its SHA-256; or a folder that "
        "holds it as SHA256.npz; by default the folder that LEANGATE_RESTRICTED names",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _table(steps: list[Step], error: LeanGateError | None) -> Table:
    rows: list[tuple[str, str, str]] = [(step.state, step.name, step.said) for step in steps]
    styles = [_STYLES[step.state] for step in steps]
    if error is not None:
        rows.append(("FAILS", "", str(error)))
        styles.append("red")
    return Table(heads=("", "Step", "What was checked"), rows=rows, styles=styles)


def _day(at: str | None) -> date | None:
    from checks.errors import InputError
    from pipeline.waiver import day_of

    try:
        return None if at is None else day_of(at)
    except ValueError as error:
        raise InputError(f"expected a day as YYYY-MM-DD, got {at!r}"[:100], where="--at") from error


def verify(
    folder: Path,
    trust: Sequence[Path],
    *,
    as_json: bool,
    at: str | None = None,
    restricted: Path | None = None,
) -> tuple[str, int]:
    """Return what to print, and the exit code.

    Raises:
        InputError: if there is no such folder, no key to trust, `at` names no day, or `restricted` is not
            the table that the bundle names.
        LeanGateError: if it cannot be checked.
    """
    from checks.errors import EvidenceError, InputError, PolicyError, SchemaError, StorageError
    from pipeline.card.contents import MANIFEST
    from pipeline.restricted import restricted_folder
    from pipeline.verification import verify_bundle

    try:
        found = (folder / MANIFEST).is_file()
    except OSError as failed:
        raise StorageError(
            f"expected a readable folder, got {failed.strerror}", where=str(folder)
        ) from failed
    if not found:
        raise InputError(
            f"expected a bundle, got no {MANIFEST}",
            where=str(folder),
            hint="name the folder that the stage `bundle` writes, artifacts/bundle",
        )
    on, restricted = _day(at), restricted or restricted_folder()
    trusted, revoked = None, dict[str, str]()
    if trust:
        from pipeline.attestation.keys import read_revoked, read_trusted

        for path in trust:
            revoked |= read_revoked(path)
        keys = {name: key for path in trust for name, key in read_trusted(path).items()}
        trusted = {name: key for name, key in keys.items() if name not in revoked}
    steps: list[Step] = []
    error: LeanGateError | None = None
    try:
        for step in verify_bundle(folder, trusted, on=on, revoked=revoked, restricted=restricted):
            steps.append(step)  # noqa: PERF402 - what held before one does not is shown
    except (EvidenceError, PolicyError) as caught:
        error = caught
    whole = all(step.state != "unchecked" for step in steps)
    # A version that is not known here says nothing against the bundle, and nothing for it.
    unknown = isinstance(error, SchemaError) or not whole
    code = 4 if unknown else 0 if error is None else 1
    if as_json:
        value = {
            "verified": code == 0,
            "steps": [asdict(step) for step in steps],
            "error": None if error is None else str(error),
        }
        return json.dumps(value, indent=2) + "\n", code
    words, style = _ENDS[code]
    return render([_table(steps, error), Line(words, style)]), code
