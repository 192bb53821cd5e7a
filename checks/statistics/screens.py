# SPDX-License-Identifier: Apache-2.0
"""Searches for concentrated harm: exact tests whose small p-value is a reason to look.

They bound how often a search raises a false alarm, and promise nothing about what it misses.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checks.statistics._special import normal_quantile, special
from checks.statistics._validate import _count, check_alpha, check_real

__all__ = ["risk_ratio", "slice_concentration_p", "target_concentration_p"]

# Halvings of a share; more could round it to 1, which has no ratio.
_BISECTIONS = 50


def _checked_pair(losses_name: str, losses: int, right_name: str, right: int) -> tuple[int, int]:
    lost, size = _count(losses_name, losses, 0), _count(right_name, right, 0)
    if lost > size:
        raise ValueError(f"expected {losses_name} <= {right_name}, got {lost} > {size}")
    return lost, size


def slice_concentration_p(losses_in: int, right_in: int, losses_all: int, right_all: int) -> float:
    """Return the p-value of "losses are not more frequent within the slice than outside of it".

    Fisher's exact one-sided test among the units that the baseline gets right: given all losses and
    the size of the slice, the losses within it are hypergeometric.

    Args:
        losses_in: losses within the slice, >= 0.
        right_in: units within the slice that the baseline gets right, >= losses_in.
        losses_all: losses within the slice and outside, >= losses_in.
        right_all: such units in all, >= right_in, with room for the losses outside.

    Returns:
        P(as many losses or more within the slice), in (0, 1]; 1 without a loss within it. Several
        slices need Holm's rule.

    Raises:
        ValueError: if the counts do not fit each other.

    Source: Fisher 1935, Journal of the Royal Statistical Society 98:39.
    """
    lost, size = _checked_pair("losses_in", losses_in, "right_in", right_in)
    all_lost, total = _checked_pair("losses_all", losses_all, "right_all", right_all)
    if not 0 <= all_lost - lost <= total - size:
        raise ValueError(
            "expected the slice to be part of all units, got "
            f"{all_lost - lost} losses among {total - size} units outside of it"
        )
    if lost <= max(0, all_lost + size - total):
        return 1.0
    log_gamma = special().gammaln

    def log_choose(n: int, k: NDArray[np.int64] | int) -> Any:
        return log_gamma(n + 1) - log_gamma(k + 1) - log_gamma(n - k + 1)

    within = np.arange(lost, min(all_lost, size) + 1)
    log_terms = log_choose(all_lost, within) + log_choose(total - all_lost, size - within)
    return min(1.0, float(np.exp(log_terms - log_choose(total, size)).sum()))


def risk_ratio(
    losses_in: int, right_in: int, losses_out: int, right_out: int, alpha: float
) -> tuple[float, float, float]:
    """Return how many times more frequent losses are within a slice than outside, with score bounds.

    The bounds solve z(R) = +-z_alpha for the score statistic of p_in = R p_out, whose variance is
    that of the most likely rates under this hypothesis, times N / (N - 1).

    Args:
        losses_in: losses within the slice, >= 0.
        right_in: units within the slice that the baseline gets right, >= 1 and >= losses_in.
        losses_out: as losses_in, outside of the slice.
        right_out: as right_in, outside of the slice.
        alpha: error probability of each bound by itself, in (0, 0.5].

    Returns:
        (ratio, lower, upper), 0 <= lower <= ratio <= upper; together a 1 - 2 alpha interval,
        approximate. Without a loss outside the upper bound is infinite, and so is the ratio if
        there is one within; without any loss they are (1, 0, inf).

    Raises:
        ValueError: if an argument is outside its range.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213; without the factor, Koopman
    1984, Biometrics 40:513.
    """
    x, n = _checked_pair("losses_in", losses_in, "right_in", _count("right_in", right_in, 1))
    y, m = _checked_pair("losses_out", losses_out, "right_out", _count("right_out", right_out, 1))
    check_alpha(alpha)
    z = normal_quantile(1 - alpha)
    # Ratios are sought on the scale share = R / (1 + R), which has an end for R = inf.
    rate_in, rate_out = x / n, y / m
    share = rate_in / (rate_in + rate_out) if x + y else 0.5

    def score(middle: float) -> float:
        return _ratio_score(x, n, y, m, middle / (1 - middle))

    low = 0.0 if x == 0 else _crossing(0.0, share, lambda middle: score(middle) >= z)[0]
    high = 1.0 if y == 0 else _crossing(share, 1.0, lambda middle: score(middle) > -z)[1]
    ratio = 1.0 if x + y == 0 else inf if y == 0 else rate_in / rate_out
    return ratio, min(low / (1 - low), ratio), inf if high >= 1 else max(high / (1 - high), ratio)


def _crossing(low: float, high: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """Return both sides of the point from which on `holds` no longer does."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low, high


def _ratio_score(x: int, n: int, y: int, m: int, ratio: float) -> float:
    """Return the score statistic of p_in = ratio p_out, 0 where its variance is 0."""
    total = n + m
    b = n * ratio + x + m + y * ratio
    root = sqrt(max(b * b - 4 * total * ratio * (x + y), 0.0))
    # The smaller root of N R p^2 - b p + (x + y) = 0, in the form that does not cancel.
    null_out = min(2 * (x + y) / (b + root), 1.0)
    null_in = min(ratio * null_out, 1.0)
    variance = null_in * (1 - null_in) / n + ratio * ratio * null_out * (1 - null_out) / m
    variance *= total / (total - 1)
    return (x / n - ratio * y / m) / sqrt(variance) if variance > 0 else 0.0


def target_concentration_p(flips_into: int, flips: int, expected_share: float) -> float:
    """Return the p-value of "flips do not go to this class more than its neighbourhood explains".

    With e the share of flips whose runner-up at the baseline is the class, the flips into it are
    compared with Binomial(flips, min(1, 0.5 e + 0.05)): half of what the runner-ups suggest, and
    one flip in twenty for no reason.

    Args:
        flips_into: flips whose new class it is, >= 0.
        flips: flips in all, >= flips_into.
        expected_share: e, in [0, 1].

    Returns:
        P(as many flips into the class or more), in [0, 1]. Several classes need a correction for
        their number.

    Raises:
        ValueError: if an argument is outside its range.

    Source: upper tail of the binomial (Clopper & Pearson 1934); the share is this project's own.
    """
    hits, total = _checked_pair("flips_into", flips_into, "flips", flips)
    check_real("expected_share", expected_share, "[0, 1]", inside=0.0 <= expected_share <= 1.0)
    share = min(1.0, 0.5 * expected_share + 0.05)
    return 1.0 if hits == 0 else float(special().bdtrc(hits - 1, total, share))
