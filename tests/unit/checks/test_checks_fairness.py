# SPDX-License-Identifier: Apache-2.0
"""Fairness between groups, against fairlearn, scipy and statsmodels, and what the judge makes of it."""

import fairlearn.metrics as fairlearn
import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

from checks.decision import Outcome, decide
from checks.fairness import FairnessCheck, gap_of, ratio_of
from checks.finding import Reason, Verdict
from checks.measurement import Method
from checks.policy import parse_policy

RATES = {
    "selection_rate": fairlearn.selection_rate,
    "true_positive_rate": fairlearn.true_positive_rate,
    "false_positive_rate": fairlearn.false_positive_rate,
}
GROUPS = {"m": 0.55, "f": 0.3, "x": 0.15}


def _draw(n=1500, seed=0):
    """Labels, decisions of both models, and a group that the candidate treats worse than another."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(list(GROUPS), n, p=list(GROUPS.values()))
    labels = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    before = np.where(rng.random(n) < 0.9, labels, rng.integers(0, 3, n))
    right = np.select([sex == "m", sex == "f"], [0.95, 0.6], 0.8)
    after = np.where(rng.random(n) < right, labels, rng.integers(0, 3, n))
    return labels, before, after, sex


def _measure(evidence):
    return {(e.metric, e.slice.attribute, e.target): e for e in FairnessCheck().measure(evidence)}


@pytest.fixture
def unfair(decided):
    labels, before, after, sex = _draw()
    return decided(labels, before, after, columns={"sex": sex}, classes=("a", "b", "c"))


def _frame(function, position, decisions=None):
    labels, _, after, sex = _draw()
    decisions = after if decisions is None else decisions
    return fairlearn.MetricFrame(
        metrics=function, y_true=labels == position, y_pred=decisions == position, sensitive_features=sex
    )


@pytest.mark.parametrize("rate", list(RATES))
@pytest.mark.parametrize("position", range(3))
def test_rates_of_groups_are_those_of_fairlearn(unfair, rate, position):
    found = _measure(unfair)
    frame = _frame(RATES[rate], position)
    name = "abc"[position]
    gap, ratio = found[f"{rate}_gap", "sex", name], found[f"{rate}_ratio", "sex", name]
    for entry in (gap, ratio):
        rates = np.divide(entry.statistics["successes"], entry.statistics["n"])
        assert dict(zip(entry.levels, rates, strict=True)) == pytest.approx(frame.by_group.to_dict())
    first, second = gap.pair
    assert gap.value == pytest.approx(frame.by_group[first] - frame.by_group[second])
    assert gap.value >= 0
    # What fairlearn calls the difference is the largest; the worst bound may be another pair's.
    assert gap.value <= frame.difference() + 1e-12
    assert gap.interval[1] >= frame.difference()
    first, second = ratio.pair
    assert ratio.value == pytest.approx(frame.by_group[first] / frame.by_group[second])
    assert ratio.value >= frame.ratio() - 1e-12
    assert ratio.interval[0] <= frame.ratio()


def test_accuracy_of_groups_is_that_of_fairlearn(unfair):
    labels, _, after, sex = _draw()
    frame = fairlearn.MetricFrame(
        metrics=lambda truth, called: np.mean(truth == called),
        y_true=labels,
        y_pred=after,
        sensitive_features=sex,
    )
    found = _measure(unfair)
    assert found["accuracy_gap", "sex", ""].pair == ("m", "f")
    assert found["accuracy_gap", "sex", ""].value == pytest.approx(frame.difference())
    assert found["accuracy_ratio", "sex", ""].pair == ("f", "m")
    assert found["accuracy_ratio", "sex", ""].value == pytest.approx(frame.ratio())


def test_two_groups_and_two_classes_are_fairlearns_own_definitions(decided):
    labels, before, after, sex = _draw()
    kept = (labels < 2) & (sex != "x")
    labels, sex = labels[kept], sex[kept]
    before, after = before[kept] % 2, after[kept] % 2
    evidence = decided(labels, before, after, columns={"sex": sex}, classes=("no", "yes"))
    found = _measure(evidence)

    def of(function):
        return function(labels, after, sensitive_features=sex)

    value = {name: entry.value for (name, _, target), entry in found.items() if target == "yes"}
    assert value["selection_rate_gap"] == pytest.approx(of(fairlearn.demographic_parity_difference))
    assert value["selection_rate_ratio"] == pytest.approx(of(fairlearn.demographic_parity_ratio))
    assert value["true_positive_rate_gap"] == pytest.approx(of(fairlearn.equal_opportunity_difference))
    assert max(value["true_positive_rate_gap"], value["false_positive_rate_gap"]) == pytest.approx(
        of(fairlearn.equalized_odds_difference)
    )


@pytest.mark.parametrize("rate", list(RATES))
def test_what_compression_added_is_the_difference_of_fairlearns_gaps(unfair, rate):
    _, before, after, _ = _draw()
    found = _measure(unfair)
    for position, name in enumerate("abc"):
        entry = found[f"{rate}_change_gap", "sex", name]
        assert entry.method is Method.MOVER_TANGO
        change = (
            _frame(RATES[rate], position, after).by_group - _frame(RATES[rate], position, before).by_group
        )
        lost, gained, n = (np.array(entry.statistics[key]) for key in ("losses", "gains", "n"))
        # A false positive rate is harmed where it rises, the others where they fall.
        sign = -1 if rate == "false_positive_rate" else 1
        changes = dict(zip(entry.levels, sign * (gained - lost) / n, strict=True))
        assert changes == pytest.approx(change.to_dict())
        first, second = entry.pair
        assert entry.value == pytest.approx(sign * (change[second] - change[first]))
        assert entry.value > 0


def test_the_harmed_group_is_named_first(decided):
    """The vector of the specification: 6 losses and 1 gain of 100, 5 and 4 of 500."""
    labels = np.zeros(600, dtype=int)
    before, after = labels.copy(), labels.copy()
    after[:6], before[6] = 1, 1
    after[100:105], before[105:109] = 1, 1
    group = np.array(["harmed"] * 100 + ["other"] * 500)
    evidence = decided(labels, before, after, columns={"group": group})
    found = _measure(evidence)
    for metric in ("true_positive_rate_change_gap", "selection_rate_change_gap"):
        entry = found[metric, "group", "a"]
        assert entry.pair == ("harmed", "other")
        assert entry.interval[1] == pytest.approx(0.10256, abs=5e-6)
        assert entry.value == pytest.approx(5 / 100 - 1 / 500)
    # The same the other way round: what is a miss of class a is a false call of class b.
    entry = found["false_positive_rate_change_gap", "group", "b"]
    assert entry.pair == ("harmed", "other")
    assert entry.interval[1] == pytest.approx(0.10256, abs=5e-6)
    assert entry.statistics == {"losses": [6, 5], "gains": [1, 4], "n": [100, 500]}
    entry = found["selection_rate_change_gap", "group", "b"]  # b is selected more often there
    assert entry.pair == ("other", "harmed")


def _score(hits, n, difference):
    """Miettinen and Nurminen's statistic, the likelihood maximised by scipy.

    That of statsmodels 0.14 and 0.15 has a wrong coefficient (their issue 10269).
    """

    def against(rate):
        rates = np.array([rate, rate - difference])
        return -(hits * np.log(rates) + (n - hits) * np.log1p(-rates)).sum()

    bounds = (max(0, difference) + 1e-9, min(1, 1 + difference) - 1e-9)
    rate = optimize.minimize_scalar(against, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    rates = np.array([rate, rate - difference])
    variance = (rates * (1 - rates) / n).sum() * n.sum() / (n.sum() - 1)
    return (hits[0] / n[0] - hits[1] / n[1] - difference) / np.sqrt(variance)


def test_the_gap_shown_is_that_of_the_worst_pair():
    hits, n = np.array([40, 72, 9]), np.array([120, 150, 40])
    entry = gap_of("g", "sex", ("f", "m", "x"), hits, n)
    assert entry.pair == ("m", "x")
    assert entry.value == pytest.approx(72 / 150 - 9 / 40)
    low, high = entry.interval
    z = stats.norm.ppf(0.95)
    assert _score(hits[[1, 2]], n[[1, 2]], high) == pytest.approx(-z, abs=1e-5)
    assert _score(hits[[1, 2]], n[[1, 2]], low) == pytest.approx(z, abs=1e-5)
    for pair in ([0, 1], [1, 0], [0, 2], [2, 0], [2, 1]):
        assert _score(hits[pair], n[pair], high) < -z  # no other pair reaches this far


def test_the_ratio_shown_is_that_of_the_worst_pair():
    hits, n = np.array([40, 72, 9]), np.array([120, 150, 40])
    entry = ratio_of("r", "sex", ("f", "m", "x"), hits, n)
    assert entry.pair == ("x", "m")
    assert entry.value == pytest.approx((9 / 40) / (72 / 150))
    rates = hits / n
    lower, upper = proportion_confint(hits, n, alpha=0.1, method="wilson")

    def slack(g, h, ratio):
        return rates[g] - ratio * rates[h] - np.hypot(rates[g] - lower[g], ratio * (upper[h] - rates[h]))

    low, high = entry.interval
    assert slack(2, 1, low) == pytest.approx(0, abs=1e-9)  # Zou and Donner's quadratic
    assert slack(1, 2, 1 / high) == pytest.approx(0, abs=1e-9)
    for g, h in ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2)):
        assert slack(g, h, low) > 0
    none = ratio_of("r", "sex", ("f", "m"), np.array([0, 5]), np.array([50, 50]))
    assert (none.pair, none.value, none.interval[0]) == (("f", "m"), 0, 0)
    assert none.interval[1] < 1


def test_a_level_without_positives_is_never_fair(decided):
    labels, before, after, sex = _draw()
    labels = np.where(sex == "x", labels % 2, labels)
    evidence = decided(labels, labels, labels, columns={"sex": sex}, classes=("a", "b", "c"))
    entry = _measure(evidence)["true_positive_rate_gap", "sex", "c"]
    assert entry.statistics["n"][entry.levels.index("x")] == 0
    assert "x" not in entry.pair
    first = gap_of("g", "sex", ("f", "m", "x"), np.array([0, 9, 5]), np.array([0, 10, 10]))
    assert (first.pair, first.value) == (("m", "x"), pytest.approx(0.4))
    first = ratio_of("r", "sex", ("f", "m", "x"), np.array([0, 9, 5]), np.array([0, 10, 10]))
    assert (first.pair, first.value) == (("x", "m"), pytest.approx(5 / 9))
    [finding] = _judge(evidence, metric="true_positive_rate_gap", max=0.5, classes=["c"]).findings
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.reason is Reason.TOO_SMALL
    assert "at x" in finding.message
    [finding] = _judge(evidence, metric="true_positive_rate_ratio", min=0.1, classes=["c"]).findings
    assert finding.verdict is Verdict.INCONCLUSIVE
    [finding] = _judge(evidence, metric="true_positive_rate_gap", max=0.1, classes=["a"]).findings
    assert finding.verdict is Verdict.PASS


def test_one_known_level_or_none_is_no_comparison(decided):
    labels = np.arange(200) % 3
    sex = np.where(labels == 2, "m", np.where(np.arange(200) % 2, "m", "f"))
    found = _measure(decided(labels, labels, labels, columns={"sex": sex}))
    gap, ratio = found["true_positive_rate_gap", "sex", "c"], found["true_positive_rate_ratio", "sex", "c"]
    assert (gap.pair, gap.interval, ratio.pair, ratio.value) == (None, (-1, 1), None, 0)
    assert ("true_positive_rate_gap", "sex", "d") not in found  # no example anywhere
    assert found["selection_rate_gap", "sex", "d"].value == 0


def test_classes_and_single_levels_are_not_compared(decided):
    labels = np.arange(40) % 4
    one = {"site": np.full(40, "here"), "sex": np.where(np.arange(40) % 3, "m", "f")}
    assert {key[1] for key in _measure(decided(labels, labels, labels, columns=one))} == {"sex"}


def test_frames_of_one_subject_are_one_unit(decided):
    labels, before, after, sex = (np.repeat(entry, 5) for entry in _draw(200))
    found = _measure(
        decided(labels, before, after, columns={"sex": sex}, units=[f"u{i // 5}" for i in range(1000)])
    )
    assert found["accuracy_gap", "sex", ""].n == 200
    assert sum(found["true_positive_rate_gap", "sex", name].n for name in "abc") == 200
    assert found["selection_rate_gap", "sex", "a"].n == 200


def test_a_subject_with_one_positive_frame_counts_for_the_true_positive_rate(decided):
    # 100 subjects of 4 frames, one frame of each class: whichever is drawn, each class has 100 units.
    labels = np.arange(400) % 4
    sex = np.where(np.arange(400) < 200, "f", "m")
    units = [f"u{i // 4}" for i in range(400)]
    found = _measure(decided(labels, labels, labels, columns={"sex": sex}, units=units))
    assert found["true_positive_rate_gap", "sex", "a"].statistics["n"] == [50, 50]
    assert found["accuracy_gap", "sex", ""].statistics["n"] == [50, 50]


def _judge(evidence, **rule):
    rules = [{"id": "r", "kind": "bounded", "reason": "why", "slices": ["sex"], **rule}]
    raw = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": rules}
    policy = parse_policy(raw, FairnessCheck().metrics)
    return decide([FairnessCheck()], evidence, policy, alpha=policy.alpha)


def test_four_fifths_is_proven_or_not(decided):
    labels = np.arange(4000) % 2
    sex = np.where(np.arange(4000) % 4 < 2, "f", "m")
    after = labels.copy()
    after[np.flatnonzero((labels == 1) & (sex == "f"))[:300]] = 0  # .35 of f are selected, .5 of m
    evidence = decided(labels, labels, after, columns={"sex": sex}, classes=("no", "yes"))
    four_fifths = {"metric": "selection_rate_ratio", "min": 0.8, "classes": ["yes"]}
    [finding] = _judge(evidence, **four_fifths).findings
    assert finding.verdict is Verdict.FAIL
    assert finding.pair == ("f", "m")
    assert finding.value == pytest.approx(0.7)
    fair = decided(labels, labels, labels, columns={"sex": sex}, classes=("no", "yes"))
    assert _judge(fair, **four_fifths).outcome is Outcome.PASSED
    added = {"metric": "selection_rate_change_gap", "max": 0.08, "classes": ["yes"]}
    assert _judge(evidence, **added).findings[0].verdict is Verdict.FAIL
    assert _judge(fair, **added).outcome is Outcome.PASSED
    assert _judge(evidence, metric="selection_rate_gap", max=0.1).outcome is Outcome.BLOCKED
    assert _judge(evidence, metric="selection_rate_gap", max=0.2).outcome is Outcome.PASSED
    # An unfair baseline adds nothing: the level is bad, the change is not.
    same = decided(labels, after, after, columns={"sex": sex}, classes=("no", "yes"))
    assert _judge(same, **added).outcome is Outcome.PASSED
    assert _judge(same, **four_fifths).outcome is Outcome.BLOCKED


def test_crossed_attributes_are_compared_when_a_rule_names_them(decided):
    labels = np.arange(4000) % 2
    sex, age = np.where(np.arange(4000) % 4 < 2, "f", "m"), np.where(np.arange(4000) % 8 < 4, "old", "young")
    after = labels.copy()
    after[np.flatnonzero((labels == 1) & (sex == "f") & (age == "old"))[:200]] = 0
    evidence = decided(labels, labels, after, columns={"sex": sex, "age": age}, classes=("no", "yes"))
    rule = {"metric": "true_positive_rate_gap", "max": 0.25, "classes": ["yes"]}
    assert _judge(evidence, **rule).outcome is Outcome.PASSED
    [finding] = _judge(evidence, **rule | {"slices": ["sex*age"]}).findings
    assert finding.verdict is Verdict.FAIL
    assert finding.pair[1] == "f*old"
