# SPDX-License-Identifier: Apache-2.0
"""Searches for concentrated harm: against scipy and statsmodels, and at counts of zero."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from checks.statistics.screens import risk_ratio, slice_concentration_p, target_concentration_p

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def tables(draw: st.DrawFn, least: int = 0) -> tuple[int, int, int, int]:
    right_in, right_out = draw(st.integers(least, 300)), draw(st.integers(least, 300))
    return draw(st.integers(0, right_in)), right_in, draw(st.integers(0, right_out)), right_out


@given(tables())
@few
def test_concentration_is_fishers_test(table):
    losses_in, right_in, losses_out, right_out = table
    ours = slice_concentration_p(losses_in, right_in, losses_in + losses_out, right_in + right_out)
    cells = [[losses_in, right_in - losses_in], [losses_out, right_out - losses_out]]
    assert ours == pytest.approx(stats.fisher_exact(cells, alternative="greater").pvalue, rel=1e-9)


def test_concentration_in_large_sets():
    ours = slice_concentration_p(60, 5000, 4000, 1_000_000)
    assert ours == pytest.approx(stats.hypergeom.sf(59, 1_000_000, 4000, 5000), rel=1e-6)


def test_more_losses_within_the_slice_say_more():
    values = [slice_concentration_p(k, 40, 20, 400) for k in range(21)]
    assert values[0] == 1.0
    assert all(later < earlier for earlier, later in zip(values, values[1:], strict=False))


def test_nothing_to_compare():
    assert slice_concentration_p(0, 0, 0, 0) == 1.0
    assert slice_concentration_p(0, 10, 5, 20) == 1.0
    assert slice_concentration_p(5, 20, 5, 20) == 1.0


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.005])
@pytest.mark.parametrize(
    "table", [(5, 100, 3, 300), (1, 40, 9, 30), (30, 60, 200, 4000), (9, 10, 4, 9), (0, 30, 6, 40)]
)
def test_risk_ratio_against_statsmodels(table, alpha):
    theirs = confint_proportions_2indep(
        *table, method="score", compare="ratio", alpha=2 * alpha, correction=True
    )
    ratio, low, high = risk_ratio(*table, alpha)
    assert ratio == pytest.approx(table[0] / table[1] / (table[2] / table[3]))
    assert high == pytest.approx(theirs[1], rel=1e-6)
    assert low == pytest.approx(theirs[0] if table[0] else 0.0, rel=1e-6)


@given(tables(least=1), st.sampled_from([0.5, 0.05, 0.001]))
@few
def test_exchanging_the_sides_inverts_the_interval(table, alpha):
    ratio, low, high = risk_ratio(*table, alpha)
    other, other_low, other_high = risk_ratio(*table[2:], *table[:2], alpha)
    assert 0.0 <= low <= ratio <= high
    for value, inverse in ((ratio, other), (low, other_high), (high, other_low)):
        expected = 0.0 if inverse == inf else inf if inverse == 0 else 1 / inverse
        assert value == pytest.approx(expected, rel=1e-6)


def test_risk_ratio_at_counts_of_zero():
    ratio, low, high = risk_ratio(5, 50, 0, 50, 0.05)
    assert (ratio, high) == (inf, inf)
    assert 1.0 < low < inf
    assert risk_ratio(0, 50, 0, 50, 0.05) == (1.0, 0.0, inf)
    ratio, low, high = risk_ratio(0, 50, 5, 50, 0.05)
    assert (ratio, low) == (0.0, 0.0)
    assert 0.0 < high < 1.0


@pytest.mark.parametrize(
    ("into", "flips", "share"),
    [(12, 20, 0.3), (1, 1, 0.0), (3, 50, 1.0), (200, 1000, 0.25), (0, 9, 0.2), (0, 0, 0.5)],
)
def test_target_concentration_is_a_binomial_tail(into, flips, share):
    expected = stats.binom.sf(into - 1, flips, 0.5 * share + 0.05)
    assert target_concentration_p(into, flips, share) == pytest.approx(expected, rel=1e-10)


def test_a_target_that_the_runner_ups_name_alarms_later():
    assert target_concentration_p(12, 12, 0.1) < 1e-9
    assert target_concentration_p(12, 12, 0.1) < target_concentration_p(12, 12, 0.9)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (slice_concentration_p, (3, 2, 3, 9)),
        (slice_concentration_p, (-1, 2, 3, 9)),
        (slice_concentration_p, (2, 2, 1, 9)),
        (slice_concentration_p, (0, 8, 5, 9)),
        (slice_concentration_p, (0, 9, 0, 8)),
        (risk_ratio, (0, 0, 1, 5, 0.05)),
        (risk_ratio, (1, 5, 6, 5, 0.05)),
        (risk_ratio, (1, 5, 1, 5, nan)),
        (target_concentration_p, (3, 2, 0.1)),
        (target_concentration_p, (1, 2, 1.1)),
        (target_concentration_p, (1, 2, nan)),
        (target_concentration_p, (1.0, 2, 0.1)),
    ],
)
def test_bad_arguments_are_refused(function, arguments):
    with pytest.raises(ValueError, match=r"expected .*got"):
        function(*arguments)
