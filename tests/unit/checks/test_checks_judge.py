# SPDX-License-Identifier: Apache-2.0
"""What the judge says: proof for PASS, proof for FAIL, and nothing passes by absence."""

import json

import numpy as np
import pytest

from checks.decision import Outcome, decide
from checks.errors import PolicyError
from checks.evidence import Scores
from checks.finding import Reason, Verdict
from checks.judge import judge
from checks.measurement import Measurement, Method, Slice
from checks.policy import parse_policy
from checks.protocol import built_in_checks, metrics_of

CHECKS = built_in_checks()
METHODS = metrics_of(CHECKS)


def _policy(*rules, alpha=0.05):
    defaults = {"reason": "why"}
    rows = [{"id": f"r{index}", **defaults, **rule} for index, rule in enumerate(rules)]
    return parse_policy(
        {"version": 1, "name": "p", "alpha": alpha, "alpha_fail": 0.05, "rules": rows}, METHODS
    )


def _bounded(metric, **keys):
    return {"kind": "bounded", "metric": metric, **keys}


def _assert(metric, **keys):
    return {"kind": "assert", "metric": metric, **keys}


OVERALL = _bounded("accuracy_change", margin=0.02)
SLICES = _bounded("accuracy_change", margin=0.05, slices=["light"])
GAPS = _bounded("accuracy_change_gap", max=0.08, slices=["light"])
ROBUST = _bounded("robust_accuracy_change", margin=0.1)
FLOOR = _bounded("candidate_robust_accuracy", min=0.6)
FAST = _bounded("latency_ratio_b64", max=1.0, control_tolerance=0.05)
SMALL = _assert("bytes_ratio", max=0.5)


def _decide(evidence, *rules, alpha=0.05, share=1):
    return decide(CHECKS, evidence, _policy(*rules, alpha=alpha), alpha=alpha * share)


def _verdicts(decision):
    return {
        (f.rule.id, f.measurement.subject if f.measurement else None): f.verdict for f in decision.findings
    }


def test_identical_predictions_pass_and_never_fail(evidence):
    decision = _decide(evidence(), OVERALL, SLICES, GAPS, ROBUST, FLOOR, FAST, SMALL)
    assert decision.outcome is Outcome.PASSED
    assert decision.open
    assert set(_verdicts(decision).values()) == {Verdict.PASS}


@pytest.mark.parametrize("n", [12, 60, 148])
def test_identical_predictions_on_few_examples_are_too_small(evidence, n):
    decision = _decide(evidence(n), OVERALL)
    [finding] = decision.findings
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.reason is Reason.TOO_SMALL
    assert finding.further_examples >= 149 - n  # n_min for a margin of .02 at alpha .05 is 149
    assert decision.outcome is Outcome.INCONCLUSIVE


def test_smallest_size_that_can_pass_does(evidence):
    assert _decide(evidence(149), OVERALL).outcome is Outcome.PASSED


def test_a_share_of_alpha_is_what_is_judged_at(evidence):
    # (9, 2, 700): p = .0427 for a margin of .02, enough alone, not for one of two.
    subject = evidence(700, losses=9, gains=2)
    alone, shared = _decide(subject, OVERALL), _decide(subject, OVERALL, share=0.5)
    assert alone.findings[0].p == pytest.approx(shared.findings[0].p, abs=1e-3)
    assert 0.025 < alone.findings[0].p < 0.05
    assert alone.outcome is Outcome.PASSED
    assert shared.outcome is Outcome.INCONCLUSIVE
    assert shared.alpha_each == 0.025


def test_proven_harm_fails_and_names_distance(evidence):
    decision = _decide(evidence(900, losses=60), OVERALL)
    [finding] = decision.findings
    assert finding.verdict is Verdict.FAIL
    assert decision.outcome is Outcome.BLOCKED
    assert "0.04667 beyond" in finding.message


def test_harm_in_one_slice_is_found_where_the_mean_hides_it(evidence):
    decision = _decide(
        evidence(900, level_losses={"dim": 40}, gains=0), _bounded("accuracy_change", margin=0.06), SLICES
    )
    verdicts = _verdicts(decision)
    assert verdicts["r0", "overall"] is Verdict.PASS
    assert verdicts["r1", "light=dim"] is Verdict.FAIL
    assert verdicts["r1", "light=even"] is Verdict.PASS


@pytest.mark.parametrize("level", ["dim", "even", "bright"])
def test_added_disparity_names_the_pair_of_levels_it_lies_between(evidence, level):
    [finding] = _decide(evidence(900, level_losses={level: 60}), GAPS).findings
    assert finding.verdict is Verdict.FAIL
    assert finding.subject.startswith(f"light={level} against light=")
    assert finding.value == pytest.approx(0.2)
    assert finding.to_json()["slice"] == f"light={level}"
    assert finding.to_json()["versus"].startswith("light=")


def test_added_disparity_is_the_bound_of_every_ordered_pair(evidence):
    """One finding an attribute, and it passes exactly when each pair alone would."""
    from checks.statistics.disparity import mover_tango_upper

    decision = _decide(evidence(900, level_losses={"dim": 9, "even": 3}), GAPS, share=0.5)
    [finding] = decision.findings
    counts = {"dim": (9, 0, 300), "even": (3, 0, 300), "bright": (0, 0, 300)}
    bounds = {
        (g, h): mover_tango_upper(*counts[g], *counts[h], 0.025) for g in counts for h in counts if g != h
    }
    assert finding.bound == pytest.approx(max(bounds.values()), abs=1e-9)
    assert finding.pair == max(bounds, key=bounds.get)


def test_lost_robustness_fails(evidence):
    decision = _decide(evidence(losses=0, robust_losses=300), ROBUST, FLOOR)
    assert [f.verdict for f in decision.findings] == [Verdict.FAIL, Verdict.FAIL]


def test_floor_is_judged_by_the_bound_not_the_estimate(evidence):
    subject = evidence(900, robust_losses=170)  # 550 of 900 = .611, lower bound .583
    [finding] = _decide(subject, FLOOR).findings
    assert finding.measurement.value > 0.6 > finding.bound
    assert finding.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.5, Verdict.PASS), (1.5, Verdict.FAIL), (1.0, Verdict.INCONCLUSIVE)]
)
def test_latency_is_judged_over_session_pairs(evidence, ratio, verdict):
    [finding] = _decide(evidence(ratio=ratio), FAST).findings
    assert finding.verdict is verdict


def test_a_noisy_host_cannot_pass(evidence):
    [finding] = _decide(evidence(ratio=0.5, control=1.2), FAST).findings
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.reason is Reason.NOISY_HOST
    assert "+20.0%" in finding.message


def test_fewer_sessions_than_a_claim_on_time_needs_are_an_error(evidence):
    assert _decide(evidence(ratio=0.01, sessions=8), FAST).outcome is Outcome.PASSED
    [finding] = _decide(evidence(ratio=0.01, sessions=7), FAST).findings
    assert finding.verdict is Verdict.ERROR
    assert "sessions 7 of 8" in finding.message


def test_an_assert_at_its_limit_passes_and_beyond_fails(evidence):
    assert _decide(evidence(), _assert("bytes_ratio", max=0.2)).outcome is Outcome.PASSED
    assert _decide(evidence(), _assert("bytes_ratio", max=0.1999)).outcome is Outcome.BLOCKED
    assert _decide(evidence(), _assert("attack_budget_used", min=1.0)).outcome is Outcome.PASSED
    assert _decide(evidence(), _assert("attack_budget_used", min=1.01)).outcome is Outcome.BLOCKED


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [1, 900])
def test_scores_that_are_not_finite_are_counted_and_nothing_else_is_judged(evidence, vary, value, rows):
    good = evidence()
    scores = good.candidate.scores.copy()
    scores[:rows, 0] = value
    rules = [
        OVERALL,
        _bounded("false_positive_rate_change", margin=0.02),
        _bounded("flip_rate", max=0.9),
        _bounded("brier_change", margin=0.5),
        _bounded("accuracy_gap", max=0.9, slices=["light"]),
    ]
    bad = vary(good, candidate=Scores(good.candidate.ids, scores))
    counted, *others = _decide(bad, _assert("nonfinite_outputs", max=0), *rules).findings
    assert counted.verdict is Verdict.FAIL
    assert counted.measurement.value == rows
    assert {finding.verdict for finding in others} == {Verdict.ERROR}
    assert all(f"{rows} of 900 examples, x00000" in finding.message for finding in others)


def test_reordered_ids_are_joined_not_trusted(evidence, vary):
    good = evidence(losses=3)
    order = np.random.default_rng(1).permutation(len(good.candidate.ids))
    shuffled = Scores(good.candidate.ids[order], good.candidate.scores[order])
    assert _decide(vary(good, candidate=shuffled), OVERALL).to_json() == _decide(good, OVERALL).to_json()


def test_ids_that_do_not_join_are_an_error(evidence, vary):
    good = evidence()
    ids = good.candidate.ids.copy()
    ids[0] = "alien!"
    decision = _decide(vary(good, candidate=Scores(ids, good.candidate.scores)), OVERALL, SMALL)
    assert decision.findings[0].verdict is Verdict.ERROR
    assert "alien!" in decision.findings[0].message
    assert decision.findings[1].verdict is Verdict.PASS
    assert decision.outcome is Outcome.ERROR


def test_an_advisory_rule_may_fail_but_not_be_unjudged(evidence, vary):
    advisory = {**OVERALL, "blocking": False}
    assert _decide(evidence(losses=60), advisory, SMALL).outcome is Outcome.PASSED
    broken = vary(evidence(), baseline=Scores(np.array(["x"]), np.zeros((1, 4), np.float32)))
    assert _decide(broken, advisory, SMALL).outcome is Outcome.ERROR


def test_a_batch_size_that_was_not_timed_is_an_error(evidence):
    decision = _decide(evidence(), _bounded("latency_ratio_b32", max=1.1), SMALL)
    assert decision.findings[0].verdict is Verdict.ERROR
    assert decision.outcome is Outcome.ERROR


def test_a_slice_nobody_knows_is_the_policys_error(evidence):
    with pytest.raises(PolicyError, match="colour") as caught:
        _decide(evidence(), _bounded("accuracy_change", margin=0.02, slices=["colour"]))
    assert caught.value.where == "policy.yaml rules[0].slices"


def test_a_level_can_be_named_alone(evidence):
    decision = _decide(evidence(), _bounded("accuracy_change", margin=0.05, slices=["light=dim", "label=b"]))
    assert set(_verdicts(decision)) == {("r0", "light=dim"), ("r0", "label=b")}


def test_frames_of_one_subject_are_one_unit(evidence):
    frames = evidence(900, units=np.repeat([f"u{i}" for i in range(90)], 10))
    [finding] = _decide(frames, OVERALL).findings
    assert finding.measurement.n == 90
    assert finding.reason is Reason.TOO_SMALL


def test_group_table_of_somebody_else_is_noticed(evidence, vary):
    good = evidence()
    groups = json.loads(json.dumps(good.groups))
    groups["attributes"]["light"]["dim"]["candidate_accuracy"] -= 0.01
    decision = _decide(vary(good, groups=groups), _assert("group_table_mismatch", max=0))
    assert decision.outcome is Outcome.BLOCKED
    del groups["attributes"]["light"]
    decision = _decide(vary(good, groups=groups), _assert("group_table_mismatch", max=0))
    assert decision.findings[0].measurement.value == 3
    assert (
        _decide(vary(good, groups={"attributes": {}}), _assert("group_table_mismatch", max=0)).outcome
        is Outcome.ERROR
    )


def test_attacks_outside_their_budget_are_noticed(evidence, vary):
    good = evidence()
    attacks = vary(good.attacks, perturbation=good.attacks.perturbation * 1.01)
    decision = _decide(vary(good, attacks=attacks), _assert("attack_budget_violations", max=0))
    assert decision.findings[0].measurement.value == 900
    weak = vary(good.attacks, perturbation=good.attacks.perturbation / 255)
    assert (
        _decide(vary(good, attacks=weak), _assert("attack_budget_used", min=0.9)).outcome is Outcome.BLOCKED
    )


def _counted(level, losses, gains, n):
    statistics = {"losses": losses, "gains": gains}
    return Measurement(
        "accuracy_change",
        Slice("s", level),
        (gains - losses) / n,
        None,
        n,
        "proportion",
        Method.PAIRED_EXACT,
        statistics=statistics,
    )


def test_fail_is_claimed_family_wise():
    """p of harm is .0407 for (12, 1, 100) and .0116 for (9, 0, 60): Holm rejects one among few, not among many."""
    policy = _policy(_bounded("accuracy_change", margin=0.05, slices=["s"]))
    harmed, worse, fine = _counted("a", 12, 1, 100), _counted("b", 9, 0, 60), _counted("c", 0, 0, 100)

    def fails(*rows):
        levels = {"s": [row.slice.level for row in rows]}
        findings = judge(rows, policy, alpha=policy.alpha, levels=levels, broken={})
        return [f.measurement.slice.level for f in findings if f.verdict is Verdict.FAIL]

    assert fails(harmed) == ["a"]
    assert fails(harmed, fine) == []
    assert fails(harmed, worse) == ["a", "b"]
    assert fails(harmed, worse, fine) == ["b"]


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        (_bounded("accuracy_change", margin=0.05, slices=["light"]), "light=dusk"),
        (_bounded("accuracy_change", margin=0.05, slices=["overall", "light=dusk"]), "light=dusk"),
    ],
)
def test_a_level_without_examples_is_an_error_not_a_pass(evidence, vary, rule, missing):
    good = evidence(9000)
    levels = {"light": ("bright", "dim", "dusk", "even")}
    decision = _decide(vary(good, examples=vary(good.examples, levels=levels)), rule)
    assert decision.outcome is Outcome.ERROR
    assert missing in decision.findings[-1].message


def test_a_level_without_examples_is_never_fair(evidence, vary):
    good = evidence(9000)
    levels = {"light": ("bright", "dim", "dusk", "even")}
    [finding] = _decide(vary(good, examples=vary(good.examples, levels=levels)), GAPS).findings
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "dusk" in finding.message


def test_an_attack_that_does_nothing_is_noticed_behind_one_that_does(evidence, vary):
    good = evidence()
    attacks = good.attacks
    lazy = vary(
        attacks,
        names=("clean", "noise", "pgd"),
        baseline_correct=attacks.baseline_correct[[0, 1, 0]],
        candidate_correct=attacks.candidate_correct[[0, 1, 0]],
        perturbation=attacks.perturbation[[0, 1, 0]],
        in_range=attacks.in_range[[0, 1, 0]],
    )
    rule = _assert("attack_budget_used", min=0.9)
    assert _decide(good, rule).outcome is Outcome.PASSED
    assert _decide(vary(good, attacks=lazy), rule).outcome is Outcome.BLOCKED


def test_a_baseline_without_answers_is_no_baseline(evidence, vary):
    good = evidence()
    blank = Scores(good.baseline.ids, np.full_like(good.baseline.scores, np.nan))
    decision = _decide(vary(good, baseline=blank), OVERALL)
    assert decision.outcome is Outcome.ERROR


def test_one_file_is_never_told_that_it_is_slower_than_itself(evidence, vary):
    slow = evidence(ratio=1.5)
    assert _decide(slow, FAST).findings[0].verdict is Verdict.FAIL
    same = vary(slow, subject=vary(slow.subject, candidate_sha256=slow.subject.baseline_sha256))
    assert _decide(same, FAST).findings[0].verdict is Verdict.INCONCLUSIVE


def test_a_lead_no_larger_than_the_hosts_own_bias_is_no_proof(evidence):
    assert _decide(evidence(ratio=0.98, control=1.04), FAST).findings[0].verdict is not Verdict.PASS
    assert _decide(evidence(ratio=0.98, control=1.0), FAST).findings[0].verdict is Verdict.PASS


def test_a_decision_is_json(evidence):
    value = _decide(evidence(losses=5), OVERALL, SLICES, GAPS, ROBUST, FLOOR, FAST, SMALL).to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
