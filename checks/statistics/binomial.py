# SPDX-License-Identifier: Apache-2.0
"""One proportion: bounds of a success probability from independent units."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from checks.statistics._arrays import success_arrays
from checks.statistics._special import beta_quantile, normal_quantile, special
from checks.statistics._validate import check_alpha, checked_successes

__all__ = [
    "clopper_pearson_lower",
    "clopper_pearson_many",
    "clopper_pearson_upper",
    "wilson_bounds",
    "wilson_many",
]


def clopper_pearson_lower(successes: int, n: int, alpha: float) -> float:
    """Return the exact one-sided lower bound of a success probability.

    Args:
        successes: successes seen, from 0 to n.
        n: independent units, >= 1.
        alpha: error probability, in (0, 0.5].

    Returns:
        The bound, in [0, successes / n]; 0 without a success. It exceeds the true probability
        with probability at most alpha.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Clopper & Pearson 1934, Biometrika 26:404.
    """
    successes, n = checked_successes(successes, n)
    check_alpha(alpha)
    return 0.0 if successes == 0 else beta_quantile(alpha, successes, n - successes + 1)


def clopper_pearson_upper(successes: int, n: int, alpha: float) -> float:
    """Return the exact one-sided upper bound of a success probability.

    Args:
        successes: successes seen, from 0 to n.
        n: independent units, >= 1.
        alpha: error probability, in (0, 0.5].

    Returns:
        The bound, in [successes / n, 1]; 1 without a failure. It falls short of the true
        probability with probability at most alpha.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Clopper & Pearson 1934, Biometrika 26:404.
    """
    successes, n = checked_successes(successes, n)
    check_alpha(alpha)
    return 1.0 if successes == n else beta_quantile(1 - alpha, successes + 1, n - successes)


def wilson_bounds(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """Return approximate one-sided lower and upper score bounds of a success probability.

    Args:
        successes: successes seen, from 0 to n.
        n: independent units, >= 1.
        alpha: error probability of each bound by itself, in (0, 0.5].

    Returns:
        (lower, upper) with 0 <= lower <= successes / n <= upper <= 1; together a 1 - 2 alpha
        interval. Their error is near alpha, not guaranteed below it.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Wilson 1927, JASA 22:209.
    """
    successes, n = checked_successes(successes, n)
    check_alpha(alpha)
    z = normal_quantile(1 - alpha)
    rate, spread = successes / n, z * z / n
    centre = (rate + spread / 2) / (1 + spread)
    half = sqrt(spread * (rate * (1 - rate) + spread / 4)) / (1 + spread)
    # At the ends the bound equals the rate; rounding must not put it on the wrong side.
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    upper = 1.0 if successes == n else min(1.0, centre + half)
    return lower, upper


def clopper_pearson_many(
    successes: ArrayLike, n: ArrayLike, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `clopper_pearson_lower` and `clopper_pearson_upper` of many samples at once.

    Args:
        successes: integers from 0 to n, of any shape that broadcasts with n.
        n: independent units, integers >= 1.
        alpha: error probability of each bound by itself, in (0, 0.5].

    Returns:
        (lower, upper), float64 arrays of the common shape; together a 1 - 2 alpha interval.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: Clopper & Pearson 1934, Biometrika 26:404.
    """
    hits, sizes = success_arrays(successes, n)
    check_alpha(alpha)
    quantile = special().betaincinv
    misses = sizes - hits
    # Where there is no success (no failure) the quantile has no meaning and the bound is an end.
    lower = np.where(hits == 0, 0.0, quantile(np.maximum(hits, 1), misses + 1, alpha))
    upper = np.where(misses == 0, 1.0, quantile(hits + 1, np.maximum(misses, 1), 1 - alpha))
    return lower, upper


def wilson_many(
    successes: ArrayLike, n: ArrayLike, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `wilson_bounds` of many samples at once.

    Args:
        successes: integers from 0 to n, of any shape that broadcasts with n.
        n: independent units, integers >= 1.
        alpha: error probability of each bound by itself, in (0, 0.5].

    Returns:
        (lower, upper), float64 arrays of the common shape, approximate; together a 1 - 2 alpha
        interval.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: Wilson 1927, JASA 22:209.
    """
    hits, sizes = success_arrays(successes, n)
    check_alpha(alpha)
    z = normal_quantile(1 - alpha)
    rate, spread = hits / sizes, z * z / sizes
    centre = (rate + spread / 2) / (1 + spread)
    half = np.sqrt(spread * (rate * (1 - rate) + spread / 4)) / (1 + spread)
    lower = np.where(hits == 0, 0.0, np.maximum(centre - half, 0.0))
    upper = np.where(hits == sizes, 1.0, np.minimum(centre + half, 1.0))
    return lower, upper
