# SPDX-License-Identifier: Apache-2.0
"""Populations whose true harm is known, and the evidence on test sets drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from checks.contract_runs import RUNS, Contract
from checks.evidence import Attacks, Evidence, Examples, Scores, Subject, Timing

__all__ = [
    "UNITS",
    "Pool",
    "Stratum",
    "default_timing",
    "draw",
    "evidence_of",
    "pool_of",
    "scored_pool",
]

UNITS = 200_000
"""Units of each population."""

_SPACING = 4.0
_SHOWN_IN_CONTRACT = 32

Indices = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


class Stratum(NamedTuple):
    """Units of one group and one label, by what both models do with them.

    Attributes:
        group: position of the group.
        label: position of the class.
        right: units both get right.
        losses: units only the baseline gets right.
        gains: units only the candidate gets right.
        wrong: units both get wrong, in the same way.
    """

    group: int
    label: int
    right: int
    losses: int = 0
    gains: int = 0
    wrong: int = 0


@dataclass(frozen=True, eq=False)
class Pool:
    """A labelled population with what both models decide on every unit.

    Attributes:
        labels: `(N,)` class.
        baseline: `(N,)` class the baseline decides for.
        candidate: `(N,)` class the candidate decides for.
        groups: `(N,)` level of the attribute `group`.
        levels: names of its levels.
        classes: names of the classes.
        probabilities: `(N, 2)` of the second class, by the baseline and by the candidate; None where the
            decisions are all that matters.
    """

    labels: Indices
    baseline: Indices
    candidate: Indices
    groups: Indices
    levels: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Floats | None = None

    @property
    def cells(self) -> Indices:
        """`(N,)` 0 both right, 1 loss, 2 gain, 3 both wrong."""
        before, after = self.baseline == self.labels, self.candidate == self.labels
        return np.where(before, np.where(after, 0, 1), np.where(after, 2, 3)).astype(np.int64)


def _names(letter: str, count: int) -> tuple[str, ...]:
    return tuple(f"{letter}{position:02d}" for position in range(count))


def pool_of(strata: Sequence[Stratum]) -> Pool:
    """Return the population that consists of `strata`.

    What is wrong is called the first class, and of the first class the second: so every error is a false
    positive of one known class.
    """
    sizes = np.array([stratum[2:] for stratum in strata])
    repeats = sizes.sum(axis=1)
    labels = np.repeat([stratum.label for stratum in strata], repeats)
    groups = np.repeat([stratum.group for stratum in strata], repeats)
    cells = np.concatenate([np.repeat(np.arange(4), row) for row in sizes])
    mistaken = np.where(labels == 0, 1, 0)
    return Pool(
        labels=labels,
        baseline=np.where(cells <= 1, labels, mistaken),
        candidate=np.where((cells == 0) | (cells == 2), labels, mistaken),
        groups=groups,
        levels=_names("g", max(1, int(groups.max()) + 1)),
        classes=_names("c", max(2, int(labels.max()) + 1)),
    )


def scored_pool(labels: Indices, probabilities: Floats) -> Pool:
    """Return a population of two classes.

    Args:
        labels: `(N,)` 0 or 1.
        probabilities: `(N, 2)` of class 1, by the baseline and by the candidate.
    """
    calls = (probabilities > 0.5).astype(np.int64)
    nobody = np.zeros(len(labels), dtype=np.int64)
    return Pool(labels, calls[:, 0], calls[:, 1], nobody, ("g00",), ("c00", "c01"), probabilities)


def draw(generator: np.random.Generator, draws: int, n: int, units: int = UNITS) -> Indices:
    """Return `(draws, n)` units, each drawn anew: test sets of n independent units."""
    return generator.integers(0, units, size=(draws, n), dtype=np.int64)


def default_timing(sessions: int = 8, rounds: int = 10) -> Timing:
    """Return times without any noise, where times are not what is judged."""
    times = np.ones((1, sessions, rounds))
    calls, peaks = np.ones((1, sessions, rounds, 3)), np.full(sessions, 1000)
    return Timing((64,), times, times, times, peaks, peaks, calls, calls, times, times)


def _scores(pool: Pool, index: Indices, model: int, ids: npt.NDArray[np.str_]) -> Scores:
    if pool.probabilities is not None:
        second = pool.probabilities[index, model]
        return Scores(ids, np.stack([1 - second, second], axis=1), "probabilities")
    decided = (pool.baseline, pool.candidate)[model][index]
    return Scores(ids, np.eye(len(pool.classes), dtype=np.float32)[decided] * np.float32(_SPACING))


def _attacks(ids: npt.NDArray[np.str_], pool: Pool, index: Indices) -> Attacks:
    """Return a pool of one attack that leaves decisions as they are."""
    right = [np.stack([calls[index] == pool.labels[index]] * 2) for calls in (pool.baseline, pool.candidate)]
    perturbation = np.zeros(right[0].shape)
    perturbation[1] = 0.05
    fits = np.ones(right[0].shape, dtype=bool)
    return Attacks(ids, ("clean", "pgd"), right[0], right[1], perturbation, fits, 0.05, (1.0, 1.0))


def evidence_of(pool: Pool, index: Indices, timing: Timing | None = None) -> Evidence:
    """Return the evidence on the test set `index`, `(n,)` positions in `pool`.

    A unit that was drawn twice is two examples: each draw is a new one from a large population.
    """
    ids = np.array([f"x{position:07d}" for position in range(len(index))])
    models = [_scores(pool, index, model, ids) for model in (0, 1)]
    few = slice(0, min(len(index), _SHOWN_IN_CONTRACT))
    runs = [dict.fromkeys(RUNS, model.scores[few]) for model in models]
    figures = {"bytes": 1000, "macs": 1000, "parameters": 100}
    names = np.array(pool.levels)[pool.groups[index]]
    return Evidence(
        subject=Subject("a" * 64, "b" * 64, "c" * 64, "d" * 64),
        examples=Examples(
            ids=ids,
            units=ids,
            labels=pool.labels[index],
            classes=pool.classes,
            columns={"group": names},
            levels={"group": pool.levels},
        ),
        baseline=models[0],
        candidate=models[1],
        contract=Contract(ids[few], runs[0], runs[1]),
        attacks=_attacks(ids, pool, index),
        timing=timing or default_timing(),
        cost={"baseline": figures, "candidate": figures},
        groups={"attributes": {"group": {}}},
        files={},
    )
