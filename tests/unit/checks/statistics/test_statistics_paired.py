# SPDX-License-Identifier: Apache-2.0
"""Paired tests: known values, monotonicity, symmetry, and what identical predictions may prove."""

from __future__ import annotations

import subprocess
import sys
from math import inf, nan, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checks.statistics._unconditional import exact_p, rejects
from checks.statistics.paired import exact_lower, p_harm, p_noninferior, tango_bounds, tango_z

ALPHA = 0.05
ROOT = Path(__file__).parents[4]

few = settings(max_examples=40, deadline=None, derandomize=True, database=None)
margins = st.floats(0.002, 0.6)


@st.composite
def tables(draw: st.DrawFn, largest: int = 300) -> tuple[int, int, int]:
    n = draw(st.integers(1, largest))
    losses = draw(st.integers(0, n) | st.integers(0, min(n, 6)))
    gains = draw(st.integers(0, n - losses) | st.integers(0, min(n - losses, 6)))
    return losses, gains, n


@pytest.mark.parametrize(
    ("losses", "gains", "n", "margin", "expected"),
    [
        (0, 0, 59, 0.05, 0.048995),
        (0, 0, 58, 0.05, 0.051547),
        (0, 0, 149, 0.02, 0.049782),
        (3, 1, 200, 0.05, 0.006238),
        (20, 15, 1000, 0.02, 0.010032),
        (8, 3, 120, 0.05, 0.442426),
        (60, 50, 5000, 0.01, 0.000647),
    ],
)
def test_p_noninferior_known_values(losses, gains, n, margin, expected):
    assert p_noninferior(losses, gains, n, margin) == pytest.approx(expected, abs=5.1e-7)


@pytest.mark.parametrize(
    ("losses", "gains", "n", "margin", "gamma", "expected", "within"),
    [
        (12, 1, 100, 0.05, 5e-4, 0.040749, 5.1e-7),
        (9, 0, 60, 0.05, 5e-4, 0.011553, 5.1e-7),
        (40, 5, 500, 0.02, 1e-6, 2.98e-5, 5.1e-8),
    ],
)
def test_p_harm_known_values(losses, gains, n, margin, gamma, expected, within):
    assert p_harm(losses, gains, n, margin, gamma=gamma) == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(
    ("losses", "gains", "n", "alpha", "expected", "within"),
    [
        (7, 1, 21, 0.025, (-0.517, -0.026), 5.1e-4),
        (0, 0, 100, 0.05, (-0.02634, 0.02634), 5.1e-6),
        (3, 1, 200, 0.05, (-0.03258, 0.00878), 5.1e-6),
    ],
)
def test_tango_bounds_known_values(losses, gains, n, alpha, expected, within):
    assert tango_bounds(losses, gains, n, alpha) == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(
    ("losses", "gains", "n", "expected"),
    [(0, 0, 100, -0.0296), (3, 1, 200, -0.0326), (20, 15, 1000, -0.0152)],
)
def test_exact_lower_known_values(losses, gains, n, expected):
    assert exact_lower(losses, gains, n, ALPHA) == pytest.approx(expected, abs=5.1e-5)


def test_score_at_zero_is_mcnemar():
    assert tango_z(5, 9, 50, 0.0) == pytest.approx(4 / sqrt(14), rel=1e-14)


@given(tables(), st.floats(-0.99, 0.99))
@few
def test_score_changes_sign_when_the_models_change_places(table, theta):
    losses, gains, n = table
    assert tango_z(losses, gains, n, theta) == -tango_z(gains, losses, n, -theta)


@given(tables(), st.floats(-0.95, 0.95), st.floats(-0.95, 0.95))
@few
def test_score_falls_as_theta_grows(table, first, second):
    low, high = sorted((first, second))
    assert tango_z(*table, low) >= tango_z(*table, high) - 1e-9


@pytest.mark.parametrize("theta", [-1.0, 1.0])
def test_score_without_variance_is_zero(theta):
    assert tango_z(2, 1, 10, theta) == 0.0


@given(tables(), st.sampled_from([0.001, 0.025, 0.05, 0.2, 0.5]))
@few
def test_score_limits_enclose_the_estimate_and_solve_their_equation(table, alpha):
    losses, gains, n = table
    lower, upper = tango_bounds(losses, gains, n, alpha)
    assert -1.0 <= lower <= (gains - losses) / n <= upper <= 1.0
    assert tango_bounds(gains, losses, n, alpha) == (-upper, -lower)
    if lower > -0.999:
        assert tango_z(losses, gains, n, lower) == pytest.approx(NormalDist().inv_cdf(1 - alpha), abs=1e-6)


@given(tables(120), margins)
@few
def test_one_more_loss_never_helps_and_one_more_gain_never_hurts(table, margin):
    losses, gains, n = table
    passing, harm = p_noninferior(*table, margin), p_harm(*table, margin)
    if losses + gains < n:
        assert p_noninferior(losses + 1, gains, n, margin) >= passing - 1e-9
        assert p_noninferior(losses, gains + 1, n, margin) <= passing + 1e-9
        assert p_harm(losses + 1, gains, n, margin) <= harm + 1e-9
        assert p_harm(losses, gains + 1, n, margin) >= harm - 1e-9


@pytest.mark.parametrize("n", [60, 200])
def test_a_pass_at_one_margin_is_a_pass_at_every_larger_one(n):
    grid = np.geomspace(0.004, 0.4, 11)
    turned = 0
    for losses in (0, 1, 2, 3, 5):
        for gains in range(4):
            passes = [p_noninferior(losses, gains, n, float(margin)) <= ALPHA for margin in grid]
            assert passes == sorted(passes), (losses, gains)
            turned += passes[-1] and not passes[0]
    assert turned >= 16


@given(tables(120), st.floats(0.01, 0.2))
@few
def test_a_doubled_margin_is_easier_to_prove_and_harder_to_exceed(table, margin):
    # Neighbouring margins may jump the other way, see the docstring; a factor of two does not.
    assert p_noninferior(*table, 2 * margin) <= p_noninferior(*table, margin) + 0.01
    assert p_harm(*table, 2 * margin) >= p_harm(*table, margin) - 0.01


@given(tables(400), margins, st.sampled_from([0.01, 0.05, 0.1]))
@few
@example((3, 0, 60), 0.05, 0.05)
def test_harm_and_noninferiority_are_never_both_proven(table, margin, alpha):
    passes = p_noninferior(*table, margin, gamma=alpha / 100) <= alpha
    fails = p_harm(*table, margin, gamma=alpha / 100) <= alpha
    assert not (passes and fails)


@given(st.integers(1, 10**6), st.floats(1e-9, 1 - 1e-6))
@few
@example(1, 1e-9)
@example(10**6, 0.5)
def test_identical_predictions_never_look_harmful(n, margin):
    assert p_harm(0, 0, n, margin) > 0.5


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.0345, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("n", [1, 7, 29, 150, 600])
def test_identical_predictions_prove_no_more_than_their_number_allows(n, margin):
    assert p_noninferior(0, 0, n, margin) >= min(1.0, (1 - margin) ** n + 5e-4)


@given(tables(), margins, st.sampled_from([0.0, 1e-6, 5e-4, 0.01]))
@few
def test_p_values_lie_between_gamma_and_one(table, margin, gamma):
    for p_value in (p_noninferior(*table, margin, gamma=gamma), p_harm(*table, margin, gamma=gamma)):
        assert gamma < p_value <= 1.0


@given(tables(), margins)
@few
def test_the_mirrored_question_has_the_mirrored_p_value(table, margin):
    losses, gains, n = table
    assert p_harm(losses, gains, n, margin) == exact_p(gains, losses, n, margin, 5e-4)


@given(tables(150), st.floats(-0.4, 0.4), st.sampled_from([0.01, 0.05, 0.3]))
@few
def test_the_short_cut_decides_as_the_p_value_does(table, theta, alpha):
    p_value = exact_p(*table, theta, alpha / 100)
    assert rejects(*table, theta, alpha / 100, alpha) == (p_value <= alpha)


@given(tables(100), st.sampled_from([0.01, 0.05, 0.5]))
@settings(few, max_examples=25)
def test_the_exact_bound_divides_what_is_rejected_from_what_is_not(table, alpha):
    losses, gains, n = table
    lower = exact_lower(losses, gains, n, alpha)
    assert -1.0 <= lower <= (gains - losses) / n
    if lower > -1.0:
        assert exact_p(losses, gains, n, lower, alpha / 100) <= alpha
    if lower < (gains - losses) / n - 2e-6:
        assert exact_p(losses, gains, n, lower + 1.1e-6, alpha / 100) > alpha


@pytest.mark.parametrize("table", [(0, 0, 100), (3, 1, 200), (5, 5, 60), (6, 1, 100)])
def test_the_exact_bound_agrees_with_the_p_value_at_every_margin(table):
    lower = exact_lower(*table, ALPHA)
    for margin in np.linspace(0.005, 0.3, 40).tolist():
        assert (lower > -margin) == (p_noninferior(*table, margin) <= ALPHA)


def test_counts_of_narrow_numpy_types_do_not_wrap():
    table = (np.uint8(5), np.uint8(3), np.uint8(200))
    assert tango_z(*table, -0.02) == tango_z(5, 3, 200, -0.02)
    assert tango_bounds(*table, ALPHA) == tango_bounds(5, 3, 200, ALPHA)
    assert p_noninferior(*table, 0.05) == p_noninferior(5, 3, 200, 0.05)
    assert exact_lower(*table, ALPHA) == exact_lower(5, 3, 200, ALPHA)


BAD_COUNTS = [
    (-1, 0, 10, "losses"),
    (0, -1, 10, "gains"),
    (6, 5, 10, "losses + gains <= n"),
    (0, 0, 0, "n"),
    (0, 0, -5, "n"),
    (1.0, 0, 10, "losses"),
    (0, nan, 10, "gains"),
    (0, 0, 10.5, "n"),
    (True, 0, 10, "losses"),
]


@pytest.mark.parametrize(("losses", "gains", "n", "named"), BAD_COUNTS)
@pytest.mark.parametrize("function", [tango_z, tango_bounds, p_noninferior, p_harm, exact_lower])
def test_bad_counts_are_refused(function, losses, gains, n, named):
    with pytest.raises(ValueError, match=r"expected .*got") as caught:
        function(losses, gains, n, 0.05)
    assert named in str(caught.value)


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.05, 5.0, nan, inf])
@pytest.mark.parametrize("function", [p_noninferior, p_harm])
def test_bad_margins_are_refused(function, margin):
    with pytest.raises(ValueError, match=r"expected margin in \(0, 1\), got"):
        function(1, 1, 100, margin)


@pytest.mark.parametrize("gamma", [-1e-9, 0.011, nan])
@pytest.mark.parametrize("function", [p_noninferior, p_harm, exact_lower])
def test_bad_gammas_are_refused(function, gamma):
    with pytest.raises(ValueError, match="expected gamma in"):
        function(1, 1, 100, 0.05, gamma=gamma)


def test_gamma_must_leave_error_to_spend():
    with pytest.raises(ValueError, match=r"expected gamma in \[0, alpha = 0.001\), got 0.001"):
        exact_lower(1, 1, 100, 0.001, gamma=0.001)


@pytest.mark.parametrize("alpha", [0.0, -0.05, 0.51, 1.0, nan])
@pytest.mark.parametrize("function", [tango_bounds, exact_lower])
def test_bad_alphas_are_refused(function, alpha):
    with pytest.raises(ValueError, match=r"expected alpha in \(0, 0.5\], got"):
        function(1, 1, 100, alpha)


@pytest.mark.parametrize("theta", [-1.01, 1.01, nan])
def test_bad_thetas_are_refused(theta):
    with pytest.raises(ValueError, match=r"expected theta in \[-1, 1\], got"):
        tango_z(1, 1, 100, theta)


def test_importing_the_package_does_not_import_scipy():
    code = "import sys, checks.statistics; sys.exit('scipy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
