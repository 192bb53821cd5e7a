# SPDX-License-Identifier: Apache-2.0
"""One candidate against its baseline on the same units: exact p-values and score bounds.

Only three counts matter: losses (baseline right, candidate wrong), gains (the reverse) and n.
D is the true accuracy of the candidate minus that of the baseline; (gains - losses) / n
estimates it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from checks.statistics._arrays import paired_arrays
from checks.statistics._special import normal_quantile
from checks.statistics._unconditional import exact_p, rejects, score_many, score_of
from checks.statistics._validate import (
    check_alpha,
    check_gamma,
    check_margin,
    check_real,
    checked_counts,
    share_of,
)

__all__ = ["exact_lower", "p_harm", "p_noninferior", "tango_bounds", "tango_bounds_many", "tango_z"]

_BISECTIONS = 45


def tango_z(losses: int, gains: int, n: int, theta: float) -> float:
    """Return Tango's score statistic of the hypothesis D = `theta`.

    Args:
        losses: units the baseline got right and the candidate wrong, >= 0.
        gains: units the baseline got wrong and the candidate right, >= 0, losses + gains <= n.
        n: units judged, >= 1.
        theta: hypothetical difference of accuracies, in [-1, 1].

    Returns:
        The statistic: large when the data speak for D > theta, McNemar's z at theta = 0, and 0
        where its variance is 0. Swapping losses and gains and the sign of theta swaps its sign.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Tango 1998, Statistics in Medicine 17:891; Nam 1997, Biometrics 53:1422.
    """
    losses, gains, n = checked_counts(losses, gains, n)
    check_real("theta", theta, "[-1, 1]", inside=-1.0 <= theta <= 1.0)
    return score_of(losses, gains, n, theta)


def tango_bounds(losses: int, gains: int, n: int, alpha: float) -> tuple[float, float]:
    """Return one-sided lower and upper score limits of D; for display and planning.

    Their error can exceed `alpha` a little (0.060 at 0.05 in the worst case known), so a verdict
    rests on `p_noninferior`, not on these.

    Args:
        losses: units the baseline got right and the candidate wrong, >= 0.
        gains: units the baseline got wrong and the candidate right, >= 0, losses + gains <= n.
        n: units judged, >= 1.
        alpha: error probability of each limit by itself, in (0, 0.5].

    Returns:
        (L, U) with -1 <= L <= (gains - losses) / n <= U <= 1; together a 1 - 2 alpha interval.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Tango 1998, Statistics in Medicine 17:891 (limits solve score = +-z).
    """
    losses, gains, n = checked_counts(losses, gains, n)
    check_alpha(alpha)
    z = normal_quantile(1 - alpha)
    return _score_limit(losses, gains, n, z), -_score_limit(gains, losses, n, z)


def _score_limit(losses: int, gains: int, n: int, z: float) -> float:
    low, high = -1.0, (gains - losses) / n
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if score_of(losses, gains, n, middle) >= z:
            low = middle
        else:
            high = middle
    return low


def tango_bounds_many(
    losses: ArrayLike, gains: ArrayLike, n: ArrayLike, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `tango_bounds` of many tables at once.

    Args:
        losses: integers >= 0, of any shape that broadcasts with the others.
        gains: integers >= 0, losses + gains <= n.
        n: units judged, integers >= 1.
        alpha: error probability of each limit by itself, in (0, 0.5].

    Returns:
        (L, U), float64 arrays of the common shape, each within 1e-12 of the limits of its table.

    Raises:
        ValueError: if an argument is outside its range or the shapes do not broadcast.

    Source: Tango 1998, Statistics in Medicine 17:891 (limits solve score = +-z).
    """
    lost, gained, size = (array.astype(np.float64) for array in paired_arrays(losses, gains, n))
    check_alpha(alpha)
    z = normal_quantile(1 - alpha)
    # The upper limit is minus the lower one with losses and gains exchanged: one search finds both.
    first, second = np.stack([lost, gained]), np.stack([gained, lost])
    sizes = np.stack([size, size])
    low, high = np.full(first.shape, -1.0), (second - first) / sizes
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        beyond = score_many(first, second, sizes, middle) >= z
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return low[0], -low[1]


def p_noninferior(losses: int, gains: int, n: int, margin: float, *, gamma: float = 5e-4) -> float:
    """Return the exact p-value of "the candidate is worse by the margin or more" (D <= -margin).

    A value at or below alpha proves D > -margin. If D <= -margin, that happens with probability
    at most alpha for every n, every churn and every margin. With no discordant unit the value is
    at least (1 - margin)^n + gamma, so identical predictions on few units prove nothing.

    The value falls as the margin grows, though not at every step: the margin also decides which
    tables count as at least as extreme, and where two of them change places the value jumps.
    Such a jump is no error: the promise holds at each margin by itself.

    Args:
        losses: units the baseline got right and the candidate wrong, >= 0.
        gains: units the baseline got wrong and the candidate right, >= 0, losses + gains <= n.
        n: units judged, >= 1; units must be independent.
        margin: largest tolerated drop of accuracy, in (0, 1).
        gamma: error spent on the gain rate, in [0, 0.01]. The value never falls below it, so it
            must be at most a hundredth of the level the value is compared with.

    Returns:
        The p-value, in (0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Source: Berger & Boos 1994, JASA 89:1012; Hsueh, Liu & Chen 2001, Biometrics 57:478; Lloyd &
    Moldovan 2008, Statistics in Medicine 27:3540.
    """
    losses, gains, n = checked_counts(losses, gains, n)
    check_margin(margin)
    check_gamma(gamma)
    return exact_p(losses, gains, n, -margin, gamma)


def p_harm(losses: int, gains: int, n: int, margin: float, *, gamma: float = 5e-4) -> float:
    """Return the exact p-value of "the candidate stays within the margin" (D >= -margin).

    A value at or below alpha proves D < -margin. Several such claims need `holm`. Identical
    predictions never give a small value.

    Args:
        losses: units the baseline got right and the candidate wrong, >= 0.
        gains: units the baseline got wrong and the candidate right, >= 0, losses + gains <= n.
        n: units judged, >= 1; units must be independent.
        margin: largest tolerated drop of accuracy, in (0, 1).
        gamma: error spent on the loss rate, in [0, 0.01]. The value never falls below it, so it
            must be at most a hundredth of the level the value is compared with; of k claims
            under Holm's rule that level is alpha / k.

    Returns:
        The p-value, in (0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Source: as `p_noninferior`, with the roles of losses and gains exchanged.
    """
    losses, gains, n = checked_counts(losses, gains, n)
    check_margin(margin)
    check_gamma(gamma)
    return exact_p(gains, losses, n, margin, gamma)


def exact_lower(
    losses: int, gains: int, n: int, alpha: float, *, gamma: float | None = None, tolerance: float = 1e-6
) -> float:
    """Return the one-sided lower bound of D that belongs to `p_noninferior`.

    For display: it is where the exact p-value crosses alpha, found by bisection with about ten
    p-values. Since the p-value is not strictly monotone, a few tables have further crossings
    nearby; a verdict rests on `p_noninferior` at its own margin.

    Args:
        losses: units the baseline got right and the candidate wrong, >= 0.
        gains: units the baseline got wrong and the candidate right, >= 0, losses + gains <= n.
        n: units judged, >= 1; units must be independent.
        alpha: error probability, in (0, 0.5].
        gamma: error spent on the gain rate, in [0, 0.01] and below alpha; alpha / 100 if None.
        tolerance: how far below the bound the result may lie, above 0.

    Returns:
        The bound, in [-1, (gains - losses) / n], low by at most `tolerance`; -1 if nothing is excluded.

    Raises:
        ValueError: if an argument is outside its range.

    Source: inversion of the test of Berger & Boos 1994 with score ordering (Lloyd & Moldovan 2008).
    """
    losses, gains, n = checked_counts(losses, gains, n)
    check_alpha(alpha)
    share = share_of(alpha, gamma)
    estimate = (gains - losses) / n

    def rejected(theta: float) -> bool:
        return theta <= -1.0 or rejects(losses, gains, n, theta, share, alpha)

    # The score limit lies close by; at alpha = 1/2 it is the estimate itself and leaves no width.
    limit = tango_bounds(losses, gains, n, alpha)[0]
    step = max((estimate - limit) / 32, tolerance)
    low, high = limit, min(estimate, limit + step)
    while not rejected(low):
        low, high, step = max(-1.0, low - step), low, 2 * step
    while high < estimate and rejected(high):
        low, high, step = high, min(estimate, high + step), 2 * step
    while high - low > tolerance:
        middle = (low + high) / 2
        if rejected(middle):
            low = middle
        else:
            high = middle
    return low
