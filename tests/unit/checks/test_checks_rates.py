# SPDX-License-Identifier: Apache-2.0
"""Rates of one class against the rest, against scikit-learn, and what the judge makes of them."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from checks.decision import Outcome, decide
from checks.finding import Reason, Verdict
from checks.policy import parse_policy
from checks.rates import RatesCheck

CLASSES = ("a", "b", "c", "d")


def _draw(n, seed=0, right=(0.85, 0.8)):
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    models = [np.where(rng.random(n) < share, labels, rng.integers(0, 4, n)) for share in right]
    return labels, *models


def _measure(evidence):
    return {(entry.metric, entry.target): entry for entry in RatesCheck().measure(evidence)}


def _policy(**rule):
    rules = [{"id": "r", "kind": "bounded", "reason": "why", **rule}]
    raw = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": rules}
    return parse_policy(raw, RatesCheck().metrics)


def _judge(evidence, **rule):
    return decide([RatesCheck()], evidence, _policy(**rule), alpha=0.05)


def test_values_are_those_of_scikit_learn(decided):
    labels, before, after = _draw(600)
    found = _measure(decided(labels, before, after))
    recalls = [recall_score(labels, decisions, average=None) for decisions in (before, after)]
    precisions = [precision_score(labels, decisions, average=None) for decisions in (before, after)]
    false = []
    for decisions in (before, after):
        table = confusion_matrix(labels, decisions)
        false.append((table.sum(axis=0) - table.diagonal()) / (600 - table.sum(axis=1)))
    for position, name in enumerate(CLASSES):
        for metric, (first, second) in (
            ("recall", (entry[position] for entry in recalls)),
            ("false_positive_rate", (entry[position] for entry in false)),
        ):
            assert found[f"baseline_{metric}", name].value == pytest.approx(first)
            assert found[f"candidate_{metric}", name].value == pytest.approx(second)
            assert found[f"{metric}_change", name].value == pytest.approx(second - first)
        change = precisions[1][position] - precisions[0][position]
        assert found["precision_change", name].value == pytest.approx(change)
    f1 = [f1_score(labels, decisions, average="macro") for decisions in (before, after)]
    assert found["macro_f1_change", ""].value == pytest.approx(f1[1] - f1[0])
    assert f1[1] < f1[0]


def test_losses_and_gains_by_hand(decided):
    #          a     a     a     b     b     c
    labels = [0, 0, 0, 1, 1, 2]
    before = [0, 0, 1, 1, 1, 2]
    after_ = [0, 1, 0, 0, 1, 0]
    found = _measure(decided(labels, before, after_, classes=("a", "b", "c")))
    recall, false = found["recall_change", "a"], found["false_positive_rate_change", "a"]
    assert (recall.statistics, recall.n, recall.value) == ({"losses": 1, "gains": 1}, 3, 0)
    assert (false.statistics, false.n, false.value) == ({"losses": 2, "gains": 0}, 3, pytest.approx(2 / 3))
    assert false.harm == "rise"
    assert false.interval[1] > 0.9 > -false.interval[0]
    lost = found["recall_change", "c"]
    assert (lost.statistics, lost.value, lost.harm) == ({"losses": 1, "gains": 0}, -1, "fall")
    gone = found["false_positive_rate_change", "b"]
    assert (gone.statistics, gone.n, gone.value) == ({"losses": 1, "gains": 1}, 4, 0)


def test_swapped_models_swap_losses_and_gains(decided):
    labels, before, after = _draw(300)
    forth, back = _measure(decided(labels, before, after)), _measure(decided(labels, after, before))
    for key, entry in forth.items():
        other = back[key]
        if "losses" in entry.statistics:
            assert entry.statistics["losses"] == other.statistics["gains"]
        if key[0].endswith("_change"):
            assert entry.value == pytest.approx(-other.value)
            if entry.bounds is None:  # the jackknife deals other groups
                assert entry.interval == pytest.approx((-other.interval[1], -other.interval[0]))


@pytest.mark.parametrize("right", [(0.7, 0.5), (0.5, 0.7)])  # skewed either way
@pytest.mark.parametrize("target", ["a", ""])
def test_a_bound_is_the_textbook_jackknife_corrected_for_skewness(decided, target, right):
    labels, before, after = _draw(90, right=right)

    def statistic(kept):
        if target:
            first, second = (
                precision_score(labels[kept], decisions[kept], labels=[0], average=None)[0]
                for decisions in (before, after)
            )
        else:
            first, second = (
                f1_score(labels[kept], decisions[kept], average="macro") for decisions in (before, after)
            )
        return second - first

    everything = np.arange(90)
    without = np.array([statistic(np.delete(everything, leave)) for leave in everything])
    error = np.sqrt(89 / 90 * ((without - without.mean()) ** 2).sum())
    [entry] = [
        entry
        for (metric, about), entry in _measure(decided(labels, before, after)).items()
        if about == target and metric == ("precision_change" if target else "macro_f1_change")
    ]
    assert entry.statistics["standard_error"] == pytest.approx(error)
    assert entry.n == (min((before == 0).sum(), (after == 0).sum()) if target else 90)
    rarest = np.bincount(labels).min()
    assert entry.statistics["largest_harm"] == pytest.approx(1 if target else 2.5 * 90 / (4 * rarest))
    t = stats.t.ppf(0.975, 89)
    pseudo = 90 * entry.value - 89 * without
    # Johnson 1978: the third moment moves both ends; here it may only move them out.
    shift = stats.moment(pseudo, 3) / (6 * pseudo.var(ddof=1) * 90) * (1 + 2 * t * t)
    low, high = entry.value - t * error + min(shift, 0), entry.value + t * error + max(shift, 0)
    assert abs(shift) > 1e-4
    assert entry.bounds(0.025) == pytest.approx((low, high))
    assert entry.bounds(0.05) == entry.interval


def test_the_order_of_examples_changes_nothing(decided):
    labels, before, after = _draw(431)
    order = np.random.default_rng(5).permutation(431)
    first = RatesCheck().measure(decided(labels, before, after))
    second = RatesCheck().measure(decided(labels[order], before[order], after[order]))
    assert [entry.to_json() for entry in first] == [entry.to_json() for entry in second]


def test_fewer_than_ten_units_that_differ_have_no_bound(decided):
    labels = np.arange(2000) % 4
    after = labels.copy()
    after[:9] = (after[:9] + 1) % 4
    found = _measure(decided(labels, labels, after))
    entry = found["macro_f1_change", ""]
    assert entry.bounds(0.05) == (-np.inf, np.inf)
    assert entry.interval == (-1, 1)
    after[9] = 2
    assert np.isfinite(_measure(decided(labels, labels, after))["macro_f1_change", ""].bounds(0.05)).all()
    after[100:200] = np.where(after[100:200] < 2, 1 - after[100:200], after[100:200])
    found = _measure(decided(labels, labels, after))
    assert np.isfinite(found["precision_change", "b"].bounds(0.05)).all()
    assert found["precision_change", "d"].bounds(0.05) == (-np.inf, np.inf)  # others differ, of d too few
    [finding] = _judge(
        decided(labels, labels, after), metric="precision_change", classes=["d"], margin=0.05
    ).findings
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.reason is Reason.TOO_SMALL
    # Where none differs, harm to a few would have shown.
    [finding] = _judge(decided(labels, labels, labels), metric="macro_f1_change", margin=0.05).findings
    assert finding.verdict is Verdict.PASS
    few = np.arange(100) % 4
    [finding] = _judge(decided(few, few, few), metric="macro_f1_change", margin=0.05).findings
    assert finding.verdict is Verdict.INCONCLUSIVE


def test_a_precision_that_hangs_on_one_group_has_no_bound(decided):
    labels = np.arange(400) % 4
    after = labels.copy()
    after[labels == 3] = 0
    after[3] = 3  # one call of class d is left: without it precision does not exist
    entry = _measure(decided(labels, labels, after))["precision_change", "d"]
    assert entry.bounds(0.05) == (-np.inf, np.inf)
    assert "standard_error" not in entry.statistics


def test_what_does_not_exist_is_not_measured(decided):
    labels = np.arange(400) % 3  # nothing of class d
    after = labels.copy()
    after[:20] = 3
    evidence = decided(labels, labels, after)
    found = _measure(evidence)
    assert ("recall_change", "d") not in found
    assert ("precision_change", "d") not in found  # the baseline never calls it
    assert found["false_positive_rate_change", "d"].statistics == {"losses": 20, "gains": 0}
    assert _judge(evidence, metric="recall_change", margin=0.3, classes=["d"]).outcome is Outcome.ERROR
    decision = _judge(evidence, metric="candidate_recall", min=0.1)
    assert decision.outcome is Outcome.ERROR
    assert "overall for d" in decision.findings[-1].message


def test_frames_of_one_subject_are_one_unit(decided):
    labels, before, after = (np.repeat(entry, 10) for entry in _draw(80))
    found = _measure(decided(labels, before, after, units=[f"u{i // 10}" for i in range(800)]))
    assert sum(found["recall_change", name].n for name in CLASSES) == 80
    assert found["macro_f1_change", ""].n == 80
    assert found["false_positive_rate_change", "a"].n == 80 - found["recall_change", "a"].n


def test_harm_to_one_class_is_judged_there(decided):
    labels = np.arange(2000) % 4
    after = labels.copy()
    after[(labels == 1) & (np.arange(2000) < 400)] = 0
    evidence = decided(labels, labels, after)
    rule = {"metric": "recall_change", "margin": 0.05}
    verdicts = {finding.measurement.target: finding.verdict for finding in _judge(evidence, **rule).findings}
    assert verdicts == dict.fromkeys("acd", Verdict.PASS) | {"b": Verdict.FAIL}
    rule = {"metric": "false_positive_rate_change", "margin": 0.02}
    verdicts = {finding.measurement.target: finding.verdict for finding in _judge(evidence, **rule).findings}
    assert verdicts == dict.fromkeys("bcd", Verdict.PASS) | {"a": Verdict.FAIL}
    rule = {"metric": "precision_change", "margin": 0.1, "classes": ["a"]}
    assert _judge(evidence, **rule).findings[0].verdict is Verdict.FAIL
    assert _judge(evidence, metric="precision_change", margin=0.3, classes=["a"]).outcome is Outcome.PASSED
    assert _judge(evidence, metric="macro_f1_change", margin=0.03).outcome is Outcome.BLOCKED
    swapped = decided(labels, after, labels)
    assert _judge(swapped, metric="macro_f1_change", margin=0.03).outcome is Outcome.PASSED


def test_a_rare_class_asks_for_more_units_before_its_loss_could_be_seen(decided):
    """One class in five hundred may fail in full, and 3,000 units hold 6 of it: that proves nothing."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    labels[:6] = 3
    before, after = (np.where(rng.random(3000) < 0.99, labels, (labels + 1) % 3) for _ in range(2))
    [finding] = _judge(decided(labels, before, after), metric="macro_f1_change", margin=0.1).findings
    assert finding.measurement.bounds(0.05)[0] > -0.1
    assert finding.reason is Reason.TOO_SMALL
    [finding] = _judge(decided(labels, before, after), metric="precision_change", margin=0.2).findings[3:]
    assert finding.measurement.target == "d"
    assert finding.measurement.n <= 6
    assert finding.reason is Reason.TOO_SMALL


def test_rates_that_no_rule_asks_for_are_left_out(decided):
    labels, before, after = _draw(200)
    decision = _judge(decided(labels, before, after), metric="recall_change", margin=0.4, classes=["b"])
    assert [(entry.metric, entry.target) for entry in decision.measurements] == [
        ("recall_change", "b"),
        ("macro_f1_change", ""),
    ]
