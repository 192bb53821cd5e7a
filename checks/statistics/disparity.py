# SPDX-License-Identifier: Apache-2.0
"""Disparity that a change adds between two groups: the difference of their paired changes.

D_g is the candidate's accuracy minus the baseline's within group g, and Delta_gh = D_h - D_g.
A positive Delta_gh means that group h fared better than group g; it equals the accuracy gap
(h minus g) of the candidate minus that of the baseline.
"""

from __future__ import annotations

from math import hypot

from checks.statistics._validate import checked_counts
from checks.statistics.paired import tango_bounds

__all__ = ["mover_tango_lower", "mover_tango_upper"]


def mover_tango_upper(
    losses_g: int, gains_g: int, n_g: int, losses_h: int, gains_h: int, n_h: int, alpha: float
) -> float:
    """Return the one-sided upper bound of Delta_gh = D_h - D_g, approximate (MOVER on score limits).

    With d the point estimates, l and u the one-sided Tango limits of the groups, the bound is
    (d_h - d_g) + sqrt((u_h - d_h)^2 + (d_g - l_g)^2). A rule on groups holds if the bound is below
    the tolerated disparity for every ordered pair; it is large where the *first* group is harmed.
    For g with 6 losses and 1 gain of 100 and h with 5 and 4 of 500 it is 0.10256 at alpha 0.05.

    Args:
        losses_g: units of group g the baseline got right and the candidate wrong, >= 0.
        gains_g: units of group g the baseline got wrong and the candidate right, >= 0.
        n_g: units of group g, >= 1 and >= losses_g + gains_g.
        losses_h: as losses_g, for group h; the groups share no unit.
        gains_h: as gains_g, for group h.
        n_h: as n_g, for group h.
        alpha: error probability, in (0, 0.5].

    Returns:
        The bound, in [-2, 2].

    Raises:
        ValueError: if an argument is outside its range.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693; limits, Tango 1998.
    """
    losses_g, gains_g, n_g = checked_counts(losses_g, gains_g, n_g)
    losses_h, gains_h, n_h = checked_counts(losses_h, gains_h, n_h)
    lower_g, _ = tango_bounds(losses_g, gains_g, n_g, alpha)
    _, upper_h = tango_bounds(losses_h, gains_h, n_h, alpha)
    change_g, change_h = (gains_g - losses_g) / n_g, (gains_h - losses_h) / n_h
    return change_h - change_g + hypot(upper_h - change_h, change_g - lower_g)


def mover_tango_lower(
    losses_g: int, gains_g: int, n_g: int, losses_h: int, gains_h: int, n_h: int, alpha: float
) -> float:
    """Return the one-sided lower bound of Delta_gh = D_h - D_g, approximate (MOVER on score limits).

    It is minus the upper bound of Delta_hg: (d_h - d_g) - sqrt((d_h - l_h)^2 + (u_g - d_g)^2).

    Args:
        losses_g: units of group g the baseline got right and the candidate wrong, >= 0.
        gains_g: units of group g the baseline got wrong and the candidate right, >= 0.
        n_g: units of group g, >= 1 and >= losses_g + gains_g.
        losses_h: as losses_g, for group h; the groups share no unit.
        gains_h: as gains_g, for group h.
        n_h: as n_g, for group h.
        alpha: error probability, in (0, 0.5].

    Returns:
        The bound, in [-2, 2].

    Raises:
        ValueError: if an argument is outside its range.

    Source: MOVER, Zou & Donner 2008, Statistics in Medicine 27:1693; limits, Tango 1998.
    """
    return -mover_tango_upper(losses_h, gains_h, n_h, losses_g, gains_g, n_g, alpha)
