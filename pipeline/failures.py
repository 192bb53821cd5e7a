# SPDX-License-Identifier: Apache-2.0
"""How a command that fails says so: one sentence, a hint, and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from checks.canonical import dumps
from checks.errors import LeanGateError

__all__ = ["FAILURE_FILE", "report_error"]

FAILURE_FILE = "LEANGATE_FAILURE_FILE"
"""Variable naming a file to which a failing stage writes its exit code; DVC itself only knows 255."""


def _note_failure(path: Path, value: Mapping[str, int | str]) -> None:
    try:
        path.write_text(dumps(value), encoding="utf-8")
    except OSError as error:
        print(f"  note: {path} could not be written: {error}", file=sys.stderr)


def report_error(error: LeanGateError, stage: str = "") -> int:
    """Print what happened and what to do, note the exit code for `leangate run`, and return it."""
    print(f"error: {error}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
    failure = os.environ.get(FAILURE_FILE)
    if failure:
        _note_failure(Path(failure), {"exit_code": error.exit_code, "message": str(error), "stage": stage})
    return error.exit_code
