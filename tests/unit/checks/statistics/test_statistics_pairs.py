# SPDX-License-Identifier: Apache-2.0
"""Pairs of groups: the same pair as a plain loop finds, and claims of harm that seldom err."""

from __future__ import annotations

from itertools import permutations
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from checks.statistics.disparity import mover_tango_lower, mover_tango_upper
from checks.statistics.pairs import (
    difference_p,
    proven_change_gap,
    proven_difference,
    proven_ratio,
    surest_change_gap,
    surest_difference,
    surest_ratio,
    worst_change_gap,
    worst_difference,
    worst_ratio,
)
from checks.statistics.proportions import (
    difference_lower,
    difference_upper,
    difference_z,
    ratio_lower,
    ratio_slack,
)

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
ALPHA = 0.05


@st.composite
def groups(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    n = draw(st.lists(st.integers(1, 600), min_size=2, max_size=6))
    losses = [draw(st.integers(0, size)) for size in n]
    gains = [draw(st.integers(0, size - lost)) for size, lost in zip(n, losses, strict=True)]
    return losses, gains, n


@given(groups())
@few
def test_worst_pairs_are_those_of_a_loop(table):
    losses, gains, n = table
    pairs = list(permutations(range(len(n)), 2))

    difference = worst_difference(losses, n, ALPHA)
    bounds = {(g, h): float(difference_upper(losses[g], n[g], losses[h], n[h], ALPHA)) for g, h in pairs}
    assert difference.bound == pytest.approx(max(bounds.values()), abs=1e-9)
    assert bounds[difference.index_g, difference.index_h] == pytest.approx(difference.bound, abs=1e-9)
    g, h = difference.index_g, difference.index_h
    assert difference.value == pytest.approx(losses[g] / n[g] - losses[h] / n[h], abs=1e-12)

    ratio = worst_ratio(losses, n, ALPHA)
    bounds = {(g, h): float(ratio_lower(losses[g], n[g], losses[h], n[h], ALPHA)) for g, h in pairs}
    assert ratio.bound == pytest.approx(min(bounds.values()), abs=1e-9)
    assert bounds[ratio.index_g, ratio.index_h] == pytest.approx(ratio.bound, abs=1e-9)

    gap = worst_change_gap(losses, gains, n, ALPHA)
    bounds = {
        (g, h): mover_tango_upper(losses[g], gains[g], n[g], losses[h], gains[h], n[h], ALPHA)
        for g, h in pairs
    }
    assert gap.bound == pytest.approx(max(bounds.values()), abs=1e-9)
    assert bounds[gap.index_g, gap.index_h] == pytest.approx(gap.bound, abs=1e-9)


@given(groups(), st.sampled_from([0.0, 0.05, 0.3]))
@few
def test_proven_harm_is_that_of_a_loop(table, limit):
    losses, gains, n = table
    pairs = list(permutations(range(len(n)), 2))
    level = ALPHA / len(pairs)

    p = min(stats.norm.sf(difference_z(losses[g], n[g], losses[h], n[h], limit)) for g, h in pairs)
    assert difference_p(losses, n, limit) == pytest.approx(min(1.0, len(pairs) * p), rel=1e-9)
    lower = max(float(difference_lower(losses[g], n[g], losses[h], n[h], level)) for g, h in pairs)
    assert surest_difference(losses, n, ALPHA).bound == pytest.approx(lower, abs=1e-9)
    assert proven_difference(losses, n, limit, ALPHA) == (lower > limit)

    slack = max(float(ratio_slack(losses[h], n[h], losses[g], n[g], 1 / 0.8, level)) for g, h in pairs)
    assert proven_ratio(losses, n, 0.8, ALPHA) == (slack > 0)
    assert (surest_ratio(losses, n, ALPHA).bound < 0.8) == (slack > 0)

    gap = max(
        mover_tango_lower(losses[g], gains[g], n[g], losses[h], gains[h], n[h], level) for g, h in pairs
    )
    surest = surest_change_gap(losses, gains, n, ALPHA)
    assert surest.bound == pytest.approx(gap, abs=1e-9)
    g, h = surest.index_g, surest.index_h
    assert surest.value == pytest.approx(
        (gains[h] - losses[h]) / n[h] - (gains[g] - losses[g]) / n[g], abs=1e-12
    )
    assert proven_change_gap(losses, gains, n, limit, ALPHA) == (gap > limit)


@given(groups())
@few
def test_nothing_is_both_kept_and_broken(table):
    losses, gains, n = table
    for limit in (0.02, 0.2):
        kept = worst_difference(losses, n, ALPHA).bound <= limit
        assert not (kept and proven_difference(losses, n, limit, ALPHA))
        kept = worst_change_gap(losses, gains, n, ALPHA).bound < limit
        assert not (kept and proven_change_gap(losses, gains, n, limit, ALPHA))
    assert not (worst_ratio(losses, n, ALPHA).bound > 0.8 and proven_ratio(losses, n, 0.8, ALPHA))


def test_known_change_gap_names_the_harmed_group_first():
    gap = worst_change_gap([5, 6], [4, 1], [500, 100], ALPHA)
    assert (gap.index_g, gap.index_h) == (1, 0)
    assert gap.bound == pytest.approx(0.10256, abs=5.1e-6)
    assert gap.value == pytest.approx(0.048)


def test_the_pair_is_named_by_position():
    successes, n = [90, 99, 50, 95], [100, 100, 100, 100]
    assert worst_difference(successes, n, ALPHA)[:2] == (1, 2)
    assert surest_difference(successes, n, ALPHA)[:2] == (1, 2)
    assert worst_ratio(successes, n, ALPHA)[:2] == (2, 1)
    assert surest_ratio(successes, n, ALPHA)[:2] == (2, 1)
    assert proven_difference(successes, n, 0.1, ALPHA)
    assert proven_ratio(successes, n, 0.8, ALPHA)
    assert not proven_difference(successes, n, 0.49, ALPHA)


def test_a_small_group_is_worst_although_its_rate_is_not():
    pair = worst_difference([900, 880, 9], [1000, 1000, 10], ALPHA)
    assert 2 in (pair.index_g, pair.index_h)
    assert surest_difference([900, 700, 9], [1000, 1000, 10], ALPHA)[:2] == (0, 1)


def test_of_equal_bounds_the_larger_difference_is_shown_then_the_first():
    # One unit against one, or two against one, exclude nothing: every such bound is 1.
    assert worst_difference([1, 0, 0, 1], [2, 1, 1, 1], ALPHA) == (3, 1, 1.0, 1.0)
    assert worst_difference([1, 1, 1], [2, 2, 2], ALPHA)[:2] == (0, 1)


def test_groups_without_success():
    ratio = worst_ratio([0, 0, 30], [40, 40, 40], ALPHA)
    assert (ratio.index_h, ratio.value, ratio.bound) == (2, 0.0, 0.0)
    # All pairs of the group without success have the bound 0; the first of the smallest ratio is shown.
    assert worst_ratio([20, 0, 30], [40, 40, 40], ALPHA)[:2] == (1, 0)
    nobody = worst_ratio([0, 0], [40, 40], ALPHA)
    assert (nobody.value, nobody.bound) == (1.0, 0.0)
    assert surest_ratio([0, 0], [40, 40], ALPHA).bound == inf
    assert not proven_ratio([0, 0], [40, 40], 0.8, ALPHA)
    assert proven_ratio([0, 30], [40, 40], 0.8, ALPHA)


def test_identical_predictions_prove_no_harm():
    zeros, n = [0] * 5, [3, 50, 400, 10, 9]
    assert not proven_change_gap(zeros, zeros, n, 0.0, ALPHA)
    assert worst_change_gap(zeros, zeros, n, ALPHA).bound > 0.0


def test_false_claims_of_harm_are_rare_among_many_groups():
    generator = np.random.default_rng(3)
    n = generator.integers(60, 400, size=10)
    rates = np.where(np.arange(10) % 2, 0.85, 0.95)
    runs = 400
    # Every pair keeps its limit, 25 of them exactly.
    false = sum(proven_difference(generator.binomial(n, rates), n, 0.10, ALPHA) for _ in range(runs))
    assert false / runs <= 0.05


def test_hundred_groups_have_all_their_pairs_compared():
    generator = np.random.default_rng(4)
    n = generator.integers(20, 2000, size=100)
    successes = generator.binomial(n, 0.8)
    worst = worst_difference(successes, n, ALPHA)
    g, h = (index.ravel() for index in np.indices((100, 100)))
    everything = difference_upper(successes[g], n[g], successes[h], n[h], ALPHA)
    assert worst.bound == pytest.approx(everything[g != h].max(), abs=1e-9)


@pytest.mark.parametrize(
    "function",
    [
        worst_difference,
        worst_ratio,
        surest_difference,
        surest_ratio,
        lambda s, n, a: proven_difference(s, n, 0.1, a),
        lambda s, n, a: proven_ratio(s, n, 0.8, a),
        lambda s, n, a: worst_change_gap(s, [0] * len(s), n, a),
        lambda s, n, a: surest_change_gap(s, [0] * len(s), n, a),
    ],
)
@pytest.mark.parametrize(
    ("successes", "n", "alpha"),
    [
        ([1], [5], ALPHA),
        ([1, 6], [5, 5], ALPHA),
        ([1, 0], [5, 0], ALPHA),
        ([1, 2], [5, 5], 0.0),
        ([1, 2], [5, 5], nan),
    ],
)
def test_bad_groups_are_refused(function, successes, n, alpha):
    with pytest.raises(ValueError, match=r"expected .*got"):
        function(successes, n, alpha)


def test_bad_limits_are_refused():
    with pytest.raises(ValueError, match=r"expected counts of two groups .* got shape \(2, 1\)"):
        worst_difference([[1], [2]], [[5], [5]], ALPHA)
    for limit in (1.5, nan):
        with pytest.raises(ValueError, match=r"expected limit in \[-1, 1\], got"):
            difference_p([1, 2], [5, 5], limit)
    with pytest.raises(ValueError, match=r"expected limit in \[-2, 2\], got"):
        proven_change_gap([1, 2], [0, 0], [5, 5], nan, ALPHA)
    for ratio in (0.0, 2000.0, nan):
        with pytest.raises(ValueError, match=r"expected ratio in \[0.001, 1000\], got"):
            proven_ratio([1, 2], [5, 5], ratio, ALPHA)
