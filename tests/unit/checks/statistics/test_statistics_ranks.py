# SPDX-License-Identifier: Apache-2.0
"""Rank bounds: known depths, equivariance, and samples too small to say anything."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.statistics.ranks import (
    _largest_rejected_rank_sum,
    hodges_lehmann,
    hodges_lehmann_bounds,
    walsh_averages,
)

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
samples = st.lists(st.integers(-(10**6), 10**6).map(float), min_size=1, max_size=25)


@pytest.mark.parametrize(
    ("n", "expected"), [(1, -1), (4, -1), (5, 0), (6, 2), (7, 3), (8, 5), (10, 10), (20, 60)]
)
def test_depths_at_five_percent(n, expected):
    # Tables of the signed-rank test print the same critical values.
    assert _largest_rejected_rank_sum(n, 0.05) == expected


def test_a_level_that_is_met_exactly_is_used():
    assert _largest_rejected_rank_sum(4, 1 / 16) == 0
    assert _largest_rejected_rank_sum(5, 1 / 32) == 0


def test_walsh_averages_of_three_values():
    assert walsh_averages([4.0, 0.0, 1.0]).tolist() == [0.0, 0.5, 1.0, 2.0, 2.5, 4.0]
    assert hodges_lehmann([4.0, 0.0, 1.0]) == 1.5


def test_averages_do_not_overflow():
    assert walsh_averages([1e308, 1.5e308]).tolist() == [1e308, 1.25e308, 1.5e308]


def test_bounds_count_from_both_ends():
    values = [3.1, -0.4, 8.0, 0.9, 2.2, 5.7, 1.3, 4.6]
    averages = sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])
    assert hodges_lehmann_bounds(values, 0.05) == pytest.approx((averages[5], averages[-6]), rel=1e-14)
    assert hodges_lehmann_bounds(values[:5], 0.05) == (min(values[:5]), max(values[:5]))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_fewer_than_five_values_exclude_nothing(n):
    assert hodges_lehmann_bounds([1.0] * n, 0.05) == (-inf, inf)


@given(samples, st.sampled_from([0.01, 0.05, 0.25, 0.5]))
@few
def test_bounds_enclose_the_estimate_and_turn_with_the_sign(values, alpha):
    lower, upper = hodges_lehmann_bounds(values, alpha)
    assert lower <= hodges_lehmann(values) <= upper
    assert hodges_lehmann_bounds([-value for value in values], alpha) == (-upper, -lower)


@given(samples, st.integers(-100, 100))
@few
def test_bounds_move_with_the_values(values, shift):
    moved = hodges_lehmann_bounds([value + shift for value in values], 0.05)
    assert moved == tuple(bound + shift for bound in hodges_lehmann_bounds(values, 0.05))


def test_one_wild_value_of_eight_does_not_reach_the_estimate():
    calm = [0.01, 0.02, 0.0, -0.01, 0.03, 0.01, 0.02]
    assert abs(hodges_lehmann([*calm, 50.0])) < 0.03


def test_arrays_are_samples_too():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert hodges_lehmann_bounds(values, 0.05) == (1.0, 5.0)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, nan], [inf, 1.0], ["a"], [0.0] * 1001])
def test_bad_samples_are_refused(values):
    for function in (walsh_averages, hodges_lehmann, lambda x: hodges_lehmann_bounds(x, 0.05)):
        with pytest.raises(ValueError, match=r"expected .*got"):
            function(values)


@pytest.mark.parametrize("alpha", [0.0, 0.6, nan])
def test_bad_alphas_are_refused(alpha):
    with pytest.raises(ValueError, match="expected alpha"):
        hodges_lehmann_bounds([1.0, 2.0], alpha)
