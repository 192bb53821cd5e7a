# SPDX-License-Identifier: Apache-2.0
"""Every attempt to get an unproven model into production, on a real server: a table of what came of each.

`make bypass`; with `--postgres` against a private PostgreSQL, which has to be installed. Exits 1 if one of
them succeeded, or failed in another way than it should.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")

from tests.bypass.artifact_attempts import ARTIFACTS
from tests.bypass.attempts import Outcome, attempt
from tests.bypass.evidence_attempts import EVIDENCE
from tests.bypass.registry_attempts import REGISTRY
from tests.bypass.world import gated_world
from tests.postgres import postgres_cluster

_REASON = 110
_PREFIX = "LeanGate refuses: "


def _cell(words: str, folder: Path) -> str:
    here = words.replace(str(folder), "…")  # differs from run to run
    plain = " ".join(here.split()).removeprefix(_PREFIX).replace("|", "\\|")
    shown = plain if len(plain) <= _REASON else plain[: _REASON - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in shown)


def _row(outcome: Outcome, folder: Path) -> str:
    this = outcome.attempt
    reason = outcome.reason or this.harmless
    if outcome.status == 200 and this.harmless:
        reason = f"no effect: {this.harmless}"
    number = "" if outcome.number is None else str(outcome.number)
    cells = (_cell(this.name, folder), this.through, str(outcome.status), _cell(reason, folder), number)
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Run all of them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    attempts = [
        this for this in (*REGISTRY, *EVIDENCE, *ARTIFACTS) if not (this.unprivileged and os.geteuid() == 0)
    ]
    bad: list[Outcome] = []
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, of what is deprecated in it
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leangate-bypass-")))
        database = stack.enter_context(postgres_cluster()).database("registry") if options.postgres else ""
        world = stack.enter_context(gated_world(folder, database))
        print("| Attempt | Through | HTTP | Reason | Ledger entry |")
        print("|---|---|---|---|---|")
        for this in attempts:
            outcome = attempt(this, world)
            print(_row(outcome, folder), flush=True)
            if outcome.problems:
                bad.append(outcome)
    print(f"\n{len(attempts)} attempts, {len(attempts) - len(bad)} failed as they should")
    for outcome in bad:
        print(f"{outcome.attempt.name} [{outcome.attempt.through}]: {'; '.join(outcome.problems)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
