# SPDX-License-Identifier: Apache-2.0
"""The runner: whatever a check does, it ends as a measurement or as a reason, never as a PASS."""

import pytest

from checks.decision import Outcome, decide
from checks.errors import PolicyError
from checks.finding import Verdict
from checks.measurement import OVERALL, Measurement, Method
from checks.outcomes import join_outcomes
from checks.policy import parse_policy
from checks.protocol import Metric
from checks.runner import run_checks


class Check:
    name = "mine"
    metrics = {"mine": Metric(Method.EXACT_VALUE)}

    def __init__(self, returned):
        self.returned = returned

    def measure(self, evidence):
        if isinstance(self.returned, Exception):
            raise self.returned
        return self.returned


def _measurement(metric="mine", method=Method.EXACT_VALUE, value=0.0):
    return Measurement(metric, OVERALL, value, None, 1, "count", method)


POLICY = parse_policy(
    {
        "version": 1,
        "name": "p",
        "alpha": 0.05,
        "alpha_fail": 0.05,
        "rules": [{"id": "r", "kind": "assert", "metric": "mine", "max": 0, "reason": "why"}],
    },
    Check.metrics,
)


class Named(Check):
    name = "other"
    metrics = {"other": Metric(Method.EXACT_VALUE)}


BOTH = parse_policy(
    {
        "version": 1,
        "name": "p",
        "alpha": 0.05,
        "alpha_fail": 0.05,
        "rules": [
            {"id": name, "kind": "assert", "metric": name, "max": 0, "reason": "why"}
            for name in ("mine", "other")
        ],
    },
    Check.metrics | Named.metrics,
)


def test_a_good_check_is_judged(evidence):
    assert decide([Check([_measurement()])], evidence(), POLICY, alpha=POLICY.alpha).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "returned",
    [
        [],
        None,
        "text",
        [1],
        [_measurement("other")],
        [_measurement(method=Method.CLOPPER_PEARSON)],
        [_measurement(), _measurement()],
        ZeroDivisionError("boom"),
        RuntimeError("boom"),
        MemoryError(),
        RecursionError(),
    ],
    ids=repr,
)
def test_a_broken_check_is_an_error(evidence, returned):
    decision = decide([Check(returned)], evidence(), POLICY, alpha=POLICY.alpha)
    assert [finding.verdict for finding in decision.findings] == [Verdict.ERROR]
    assert decision.outcome is Outcome.ERROR
    assert "mine" in decision.findings[0].message


def test_a_check_cannot_return_nan():
    from checks.errors import CheckError

    with pytest.raises(CheckError, match="finite"):
        _measurement(value=float("nan"))


def test_other_checks_go_on_when_one_breaks(evidence):
    class Other(Check):
        name = "other"
        metrics = {"other": Metric(Method.EXACT_VALUE)}

    run = run_checks([Check(ValueError("x")), Other([_measurement("other")])], evidence())
    assert [m.metric for m in run.measurements] == ["other"]
    assert set(run.broken) == {"mine"}


def test_a_policy_error_of_somebody_elses_check_is_an_error_like_any_other(evidence):
    found = decide(
        [Check([_measurement()]), Named(PolicyError("not yours to raise"))],
        evidence(),
        BOTH,
        alpha=BOTH.alpha,
    )
    assert found.outcome is Outcome.ERROR
    assert "not yours to raise" in found.findings[1].message


def test_a_check_cannot_change_what_others_measured(evidence):
    class Greedy(Named):
        def measure(self, evidence):
            evidence.timing.candidate_calls_ms[:] /= 1000
            return [_measurement("other")]

    seen = evidence()
    before = seen.timing.candidate_calls_ms.copy()
    found = decide([Check([_measurement()]), Greedy(None)], seen, BOTH, alpha=BOTH.alpha)
    assert found.findings[1].verdict is Verdict.ERROR
    assert "read-only" in found.findings[1].message
    assert (seen.timing.candidate_calls_ms == before).all()


def test_outcomes_that_checks_share_cannot_be_changed(evidence):
    class Forging(Named):
        def measure(self, evidence):
            join_outcomes(evidence).candidate_class[:] = 0
            return [_measurement("other")]

    found = decide([Check([_measurement()]), Forging(None)], evidence(), BOTH, alpha=BOTH.alpha)
    assert found.findings[1].verdict is Verdict.ERROR
    assert "read-only" in found.findings[1].message


@pytest.mark.parametrize("raised", [PolicyError("no"), ZeroDivisionError("no"), SyntaxError("no")])
def test_bounds_that_break_are_an_error_of_their_rule_alone(evidence, raised):
    class Bounding(Check):
        metrics = {"mine": Metric(Method.BOOTSTRAP_T)}

    def bounds(alpha):
        raise raised

    rules = [{"id": "r", "kind": "bounded", "metric": "mine", "margin": 0.1, "reason": "why"}]
    rules.append({"id": "s", "kind": "assert", "metric": "other", "max": 0, "reason": "why"})
    policy = parse_policy(
        {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": rules},
        Bounding.metrics | Named.metrics,
    )
    entry = Measurement(
        "mine", OVERALL, 0.0, (0.0, 1.0), 900, "1", Method.BOOTSTRAP_T, harm="rise",
        statistics={"largest_harm": 1.0}, bounds=bounds,
    )  # fmt: skip
    checks = [Bounding([entry]), Named([_measurement("other")])]
    found = decide(checks, evidence(), policy, alpha=policy.alpha).findings
    assert [finding.verdict for finding in found] == [Verdict.ERROR, Verdict.PASS]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.0, 0.6, Verdict.INCONCLUSIVE),
        (0.0, float("nan"), Verdict.ERROR),
        (float("nan"), 0.05, Verdict.ERROR),
        (0.0, 0.05, Verdict.ERROR),  # below its own estimate
        (0.55, 0.6, Verdict.ERROR),
    ],
)
@pytest.mark.parametrize("method", [Method.BOOTSTRAP_T, Method.JACKKNIFE_T, Method.ORDER_STATISTIC])
def test_bounds_that_are_none_pass_nothing(evidence, method, low, high, verdict):
    class Bounding(Check):
        metrics = {"mine": Metric(method)}

    limit = "max" if method is Method.ORDER_STATISTIC else "margin"
    rule = {"id": "r", "kind": "bounded", "metric": "mine", limit: 0.1, "reason": "why"}
    policy = parse_policy(
        {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "rules": [rule]}, Bounding.metrics
    )
    entry = Measurement(
        "mine", OVERALL, 0.5, (0.0, 1.0), 900, "1", method, harm="rise",
        statistics={"largest_harm": 1.0}, bounds=lambda _: (low, high),
    )  # fmt: skip
    [finding] = decide([Bounding([entry])], evidence(), policy, alpha=policy.alpha).findings
    assert finding.verdict is verdict
