# SPDX-License-Identifier: Apache-2.0
"""Combinations of attributes: each a level of its own, and none that two could be taken for."""

import numpy as np
import pytest

from checks.crossing import cross
from checks.decision import decide
from checks.errors import PolicyError
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


@pytest.mark.parametrize("crossing", ["sex*agee", "sex*sex"])
def test_what_does_not_exist_is_named_with_its_rule(decided, crossing):
    rules = [
        {"id": "first", "kind": "bounded", "metric": "accuracy_change", "margin": 0.05, "reason": "why"},
        {"id": "second", "kind": "bounded", "metric": "accuracy_change", "margin": 0.05, "reason": "why"},
    ]
    rules[1]["slices"] = [crossing]
    raw = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": rules}
    policy = parse_policy(raw, metrics_of(built_in_checks()), "other.yaml")
    evidence = _columns(decided, sex=["f", "m"] * 50, age=["y", "o"] * 50)
    with pytest.raises(PolicyError) as caught:
        decide(built_in_checks(), evidence, policy, finalists=1)
    assert caught.value.where == "other.yaml rules[1].slices"
