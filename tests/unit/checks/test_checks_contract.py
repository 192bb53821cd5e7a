# SPDX-License-Identifier: Apache-2.0
"""The contract check: each way of running a file has counts of its own, and NaN is never a small difference."""

import json

import numpy as np
import pytest

from checks.contract import INCOMPARABLE, ContractCheck
from checks.decision import decide
from checks.errors import EvidenceError
from checks.evidence import Providers
from checks.finding import Verdict
from checks.policy import parse_policy
from checks.protocol import built_in_checks, metrics_of

WAYS = {
    "repeat": ["repeat"],
    "batch": ["batch_one"],
    "thread": ["threads_two"],
    "optimization": ["optimization_disabled", "optimization_basic", "optimization_extended"],
    "framework": ["twin"],
}
RUN_OF_WAY = [(way, run) for way, runs in WAYS.items() for run in runs]
FELL_BACK = Providers(("CUDAExecutionProvider",), ("CPUExecutionProvider",))


def _values(evidence):
    return {entry.metric: entry.value for entry in ContractCheck().measure(evidence)}


def _with_run(evidence, vary, run, change, model="candidate"):
    """Evidence whose `model` answers otherwise in one run; `change` edits a copy of its scores."""
    runs = dict(getattr(evidence.contract, model))
    scores = runs[run].copy()
    change(scores)
    return vary(evidence, contract=vary(evidence.contract, **{model: {**runs, run: scores}}))


def test_a_file_that_answers_alike_has_no_differences(evidence):
    values = _values(evidence())
    assert set(values) == set(ContractCheck().metrics)
    assert len(values) == 12
    assert set(values.values()) == {0}


@pytest.mark.parametrize("model", ["baseline", "candidate"])
@pytest.mark.parametrize(("way", "run"), RUN_OF_WAY)
def test_one_turned_decision_shows_under_its_own_way_alone(evidence, vary, way, run, model):
    def turn(scores):
        scores[3] = scores[3][[1, 2, 3, 0]]

    values = _values(_with_run(evidence(), vary, run, turn, model))
    assert {metric for metric, value in values.items() if value} == {
        f"{way}_disagreement",
        f"{way}_difference",
    }
    assert values[f"{way}_disagreement"] == 1
    assert values[f"{way}_difference"] == 4


def test_decisions_are_counted_over_both_models_and_differences_are_the_largest(evidence, vary):
    def turn(scores):
        scores[:2] = scores[:2][:, [1, 2, 3, 0]] * 2

    once = _with_run(evidence(), vary, "batch_one", turn, "baseline")
    values = _values(_with_run(once, vary, "batch_one", lambda scores: turn(scores[5:]), "candidate"))
    assert values["batch_disagreement"] == 4
    assert values["batch_difference"] == 8


def test_a_small_difference_turns_no_decision(evidence, vary):
    def shift(scores):
        scores[0, 0] += 0.25

    values = _values(_with_run(evidence(), vary, "twin", shift))
    assert values["framework_difference"] == 0.25
    assert values["framework_disagreement"] == 0


def test_of_several_levels_the_worst_counts_and_is_not_added_up(evidence, vary):
    one = _with_run(evidence(), vary, "optimization_disabled", lambda scores: scores[:3].__imul__(-1))
    both = _with_run(one, vary, "optimization_extended", lambda scores: scores[:2].__imul__(-3))
    values = _values(both)
    assert values["optimization_disagreement"] == 3
    assert values["optimization_difference"] == 16


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_number_on_one_side_alone_is_no_small_difference(evidence, vary, wrong):
    def spoil(scores):
        scores[0, 2] = wrong

    values = _values(_with_run(evidence(), vary, "repeat", spoil))
    assert values["repeat_difference"] == INCOMPARABLE > 2 * float(np.finfo(np.float32).max)
    assert values["repeat_disagreement"] == 1
    values = _values(_with_run(evidence(), vary, "reference", spoil))
    assert values["framework_difference"] == INCOMPARABLE


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_the_same_on_both_sides_is_no_difference(evidence, vary, wrong):
    def spoil(scores):
        scores[0, 2] = wrong

    subject = evidence()
    for run in subject.contract.candidate:
        subject = _with_run(subject, vary, run, spoil)
    assert set(_values(subject).values()) == {0}


def test_infinities_of_other_signs_differ(evidence, vary):
    subject = _with_run(evidence(), vary, "reference", lambda scores: scores[0].__setitem__(0, np.inf))
    subject = _with_run(subject, vary, "repeat", lambda scores: scores[0].__setitem__(0, -np.inf))
    assert _values(subject)["repeat_difference"] == INCOMPARABLE


def test_the_largest_float32_numbers_can_be_told_apart(evidence, vary):
    most = np.finfo(np.float32).max
    subject = _with_run(evidence(), vary, "reference", lambda scores: scores[0].__setitem__(0, most))
    subject = _with_run(subject, vary, "repeat", lambda scores: scores[0].__setitem__(0, -most))
    assert _values(subject)["repeat_difference"] == 2 * float(most) < INCOMPARABLE


def test_models_that_fell_back_are_counted_once_each(evidence, vary):
    good = evidence()
    assert _values(vary(good, candidate=vary(good.candidate, providers=FELL_BACK)))["provider_fallbacks"] == 1
    timing = vary(good.timing, candidate_providers=FELL_BACK)
    assert _values(vary(good, timing=timing))["provider_fallbacks"] == 1
    both = vary(good, timing=timing, candidate=vary(good.candidate, providers=FELL_BACK))
    assert _values(both)["provider_fallbacks"] == 1
    assert _values(vary(both, baseline=vary(good.baseline, providers=FELL_BACK)))["provider_fallbacks"] == 2
    timing = vary(good.timing, baseline_providers=FELL_BACK)
    assert _values(vary(good, timing=timing))["provider_fallbacks"] == 1


def test_falling_back_to_fewer_providers_is_falling_back():
    assert Providers(("A", "B"), ("B",)).fell_back
    assert Providers(("A", "B"), ("B", "A")).fell_back
    assert not Providers(("A", "B"), ("A", "B")).fell_back


def test_examples_of_another_split_are_refused(evidence, vary):
    good = evidence()
    ids = good.contract.ids.copy()
    ids[0] = "y"
    with pytest.raises(EvidenceError, match=r"contract\.npz.*test split.*y"):
        ContractCheck().measure(vary(good, contract=vary(good.contract, ids=ids)))


def _judge(evidence, **rule):
    checks = built_in_checks()
    value = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05}
    value["rules"] = [{"id": "r", "kind": "assert", "reason": "why", **rule}]
    [finding] = decide(checks, evidence, parse_policy(value, metrics_of(checks)), alpha=0.05).findings
    return finding


def test_the_gate_opens_on_agreement_and_closes_on_one_decision(evidence, vary):
    rule = {"metric": "batch_disagreement", "max": 0}
    assert _judge(evidence(), **rule).verdict is Verdict.PASS
    turned = _with_run(evidence(), vary, "batch_one", lambda scores: scores[:1].__imul__(-1))
    finding = _judge(turned, **rule)
    assert finding.verdict is Verdict.FAIL
    json.dumps(finding.to_json(), allow_nan=False)


def test_an_incomparable_difference_is_beyond_any_limit_a_policy_may_set(evidence, vary):
    nan = _with_run(evidence(), vary, "twin", lambda scores: scores.fill(np.nan))
    finding = _judge(nan, metric="framework_difference", max=1e15)
    assert finding.verdict is Verdict.FAIL
    json.dumps(finding.to_json(), allow_nan=False)
