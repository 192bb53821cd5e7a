# SPDX-License-Identifier: Apache-2.0
"""How many units a margin needs, and what a number of units can show, before they are judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, log, log1p, sqrt

from checks.statistics._special import normal_quantile, special
from checks.statistics._unconditional import rejects
from checks.statistics._validate import (
    check_alpha,
    check_margin,
    check_real,
    checked_counts,
    checked_size,
    share_of,
)
from checks.statistics.binomial import clopper_pearson_upper

__all__ = ["MoreExamples", "further_examples", "minimum_detectable_effect", "n_min", "n_plan", "power"]

_ENUMERATED_UNITS = 300
_ENUMERATED_DISCORDANT = 60
_IGNORED_TAIL = 1e-7
_DEFAULT_POWER = 0.8
# One-sided error of the churn guess in `further_examples`: the upper end of a 60 % interval.
_CHURN_ERROR = 0.2
_NO_MARGIN = 1.0
_MARGIN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class MoreExamples:
    """How many further units would let an inconclusive comparison pass.

    Attributes:
        if_no_change: units to add for an 80 % chance to pass if the accuracies are truly equal;
            None if more data is not expected to help, 0 if the planned size is already there.
        if_observed_change: the same if the observed change is the true one.
        chance_at_double: chance to pass with a new set of twice the size, if the observed change
            and the observed churn are the true ones, in [0, 1].
    """

    if_no_change: int | None
    if_observed_change: int | None
    chance_at_double: float


def n_min(margin: float, alpha: float, gamma: float | None = None) -> int:
    """Return the fewest units on which a candidate without any discordant unit can pass.

    Args:
        margin: largest tolerated drop of accuracy, in (0, 1).
        alpha: level that the p-value is compared with, in (0, 0.5].
        gamma: error `p_noninferior` spends on the gain rate, in [0, 0.01] and below alpha;
            alpha / 100 if None.

    Returns:
        The smallest n with p_noninferior(0, 0, n, margin, gamma=gamma) <= alpha. At alpha 0.05
        and margins up to 0.2 that is ceil(log(alpha - gamma) / log(1 - margin)); at a smaller
        alpha it is more (511, not 460, at alpha 0.01 and margin 0.01).

    Raises:
        ValueError: if an argument is outside its range.

    Source: P(no loss among n) = (1 - margin)^n at the margin; test of Berger & Boos 1994.
    """
    check_margin(margin)
    check_alpha(alpha)
    return _n_min(margin, alpha, share_of(alpha, gamma))


@lru_cache(maxsize=1024)
def _n_min(margin: float, alpha: float, share: float) -> int:
    def passes(n: int) -> bool:
        return rejects(0, 0, n, -margin, share, alpha)

    # Other tables can score as high as "no discordant unit", so this corner alone is optimistic.
    corner = max(1, ceil(log(alpha - share) / log1p(-margin)))
    if passes(corner):
        return corner
    reach = 1
    while not passes(corner + reach):
        reach *= 2
    return _first(corner + 1, corner + reach, passes)


def _check_change(churn: float, change: float) -> None:
    check_real("churn", churn, "[0, 1]", inside=0.0 <= churn <= 1.0)
    check_real("change", change, f"[-churn, churn] = [{-churn}, {churn}]", inside=abs(change) <= churn)


def _deviations(margin: float, churn: float, change: float) -> tuple[float, float]:
    """Return the standard deviations per unit at the margin and at the assumed truth (Nam 1997)."""
    gain, loss = (churn + change) / 2, (churn - change) / 2
    b_term = gain * (1 - margin) + loss * (1 + margin) - 2 * margin
    root = sqrt(b_term * b_term + 8 * gain * margin * (1 - margin))
    limit = (b_term + root) / 4
    return sqrt(2 * limit + margin * (1 - margin)), sqrt(max(churn - change * change, 0.0))


def _score_size(margin: float, churn: float, alpha: float, power: float, change: float) -> int:
    at_margin, at_truth = _deviations(margin, churn, change)
    needed = normal_quantile(1 - alpha) * at_margin + normal_quantile(power) * at_truth
    return ceil((max(needed, 0.0) / (change + margin)) ** 2)


def n_plan(margin: float, churn: float, alpha: float, *, power: float = 0.8, change: float = 0.0) -> int:
    """Return the units that let a candidate of the given truth pass with the given power.

    Args:
        margin: largest tolerated drop of accuracy, in (0, 1).
        churn: assumed probability of a loss plus that of a gain, in [0, 1].
        alpha: level that the p-value is compared with, in (0, 0.5].
        power: wanted probability to pass, in (0, 1).
        change: assumed true difference of accuracies, above -margin and within +-churn.

    Returns:
        The number of units, never below `n_min`. A normal approximation: `power` confirms it.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Nam 1997, Biometrics 53:1422.
    """
    check_margin(margin)
    check_alpha(alpha)
    check_real("power", power, "(0, 1)", inside=0.0 < power < 1.0)
    _check_change(churn, change)
    check_real("change", change, f"(-margin, 1], margin = {margin}", inside=change > -margin)
    return max(n_min(margin, alpha), _score_size(margin, churn, alpha, power, change))


def power(n: int, margin: float, churn: float, alpha: float, change: float = 0.0) -> float:
    """Return the probability to pass: that of p_noninferior(..., gamma=alpha / 100) <= alpha.

    Exact, by enumeration of the tables, while n <= 300 or at most 60 discordant units are expected
    (n times churn: 2000 units at a churn of 3 %); it then leaves out at most 1e-6, on the low side.
    Beyond that, Nam's normal approximation, which is then within 0.03. `n_min` is not applied:
    below it, lucky gains alone can pass.

    Args:
        n: units judged, >= 1.
        margin: largest tolerated drop of accuracy, in (0, 1).
        churn: assumed probability of a loss plus that of a gain, in [0, 1].
        alpha: level that the p-value is compared with, in (0, 0.5].
        change: assumed true difference of accuracies, within +-churn. At or below -margin the
            result is the probability of a false pass.

    Returns:
        The probability, in [0, 1].

    Raises:
        ValueError: if an argument is outside its range.

    Source: enumeration of the trinomial; approximation, Nam 1997, Biometrics 53:1422.
    """
    n = checked_size(n)
    check_margin(margin)
    check_alpha(alpha)
    _check_change(churn, change)
    if n <= _ENUMERATED_UNITS or n * churn <= _ENUMERATED_DISCORDANT:
        return _enumerated_power(n, margin, (churn - change) / 2, (churn + change) / 2, alpha)
    at_margin, at_truth = _deviations(margin, churn, change)
    shift = sqrt(n) * (change + margin) - normal_quantile(1 - alpha) * at_margin
    if at_truth == 0.0:
        return float(shift >= 0.0)
    return float(special().ndtr(shift / at_truth))


def _likely_counts(n: int, rate: float) -> tuple[int, int]:
    """Return the first and last count outside of which a binomial leaves `_IGNORED_TAIL` each."""
    sp = special()
    spread = 6 * sqrt(n * rate * (1 - rate)) + 12
    first, last = max(0, int(n * rate - spread)), min(n, ceil(n * rate + spread))
    while first < last and sp.bdtr(first, n, rate) <= _IGNORED_TAIL:
        first += 1
    while last > first and sp.bdtrc(last - 1, n, rate) <= _IGNORED_TAIL:
        last -= 1
    return first, last


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the first integer in low..high at which the rising predicate holds, high + 1 if none."""
    below, above = low - 1, high + 1
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if holds(middle) else (middle, above)
    return above


def _enumerated_power(n: int, margin: float, loss_rate: float, gain_rate: float, alpha: float) -> float:
    """Sum P(gains = c) P(losses <= b(c) | c), b(c) being the most losses that still pass.

    The p-value grows with the losses and falls with the gains, so b(c) describes the passing
    tables completely and never decreases: one walk along it meets every boundary table.
    """
    sp = special()
    first_loss, last_loss = _likely_counts(n, loss_rate)
    first_gain, last_gain = _likely_counts(n, gain_rate)

    def passes(losses: int, gains: int) -> bool:
        return losses + gains <= n and rejects(losses, gains, n, -margin, alpha / 100, alpha)

    start = _first(first_gain, last_gain, lambda c: first_loss + c > n or passes(first_loss, c))
    if start > last_gain:
        return 0.0
    most = _first(first_loss, last_loss, lambda b: not passes(b, start)) - 1
    total = 0.0
    for gains in range(start, last_gain + 1):
        while most < last_loss and passes(most + 1, gains):
            most += 1
        log_weight = sp.gammaln(n + 1) - sp.gammaln(gains + 1) - sp.gammaln(n - gains + 1)
        log_weight += sp.xlogy(gains, gain_rate) + sp.xlog1py(n - gains, -gain_rate)
        # Losses are binomial among the units that are no gains.
        share = min(1.0, loss_rate / (1 - gain_rate)) if gain_rate < 1 else 0.0
        total += exp(float(log_weight)) * float(sp.bdtr(min(most, n - gains), n - gains, share))
    return min(1.0, total)


def further_examples(losses: int, gains: int, n: int, margin: float, alpha: float) -> MoreExamples:
    """Say how many further units would let this comparison pass.

    The churn is taken at the upper end of its 60 % Clopper-Pearson interval, since one that is
    guessed too low sends people away with too little data.

    Args:
        losses: units the baseline got right and the candidate wrong, >= 0.
        gains: units the baseline got wrong and the candidate right, >= 0, losses + gains <= n.
        n: units judged so far, >= 1.
        margin: largest tolerated drop of accuracy, in (0, 1).
        alpha: level that the p-value is compared with, in (0, 0.5].

    Returns:
        Units to add under two truths and the chance at twice the size. Where the observed drop
        reaches the margin more data is not expected to help, and both numbers are None.

    Raises:
        ValueError: if an argument is outside its range.

    Source: Nam 1997, Biometrics 53:1422; Clopper & Pearson 1934, Biometrika 26:404.
    """
    losses, gains, n = checked_counts(losses, gains, n)
    check_margin(margin)
    check_alpha(alpha)
    change, discordant = (gains - losses) / n, losses + gains
    chance = power(2 * n, margin, discordant / n, alpha, change)
    if change <= -margin:
        return MoreExamples(None, None, chance)
    churn = clopper_pearson_upper(discordant, n, _CHURN_ERROR)

    def missing(truth: float) -> int:
        return max(0, n_plan(margin, churn, alpha, power=_DEFAULT_POWER, change=truth) - n)

    return MoreExamples(missing(0.0), missing(change), chance)


def minimum_detectable_effect(n: int, churn: float, alpha: float, power: float = 0.8) -> float:
    """Return the smallest margin that n units can pass with the given power if D = 0.

    Args:
        n: units to be judged, >= 1.
        churn: assumed probability of a loss plus that of a gain, in [0, 1].
        alpha: level that the p-value is compared with, in (0, 0.5].
        power: wanted probability to pass, in (0, 1).

    Returns:
        The smallest margin whose `n_plan` is at most n, high by at most 1e-6: a policy with a
        smaller one cannot expect to pass. 1.0 if no margin can.

    Raises:
        ValueError: if an argument is outside its range.

    Source: inversion of Nam 1997, Biometrics 53:1422, and of `n_min`.
    """
    n = checked_size(n)
    check_alpha(alpha)
    check_real("power", power, "(0, 1)", inside=0.0 < power < 1.0)
    _check_change(churn, 0.0)
    low, high = 0.0, _NO_MARGIN
    while high - low > _MARGIN_TOLERANCE:
        middle = (low + high) / 2
        enough = _score_size(middle, churn, alpha, power, 0.0) <= n
        if enough and rejects(0, 0, n, -middle, alpha / 100, alpha):
            high = middle
        else:
            low = middle
    return high
