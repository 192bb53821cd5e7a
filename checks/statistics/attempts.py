# SPDX-License-Identifier: Apache-2.0
"""Several attempts on one test set share one error probability."""

from __future__ import annotations

from math import pi

from checks.statistics._validate import _count, check_alpha

__all__ = ["attempt_alpha"]


def attempt_alpha(alpha: float, attempt: int) -> float:
    """Return the error probability that the given attempt on a test set may use.

    The shares 6 / (pi^2 j^2) of all attempts j = 1, 2, ... add up to 1. However many there will be,
    the chance that any violating candidate passes is therefore at most `alpha`.

    Args:
        alpha: error probability of all attempts together, in (0, 0.5].
        attempt: 1 for the first candidate judged on this test set, 2 for the next.

    Returns:
        The error probability, in (0, alpha): 0.61 of it at the first attempt, 0.15 at the second.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Bonferroni's inequality with weights 1 / j^2, whose sum is pi^2 / 6 (Euler).
    """
    check_alpha(alpha)
    j = _count("attempt", attempt, 1)
    return alpha * 6 / (pi * pi * j * j)
