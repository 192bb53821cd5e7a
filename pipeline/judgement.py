# SPDX-License-Identifier: Apache-2.0
"""A decision as it is written: the half of `gate` that whoever verifies repeats from the same evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checks.attempts import Attempt, expect_attempt
from checks.consistency import expect_consistent
from checks.decision import Decision
from checks.errors import EvidenceError, LeanGateError
from checks.evidence import Evidence
from checks.flips import most_changed
from pipeline.policy_file import PolicyFile
from pipeline.probes.pool import ATTACKS

__all__ = ["describe", "describe_head", "expect_attempted", "expect_cost", "expect_whole"]


def expect_whole(evidence: Evidence, where: str) -> None:
    """Refuse evidence whose files contradict each other, or whose pool of attacks lacks one.

    Raises:
        EvidenceError: naming what.
    """
    if set(evidence.attacks.names) != set(ATTACKS):
        raise EvidenceError(
            f"expected the attacks {list(ATTACKS)}, got {list(evidence.attacks.names)}",
            where=where,
            hint="a pool without its strongest attack flatters; run `dvc repro`",
        )
    expect_consistent(evidence)


def expect_cost(evidence: Evidence, model: str, record: Mapping[str, Any], where: str) -> None:
    """Refuse costs that are not those of a model's record.

    Raises:
        EvidenceError: naming both.
    """
    said, want = evidence.cost.get(model), {key: record.get(key) for key in ("bytes", "macs", "parameters")}
    if said != want:
        raise EvidenceError(f"expected {want} of the {model}, got {said}", where=where)


def expect_attempted(attempt: Attempt | None, evidence: Evidence, where: str) -> Attempt:
    """Return the attempt, refusing one that is not this candidate's on the test split of the evidence.

    Raises:
        EvidenceError: naming both.
    """
    return expect_attempt(
        attempt,
        test_sha256=evidence.examples.test_sha256,
        candidate_sha256=evidence.subject.candidate_sha256,
        where=where,
    )


def _most_changed(evidence: Evidence) -> list[dict[str, Any]]:
    try:
        return most_changed(evidence)
    except LeanGateError:  # scores that are no scores; the findings say so
        return []


def describe_head(slot: str, candidate: str | None, file: PolicyFile) -> dict[str, Any]:
    """Return what a decision says of itself before anything was found, and all that it says of an empty slot.

    Args:
        slot: Of the shortlist.
        candidate: Its name; None where no candidate fills the slot.
        file: The policy.
    """
    return {
        "slot": slot,
        "candidate": candidate,
        "policy": {"name": file.policy.name, "sha256": file.sha256},
        "plugins": dict(file.plugins),
        "alpha": file.policy.alpha,
        "attempt": None,
        "subject": None,
        "evidence": {},
        "most_changed": [],
    }


def describe(
    slot: str,
    candidate: str | None,
    file: PolicyFile,
    attempt: Attempt | None,
    decision: Decision,
    evidence: Evidence | None,
) -> dict[str, Any]:
    """Return a decision as it is written: the same from the same evidence, whoever asks.

    Args:
        slot: Of the shortlist.
        candidate: Its name.
        file: The policy.
        attempt: Of the candidate on the test split; None if it could not be read.
        decision: What was decided.
        evidence: On what; None if it could not be read.
    """
    head = describe_head(slot, candidate, file)
    if attempt is not None:
        head["attempt"] = {
            "number": attempt.number,
            "shared": list(attempt.shared),
            "planned": file.policy.planned_attempts,
            "test_sha256": attempt.test_sha256,
        }
    if evidence is not None:
        head |= {
            "subject": evidence.subject.to_json(),
            "evidence": dict(evidence.files),
            "most_changed": _most_changed(evidence),
        }
    return head | decision.to_json()
