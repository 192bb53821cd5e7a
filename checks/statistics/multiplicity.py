# SPDX-License-Identifier: Apache-2.0
"""Several claims of harm at once. Passing needs no correction, because every rule must pass."""

from __future__ import annotations

from collections.abc import Sequence

from checks.statistics._validate import check_alpha, check_real

__all__ = ["holm", "holm_adjusted"]


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Say which hypotheses Holm's step-down rule rejects.

    Whatever their dependence, the probability of rejecting any true one is at most alpha.
    The first step compares with alpha / k, so p-values of `p_harm` need gamma <= alpha / (100 k).

    Args:
        p_values: one per hypothesis, each in [0, 1]; may be empty.
        alpha: probability of any false rejection, in (0, 0.5].

    Returns:
        One truth value per p-value, in their order: True if rejected. Equal p-values fare alike.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    check_alpha(alpha)
    for p_value in p_values:
        check_real("every p-value", p_value, "[0, 1]", inside=0.0 <= p_value <= 1.0)
    rejected = [False] * len(p_values)
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > alpha / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number by Holm's rule.

    An adjusted value at or below alpha says what `holm` at that alpha says, up to the last digit
    where a p-value lies on its threshold: the smallest of k is multiplied by k, the next by k - 1,
    and so on, and none is below the one before it.

    Args:
        p_values: one per hypothesis, each in [0, 1]; may be empty.

    Returns:
        One adjusted value per p-value, in their order, each in [0, 1] and not below its p-value.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    for p_value in p_values:
        check_real("every p-value", p_value, "[0, 1]", inside=0.0 <= p_value <= 1.0)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        adjusted[index] = largest
    return adjusted
