# SPDX-License-Identifier: Apache-2.0
"""Bounds of one proportion: ends, order, symmetry and refusals."""

from __future__ import annotations

from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper, wilson_bounds

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
alphas = st.floats(1e-4, 0.5)


@st.composite
def samples(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 5000))
    return draw(st.integers(0, n)), n


def test_known_values():
    assert clopper_pearson_lower(29, 29, 0.05) == pytest.approx(0.05 ** (1 / 29), rel=1e-12)
    assert clopper_pearson_lower(29, 29, 0.05) == pytest.approx(0.902, abs=5.1e-4)
    assert clopper_pearson_lower(59, 59, 0.05) == pytest.approx(0.950, abs=5.1e-4)
    assert clopper_pearson_upper(0, 10, 0.05) == pytest.approx(1 - 0.05**0.1, rel=1e-12)


def test_the_ends_are_closed():
    assert clopper_pearson_lower(0, 7, 0.05) == 0.0
    assert clopper_pearson_upper(7, 7, 0.05) == 1.0
    assert wilson_bounds(0, 7, 0.05)[0] == 0.0
    assert wilson_bounds(7, 7, 0.05)[1] == 1.0
    assert 0.0 < wilson_bounds(0, 7, 0.05)[1] < 1.0


@given(samples(), alphas)
@few
def test_bounds_enclose_the_rate(sample, alpha):
    successes, n = sample
    rate, tiny = successes / n, 1e-12
    low, high = wilson_bounds(successes, n, alpha)
    assert 0.0 <= low <= rate + tiny <= high + 2 * tiny
    assert 0.0 <= clopper_pearson_lower(successes, n, alpha) <= rate + tiny
    assert rate - tiny <= clopper_pearson_upper(successes, n, alpha) <= 1.0


@given(samples(), alphas)
@few
def test_failures_are_successes_from_the_other_side(sample, alpha):
    successes, n = sample
    low, high = wilson_bounds(successes, n, alpha)
    assert wilson_bounds(n - successes, n, alpha) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    mirrored = 1 - clopper_pearson_upper(n - successes, n, alpha)
    assert clopper_pearson_lower(successes, n, alpha) == pytest.approx(mirrored, abs=1e-12)


@given(samples(), alphas, alphas)
@few
def test_less_error_means_a_wider_interval(sample, first, second):
    strict, loose = sorted((first, second))
    assert clopper_pearson_lower(*sample, strict) <= clopper_pearson_lower(*sample, loose) + 1e-12
    assert clopper_pearson_upper(*sample, strict) >= clopper_pearson_upper(*sample, loose) - 1e-12
    assert wilson_bounds(*sample, strict)[0] <= wilson_bounds(*sample, loose)[0] + 1e-12


@pytest.mark.parametrize("function", [clopper_pearson_lower, clopper_pearson_upper, wilson_bounds])
@pytest.mark.parametrize(
    ("successes", "n", "alpha", "named"),
    [
        (1, 0, 0.05, "n"),
        (-1, 5, 0.05, "successes"),
        (6, 5, 0.05, "successes"),
        (2.0, 5, 0.05, "successes"),
        (2, 5, 0.0, "alpha"),
        (2, 5, 0.6, "alpha"),
        (2, 5, nan, "alpha"),
    ],
)
def test_bad_arguments_are_refused(function, successes, n, alpha, named):
    with pytest.raises(ValueError, match=rf"expected {named}\b.*got"):
        function(successes, n, alpha)
