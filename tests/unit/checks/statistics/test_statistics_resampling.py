# SPDX-License-Identifier: Apache-2.0
"""Bounds by resampling: agreement with scipy, the promised error, refusals and order."""

from __future__ import annotations

from math import inf, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from checks.statistics.resampling import (
    BOOTSTRAP_UNITS,
    Bound,
    bootstrap_t_lower,
    bootstrap_t_upper,
    grouped_jackknife_t,
    rare_harm_floor,
)

few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
ALPHA = 0.05


def _t_bound(values: np.ndarray, alpha: float = ALPHA) -> float:
    return values.mean() + stats.t.ppf(1 - alpha, len(values) - 1) * values.std(ddof=1) / sqrt(len(values))


def _ratio(totals: np.ndarray) -> np.ndarray:
    return totals[..., 1] / totals[..., 0]


# Bootstrap-t ------------------------------------------------------------------------------------


def test_normal_values_have_students_bound():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    bound = bootstrap_t_upper(values, ALPHA, seed=0, resamples=10_000)
    assert (bound.method, bound.resamples) == ("bootstrap_t", 10_000)
    width = _t_bound(values) - values.mean()
    assert bound.value - values.mean() == pytest.approx(width, rel=0.03)


def test_the_bound_is_that_of_a_plain_loop():
    generator = np.random.default_rng(2)
    values = np.sort(generator.gamma(0.5, size=60) - 0.3)
    indices = np.random.Generator(np.random.PCG64(7)).integers(0, 60, size=(2000, 60))
    t = [(row.mean() - values.mean()) / (row.std(ddof=1) / sqrt(60)) for row in values[indices]]
    expected = values.mean() - sorted(t)[99] * values.std(ddof=1) / sqrt(60)
    assert bootstrap_t_upper(values, ALPHA, seed=7).value == pytest.approx(expected, rel=1e-9)


def test_skewed_harm_reaches_further_than_students_bound():
    values = np.zeros(400)
    values[:20] = 1.0
    assert bootstrap_t_upper(values, ALPHA, seed=0).value > _t_bound(values)
    assert bootstrap_t_lower(-values, ALPHA, seed=0).value == -bootstrap_t_upper(values, ALPHA, seed=0).value


def test_false_pass_of_a_brier_rule_at_its_limit():
    generator = np.random.default_rng(3)

    def sharpened(p: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-1.8 * np.log(p / (1 - p))))

    p = np.clip(generator.beta(9, 0.7, 400_000), 1e-4, 1 - 1e-4)
    tau = (p * (1 - sharpened(p)) ** 2 + (1 - p) * sharpened(p) ** 2 - p * (1 - p)).mean()
    passes, runs = 0, 400
    for run in range(runs):
        p = np.clip(generator.beta(9, 0.7, 200), 1e-4, 1 - 1e-4)
        label = generator.random(200) < p
        values = (sharpened(p) - label) ** 2 - (p - label) ** 2
        passes += bootstrap_t_upper(values, ALPHA, seed=run, resamples=999).value < tau
    # 0.048 in 4000 runs; a percentile or a t interval has about 0.09 here.
    assert 0.02 <= passes / runs <= 0.08


def test_too_few_units_that_differ_are_refused():
    values = np.zeros(500)
    values[:9] = 1.0
    assert bootstrap_t_upper(values, ALPHA, seed=0) == Bound(inf, "refused", 0)
    assert bootstrap_t_lower(values, ALPHA, seed=0) == Bound(-inf, "refused", 0)
    values[9] = -1.0
    assert np.isfinite(bootstrap_t_upper(values, ALPHA, seed=0).value)
    assert bootstrap_t_upper([], ALPHA, seed=0).value == inf


def test_resamples_without_spread_never_help():
    assert bootstrap_t_upper(np.full(50, -0.2), ALPHA, seed=0).value == inf
    # A resample misses the one other value with probability .37, far above alpha.
    assert bootstrap_t_upper(np.append(np.full(29, -0.2), -0.1), ALPHA, seed=0).value == inf


def test_small_levels_draw_more_resamples():
    values = np.random.default_rng(4).normal(size=30)
    bounds = [bootstrap_t_upper(values, alpha, seed=0) for alpha in (0.05, 0.005, 0.001)]
    assert [bound.resamples for bound in bounds] == [2000, 4000, 20_000]
    assert bounds[0].value < bounds[1].value < bounds[2].value
    assert bootstrap_t_upper(values, 1e-6, seed=0) == Bound(inf, "refused", 0)


@given(st.integers(0, 10**6), st.sampled_from([1e-200, 1.0, 1e150]))
@few
def test_order_and_unit_do_not_matter(seed, unit):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=40) ** 3
    bound = bootstrap_t_upper(values, ALPHA, seed=5, resamples=400)
    moved = bootstrap_t_upper(generator.permutation(values) * unit, ALPHA, seed=5, resamples=400)
    assert moved.value == pytest.approx(bound.value * unit, rel=1e-9)
    assert bootstrap_t_upper(values, ALPHA, seed=5, resamples=400) == bound
    assert bootstrap_t_upper(values, ALPHA, seed=6, resamples=400).value != bound.value


def test_chunks_do_not_change_the_bound(monkeypatch):
    values = np.random.default_rng(5).normal(size=300)
    whole = bootstrap_t_upper(values, ALPHA, seed=1)
    monkeypatch.setattr("checks.statistics.resampling._CHUNK", 3000)
    assert bootstrap_t_upper(values, ALPHA, seed=1) == whole


def test_many_units_take_the_jackknife():
    generator = np.random.default_rng(6)
    values = generator.normal(size=BOOTSTRAP_UNITS + 1)
    bound = bootstrap_t_upper(values, ALPHA, seed=1)
    assert (bound.method, bound.resamples) == ("jackknife_t", 0)
    width = _t_bound(values) - values.mean()
    assert bound.value - values.mean() == pytest.approx(width, rel=0.25)
    assert bootstrap_t_upper(generator.permutation(values), ALPHA, seed=1).value == pytest.approx(bound.value)
    assert bootstrap_t_upper(np.full(BOOTSTRAP_UNITS + 1, 0.5), ALPHA, seed=1).value == inf


def test_many_units_with_skewed_harm_have_a_higher_bound():
    harm = np.zeros(BOOTSTRAP_UNITS + 1)
    harm[:30] = 2.0

    def plain(values: np.ndarray) -> float:
        sums = np.stack([np.ones(values.size), np.sort(values)], axis=1)
        return grouped_jackknife_t(sums, _ratio, ALPHA, seed=3).upper

    added = harm.std() * stats.skew(harm) * (2 * stats.norm.isf(ALPHA) ** 2 + 1) / (6 * harm.size)
    assert bootstrap_t_upper(harm, ALPHA, seed=3).value == pytest.approx(plain(harm) + added, rel=1e-9)
    # Skewed the other way a correction would lower the bound, and none is made.
    assert bootstrap_t_upper(-harm, ALPHA, seed=3).value == pytest.approx(plain(-harm), rel=1e-9)


def test_many_units_with_rare_harm():
    generator = np.random.default_rng(7)
    runs, n, rate = 300, BOOTSTRAP_UNITS + 1, 0.003
    values = (generator.random((runs, n)) < rate) * 2.0
    passes = sum(bootstrap_t_upper(row, ALPHA, seed=run).value < 2 * rate for run, row in enumerate(values))
    assert passes / runs <= 0.08


@pytest.mark.parametrize(
    ("values", "alpha", "seed", "resamples"),
    [
        ([1.0, nan], ALPHA, 0, 2000),
        ([1.0, inf], ALPHA, 0, 2000),
        ([[1.0]], ALPHA, 0, 2000),
        ([1.0], 0.0, 0, 2000),
        ([1.0], nan, 0, 2000),
        ([1.0], ALPHA, -1, 2000),
        ([1.0], ALPHA, 0.5, 2000),
        ([1.0], ALPHA, 0, 0),
        ([1.0], ALPHA, 0, 10**7),
    ],
)
def test_bad_arguments_are_refused(values, alpha, seed, resamples):
    for function in (bootstrap_t_upper, bootstrap_t_lower):
        with pytest.raises(ValueError, match=r"expected .*got"):
            function(values, alpha, seed, resamples)


# Rare harm --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "tau", "largest", "expected"),
    [(0.05, 0.01, 2.0, 598), (0.05, 0.05, 1.0, 59), (0.25, 0.5, 1.0, 2)],
)
def test_rare_harm_floor(alpha, tau, largest, expected):
    assert rare_harm_floor(alpha, tau, largest) == expected
    assert (1 - tau / largest) ** expected <= alpha * (1 + 1e-12)
    assert (1 - tau / largest) ** (expected - 1) > alpha


@pytest.mark.parametrize(
    ("alpha", "tau", "largest"),
    [(0.0, 0.1, 1.0), (0.05, 0.0, 1.0), (0.05, 1.0, 1.0), (0.05, nan, 1.0), (0.05, 0.1, inf)],
)
def test_bad_floors_are_refused(alpha, tau, largest):
    with pytest.raises(ValueError, match=r"expected .*got"):
        rare_harm_floor(alpha, tau, largest)


# Grouped jackknife ------------------------------------------------------------------------------


def test_one_unit_a_group_is_students_interval():
    values = np.random.default_rng(8).normal(1.0, 2.0, size=80)
    result = grouped_jackknife_t(np.stack([np.ones(80), values], axis=1), _ratio, ALPHA, seed=0)
    assert result.groups == 80
    assert result.value == pytest.approx(values.mean())
    assert result.standard_error == pytest.approx(values.std(ddof=1) / sqrt(80))
    assert result.upper == pytest.approx(_t_bound(values))
    assert result.lower == pytest.approx(-_t_bound(-values))


def test_a_ratio_has_the_jackknife_error_of_scipy():
    generator = np.random.default_rng(9)
    size = generator.gamma(3.0, size=50)
    sums = np.stack([size, size * generator.gamma(4.0, 0.25, size=50)], axis=1)
    result = grouped_jackknife_t(sums, _ratio, ALPHA, seed=0)
    without = (sums.sum(axis=0) - sums)[:, 1] / (sums.sum(axis=0) - sums)[:, 0]
    assert result.standard_error == pytest.approx(sqrt(49 / 50 * ((without - without.mean()) ** 2).sum()))
    reach = stats.t.ppf(0.95, 49) * result.standard_error
    assert (result.lower, result.upper) == pytest.approx((result.value - reach, result.value + reach))


@pytest.mark.parametrize("units", [130, 150, 1000, 5003])
def test_groups_of_unequal_size_have_the_right_error_on_average(units):
    generator = np.random.default_rng(10)
    values = generator.normal(size=(200, units))
    errors = [
        grouped_jackknife_t(np.stack([np.ones(units), row], axis=1), _ratio, ALPHA, seed=run).standard_error
        for run, row in enumerate(values)
    ]
    assert np.mean(np.square(errors)) * units == pytest.approx(1.0, abs=0.04)


def test_groups_of_unequal_size_by_hand():
    # One unit against the two others: the weighted spread is (x - mean)^2 / 2 on either side.
    values = np.array([1.0, 4.0, 10.0])
    sums = np.stack([np.ones(3), values], axis=1)
    expected = np.abs(values - 5.0) / sqrt(2)
    for seed in range(6):
        error = grouped_jackknife_t(sums, _ratio, ALPHA, seed=seed, groups=2).standard_error
        assert np.isclose(error, expected, rtol=1e-12).any()


def test_error_of_the_bounds_on_a_ratio():
    generator = np.random.default_rng(11)
    high = low = 0
    for run in range(500):
        size = generator.gamma(2.0, size=400)
        sums = np.stack([size, size * generator.gamma(4.0, 0.25, size=400)], axis=1)
        result = grouped_jackknife_t(sums, _ratio, ALPHA, seed=run)
        high, low = high + (result.upper < 1.0), low + (result.lower > 1.0)
    assert 0.02 <= high / 500 <= 0.09
    assert 0.02 <= low / 500 <= 0.09


def test_the_seed_decides_the_groups():
    values = np.random.default_rng(12).normal(size=(900, 1)) ** 2

    def total(totals: np.ndarray) -> np.ndarray:
        return totals[..., 0]

    first, again, other = (grouped_jackknife_t(values, total, ALPHA, seed=s, groups=30) for s in (1, 1, 2))
    assert first == again
    assert first.groups == 30
    assert first.value == pytest.approx(other.value)
    assert first.standard_error != other.standard_error


def test_a_statistic_that_never_moves_shows_no_error():
    ones = np.ones((50, 2))
    result = grouped_jackknife_t(ones, _ratio, ALPHA, seed=0)
    assert (result.value, result.lower, result.upper) == (1.0, -inf, inf)
    zeros = grouped_jackknife_t(ones * [1.0, 0.0], _ratio, ALPHA, seed=0)
    assert (zeros.value, zeros.lower, zeros.upper) == (0.0, -inf, inf)


def test_a_statistic_that_is_not_finite_is_refused():
    # Leaving out the only unit that counts leaves nothing to divide by.
    sums = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])

    def quiet(totals: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return _ratio(totals)

    with pytest.raises(ValueError, match=r"expected 4 finite values .* got shape \(4,\) with 1 not finite"):
        grouped_jackknife_t(sums, quiet, ALPHA, seed=0)
    with pytest.raises(ValueError, match=r"expected 4 finite values .* got shape \(\)"):
        grouped_jackknife_t(sums, np.sum, ALPHA, seed=0)


@pytest.mark.parametrize(
    ("sums", "alpha", "seed", "groups"),
    [
        (np.ones((1, 2)), ALPHA, 0, 100),
        (np.ones(5), ALPHA, 0, 100),
        (np.full((5, 2), nan), ALPHA, 0, 100),
        (np.ones((5, 2)), 0.0, 0, 100),
        (np.ones((5, 2)), ALPHA, -1, 100),
        (np.ones((5, 2)), ALPHA, 0, 1),
    ],
)
def test_bad_sums_are_refused(sums, alpha, seed, groups):
    with pytest.raises(ValueError, match=r"expected .*got"):
        grouped_jackknife_t(sums, _ratio, alpha, seed=seed, groups=groups)
