# SPDX-License-Identifier: Apache-2.0
"""Holm's rule: stops at the first step that fails, and keeps the order of its input."""

from __future__ import annotations

from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.statistics.multiplicity import holm
from checks.statistics.paired import p_harm

few = settings(max_examples=80, deadline=None, derandomize=True, database=None)
p_lists = st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.01, 0.0125, 0.025, 0.05]), max_size=12)


def test_known_example():
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]


def test_a_failed_step_stops_smaller_later_thresholds():
    # 0.04 would pass its own step (0.05), but the step before it fails (0.03 > 0.025).
    assert holm([0.04, 0.03, 0.001], 0.05) == [False, False, True]


def test_a_p_value_on_its_threshold_is_rejected():
    assert holm([0.025, 0.05], 0.05) == [True, True]


def test_nothing_to_test():
    assert holm([], 0.05) == []


@given(p_lists, st.floats(0.001, 0.5))
@few
def test_between_bonferroni_and_no_correction(p_values, alpha):
    for p_value, rejected in zip(p_values, holm(p_values, alpha), strict=True):
        assert not rejected or p_value <= alpha
        assert rejected or p_value > alpha / len(p_values)


@given(p_lists, st.floats(0.001, 0.5), st.randoms(use_true_random=False))
@few
def test_the_order_of_the_claims_does_not_matter(p_values, alpha, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    shuffled = holm([p_values[i] for i in order], alpha)
    assert shuffled == [holm(p_values, alpha)[i] for i in order]


@pytest.mark.parametrize("k", [1, 20, 200])
def test_total_harm_is_found_among_many_claims_if_gamma_follows_their_number(k):
    harmless = [1.0] * (k - 1)
    assert holm([p_harm(60, 0, 60, 0.02, gamma=0.05 / (100 * k)), *harmless], 0.05)[0]
    if k == 200:
        assert not holm([p_harm(60, 0, 60, 0.02), *harmless], 0.05)[0]


@pytest.mark.parametrize(
    ("p_values", "alpha"), [([0.1, nan], 0.05), ([-0.1], 0.05), ([1.1], 0.05), ([0.1], 0.0), ([0.1], nan)]
)
def test_bad_arguments_are_refused(p_values, alpha):
    with pytest.raises(ValueError, match=r"expected .*got"):
        holm(p_values, alpha)
