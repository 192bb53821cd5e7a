# SPDX-License-Identifier: Apache-2.0
"""The runner: whatever a check does, it ends as a measurement or as a reason, never as a PASS."""

import pytest

from checks.decision import Outcome, decide
from checks.finding import Verdict
from checks.measurement import OVERALL, Measurement, Method
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


def test_a_good_check_is_judged(evidence):
    assert decide([Check([_measurement()])], evidence(), POLICY, finalists=1).outcome is Outcome.PASSED


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
    decision = decide([Check(returned)], evidence(), POLICY, finalists=1)
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
