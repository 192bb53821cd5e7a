# SPDX-License-Identifier: Apache-2.0
"""Bounds by resampling units, for means of any value and for statistics without a closed form.

Units are resampled, never values within a unit, and the statistic is studentised: a percentile
bootstrap is not offered, because it is too short on the side that matters. A method that looks at
the data alone cannot see a harm that is rare and total; `rare_harm_floor` says from how many units
on it would have been seen, and a rule must ask for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, expm1, inf, log, log1p, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from checks.statistics._special import normal_quantile, special
from checks.statistics._validate import _count, check_alpha, check_real

__all__ = [
    "BOOTSTRAP_UNITS",
    "FEWEST_DIFFERENT",
    "Bound",
    "JackknifeResult",
    "bootstrap_t_lower",
    "bootstrap_t_upper",
    "grouped_jackknife_t",
    "jackknife_t_upper",
    "rare_harm_bound",
    "rare_harm_floor",
]

BOOTSTRAP_UNITS = 20_000
"""Above this many units the bootstrap gives way to the grouped jackknife."""

FEWEST_DIFFERENT = 10
"""With fewer units that differ from 0 there is nothing to resample, and no finite bound."""

# Resamples behind the quantile of small levels: its own rank among them.
_TAIL_RESAMPLES = 20
_MOST_RESAMPLES = 1_000_000
# Values held at once: 32 MiB for the indices and as much for the values.
_CHUNK = 1 << 22
# A variance below this share of the mean square is what rounding leaves of 0.
_NO_VARIANCE = 1e-12

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """A bound and how it was found.

    Attributes:
        value: the bound, in the unit of the values; infinite where the data give none.
        method: `bootstrap_t`; `jackknife_t` above `BOOTSTRAP_UNITS` units; `refused` with fewer than
            `FEWEST_DIFFERENT` units that differ from 0, or too small an alpha to resample for.
        resamples: resamples drawn, 0 but for the bootstrap.
    """

    value: float
    method: Literal["bootstrap_t", "jackknife_t", "refused"]
    resamples: int


@dataclass(frozen=True)
class JackknifeResult:
    """A statistic with its bounds by leaving out one group of units after the other.

    Attributes:
        value: the statistic of all units.
        standard_error: its standard error, >= 0.
        lower: one-sided lower bound, at most `value`.
        upper: one-sided upper bound, at least `value`.
        groups: number of groups that the units were dealt into, >= 2.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    groups: int


def rare_harm_floor(alpha: float, tau: float, largest_harm: float) -> int:
    """Return the fewest units with which a rare and total harm does not go unseen.

    If the true mean is at least tau and no unit can be harmed by more than R, at least tau / R of
    all units are harmed, so n units show none of them with probability (1 - tau / R)^n at most.

    Args:
        alpha: largest tolerated probability of that, in (0, 0.5].
        tau: limit of the mean, in (0, largest_harm).
        largest_harm: R, the most that one unit can add, finite: 2 for the Brier score, 1 for 0/1 harm.

    Returns:
        The smallest n with (1 - tau / R)^n <= alpha, up to the last digit: 598 for alpha 0.05, tau
        0.01 and R = 2. With fewer units a bound by resampling must not decide.

    Raises:
        ValueError: if an argument is outside its range.

    Source: probability of no event among n, as in Hanley & Lippman-Hand 1983, JAMA 249:1743.
    """
    check_alpha(alpha)
    check_real("largest_harm", largest_harm, "(0, inf)", inside=0.0 < largest_harm < inf)
    check_real("tau", tau, f"(0, largest_harm = {largest_harm})", inside=0.0 < tau < largest_harm)
    return ceil(log(alpha) / log1p(-tau / largest_harm))


def rare_harm_bound(alpha: float, n: int, largest_harm: float) -> float:
    """Return how large the mean may be although none of n units shows any difference.

    Args:
        alpha: error probability, in (0, 0.5].
        n: units, >= 1.
        largest_harm: R, the most that one unit can add, finite and above 0.

    Returns:
        R (1 - alpha^(1 / n)): were the mean above it, no difference would be seen with less than alpha.

    Raises:
        ValueError: if an argument is outside its range.

    Source: as `rare_harm_floor`, of which it is the inverse.
    """
    check_alpha(alpha)
    check_real("largest_harm", largest_harm, "(0, inf)", inside=0.0 < largest_harm < inf)
    return -largest_harm * expm1(log(alpha) / _count("n", n, 1))


def _unit_values(values: ArrayLike) -> FloatArray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not bool(np.isfinite(sample).all()):
        raise ValueError(f"expected finite numbers in one dimension, got shape {sample.shape}")
    return sample


def bootstrap_t_upper(values: ArrayLike, alpha: float, seed: int, resamples: int = 2000) -> Bound:
    """Return the one-sided upper bound of the mean by studentised bootstrap (bootstrap-t).

    With m and s the mean and standard deviation, and t* = (m* - m) sqrt(n) / s* those of a resample
    of n units, the bound is m - q s / sqrt(n), q being the alpha-quantile of t*, taken at the rank
    floor(alpha (resamples + 1)). A resample without spread counts as t* = -inf, which can only raise
    the bound. The bound depends on the values and the seed, not on the order of the values.

    Above 20,000 units it is the bound of `grouped_jackknife_t` with 100 groups. Where the values are
    skewed towards harm it is raised by s g (2 z^2 + 1) / (6 n), g being their skewness: Student's t
    alone falls short if the harm sits in few units.

    Args:
        values: `(n,)` finite float64 numbers, one per independent unit, such as the candidate's
            loss minus the baseline's; 0 where they agree.
        alpha: error probability, in (0, 0.5].
        seed: seed of the resamples (PCG64), >= 0.
        resamples: least number of resamples, from 1 to a million; at least 20 / alpha are drawn.

    Returns:
        The bound. Infinite if fewer than 10 values differ from 0, if a share alpha of the resamples
        has no spread, or if alpha is below 2e-5, which would need more than a million resamples.
        Its error is near alpha, not guaranteed below it, and `rare_harm_floor` units are needed.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Efron 1981, Canadian Journal of Statistics 9:139; Hall 1988, Annals of Statistics 16:927;
    correction for skewness, Hall 1992, Annals of Statistics 20:675.
    """
    check_alpha(alpha)
    first = _count("seed", seed, 0)
    asked = _count("resamples", resamples, 1)
    check_real("resamples", asked, f"[1, {_MOST_RESAMPLES}]", inside=asked <= _MOST_RESAMPLES)
    draws = max(asked, ceil(_TAIL_RESAMPLES / alpha))
    # Sorted, so that the same units in another order give the same bound.
    sample = np.sort(_unit_values(values))
    if np.count_nonzero(sample) < FEWEST_DIFFERENT:
        return Bound(inf, "refused", 0)
    if sample.size > BOOTSTRAP_UNITS:
        return Bound(jackknife_t_upper(sample, alpha, first), "jackknife_t", 0)
    if draws > _MOST_RESAMPLES:
        return Bound(inf, "refused", 0)
    # In units of the largest value no square can overflow or vanish.
    scale = float(np.abs(sample).max())
    scaled = sample / scale
    mean = float(scaled.mean())
    centred = scaled - mean
    deviation = float(centred.std(ddof=1))
    t = _studentised(centred, draws, np.random.Generator(np.random.PCG64(first)))
    rank = int(alpha * (draws + 1))
    quantile = float(np.partition(t, rank - 1)[rank - 1])
    bound = scale * (mean - quantile * deviation / sqrt(sample.size)) if np.isfinite(quantile) else inf
    return Bound(bound, "bootstrap_t", draws)


def bootstrap_t_lower(values: ArrayLike, alpha: float, seed: int, resamples: int = 2000) -> Bound:
    """Return the one-sided lower bound of the mean, minus the upper bound of the negated values.

    Args:
        values: `(n,)` finite float64 numbers, one per independent unit.
        alpha: error probability, in (0, 0.5].
        seed: seed of the resamples (PCG64), >= 0.
        resamples: least number of resamples, from 1 to a million; at least 20 / alpha are drawn.

    Returns:
        The bound; minus infinity where `bootstrap_t_upper` would be infinite.

    Raises:
        ValueError: as `bootstrap_t_upper`.

    Source: Efron 1981, Canadian Journal of Statistics 9:139; Hall 1988, Annals of Statistics 16:927.
    """
    mirrored = bootstrap_t_upper(-_unit_values(values), alpha, seed, resamples)
    return Bound(-mirrored.value, mirrored.method, mirrored.resamples)


def _studentised(centred: FloatArray, resamples: int, generator: np.random.Generator) -> FloatArray:
    """Return t* of every resample, -inf where it has no spread; `centred` has mean 0."""
    n = centred.size
    t = np.empty(resamples)
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        stop = min(resamples, start + rows)
        drawn = centred[generator.integers(0, n, size=(stop - start, n))]
        mean = drawn.mean(axis=1)
        square = np.einsum("ij,ij->i", drawn, drawn) / n
        variance = square - mean * mean
        spread = variance > _NO_VARIANCE * square
        # n m*/s* in units of the standard error, s* with n - 1 as s has.
        ratio = mean * sqrt(n - 1) / np.sqrt(np.where(spread, variance, 1.0))
        t[start:stop] = np.where(spread, ratio, -inf)
    return t


def jackknife_t_upper(values: ArrayLike, alpha: float, seed: int) -> float:
    """Return the one-sided upper bound of the mean by the grouped jackknife, corrected for skewness.

    Args:
        values: `(n,)` finite float64 numbers, one per independent unit, n >= 2.
        alpha: error probability, in (0, 0.5].
        seed: seed of the order in which units are dealt into 100 groups, >= 0.

    Returns:
        The bound, which does not depend on the order of the values. Where they are skewed towards harm it
        is raised by s g (2 z^2 + 1) / (6 n), g being their skewness.

    Raises:
        ValueError: if an argument is outside its range.

    Source: as `grouped_jackknife_t`; correction for skewness, Hall 1992, Annals of Statistics 20:675.
    """
    sample = np.sort(_unit_values(values))
    scale = float(np.abs(sample).max()) or 1.0
    scaled = sample / scale
    sums = np.stack([scaled, np.ones_like(scaled)], axis=1)
    bound = grouped_jackknife_t(sums, _mean_of_sums, alpha, seed=seed).upper
    centred = scaled - scaled.mean()
    variance, cubes = float((centred**2).mean()), float((centred**3).mean())
    # s times the skewness; against the harm a correction would lower the bound, and is left out.
    tilt = max(0.0, cubes) / variance if variance > 0 else 0.0
    return scale * (bound + tilt * (2 * normal_quantile(1 - alpha) ** 2 + 1) / (6 * sample.size))


def _mean_of_sums(totals: FloatArray) -> FloatArray:
    return np.asarray(totals[..., 0] / totals[..., 1])


def grouped_jackknife_t(
    sums: ArrayLike,
    statistic: Callable[[FloatArray], ArrayLike],
    alpha: float,
    *,
    seed: int,
    groups: int = 100,
) -> JackknifeResult:
    """Return a statistic of sums over units with one-sided bounds by the grouped jackknife.

    The units are dealt in random order into m = min(U, groups) groups whose sizes differ by at most
    one. With h_j = U / size of group j, the pseudo-values are h_j value - (h_j - 1) value without
    group j; their weighted spread gives the standard error, and Student's t at m - 1 degrees of
    freedom the bounds. Approximate: the statistic must be smooth in the sums.

    Args:
        sums: `(U, k)` finite float64 numbers, U >= 2, what each independent unit adds to the totals
            that the statistic is made of.
        statistic: takes totals `(..., k)` to values `(...)`.
        alpha: error probability of each bound by itself, in (0, 0.5].
        seed: seed of the random order (PCG64), >= 0.
        groups: most groups, >= 2.

    Returns:
        The statistic of all units, its standard error and bounds, the bounds infinite if leaving
        out a group never changes the statistic, which says nothing about its error. Nothing may
        pass on fewer than 10 units in which the compared models differ, or below
        `rare_harm_floor`; this function cannot know either.

    Raises:
        ValueError: if an argument is outside its range, or the statistic is not finite for all
            units or without one of the groups.

    Source: Tukey 1958, Annals of Mathematical Statistics 29:614; unequal groups, Busing, Meijer &
    van der Leeden 1999, Statistics and Computing 9:3.
    """
    check_alpha(alpha)
    added = np.asarray(sums, dtype=np.float64)
    if added.ndim != 2 or added.shape[0] < 2 or not bool(np.isfinite(added).all()):
        raise ValueError(f"expected finite sums of shape (units >= 2, k), got shape {added.shape}")
    units = added.shape[0]
    count = min(units, _count("groups", groups, 2))
    order = np.random.Generator(np.random.PCG64(_count("seed", seed, 0))).permutation(units)
    starts = np.arange(count) * units // count
    sizes = np.diff(np.append(starts, units))
    group_sums = np.add.reduceat(added[order], starts, axis=0)
    # Adding the others loses less than subtracting one group from the total.
    totals = np.vstack([group_sums.sum(axis=0), (1.0 - np.eye(count)) @ group_sums])
    values = np.asarray(statistic(totals), dtype=np.float64)
    if values.shape != (count + 1,) or not bool(np.isfinite(values).all()):
        raise ValueError(
            f"expected {count + 1} finite values of the statistic (all units, then without each group), "
            f"got shape {values.shape} with {int(np.count_nonzero(~np.isfinite(values)))} not finite"
        )
    value, without = float(values[0]), values[1:]
    if float(np.abs(without - value).max()) <= _NO_VARIANCE * abs(value):
        return JackknifeResult(value, 0.0, -inf, inf, count)
    weight = units / sizes
    pseudo = weight * value - (weight - 1) * without
    centre = float((pseudo / weight).sum())
    error = sqrt(float((((pseudo - centre) ** 2) / (weight - 1)).mean()))
    reach = float(special().stdtrit(count - 1, 1 - alpha)) * error
    return JackknifeResult(value, error, value - reach, value + reach, count)
