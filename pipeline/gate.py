# SPDX-License-Identifier: Apache-2.0
"""gate: evidence and policy to a decision on one finalist; pure, and done in a second.

The stage succeeds whatever the decision, so that a decision is always recorded; `enforce` alone fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from checks.attempts import Attempt, read_attempt
from checks.canonical import read_json, sha256_file
from checks.decision import Decision, absent, decide, decide_unreadable
from checks.errors import EvidenceError, InputError, LeanGateError, ParamsError
from checks.evidence import RESTRICTED, Evidence, Subject, read_evidence
from pipeline.data.dataset import data_digest
from pipeline.data.test_examples import expect_test_split
from pipeline.files import write_json
from pipeline.judgement import describe, describe_head, expect_attempted, expect_cost, expect_whole
from pipeline.layout import Layout
from pipeline.models.record import read_record
from pipeline.params import Params
from pipeline.policy_file import PolicyFile, load_policy
from pipeline.probes.code_digest import code_sha256

__all__ = ["Judged", "judge_slot", "run"]


@dataclass(frozen=True)
class Judged:
    """What was decided on the finalist of one slot.

    Attributes:
        decision: The decision; None where no candidate fills the slot.
        value: What the stage writes: slot, candidate, policy, what the evidence is about, all findings.
    """

    decision: Decision | None
    value: Mapping[str, Any]


def _finalists(layout: Layout) -> Mapping[str, str | None]:
    path = layout.shortlist / "shortlist.json"
    shortlist = read_json(path)
    slots = shortlist.get("slots") if isinstance(shortlist, dict) else None
    if not isinstance(slots, dict):
        raise EvidenceError("expected the finalists by slot", where=str(path))
    return slots


def _read(layout: Layout, slot: str) -> Evidence:
    """Read the evidence on the very files that lie here now; anything else is refused."""
    subject = Subject(
        baseline_sha256=sha256_file(layout.baseline / "model.onnx"),
        candidate_sha256=sha256_file(layout.finalist(slot) / "model.onnx"),
        data_sha256=data_digest(layout.data),
        code_sha256=code_sha256(),
    )
    folder = layout.evidence(slot)
    evidence = read_evidence(folder, layout.timing(slot), subject, folder / RESTRICTED)
    expect_test_split(evidence.examples, layout.data, str(layout.evidence(slot) / "examples.npz"))
    _expect_cost(layout, slot, evidence)
    expect_whole(evidence, str(layout.evidence(slot) / "attacks.npz"))
    return evidence


def _expect_cost(layout: Layout, slot: str, evidence: Evidence) -> None:
    """Refuse costs that are not those of the very files."""
    for model, folder in (("baseline", layout.baseline), ("candidate", layout.finalist(slot))):
        record = {**read_record(folder), "bytes": (folder / "model.onnx").stat().st_size}
        expect_cost(evidence, model, record, f"{layout.evidence(slot) / 'cost.json'} {model}")


def _judge(layout: Layout, slot: str, file: PolicyFile) -> tuple[Decision, Evidence | None, Attempt | None]:
    try:
        evidence, path = _read(layout, slot), layout.attempt(slot)
        attempt = expect_attempted(read_attempt(path), evidence, str(path))
        decision = decide(file.checks, evidence, file.policy, alpha=attempt.alpha(file.policy))
        return decision, evidence, attempt
    except InputError:
        raise
    except LeanGateError as error:
        return decide_unreadable(file.policy, error), None, None
    except (Exception, SystemExit) as error:
        # Evidence can be wrong, and a plugin break, in ways nobody thought of; there still is a decision.
        broken = EvidenceError(
            f"expected evidence, got {type(error).__name__}: {error}", where=str(layout.evidence(slot))
        )
        return decide_unreadable(file.policy, broken), None, None


def judge_slot(layout: Layout, slot: str, file: PolicyFile) -> Judged:
    """Judge the evidence that lies in `layout` on the finalist of one slot; nothing is written.

    Args:
        layout: Where data, models and evidence lie.
        slot: Of the shortlist.
        file: The policy.

    Raises:
        EvidenceError: if there is no shortlist.
        ParamsError: if the shortlist has no such slot.
        PolicyError: if the policy is wrong; nothing is decided under a wrong policy.
    """
    slots = _finalists(layout)
    if slot not in slots:
        raise ParamsError(
            f"expected one of the slots {sorted(slots)}, got {slot!r}", where="params.yaml shortlist.slots"
        )
    if slots[slot] is None:
        return Judged(None, describe_head(slot, None, file) | dict(absent()))
    decision, evidence, attempt = _judge(layout, slot, file)
    return Judged(decision, describe(slot, slots[slot], file, attempt, decision, evidence))


def run(layout: Layout, params: Params, *, slot: str) -> None:
    """Write the decision on the finalist in `slot`.

    Raises:
        PolicyError: if the policy is wrong; nothing is decided under a wrong policy.
    """
    write_json(layout.decision(slot), judge_slot(layout, slot, load_policy(layout.policy)).value)
