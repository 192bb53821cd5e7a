# SPDX-License-Identifier: Apache-2.0
"""A policy file is read whole and strictly, or refused by file and key."""

import copy

import pytest

from checks.errors import PolicyError
from checks.policy import parse_policy
from checks.protocol import built_in_checks, metrics_of

METHODS = metrics_of(built_in_checks())
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


EXTENDED = {
    **GOOD,
    "operating_points": [{"name": "screen", "class": "a", "threshold": 0.2, "reason": "why"}],
    "rules": [
        *GOOD["rules"],
        {"id": "recall", "kind": "bounded", "metric": "recall_change", "margin": 0.1, "reason": "why"},
        {"id": "sens", "kind": "bounded", "metric": "sensitivity_change", "margin": 0.1, "reason": "why"},
        {
            "id": "gap",
            "kind": "bounded",
            "metric": "true_positive_rate_gap",
            "slices": ["sex", "sex*age"],
            "max": 0.1,
            "reason": "why",
        },
        {
            "id": "screen",
            "kind": "screen",
            "metric": "loss_concentration",
            "slices": ["sex"],
            "alarm": 0.01,
            "reason": "why",
        },
        {"id": "memory", "kind": "bounded", "metric": "peak_memory_ratio", "max": 1.0, "reason": "why"},
    ],
}


def _extended(index, **changes):
    policy = copy.deepcopy(EXTENDED)
    for key, value in changes.items():
        if value is ...:
            policy["rules"][index].pop(key)
        else:
            policy["rules"][index][key] = value
    return policy


def test_classes_points_combinations_and_screens_are_read():
    policy = parse_policy(_extended(3, classes=["a", "b"], min_n=50) | {"checks": ["mine"]}, METHODS)
    rules = {rule.id: rule for rule in policy.rules}
    assert (rules["recall"].per, rules["recall"].targets, rules["recall"].min_n) == ("class", ("a", "b"), 50)
    assert (rules["sens"].per, rules["sens"].targets) == ("operating_point", ())
    assert rules["screen"].limit == "alarm"
    assert policy.crossings == ("sex*age",)
    assert policy.checks == ("mine",)
    point = policy.operating_points[0]
    assert (point.name, point.target, point.threshold) == ("screen", "a", 0.2)
    assert rules["acc"].min_n == 1


def test_only_what_has_a_control_needs_a_tolerance():
    rules = {rule.id: rule for rule in parse_policy(EXTENDED, METHODS).rules}
    assert rules["memory"].control_tolerance == 0.0
    with pytest.raises(PolicyError, match="control_tolerance"):
        parse_policy(_extended(7, control_tolerance=0.05), METHODS)


@pytest.mark.parametrize(
    ("index", "changes", "where"),
    [
        (0, {"classes": ["a"]}, "rules[0].classes"),
        (0, {"operating_points": ["screen"]}, "rules[0].operating_points"),
        (0, {"alarm": 0.01, "margin": ...}, "rules[0]"),
        # Where a metric is not measured, a rule would wait for ever.
        (1, {"slices": ["sex"]}, "rules[1].slices"),
        (2, {"slices": ["overall", "sex"]}, "rules[2].slices"),
        (3, {"slices": ["sex=f"]}, "rules[3].slices"),
        (6, {"slices": ...}, "rules[6].slices"),
        (6, {"slices": ["overall"]}, "rules[6].slices"),
        (7, {"slices": ["sex"]}, "rules[7].slices"),
        # No candidate could break these.
        (2, {"metric": "nonfinite_outputs", "max": ..., "min": 0}, "rules[2]"),
        (5, {"max": 1.0}, "rules[5].max"),
        (0, {"kind": "bounded", "metric": "flip_rate", "margin": ..., "max": 1.0}, "rules[0].max"),
        (0, {"kind": "bounded", "metric": "flip_rate", "margin": ..., "min": 0}, "rules[0].min"),
        (0, {"min_n": 0}, "rules[0].min_n"),
        (0, {"min_n": True}, "rules[0].min_n"),
        (0, {"min_n": 10.0}, "rules[0].min_n"),
        (2, {"min_n": 10}, "rules[2].min_n"),
        (3, {"classes": []}, "rules[3].classes"),
        (3, {"classes": ["a", "a"]}, "rules[3].classes"),
        (3, {"operating_points": ["screen"]}, "rules[3].operating_points"),
        (4, {"operating_points": ["other"]}, "rules[4].operating_points"),
        (5, {"slices": ...}, "rules[5].slices"),
        (5, {"slices": ["overall"]}, "rules[5].slices"),
        (5, {"slices": ["sex=female"]}, "rules[5].slices"),
        (5, {"min": 0.8}, "rules[5]"),
        (5, {"max": 0}, "rules[5].max"),
        (6, {"alarm": 0.2}, "rules[6].alarm"),
        (6, {"alarm": 0}, "rules[6].alarm"),
        (6, {"kind": "bounded"}, "rules[6].kind"),
        (6, {"alarm": ..., "max": 0.01}, "rules[6]"),
        (6, {"min_n": 10}, "rules[6].min_n"),
    ],
)
def test_a_wrong_use_of_a_rules_keys_is_refused_by_key(index, changes, where):
    with pytest.raises(PolicyError) as caught:
        parse_policy(_extended(index, **changes), METHODS)
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"name": "screen", "class": "a", "threshold": 0}, "threshold"),
        ({"name": "screen", "class": "a", "threshold": 1}, "threshold"),
        ({"name": "screen", "class": "a"}, "threshold"),
        ({"name": "screen", "threshold": 0.5}, "class"),
        ({"name": "screen", "class": "a", "threshold": 0.5, "treshold": 0.4}, "operating_points[0]"),
        ("screen", "operating_points[0]"),
    ],
)
def test_a_wrong_operating_point_is_refused_by_key(changes, where):
    point = {"reason": "why", **changes} if isinstance(changes, dict) else changes
    with pytest.raises(PolicyError) as caught:
        parse_policy({**EXTENDED, "operating_points": [point]}, METHODS)
    assert where in caught.value.where


def test_operating_points_are_named_once_and_declared():
    with pytest.raises(PolicyError, match="once"):
        parse_policy({**EXTENDED, "operating_points": EXTENDED["operating_points"] * 2}, METHODS)
    with pytest.raises(PolicyError, match="operating points"):
        parse_policy({**EXTENDED, "operating_points": []}, METHODS)


def test_a_proxy_may_be_shown_but_not_judged():
    rule = {
        "id": "energy",
        "kind": "bounded",
        "metric": "energy_proxy_ratio_b64",
        "max": 1.0,
        "reason": "why",
    }
    with pytest.raises(PolicyError, match="proxy"):
        parse_policy({**GOOD, "rules": [*GOOD["rules"], rule]}, METHODS)


def test_screens_alone_prove_nothing():
    policy = {**EXTENDED, "rules": [EXTENDED["rules"][6]]}
    with pytest.raises(PolicyError, match="proves something"):
        parse_policy(policy, METHODS)
