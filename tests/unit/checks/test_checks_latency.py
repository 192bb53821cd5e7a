# SPDX-License-Identifier: Apache-2.0
"""What the clocks and counters say: ratios over session pairs, the slowest calls, memory, energy."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from checks.decision import Outcome, decide
from checks.energy import EnergyCheck
from checks.errors import EvidenceError, PolicyError
from checks.finding import Reason, Verdict
from checks.latency import LONGEST_MS, LatencyCheck
from checks.measurement import Method
from checks.policy import parse_policy
from checks.protocol import built_in_checks, metrics_of

CHECKS = built_in_checks()


def _measured(evidence, check=None):
    return {entry.metric: entry for entry in (check or LatencyCheck()).measure(evidence)}


def _policy(**rule):
    value = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05}
    value["rules"] = [{"id": "r", "kind": "bounded", "reason": "why", **rule}]
    return parse_policy(value, metrics_of(CHECKS))


def _judge(evidence, **rule):
    return decide(CHECKS, evidence, _policy(**rule), alpha=0.05)


def _with_calls(evidence, vary, calls):
    """Evidence whose candidate took `calls` `(S, R, m)` milliseconds."""
    timing = vary(
        evidence.timing,
        candidate_calls_ms=calls[None],
        candidate_ms=np.median(calls[None], axis=-1),
    )
    return vary(evidence, timing=timing)


def _all_calls(evidence, vary, calls):
    """Evidence in which every model took `calls` `(S, R, m)` milliseconds."""
    medians = np.median(calls[None], axis=-1)
    timing = vary(
        evidence.timing,
        **{f"{model}_calls_ms": calls[None] for model in ("baseline", "candidate")},
        **{f"{model}_ms": medians for model in ("baseline", "candidate", "control")},
        **{f"{model}_processor_s": medians / 1000 for model in ("baseline", "candidate")},
    )
    return vary(evidence, timing=timing)


@pytest.mark.parametrize("shape", [(7, 10, 3), (8, 9, 3), (8, 10, 2)])
def test_a_design_too_small_for_claims_on_time_measures_nothing(evidence, vary, shape):
    measured = _measured(_all_calls(evidence(), vary, np.ones((8, 10, 3))))
    assert measured["latency_ratio_b64"].value == 1
    with pytest.raises(EvidenceError, match="expected at least 8 sessions, 10 rounds, 3 calls"):
        _measured(_all_calls(evidence(sessions=shape[0]), vary, np.ones(shape)))


def test_everything_is_measured_for_every_batch_size(evidence, vary):
    one = evidence().timing
    doubled = {
        name: np.concatenate([getattr(one, name), getattr(one, name) * 2])
        for name in ("baseline_ms", "candidate_ms", "control_ms", "baseline_calls_ms", "candidate_calls_ms")
    }
    doubled |= {
        f"{m}_processor_s": np.concatenate([one.baseline_processor_s] * 2) for m in ("baseline", "candidate")
    }
    measured = _measured(vary(evidence(), timing=vary(one, batch_sizes=(64, 1), **doubled)))
    per_size = ("latency_ratio", "baseline_p99_ms", "candidate_p99_ms", "energy_proxy_ratio")
    assert set(measured) == {f"{name}_b{size}" for name in per_size for size in (1, 64)} | {
        "peak_memory_ratio"
    }
    assert measured["candidate_p99_ms_b1"].value == pytest.approx(2 * measured["candidate_p99_ms_b64"].value)


def test_latency_alone_has_a_control():
    declared = metrics_of(CHECKS)
    assert [name for name, metric in declared.items() if metric.control] == ["latency_ratio_b*"]
    assert not declared["energy_proxy_ratio_b*"].gateable


def test_memory_and_energy_need_no_tolerance_of_a_control_and_take_none():
    for metric in ("peak_memory_ratio", "energy_ratio_b64"):
        assert _policy(metric=metric, max=1.0).rules[0].control_tolerance == 0
        with pytest.raises(PolicyError, match="control_tolerance"):
            _policy(metric=metric, max=1.0, control_tolerance=0.05)
    with pytest.raises(PolicyError, match="control_tolerance"):
        _policy(metric="latency_ratio_b64", max=1.0)
    assert _policy(metric="latency_ratio_b64", max=0.8).rules[0].control_tolerance == pytest.approx(0.05)


def test_peak_memory_is_bounded_over_session_pairs(evidence, vary):
    good = evidence()
    measured = _measured(good)["peak_memory_ratio"]
    assert measured.method is Method.HODGES_LEHMANN
    assert measured.value == pytest.approx(0.9)
    assert measured.interval == pytest.approx((0.9, 0.9))
    assert measured.n == 8
    assert _judge(good, metric="peak_memory_ratio", max=1.0).outcome is Outcome.PASSED
    more = vary(good, timing=vary(good.timing, candidate_peak_bytes=np.full(8, 1200)))
    assert _judge(more, metric="peak_memory_ratio", max=1.0).outcome is Outcome.BLOCKED
    paired = vary(
        good.timing,
        baseline_peak_bytes=np.array([1000, 3000] * 4),
        candidate_peak_bytes=np.array([900, 2700] * 4),
    )
    assert _measured(vary(good, timing=paired))["peak_memory_ratio"].interval == pytest.approx((0.9, 0.9))


def test_memory_of_few_sessions_proves_nothing(evidence):
    few = evidence(sessions=7)
    assert _judge(few, metric="peak_memory_ratio", max=1.0).outcome is Outcome.ERROR


def _upper_rank(n, q, alpha):
    """Smallest 1-based rank whose order statistic lies above the quantile with 1 - alpha, by scipy's own law."""
    ranks = np.arange(1, n + 1)
    return int(ranks[binom.sf(ranks - 1, n, q) <= alpha][0])


def _lower_rank(n, q, alpha):
    ranks = np.arange(1, n + 1)
    return int(ranks[binom.cdf(ranks - 1, n, q) <= alpha][-1])


def test_the_slowest_session_counts_for_value_and_both_bounds(evidence, vary):
    sessions, calls = 8, 1000
    random = np.random.default_rng(1)
    times = 1 + random.random((sessions, 10, calls // 10))
    times[5] *= 1.5
    measured = _measured(_with_calls(evidence(), vary, times))["candidate_p99_ms_b64"]
    slow = np.sort(times[5].ravel())
    assert measured.method is Method.ORDER_STATISTIC
    assert measured.unit == "ms"
    assert measured.n == calls
    assert measured.value == slow[989]
    for alpha in (0.05, 0.025):
        lower, upper = measured.bounds(alpha)
        assert upper == slow[_upper_rank(calls, 0.99, alpha) - 1]
        assert lower == slow[_lower_rank(calls, 0.99, alpha / sessions) - 1]
    assert measured.interval == measured.bounds(0.05)


def test_ranks_are_those_of_the_beta_law():
    """An order statistic of uniform numbers is Beta distributed: another road to the same coverage."""
    for alpha in (0.05, 0.01):
        up, down = _upper_rank(1000, 0.99, alpha), _lower_rank(1000, 0.99, alpha)
        assert beta.cdf(0.99, up, 1001 - up) <= alpha < beta.cdf(0.99, up - 1, 1002 - up)
        assert beta.sf(0.99, down, 1001 - down) <= alpha < beta.sf(0.99, down + 1, 1000 - down)


def test_the_largest_bound_counts_even_where_another_session_has_the_largest_value(evidence, vary):
    times = np.ones((8, 1000))
    times[0, :12] = 2.0  # 99th percentile 2, bounded by 2
    times[1, :8] = 9.0  # 99th percentile 1, but its bound is 9
    subject = _with_calls(evidence(calls=100), vary, times.reshape(8, 10, 100))
    measured = _measured(subject)["candidate_p99_ms_b64"]
    assert measured.value == 2.0
    assert measured.bounds(0.05)[1] == 9.0


@pytest.mark.parametrize(("rounds", "calls", "known"), [(11, 27, False), (13, 23, True)])
def test_an_upper_bound_needs_299_calls_in_every_session(evidence, vary, rounds, calls, known):
    times = 1 + np.random.default_rng(2).random((8, rounds, calls))
    subject = _all_calls(evidence(), vary, times)
    measured = _measured(subject)["candidate_p99_ms_b64"]
    assert np.isfinite(measured.bounds(0.05)[1]) == known
    assert measured.interval[1] == (times.max(axis=(1, 2)).max() if known else LONGEST_MS)
    decision = _judge(subject, metric="candidate_p99_ms_b64", max=5.0)
    assert decision.outcome is (Outcome.PASSED if known else Outcome.INCONCLUSIVE)
    if not known:
        assert decision.findings[0].reason is Reason.TOO_SMALL
        assert "time.calls" in decision.findings[0].message


def test_slow_calls_are_proven_and_spikes_in_one_session_suffice(evidence, vary):
    times = np.ones((8, 10, 101)) + np.linspace(0, 0.01, 101)
    assert (
        _judge(_with_calls(evidence(), vary, times), metric="candidate_p99_ms_b64", max=1.5).outcome
        is Outcome.PASSED
    )
    spiked = times.copy()
    spiked[3, :, :4] = 3.0  # 4 % of the calls of one session pair
    finding = _judge(_with_calls(evidence(), vary, spiked), metric="candidate_p99_ms_b64", max=1.5).findings[
        0
    ]
    assert finding.verdict is Verdict.FAIL
    baseline = _judge(_with_calls(evidence(), vary, spiked), metric="baseline_p99_ms_b64", max=1.5).findings[
        0
    ]
    assert baseline.verdict is Verdict.INCONCLUSIVE  # 50 calls a session; the candidate's are not its own


def test_the_lower_end_of_an_interval_is_a_time(evidence):
    low, high = _measured(evidence(calls=3))["candidate_p99_ms_b64"].interval
    assert 0 <= low < high == LONGEST_MS


def test_processor_time_is_shown_and_never_judged(evidence):
    measured = _measured(evidence(ratio=0.25))["energy_proxy_ratio_b64"]
    assert measured.value == pytest.approx(0.25)
    assert measured.unit == "proxy"
    assert "control_log_ratios" not in measured.statistics
    with pytest.raises(PolicyError, match="proxy"):
        _policy(metric="energy_proxy_ratio_b64", max=1.0)


def test_a_processor_clock_too_coarse_leaves_the_proxy_out_and_nothing_else(evidence, vary):
    good = evidence()
    coarse = vary(good.timing, candidate_processor_s=np.zeros_like(good.timing.candidate_processor_s))
    measured = _measured(vary(good, timing=coarse))
    assert "energy_proxy_ratio_b64" not in measured
    assert "latency_ratio_b64" in measured


def test_energy_is_the_ratio_of_what_whole_sessions_took(evidence, vary):
    good = evidence(energy=0.7)
    measured = _measured(good, EnergyCheck())["energy_ratio_b64"]
    assert measured.value == pytest.approx(0.7, rel=1e-5)
    assert measured.unit == "ratio"
    assert _judge(good, metric="energy_ratio_b64", max=1.0).outcome is Outcome.PASSED
    assert _judge(evidence(energy=1.3), metric="energy_ratio_b64", max=1.0).outcome is Outcome.BLOCKED
    ticks = np.zeros((1, 8, 10), np.int64)
    ticks[:, :, 4] = 500  # a counter that ticks once in ten rounds
    coarse = vary(good.timing, baseline_energy_uj=ticks, candidate_energy_uj=np.roll(ticks, 1, axis=2) * 2)
    assert _measured(vary(good, timing=coarse), EnergyCheck())["energy_ratio_b64"].value == pytest.approx(2)


def test_a_rule_on_energy_without_counters_cannot_be_judged_and_says_why(evidence):
    decision = _judge(evidence(), metric="energy_ratio_b64", max=1.0)
    assert decision.outcome is Outcome.ERROR
    [finding] = decision.findings
    assert finding.verdict is Verdict.ERROR
    assert "energy counters (RAPL)" in finding.message


def test_nothing_is_broken_without_counters_where_no_rule_asks_for_energy(evidence):
    assert _judge(evidence(), metric="peak_memory_ratio", max=1.0).outcome is Outcome.PASSED


def test_counters_that_saw_nothing_are_no_energy(evidence, vary):
    good = evidence(energy=0.7)
    none = vary(good.timing, candidate_energy_uj=np.zeros_like(good.timing.candidate_energy_uj))
    with pytest.raises(EvidenceError, match="above 0 in every session"):
        EnergyCheck().measure(vary(good, timing=none))
