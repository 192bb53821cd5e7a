# SPDX-License-Identifier: Apache-2.0
"""Flips: their rates, where they concentrate, and the examples that show them."""

import json

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from checks.decision import Outcome, decide
from checks.finding import Verdict
from checks.flips import FlipsCheck, most_changed
from checks.policy import parse_policy

CLASSES = ("a", "b", "c", "d")


def _measure(evidence):
    return {(e.metric, str(e.slice), e.target): e for e in FlipsCheck().measure(evidence)}


def _judge(evidence, *rules):
    rows = [{"id": f"r{index}", "reason": "why", **rule} for index, rule in enumerate(rules)]
    raw = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": rows}
    return decide([FlipsCheck()], evidence, parse_policy(raw, FlipsCheck().metrics), alpha=0.05)


def test_rates_by_hand(decided):
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    before = [0, 0, 1, 2, 1, 1, 0, 0]
    after_ = [0, 1, 0, 3, 1, 0, 0, 3]
    light = ["dim"] * 4 + ["bright"] * 4
    found = _measure(decided(labels, before, after_, columns={"light": light}))

    def counts(where):
        return [
            found[metric, where, ""].statistics["successes"]
            for metric in ("flip_rate", "loss_rate", "both_wrong_flip_rate")
        ]

    assert counts("overall") == [5, 2, 2]
    assert counts("light=dim") == [3, 1, 1]
    assert counts("light=bright") == [2, 1, 1]
    assert counts("label=a") == [3, 1, 1]
    entry = found["loss_rate", "overall", ""]
    assert (entry.value, entry.n) == (0.25, 8)
    assert entry.interval == pytest.approx(proportion_confint(2, 8, alpha=0.1, method="beta"))
    swapped = _measure(decided(labels, after_[:7] + [0], before))
    assert swapped["loss_rate", "overall", ""].statistics["successes"] == 1


@pytest.fixture
def concentrated(decided):
    """1,200 examples of which a third is dim; 12 of its 25 losses, and no more of the others' share."""
    labels = np.arange(1200) % 4
    light = np.where(np.arange(1200) < 240, "dim", "bright")
    before, after = labels.copy(), labels.copy()
    before[100:130] = (labels[100:130] + 1) % 4
    after[100:130] = before[100:130]
    after[:12] = (labels[:12] + 1) % 4
    after[600:613] = (labels[600:613] + 2) % 4
    return decided(labels, before, after, columns={"light": light})


def test_loss_concentration_is_fishers_exact_test(concentrated):
    found = _measure(concentrated)
    dim, bright = (
        found["loss_concentration", "light=dim", ""],
        found["loss_concentration", "light=bright", ""],
    )
    table = [[12, 210 - 12], [13, 960 - 13]]
    assert dim.statistics["p"] == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)
    assert bright.statistics["p"] == pytest.approx(stats.fisher_exact(table, alternative="less").pvalue)
    assert dim.statistics["p"] < 0.001 < 0.9 < bright.statistics["p"]
    assert dim.value == pytest.approx((12 / 210) / (13 / 960))
    assert bright.value == pytest.approx(1 / dim.value)
    interval = confint_proportions_2indep(12, 210, 13, 960, compare="ratio", method="score", alpha=0.1)
    assert dim.interval == pytest.approx(interval, rel=1e-3)
    assert (dim.n, bright.n) == (240, 960)


def test_the_screen_alarms_where_losses_concentrate_and_nowhere_else(concentrated):
    bound = {"kind": "bounded", "metric": "flip_rate", "max": 0.1}
    screen = {"kind": "screen", "metric": "loss_concentration", "slices": ["light", "label"], "alarm": 0.01}
    decision = _judge(concentrated, bound, screen)
    verdicts = {str(f.measurement.slice): f.verdict for f in decision.findings if f.rule.kind == "screen"}
    assert verdicts.pop("light=dim") is Verdict.FAIL
    assert set(verdicts.values()) == {Verdict.NO_FINDING}
    assert decision.outcome is Outcome.BLOCKED


def test_no_flips_are_no_finding(decided):
    labels = np.arange(400) % 4
    evidence = decided(labels, labels, labels, columns={"light": np.where(labels % 2, "dim", "even")})
    found = _measure(evidence)
    screens = [e for e in found.values() if e.metric.endswith("concentration")]
    assert len(screens) == 2 + 4 + 4
    assert {entry.statistics["p"] for entry in screens} == {1}
    decision = _judge(
        evidence,
        {"kind": "bounded", "metric": "flip_rate", "max": 0.01},
        {"kind": "screen", "metric": "loss_concentration", "slices": ["light", "label"], "alarm": 0.01},
        {"kind": "screen", "metric": "flip_target_concentration", "alarm": 0.01},
    )
    assert decision.outcome is Outcome.PASSED


def test_a_ratio_without_losses_outside_is_capped(decided):
    labels = np.arange(400) % 4
    after = np.where((labels == 2) & (np.arange(400) < 80), 3, labels)
    entry = _measure(decided(labels, labels, after))["loss_concentration", "label=c", ""]
    assert entry.value == entry.interval[1] == 1000
    assert 1 < entry.interval[0] < 1000
    assert entry.statistics["losses"] == 20


def test_a_slice_with_nothing_to_lose_is_no_finding(decided):
    labels = np.arange(400) % 4
    before = np.where(labels == 2, 3, labels)
    entry = _measure(decided(labels, before, before))["loss_concentration", "label=c", ""]
    assert (entry.value, entry.statistics["p"], entry.statistics["right"], entry.n) == (1, 1, 0, 100)


def _with_runner_up(evidence, vary, second):
    """Give the baseline a second choice, one below its first."""
    scores = evidence.baseline.scores.copy()
    scores[np.arange(len(scores)), second] += 3
    return vary(evidence, baseline=vary(evidence.baseline, scores=scores))


def test_target_concentration_compares_with_runner_ups(decided, vary):
    labels = np.arange(400) % 4
    after = labels.copy()
    flipped = np.flatnonzero(labels != 1)[:30]
    after[flipped[:20]] = 1
    after[flipped[20:]] = (labels[flipped[20:]] + 2) % 4
    evidence = decided(labels, labels, after)
    into = [int((after[flipped] == target).sum()) for target in range(4)]
    neighbours = _with_runner_up(evidence, vary, np.where(labels == 1, 0, 1))
    strangers = _with_runner_up(evidence, vary, (labels + 2) % 4)
    for subject, second in ((neighbours, np.where(labels == 1, 0, 1)), (strangers, (labels + 2) % 4)):
        found = _measure(subject)
        for position, name in enumerate(CLASSES):
            entry = found["flip_target_concentration", "overall", name]
            share = (second[flipped] == position).mean()
            p = stats.binomtest(into[position], 30, 0.5 * share + 0.05, alternative="greater").pvalue
            assert entry.statistics["p"] == pytest.approx(p)
            assert entry.statistics["expected_share"] == pytest.approx(share)
            assert entry.value == pytest.approx(into[position] / 30)
            interval = proportion_confint(into[position], 30, alpha=0.1, method="beta")
            assert entry.interval == pytest.approx(interval)
    bound = {"kind": "bounded", "metric": "flip_rate", "max": 0.2}
    screen = {"kind": "screen", "metric": "flip_target_concentration", "alarm": 0.01}
    assert [
        f.measurement.target for f in _judge(strangers, bound, screen).findings if f.verdict is Verdict.FAIL
    ] == ["b"]


def test_frames_of_one_subject_are_one_unit(decided):
    labels = np.repeat(np.arange(60) % 4, 5)
    after = np.where(np.arange(300) < 50, (labels + 1) % 4, labels)
    found = _measure(decided(labels, labels, after, units=[f"u{i // 5}" for i in range(300)]))
    assert found["flip_rate", "overall", ""].statistics["successes"] == 10
    assert found["loss_concentration", "label=a", ""].statistics["losses_all"] == 10
    assert found["flip_target_concentration", "overall", "a"].statistics["flips"] == 10


def test_most_changed_are_the_largest_falls_of_the_margin(decided, vary):
    labels = [0, 0, 0, 0, 1, 1]
    before = [0, 0, 0, 0, 0, 1]
    after_ = [1, 2, 0, 0, 1, 3]
    evidence = decided(labels, before, after_)
    scores = evidence.candidate.scores.copy()
    scores[0] = [1, 2, 0, 0]  # margin 4 -> -1
    scores[1] = [1, 0, 9, 0]  # margin 4 -> -8
    scores[4] = [0, 3, 0, 0]  # margin -4 -> 3: a gain is a change, too
    scores[5] = [0, 1, 0, 2]  # margin 4 -> -1, a tie with the first
    evidence = vary(evidence, candidate=vary(evidence.candidate, scores=scores))
    rows = most_changed(evidence)
    assert rows == [
        {"id": "x00001", "label": "a", "baseline": "a", "candidate": "c", "margin_change": -12.0},
        {"id": "x00000", "label": "a", "baseline": "a", "candidate": "b", "margin_change": -5.0},
        {"id": "x00005", "label": "b", "baseline": "b", "candidate": "d", "margin_change": -5.0},
        {"id": "x00004", "label": "b", "baseline": "a", "candidate": "b", "margin_change": 7.0},
    ]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert most_changed(evidence, 2) == rows[:2]
    assert most_changed(evidence, 0) == []
    assert most_changed(decided(labels, before, before)) == []


def test_most_changed_joins_by_id_and_withstands_huge_scores(decided, vary):
    labels = np.arange(12) % 4
    evidence = decided(labels, labels, (labels + 1) % 4)
    scores = (evidence.candidate.scores - 2) * np.float32(1.5e38)
    evidence = vary(evidence, candidate=vary(evidence.candidate, scores=scores))
    order = np.random.default_rng(0).permutation(12)
    shuffled = vary(
        evidence, candidate=vary(evidence.candidate, ids=evidence.candidate.ids[order], scores=scores[order])
    )
    assert most_changed(shuffled) == most_changed(evidence)
    assert most_changed(evidence)[0]["margin_change"] == pytest.approx(-6e38)
    assert json.dumps(most_changed(evidence), allow_nan=False)
