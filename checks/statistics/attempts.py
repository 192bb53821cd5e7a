# SPDX-License-Identifier: Apache-2.0
"""Several attempts on one test set share one error probability."""

from __future__ import annotations

from math import fsum, pi

from checks.statistics._validate import _count, check_alpha

__all__ = ["attempt_alpha", "shared_alpha"]


def attempt_alpha(alpha: float, attempt: int, planned: int | None = None) -> float:
    """Return the error probability that the given attempt on a test set may use.

    Without a plan the shares 6 / (pi^2 j^2) of all attempts j = 1, 2, ... add up to 1: however many there
    will be, the chance that any violating candidate passes is at most `alpha`. With a plan each of the
    planned attempts has the same share, and those beyond it have none.

    Args:
        alpha: error probability of all attempts together, in (0, 0.5].
        attempt: 1 for the first candidate judged on this test set, 2 for the next.
        planned: how many attempts were declared before the first, >= 1; None for any number.

    Returns:
        The error probability, in [0, alpha]: 0.61 of it at the first attempt, 0.15 at the second.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Bonferroni's inequality with weights 1 / j^2, whose sum is pi^2 / 6 (Euler), or equal weights.
    """
    check_alpha(alpha)
    j = _count("attempt", attempt, 1)
    if planned is None:
        return alpha * 6 / (pi * pi * j * j)
    return alpha / planned if j <= _count("planned", planned, 1) else 0.0


def shared_alpha(alpha: float, first: int, last: int, planned: int | None = None) -> float:
    """Return the error probability of each of the attempts `first` to `last`, which share theirs equally.

    Args:
        alpha: error probability of all attempts together, in (0, 0.5].
        first: the first of the attempts that were made at once, >= 1.
        last: the last of them, >= `first`.
        planned: as of `attempt_alpha`.

    Returns:
        The mean of their error probabilities, in [0, alpha].

    Raises:
        ValueError: if an argument is outside its range.

    Source: as `attempt_alpha`; a sum stays what it is however it is divided.
    """
    one, other = _count("first", first, 1), _count("last", last, first)
    shares = [attempt_alpha(alpha, attempt, planned) for attempt in range(one, other + 1)]
    return fsum(shares) / len(shares)
