# SPDX-License-Identifier: Apache-2.0
"""Functions of arrays say what their counterparts of one table say."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from checks.statistics.binomial import (
    clopper_pearson_lower,
    clopper_pearson_many,
    clopper_pearson_upper,
    wilson_bounds,
    wilson_many,
)
from checks.statistics.paired import tango_bounds, tango_bounds_many, tango_z

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
alphas = st.sampled_from([0.5, 0.2, 0.05, 0.001, 1e-7])


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = draw(st.integers(1, 12))
    n = draw(arrays.arrays(np.int64, shape, elements=st.integers(1, 3000)))
    losses = np.array([draw(st.integers(0, size) | st.integers(0, min(size, 3))) for size in n.tolist()])
    gains = np.array([draw(st.integers(0, size)) for size in (n - losses).tolist()])
    return losses, gains, n


@given(tables(), alphas)
@few
def test_tango_bounds_are_those_of_each_table(table, alpha):
    lower, upper = tango_bounds_many(*table, alpha)
    singles = np.array([tango_bounds(*map(int, row), alpha) for row in zip(*table, strict=True)])
    assert np.abs(lower - singles[:, 0]).max() <= 1e-9
    assert np.abs(upper - singles[:, 1]).max() <= 1e-9


def test_tango_bounds_solve_the_score_equation():
    lower, upper = tango_bounds_many([3, 0, 40], [1, 7, 5], [200, 21, 500], 0.05)
    for losses, gains, n, low, high in zip([3, 0, 40], [1, 7, 5], [200, 21, 500], lower, upper, strict=True):
        assert tango_z(losses, gains, n, low) == pytest.approx(1.6448536, abs=1e-6)
        assert tango_z(losses, gains, n, high) == pytest.approx(-1.6448536, abs=1e-6)


@given(tables(), alphas)
@few
def test_bounds_of_a_rate_are_those_of_each_sample(table, alpha):
    successes, _, n = table
    samples = [(int(k), int(size)) for k, size in zip(successes, n, strict=True)]
    exact = np.array([(clopper_pearson_lower(*s, alpha), clopper_pearson_upper(*s, alpha)) for s in samples])
    assert np.stack(clopper_pearson_many(successes, n, alpha), axis=1) == pytest.approx(exact, abs=1e-12)
    score = np.array([wilson_bounds(*sample, alpha) for sample in samples])
    assert np.stack(wilson_many(successes, n, alpha), axis=1) == pytest.approx(score, abs=1e-12)


def test_the_ends_are_closed():
    for function in (clopper_pearson_many, wilson_many):
        lower, upper = function([0, 7], [7, 7], 0.05)
        assert lower[0] == 0.0
        assert upper[1] == 1.0
        assert 0.0 < upper[0] < 1.0


def test_shapes_broadcast():
    lower, upper = tango_bounds_many(np.zeros((3, 1), dtype=int), [0, 1], 50, 0.05)
    assert lower.shape == upper.shape == (3, 2)
    assert clopper_pearson_many(np.arange(4), 10, 0.05)[0].shape == (4,)
    assert wilson_many(3, 10, 0.05)[0].shape == ()
    assert wilson_many(np.zeros(0, dtype=int), 10, 0.05)[0].shape == (0,)


def test_counts_of_narrow_numpy_types_do_not_wrap():
    narrow = [np.array([count], dtype=np.uint8) for count in (6, 1, 200)]
    assert tango_bounds_many(*narrow, 0.05)[0][0] == tango_bounds_many([6], [1], [200], 0.05)[0][0]
    assert wilson_many(narrow[0], narrow[2], 0.05)[1][0] == pytest.approx(wilson_bounds(6, 200, 0.05)[1])


@pytest.mark.parametrize("function", [clopper_pearson_many, wilson_many])
@pytest.mark.parametrize(
    ("successes", "n", "alpha", "named"),
    [
        ([1, 1], [5, 0], 0.05, "n"),
        ([1, -1], [5, 5], 0.05, "successes"),
        ([1, 6], [5, 5], 0.05, "successes"),
        ([0.5], [5], 0.05, "successes"),
        ([True], [5], 0.05, "successes"),
        (np.array([2**63], dtype=np.uint64), [5], 0.05, "successes"),
        ([1, 2, 3], [5, 5], 0.05, "shapes"),
        ([1], [5], 0.0, "alpha"),
        ([1], [5], nan, "alpha"),
    ],
)
def test_bad_samples_are_refused(function, successes, n, alpha, named):
    with pytest.raises(ValueError, match=rf"expected .*{named}.*got"):
        function(successes, n, alpha)


@pytest.mark.parametrize(
    ("losses", "gains", "n", "alpha"),
    [
        ([0], [0], [0], 0.05),
        ([-1], [0], [5], 0.05),
        ([0, 3], [0, 3], [5, 5], 0.05),
        ([0.0], [0], [5], 0.05),
        ([0, 0], [0, 0, 0], [5], 0.05),
        ([0], [0], [5], 0.6),
    ],
)
def test_bad_tables_are_refused(losses, gains, n, alpha):
    with pytest.raises(ValueError, match=r"expected .*got"):
        tango_bounds_many(losses, gains, n, alpha)
