# SPDX-License-Identifier: Apache-2.0
"""Two independent proportions, such as the same rate within two groups: difference and ratio.

Throughout, p_g and p_h are the true success probabilities of groups g and h that share no unit.
Every function takes arrays of counts and works on all of them at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from checks.statistics._arrays import broadcast, success_arrays
from checks.statistics._special import normal_quantile
from checks.statistics._validate import check_alpha, check_real
from checks.statistics.binomial import wilson_many

__all__ = [
    "LARGEST_RATIO",
    "difference_lower",
    "difference_upper",
    "difference_z",
    "ratio_lower",
    "ratio_slack",
]

LARGEST_RATIO = 1e3
"""Ratios are looked for up to here."""

# Halvings of an interval of at most 2: the bounds are exact to 1e-12.
_BISECTIONS = 42

FloatArray = NDArray[np.float64]
# Successes and units of g, then of h, in one shape.
Counts = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def _checked(s_g: ArrayLike, n_g: ArrayLike, s_h: ArrayLike, n_h: ArrayLike) -> Counts:
    hits_g, sizes_g = success_arrays(s_g, n_g, ("s_g", "n_g"))
    hits_h, sizes_h = success_arrays(s_h, n_h, ("s_h", "n_h"))
    first, second, third, fourth = (
        array.astype(np.float64) for array in broadcast(s_g=hits_g, n_g=sizes_g, s_h=hits_h, n_h=sizes_h)
    )
    return first, second, third, fourth


def _restricted_rate(
    rate_g: FloatArray, rate_h: FloatArray, share: FloatArray, delta: FloatArray
) -> FloatArray:
    """Return the p_g of largest likelihood under p_g - p_h = delta, `share` being n_h / n_g.

    The middle root of a cubic, in closed form (Farrington & Manning 1990).
    """
    a = 1 + share
    b = -(1 + share + rate_g + share * rate_h + delta * (share + 2))
    c = delta * delta + delta * (2 * rate_g + share + 1) + rate_g + share * rate_h
    d = -rate_g * delta * (1 + delta)
    third = b / (3 * a)
    v = third**3 - b * c / (6 * a * a) + d / (2 * a)
    radius = np.sqrt(np.maximum(third * third - c / (3 * a), 0.0))
    # A radius of 0 is a triple root, where the angle does not matter.
    cube = np.where(radius > 0, radius**3, 1.0)
    angle = (np.pi + np.arccos(np.clip(v / cube, -1.0, 1.0))) / 3
    root = 2 * radius * np.cos(angle) - third
    # Rounding must not leave the range in which both rates are probabilities.
    return np.asarray(np.clip(root, np.maximum(delta, 0.0), np.minimum(1.0, 1.0 + delta)))


def _score(counts: Counts, delta: FloatArray) -> FloatArray:
    s_g, n_g, s_h, n_h = counts
    rate_g, rate_h = s_g / n_g, s_h / n_h
    null_g = _restricted_rate(rate_g, rate_h, n_h / n_g, delta)
    null_h = np.clip(null_g - delta, 0.0, 1.0)
    total = n_g + n_h
    variance = (null_g * (1 - null_g) / n_g + null_h * (1 - null_h) / n_h) * total / (total - 1)
    known = variance > 0
    statistic = (rate_g - rate_h - delta) / np.sqrt(np.where(known, variance, 1.0))
    return np.asarray(np.where(known, statistic, 0.0), dtype=np.float64)


def difference_z(
    s_g: ArrayLike, n_g: ArrayLike, s_h: ArrayLike, n_h: ArrayLike, delta: ArrayLike
) -> NDArray[np.float64]:
    """Return the score statistic of the hypothesis p_g - p_h = `delta`.

    Its variance is that of the most likely rates under the hypothesis, times N / (N - 1) with
    N = n_g + n_h. Where that is 0 (no success or no failure at all at delta = 0; delta = -1 or 1)
    the statistic is 0, which speaks for neither side.

    Args:
        s_g: successes of group g, integers from 0 to n_g; all arguments broadcast.
        n_g: independent units of group g, integers >= 1.
        s_h: as s_g, for group h.
        n_h: as n_g, for group h.
        delta: hypothetical differences, in [-1, 1].

    Returns:
        float64 array of the common shape: large where the data speak for p_g - p_h > delta.
        Exchanging the groups and the sign of delta changes its sign.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213; closed form of the restricted
    estimate, Farrington & Manning 1990, Statistics in Medicine 9:1447.
    """
    counts = _checked(s_g, n_g, s_h, n_h)
    hypothesis = np.asarray(delta, dtype=np.float64)
    inside = (hypothesis >= -1.0) & (hypothesis <= 1.0)
    check_real("delta", delta, "[-1, 1]", inside=bool(inside.all()))  # type: ignore[arg-type]
    try:
        np.broadcast_shapes(counts[0].shape, hypothesis.shape)
    except ValueError:
        raise ValueError(
            f"expected shapes that broadcast, got counts {counts[0].shape}, delta {hypothesis.shape}"
        ) from None
    return _score(counts, hypothesis)


def difference_upper(
    s_g: ArrayLike, n_g: ArrayLike, s_h: ArrayLike, n_h: ArrayLike, alpha: float
) -> NDArray[np.float64]:
    """Return the one-sided upper score bound of p_g - p_h.

    A rule on groups holds if the bound keeps the limit for every ordered pair. The error is near
    `alpha`, not guaranteed below it. By enumeration at alpha 0.05 and a limit at the truth it is
    .042 to .049 for rates .95 and .85 (50 and 500, 100 and 100, 300 and 1000 units), and at the
    worst rates .062 with 100 and 1000 units, .051 with 1000 and 1000.

    Args:
        s_g: successes of group g, integers from 0 to n_g; all counts broadcast.
        n_g: independent units of group g, integers >= 1.
        s_h: as s_g, for group h; the groups share no unit.
        n_h: as n_g, for group h.
        alpha: error probability, in (0, 0.5].

    Returns:
        float64 array of the common shape, in [s_g / n_g - s_h / n_h, 1], high by at most 1e-12.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213 (the bound solves z = -z_alpha).
    """
    counts = _checked(s_g, n_g, s_h, n_h)
    check_alpha(alpha)
    return _upper(counts, normal_quantile(1 - alpha))


def _upper(counts: Counts, z: float) -> FloatArray:
    hits_g, sizes_g, hits_h, sizes_h = counts
    low = hits_g / sizes_g - hits_h / sizes_h
    high = np.ones_like(low)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        excluded = _score(counts, middle) <= -z
        low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
    return high


def difference_lower(
    s_g: ArrayLike, n_g: ArrayLike, s_h: ArrayLike, n_h: ArrayLike, alpha: float
) -> NDArray[np.float64]:
    """Return the one-sided lower score bound of p_g - p_h, minus the upper bound of p_h - p_g.

    Args:
        s_g: successes of group g, integers from 0 to n_g; all counts broadcast.
        n_g: independent units of group g, integers >= 1.
        s_h: as s_g, for group h; the groups share no unit.
        n_h: as n_g, for group h.
        alpha: error probability, in (0, 0.5].

    Returns:
        float64 array of the common shape, in [-1, s_g / n_g - s_h / n_h], low by at most 1e-12.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213 (the bound solves z = z_alpha).
    """
    hits_g, sizes_g, hits_h, sizes_h = _checked(s_g, n_g, s_h, n_h)
    check_alpha(alpha)
    return -_upper((hits_h, sizes_h, hits_g, sizes_g), normal_quantile(1 - alpha))


def ratio_slack(
    s_g: ArrayLike, n_g: ArrayLike, s_h: ArrayLike, n_h: ArrayLike, ratio: float, alpha: float
) -> NDArray[np.float64]:
    """Return by how much the rule p_g >= ratio p_h is kept for sure: it is proven where this is above 0.

    With l_g and u_h the one-sided Wilson limits, it is (p_g - r p_h) - sqrt((p_g - l_g)^2 +
    r^2 (u_h - p_h)^2) at the observed rates. Nothing is divided, so it is defined at every count.
    By enumeration at alpha 0.05 and r = 0.8 the error is .048 to .054 with hundreds of units, at
    the worst rates .073 to .080 (near .01, with 100 against 1000 and 50 against 200 units).

    Args:
        s_g: successes of group g, integers from 0 to n_g; all counts broadcast.
        n_g: independent units of group g, integers >= 1.
        s_h: as s_g, for group h; the groups share no unit.
        n_h: as n_g, for group h.
        ratio: the smallest tolerated p_g / p_h, in [0, 1000].
        alpha: error probability, in (0, 0.5].

    Returns:
        float64 array of the common shape: the lower bound of p_g - r p_h, approximate.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693; limits, Wilson 1927.
    """
    counts = _checked(s_g, n_g, s_h, n_h)
    check_real("ratio", ratio, f"[0, {LARGEST_RATIO:g}]", inside=0.0 <= ratio <= LARGEST_RATIO)
    check_alpha(alpha)
    rate_g, rate_h, below_g, above_h = _distances(counts, alpha)
    return np.asarray(rate_g - ratio * rate_h - np.hypot(below_g, ratio * above_h))


def _distances(counts: Counts, alpha: float) -> tuple[FloatArray, ...]:
    """Return both rates, how far p_g's lower Wilson limit lies below and p_h's upper one above."""
    hits_g, sizes_g, hits_h, sizes_h = (array.astype(np.int64) for array in counts)
    rate_g, rate_h = hits_g / sizes_g, hits_h / sizes_h
    lower_g, _ = wilson_many(hits_g, sizes_g, alpha)
    _, upper_h = wilson_many(hits_h, sizes_h, alpha)
    # At alpha = 1/2 the limits are the rates, up to rounding.
    return rate_g, rate_h, np.maximum(rate_g - lower_g, 0.0), np.maximum(upper_h - rate_h, 0.0)


def ratio_lower(
    s_g: ArrayLike, n_g: ArrayLike, s_h: ArrayLike, n_h: ArrayLike, alpha: float
) -> NDArray[np.float64]:
    """Return the largest ratio r for which `ratio_slack` proves p_g >= r p_h; for display.

    Args:
        s_g: successes of group g, integers from 0 to n_g; all counts broadcast.
        n_g: independent units of group g, integers >= 1.
        s_h: as s_g, for group h; the groups share no unit.
        n_h: as n_g, for group h.
        alpha: error probability, in (0, 0.5].

    Returns:
        float64 array of the common shape, in [0, 1000]: the lower bound of p_g / p_h, where the
        slack, which falls with r, crosses 0; 0 without a success of g.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693, solved for r.
    """
    counts = _checked(s_g, n_g, s_h, n_h)
    check_alpha(alpha)
    rate_g, rate_h, below_g, above_h = _distances(counts, alpha)
    # The smaller root of (p_g - r p_h)^2 = below^2 + r^2 above^2, in the form that does not cancel.
    constant = (rate_g - below_g) * (rate_g + below_g)
    spread = np.sqrt((rate_h * below_g) ** 2 + above_h**2 * constant)
    divisor = rate_g * rate_h + spread
    root = np.divide(constant, divisor, out=np.full(constant.shape, np.inf), where=divisor > 0)
    return np.asarray(np.where(constant > 0, np.minimum(root, LARGEST_RATIO), 0.0))
