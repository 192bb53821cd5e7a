# SPDX-License-Identifier: Apache-2.0
"""The paired 2x2 table with two free cells: score statistic and exact unconditional p-value.

The number of losses and gains among n units is trinomial. A hypothesis fixes only the
difference of the two rates, so one nuisance parameter remains; the p-value is the largest
rejection probability over the values of it that the data leave plausible (Berger & Boos 1994).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from checks.statistics._special import beta_quantile, special

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Added to every p-value: more than all the probability that the two cuts below leave out.
NUMERICAL_SLACK = 1e-12
# Two tables whose scores differ by less count as tied, which can only enlarge the p-value.
_TIE = 1e-10
_GRID = 96
_GLIMPSES = 8
# Peaks searched more closely, and the points on each: three first, then the best of them again.
_REFINEMENTS = ((3, 13), (1, 9))
_NEGLIGIBLE_LOG = float(np.log(1e-15))
_SPREADS = 8


def score(losses: FloatArray, gains: FloatArray, n: int, theta: float) -> FloatArray:
    """Return the score statistic of D = `theta` for arrays of tables (Tango 1998; Nam 1997).

    The denominator uses the gain rate of largest likelihood under D = `theta`, the root of
    2nq^2 - Bq - ct(1 - t) = 0 with t = -theta. Where that variance is 0 the statistic is 0.
    """
    if theta > 0:
        return -score(gains, losses, n, -theta)
    t = -theta
    b_term = gains * (1 - t) + losses * (1 + t) - 2 * n * t
    root = np.sqrt(b_term * b_term + 8 * n * gains * t * (1 - t))
    # For b_term < 0 the textbook root cancels; its conjugate does not.
    conjugate = np.where(root - b_term > 0, root - b_term, 1.0)
    gain_rate = np.where(b_term >= 0, (b_term + root) / (4 * n), 2 * gains * t * (1 - t) / conjugate)
    variance = n * (2 * gain_rate + t * (1 - t))
    known = variance > 0
    statistic = (gains - losses + n * t) / np.sqrt(np.where(known, variance, 1.0))
    return np.asarray(np.where(known, statistic, 0.0), dtype=np.float64)


def score_of(losses: int, gains: int, n: int, theta: float) -> float:
    """Return `score` of one table; plain floats, because limits and bounds ask for it thousands of times."""
    if theta > 0:
        return -score_of(gains, losses, n, -theta)
    t = -theta
    b_term = gains * (1 - t) + losses * (1 + t) - 2 * n * t
    root = math.sqrt(b_term * b_term + 8 * n * gains * t * (1 - t))
    stable = (b_term + root) / (4 * n) if b_term >= 0 else None
    gain_rate = 2 * gains * t * (1 - t) / (root - b_term) if stable is None else stable
    variance = n * (2 * gain_rate + t * (1 - t))
    return (gains - losses + n * t) / math.sqrt(variance) if variance > 0 else 0.0


def score_many(losses: FloatArray, gains: FloatArray, n: FloatArray, theta: FloatArray) -> FloatArray:
    """Return `score` for arrays of one shape, with sizes and hypotheses of their own."""
    swapped, t = theta > 0, np.abs(theta)
    first, second = np.where(swapped, gains, losses), np.where(swapped, losses, gains)
    b_term = second * (1 - t) + first * (1 + t) - 2 * n * t
    root = np.sqrt(b_term * b_term + 8 * n * second * t * (1 - t))
    conjugate = np.where(root - b_term > 0, root - b_term, 1.0)
    gain_rate = np.where(b_term >= 0, (b_term + root) / (4 * n), 2 * second * t * (1 - t) / conjugate)
    variance = n * (2 * gain_rate + t * (1 - t))
    known = variance > 0
    statistic = (second - first + n * t) / np.sqrt(np.where(known, variance, 1.0))
    return np.asarray(np.where(known, np.where(swapped, -statistic, statistic), 0.0), dtype=np.float64)


def _smallest_gains(losses: IntArray, n: int, theta: float, z: float) -> IntArray:
    """Return per loss count the fewest gains whose score reaches `z`; n - losses + 1 if none do.

    Bisection suffices because the score increases with the gains at a fixed loss count.
    """
    below = np.full(losses.shape, -1, dtype=np.int64)
    reached = n - losses + 1
    as_float = losses.astype(np.float64)
    while bool(((reached - below) > 1).any()):
        middle = (below + reached) // 2
        enough = score(as_float, np.maximum(middle, 0).astype(np.float64), n, theta) >= z - _TIE
        open_ = reached - below > 1
        reached = np.where(open_ & enough, middle, reached)
        below = np.where(open_ & ~enough, middle, below)
    return reached


def _plausible_gain_rates(gains: int, n: int, theta: float, gamma: float) -> tuple[float, float]:
    """Return the 1 - `gamma` Clopper-Pearson interval of the gain rate, cut to D <= `theta`."""
    low = 0.0 if gains == 0 else beta_quantile(gamma / 2, gains, n - gains + 1)
    high = 1.0 if gains == n else beta_quantile(1 - gamma / 2, gains + 1, n - gains)
    # A gain rate q with D <= theta needs a loss rate of q - theta, and both must fit into 1.
    return low, min(high, (1 + theta) / 2)


def _loss_counts(n: int, low: float, high: float) -> IntArray:
    """Return the loss counts that occur with any relevant probability for rates in [low, high]."""

    def spread(rate: float) -> float:
        return _SPREADS * float(np.sqrt(max(n * rate * (1 - rate), 1.0))) + _SPREADS

    first = max(0, int(n * low - spread(low)))
    last = min(n, int(n * high + spread(high)) + 1)
    return np.arange(first, last + 1, dtype=np.int64)


def _rejection_probability(
    losses: IntArray, needed: IntArray, n: int, theta: float
) -> Callable[[FloatArray], FloatArray]:
    """Return the function from gain rates q to P(score >= observed) at the boundary D = `theta`."""
    sp = special()
    log_choose = sp.gammaln(n + 1) - sp.gammaln(losses + 1) - sp.gammaln(n - losses + 1)

    def probability(gain_rates: FloatArray) -> FloatArray:
        loss_rates = np.maximum(gain_rates - theta, 0.0)[:, None]
        rest = np.maximum(1 - loss_rates, 1e-300)
        log_weight = (
            log_choose
            + sp.xlogy(losses, loss_rates)
            + sp.xlog1py(n - losses, -np.minimum(loss_rates, 1 - 1e-16))
        )
        rows, columns = np.nonzero(log_weight > _NEGLIGIBLE_LOG)
        share = np.clip(gain_rates[:, None] / rest, 0.0, 1.0)[rows, 0]
        least = needed[columns]
        # P(Binomial(m, p) >= k) is the incomplete beta function at (k, m - k + 1) for k >= 1 only.
        k = np.maximum(least, 1)
        tail = sp.betainc(k, n - losses[columns] - k + 1, share)
        terms = np.exp(log_weight[rows, columns]) * np.where(least <= 0, 1.0, tail)
        return np.bincount(rows, weights=terms, minlength=len(gain_rates)).astype(np.float64)

    return probability


def _largest(
    probability: Callable[[FloatArray], FloatArray], low: float, high: float, kink: float, enough: float
) -> float:
    """Return the maximum of `probability` on [low, high], or some value of it above `enough`.

    Against a search of 3000 points the maximum is exact to 1e-6. `kink` is where the function may
    have a corner, a likely maximum that equal steps would miss.
    """
    if high <= low:
        return float(probability(np.array([low]))[0])
    # Equal steps in the square root of the rate, because the maximum often sits near zero.
    rates = np.linspace(np.sqrt(low), np.sqrt(high), _GRID) ** 2
    if low < kink < high:
        rates = np.sort(np.append(rates, kink))
    if enough < 1.0:
        glimpse = float(probability(rates[:: _GRID // _GLIMPSES]).max())
        if glimpse > enough:
            return glimpse
    values = probability(rates)
    for count, points in _REFINEMENTS:
        around = np.concatenate(([-1.0], values, [-1.0]))
        peaks = np.flatnonzero((values >= around[:-2]) & (values >= around[2:]))
        peaks = peaks[np.argsort(values[peaks])[-count:]]
        first, last = rates[np.maximum(peaks - 1, 0)], rates[np.minimum(peaks + 1, rates.size - 1)]
        finer = np.linspace(first, last, points).ravel()
        rates, kept = np.unique(np.concatenate([rates, finer]), return_index=True)
        values = np.concatenate([values, probability(finer)])[kept]
    return float(values.max())


def exact_p(losses: int, gains: int, n: int, theta: float, gamma: float) -> float:
    """Return the exact unconditional p-value of the hypothesis D <= `theta`.

    The nuisance interval restricts the gain rate alone: taking the loss rate down to the boundary
    D = theta keeps the gain rate and cannot lower P(score >= z), because the score is convex in
    Barnard's sense. The maximum over that line therefore bounds the whole composite hypothesis.

    Source: ordering by the score, Hsueh, Liu & Chen 2001; confidence-set p-value, Berger & Boos
    1994; both together for paired tables, Lloyd & Moldovan 2008.
    """
    return _p_value(losses, gains, n, theta, gamma, 1.0)


def rejects(losses: int, gains: int, n: int, theta: float, gamma: float, alpha: float) -> bool:
    """Return whether `exact_p` is at most `alpha`, sooner than by computing it where it is not."""
    return _p_value(losses, gains, n, theta, gamma, alpha) <= alpha


def _p_value(losses: int, gains: int, n: int, theta: float, gamma: float, alpha: float) -> float:
    """Return the p-value, or a lower value above `alpha` if it is above `alpha`."""
    low, high = _plausible_gain_rates(gains, n, theta, gamma)
    if low > high:
        return gamma + NUMERICAL_SLACK
    candidates = _loss_counts(n, max(low - theta, 0.0), max(high - theta, 0.0))
    needed = _smallest_gains(candidates, n, theta, score_of(losses, gains, n, theta))
    possible = needed <= n - candidates
    if not bool(possible.any()):
        return gamma + NUMERICAL_SLACK
    probability = _rejection_probability(candidates[possible], needed[possible], n, theta)
    # Below a gain rate of theta the boundary has no losses: D <= theta holds without any.
    return min(1.0, _largest(probability, low, high, theta, alpha) + gamma + NUMERICAL_SLACK)
