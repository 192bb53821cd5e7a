# SPDX-License-Identifier: Apache-2.0
"""attempt: writes down which candidates the test split is about to be shown, before anything looks at it."""

from __future__ import annotations

from typing import Any

from checks.attempts import RECORD_SCHEMA, find_attempt, next_round, read_rounds
from checks.errors import EvidenceError
from pipeline.data.test_examples import read_test_digest
from pipeline.files import output_dir, write_json, write_text
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.policy_file import load_policy
from pipeline.probes.finalist import read_finalist

__all__ = ["run"]


def run(layout: Layout, params: Params) -> None:
    """Enter the finalists that this test split does not know into `attempts.jsonl`; write each one's record.

    Raises:
        DataError: if there is no prepared data.
        EvidenceError: if `attempts.jsonl` is missing, or was changed other than by growing.
        ModelError: if a finalist is not the one on record.
    """
    rounds, test_sha256 = read_rounds(layout.attempts_file), read_test_digest(layout.data)
    finalists = {slot: read_finalist(layout, slot) for slot in params.shortlist.slots}
    candidates = [finalist.candidate_sha256 for finalist in finalists.values() if finalist]
    # The policy is no dependency: only new attempts name it, and a policy that moves makes none.
    new = next_round(rounds, test_sha256, candidates, load_policy(layout.policy).sha256)
    if new is not None:
        rounds = (*rounds, new)
        # The file first: an attempt that is written down and never made costs little, the reverse is a lie.
        write_text(layout.attempts_file, "".join(f"{entry.line}\n" for entry in rounds))
    with output_dir(layout.attempts) as folder:
        for slot, finalist in finalists.items():
            record: dict[str, Any] = {"schema": RECORD_SCHEMA, "test_sha256": test_sha256}
            record |= {"candidate_sha256": None, "attempt": None, "rounds": []}
            if finalist is not None:
                attempt = find_attempt(rounds, test_sha256, finalist.candidate_sha256)
                if attempt is None:
                    raise EvidenceError(
                        "expected the attempt just written down", where=str(layout.attempts_file)
                    )
                record = attempt.to_json()
            write_json(folder / f"{slot}.json", record)
