# SPDX-License-Identifier: Apache-2.0
"""P-values adjusted by Holm's rule, and the shares of attempts on one test set."""

from __future__ import annotations

from math import nan, pi

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from checks.statistics.attempts import attempt_alpha, shared_alpha
from checks.statistics.multiplicity import holm, holm_adjusted

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
# The other implementation takes 40 ms a call.
fewer = settings(few, max_examples=20)


@given(st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.01, 0.5, 1.0]), min_size=1, max_size=12))
@fewer
def test_adjusted_values_are_those_of_statsmodels(p_values):
    theirs = multipletests(p_values, 0.05, method="holm")[1]
    assert holm_adjusted(p_values) == pytest.approx(theirs, rel=1e-12)


@given(st.lists(st.floats(0.0, 1.0), max_size=8), st.floats(0.001, 0.5))
@few
def test_adjusted_values_say_what_the_rule_says(p_values, alpha):
    for adjusted, rejected in zip(holm_adjusted(p_values), holm(p_values, alpha), strict=True):
        assert (adjusted <= alpha) == rejected or adjusted == pytest.approx(alpha, rel=1e-12)


def test_known_example_and_nothing_to_adjust():
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted([0.5, 0.9]) == [1.0, 1.0]
    assert holm_adjusted([]) == []


@pytest.mark.parametrize("p_values", [[0.1, nan], [-0.1], [1.1]])
def test_bad_p_values_are_refused(p_values):
    with pytest.raises(ValueError, match=r"expected .*got"):
        holm_adjusted(p_values)


def test_attempts_share_the_error():
    shares = [attempt_alpha(0.05, attempt) for attempt in range(1, 3001)]
    assert sum(shares) <= 0.05
    # The tail beyond j is near 1 / j.
    assert sum(shares) == pytest.approx(0.05 * (1 - 6 / (pi * pi * 3000.5)), rel=1e-6)
    assert shares[0] == pytest.approx(0.0303964, abs=5e-8)
    assert shares[1] == pytest.approx(shares[0] / 4)


def test_planned_attempts_have_equal_shares_and_those_beyond_have_none():
    assert [attempt_alpha(0.05, attempt, 4) for attempt in range(1, 7)] == [0.0125] * 4 + [0.0, 0.0]
    with pytest.raises(ValueError, match=r"expected planned .*got 0"):
        attempt_alpha(0.05, 1, 0)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.floats(0.001, 0.5),
    st.none() | st.integers(1, 60),
)
@few
def test_runs_of_any_size_never_spend_more_than_alpha(sizes, alpha, planned):
    spent, first = 0.0, 1
    for size in sizes:
        spent += size * shared_alpha(alpha, first, first + size - 1, planned)
        first += size
    assert spent <= alpha * (1 + 1e-12)


def test_attempts_of_one_run_share_what_each_had():
    assert shared_alpha(0.05, 1, 1) == attempt_alpha(0.05, 1)
    assert shared_alpha(0.05, 1, 2) == pytest.approx(0.05 * 6 / pi**2 * (1 + 1 / 4) / 2)
    assert shared_alpha(0.05, 3, 5, 4) == pytest.approx(0.05 / 4 * 2 / 3)
    with pytest.raises(ValueError, match=r"expected last .*got 2"):
        shared_alpha(0.05, 3, 2)


@pytest.mark.parametrize(
    ("alpha", "attempt"), [(0.05, 0), (0.05, -1), (0.05, 1.0), (0.05, True), (0.0, 1), (nan, 1)]
)
def test_bad_attempts_are_refused(alpha, attempt):
    with pytest.raises(ValueError, match=r"expected .*got"):
        attempt_alpha(alpha, attempt)
