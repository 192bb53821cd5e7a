# SPDX-License-Identifier: Apache-2.0
"""Experiments: test sets drawn from a population, read either by a few counts or as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from gates_pool import UNITS, Pool, Stratum, draw, evidence_of, pool_of
from gates_rules import Points

from checks.evidence import Evidence, Timing
from checks.latency import LatencyCheck
from checks.measurement import Measurement
from checks.policy import Policy, parse_policy
from checks.protocol import built_in_checks, metrics_of

__all__ = [
    "ALPHA",
    "Clause",
    "Counted",
    "Counts",
    "Experiment",
    "Indices",
    "Reading",
    "Sample",
    "Timed",
    "Whole",
    "policy_of",
    "strata",
]

ALPHA = 0.05

_BLOCK = 200

Indices = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Reading = tuple[Measurement, Points]
Sample = tuple[Any, Any]
"""What was drawn, and the counts it is judged by, None where it is judged as a whole."""


def policy_of(rules: list[Mapping[str, Any]], **keys: Any) -> Policy:
    """Return a policy of `rules`, each blocking, at alpha and alpha_fail of 0.05."""
    metrics = metrics_of(built_in_checks())
    filled = [
        {"id": f"rule-{position}", "kind": "bounded", "reason": "A simulated limit."} | dict(rule)
        for position, rule in enumerate(rules)
    ]
    raw = {"version": 1, "name": "simulated", "alpha": ALPHA, "alpha_fail": ALPHA, "rules": filled}
    return parse_policy(raw | keys, metrics, "simulated")


def strata(
    group: int, units: int, *, loss: float, gain: float, wrong: float = 0.03, classes: int = 4
) -> list[Stratum]:
    """Return one group whose classes all have the same rates of losses, gains and common errors."""
    size = units // classes
    losses, gains, errors = (round(size * rate) for rate in (loss, gain, wrong))
    right = size - losses - gains - errors
    return [Stratum(group, label, right, losses, gains, errors) for label in range(classes)]


@dataclass(frozen=True, eq=False)
class Counted:
    """Test sets of n units that are judged by a few counts.

    Attributes:
        pool: the population.
        n: units of a test set.
        cells: `(N,)` what each unit counts as.
        size: number of cells.
        build: takes `(size,)` counts to what is judged and what rules on points look at.
    """

    pool: Pool
    n: int
    cells: Indices
    size: int
    build: Callable[[Counts], Reading]

    def samples(self, generator: np.random.Generator, draws: int) -> Iterator[Sample]:
        """Yield test sets with their counts."""
        for start in range(0, draws, _BLOCK):
            index = draw(generator, min(_BLOCK, draws - start), self.n)
            codes = self.cells[index] + self.size * np.arange(len(index))[:, np.newaxis]
            counts = np.bincount(codes.ravel(), minlength=self.size * len(index)).reshape(-1, self.size)
            yield from zip(index, map(tuple, counts.tolist()), strict=True)

    @cached_property
    def _read(self) -> Callable[[tuple[int, ...]], Reading]:
        return cache(lambda counts: self.build(np.array(counts)))

    def read(self, sample: Sample) -> Reading:
        """Return what is judged; the same counts give the same answer, worked out once."""
        return self._read(sample[1])

    def evidence(self, sample: Sample) -> Evidence:
        """Return the evidence on the same units."""
        return evidence_of(self.pool, sample[0])

    def levels(self) -> dict[str, tuple[str, ...]]:
        """Return the levels of each attribute."""
        return {"group": self.pool.levels, "label": self.pool.classes}


@dataclass(frozen=True, eq=False)
class Whole:
    """Test sets of n units that no few counts describe."""

    pool: Pool
    n: int
    build: Callable[[Pool, Indices], Reading]

    def samples(self, generator: np.random.Generator, draws: int) -> Iterator[Sample]:
        """Yield test sets."""
        for start in range(0, draws, _BLOCK):
            for index in draw(generator, min(_BLOCK, draws - start), self.n):
                yield index, None

    def read(self, sample: Sample) -> Reading:
        """Return what is judged."""
        return self.build(self.pool, sample[0])

    def evidence(self, sample: Sample) -> Evidence:
        """Return the evidence on the same units."""
        return evidence_of(self.pool, sample[0])

    def levels(self) -> dict[str, tuple[str, ...]]:
        """Return the levels of each attribute."""
        return {"group": self.pool.levels, "label": self.pool.classes}


@cache
def _tiny() -> Evidence:
    return evidence_of(pool_of(strata(0, UNITS, loss=0, gain=0)), np.arange(0, UNITS, UNITS // 40))


@dataclass(frozen=True, eq=False)
class Timed:
    """Simulated sessions; the population is the simulator."""

    metric: str
    limit: float
    simulate: Callable[[np.random.Generator, int], Iterator[Timing]]

    def samples(self, generator: np.random.Generator, draws: int) -> Iterator[Sample]:
        """Yield sessions."""
        return ((timing, None) for timing in self.simulate(generator, draws))

    def read(self, sample: Sample) -> Reading:
        """Return what is judged, by the check itself."""
        measured = LatencyCheck().measure(self.evidence(sample))
        found = next(entry for entry in measured if entry.metric == self.metric)
        return found, Points(found.value, self.limit, higher_is_better=False)

    def evidence(self, sample: Sample) -> Evidence:
        """Return evidence with these times."""
        few = _tiny()
        return Evidence(**{**vars(few), "timing": sample[0]})

    def levels(self) -> dict[str, tuple[str, ...]]:
        """Return the levels of each attribute."""
        return {"group": ("g00",), "label": _tiny().examples.classes}


Experiment = Counted | Whole | Timed


@dataclass(frozen=True)
class Clause:
    """One rule, and a candidate exactly at its limit.

    Attributes:
        name: what is at its limit, in words.
        rule: its keys in a policy.
        exact: whether the test is exact; the others are approximate.
        build: makes the experiment.
        keys: further keys of the policy.
    """

    name: str
    rule: Mapping[str, Any]
    exact: bool
    build: Callable[[], Experiment]
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        """The policy of this one rule."""
        return policy_of([self.rule], **self.keys)
