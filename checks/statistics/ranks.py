# SPDX-License-Identifier: Apache-2.0
"""Location of a small symmetric sample, such as the log ratio of latencies per session.

The bounds use the exact null distribution of the signed-rank statistic: no variance is
estimated, and a few wild sessions cannot move them far.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from checks.statistics._validate import check_alpha

__all__ = ["hodges_lehmann", "hodges_lehmann_bounds", "walsh_averages"]

# The null distribution takes n^3 steps and the averages n^2 cells.
_MAX_VALUES = 1000
# Beyond this, 2^-n times an integer count is rounded.
_EXACT_VALUES = 50
_ROUNDING = 1e-12

Sample = Sequence[float] | NDArray[np.float64]


def _as_sample(x: Sample) -> NDArray[np.float64]:
    try:
        values = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a sequence of real numbers, got {type(x).__name__}: {error}") from error
    if values.ndim != 1 or not 1 <= values.size <= _MAX_VALUES:
        raise ValueError(f"expected 1 to {_MAX_VALUES} values in one dimension, got shape {values.shape}")
    if not bool(np.isfinite(values).all()):
        bad = values[~np.isfinite(values)]
        raise ValueError(f"expected finite values, got {bad.size} that are not, first {bad[0]}")
    return values


def walsh_averages(x: Sample) -> NDArray[np.float64]:
    """Return the averages of all pairs of values, each value paired with itself too.

    Args:
        x: 1 to 1000 finite numbers.

    Returns:
        The n (n + 1) / 2 averages in ascending order.

    Raises:
        ValueError: if `x` is empty, too long, not one-dimensional or not finite.

    Source: Hodges & Lehmann 1963, Annals of Mathematical Statistics 34:598.
    """
    values = _as_sample(x)
    first, second = np.triu_indices(values.size)
    # Halved before the sum, which could otherwise overflow.
    return np.sort(values[first] / 2 + values[second] / 2)


def hodges_lehmann(x: Sample) -> float:
    """Return the Hodges-Lehmann estimate of the centre: the median of the Walsh averages.

    Args:
        x: 1 to 1000 finite numbers.

    Returns:
        The estimate, in the unit of `x`.

    Raises:
        ValueError: if `x` is empty, too long, not one-dimensional or not finite.

    Source: Hodges & Lehmann 1963, Annals of Mathematical Statistics 34:598.
    """
    return float(np.median(walsh_averages(x)))


def _largest_rejected_rank_sum(n: int, alpha: float) -> int:
    """Return the largest K with P(W+ <= K) <= `alpha` under symmetry about zero, -1 if none."""
    # alpha <= 1/2 keeps K below the middle of the distribution, so the upper half is not needed.
    probability = np.zeros(n * (n + 1) // 4 + 2)
    probability[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.zeros_like(probability)
        shifted[rank:] = probability[:-rank] if rank < probability.size else 0.0
        probability = (probability + shifted) / 2
    slack = 0.0 if n <= _EXACT_VALUES else _ROUNDING
    return int(np.searchsorted(np.cumsum(probability), alpha - slack, side="right")) - 1


def hodges_lehmann_bounds(x: Sample, alpha: float) -> tuple[float, float]:
    """Return exact one-sided lower and upper bounds of the centre of symmetry.

    With K the largest rank sum of null probability at most alpha, the bounds are the (K+1)-th
    smallest and the (K+1)-th largest Walsh average. Ties only make them wider.

    Args:
        x: 1 to 1000 finite numbers, independent, each distributed symmetrically about the centre.
        alpha: error probability of each bound by itself, in (0, 0.5].

    Returns:
        (lower, upper), in the unit of `x`; (-inf, inf) if so few values exclude nothing: below
        five at alpha 0.05.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Hodges & Lehmann 1963, Annals of Mathematical Statistics 34:598, inverting the
    signed-rank test of Wilcoxon 1945, Biometrics Bulletin 1:80.
    """
    check_alpha(alpha)
    averages = walsh_averages(x)
    k = _largest_rejected_rank_sum(len(x), alpha)
    if k < 0:
        return -inf, inf
    return float(averages[k]), float(averages[-1 - k])
