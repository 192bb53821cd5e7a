# SPDX-License-Identifier: Apache-2.0
"""Bounds of quantiles: sizes, ranks by enumeration, and samples too small."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from scipy import stats

from checks.statistics.order_statistics import n_for_quantile, quantile_upper


@pytest.mark.parametrize(
    ("q", "alpha", "expected"),
    [(0.99, 0.05, 299), (0.95, 0.05, 59), (0.5, 0.25, 2), (0.5, 0.5, 1), (0.9, 0.01, 44)],
)
def test_sizes(q, alpha, expected):
    assert n_for_quantile(q, alpha) == expected
    assert quantile_upper(np.arange(expected), q, alpha) == expected - 1
    assert quantile_upper(np.arange(expected - 1), q, alpha) is None


@pytest.mark.parametrize(
    ("n", "q", "alpha"), [(299, 0.99, 0.05), (1000, 0.99, 0.05), (50, 0.5, 0.05), (80, 0.9, 0.01)]
)
def test_the_rank_is_the_smallest_that_keeps_the_promise(n, q, alpha):
    # Of the values 1..n the bound is its own rank.
    rank = int(quantile_upper(np.random.default_rng(1).permutation(n) + 1, q, alpha))
    assert stats.binom.sf(rank - 1, n, q) <= alpha
    assert stats.binom.sf(rank - 2, n, q) > alpha


def test_the_error_at_the_quantile():
    generator = np.random.default_rng(2)
    truth = stats.expon.ppf(0.9)
    bounds = np.array([quantile_upper(row, 0.9, 0.05) for row in generator.exponential(size=(2000, 120))])
    rank = int(quantile_upper(np.arange(1, 121), 0.9, 0.05))
    exact = stats.binom.sf(rank - 1, 120, 0.9)
    assert (bounds < truth).mean() == pytest.approx(exact, abs=0.015)
    assert exact <= 0.05


def test_ties_and_infinite_values():
    assert quantile_upper([3.0] * 400, 0.99, 0.05) == 3.0
    assert quantile_upper([1.0] * 380 + [inf] * 20, 0.99, 0.05) == inf
    assert quantile_upper([], 0.5, 0.05) is None


@pytest.mark.parametrize(
    ("values", "q", "alpha"),
    [
        ([1.0, nan], 0.5, 0.05),
        ([[1.0]], 0.5, 0.05),
        ([1.0], 0.0, 0.05),
        ([1.0], 1.0, 0.05),
        ([1.0], nan, 0.05),
        ([1.0], 0.5, 0.0),
    ],
)
def test_bad_arguments_are_refused(values, q, alpha):
    with pytest.raises(ValueError, match=r"expected .*got"):
        quantile_upper(values, q, alpha)
