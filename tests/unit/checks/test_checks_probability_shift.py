# SPDX-License-Identifier: Apache-2.0
"""How far probabilities moved: by hand, within its bounds, and another model is told from a compressed one."""

import numpy as np
import pytest
from scipy.special import softmax

from checks.decision import decide
from checks.evidence import Scores
from checks.policy import parse_policy
from checks.probability_shift import ProbabilityShiftCheck


def _with(evidence, vary, baseline, candidate, output="logits"):
    good = evidence(len(baseline))
    ids = good.examples.ids
    return vary(
        good,
        baseline=Scores(ids, baseline.astype(np.float32), output),
        candidate=Scores(ids, candidate.astype(np.float32), output),
    )


def _measured(evidence):
    return {str(entry.slice): entry for entry in ProbabilityShiftCheck().measure(evidence)}


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_it_is_the_mean_total_variation_distance(evidence, vary, output):
    random = np.random.default_rng(1)
    before, after = random.normal(size=(2, 900, 4)) * 3
    first, second = softmax(before, axis=1), softmax(after, axis=1)
    given = (before, after) if output == "logits" else (first, second)
    made = _with(evidence, vary, *given, output)
    found = _measured(made)
    # The largest difference of the probability of any of the 16 events.
    events = [[bool(code >> bit & 1) for bit in range(4)] for code in range(16)]
    largest = np.max([np.abs(first[:, event].sum(1) - second[:, event].sum(1)) for event in events], axis=0)
    assert found["overall"].value == pytest.approx(largest.mean(), abs=1e-6)
    dim = made.examples.columns["light"] == "dim"
    assert found["light=dim"].value == pytest.approx(largest[dim].mean(), abs=1e-6)
    low, high = found["overall"].interval
    assert low < found["overall"].value < high
    reach = 1.645 * largest.std() / 30
    assert high - found["overall"].value == pytest.approx(reach, rel=0.1)


def test_certain_answers_that_swap_are_as_far_as_can_be(evidence, vary):
    one = np.eye(4)[np.arange(40) % 4]
    found = _measured(_with(evidence, vary, one, one[:, [1, 0, 3, 2]], "probabilities"))["overall"]
    assert found.value == 1
    assert found.interval[1] == 1


def _verdict(evidence, margin):
    rule = {"id": "r", "kind": "bounded", "metric": "probability_shift", "margin": margin, "reason": "why"}
    check = ProbabilityShiftCheck()
    policy = parse_policy(
        {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": [rule]}, check.metrics
    )
    [finding] = decide([check], evidence, policy, alpha=policy.alpha).findings
    return str(finding.verdict)


def test_a_model_that_answers_otherwise_is_told_where_no_decision_changed(evidence, vary):
    random = np.random.default_rng(2)
    before = np.eye(4)[np.arange(900) % 4] * 4 + random.normal(size=(900, 4)) * 0.3
    near, far = before + random.normal(size=(2, 900, 4)) * np.array([0.1, 1.0])[:, None, None]
    far[:, 0] += 4 * (far.argmax(1) == 0)
    same = _with(evidence, vary, before, before)
    assert _verdict(same, 0.02) == "PASS"
    assert _verdict(_with(evidence, vary, before, near), 0.02) == "PASS"
    assert _verdict(_with(evidence, vary, before, far), 0.02) == "FAIL"


def test_equal_models_on_few_examples_prove_nothing(evidence, vary):
    one = np.eye(4)[np.arange(100) % 4]
    assert _verdict(_with(evidence, vary, one, one), 0.02) == "INCONCLUSIVE"
    assert _verdict(_with(evidence, vary, one, one), 0.03) == "PASS"  # 0.97^100 < 0.05
