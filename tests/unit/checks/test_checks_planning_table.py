# SPDX-License-Identifier: Apache-2.0
"""What a policy can show on given test examples: fewest units as the judge applies them, chances as they come."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from checks.decision import decide
from checks.errors import PolicyError
from checks.evidence import Examples
from checks.finding import Verdict
from checks.planning_table import Effort, Standing, plan_policy
from checks.policy import parse_policy
from checks.prospects import change_gap_chance, widest_margin
from checks.protocol import built_in_checks, metrics_of
from checks.statistics.pairs import worst_change_gap
from checks.statistics.planning import n_min, power

CHECKS = built_in_checks()
METHODS = metrics_of(CHECKS)
ATTACKS = ("clean", "noise", "pgd-on-baseline")


def _policy(*rules, alpha=0.05, **keys):
    rows = [
        {"id": f"r{index}", "kind": "bounded", "reason": "why", **rule} for index, rule in enumerate(rules)
    ]
    return parse_policy(
        {"version": 1, "name": "p", "alpha": alpha, "alpha_fail": 0.05, "rules": rows, **keys}, METHODS
    )


def _examples(n, *, light=("dim", "even", "bright"), units=None, levels=None, labels=None):
    ids = np.array([f"x{i:05d}" for i in range(n)])
    labels = np.arange(n, dtype=np.int64) % 4 if labels is None else np.asarray(labels)
    column = np.array(light)[(np.arange(n) // 4) % len(light)]
    return Examples(
        ids,
        ids if units is None else units,
        labels,
        ("a", "b", "c", "d"),
        {"light": column},
        {"light": levels or tuple(sorted(light))},
    )


def _effort(examples, *, attacked=500, sessions=8, calls=50, batch_sizes=(1, 64)):
    return Effort(examples.ids[:attacked], ATTACKS, batch_sizes, sessions, calls)


def _plan(examples, *rules, churn=0.02, share=1, effort=None, **keys):
    policy = _policy(*rules, **keys)
    return plan_policy(
        built_in_checks(policy.operating_points),
        examples,
        policy,
        alpha=policy.alpha * share,
        effort=effort or _effort(examples),
        churn=churn,
    )


CHANGE = {"metric": "accuracy_change", "margin": 0.02}
SLICES = {"metric": "accuracy_change", "margin": 0.05, "slices": ["light"]}
GAPS = {"metric": "accuracy_change_gap", "max": 0.08, "slices": ["light"]}


def test_a_row_a_slice_with_its_units_and_chance():
    plan = _plan(_examples(900), CHANGE, SLICES)
    assert [(row.subject, row.prospect.n, row.prospect.n_min) for row in plan.rows] == [
        ("overall", 900, 149),  # section 1.3 of the specification: 149 for .02, 59 for .05
        ("light=bright", 300, 59),
        ("light=dim", 300, 59),
        ("light=even", 300, 59),
    ]
    assert plan.rows[0].prospect.chance == power(900, 0.02, 0.02, 0.05)
    assert {row.standing for row in plan.rows} == {Standing.FINE}
    assert plan.impossible == ()


def test_a_share_of_alpha_is_what_is_planned_at():
    [row] = _plan(_examples(900), CHANGE, share=0.5).rows
    assert row.prospect.n_min == n_min(0.02, 0.025) > 149
    assert row.prospect.chance == power(900, 0.02, 0.02, 0.025)


def test_frames_of_one_unit_count_once():
    units = np.array([f"u{i // 10}" for i in range(900)])
    plan = _plan(_examples(900, units=units), CHANGE)
    assert (plan.examples, plan.units) == (900, 90)
    [row] = plan.rows
    assert row.prospect.n == 90
    assert row.standing is Standing.IMPOSSIBLE


# What each method calls the fewest must be what the judge lets pass on perfect evidence, and no unit less.
RULES = {
    "paired": CHANGE,
    "share-max": {"metric": "flip_rate", "max": 0.05},
    "share-min": {"metric": "candidate_accuracy", "min": 0.9},
    "class": {"metric": "recall_change", "margin": 0.1, "classes": ["a"]},
    "class-share": {"metric": "candidate_recall", "min": 0.8, "classes": ["a"]},
    "rise": {"metric": "false_positive_rate_change", "margin": 0.03, "classes": ["b"]},
    "change-gap": GAPS,
    "gap": {"metric": "true_positive_rate_gap", "max": 0.2, "slices": ["light"], "classes": ["a"]},
    "ratio": {"metric": "accuracy_ratio", "min": 0.8, "slices": ["light"]},
    "own-floor": {**CHANGE, "min_n": 200},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_fewest_units_are_those_that_the_judge_asks_for(decided, rule):
    policy = _policy(rule)

    def passes(count, shape):
        labels, light = shape(count)
        evidence = decided(labels, labels, labels, columns={"light": light})
        decision = decide(CHECKS, evidence, policy, alpha=policy.alpha)
        return {finding.verdict for finding in decision.findings} == {Verdict.PASS}

    def shape(count):
        """`count` units of what the rule counts on its smallest level or class, plenty of all else."""
        targets = rule.get("classes")
        if "slices" in rule:
            light = np.repeat(["dim", "even", "bright"], [count, 2000, 2000])
            return np.zeros(len(light), dtype=np.int64) if targets else np.arange(len(light)) % 4, light
        labels = np.repeat([0, 1], [count, 1000]) if targets else np.arange(count) % 4
        return labels, np.full(len(labels), "dim")

    labels, light = shape(50)
    examples = _examples(len(labels), labels=labels)
    examples = replace(
        examples, columns={"light": light}, levels={"light": tuple(sorted(set(light.tolist())))}
    )
    [row] = _plan(examples, rule).rows
    least = row.prospect.n_min
    assert row.prospect.n == 50
    assert passes(least, shape)
    assert not passes(least - 1, shape)
    assert (row.standing is Standing.IMPOSSIBLE) == (least > 50)


def test_a_rule_that_cannot_pass_says_what_is_missing_and_what_to_do():
    [row] = _plan(_examples(100), {**CHANGE, "id": "overall-accuracy"}).impossible
    for part in (
        "overall-accuracy on overall",
        "n 100",
        "n_min 149",
        "collect 49 more",
        "pool",
        "with a reason",
    ):
        assert part in row.message
    wider = widest_margin(100, 0.05)
    assert f"widen margin to {wider:g}" in row.message
    assert n_min(wider, 0.05) <= 100 < n_min(wider - 0.001, 0.05)


def test_an_advisory_rule_that_cannot_pass_keeps_nothing_closed():
    plan = _plan(_examples(100), {**CHANGE, "margin": 0.1}, {**CHANGE, "blocking": False})
    assert [row.standing for row in plan.rows] == [Standing.FINE, Standing.IMPOSSIBLE]
    assert plan.impossible == ()


def test_a_small_chance_is_a_warning():
    plan = _plan(_examples(160), CHANGE)
    [row] = plan.unlikely
    assert row.prospect.chance < 0.5
    assert str(row.prospect.n_plan) in row.message
    assert plan.impossible == ()


def test_a_level_or_class_without_test_examples_cannot_pass():
    missing = _plan(_examples(900, levels=("bright", "dim", "even", "night")), SLICES)
    assert any("light=night" in row.message for row in missing.impossible)
    gap = _plan(_examples(900, levels=("bright", "dim", "even", "night")), GAPS)
    assert gap.impossible[0].prospect.n == 0
    labels = np.arange(900) % 3
    plan = _plan(_examples(900, labels=labels), {"metric": "recall_change", "margin": 0.1})
    [row] = plan.impossible
    assert "for d" in row.message
    assert {r.subject for r in plan.rows if r.standing is Standing.FINE} == {
        f"overall for {c}" for c in "abc"
    }


def test_small_combinations_are_listed_and_large_ones_planned():
    rare = replace(_examples(900), columns={"light": np.array(["dim"] * 880 + ["even"] * 20)})
    rare = replace(rare, levels={"light": ("dim", "even")})
    plan = _plan(rare, {**SLICES, "slices": ["light*label"]})
    # Nobody answers for them.
    assert {row.subject for row in plan.impossible} == {f"light*label=even*{name}" for name in "abcd"}
    plan = _plan(
        rare,
        {**SLICES, "margin": 0.2, "slices": ["light*label"]},
        {**SLICES, "margin": 0.2, "slices": ["light", "label"]},
    )
    listed = {row.subject for row in plan.rows if row.standing is Standing.LISTED}
    assert listed == {f"light*label=even*{name}" for name in "abcd"}
    assert plan.impossible == ()


def test_combinations_that_are_all_small_cannot_be_judged():
    plan = _plan(_examples(120), {**SLICES, "slices": ["light*label"]})
    assert "large" in plan.impossible[0].message


@pytest.mark.parametrize(
    "rule",
    [
        {**SLICES, "slices": ["colour"]},
        {**SLICES, "slices": ["light=night"]},
        {**SLICES, "slices": ["light*colour"]},
        {"metric": "recall_change", "margin": 0.1, "classes": ["z"]},
    ],
)
def test_what_does_not_exist_is_the_policys_error(rule):
    with pytest.raises(PolicyError):
        _plan(_examples(900), rule)


def test_an_assert_on_an_unknown_slice_is_refused_too():
    wrong = {"kind": "assert", "metric": "bytes_ratio", "max": 1, "slices": ["nowhere"]}
    with pytest.raises(PolicyError, match="nowhere"):
        _plan(_examples(900), CHANGE, wrong)


def test_an_operating_point_for_a_class_nobody_has_is_refused():
    point = {"name": "p", "class": "z", "threshold": 0.3, "reason": "why"}
    rule = {"metric": "sensitivity_change", "margin": 0.1}
    with pytest.raises(PolicyError, match="'z'"):
        _plan(_examples(900), rule, operating_points=[point])
    [row] = _plan(_examples(900), rule, operating_points=[{**point, "class": "b"}]).rows
    assert (row.subject, row.prospect.n) == ("overall for p", 225)


def test_attacked_examples_are_as_many_as_will_be_attacked():
    examples = _examples(900)
    [row] = _plan(
        examples, {"metric": "robust_accuracy_change", "margin": 0.1}, effort=_effort(examples, attacked=120)
    ).rows
    assert row.prospect.n == 120


def test_times_count_sessions_and_calls():
    slow = {"metric": "candidate_p99_ms_b1", "max": 20}
    ratio = {"metric": "latency_ratio_b64", "max": 1.0, "control_tolerance": 0.05}
    examples = _examples(900)
    plan = _plan(examples, slow, ratio)
    assert [(row.prospect.n, row.prospect.n_min) for row in plan.rows] == [(50, 299), (8, 8)]
    assert "time.calls" in plan.impossible[0].message
    enough = _plan(examples, slow, ratio, effort=_effort(examples, calls=299, sessions=8))
    assert enough.impossible == ()
    few = _plan(examples, ratio, effort=_effort(examples, sessions=7))
    assert "time.sessions" in few.impossible[0].message


def test_a_batch_size_that_is_not_timed_is_named():
    plan = _plan(_examples(900), {"metric": "latency_ratio_b32", "max": 0.9})
    assert "batch size 32" in plan.impossible[0].message


def test_the_chance_of_a_share_is_the_binomial_one():
    [flips, losses] = _plan(
        _examples(900), {"metric": "flip_rate", "max": 0.04}, {"metric": "loss_rate", "max": 0.02}
    ).rows
    for row, limit, rate in ((flips, 0.04, 0.02), (losses, 0.02, 0.01)):
        allowed = [k for k in range(900) if stats.beta.ppf(0.95, k + 1, 900 - k) <= limit][-1]
        assert row.prospect.chance == pytest.approx(stats.binom.cdf(allowed, 900, rate))
        assert f"{allowed} of 900 or fewer" in row.prospect.note


def test_a_churn_beyond_the_limit_of_flips_has_no_planned_size():
    [row] = _plan(_examples(900), {"metric": "flip_rate", "max": 0.01}, churn=0.02).rows
    assert row.standing is Standing.UNLIKELY
    assert row.prospect.n_plan is None


def test_the_chance_of_a_gap_is_that_of_the_rule_itself():
    """The same draws judged one by one, by the function that the judge uses."""
    sizes, churn, limit = np.array([120, 200, 90]), 0.03, 0.08
    random = np.random.default_rng(11)
    kept = 0
    draws = 300
    for _ in range(draws):
        losses = random.binomial(sizes, churn / 2)
        gains = random.binomial(sizes - losses, churn / 2 / (1 - churn / 2))
        # Of groups under 100 units the judge draws bounds at half of alpha.
        kept += worst_change_gap(losses, gains, sizes, 0.025).bound < limit
    chance = change_gap_chance(sizes.tolist(), limit, churn, 0.05)
    assert 0.1 < chance < 0.9
    assert chance == pytest.approx(kept / draws, abs=4 * np.sqrt(chance * (1 - chance) / draws))


def test_more_churn_and_tighter_limits_lower_the_chance():
    chances = [change_gap_chance([200, 200], 0.08, churn, 0.05) for churn in (0.0, 0.01, 0.05, 0.2)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == 1.0
    assert chances[-1] < 0.3


def test_all_rules_together_lie_between_the_product_and_the_hardest():
    plan = _plan(_examples(400), CHANGE, SLICES)
    low, high = plan.chance_of_all
    chances = [row.prospect.chance for row in plan.rows]
    assert low == pytest.approx(np.prod(chances))
    assert high == pytest.approx(min(chances[0], np.prod(chances[1:])))
    assert _plan(_examples(400), CHANGE, churn=None).chance_of_all is None


def test_without_churn_only_what_cannot_pass_is_looked_for():
    plan = _plan(_examples(100), CHANGE, {**SLICES, "margin": 0.2}, churn=None)
    assert all(row.prospect.chance is None and row.prospect.n_plan is None for row in plan.rows)
    assert len(plan.impossible) == 1


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_extreme_churn_is_planned(churn):
    plan = _plan(_examples(200), CHANGE, GAPS, {"metric": "flip_rate", "max": 0.5}, churn=churn)
    expected = 1.0 if churn == 0 else 0.0
    assert [row.prospect.chance for row in plan.rows] == pytest.approx([expected] * 3, abs=0.1)


class _Nosy:
    """A plugin's check that looks at what is not known before a model was run."""

    name = "nosy"

    def __init__(self):
        from checks.measurement import Method
        from checks.protocol import Metric

        self.metrics = {"nosy_change": Metric(Method.PAIRED_EXACT)}

    def measure(self, evidence):
        return [evidence.timing.candidate_ms]


def test_a_check_that_needs_a_model_cannot_be_planned_and_says_so():
    checks = (*CHECKS, _Nosy())
    policy = parse_policy(
        {
            "version": 1,
            "name": "p",
            "alpha": 0.05,
            "alpha_fail": 0.05,
            "rules": [
                {"id": "r", "kind": "bounded", "metric": "nosy_change", "margin": 0.1, "reason": "why"}
            ],
        },
        metrics_of(checks),
    )
    examples = _examples(900)
    plan = plan_policy(checks, examples, policy, alpha=policy.alpha, effort=_effort(examples), churn=0.02)
    assert [row.standing for row in plan.rows] == [Standing.UNKNOWN]
    assert "timing" in plan.rows[0].message
    assert plan.impossible == ()


def test_the_plan_is_plain_json():
    from checks.canonical import dumps

    plan = _plan(_examples(100), CHANGE, SLICES, GAPS)
    value = plan.to_json()
    assert dumps(value)
    assert value["rows"][0]["n_min"] == 149
    assert value["impossible"] == [row.message for row in plan.impossible]
