# SPDX-License-Identifier: Apache-2.0
"""Calibration: the paired change of the Brier score, its bounds, and what the judge makes of it."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from checks.calibration import CalibrationCheck
from checks.decision import Outcome, decide
from checks.finding import Reason, Verdict
from checks.policy import parse_policy
from checks.statistics.resampling import bootstrap_t_lower, bootstrap_t_upper


def _measure(evidence):
    return {str(entry.slice): entry for entry in CalibrationCheck().measure(evidence)}


@pytest.fixture
def scored(decided, vary):
    """Evidence on which the candidate answers the baseline's logits times `factor`, plus noise."""

    def build(n=900, factor=1.0, noise=0.0, seed=0, **keys):
        rng = np.random.default_rng(seed)
        logits = 2 * rng.normal(size=(n, 4))
        truth = softmax(logits, axis=1).cumsum(axis=1)
        labels = np.minimum((rng.random((n, 1)) > truth).sum(axis=1), 3)  # calibrated at factor 1
        light = np.where(np.arange(n) % 3 == 0, "dim", "bright")
        evidence = decided(labels, labels, labels, columns={"light": light}, **keys)
        candidate = factor * logits + noise * rng.normal(size=(n, 4))
        return vary(
            evidence,
            baseline=vary(evidence.baseline, scores=logits.astype(np.float32)),
            candidate=vary(evidence.candidate, scores=candidate.astype(np.float32)),
        )

    return build


def _rises(evidence):
    truth = np.eye(4)[evidence.examples.labels]
    before, after = (
        ((softmax(model.scores.astype(float), axis=1) - truth) ** 2).sum(axis=1)
        for model in (evidence.baseline, evidence.candidate)
    )
    return after - before


def test_values_are_the_mean_squared_distance(scored):
    evidence = scored(factor=4)
    rises, found = _rises(evidence), _measure(evidence)
    dim = evidence.examples.columns["light"] == "dim"
    assert found["overall"].value == pytest.approx(rises.mean())
    assert found["light=dim"].value == pytest.approx(rises[dim].mean())
    assert found["light=dim"].n == dim.sum()
    assert set(found) == {"overall", "light=dim", "light=bright", *(f"label={name}" for name in "abcd")}
    assert found["overall"].harm == "rise"
    assert found["overall"].value > 0.02  # over-confidence is a rise, and a rise is harm
    assert found["overall"].statistics == {"largest_harm": 2, "differing": 900}


def test_bounds_are_bootstrap_t_and_never_percentiles(scored):
    evidence = scored(factor=2, noise=0.5)
    rises, entry = _rises(evidence), _measure(evidence)["overall"]
    for alpha in (0.05, 0.025):
        low, high = entry.bounds(alpha)
        error = rises.std(ddof=1) / np.sqrt(len(rises))
        reach = stats.t.ppf(1 - alpha, len(rises) - 1) * error
        # Skewness moves both ends the same way, and not far with 900 units.
        assert (low, high) == pytest.approx((rises.mean() - reach, rises.mean() + reach), abs=0.3 * error)
    assert entry.interval == entry.bounds(0.05)
    assert entry.bounds(0.01)[1] > entry.bounds(0.05)[1] > entry.value > entry.bounds(0.05)[0]
    same = bootstrap_t_upper(rises, 0.05, 20_242).value
    assert entry.bounds(0.05)[1] == pytest.approx(same)
    assert entry.bounds(0.05)[0] == pytest.approx(bootstrap_t_lower(rises, 0.05, 20_242).value)


def test_levels_too_small_to_resample_for_use_the_jackknife(scored):
    evidence = scored(factor=3)
    rises, entry = _rises(evidence), _measure(evidence)["overall"]
    error = rises.std(ddof=1) / np.sqrt(len(rises))
    low, high = entry.bounds(1e-4)
    reach = stats.t.ppf(1 - 1e-4, 99) * error
    assert (low, high) == pytest.approx((rises.mean() - reach, rises.mean() + reach), abs=error)
    assert low < entry.bounds(1e-3)[0]


def test_the_same_evidence_gives_the_same_bounds(scored):
    first, second = (_measure(scored(factor=3))["overall"] for _ in range(2))
    assert first.bounds(0.05) == second.bounds(0.05)
    assert first.to_json() == second.to_json()


def test_the_order_of_examples_changes_no_bound(scored, vary):
    evidence = scored(factor=3)
    order = np.random.default_rng(1).permutation(900)
    examples = evidence.examples
    columns = {"light": examples.columns["light"][order]}
    ids, labels = examples.ids[order], examples.labels[order]
    shuffled = vary(evidence, examples=vary(examples, ids=ids, units=ids, labels=labels, columns=columns))
    first, second = _measure(evidence)["overall"], _measure(shuffled)["overall"]
    for alpha in (0.05, 1e-4):
        assert first.bounds(alpha) == second.bounds(alpha)


def test_swapped_models_swap_the_sign(scored, vary):
    evidence = scored(factor=3)
    back = vary(evidence, baseline=evidence.candidate, candidate=evidence.baseline)
    first, second = _measure(evidence)["overall"], _measure(back)["overall"]
    assert first.value == pytest.approx(-second.value)
    assert first.interval == pytest.approx((-second.interval[1], -second.interval[0]))


def test_fewer_than_ten_units_that_differ_have_no_bound(scored, vary):
    evidence = scored()
    scores = evidence.baseline.scores.copy()
    scores[:9] *= 5
    found = _measure(vary(evidence, candidate=vary(evidence.candidate, scores=scores)))
    assert found["overall"].bounds(0.05) == (-np.inf, np.inf)
    assert found["overall"].bounds(1e-6) == (-np.inf, np.inf)
    assert found["overall"].interval == (-2, 2)


def test_equal_models_pass_once_harm_to_a_few_would_have_shown(scored, vary):
    evidence = scored(factor=1)
    entry = _measure(evidence)["overall"]
    assert entry.value == 0
    # 2 (1 - 0.05^(1/900)): were the rise larger, a unit would differ with probability 0.95.
    assert entry.bounds(0.05)[1] == pytest.approx(2 * (1 - 0.05 ** (1 / 900)))
    assert entry.bounds(0.05)[0] == -entry.bounds(0.05)[1]


def test_probabilities_are_taken_as_they_are(scored, vary):
    evidence = scored(factor=2)
    answers = [
        vary(model, scores=softmax(model.scores, axis=1), output="probabilities")
        for model in (evidence.baseline, evidence.candidate)
    ]
    same = _measure(vary(evidence, baseline=answers[0], candidate=answers[1]))["overall"]
    assert same.value == pytest.approx(_measure(evidence)["overall"].value, abs=1e-6)


def test_frames_of_one_subject_are_one_unit(scored):
    assert _measure(scored(units=[f"u{i // 9}" for i in range(900)]))["overall"].n == 100


def _judge(evidence, **rule):
    rules = [{"id": "r", "kind": "bounded", "metric": "brier_change", "reason": "why", **rule}]
    raw = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": rules}
    policy = parse_policy(raw, CalibrationCheck().metrics)
    return decide([CalibrationCheck()], evidence, policy, alpha=policy.alpha)


def test_over_confidence_is_blocked_where_accuracy_is_equal(scored):
    # 4 times the logits, the same argmax.
    [finding] = _judge(scored(factor=4), margin=0.02).findings
    assert finding.verdict is Verdict.FAIL
    assert _judge(scored(factor=1, noise=0.02), margin=0.02).outcome is Outcome.PASSED


def test_a_rare_total_failure_needs_enough_units_to_be_seen(scored):
    """ln(.05) / ln(1 - .01 / 2) is 598."""
    few, enough = scored(597, noise=0.02), scored(598, noise=0.02)
    [finding] = _judge(few, margin=0.01).findings
    assert finding.reason is Reason.TOO_SMALL
    assert "598" in finding.message
    assert _judge(enough, margin=0.01).outcome is Outcome.PASSED
