# SPDX-License-Identifier: Apache-2.0
"""What the gate really writes is what the report reads: real decisions, no builder in between."""

from __future__ import annotations

from typing import Any

import pytest

from checks.decision import Decision, decide, decide_unreadable
from checks.errors import EvidenceError
from checks.policy import Policy, parse_policy
from checks.protocol import built_in_checks, metrics_of

RULES = [
    {"id": "overall", "kind": "bounded", "metric": "accuracy_change", "slices": ["overall"], "margin": 0.02},
    {
        "id": "slices",
        "kind": "bounded",
        "metric": "accuracy_change",
        "slices": ["light", "label"],
        "margin": 0.05,
    },
    {"id": "gap", "kind": "bounded", "metric": "accuracy_change_gap", "slices": ["light"], "max": 0.08},
    {"id": "robust", "kind": "bounded", "metric": "robust_accuracy_change", "margin": 0.1},
    {"id": "floor", "kind": "bounded", "metric": "candidate_robust_accuracy", "min": 0.6},
    {"id": "faster", "kind": "bounded", "metric": "latency_ratio_b64", "max": 1.0, "control_tolerance": 0.05},
    {"id": "smaller", "kind": "assert", "metric": "bytes_ratio", "max": 0.8},
]


@pytest.fixture
def policy() -> Policy:
    """A policy with a rule of every kind of limit."""
    rules = [rule | {"reason": f"why {rule['id']}"} for rule in RULES]
    value = {"version": 1, "name": "tight", "alpha": 0.05, "alpha_fail": 0.05, "rules": rules}
    return parse_policy(value, metrics_of(built_in_checks()), "policy.yaml")


def _case(make: Any, decision: Decision) -> Any:
    case = make(
        str(decision.outcome), "absent", classes=("a", "b", "c", "d"), levels={"light": ("dim", "even")}
    )
    case.decision().update(decision.to_json())
    return case


@pytest.mark.parametrize(
    ("defect", "outcome", "title"),
    [
        ({}, "passed", "half-int8 ships"),
        ({"level_losses": {"dim": 60}}, "blocked", "Nothing ships"),
        ({"losses": 12}, "inconclusive", "Nothing ships yet"),
        ({"control": 1.4}, "inconclusive", "Nothing ships yet"),
    ],
)
def test_real_decision_is_drawn_whole(
    make: Any, page_of: Any, evidence: Any, policy: Policy, defect: Any, outcome: str, title: str
) -> None:
    decision = decide(built_in_checks(), evidence(**defect), policy, alpha=policy.alpha)
    assert decision.outcome == outcome
    page = page_of(_case(make, decision))
    assert page.all("h1")[0].text == title
    text = page.one("article", id="finalist-first").text
    for finding in decision.findings:
        assert " ".join(finding.message.split()) in text
    assert len(page.all("svg", "forest")) == 1
    assert [row.all("th")[0].text for row in page.one("section", id="attacks").all("tr")[1:]] == [
        "all together", "clean", "pgd",
    ]  # fmt: skip


def test_limits_are_told_with_their_direction(make: Any, page_of: Any, evidence: Any, policy: Policy) -> None:
    decision = decide(built_in_checks(), evidence(), policy, alpha=policy.alpha)
    page = page_of(_case(make, decision))
    limits, rule = {}, ""
    for row in page.one("article", id="finalist-first").all("tr")[1:]:
        if row.attributes.get("class") == "rule":
            rule = row.all("code")[0].text
        elif row.all("span", "chip"):
            limits[rule] = row.all("td")[3].text
    assert limits == {
        "overall": "above −2.00 pp",
        "slices": "above −5.00 pp",
        "gap": "at most +8.00 pp",
        "robust": "above −10.00 pp",
        "floor": "at least 60.00 %",
        "faster": "at most 1.00×",
        "smaller": "at most 0.80×",
    }


def test_evidence_that_could_not_be_read_is_told_rule_by_rule(
    make: Any, page_of: Any, policy: Policy
) -> None:
    decision = decide_unreadable(policy, EvidenceError("expected ids, got none", where="scores.npz"))
    case = _case(make, decision)
    case.decision().update(subject=None, evidence={})
    page = page_of(case)
    assert page.all("h1")[0].text == "Nothing ships: could not judge"
    cards = page.one("section", id="why").all("article")
    assert len(cards) == 1
    names = [str(rule["id"]) for rule in RULES]
    assert [item.text for item in cards[0].all("dd")[-1].all("code")] == names
    assert "scores.npz: expected ids, got none" in cards[0].text
    rows = [row for row in page.one("article", id="finalist-first").all("tr") if row.all("span", "chip")]
    assert [row.all("span", "chip")[0].text for row in rows] == ["ERROR"] * len(RULES)
