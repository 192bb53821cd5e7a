# SPDX-License-Identifier: Apache-2.0
"""Disparity between groups: the known value fixes which group is which."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.statistics.disparity import mover_tango_lower, mover_tango_upper
from checks.statistics.paired import tango_bounds

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
HARMED = (6, 1, 100)
SPARED = (5, 4, 500)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 400))
    losses = draw(st.integers(0, n))
    return losses, draw(st.integers(0, n - losses)), n


def test_known_value_has_the_harmed_group_first():
    assert mover_tango_upper(*HARMED, *SPARED, 0.05) == pytest.approx(0.10256, abs=5.1e-6)
    assert mover_tango_upper(*SPARED, *HARMED, 0.05) < 0.0


@given(tables(), tables(), st.sampled_from([0.01, 0.05, 0.5]))
@few
def test_bounds_enclose_the_difference_and_mirror_each_other(group, other, alpha):
    change = (other[1] - other[0]) / other[2] - (group[1] - group[0]) / group[2]
    lower, upper = (f(*group, *other, alpha) for f in (mover_tango_lower, mover_tango_upper))
    assert -2.0 <= lower <= change <= upper <= 2.0
    assert lower == -mover_tango_upper(*other, *group, alpha)


@given(tables(), tables())
@few
def test_the_box_of_both_limits_contains_the_bound(group, other):
    box = tango_bounds(*other, 0.05)[1] - tango_bounds(*group, 0.05)[0]
    assert mover_tango_upper(*group, *other, 0.05) <= box + 1e-9


def test_identical_groups_have_a_symmetric_interval():
    lower, upper = mover_tango_lower(*SPARED, *SPARED, 0.05), mover_tango_upper(*SPARED, *SPARED, 0.05)
    low, high = tango_bounds(*SPARED, 0.05)
    assert upper == -lower == pytest.approx(sqrt((high + 0.002) ** 2 + (-0.002 - low) ** 2))


def test_counts_of_narrow_numpy_types_do_not_wrap():
    narrow = [np.uint16(count) for count in (*HARMED, *SPARED)]
    assert mover_tango_upper(*narrow, 0.05) == mover_tango_upper(*HARMED, *SPARED, 0.05)


@pytest.mark.parametrize("function", [mover_tango_lower, mover_tango_upper])
@pytest.mark.parametrize(
    "arguments",
    [
        (0, 0, 0, *SPARED, 0.05),
        (*HARMED, 0, 0, 0, 0.05),
        (-1, 0, 5, *SPARED, 0.05),
        (*HARMED, 3, 3, 5, 0.05),
        (*HARMED, *SPARED, 0.0),
        (*HARMED, *SPARED, nan),
    ],
)
def test_bad_arguments_are_refused(function, arguments):
    with pytest.raises(ValueError, match=r"expected .*got"):
        function(*arguments)
