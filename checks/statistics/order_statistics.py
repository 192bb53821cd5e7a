# SPDX-License-Identifier: Apache-2.0
"""Quantiles of any distribution, such as the slowest percent of calls, bounded by one of the values."""

from __future__ import annotations

from math import ceil, log

import numpy as np
from numpy.typing import ArrayLike

from checks.statistics._special import special
from checks.statistics._validate import check_alpha, check_real

__all__ = ["n_for_quantile", "quantile_upper"]


def _check_quantile(q: float) -> None:
    check_real("q", q, "(0, 1)", inside=0.0 < q < 1.0)


def quantile_upper(values: ArrayLike, q: float, alpha: float) -> float | None:
    """Return the one-sided upper bound of the `q`-quantile, whatever the distribution.

    The r-th smallest of n values falls below the quantile only if r or more of them do, and their
    number is at most Binomial(n, q). The bound is that value for the smallest r with
    P(Binomial(n, q) >= r) <= alpha. Ties only make it safer.

    Args:
        values: `(n,)` independent numbers without NaN; infinite ones sort as they should.
        q: which quantile, in (0, 1): 0.99 for p99.
        alpha: error probability, in (0, 0.5].

    Returns:
        The bound, in the unit of `values`; None below `n_for_quantile` values, where even the
        largest is no bound.

    Raises:
        ValueError: if an argument is outside its range.

    Source: David & Nagaraja 2003, Order Statistics, section 7.1.
    """
    _check_quantile(q)
    check_alpha(alpha)
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or bool(np.isnan(sample).any()):
        raise ValueError(f"expected numbers in one dimension without NaN, got shape {sample.shape}")
    n = sample.size
    if n < n_for_quantile(q, alpha):
        return None
    # P(Binomial >= r) falls with r: it is above alpha at r = 0 and at most alpha at r = n.
    above, enough = 0, n
    while enough - above > 1:
        middle = (above + enough) // 2
        if special().bdtrc(middle - 1, n, q) <= alpha:
            enough = middle
        else:
            above = middle
    return float(np.partition(sample, enough - 1)[enough - 1])


def n_for_quantile(q: float, alpha: float) -> int:
    """Return the fewest values that bound the `q`-quantile from above: 299 for p99 at alpha 0.05.

    Args:
        q: which quantile, in (0, 1).
        alpha: error probability, in (0, 0.5].

    Returns:
        The smallest n with q^n <= alpha, the chance that all n values fall below the quantile.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Wilks 1941, Annals of Mathematical Statistics 12:91.
    """
    _check_quantile(q)
    check_alpha(alpha)
    # The quotient of rounded logarithms may land on either side of a whole number.
    n = max(1, ceil(log(alpha) / log(q)) - 1)
    while q**n > alpha:
        n += 1
    return n
