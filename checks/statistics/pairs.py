# SPDX-License-Identifier: Apache-2.0
"""All ordered pairs of groups at once: the worst pair, and the pair that proves harm.

A rule on groups bounds a quantity of the ordered pair (g, h): p_g - p_h, p_g / p_h or D_h - D_g.

- PASS: the rule must be proven for every pair, so the bound of the worst pair decides, at level
  alpha without correction (intersection-union, Berger 1982). `worst_*` finds that pair.
- FAIL: one pair that certainly breaks the rule suffices, looked for among all of them. `surest_*`
  and `proven_*` use alpha divided by the number k (k - 1) of ordered pairs of k groups
  (Bonferroni), so that a false claim about any pair has a probability near alpha at most. Of
  several such claims, each needs a level of its own, such as Holm's.

Groups without units cannot be compared: leave them out, and let nothing pass because of it. In small
groups the bounds are too short: `small_groups_level` says at which level to draw them instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from checks.statistics._arrays import paired_arrays, success_arrays
from checks.statistics._special import special
from checks.statistics._validate import check_alpha, check_real
from checks.statistics.paired import tango_bounds_many
from checks.statistics.proportions import (
    LARGEST_RATIO,
    difference_lower,
    difference_upper,
    difference_z,
    ratio_lower,
    ratio_slack,
)

__all__ = [
    "FEWEST_SUCCESSES",
    "FEWEST_UNITS",
    "Worst",
    "difference_p",
    "proven_change_gap",
    "proven_difference",
    "proven_ratio",
    "small_groups_level",
    "surest_change_gap",
    "surest_difference",
    "surest_ratio",
    "worst_change_gap",
    "worst_difference",
    "worst_ratio",
]

FEWEST_UNITS = 20
"""In each group; with fewer no bound here keeps its level."""

FEWEST_SUCCESSES = 5
"""In each group, for a ratio of rates: with fewer the rate below is hardly known."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Worst(NamedTuple):
    """One ordered pair of groups out of all of them.

    Attributes:
        index_g: position of group g.
        index_h: position of group h.
        value: the quantity of this pair at the observed rates.
        bound: its one-sided bound, from above or below as the function says.
    """

    index_g: int
    index_h: int
    value: float
    bound: float


def small_groups_level(n: ArrayLike, alpha: float) -> float:
    """Return the level at which bounds must be drawn to keep an error near alpha in groups of these sizes.

    Enumerated over all tables of two groups, a bound drawn at 0.05 is exceeded with a probability of up to
    0.116 if one group has 20 units and the other several hundred, of 0.076 with 99, of 0.066 with 100 to
    199, of 0.062 from 200 on. Drawn at what is returned, with 0.063 at most at alpha 0.05, 0.037 at 0.025.

    Args:
        n: `(k,)` units of each group, >= 1.
        alpha: error probability asked for, in (0, 0.5].

    Returns:
        alpha, or less of it.
    """
    smallest = int(np.min(n))
    if smallest < 50:
        return alpha / 3
    if smallest < 100:
        return alpha / 2
    return 0.75 * alpha if smallest < 200 else alpha


def _check_groups(n: IntArray) -> None:
    if n.ndim != 1 or n.size < 2:
        raise ValueError(f"expected counts of two groups or more in one dimension, got shape {n.shape}")


def _rates(successes: ArrayLike, n: ArrayLike) -> tuple[IntArray, IntArray]:
    hits, sizes = success_arrays(successes, n)
    _check_groups(sizes)
    return hits, sizes


def _changes(losses: ArrayLike, gains: ArrayLike, n: ArrayLike) -> tuple[IntArray, IntArray, IntArray]:
    lost, gained, sizes = paired_arrays(losses, gains, n)
    _check_groups(sizes)
    return lost, gained, sizes


def _ordered_pairs(groups: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    g, h = np.nonzero(~np.eye(groups, dtype=bool))
    return g, h


def _largest(g: NDArray[np.intp], h: NDArray[np.intp], values: FloatArray, bounds: FloatArray) -> Worst:
    """Return the pair of the largest bound; of several, that of the largest value, then the first."""
    best = np.flatnonzero(bounds == bounds.max())
    at = best[np.argmax(values[best])]
    return Worst(int(g[at]), int(h[at]), float(values[at]), float(bounds[at]))


def _smallest(g: NDArray[np.intp], h: NDArray[np.intp], values: FloatArray, bounds: FloatArray) -> Worst:
    pair = _largest(g, h, -values, -bounds)
    # Adding 0 keeps a zero from being shown as -0.
    return pair._replace(value=-pair.value + 0.0, bound=-pair.bound + 0.0)


def _ratios(rate_g: FloatArray, rate_h: FloatArray) -> FloatArray:
    """Return the ratios of rates: infinite where only the second is 0, and 1 where both are."""
    ratios = np.divide(rate_g, rate_h, out=np.full(rate_g.shape, np.inf), where=rate_h > 0)
    return np.where((rate_g == 0) & (rate_h == 0), 1.0, ratios)


def worst_difference(successes: ArrayLike, n: ArrayLike, alpha: float) -> Worst:
    """Return the pair with the largest upper bound of p_g - p_h.

    The rule "no two groups differ by more than the limit" is proven if this bound is within it.

    Args:
        successes: `(k,)` integers from 0 to n, k >= 2.
        n: `(k,)` independent units of each group, integers >= 1.
        alpha: error probability, in (0, 0.5].

    Returns:
        The pair, p_g - p_h at the observed rates, and its `difference_upper`, in [0, 1].

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213; Berger 1982, Technometrics 24:295.
    """
    hits, sizes = _rates(successes, n)
    check_alpha(alpha)
    g, h = _ordered_pairs(hits.size)
    values = hits[g] / sizes[g] - hits[h] / sizes[h]
    return _largest(g, h, values, difference_upper(hits[g], sizes[g], hits[h], sizes[h], alpha))


def worst_ratio(successes: ArrayLike, n: ArrayLike, alpha: float) -> Worst:
    """Return the pair with the smallest lower bound of p_g / p_h.

    The rule "no group's rate is below r times that of another" (four-fifths: r = 0.8) is proven if
    this bound is above r.

    Args:
        successes: `(k,)` integers from 0 to n, k >= 2.
        n: `(k,)` independent units of each group, integers >= 1.
        alpha: error probability, in (0, 0.5].

    Returns:
        The pair, p_g / p_h at the observed rates (1 if no group has a success), and its
        `ratio_lower`, in [0, 1]: 0 as soon as one group has no success.

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693; Berger 1982, Technometrics 24:295.
    """
    hits, sizes = _rates(successes, n)
    check_alpha(alpha)
    g, h = _ordered_pairs(hits.size)
    values = _ratios(hits[g] / sizes[g], hits[h] / sizes[h])
    return _smallest(g, h, values, ratio_lower(hits[g], sizes[g], hits[h], sizes[h], alpha))


def _change_gaps(
    losses: IntArray, gains: IntArray, n: IntArray, alpha: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray, FloatArray]:
    """Return both indices, D_h - D_g at the observed rates and its upper bound, for every pair."""
    lower, upper = tango_bounds_many(losses, gains, n, alpha)
    change = (gains - losses) / n
    g, h = _ordered_pairs(n.size)
    values = change[h] - change[g]
    return g, h, values, values + np.hypot(upper[h] - change[h], change[g] - lower[g])


def worst_change_gap(losses: ArrayLike, gains: ArrayLike, n: ArrayLike, alpha: float) -> Worst:
    """Return the pair with the largest upper bound of D_h - D_g, how much better h fared than g.

    The rule "compression does not part two groups by the limit" is proven if this bound is below it.

    Args:
        losses: `(k,)` units of each group the baseline got right and the candidate wrong, k >= 2.
        gains: `(k,)` units the baseline got wrong and the candidate right, losses + gains <= n.
        n: `(k,)` independent units of each group, integers >= 1.
        alpha: error probability, in (0, 0.5].

    Returns:
        The pair, D_h - D_g as observed, and its `mover_tango_upper`, in [0, 2].

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693; limits, Tango 1998; Berger 1982.
    """
    lost, gained, sizes = _changes(losses, gains, n)
    check_alpha(alpha)
    return _largest(*_change_gaps(lost, gained, sizes, alpha))


def difference_p(successes: ArrayLike, n: ArrayLike, limit: float) -> float:
    """Return the p-value of "p_g - p_h <= limit for every pair", corrected for the number of pairs.

    The smallest one-sided score p-value times the number of ordered pairs (Bonferroni), at most 1:
    approximate, since it rests on the normal distribution of the score.

    Args:
        successes: `(k,)` integers from 0 to n, k >= 2.
        n: `(k,)` independent units of each group, integers >= 1.
        limit: largest tolerated p_g - p_h, in [-1, 1].

    Returns:
        The p-value, in [0, 1]: a small one proves that some two groups differ by more.

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213.
    """
    hits, sizes = _rates(successes, n)
    check_real("limit", limit, "[-1, 1]", inside=-1.0 <= limit <= 1.0)
    g, h = _ordered_pairs(hits.size)
    largest = difference_z(hits[g], sizes[g], hits[h], sizes[h], limit).max()
    return min(1.0, g.size * float(special().ndtr(-largest)))


def surest_difference(successes: ArrayLike, n: ArrayLike, alpha: float) -> Worst:
    """Return the pair with the largest lower bound of p_g - p_h at level alpha / pairs.

    Args:
        successes: `(k,)` integers from 0 to n, k >= 2.
        n: `(k,)` independent units of each group, integers >= 1.
        alpha: error probability of a claim about any of the pairs, in (0, 0.5].

    Returns:
        The pair, p_g - p_h at the observed rates, and its `difference_lower` at alpha divided by
        the number of ordered pairs (Bonferroni).

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213.
    """
    hits, sizes = _rates(successes, n)
    check_alpha(alpha)
    g, h = _ordered_pairs(hits.size)
    values = hits[g] / sizes[g] - hits[h] / sizes[h]
    bounds = difference_lower(hits[g], sizes[g], hits[h], sizes[h], alpha / g.size)
    return _largest(g, h, values, bounds)


def proven_difference(successes: ArrayLike, n: ArrayLike, limit: float, alpha: float) -> bool:
    """Say whether some two groups differ by more than `limit` for sure: `difference_p` <= alpha.

    Args:
        successes: `(k,)` integers from 0 to n, k >= 2.
        n: `(k,)` independent units of each group, integers >= 1.
        limit: largest tolerated p_g - p_h, in [-1, 1].
        alpha: error probability of the claim, in (0, 0.5]; Bonferroni over the ordered pairs.

    Returns:
        True if harm is proven; `surest_difference` names the pair.

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: Miettinen & Nurminen 1985, Statistics in Medicine 4:213.
    """
    check_alpha(alpha)
    return difference_p(successes, n, limit) <= alpha


def surest_ratio(successes: ArrayLike, n: ArrayLike, alpha: float) -> Worst:
    """Return the pair with the smallest upper bound of p_g / p_h at level alpha / pairs.

    Args:
        successes: `(k,)` integers from 0 to n, k >= 2.
        n: `(k,)` independent units of each group, integers >= 1.
        alpha: error probability of a claim about any of the pairs, in (0, 0.5].

    Returns:
        The pair, p_g / p_h at the observed rates (1 if no group has a success), and the upper
        bound of that ratio, 1 / `ratio_lower` of the exchanged pair at alpha divided by the number
        of ordered pairs (Bonferroni): at least 0.001, infinite if no group has a success.

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693.
    """
    hits, sizes = _rates(successes, n)
    check_alpha(alpha)
    g, h = _ordered_pairs(hits.size)
    inverse = ratio_lower(hits[h], sizes[h], hits[g], sizes[g], alpha / g.size)
    bounds = np.divide(1.0, inverse, out=np.full(inverse.shape, np.inf), where=inverse > 0)
    return _smallest(g, h, _ratios(hits[g] / sizes[g], hits[h] / sizes[h]), bounds)


def proven_ratio(successes: ArrayLike, n: ArrayLike, ratio: float, alpha: float) -> bool:
    """Say whether some group's rate is below `ratio` times that of another for sure.

    The hypothesis p_g >= ratio p_h is rejected if `ratio_slack` proves p_h > p_g / ratio.

    Args:
        successes: `(k,)` integers from 0 to n, k >= 2.
        n: `(k,)` independent units of each group, integers >= 1.
        ratio: smallest tolerated p_g / p_h, in [0.001, 1000].
        alpha: error probability of the claim, in (0, 0.5]; Bonferroni over the ordered pairs.

    Returns:
        True if harm is proven; `surest_ratio` names the pair.

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693.
    """
    hits, sizes = _rates(successes, n)
    inside = 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO
    check_real("ratio", ratio, f"[{1 / LARGEST_RATIO:g}, {LARGEST_RATIO:g}]", inside=inside)
    check_alpha(alpha)
    g, h = _ordered_pairs(hits.size)
    slack = ratio_slack(hits[h], sizes[h], hits[g], sizes[g], 1 / ratio, alpha / g.size)
    return bool((slack > 0).any())


def surest_change_gap(losses: ArrayLike, gains: ArrayLike, n: ArrayLike, alpha: float) -> Worst:
    """Return the pair with the largest lower bound of D_h - D_g at level alpha / pairs.

    Args:
        losses: `(k,)` units of each group the baseline got right and the candidate wrong, k >= 2.
        gains: `(k,)` units the baseline got wrong and the candidate right, losses + gains <= n.
        n: `(k,)` independent units of each group, integers >= 1.
        alpha: error probability of a claim about any of the pairs, in (0, 0.5].

    Returns:
        The pair, D_h - D_g as observed, and its `mover_tango_lower` at alpha divided by the number
        of ordered pairs (Bonferroni).

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693; limits, Tango 1998.
    """
    lost, gained, sizes = _changes(losses, gains, n)
    check_alpha(alpha)
    # The lower bound of D_h - D_g is minus the upper bound of D_g - D_h.
    h, g, values, bounds = _change_gaps(lost, gained, sizes, alpha / (sizes.size * (sizes.size - 1)))
    return _largest(g, h, -values, -bounds)


def proven_change_gap(losses: ArrayLike, gains: ArrayLike, n: ArrayLike, limit: float, alpha: float) -> bool:
    """Say whether compression parted some two groups by more than `limit` for sure.

    Args:
        losses: `(k,)` units of each group the baseline got right and the candidate wrong, k >= 2.
        gains: `(k,)` units the baseline got wrong and the candidate right, losses + gains <= n.
        n: `(k,)` independent units of each group, integers >= 1.
        limit: largest tolerated D_h - D_g, in [-2, 2].
        alpha: error probability of the claim, in (0, 0.5]; Bonferroni over the ordered pairs.

    Returns:
        True if the bound of `surest_change_gap`, which names the pair, is above the limit.

    Raises:
        ValueError: if an argument is outside its range or there are fewer than two groups.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693; limits, Tango 1998.
    """
    check_real("limit", limit, "[-2, 2]", inside=-2.0 <= limit <= 2.0)
    return surest_change_gap(losses, gains, n, alpha).bound > limit
