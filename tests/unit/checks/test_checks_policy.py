# SPDX-License-Identifier: Apache-2.0
"""A policy file is read whole and strictly, or refused by file and key."""

import copy

import pytest

from checks.errors import PolicyError
from checks.policy import parse_policy
from checks.protocol import built_in_checks, metric_methods

METHODS = metric_methods(built_in_checks())
GOOD = {
    "version": 1,
    "name": "p",
    "alpha": 0.05,
    "alpha_fail": 0.05,
    "rules": [
        {"id": "acc", "kind": "bounded", "metric": "accuracy_change", "margin": 0.02, "reason": "why"},
        {"id": "fast", "kind": "bounded", "metric": "latency_ratio_b64", "max": 1.2, "reason": "why"},
        {
            "id": "small",
            "kind": "assert",
            "metric": "bytes_ratio",
            "max": 0.5,
            "reason": "why",
            "blocking": False,
        },
    ],
}


def _changed(path: list, value: object) -> dict:
    policy = copy.deepcopy(GOOD)
    target = policy
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return policy


def test_good_policy_is_read():
    policy = parse_policy(GOOD, METHODS)
    assert [rule.id for rule in policy.rules] == ["acc", "fast", "small"]
    assert policy.rules[0].slices == ("overall",)
    assert policy.rules[0].limit == "margin"
    assert policy.rules[0].blocking
    assert not policy.rules[2].blocking
    assert policy.rules[1].control_tolerance == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (["version"], 2, "version"),
        (["name"], "", "name"),
        (["alpha"], float("nan"), "alpha"),
        (["alpha"], 0.9, "alpha"),
        (["alpha"], True, "alpha"),
        (["alpha_fail"], ..., "alpha_fail"),
        (["rules"], [], "rules"),
        (["rules"], ..., "rules"),
        (["rules"], "x", "rules"),
        (["ruels"], [], "policy.yaml"),
        (["rules", 0], "x", "rules[0]"),
        (["rules", 0, "margn"], 0.02, "rules[0]"),
        (["rules", 0, "margin"], float("nan"), "rules[0].margin"),
        (["rules", 0, "margin"], float("inf"), "rules[0].margin"),
        (["rules", 0, "margin"], 0, "rules[0].margin"),
        (["rules", 0, "margin"], -0.02, "rules[0].margin"),
        (["rules", 0, "margin"], "0.02", "rules[0].margin"),
        (["rules", 0, "margin"], ..., "rules[0]"),
        (["rules", 0, "max"], 0.1, "rules[0]"),
        (["rules", 0, "metric"], "acuracy_change", "rules[0].metric"),
        (["rules", 1, "metric"], "latency_ratio_b0", "rules[1].metric"),
        (["rules", 0, "kind"], "assert", "rules[0].kind"),
        (["rules", 0, "kind"], ..., "rules[0].kind"),
        (["rules", 0, "slices"], [], "rules[0].slices"),
        (["rules", 0, "slices"], ["a", "a"], "rules[0].slices"),
        (["rules", 0, "slices"], [3], "rules[0].slices"),
        (["rules", 0, "blocking"], "yes", "rules[0].blocking"),
        (["rules", 0, "reason"], ..., "rules[0].reason"),
        (["rules", 0, "id"], "Acc uracy", "rules[0].id"),
        (["rules", 1, "id"], "acc", "rules"),
        (["rules", 1, "max"], 1.0, "rules[1]"),
        (["rules", 0, "control_tolerance"], 0.1, "rules[0]"),
    ],
)
def test_wrong_policy_is_refused_by_key(path, value, where):
    with pytest.raises(PolicyError) as caught:
        parse_policy(_changed(path, value), METHODS)
    assert where in caught.value.where
    assert "policy.yaml" in caught.value.where


def test_advisory_rules_alone_are_no_policy():
    policy = copy.deepcopy(GOOD)
    for rule in policy["rules"]:
        rule["blocking"] = False
    with pytest.raises(PolicyError, match="blocking"):
        parse_policy(policy, METHODS)


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_policy_that_is_no_mapping_is_refused(value):
    with pytest.raises(PolicyError):
        parse_policy(value, METHODS)
