# SPDX-License-Identifier: Apache-2.0
"""Sensitivity and specificity at the thresholds of a policy, against scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import recall_score

from checks.decision import Outcome, decide
from checks.errors import PolicyError
from checks.finding import Verdict
from checks.measurement import OVERALL, Slice
from checks.operating_point import OperatingPointCheck
from checks.policy import OperatingPoint, parse_policy

POINT = OperatingPoint("screening", "b", 0.3, "why")


def _measure(evidence, *points):
    return {
        (entry.metric, str(entry.slice), entry.target): entry
        for entry in OperatingPointCheck(points).measure(evidence)
    }


@pytest.fixture
def scored(decided, vary):
    """Evidence of random scores, 4 classes."""

    def build(n=400, seed=0, **keys):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 4, n)
        evidence = decided(labels, labels, labels, **keys)
        models = [(2 * np.eye(4)[labels] + rng.normal(size=(n, 4))).astype(np.float32) for _ in range(2)]
        baseline, candidate = (vary(evidence.baseline, scores=scores) for scores in models)
        return vary(evidence, baseline=baseline, candidate=candidate)

    return build


def test_values_are_those_of_scipy_and_scikit_learn(scored):
    light = np.where(np.arange(400) % 3 == 0, "dim", "bright")
    evidence = scored(columns={"light": light})
    found = _measure(evidence, POINT, OperatingPoint("other", "d", 0.6, "why"))
    for name, column, threshold in (("screening", 1, 0.3), ("other", 3, 0.6)):
        for where, rows in (("overall", light != ""), ("light=dim", light == "dim")):
            truth = evidence.examples.labels[rows] == column
            before, after = (
                softmax(model.scores[rows].astype(float), axis=1)[:, column] >= threshold
                for model in (evidence.baseline, evidence.candidate)
            )
            for rate, positive, members in (("sensitivity", 1, truth), ("specificity", 0, ~truth)):
                first, second = (recall_score(truth, calls, pos_label=positive) for calls in (before, after))
                assert found[f"baseline_{rate}", where, name].value == pytest.approx(first)
                assert found[f"candidate_{rate}", where, name].value == pytest.approx(second)
                change = found[f"{rate}_change", where, name]
                assert change.value == pytest.approx(second - first)
                assert change.n == members.sum()
                hit = (before, after) if positive else (~before, ~after)
                assert change.statistics["losses"] == (hit[0] & ~hit[1] & members).sum()
                assert change.harm == "fall"


def test_a_threshold_is_no_argmax(decided, vary):
    """Calling b at .3 may leave a with the highest score, and still is a call."""
    evidence = decided([1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0])
    scores = np.log(
        np.array([[0.6, 0.38, 0.01, 0.01], [0.7, 0.28, 0.01, 0.01], [0.69, 0.3, 0.005, 0.005], [1, 0, 0, 0]])
        + 1e-9
    )
    evidence = vary(evidence, candidate=vary(evidence.candidate, scores=scores.astype(np.float32)))
    found = _measure(evidence, POINT)
    assert found["candidate_sensitivity", "overall", "screening"].value == 0.5
    assert found["sensitivity_change", "overall", "screening"].statistics == {"losses": 1, "gains": 0}
    assert found["sensitivity_change", "overall", "screening"].value == -0.5
    lower = _measure(evidence, OperatingPoint("screening", "b", 0.299, "why"))
    assert lower["candidate_specificity", "overall", "screening"].value == 0.5
    assert lower["specificity_change", "overall", "screening"].value == -0.5


def test_at_the_threshold_the_class_is_called(decided, vary):
    evidence = decided([1, 1, 0], [1, 1, 0], [1, 1, 0])
    scores = np.array([[7, 7, -2000, -2000], [7, 6.999, -2000, -2000], [9, 0, 0, 0]], np.float32)
    evidence = vary(evidence, candidate=vary(evidence.candidate, scores=scores))
    found = _measure(evidence, OperatingPoint("even", "b", 0.5, "why"))
    assert found["candidate_sensitivity", "overall", "even"].value == 0.5


def test_probabilities_are_taken_as_they_are(decided, vary):
    evidence = decided([1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0])
    rows = np.array([[0.5, 0.5, 0, 0], [0.8, 0.2, 0, 0], [0.6, 0.4, 0, 0], [0.9, 0.1, 0, 0]], np.float32)
    model = vary(evidence.baseline, scores=rows, output="probabilities")
    found = _measure(vary(evidence, baseline=model, candidate=model), POINT)
    assert found["candidate_sensitivity", "overall", "screening"].value == 0.5
    assert found["candidate_specificity", "overall", "screening"].value == 0.5
    # As logits they are all near a quarter.
    model = vary(evidence.baseline, scores=rows)
    found = _measure(vary(evidence, baseline=model, candidate=model), POINT)
    assert found["candidate_sensitivity", "overall", "screening"].value == 0.5
    assert found["candidate_specificity", "overall", "screening"].value == 1


def test_huge_scores_are_no_overflow(decided, vary):
    evidence = decided([1, 0], [1, 0], [1, 0])
    scores = np.array([[-3e38, 3e38, 0, 0], [3e38, -3e38, 0, 0]], np.float32)
    found = _measure(vary(evidence, candidate=vary(evidence.candidate, scores=scores)), POINT)
    assert found["candidate_sensitivity", "overall", "screening"].value == 1
    assert found["candidate_specificity", "overall", "screening"].value == 1


def test_slices_without_such_examples_are_not_measured(scored):
    found = _measure(scored(), POINT)
    assert ("sensitivity_change", "label=b", "screening") in found
    assert ("sensitivity_change", "label=a", "screening") not in found
    assert ("specificity_change", "label=b", "screening") not in found
    assert {entry.slice for entry in found.values()} >= {OVERALL, Slice("label", "a")}


def test_a_subject_with_one_positive_frame_is_a_positive_unit(scored):
    # 100 subjects of 4 frames; each may show several classes.
    evidence = scored(units=[f"u{i // 4}" for i in range(400)])
    positive = set((np.flatnonzero(evidence.examples.labels == 1) // 4).tolist())
    negative = set((np.flatnonzero(evidence.examples.labels != 1) // 4).tolist())
    found = _measure(evidence, POINT)
    assert found["sensitivity_change", "overall", "screening"].n == len(positive)
    assert found["specificity_change", "overall", "screening"].n == len(negative)
    assert len(positive) + len(negative) > 150


def test_an_unknown_class_is_the_policys_error(scored):
    with pytest.raises(PolicyError, match="'melanoma'") as caught:
        _measure(scored(), OperatingPoint("lesion", "melanoma", 0.3, "why"))
    assert "lesion" in caught.value.where


def test_without_points_nothing_is_measured_and_nothing_may_be_asked(scored):
    check = OperatingPointCheck()
    assert list(check.measure(scored())) == []
    raw = _raw(metric="sensitivity_change", margin=0.1)
    del raw["operating_points"]
    with pytest.raises(PolicyError, match="operating points"):
        parse_policy(raw, check.metrics)


def _raw(**rule):
    return {
        "version": 1,
        "name": "p",
        "alpha": 0.05,
        "alpha_fail": 0.05,
        "operating_points": [{"name": "screening", "class": "b", "threshold": 0.3, "reason": "why"}],
        "rules": [{"id": "r", "kind": "bounded", "reason": "why", **rule}],
    }


def test_lost_sensitivity_is_blocked_where_accuracy_gained(decided):
    labels = np.arange(2000) % 4
    before, after = labels.copy(), labels.copy()
    after[(labels == 1) & (np.arange(2000) < 300)] = 0
    before[(labels == 2) & (np.arange(2000) < 600)] = 3
    evidence = decided(labels, before, after)

    def verdict(**rule):
        policy = parse_policy(_raw(**rule), OperatingPointCheck().metrics)
        check = OperatingPointCheck(policy.operating_points)
        return decide([check], evidence, policy, alpha=policy.alpha)

    assert verdict(metric="sensitivity_change", margin=0.05).findings[0].verdict is Verdict.FAIL
    assert verdict(metric="specificity_change", margin=0.05).outcome is Outcome.PASSED
    assert verdict(metric="candidate_sensitivity", min=0.9).outcome is Outcome.BLOCKED
    assert verdict(metric="baseline_sensitivity", min=0.9).outcome is Outcome.PASSED
    assert verdict(metric="candidate_specificity", min=0.99).outcome is Outcome.PASSED
