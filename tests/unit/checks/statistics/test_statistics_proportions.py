# SPDX-License-Identifier: Apache-2.0
"""Two proportions: other implementations, brute force, the promised error, symmetry and corners."""

from __future__ import annotations

from math import nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from checks.statistics.proportions import (
    difference_lower,
    difference_upper,
    difference_z,
    ratio_lower,
    ratio_slack,
)

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
Z = 1.6448536269514722


@st.composite
def samples(draw: st.DrawFn, largest: int = 400) -> tuple[int, int]:
    n = draw(st.integers(1, largest))
    return draw(st.integers(0, n) | st.integers(0, min(n, 3))), n


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Newcombe 1998, Statistics in Medicine 17:873, method of Miettinen and Nurminen.
        ((56, 70, 48, 80), (0.0528, 0.3382)),
        ((9, 10, 3, 10), (0.1700, 0.8406)),
        ((6, 7, 2, 7), (0.0342, 0.8534)),
        ((5, 56, 0, 29), (-0.0326, 0.1933)),
        ((10, 10, 0, 20), (0.7156, 1.0)),
        ((10, 10, 0, 10), (0.6636, 1.0)),
    ],
)
def test_published_intervals(counts, expected):
    ours = float(difference_lower(*counts, 0.025)), float(difference_upper(*counts, 0.025))
    assert ours == pytest.approx(expected, abs=5.1e-5)


def _reference_z(s_g: int, n_g: int, s_h: int, n_h: int, delta: float) -> float:
    """The statistic with the restricted estimate as the root of the derivative of the likelihood.

    statsmodels 0.14 and 0.15 have a wrong coefficient in their cubic for differences other than 0
    (their bug 10269), so their score interval of a difference is no reference.
    """

    def slope(rate: float) -> float:
        other = rate - delta
        own = s_g / rate - (n_g - s_g) / (1 - rate)
        return own + s_h / other - (n_h - s_h) / (1 - other)

    low, high = max(0.0, delta) + 1e-14, min(1.0, 1.0 + delta) - 1e-14
    if slope(low) <= 0:
        rate = low
    elif slope(high) >= 0:
        rate = high
    else:
        rate = optimize.brentq(slope, low, high, xtol=1e-15)
    other = rate - delta
    variance = (rate * (1 - rate) / n_g + other * (1 - other) / n_h) * (n_g + n_h) / (n_g + n_h - 1)
    return (s_g / n_g - s_h / n_h - delta) / sqrt(variance)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.005, 1e-6])
@pytest.mark.parametrize(
    "counts",
    [
        (56, 70, 48, 80),
        (9, 10, 3, 10),
        (45, 50, 1, 500),
        (300, 4000, 200, 300),
        (1, 30, 29, 30),
        (5, 56, 0, 29),
    ],
)
def test_bounds_invert_the_score_test(counts, alpha):
    z, difference = stats.norm.isf(alpha), counts[0] / counts[1] - counts[2] / counts[3]
    upper = optimize.brentq(lambda delta: _reference_z(*counts, delta) + z, difference, 1 - 1e-9, xtol=1e-12)
    lower = optimize.brentq(lambda delta: _reference_z(*counts, delta) - z, -1 + 1e-9, difference, xtol=1e-12)
    assert float(difference_upper(*counts, alpha)) == pytest.approx(upper, abs=1e-7)
    assert float(difference_lower(*counts, alpha)) == pytest.approx(lower, abs=1e-7)


@given(samples(), samples(), st.floats(-0.99, 0.99))
@few
def test_the_statistic_uses_the_likeliest_rates(first, second, delta):
    assert float(difference_z(*first, *second, delta)) == pytest.approx(
        _reference_z(*first, *second, delta), rel=1e-4, abs=1e-4
    )


# Nearer to 0 or 1, where the restricted variance may vanish, z is thousands and loses digits.
differences = st.just(0.0) | st.floats(1e-4, 1 - 1e-4) | st.floats(-1 + 1e-4, -1e-4)


@given(samples(), samples(), differences)
@few
def test_exchanging_the_groups_changes_the_sign(first, second, delta):
    assert difference_z(*first, *second, delta) == pytest.approx(
        -difference_z(*second, *first, -delta), rel=1e-5, abs=1e-5
    )


@given(samples(), samples(), st.sampled_from([0.5, 0.2, 0.05, 0.001]))
@few
def test_bounds_enclose_the_difference_and_solve_the_equation(first, second, alpha):
    difference = first[0] / first[1] - second[0] / second[1]
    lower, upper = difference_lower(*first, *second, alpha), difference_upper(*first, *second, alpha)
    assert -1.0 <= lower <= difference + 1e-9
    assert difference - 1e-9 <= upper <= 1.0
    z = stats.norm.isf(alpha)
    if -1 + 1e-6 < upper < 1 - 1e-6:
        assert difference_z(*first, *second, upper + 1e-7) <= -z
        assert difference_z(*first, *second, upper - 1e-7) >= -z


@given(samples(200), samples(200))
@few
def test_bounds_rise_with_the_successes_of_the_first_group(first, second):
    successes = np.arange(first[1] + 1)
    for function in (difference_upper, difference_lower, ratio_lower):
        assert (np.diff(function(successes, first[1], *second, 0.05)) >= -1e-9).all()
        falling = function(*first, np.arange(second[1] + 1), second[1], 0.05)
        assert (np.diff(falling) <= 1e-9).all()


@pytest.mark.parametrize(
    ("n_g", "n_h", "least", "most"),
    [(500, 50, 0.042, 0.043), (100, 100, 0.048, 0.049), (1000, 300, 0.046, 0.048)],
)
def test_false_pass_at_the_limit_by_enumeration(n_g, n_h, least, most):
    # True rates .95 and .85 and the limit .10: the bound must seldom keep it.
    g, h = np.arange(n_g + 1)[:, None], np.arange(n_h + 1)[None, :]
    passes = difference_z(g, n_g, h, n_h, 0.10) <= -Z
    weights = stats.binom.pmf(g, n_g, 0.95) * stats.binom.pmf(h, n_h, 0.85)
    assert least <= float(weights[passes].sum()) <= most


def test_bound_and_statistic_decide_alike():
    g, h = np.arange(0, 41)[:, None], np.arange(0, 31)[None, :]
    by_bound = difference_upper(g, 40, h, 30, 0.05) < 0.1
    by_statistic = difference_z(g, 40, h, 30, 0.1) <= -Z
    assert (by_bound == by_statistic).all()


def test_groups_without_success_or_without_failure_prove_little():
    assert difference_z(0, 10, 0, 10, 0.0) == 0.0
    assert difference_z(10, 10, 10, 10, 0.0) == 0.0
    assert difference_z(3, 10, 5, 10, 1.0) == difference_z(3, 10, 5, 10, -1.0) == 0.0
    assert float(difference_upper(0, 10, 0, 10, 0.05)) > 0.2
    assert float(difference_upper(1, 1, 0, 1, 0.05)) == 1.0
    assert float(difference_upper(0, 1, 1, 1, 0.05)) > 0.0


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.8, 1.0, 1.25])
def test_slack_by_hand(ratio):
    def limits(k: int, n: int) -> tuple[float, float]:
        centre, half = k + Z * Z / 2, Z * sqrt(k * (n - k) / n + Z * Z / 4)
        return (centre - half) / (n + Z * Z), (centre + half) / (n + Z * Z)

    low, high = limits(80, 100)[0], limits(190, 210)[1]
    p_g, p_h = 0.8, 190 / 210
    expected = (p_g - ratio * p_h) - sqrt((p_g - low) ** 2 + ratio**2 * (high - p_h) ** 2)
    assert float(ratio_slack(80, 100, 190, 210, ratio, 0.05)) == pytest.approx(expected, abs=1e-12)


@given(samples(), samples(), st.sampled_from([0.5, 0.05, 0.001]))
@few
def test_the_slack_crosses_zero_at_the_lower_ratio(first, second, alpha):
    bound = float(ratio_lower(*first, *second, alpha))
    assert 0.0 <= bound <= 1000.0
    if first[0] == 0:
        assert bound == 0.0
        return
    assert ratio_slack(*first, *second, bound * (1 - 1e-9), alpha) > -1e-12
    if bound < 1000.0:
        assert ratio_slack(*first, *second, min(1000.0, bound * (1 + 1e-9)), alpha) <= 1e-12
        assert ratio_slack(*first, *second, min(1000.0, bound * 1.01), alpha) < 0.0


def test_ratio_at_zero_counts_is_defined():
    assert float(ratio_lower(0, 10, 0, 10, 0.05)) == 0.0
    assert float(ratio_slack(0, 10, 0, 10, 0.8, 0.05)) < 0.0
    assert 0.0 < float(ratio_lower(5, 10, 0, 10, 0.05)) < 1000.0
    assert float(ratio_lower(5, 10, 0, 10, 0.5)) == 1000.0


def test_four_fifths_false_pass_at_the_limit():
    # p_g = .8 p_h exactly; MOVER on Wilson limits is approximate.
    for n_g, n_h, p_h in ((100, 100, 0.5), (200, 1000, 0.3), (100, 400, 0.9)):
        g, h = np.arange(n_g + 1)[:, None], np.arange(n_h + 1)[None, :]
        weights = stats.binom.pmf(g, n_g, 0.8 * p_h) * stats.binom.pmf(h, n_h, p_h)
        assert 0.045 <= float(weights[ratio_slack(g, n_g, h, n_h, 0.8, 0.05) > 0].sum()) <= 0.055


def test_arrays_of_any_shape():
    assert difference_upper(np.zeros((3, 1), dtype=int), 9, [1, 2], [4, 5], 0.05).shape == (3, 2)
    assert difference_z([1], [4], [1], [4], np.linspace(-1, 1, 5)).shape == (5,)
    one = float(difference_upper(2, 9, 2, 5, 0.05))
    assert difference_upper([2, 0], 9, [2, 0], 5, 0.05)[0] == pytest.approx(one, abs=1e-12)


@pytest.mark.parametrize("function", [difference_lower, difference_upper, ratio_lower])
@pytest.mark.parametrize(
    "arguments",
    [
        (1, 0, 1, 5, 0.05),
        (1, 5, 1, 0, 0.05),
        (6, 5, 1, 5, 0.05),
        (1, 5, -1, 5, 0.05),
        (1.0, 5, 1, 5, 0.05),
        ([1, 2], 5, [1, 2, 3], 5, 0.05),
        (1, 5, 1, 5, 0.0),
        (1, 5, 1, 5, nan),
    ],
)
def test_bad_arguments_are_refused(function, arguments):
    with pytest.raises(ValueError, match=r"expected .*got"):
        function(*arguments)


def test_bad_hypotheses_are_refused():
    for delta in (1.5, nan, [0.0, -1.1]):
        with pytest.raises(ValueError, match=r"expected delta in \[-1, 1\], got"):
            difference_z(1, 5, 1, 5, delta)
    with pytest.raises(ValueError, match=r"expected shapes that broadcast, got"):
        difference_z([1, 2], 5, [1, 2], 5, [0.0, 0.1, 0.2])
    for ratio in (-0.1, 1001.0, nan):
        with pytest.raises(ValueError, match=r"expected ratio in \[0, 1000\], got"):
            ratio_slack(1, 5, 1, 5, ratio, 0.05)
