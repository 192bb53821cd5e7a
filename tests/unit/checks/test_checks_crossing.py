# SPDX-License-Identifier: Apache-2.0
"""Combinations of attributes: each a level of its own, and none that two could be taken for."""

import numpy as np
import pytest

from checks.crossing import cross
from checks.decision import decide
from checks.errors import PolicyError
from checks.fairness import FairnessCheck
from checks.policy import parse_policy
from checks.protocol import built_in_checks, metrics_of


def _columns(decided, **columns):
    labels = np.arange(len(next(iter(columns.values())))) % 4
    return decided(labels, labels, labels, columns=columns)


def test_every_combination_that_has_examples_is_a_level(decided):
    examples = _columns(decided, sex=["f", "f", "m"], age=["y", "o", "o"]).examples
    crossed = cross(examples, ["sex*age", "sex*label"])
    assert crossed.columns["sex*age"].tolist() == ["f*y", "f*o", "m*o"]
    assert crossed.levels["sex*age"] == ("f*o", "f*y", "m*o")
    assert crossed.levels["sex*label"] == ("f*a", "f*b", "m*c")
    assert cross(examples, []) is examples


def test_levels_that_two_combinations_would_share_are_refused(decided):
    examples = _columns(decided, a=["x", "x*y"], b=["y*z", "z"]).examples
    with pytest.raises(PolicyError, match=r"without '\*'"):
        cross(examples, ["a*b"])


def test_a_policy_that_crosses_attributes_is_decided(decided):
    rule = {"id": "r", "kind": "bounded", "metric": "flip_rate", "max": 0.5, "reason": "why"}
    raw = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05}
    raw["rules"] = [rule, rule | {"id": "crossed", "slices": ["sex", "sex*age"]}]
    policy = parse_policy(raw, metrics_of(built_in_checks()))
    evidence = _columns(decided, sex=["f", "m"] * 50, age=["y", "o"] * 50)
    found = decide(built_in_checks(), evidence, policy, alpha=policy.alpha).findings
    assert [str(finding.verdict) for finding in found] == ["PASS"] * 5


@pytest.mark.parametrize("crossing", ["sex*agee", "sex*sex"])
def test_what_does_not_exist_is_named_with_its_rule(decided, crossing):
    rules = [
        {"id": "first", "kind": "bounded", "metric": "accuracy_change", "margin": 0.05, "reason": "why"},
        {"id": "second", "kind": "bounded", "metric": "accuracy_change", "margin": 0.05, "reason": "why"},
    ]
    rules[1]["slices"] = ["sex", crossing]
    raw = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": rules}
    policy = parse_policy(raw, metrics_of(built_in_checks()), "other.yaml")
    evidence = _columns(decided, sex=["f", "m"] * 50, age=["y", "o"] * 50)
    with pytest.raises(PolicyError) as caught:
        decide(built_in_checks(), evidence, policy, alpha=policy.alpha)
    assert caught.value.where == "other.yaml rules[1].slices"


@pytest.mark.parametrize(
    ("slices", "classes", "compared"),
    [
        (["sex"], {"classes": ["b"]}, [("sex", "b")]),
        (["age"], {"classes": ["a", "c"]}, [("age", "a"), ("age", "c")]),
        (["sex"], {}, [("sex", name) for name in "abcd"]),
        (["sex*age"], {"classes": ["b"]}, [("sex*age", "b")]),
    ],
)
def test_only_what_rules_ask_for_is_compared(decided, slices, classes, compared):
    labels = np.arange(400) % 4
    sex, age = np.where(np.arange(400) < 200, "f", "m"), np.where(np.arange(400) % 8 < 4, "y", "o")
    evidence = decided(labels, labels, labels, columns={"sex": sex, "age": age})
    rule = {"metric": "true_positive_rate_gap", "slices": slices, "max": 0.9} | classes
    asked = []

    class Counting(FairnessCheck):
        def measure(self, evidence):
            found = super().measure(evidence)
            asked.extend((entry.metric, entry.slice.attribute, entry.target) for entry in found)
            return found

    raw = {"id": "r", "kind": "bounded", "reason": "why"} | rule
    policy = parse_policy(
        {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": [raw]},
        FairnessCheck().metrics,
    )
    decision = decide([Counting()], evidence, policy, alpha=policy.alpha)
    assert asked == [("true_positive_rate_gap", *entry) for entry in compared]
    assert {str(finding.verdict) for finding in decision.findings} == {"PASS"}
