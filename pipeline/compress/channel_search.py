# SPDX-License-Identifier: Apache-2.0
"""How many units of which group go, so that a cost comes to lie just below its target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compress.channel_graph import ChannelGraph, Group
from pipeline.compress.channel_walk import Term

__all__ = ["Candidates", "Costs", "Counts", "Unreachable", "find_counts", "rank_units"]

Counts = npt.NDArray[np.int64]
"""Units removed of each group, `(groups,)`."""
BAND = 0.98
"""A result lies between this share of the target and the target, where channels are fine enough."""
_TRIED_PREFIXES = 12
_MAX_SWAPS = 40


class Unreachable(Exception):  # noqa: N818
    """Not even with everything removed that may go; `closest` is what is left then."""

    def __init__(self, closest: float) -> None:
        super().__init__(closest)
        self.closest = closest


class Costs:
    """Costs as a function of the units removed."""

    def __init__(self, graph: ChannelGraph, groups: Sequence[Group]) -> None:
        self._number = {
            int(root): (place, unit)
            for place, group in enumerate(groups)
            for unit, root in enumerate(group.roots)
        }
        self._groups = len(groups)
        self._terms = {
            "macs": [self._compile(term) for term in graph.macs],
            "parameters": [self._compile(term) for term in graph.parameters],
        }

    def _compile(self, term: Term) -> tuple[float, list[tuple[int, npt.NDArray[np.int64]]]]:
        axes = []
        for axis in term.axes:
            taken = np.zeros(self._groups, dtype=np.int64)
            roots, times = np.unique(axis, return_counts=True)
            for root, count in zip(roots, times, strict=True):
                if int(root) in self._number:
                    # All units of a group take equally many positions of an axis, or tracing split them.
                    taken[self._number[int(root)][0]] = count
            axes.append((len(axis), taken))
        return term.factor, axes

    def of(self, kind: str, counts: Counts) -> float:
        """Return `macs` or `parameters` once `counts` units of each group are gone."""
        total = 0.0
        for factor, axes in self._terms[kind]:
            value = factor
            for size, taken in axes:
                value *= size - int(taken @ counts)
            total += value
        return total


@dataclass(frozen=True, eq=False)
class Candidates:
    """Groups with the order in which their units go.

    Attributes:
        groups: The groups.
        orders: Units of each group, the least important first.
        scores: Of the units in that order, ascending.
        levels: Numbers of units of each group that may go, ascending, from 0.
    """

    groups: tuple[Group, ...]
    orders: tuple[npt.NDArray[np.int64], ...]
    scores: tuple[npt.NDArray[np.float64], ...]
    levels: tuple[tuple[int, ...], ...]

    def chosen(self, counts: Counts) -> list[tuple[Group, npt.NDArray[np.int64]]]:
        """Return the units that go."""
        return [
            (group, order[:count])
            for group, order, count in zip(self.groups, self.orders, counts, strict=True)
            if count
        ]

    def most(self) -> Counts:
        """Return the largest numbers that may go."""
        return np.array([levels[-1] for levels in self.levels], dtype=np.int64)


def levels_of(
    group: Group, sizes: Sequence[int], taken: Sequence[int], round_to: int, ratio: float
) -> tuple[int, ...]:
    """Return the numbers of units that may go.

    Args:
        group: The group.
        sizes: Channels of each of its layers.
        taken: Channels of each of those layers that one unit takes.
        round_to: What is left of each layer is a multiple of it, unless nothing goes.
        ratio: The most that may go, of the units.
    """
    fitting = [
        count
        for count in range(1, group.size)
        if count <= ratio * group.size
        and all((size - count * each) % round_to == 0 for size, each in zip(sizes, taken, strict=True))
    ]
    return (0, *fitting)


def rank_units(
    candidates: Candidates, scope: str, priorities: Sequence[npt.NDArray[np.float64]] | None = None
) -> npt.NDArray[np.int64]:
    """Return the groups of units in the order in which units go, one entry a unit.

    Args:
        candidates: The groups with their scores.
        scope: `global` takes the lowest score of all, `layer` equal shares of every group, `sensitivity`
            the lowest priority.
        priorities: Of sensitivity: what the loss suffers for what a unit saves, by rank in its group.
    """
    keys, groups = [], []
    for place, scores in enumerate(candidates.scores):
        most = candidates.levels[place][-1]
        if scope == "layer":
            key = (np.arange(len(scores)) + 0.5) / max(1, most)
        elif scope == "sensitivity" and priorities is not None:
            key = np.maximum.accumulate(priorities[place])
        else:
            key = scores
        keys.append(key[:most])
        groups.append(np.full(most, place))
    if not keys:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(np.concatenate(keys), kind="stable")
    ranked: npt.NDArray[np.int64] = np.concatenate(groups)[order].astype(np.int64)
    return ranked


class _Search:
    def __init__(
        self, candidates: Candidates, ranked: npt.NDArray[np.int64], cost: Callable[[Counts], float]
    ) -> None:
        self._candidates = candidates
        self._ranked = ranked
        self._cost = cost

    def prefix(self, length: int) -> Counts:
        """Return the counts of the first `length` units, rounded down to levels."""
        counts = np.bincount(self._ranked[:length], minlength=len(self._candidates.groups))
        return np.array(
            [
                levels[int(np.searchsorted(levels, count, side="right")) - 1]
                for levels, count in zip(self._candidates.levels, counts, strict=True)
            ],
            dtype=np.int64,
        )

    def _moved(self, counts: Counts, place: int, steps: int) -> Counts | None:
        levels = self._candidates.levels[place]
        level = levels.index(int(counts[place])) + steps
        if not 0 <= level < len(levels):
            return None
        moved = counts.copy()
        moved[place] = levels[level]
        return moved

    def refill(self, counts: Counts, target: float) -> Counts:
        """Give back what the target leaves room for, the most important first."""
        while True:
            offers = [
                (float(self._candidates.scores[place][counts[place] - 1]), place)
                for place in range(len(counts))
                if counts[place]
            ]
            for _, place in sorted(offers, reverse=True):
                moved = self._moved(counts, place, -1)
                if moved is not None and self._cost(moved) <= target:
                    counts = moved
                    break
            else:
                return counts

    def swap(self, counts: Counts, target: float) -> Counts:
        """Exchange a level of one group for one of another while that brings the cost nearer."""
        for _ in range(_MAX_SWAPS):
            best, reached = None, self._cost(counts)
            if reached >= BAND * target:
                break
            for back in range(len(counts)):
                returned = self._moved(counts, back, -1)
                if returned is None:
                    continue
                for out in range(len(counts)):
                    moved = None if out == back else self._moved(returned, out, 1)
                    if moved is not None and reached < self._cost(moved) <= target:
                        best, reached = moved, self._cost(moved)
            if best is None:
                break
            counts = best
        return counts

    def extended(self, counts: Counts, target: float) -> list[Counts]:
        """Return what one more level of any group makes fit the target."""
        offers = (self._moved(counts, place, 1) for place in range(len(counts)))
        return [moved for moved in offers if moved is not None and self._cost(moved) <= target]


def find_counts(
    candidates: Candidates, ranked: npt.NDArray[np.int64], cost: Callable[[Counts], float], target: float
) -> Counts:
    """Return how many units of each group go so that `cost` is at most `target`, and near it.

    Args:
        candidates: The groups.
        ranked: Group of each unit in the order in which units go.
        cost: Of counts; falls when units go.
        target: The most allowed.

    Raises:
        Unreachable: with the closest that can be reached.
    """
    search = _Search(candidates, ranked, cost)
    if cost(search.prefix(0)) <= target:
        return search.prefix(0)
    least = cost(search.prefix(len(ranked)))
    if least > target:
        raise Unreachable(least)
    low, high = 0, len(ranked)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(search.prefix(middle)) <= target else (middle, high)
    best = search.refill(search.prefix(high), target)
    if cost(best) < BAND * target:
        best = search.swap(best, target)
    for length in range(low, max(-1, low - _TRIED_PREFIXES), -1):
        if cost(best) >= BAND * target:
            break
        for offer in search.extended(search.prefix(length), target):
            if cost(offer) > cost(best):
                best = offer
    return best
