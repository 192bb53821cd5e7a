# SPDX-License-Identifier: Apache-2.0
"""Successive halving for several objectives at once: who of a bracket trains on.

Half of a bracket is dropped at each rung (Jamieson and Talwalkar 2016, arXiv:1502.07943). Who is in the
better half when there are several objectives is told as in Schmucker et al. 2021 (arXiv:2106.12639), by
non-dominated rank first; within the rank that does not fit whole, whoever adds least to the hypervolume
goes first (SMS-EMOA, Beume et al. 2007, https://doi.org/10.1016/j.ejor.2006.08.008).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Losses", "front_of", "hypervolume", "rank", "spread", "survivors"]

Losses = npt.NDArray[np.float64]
"""`(N, M)`: N trials, M objectives, less is better."""

_BEYOND = 1.1
"""Where the reference point lies once each objective is scaled to [0, 1]: ends must count for something."""


def _dominated(losses: Losses) -> npt.NDArray[np.bool_]:
    no_worse = np.all(losses[:, None, :] <= losses[None, :, :], axis=2)
    better = np.any(losses[:, None, :] < losses[None, :, :], axis=2)
    found: npt.NDArray[np.bool_] = np.logical_and(no_worse, better).any(axis=0)
    return found


def front_of(losses: Losses) -> list[int]:
    """Return the rows that no other row beats: no worse everywhere and better somewhere."""
    return [] if len(losses) == 0 else np.flatnonzero(~_dominated(losses)).tolist()


def rank(losses: Losses) -> list[int]:
    """Return each row's non-dominated rank: 0 on the front, 1 on the front of the rest, and so on."""
    ranks = np.full(len(losses), -1)
    left, level = np.arange(len(losses)), 0
    while len(left):
        front = left[front_of(losses[left])]
        ranks[front] = level
        left, level = np.setdiff1d(left, front), level + 1
    return ranks.tolist()


def hypervolume(losses: Losses, reference: npt.NDArray[np.float64]) -> float:
    """Return the volume that the rows dominate, up to the reference point.

    By exclusive volumes, as in While et al. 2012 (https://doi.org/10.1109/TEVC.2010.2077298); exact, and
    meant for the few tens of rows of a bracket.

    Args:
        losses: `(N, M)`.
        reference: `(M,)`; rows that are not below it everywhere count for nothing.
    """
    points = np.unique(losses[(losses < reference).all(axis=1)], axis=0)
    points = points[front_of(points)]
    total = 0.0
    for index, point in enumerate(points):
        later = np.maximum(points[index + 1 :], point)
        total += float(np.prod(reference - point)) - (hypervolume(later, reference) if len(later) else 0.0)
    return total


def _scaled(losses: Losses) -> Losses:
    low, high = losses.min(axis=0), losses.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    scaled: Losses = (losses - low) / width
    return scaled


def _contributions(losses: Losses) -> list[float]:
    reference = np.full(losses.shape[1], _BEYOND)
    whole = hypervolume(losses, reference)
    return [
        whole - hypervolume(np.delete(losses, row, axis=0), reference) if len(losses) > 1 else whole
        for row in range(len(losses))
    ]


def _thin(losses: Losses, rows: Sequence[int], keep: int) -> list[int]:
    """Drop, one by one, whoever adds least to the hypervolume of the rest; of equals the later one."""
    left = list(rows)
    while len(left) > keep:
        adds = _contributions(losses[left])
        least = min(range(len(left)), key=lambda place: (round(adds[place], 12), -left[place]))
        del left[least]
    return left


def survivors(losses: Losses) -> list[int]:
    """Return the rows of the better half, at least one, in ascending order.

    Args:
        losses: `(N, M)`, N >= 1.
    """
    keep = max(1, len(losses) // 2)
    ranks, scaled = np.array(rank(losses)), _scaled(losses)
    kept: list[int] = []
    for level in range(int(ranks.max()) + 1):
        rows = np.flatnonzero(ranks == level).tolist()
        kept += _thin(scaled, rows, keep - len(kept)) if len(kept) + len(rows) > keep else rows
    return sorted(kept)


def spread(losses: Losses, keep: int) -> list[int]:
    """Return at most `keep` rows of the front that together dominate most, in ascending order."""
    rows = front_of(losses)
    if not rows:
        return []
    scaled = np.zeros_like(losses)
    scaled[rows] = _scaled(losses[rows])
    return sorted(_thin(scaled, rows, keep))
