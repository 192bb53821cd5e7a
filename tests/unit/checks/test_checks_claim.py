# SPDX-License-Identifier: Apache-2.0
"""Where each claim begins and ends: every boundary of the judge, on measurements built by hand.

Kept free of evidence and checks, so that it takes a second: it runs once for every mutant of the judge.
"""

import dataclasses
import json
import math

import numpy as np
import pytest

from checks import claim as claims
from checks.claim import can_pass, claim_of
from checks.claim_values import FailLevels, Further, grow
from checks.decision import Outcome, absent, combine
from checks.errors import CheckError, PolicyError
from checks.finding import Reason, Verdict
from checks.judge import judge
from checks.measurement import OVERALL, Measurement, Method, Slice
from checks.policy import OperatingPoint, Policy, Rule, kind_of, matches
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.disparity import mover_tango_upper
from checks.statistics.paired import p_harm
from checks.statistics.pairs import worst_difference, worst_ratio
from checks.statistics.planning import minimum_detectable_effect, n_min, n_plan
from checks.statistics.resampling import rare_harm_floor

ALPHA = 0.05
FAIL = FailLevels(family=0.01, time=0.025)
LIMITS = {
    Method.PAIRED_EXACT: "margin",
    Method.BOOTSTRAP_T: "margin",
    Method.JACKKNIFE_T: "margin",
    Method.MOVER_WILSON: "min",
    Method.EXACT_TEST: "alarm",
}
METRICS = {
    Method.PAIRED_EXACT: "change",
    Method.CLOPPER_PEARSON: "share",
    Method.MOVER_TANGO: "change_gap",
    Method.MIETTINEN_NURMINEN: "gap",
    Method.MOVER_WILSON: "group_ratio",
    Method.HODGES_LEHMANN: "time_ratio",
    Method.BOOTSTRAP_T: "mean",
    Method.JACKKNIFE_T: "mean",
    Method.ORDER_STATISTIC: "slowest",
    Method.EXACT_TEST: "search",
    Method.EXACT_VALUE: "figure",
}


def rule_of(method, value, **keys):
    defaults = {
        "id": f"r-{METRICS[method].replace('_', '-')}",
        "kind": kind_of(method),
        "metric": METRICS[method],
        "method": method,
        "per": "",
        "slices": ("overall",),
        "targets": (),
        "limit": LIMITS.get(method, "max"),
        "value": value,
        "min_n": 1,
        "blocking": True,
        "control_tolerance": 0.0,
        "reason": "why",
        "where": "policy.yaml rules[0]",
    }
    return Rule(**(defaults | keys))


def measured(method, value, n, **keys):
    defaults = {"slice": OVERALL, "interval": None, "unit": "1", "statistics": {}}
    return Measurement(metric=METRICS[method], value=value, n=n, method=method, **(defaults | keys))


def changed(losses, gains, n, harm="fall", where=OVERALL, target=""):
    value = (gains - losses) / n
    statistics = {"losses": losses, "gains": gains}
    return measured(
        Method.PAIRED_EXACT,
        value if harm == "fall" else -value,
        n,
        slice=where,
        harm=harm,
        statistics=statistics,
        target=target,
    )


def shared(successes, n):
    return measured(Method.CLOPPER_PEARSON, successes / n, n, statistics={"successes": successes})


def grouped(method, *counts, target=""):
    names = ("losses", "gains", "n") if method is Method.MOVER_TANGO else ("successes", "n")
    levels = tuple("abcdefg"[: len(counts[0])])
    statistics = {name: list(entry) for name, entry in zip(names, counts, strict=True)}
    return measured(
        method,
        0.0,
        max(1, sum(counts[-1])),
        slice=Slice("s"),
        levels=levels,
        statistics=statistics,
        target=target,
    )


def bounded_by(method, low, high, value, n=1000, harm="rise", seen=None):
    def bounds(alpha):
        if seen is not None:
            seen.append(alpha)
        return low, high

    return measured(method, value, n, harm=harm, statistics={"largest_harm": 1.0}, bounds=bounds)


def timed(log_ratios, control=None):
    statistics = {"log_ratios": list(log_ratios)}
    if control is not None:
        statistics["control_log_ratios"] = list(control)
    return measured(
        Method.HODGES_LEHMANN, math.exp(np.median(log_ratios)), len(log_ratios), statistics=statistics
    )


def claim(rule, measurement, alpha=ALPHA, fail=FAIL):
    return claim_of(rule, measurement, alpha, fail)


# --- exact values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value", "kept"),
    [("max", 1.9, True), ("max", 2, True), ("max", 2.1, False)]
    + [("min", 1.9, False), ("min", 2, True), ("min", 2.1, True)],
)
def test_an_exact_value_may_equal_its_limit(limit, value, kept):
    found = claim(rule_of(Method.EXACT_VALUE, 2, limit=limit), measured(Method.EXACT_VALUE, value, 1))
    assert found.passed is kept
    assert found.harm_p == (1.0 if kept else 0.0)
    assert found.bound == value


# --- paired changes ----------------------------------------------------------------------------------------


def test_the_least_size_that_can_pass_does_and_one_less_does_not():
    least = n_min(0.05, ALPHA, ALPHA / 100)
    rule = rule_of(Method.PAIRED_EXACT, 0.05)
    enough, short = claim(rule, changed(0, 0, least)), claim(rule, changed(0, 0, least - 1))
    assert enough.passed
    assert enough.note == ""
    assert not short.passed
    assert short.reason is Reason.TOO_SMALL
    assert f"{least - 1} examples are fewer than the {least}" in short.note
    assert short.further().if_seen >= 1
    # At that size it is no longer the size that keeps it from passing.
    assert claim(rule, changed(1, 0, least)).reason is Reason.UNDERPOWERED
    # Gains can make the p-value small; the size still forbids it.
    lucky = claim(rule, changed(0, 20, least - 10))
    assert lucky.p <= ALPHA
    assert not lucky.passed


def test_a_p_value_that_equals_alpha_passes(monkeypatch):
    monkeypatch.setattr(claims, "p_noninferior", lambda *_, **__: ALPHA)
    assert claim(rule_of(Method.PAIRED_EXACT, 0.05), changed(3, 0, 300)).passed
    monkeypatch.setattr(claims, "p_noninferior", lambda *_, **__: ALPHA * (1 + 1e-12))
    assert not claim(rule_of(Method.PAIRED_EXACT, 0.05), changed(3, 0, 300)).passed


def test_harm_is_claimed_beyond_the_margin_only():
    rule = rule_of(Method.PAIRED_EXACT, 0.125)
    assert claim(rule, changed(32, 0, 256)).harm_p == 1.0  # exactly at the margin
    beyond = claim(rule, changed(33, 0, 256))
    assert beyond.harm_p == p_harm(33, 0, 256, 0.125, gamma=FAIL.family / 100)
    assert 0 < beyond.harm_p < 1
    assert claim(rule, changed(0, 60, 256)).harm_p == 1.0


def test_the_bound_of_what_rises_is_above_it():
    rule = rule_of(Method.PAIRED_EXACT, 0.05)
    falls, rises = claim(rule, changed(8, 1, 400)), claim(rule, changed(8, 1, 400, harm="rise"))
    assert falls.bound < -7 / 400
    assert rises.bound == -falls.bound
    assert rises.passed == falls.passed
    assert rises.p == falls.p


def test_reasons_follow_the_planned_size(monkeypatch):
    rule, seen = rule_of(Method.PAIRED_EXACT, 0.05), changed(14, 3, 300)
    assert not claim(rule, seen).passed
    asked = []

    def plan_of(size):
        def plan(margin, churn, alpha):
            asked.append((margin, churn, alpha))
            return size

        return plan

    for size, reason in [(299, Reason.BORDERLINE), (300, Reason.BORDERLINE), (301, Reason.UNDERPOWERED)]:
        monkeypatch.setattr(claims, "n_plan", plan_of(size))
        assert claim(rule, seen).reason is reason
    assert asked[-1] == (0.05, 17 / 300, ALPHA)
    claim(rule, changed(0, 0, 300))
    assert asked[-1] == (0.05, 1 / 300, ALPHA)  # no flip seen is not no flips


def test_a_slice_without_flips_has_a_plan_too():
    found = claim(rule_of(Method.PAIRED_EXACT, 0.05), changed(0, 0, 100))
    assert found.reason is (Reason.UNDERPOWERED if n_plan(0.05, 1 / 100, ALPHA) > 100 else Reason.BORDERLINE)


def test_the_smallest_harm_that_would_be_seen_follows_the_churn():
    found = claim(rule_of(Method.PAIRED_EXACT, 0.05), changed(6, 3, 300))
    assert found.detectable == minimum_detectable_effect(300, 9 / 300, ALPHA)
    assert claim(rule_of(Method.PAIRED_EXACT, 0.05), changed(0, 0, 300)).detectable < found.detectable


def test_more_examples_settle_it_if_what_was_seen_holds():
    found = claim(rule_of(Method.PAIRED_EXACT, 0.05), changed(3, 1, 120)).further()
    assert (found.if_seen, found.if_equal) == (374 - 120, 178 - 120)  # the specification's own example
    assert claim(rule_of(Method.PAIRED_EXACT, 0.05), changed(12, 0, 120)).further().if_seen is None


def test_too_few_examples_ask_at_least_for_the_least_size():
    least = n_min(0.02, ALPHA, ALPHA / 100)
    found = claim(rule_of(Method.PAIRED_EXACT, 0.02), changed(0, 3, 40)).further()
    assert found.if_seen >= least - 40
    assert found.if_equal >= least - 40


# --- shares ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["min", "max"])
def test_a_share_passes_up_to_its_bound(limit):
    bound_of = clopper_pearson_lower if limit == "min" else clopper_pearson_upper
    bound = bound_of(70, 100, ALPHA)
    harder = 1e-9 if limit == "min" else -1e-9
    at, beyond = (
        claim(rule_of(Method.CLOPPER_PEARSON, value, limit=limit), shared(70, 100))
        for value in (bound, bound + harder)
    )
    assert at.passed
    assert at.bound == bound
    assert not beyond.passed
    assert beyond.reason is Reason.BORDERLINE
    # Far inside and far outside, so that a bound taken from the wrong side shows.
    easy, hard = (0.3, 0.95) if limit == "min" else (0.95, 0.3)
    assert claim(rule_of(Method.CLOPPER_PEARSON, easy, limit=limit), shared(70, 100)).passed
    assert not claim(rule_of(Method.CLOPPER_PEARSON, hard, limit=limit), shared(70, 100)).passed


def _tail(hits, n, share):
    """P(X >= hits) of a binomial, term by term."""
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits, n + 1))


def test_harm_of_a_share_is_an_exact_binomial_tail():
    low = claim(rule_of(Method.CLOPPER_PEARSON, 0.8, limit="min"), shared(70, 100))
    high = claim(rule_of(Method.CLOPPER_PEARSON, 0.6, limit="max"), shared(70, 100))
    assert low.harm_p == pytest.approx(1 - _tail(71, 100, 0.8))
    assert high.harm_p == pytest.approx(_tail(70, 100, 0.6))
    assert claim(rule_of(Method.CLOPPER_PEARSON, 0.01, limit="max"), shared(0, 100)).harm_p == 1.0
    one = claim(rule_of(Method.CLOPPER_PEARSON, 0.01, limit="max"), shared(1, 100))
    assert one.harm_p == pytest.approx(_tail(1, 100, 0.01))


@pytest.mark.parametrize(("limit", "value", "hits"), [("min", 0.9, 20), ("max", 0.1, 0)])
def test_a_share_of_too_few_is_too_small_at_its_best(limit, value, hits):
    rule = rule_of(Method.CLOPPER_PEARSON, value, limit=limit)
    few = claim(rule, shared(hits, 20))
    assert not few.passed
    assert few.reason is Reason.TOO_SMALL
    # (1 - .1)^n <= .05 from 29 on.
    assert few.further().if_seen == pytest.approx(9, abs=1)
    at_worst = claim(rule, shared(20 - hits, 20))
    assert at_worst.reason is Reason.TOO_SMALL
    assert at_worst.further().if_seen is None


def test_growth_is_looked_for_up_to_a_thousand_times_the_data():
    tried = []

    def passes_from(least):
        def passes(size):
            tried.append(size)
            return size >= least

        return passes

    assert grow(passes_from(3), 100).if_seen == pytest.approx(200, abs=10)
    assert grow(passes_from(1.5), 100).if_seen == pytest.approx(50, abs=4)
    assert grow(passes_from(1024), 10).if_seen == pytest.approx(10230, rel=0.03)
    tried.clear()
    assert grow(passes_from(1025), 10).if_seen is None
    assert max(tried) == 1024


# --- groups ------------------------------------------------------------------------------------------------


GROUPS = {
    Method.MOVER_TANGO: ((5, 12), (4, 2), (500, 200)),
    Method.MIETTINEN_NURMINEN: ((160, 140), (200, 200)),
    Method.MOVER_WILSON: ((160, 140), (200, 200)),
}


def _group_bound(method):
    counts = GROUPS[method]
    if method is Method.MOVER_TANGO:
        return mover_tango_upper(12, 2, 200, 5, 4, 500, ALPHA)
    worst = worst_difference if method is Method.MIETTINEN_NURMINEN else worst_ratio
    return worst(*counts, ALPHA).bound


@pytest.mark.parametrize(
    ("n", "share"),
    [(20, 1 / 3), (49, 1 / 3), (50, 0.5), (99, 0.5), (100, 0.75), (199, 0.75), (200, 1.0), (1000, 1.0)],
)
@pytest.mark.parametrize("method", GROUPS)
def test_in_small_groups_bounds_are_drawn_at_less_than_alpha(method, n, share):
    if method is Method.MOVER_TANGO:
        counts, bound = ((0, 1), (0, 0), (2000, n)), mover_tango_upper(1, 0, n, 0, 0, 2000, share * ALPHA)
    else:
        counts = (1800, n // 2), (2000, n)
        worst = worst_difference if method is Method.MIETTINEN_NURMINEN else worst_ratio
        bound = worst(*counts, share * ALPHA).bound
    limit = 0.9 if method is not Method.MOVER_WILSON else 0.1
    found = claim(rule_of(method, limit), grouped(method, *counts))
    assert found.bound == pytest.approx(bound)
    assert found.passed


@pytest.mark.parametrize("method", GROUPS)
def test_groups_too_small_for_any_bound_prove_nothing(method):
    limit = 0.9 if method is not Method.MOVER_WILSON else 0.1
    counts = ((0, 0), (0, 0), (2000, 19)) if method is Method.MOVER_TANGO else ((1990, 19), (2000, 19))
    small = claim(rule_of(method, limit), grouped(method, *counts))
    assert (small.passed, small.reason, small.harm_p) == (False, Reason.TOO_SMALL, 1.0)
    assert "s=b has 19 examples, 20 are the fewest" in small.note
    assert small.further().if_seen > 0


def test_growth_of_a_small_group_stops_where_a_bound_may_be_drawn():
    counts = ((0, 0), (0, 0), (2000, 10))
    found = claim(rule_of(Method.MOVER_TANGO, 0.9), grouped(Method.MOVER_TANGO, *counts))
    assert 0.9 * 2010 < found.further().if_seen <= 2010  # twice the data: 20 units in the smaller group


def test_a_ratio_needs_a_few_successes_in_every_group():
    def passes(successes):
        return claim(rule_of(Method.MOVER_WILSON, 0.01), grouped(Method.MOVER_WILSON, successes, (900, 900)))

    assert passes((300, 5)).passed is False
    assert passes((5, 5)).note == ""
    assert "s=b has 4 of what is counted, 5 are the fewest" in passes((300, 4)).note
    assert not passes((300, 4)).passed
    # Of a difference that is not asked: rates near none are what it is sure of.
    gap = claim(
        rule_of(Method.MIETTINEN_NURMINEN, 0.1), grouped(Method.MIETTINEN_NURMINEN, (0, 0), (900, 900))
    )
    assert gap.passed


@pytest.mark.parametrize("method", GROUPS)
def test_a_gap_must_be_better_than_its_limit(method):
    bound = _group_bound(method)
    looser = -1e-6 if method is Method.MOVER_WILSON else 1e-6
    at, inside = (
        claim(rule_of(method, value), grouped(method, *GROUPS[method])) for value in (bound, bound + looser)
    )
    assert at.bound == bound
    assert not at.passed
    assert inside.passed
    assert not claim(rule_of(method, bound - looser), grouped(method, *GROUPS[method])).passed
    assert inside.pair == (("b", "a") if method is not Method.MIETTINEN_NURMINEN else ("a", "b"))
    assert at.further().if_seen > 0


def test_each_grouped_method_has_a_bound_of_its_own():
    bounds = {
        method: claim(rule_of(method, 0.5), grouped(method, *GROUPS[method])).bound for method in GROUPS
    }
    assert len({round(bound, 6) for bound in bounds.values()}) == 3


@pytest.mark.parametrize("method", GROUPS)
def test_a_level_without_units_is_never_fair(method):
    empty = [(*entry, 0) for entry in GROUPS[method]]
    lenient = 0.01 if method is Method.MOVER_WILSON else 1.0
    found = claim(rule_of(method, lenient), grouped(method, *empty, target="cat"))
    assert not found.passed
    assert found.harm_p == 1.0
    assert found.reason is Reason.TOO_SMALL
    assert found.note == "s has no such examples of cat at c"
    assert claim(rule_of(method, lenient), grouped(method, *GROUPS[method])).passed


@pytest.mark.parametrize(
    ("method", "counts", "limit"),
    [
        (Method.MOVER_TANGO, ((0, 80), (0, 0), (300, 300)), 0.05),
        (Method.MIETTINEN_NURMINEN, ((290, 100), (300, 300)), 0.1),
        (Method.MOVER_WILSON, ((290, 100), (300, 300)), 0.8),
    ],
)
def test_harm_between_groups_is_claimed_where_it_is_proven(method, counts, limit):
    harmed = claim(rule_of(method, limit), grouped(method, *counts))
    assert harmed.harm_p <= FAIL.family
    fine = [tuple([entry[0]] * 2) for entry in counts]
    assert claim(rule_of(method, limit), grouped(method, *fine)).harm_p > FAIL.family


# --- means and quantiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Method.BOOTSTRAP_T, Method.JACKKNIFE_T])
@pytest.mark.parametrize("harm", ["rise", "fall"])
def test_a_mean_must_be_better_than_its_margin(method, harm):
    sign = 1 if harm == "rise" else -1

    def found(low, high, value, n=1000):
        ends = sorted((sign * low, sign * high))
        return claim(rule_of(method, 0.05), bounded_by(method, *ends, sign * value, n, harm))

    assert found(0.01, 0.0499, 0.03).passed
    at = found(0.01, 0.05, 0.03)
    assert not at.passed
    assert at.bound == sign * 0.05
    assert at.reason is Reason.BORDERLINE
    assert at.note == ""
    assert at.harm_p == 1.0
    assert found(0.05, 0.09, 0.07).harm_p == 1.0
    assert found(0.0501, 0.09, 0.07).harm_p == FAIL.family
    # ((.07 - .03) / .02)^2 times the data.
    assert found(0.01, 0.07, 0.03, 2000).further().if_seen == pytest.approx(6000, abs=1)
    assert found(0.06, 0.09, 0.07).further().if_seen is None
    assert found(0.05, 0.05, 0.05).further().if_seen is None


def test_a_mean_needs_the_units_that_a_rare_catastrophe_would_show_in():
    rule = rule_of(Method.BOOTSTRAP_T, 0.05)
    floor = rare_harm_floor(ALPHA, 0.05, 1.0)
    enough, short = (
        claim(rule, bounded_by(Method.BOOTSTRAP_T, 0.0, 0.01, 0.0, n)) for n in (floor, floor - 1)
    )
    assert enough.passed
    assert not short.passed
    assert short.reason is Reason.TOO_SMALL
    assert f"{floor - 1} examples are fewer than the {floor}" in short.note
    assert short.further().if_seen == 1  # the data alone would ask for fewer
    open_ = claim(rule, bounded_by(Method.BOOTSTRAP_T, 0.0, 0.06, 0.03, floor))
    assert (open_.reason, open_.note) == (Reason.BORDERLINE, "")
    worse = claim(rule, bounded_by(Method.BOOTSTRAP_T, 0.05, 0.07, 0.06, floor - 3))
    assert worse.further().if_seen == 3


def test_a_mean_that_cannot_be_bounded_passes_nothing():
    found = claim(rule_of(Method.BOOTSTRAP_T, 0.05), bounded_by(Method.BOOTSTRAP_T, -math.inf, math.inf, 0.0))
    assert not found.passed
    assert found.bound is None
    assert found.harm_p == 1.0
    assert found.reason is Reason.TOO_SMALL
    assert "fewer than ten examples differ" in found.note


@pytest.mark.parametrize(
    ("method", "value", "levels"),
    [
        (Method.ORDER_STATISTIC, 0.0, [ALPHA, FAIL.time]),
        (Method.BOOTSTRAP_T, 0.051, [ALPHA, FAIL.family]),
        # Drawing a strict bound is costly, and an estimate within the margin proves no harm.
        (Method.BOOTSTRAP_T, 0.05, [ALPHA]),
        (Method.BOOTSTRAP_T, 0.0, [ALPHA]),
    ],
)
def test_bounds_are_asked_for_at_alpha_and_at_the_level_of_harm(method, value, levels):
    seen = []
    claim(rule_of(method, 0.05), bounded_by(method, 0.0, 0.1, value, seen=seen))
    assert seen == levels


@pytest.mark.parametrize("method", [Method.BOOTSTRAP_T, Method.ORDER_STATISTIC])
def test_a_measurement_without_bounds_breaks_its_contract(method):
    broken = measured(method, 0.0, 1000, statistics={"largest_harm": 1.0})
    with pytest.raises(CheckError, match="expected bounds"):
        claim(rule_of(method, 0.05), broken)


@pytest.mark.parametrize(
    ("low", "high", "passed", "harm"),
    [(1, 4.9, True, 1.0), (1, 5, True, 1.0), (1, 5.1, False, 1.0)]
    + [(5, 6, False, 1.0), (5.1, 6, False, 0.0), (-math.inf, math.inf, False, 1.0)],
)
def test_a_quantile_may_equal_its_limit(low, high, passed, harm):
    found = claim(
        rule_of(Method.ORDER_STATISTIC, 5), bounded_by(Method.ORDER_STATISTIC, low, high, max(low, 3))
    )
    assert found.passed is passed
    assert found.harm_p == harm
    assert found.bound == (high if math.isfinite(high) else None)
    assert found.reason is (Reason.BORDERLINE if math.isfinite(high) else Reason.TOO_SMALL)


# --- times -------------------------------------------------------------------------------------------------


def test_times_must_be_better_than_their_limit():
    ratios = [math.log(0.9)] * 8
    at, inside = (
        claim(rule_of(Method.HODGES_LEHMANN, value, control_tolerance=0.05), timed(ratios))
        for value in (0.9, 0.9001)
    )
    assert not at.passed
    assert at.harm_p == 1.0
    assert at.reason is Reason.BORDERLINE
    assert at.bound == pytest.approx(0.9)
    assert at.detectable is not None
    assert inside.passed
    beyond = claim(rule_of(Method.HODGES_LEHMANN, 0.8999, control_tolerance=0.05), timed(ratios))
    assert beyond.harm_p == 0.0
    assert not beyond.passed


def test_four_sessions_have_no_bound():
    found = claim(rule_of(Method.HODGES_LEHMANN, 1.0), timed([math.log(0.5)] * 4))
    assert not found.passed
    assert found.bound is None
    assert found.detectable is None
    assert found.reason is Reason.TOO_SMALL
    assert found.harm_p == 1.0


def test_a_host_at_its_tolerance_is_quiet_enough():
    fast, control = [math.log(0.5)] * 8, [math.log(1.25)] * 8
    away = abs(math.exp(math.log(1.25)) - 1)
    at, noisy = (
        claim(rule_of(Method.HODGES_LEHMANN, 1.0, control_tolerance=tolerance), timed(fast, control))
        for tolerance in (away, away - 1e-9)
    )
    assert at.passed
    assert not noisy.passed
    assert noisy.reason is Reason.NOISY_HOST
    assert noisy.harm_p == 1.0
    quiet = claim(rule_of(Method.HODGES_LEHMANN, 1.0, control_tolerance=0.05), timed(fast, [0.0] * 8))
    assert quiet.passed


def test_what_two_copies_differ_by_counts_against_the_candidate():
    control = [math.log(1.04)] * 8
    rule = rule_of(Method.HODGES_LEHMANN, 1.0, control_tolerance=0.05)
    assert not claim(rule, timed([math.log(0.97)] * 8, control)).passed
    assert claim(rule, timed([math.log(0.95)] * 8, control)).passed
    # A lead of exactly the bias is no lead.
    assert not claim(rule, timed([-math.log(1.04)] * 8, control)).passed


# --- fewest units ------------------------------------------------------------------------------------------


def test_the_policy_may_ask_for_more_units_than_the_statistics_do():
    rule = rule_of(Method.PAIRED_EXACT, 0.05, min_n=200)
    assert claim(rule, changed(0, 0, 200)).passed
    short = claim(rule, changed(0, 0, 199))
    assert not short.passed
    assert short.reason is Reason.TOO_SMALL
    assert short.note == "199 examples are fewer than the min_n 200 of the policy"
    assert short.further() == Further(1, 1)


def test_the_smallest_level_must_have_the_fewest_units():
    method = Method.MIETTINEN_NURMINEN
    counts = ((80, 70), (100, 300))
    assert claim(rule_of(method, 0.9, min_n=100), grouped(method, *counts)).passed
    assert not claim(rule_of(method, 0.9, min_n=101), grouped(method, *counts)).passed
    none = claim(rule_of(method, 0.9, min_n=101), grouped(method, (80, 0), (100, 0)))
    assert "no such examples" in none.note


def test_a_search_is_significant_up_to_its_level():
    for p, passed in ((0.01, False), (0.0100001, True)):
        found = claim(
            rule_of(Method.EXACT_TEST, 0.01), measured(Method.EXACT_TEST, 1.0, 10, statistics={"p": p})
        )
        assert found.passed is passed
        assert found.p == found.harm_p == p


# --- the judge ---------------------------------------------------------------------------------------------


def policy_of(*rules, alpha=ALPHA, alpha_fail=0.05, points=()):
    return Policy("p", alpha, alpha_fail, tuple(rules), operating_points=tuple(points))


def judged(measurements, *rules, levels=None, broken=None, classes=(), share=1, same_file=False, **keys):
    policy = policy_of(*rules, **keys)
    return judge(
        measurements,
        policy,
        alpha=policy.alpha * share,
        levels=levels or {"s": ("a", "b"), "t": ("x", "y")},
        broken=broken or {},
        classes=classes,
        same_file=same_file,
    )


def verdicts(findings):
    return [str(finding.verdict) for finding in findings]


CHANGE = rule_of(Method.PAIRED_EXACT, 0.05)
FIGURE = rule_of(Method.EXACT_VALUE, 2)
TIME = rule_of(Method.HODGES_LEHMANN, 1.0, control_tolerance=0.05)
SEARCH = rule_of(Method.EXACT_TEST, 0.01)


def searched(p, where=OVERALL):
    return measured(Method.EXACT_TEST, 1.0, 10, statistics={"p": p}, slice=where)


def test_a_policy_of_asserts_alone_can_be_judged():
    assert verdicts(judged([measured(Method.EXACT_VALUE, 2, 1)], FIGURE)) == ["PASS"]
    assert verdicts(judged([measured(Method.EXACT_VALUE, 3, 1)], FIGURE)) == ["FAIL"]


def test_an_assert_is_no_part_of_the_family_of_claims():
    """p of harm is .0407 for (12, 1, 100): enough alone, not as one of two; a file size makes no second."""
    harmed = changed(12, 1, 100)
    assert verdicts(judged([harmed], CHANGE)) == ["FAIL"]
    size = measured(Method.EXACT_VALUE, 2, 1)
    assert verdicts(judged([harmed, size], CHANGE, FIGURE)) == ["FAIL", "PASS"]
    other = rule_of(Method.PAIRED_EXACT, 0.05, id="other")
    assert verdicts(judged([harmed], CHANGE, other)) == ["INCONCLUSIVE"] * 2


def test_claims_about_time_take_half_of_the_error():
    """p of harm .0407 is above half of .05."""
    slow, fast = timed([math.log(1.5)] * 8), timed([math.log(0.5)] * 8)
    assert verdicts(judged([changed(12, 1, 100), fast], CHANGE, TIME)) == ["INCONCLUSIVE", "PASS"]
    assert verdicts(judged([slow], TIME)) == ["FAIL"]
    # Eight sessions can show harm at 1/256 and no less: shared by five claims, .025 still allows it; by ten not.
    rules = [
        rule_of(Method.HODGES_LEHMANN, 1.0, control_tolerance=0.05, id=f"t{index}") for index in range(10)
    ]
    assert set(verdicts(judged([slow], *rules[:5]))) == {"FAIL"}
    assert set(verdicts(judged([slow], *rules))) == {"INCONCLUSIVE"}


def test_bounds_of_groups_are_asked_for_at_their_share_of_the_error():
    """A bound counts as a p-value at the level it was asked at: the strictest that Holm would use."""
    gap = rule_of(Method.MOVER_TANGO, 0.05, slices=("s",))
    other = rule_of(Method.MOVER_TANGO, 0.05, slices=("s",), id="other")
    harmed = grouped(Method.MOVER_TANGO, (0, 80), (0, 0), (300, 300))
    assert verdicts(judged([harmed], gap, other)) == ["FAIL", "FAIL"]


def test_one_file_is_never_told_that_it_is_slower_than_itself():
    slow = timed([math.log(1.5)] * 8)
    size = measured(Method.EXACT_VALUE, 3, 1)
    assert verdicts(judged([slow, size], TIME, FIGURE)) == ["FAIL", "FAIL"]
    assert verdicts(judged([slow, size], TIME, FIGURE, same_file=True)) == ["INCONCLUSIVE", "FAIL"]
    late = bounded_by(Method.ORDER_STATISTIC, 6, 7, 6.5)
    slo = rule_of(Method.ORDER_STATISTIC, 5)
    assert verdicts(judged([late], slo, same_file=True)) == ["FAIL"]


def test_searches_are_corrected_within_their_rule():
    a, b = Slice("s", "a"), Slice("s", "b")
    rule = rule_of(Method.EXACT_TEST, 0.01, slices=("s",))
    assert verdicts(judged([searched(0.006, a), searched(0.5, b)], rule)) == ["NO-FINDING"] * 2
    assert verdicts(judged([searched(0.004, a), searched(0.5, b)], rule)) == ["FAIL", "NO-FINDING"]
    assert verdicts(judged([searched(0.006, a), searched(0.006, b)], rule)) == ["NO-FINDING"] * 2
    # Another rule's searches do not count.
    other = rule_of(Method.EXACT_TEST, 0.01, id="other")
    both = judged([searched(0.006), searched(0.001, a), searched(0.5, b)], other, rule)
    assert verdicts(both) == ["FAIL", "FAIL", "NO-FINDING"]
    assert verdicts(judged([searched(0.5), changed(0, 0, 300)], SEARCH, CHANGE)) == ["NO-FINDING", "PASS"]


def test_a_search_that_did_not_run_says_so_and_a_broken_one_is_an_error():
    [silent] = judged([], SEARCH)
    assert silent.verdict is Verdict.NOT_RUN
    assert "did not run on overall" in silent.message
    [broken] = judged([], SEARCH, broken={"search": "check x broke"})
    assert broken.verdict is Verdict.ERROR
    assert broken.message == "could not judge: check x broke"
    [missing] = judged([], CHANGE)
    assert missing.verdict is Verdict.ERROR
    assert missing.message == "could not judge: change was not measured on overall"


@pytest.mark.parametrize(("count", "more"), [(5, ""), (6, " and 1 more")])
def test_missing_slices_are_named_up_to_five(count, more):
    levels = {"s": tuple("abcdefg"[:count])}
    [found] = judged([], rule_of(Method.PAIRED_EXACT, 0.05, slices=("s",)), levels=levels)
    assert found.message == f"could not judge: change was not measured on s=a, s=b, s=c, s=d, s=e{more}"


def test_a_rule_is_judged_on_each_level_and_a_grouped_one_on_the_attribute():
    levels = [Slice("s", "a"), Slice("s", "b")]
    rule = rule_of(Method.PAIRED_EXACT, 0.05, slices=("s",))
    assert verdicts(judged([changed(0, 0, 300, where=where) for where in levels], rule)) == ["PASS", "PASS"]
    assert verdicts(judged([changed(0, 0, 300, where=levels[0])], rule)) == ["PASS", "ERROR"]
    gap = rule_of(Method.MOVER_TANGO, 0.05, slices=("s",))
    assert verdicts(judged([grouped(Method.MOVER_TANGO, (0, 0), (0, 0), (300, 300))], gap)) == ["PASS"]
    alone = rule_of(Method.PAIRED_EXACT, 0.05, slices=("s=b",))
    assert verdicts(judged([changed(0, 0, 300, where=where) for where in levels], alone)) == ["PASS"]


@pytest.mark.parametrize("selector", ["u", "s=c", "u=a", "=a"])
def test_a_slice_that_nothing_knows_is_the_policys_error(selector):
    with pytest.raises(PolicyError, match="expected overall"):
        judged([changed(0, 0, 300)], rule_of(Method.PAIRED_EXACT, 0.05, slices=(selector,)))


def test_findings_stand_in_the_order_of_the_rules():
    found = judged([measured(Method.EXACT_VALUE, 2, 1), changed(0, 0, 300)], CHANGE, FIGURE)
    assert [finding.rule.id for finding in found] == [CHANGE.id, FIGURE.id]


def test_each_rule_answers_for_its_own_measurements():
    """A rule whose slice is missing is an error beside one of the same metric that has its own."""
    whole, part = CHANGE, rule_of(Method.PAIRED_EXACT, 0.05, id="part", slices=("s=a",))
    found = judged([changed(0, 0, 300)], whole, part)
    assert [(finding.rule.id, str(finding.verdict)) for finding in found] == [
        (CHANGE.id, "PASS"),
        ("part", "ERROR"),
    ]


def test_classes_and_points_are_judged_each_and_strangers_refused():
    rule = rule_of(Method.PAIRED_EXACT, 0.05, per="class")
    one = measured(Method.PAIRED_EXACT, 0.0, 300, target="cat", statistics={"losses": 0, "gains": 0})
    assert verdicts(judged([one], rule, classes=("cat",))) == ["PASS"]
    found = judged([one], rule, classes=("cat", "dog"))
    assert verdicts(found) == ["PASS", "ERROR"]
    assert "overall for dog" in found[1].message
    assert verdicts(
        judged(
            [one], rule_of(Method.PAIRED_EXACT, 0.05, per="class", targets=("cat",)), classes=("cat", "dog")
        )
    ) == ["PASS"]
    with pytest.raises(PolicyError, match="emu"):
        judged([one], rule_of(Method.PAIRED_EXACT, 0.05, per="class", targets=("emu",)), classes=("cat",))
    point = rule_of(Method.PAIRED_EXACT, 0.05, per="operating_point", targets=("cat",))
    points = [OperatingPoint("cat", "x", 0.5, "why")]
    assert verdicts(judged([one], point, points=points)) == ["PASS"]


def _cell(losses, n):
    return changed(losses, 0, n, where=Slice("s*t", "a*x"))


def test_a_combination_too_small_to_be_judged_is_listed():
    cells, parents = (
        rule_of(Method.PAIRED_EXACT, 0.10, slices=("s*t",)),
        rule_of(Method.PAIRED_EXACT, 0.05, id="o", slices=("s", "t")),
    )
    levels = {"s*t": ("a*x",), "s": ("a",), "t": ("x",)}
    least = n_min(0.10, ALPHA)

    def listed(losses, n, rule=cells):
        whole = [changed(0, 0, 300, where=Slice(*parent)) for parent in (("s", "a"), ("t", "x"))]
        found = judged([*whole, _cell(losses, n)], parents, rule, levels=levels)
        return [(str(f.verdict), f.listed) for f in found if f.rule is rule]

    assert listed(0, least) == [("PASS", False)]
    # It has the size; that it does not pass is its own fault.
    assert listed(3, least) == [("INCONCLUSIVE", False)]
    # Its rule has then judged nothing, and must not pass for that.
    assert listed(0, least - 1) == [("INCONCLUSIVE", True), ("INCONCLUSIVE", False)]
    # Whoever asks for more examples than the statistics need is not answered with a list.
    asks = rule_of(Method.PAIRED_EXACT, 0.10, slices=("s*t",), min_n=60)
    assert listed(0, 59, asks) == [("INCONCLUSIVE", False)]
    assert listed(0, 60, asks) == [("PASS", False)]
    assert listed(0, least - 1, asks) == [("INCONCLUSIVE", True), ("INCONCLUSIVE", False)]
    assert listed(3, 40, rule_of(Method.PAIRED_EXACT, 0.10, slices=("s*t",), min_n=3)) == [
        ("INCONCLUSIVE", False)
    ]
    proven = listed(30, least + 40)
    assert proven == [("FAIL", False)]


def test_other_slices_are_never_listed():
    part = rule_of(Method.PAIRED_EXACT, 0.10, slices=("s=a",))
    [found] = judged([changed(0, 0, 10, where=Slice("s", "a"))], part)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not found.listed
    assert found.further_examples is not None
    gaps = rule_of(Method.MIETTINEN_NURMINEN, 0.3, slices=("s*t",), min_n=30)
    small = grouped(Method.MIETTINEN_NURMINEN, (4, 4), (5, 5))
    small = Measurement(**{**small.__dict__, "slice": Slice("s*t")})
    [found] = judged([small], gaps, levels={"s*t": ("a", "b")})
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not found.listed
    # 0.9^28 > 0.05: with so few not even all right would do.
    share = rule_of(Method.CLOPPER_PEARSON, 0.9, slices=("s*t",), limit="min")
    parents = rule_of(Method.CLOPPER_PEARSON, 0.9, id="p", slices=("s", "t=x"), limit="min")
    cells = [("s*t", "a*x"), ("s", "a"), ("t", "x")]
    found = judged(
        [Measurement(**{**shared(28, 28).__dict__, "slice": Slice(*cell)}) for cell in cells],
        share,
        parents,
        levels={"s*t": ("a*x",), "s": ("a",), "t": ("x",)},
    )
    found = [f for f in found if f.rule is share]
    assert [(str(f.verdict), f.listed) for f in found] == [("INCONCLUSIVE", True), ("INCONCLUSIVE", False)]


@pytest.mark.parametrize(
    ("asked", "answered", "listed"),
    [
        ((), (), True),
        (("a",), (), True),
        (("a",), ("a",), True),
        (("a",), ("a", "b"), True),
        (("a", "b"), ("a",), False),
        (("a",), ("b",), False),
        ((), ("a", "b"), False),
    ],
)
def test_parents_answer_for_the_classes_they_judge(asked, answered, listed):
    cells = rule_of(Method.PAIRED_EXACT, 0.10, slices=("s*t",), per="class", targets=asked)
    parents = rule_of(Method.PAIRED_EXACT, 0.05, id="p", slices=("s", "t"), per="class", targets=answered)
    entries = [changed(0, 0, 25, where=Slice("s*t", "a*x"), target=name) for name in asked or ("a", "b")]
    found = judge(entries, policy_of(cells, parents), alpha=ALPHA, broken={}, classes=("a", "b"),
                  levels={"s*t": ("a*x",), "s": ("a",), "t": ("x",)})  # fmt: skip
    assert {f.listed for f in found if f.rule is cells and f.measurement} == {listed}


@pytest.mark.parametrize(
    ("limit", "own", "theirs", "listed"),
    [
        ("margin", 0.10, 0.05, True),
        ("margin", 0.10, 0.10, True),
        ("margin", 0.10, 0.11, False),
        ("min", 0.90, 0.95, True),
        ("min", 0.90, 0.90, True),
        ("min", 0.90, 0.89, False),
    ],
)
def test_parents_answer_if_they_are_as_strict(limit, own, theirs, listed):
    method = Method.PAIRED_EXACT if limit == "margin" else Method.CLOPPER_PEARSON
    cells = rule_of(method, own, slices=("s*t",), limit=limit)
    parents = rule_of(method, theirs, id="p", slices=("s", "t"), limit=limit)
    entry = changed(0, 0, 25) if limit == "margin" else shared(28, 28)
    entry = dataclasses.replace(entry, slice=Slice("s*t", "a*x"))
    levels = {"s*t": ("a*x",), "s": ("a",), "t": ("x",)}
    found = judge([entry], policy_of(cells, parents), alpha=ALPHA, broken={}, levels=levels)
    assert {f.listed for f in found if f.rule is cells and f.measurement} == {listed}


@pytest.mark.parametrize(("limit", "value"), [("min", 0.05**0.1), ("max", 1 - 0.05**0.1)])
def test_ten_examples_can_just_prove_what_ten_can(limit, value):
    rule = rule_of(Method.CLOPPER_PEARSON, value, limit=limit)
    bound = clopper_pearson_lower(10, 10, ALPHA) if limit == "min" else clopper_pearson_upper(0, 10, ALPHA)
    exact = dataclasses.replace(rule, value=bound)
    harder = dataclasses.replace(rule, value=bound + (1e-9 if limit == "min" else -1e-9))
    assert bound == pytest.approx(value)
    assert can_pass(exact, 10, ALPHA)
    assert not can_pass(harder, 10, ALPHA)
    assert not can_pass(exact, 9, ALPHA)


@pytest.mark.parametrize(
    "change",
    [
        {"slices": ("s",)},
        {"slices": ("s", "t=y")},
        {"slices": ("s*t",)},
        {"blocking": False},
        {"metric": "recall_change"},
        {"method": Method.CLOPPER_PEARSON, "kind": "assert"},
        {"limit": "min"},
        {"value": 0.11},  # looser than the combination's own margin
    ],
)
def test_a_combination_that_no_parent_answers_for_keeps_the_gate_closed(change):
    cells = rule_of(Method.PAIRED_EXACT, 0.10, slices=("s*t",))
    parents = dataclasses.replace(rule_of(Method.PAIRED_EXACT, 0.05, id="p", slices=("s", "t")), **change)
    found = judge([_cell(5, 25)], policy_of(cells, parents), alpha=ALPHA, broken={}, classes=("a",),
                  levels={"s*t": ("a*x",), "s": ("a",), "t": ("x", "y")})  # fmt: skip
    [cell] = [finding for finding in found if finding.rule is cells and finding.measurement]
    assert cell.verdict is Verdict.INCONCLUSIVE
    assert not cell.listed
    assert cell.blocking


def test_only_what_is_inconclusive_says_how_much_more_would_settle_it():
    [passed] = judged([changed(0, 0, 300)], CHANGE)
    assert (passed.further_examples, str(passed.reason)) == (None, "")
    [open_] = judged([changed(14, 3, 300)], CHANGE)
    assert open_.verdict is Verdict.INCONCLUSIVE
    assert open_.further_examples > 0
    assert open_.reason is not Reason.NONE


def test_a_measurement_that_breaks_its_contract_is_an_error_of_its_rule_alone():
    broken = measured(Method.PAIRED_EXACT, 0.0, 300)
    found = judged([broken, measured(Method.EXACT_VALUE, 2, 1)], CHANGE, FIGURE)
    assert verdicts(found) == ["ERROR", "PASS"]


def test_a_share_of_alpha_is_what_is_judged_at():
    # (9, 2, 700): p = .0427 for a margin of .02, enough alone, not for one of two.
    rule = rule_of(Method.PAIRED_EXACT, 0.02)
    assert verdicts(judged([changed(9, 2, 700)], rule)) == ["PASS"]
    assert verdicts(judged([changed(9, 2, 700)], rule, share=0.5)) == ["INCONCLUSIVE"]


# --- the decision ------------------------------------------------------------------------------------------


def decided(*measurements, rules, **keys):
    return combine(judged(list(measurements), *rules, **keys))


def test_only_pass_and_no_finding_open():
    advisory = rule_of(Method.PAIRED_EXACT, 0.05, blocking=False)
    fine, harmed, unsure = changed(0, 0, 300), changed(90, 0, 300), changed(14, 3, 300)
    figure = measured(Method.EXACT_VALUE, 2, 1)
    assert decided(fine, searched(0.5), rules=[CHANGE, SEARCH]) is Outcome.PASSED
    assert decided(fine, searched(1e-9), rules=[CHANGE, SEARCH]) is Outcome.BLOCKED
    assert decided(fine, rules=[CHANGE, SEARCH]) is Outcome.INCONCLUSIVE
    assert decided(harmed, rules=[CHANGE]) is Outcome.BLOCKED
    assert decided(unsure, rules=[CHANGE]) is Outcome.INCONCLUSIVE
    assert decided(harmed, figure, rules=[advisory, FIGURE]) is Outcome.PASSED
    assert decided(figure, rules=[advisory, FIGURE]) is Outcome.ERROR
    assert decided(harmed, rules=[advisory]) is Outcome.ERROR
    assert combine([]) is Outcome.ERROR


def test_an_empty_slot_is_closed_and_may_err_nowhere():
    value = absent()
    assert (value["outcome"], value["open"], value["alpha_each"]) == ("absent", False, 0.0)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_an_error_that_nobody_granted_is_refused(share):
    with pytest.raises(ValueError, match=r"expected alpha in \(0, 0.05\]"):
        judged([changed(9, 2, 700)], CHANGE, share=share)


def test_a_decision_keeps_what_was_asked_for_and_opens_on_proof(evidence):
    from checks.accuracy import AccuracyCheck
    from checks.decision import decide
    from checks.flips import FlipsCheck
    from checks.policy import parse_policy
    from checks.protocol import metrics_of

    checks = (AccuracyCheck(), FlipsCheck())
    rule = {"id": "r", "kind": "bounded", "metric": "accuracy_change", "margin": 0.05, "reason": "why"}
    value = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05}
    asked = rule | {
        "id": "s",
        "kind": "screen",
        "metric": "loss_concentration",
        "slices": ["light"],
        "alarm": 0.01,
    }
    del asked["margin"]
    plain, searching = (
        decide(checks, evidence(300), parse_policy(value | {"rules": rules}, metrics_of(checks)), alpha=ALPHA)
        for rules in ([rule], [rule, asked])
    )
    assert plain.open
    assert plain.to_json()["open"] is True
    assert not [m for m in plain.measurements if m.metric == "loss_concentration"]
    kept = [str(m.slice) for m in searching.measurements if m.metric == "loss_concentration"]
    assert sorted(kept) == ["light=bright", "light=dim", "light=even"]
    harmed = decide(
        checks,
        evidence(300, losses=60),
        parse_policy(value | {"rules": [rule]}, metrics_of(checks)),
        alpha=ALPHA,
    )
    assert not harmed.open
    assert json.loads(json.dumps(harmed.to_json(), allow_nan=False))["open"] is False


# --- rules and what they select ----------------------------------------------------------------------------


def test_a_rule_selects_by_metric_slice_and_target():
    measurement = measured(
        Method.PAIRED_EXACT,
        0.0,
        300,
        slice=Slice("s", "a"),
        target="cat",
        statistics={"losses": 0, "gains": 0},
    )
    for keys, wanted in (
        ({"slices": ("s",)}, True),
        ({"slices": ("s=a",)}, True),
        ({"slices": ("t", "s=a")}, True),
        ({"slices": ("overall",)}, False),
        ({"slices": ("s=b",)}, False),
        ({"slices": ("t",)}, False),
        ({"slices": ("s",), "targets": ("cat", "dog")}, True),
        ({"slices": ("s",), "targets": ("dog",)}, False),
        ({"slices": ("s",), "metric": "other"}, False),
    ):
        assert matches(rule_of(Method.PAIRED_EXACT, 0.05, **keys), measurement) is wanted, keys


def test_each_method_has_its_kind():
    kinds = {method: kind_of(method) for method in Method}
    assert [method for method, kind in kinds.items() if kind == "assert"] == [Method.EXACT_VALUE]
    assert [method for method, kind in kinds.items() if kind == "screen"] == [Method.EXACT_TEST]
    assert set(kinds.values()) == {"assert", "screen", "bounded"}
