# SPDX-License-Identifier: Apache-2.0
"""Sizes, power and the smallest margin: known values and agreement with one another."""

from __future__ import annotations

from math import ceil, log, nan

import pytest

from checks.statistics.paired import p_noninferior
from checks.statistics.planning import (
    MoreExamples,
    further_examples,
    minimum_detectable_effect,
    n_min,
    n_plan,
    power,
)

ALPHA = 0.05


@pytest.mark.parametrize(
    ("margin", "expected"), [(0.01, 300), (0.02, 149), (0.03, 99), (0.05, 59), (0.10, 29)]
)
def test_n_min_known_values(margin, expected):
    assert n_min(margin, ALPHA) == expected
    assert n_min(margin, ALPHA, 5e-4) == expected


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.05 / 3, 0.01, 0.001])
@pytest.mark.parametrize("margin", [0.01, 0.05, 0.285, 0.7])
def test_n_min_is_the_first_size_that_passes(margin, alpha):
    n = n_min(margin, alpha)
    assert p_noninferior(0, 0, n, margin, gamma=alpha / 100) <= alpha
    assert n == 1 or p_noninferior(0, 0, n - 1, margin, gamma=alpha / 100) > alpha
    assert n >= ceil(log(alpha * 0.99) / log(1 - margin))


def test_n_min_follows_gamma():
    assert n_min(0.02, ALPHA, 0.0) < n_min(0.02, ALPHA, 0.01)


@pytest.mark.parametrize(
    ("margin", "churn", "options", "expected"),
    [
        (0.01, 0.05, {}, 3162),
        (0.01, 0.10, {}, 6215),
        (0.01, 0.02, {"change": -0.0025}, 2419),
        (0.02, 0.02, {"change": -0.005}, 716),
        (0.03, 0.02, {"change": -0.0075}, 373),
        (0.05, 0.02, {"change": -0.0125}, 173),
        (0.01, 0.02, {"power": 0.8**0.05}, 3343),
        (0.02, 0.02, {"power": 0.8**0.05}, 951),
        (0.03, 0.02, {"power": 0.8**0.05}, 476),
        (0.05, 0.02, {"power": 0.8**0.05}, 208),
        (0.10, 0.02, {"power": 0.8**0.05}, 71),
    ],
)
def test_n_plan_known_values(margin, churn, options, expected):
    assert n_plan(margin, churn, ALPHA, **options) == expected


def test_n_plan_never_falls_below_n_min():
    assert n_plan(0.1, 0.0, ALPHA) == n_min(0.1, ALPHA)
    assert n_plan(0.1, 0.0, ALPHA, power=0.01) == n_min(0.1, ALPHA)


def test_n_plan_grows_with_churn_power_and_harm_and_falls_with_the_margin():
    base = n_plan(0.02, 0.05, ALPHA)
    assert n_plan(0.02, 0.06, ALPHA) > base
    assert n_plan(0.02, 0.05, ALPHA, power=0.9) > base
    assert n_plan(0.02, 0.05, ALPHA, change=-0.005) > base
    assert n_plan(0.02, 0.05, 0.01) > base
    assert n_plan(0.025, 0.05, ALPHA) < base


@pytest.mark.parametrize(
    ("n", "margin", "expected"),
    [
        (50, 0.02, 0.055),
        (100, 0.02, 0.263),
        (200, 0.02, 0.484),
        (500, 0.02, 0.880),
        (1000, 0.02, 0.993),
        (50, 0.05, 0.245),
        (100, 0.05, 0.789),
        (200, 0.05, 0.986),
    ],
)
def test_power_known_values(n, margin, expected):
    assert power(n, margin, 0.02, ALPHA) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize(
    ("n", "margin", "churn"),
    [(404, 0.02, 0.02), (259, 0.02, 0.01), (158, 0.05, 0.05), (265, 0.05, 0.10), (50, 0.10, 0.05)],
)
def test_exactly_planned_sizes_reach_their_power(n, margin, churn):
    assert 0.8 <= power(n, margin, churn, ALPHA) < 0.87


@pytest.mark.parametrize("margin", [0.03, 0.05, 0.1])
@pytest.mark.parametrize("churn", [0.01, 0.05, 0.1])
def test_the_planning_formula_is_close_to_exact_power(margin, churn):
    n = n_plan(margin, churn, ALPHA)
    if n > n_min(margin, ALPHA):
        assert power(n, margin, churn, ALPHA) == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize(
    ("n", "margin", "churn"), [(58, 0.05, 0.0), (59, 0.05, 0.0), (2994, 0.001, 0.0), (3005, 0.001, 0.0)]
)
def test_power_without_churn_is_all_or_nothing(n, margin, churn):
    assert power(n, margin, churn, ALPHA) == float(n >= n_min(margin, ALPHA))


@pytest.mark.parametrize("n", [40, 100, 250])
@pytest.mark.parametrize("margin", [0.03, 0.1])
@pytest.mark.parametrize("churn", [0.0, 0.02, 0.2])
def test_power_at_the_margin_is_at_most_alpha(n, margin, churn):
    assert power(n, margin, margin + churn, ALPHA, change=-margin) <= ALPHA


@pytest.mark.parametrize(("n", "margin", "churn"), [(301, 0.08, 0.3), (610, 0.04, 0.1), (2000, 0.015, 0.031)])
def test_the_approximation_meets_the_enumeration_where_they_change_over(n, margin, churn):
    from checks.statistics.planning import _enumerated_power

    assert n * churn > 60
    approximate = power(n, margin, churn, ALPHA)
    assert 0.3 < approximate < 0.99
    assert approximate == pytest.approx(_enumerated_power(n, margin, churn / 2, churn / 2, ALPHA), abs=0.03)


def test_the_approximation_without_variance_is_all_or_nothing():
    assert power(400, 0.1, 1.0, ALPHA, change=1.0) == 1.0
    assert power(400, 0.1, 1.0, ALPHA, change=-1.0) == 0.0


@pytest.mark.parametrize(("n", "rates"), [(10, (1.0, 0.0)), (10, (0.0, 1.0)), (10, (0.5, 0.5))])
def test_power_at_the_ends_of_the_scale(n, rates):
    loss_rate, gain_rate = rates
    result = power(n, 0.1, loss_rate + gain_rate, ALPHA, gain_rate - loss_rate)
    assert result == pytest.approx({1.0: 0.0, 0.0: 1.0, 0.5: result}[loss_rate])
    assert 0.0 <= result <= 1.0


def test_further_examples_known_case():
    more = further_examples(3, 1, 120, 0.05, ALPHA)
    assert (120 + more.if_no_change, 120 + more.if_observed_change) == (178, 374)
    assert more.chance_at_double == pytest.approx(0.77, abs=5.1e-3)
    assert p_noninferior(3, 1, 120, 0.05) == pytest.approx(0.068, abs=5.1e-4)


@pytest.mark.parametrize(("losses", "gains"), [(6, 0), (8, 1), (120, 0)])
def test_more_data_is_not_promised_to_help_against_an_observed_violation(losses, gains):
    more = further_examples(losses, gains, 120, 0.05, ALPHA)
    assert (more.if_no_change, more.if_observed_change) == (None, None)
    assert 0.0 <= more.chance_at_double <= 0.06


def test_enough_data_needs_no_more():
    assert further_examples(1, 1, 1000, 0.05, ALPHA) == MoreExamples(0, 0, pytest.approx(1.0))


@pytest.mark.parametrize("n", [60, 300, 5000])
@pytest.mark.parametrize("churn", [0.0, 0.02, 0.3])
def test_the_smallest_margin_is_the_smallest_that_can_be_planned(n, churn):
    margin = minimum_detectable_effect(n, churn, ALPHA)
    assert n_plan(margin, churn, ALPHA) <= n
    assert n_plan(margin * 0.98 - 2e-6, churn, ALPHA) > n


def test_too_few_units_can_show_no_margin():
    assert minimum_detectable_effect(1, 1.0, ALPHA, power=0.95) == 1.0


def test_the_smallest_margin_reaches_its_power():
    assert power(300, minimum_detectable_effect(300, 0.02, ALPHA), 0.02, ALPHA) >= 0.78


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: n_min(0.0, ALPHA), "margin"),
        (lambda: n_min(nan, ALPHA), "margin"),
        (lambda: n_min(0.05, 0.6), "alpha"),
        (lambda: n_min(0.05, nan), "alpha"),
        (lambda: n_min(0.05, 0.005, 0.005), "gamma"),
        (lambda: n_min(0.05, 0.05, -0.1), "gamma"),
        (lambda: n_plan(1.0, 0.02, ALPHA), "margin"),
        (lambda: n_plan(0.05, -0.01, ALPHA), "churn"),
        (lambda: n_plan(0.05, 1.01, ALPHA), "churn"),
        (lambda: n_plan(0.05, nan, ALPHA), "churn"),
        (lambda: n_plan(0.05, 0.02, 0.0), "alpha"),
        (lambda: n_plan(0.05, 0.02, ALPHA, power=1.0), "power"),
        (lambda: n_plan(0.05, 0.02, ALPHA, change=0.03), "change"),
        (lambda: n_plan(0.05, 0.2, ALPHA, change=-0.05), "change"),
        (lambda: power(0, 0.05, 0.02, ALPHA), "n"),
        (lambda: power(100, 0.05, 0.02, ALPHA, change=nan), "change"),
        (lambda: power(100, 0.05, 0.02, 0.7), "alpha"),
        (lambda: further_examples(6, 5, 10, 0.05, ALPHA), "losses"),
        (lambda: further_examples(1, 0, 0, 0.05, ALPHA), "n"),
        (lambda: further_examples(1, 0, 10, 1.5, ALPHA), "margin"),
        (lambda: further_examples(1, 0, 10, 0.5, nan), "alpha"),
        (lambda: minimum_detectable_effect(0, 0.02, ALPHA), "n"),
        (lambda: minimum_detectable_effect(100, 2.0, ALPHA), "churn"),
        (lambda: minimum_detectable_effect(100, 0.02, ALPHA, power=0.0), "power"),
        (lambda: minimum_detectable_effect(100, 0.02, -1.0), "alpha"),
    ],
)
def test_bad_arguments_are_refused(call, named):
    with pytest.raises(ValueError, match=rf"expected {named}\b.*got"):
        call()
