# SPDX-License-Identifier: Apache-2.0
"""Clauses with a candidate exactly at their limit: the rule, the population, and how test sets are read.

Counts are taken here from the population's own table, not by the checks: the share of draws that goes through
`decide` shows that both counts agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from gates_pool import UNITS, Pool, Stratum, draw, evidence_of, pool_of, scored_pool
from gates_rules import Points
from gates_timing import memory_sessions, noisy_sessions, slow_sessions, slowest_percent

from checks import calibration
from checks.accuracy import change_of, share_of
from checks.disparity import change_gap_of
from checks.evidence import Evidence, Timing
from checks.fairness import gap_of, ratio_of
from checks.latency import LatencyCheck
from checks.measurement import OVERALL, Measurement, Slice
from checks.policy import Policy, parse_policy
from checks.protocol import built_in_checks, metrics_of
from checks.rates import RatesCheck

__all__ = [
    "ALPHA",
    "CLAUSES",
    "Clause",
    "Counted",
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


def _change(
    metric: str, margin: float, counts: Counts, *, where: Slice = OVERALL, target: str = ""
) -> Reading:
    right, losses, gains, wrong = (int(count) for count in counts[:4])
    n = right + losses + gains + wrong
    points = Points((right + gains) / n, -margin, higher_is_better=True, baseline=(right + losses) / n)
    return change_of(metric, where, losses, gains, n, target=target), points


def _rise(metric: str, margin: float, counts: Counts, *, target: str) -> Reading:
    right, losses, gains, wrong = (int(count) for count in counts[:4])
    n = right + losses + gains + wrong
    points = Points((losses + wrong) / n, margin, higher_is_better=False, baseline=(gains + wrong) / n)
    return change_of(metric, OVERALL, losses, gains, n, target=target, harm="rise"), points


def _paired(metric: str, margin: float, n: int, **rates: float) -> Callable[[], Experiment]:
    def build() -> Experiment:
        pool = pool_of(strata(0, UNITS, **rates))
        return Counted(pool, n, pool.cells, 4, partial(_change, metric, margin))

    return build


def _among(pool: Pool, members: npt.NDArray[np.bool_]) -> Indices:
    """Return cells with one more, for the units that a metric is not about."""
    return np.where(members, pool.cells, 4)


def _slice(margin: float, n: int, levels: int) -> Experiment:
    size = UNITS // levels
    rows = strata(0, size, loss=margin + 0.01, gain=0.01)
    for level in range(1, levels):
        rows += strata(level, size, loss=0.01, gain=0.01)
    pool = pool_of(rows)
    build = partial(_change, "accuracy_change", margin, where=Slice("group", "g00"))
    return Counted(pool, n, _among(pool, pool.groups == 0), 5, build)


def _recall(margin: float, n: int) -> Experiment:
    size = UNITS // 10
    rows = [Stratum(0, 0, round(0.9 * size), round((margin + 0.01) * size), round(0.01 * size))]
    rows = [rows[0]._replace(wrong=size - sum(rows[0][2:]))]
    rows += [Stratum(0, label, round(0.98 * size), 0, 0, size - round(0.98 * size)) for label in range(1, 10)]
    pool = pool_of(rows)
    build = partial(_change, "recall_change", margin, target="c00")
    return Counted(pool, n, _among(pool, pool.labels == 0), 5, build)


def _false_positives(margin: float, n: int) -> Experiment:
    rows = strata(0, UNITS, loss=margin + 0.01, gain=0.01, classes=10)
    pool = pool_of([rows[0]._replace(right=UNITS // 10, losses=0, gains=0, wrong=0), *rows[1:]])
    build = partial(_rise, "false_positive_rate_change", margin, target="c00")
    return Counted(pool, n, _among(pool, pool.labels != 0), 5, build)


def _sensitivity(margin: float, n: int) -> Experiment:
    positive = round(0.3 * UNITS)
    labels = np.repeat([1, 0], [positive, UNITS - positive])
    called = np.zeros((UNITS, 2), dtype=bool)
    both, losses, gains = (round(positive * share) for share in (0.85, margin + 0.01, 0.01))
    called[: both + losses, 0] = True
    called[:both, 1] = True
    called[both + losses : both + losses + gains, 1] = True
    pool = scored_pool(labels, np.where(called, 0.9, 0.1).astype(np.float32))
    build = partial(_change, "sensitivity_change", margin, target="point")
    return Counted(pool, n, _among(pool, labels == 1), 5, build)


def _share(
    metric: str,
    limit: float,
    n: int,
    counted: tuple[int, ...],
    *,
    higher_is_better: bool = False,
    **rates: float,
) -> Callable[[], Experiment]:
    """Return a share of all units: those in the cells `counted`."""

    def read(counts: Counts) -> Reading:
        successes, units = int(counts[list(counted)].sum()), int(counts.sum())
        points = Points(successes / units, limit, higher_is_better=higher_is_better)
        return share_of(metric, OVERALL, successes, units), points

    def build() -> Experiment:
        pool = pool_of(strata(0, UNITS, **rates))
        return Counted(pool, n, pool.cells, 4, read)

    return build


def _change_gap(limit: float, n: int, shares: tuple[float, ...]) -> Experiment:
    """Return groups of which the first alone is harmed, by the limit more than the others."""
    rows: list[Stratum] = []
    for group, share in enumerate(shares):
        rows += strata(group, round(UNITS * share), loss=0.01 + (limit if group == 0 else 0), gain=0.01)
    pool = pool_of(rows)

    def read(counts: Counts) -> Reading:
        table = counts.reshape(-1, 4)
        sizes = table.sum(axis=1)
        change = (table[:, 2] - table[:, 1]) / sizes
        points = Points(float(change.max() - change.min()), limit, higher_is_better=False)
        found = change_gap_of("accuracy_change_gap", "group", pool.levels, table[:, 1], table[:, 2], sizes)
        return found, points

    return Counted(pool, n, pool.groups * 4 + pool.cells, 4 * len(shares), read)


def _rates_of(counts: Counts) -> tuple[Counts, Counts]:
    table = counts[: len(counts) // 2 * 2].reshape(-1, 2)
    return table[:, 1], table.sum(axis=1)


def _gap(metric: str, limit: float, n: int, rates: tuple[float, float], target: str) -> Experiment:
    """Return two groups whose accuracy, or recall of the first of four classes, differ by the limit."""
    rows: list[Stratum] = []
    for group, rate in enumerate(rates):
        rows += strata(group, UNITS // 2, loss=0.02, gain=0.01, wrong=1 - rate - 0.02)
    pool = pool_of(rows)
    hits = pool.groups * 2 + (pool.candidate == pool.labels)
    cells = np.where(pool.labels == 0, hits, 4) if target else hits

    def read(counts: Counts) -> Reading:
        successes, sizes = _rates_of(counts[:4])
        seen = successes / sizes
        points = Points(float(seen.max() - seen.min()), limit, higher_is_better=False)
        return gap_of(metric, "group", pool.levels, successes, sizes, target), points

    return Counted(pool, n, cells, 5 if target else 4, read)


def _ratio(limit: float, n: int) -> Experiment:
    """Return two groups called for the first class at rates of 0.5 and the limit times that."""
    rows: list[Stratum] = []
    half = UNITS // 2
    for group, rate in enumerate((0.5 * limit, 0.5)):
        chosen, errors = round(half * rate), round(half * rate * 0.05)
        rows += [
            Stratum(group, 0, chosen - errors, wrong=errors),
            Stratum(group, 1, half - chosen - errors, wrong=errors),
        ]
    pool = pool_of(rows)

    def read(counts: Counts) -> Reading:
        successes, sizes = _rates_of(counts)
        seen = successes / sizes
        points = Points(float(seen.min() / seen.max()), limit, higher_is_better=True)
        return ratio_of("selection_rate_ratio", "group", pool.levels, successes, sizes, "c00"), points

    return Counted(pool, n, pool.groups * 2 + (pool.candidate == 0), 4, read)


def _brier(pool: Pool) -> npt.NDArray[np.float64]:
    """Return `(N, 2)` Brier scores of two classes."""
    assert pool.probabilities is not None
    return 2 * (pool.probabilities.astype(np.float64) - pool.labels[:, np.newaxis]) ** 2


def overconfident_pool(rise: float) -> Pool:
    """Return calibrated probabilities, and the same sharpened until the mean Brier score rises by `rise`."""
    generator = np.random.default_rng(20_243)
    honest = np.clip(generator.beta(9, 0.7, UNITS), 1e-4, 1 - 1e-4)
    labels = (generator.random(UNITS) < honest).astype(np.int64)
    low, high = 1.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        sharp = 1 / (1 + (1 / honest - 1) ** middle)
        pool = scored_pool(labels, np.stack([honest, sharp], axis=1).astype(np.float32))
        reached = float(np.diff(_brier(pool), axis=1).mean()) >= rise
        low, high = (low, middle) if reached else (middle, high)
    sharp = 1 / (1 + (1 / honest - 1) ** high)
    return scored_pool(labels, np.stack([honest, sharp], axis=1).astype(np.float32))


def rare_harm_pool(rise: float) -> Pool:
    """Return a candidate that is right and certain but for a few units, on which it is certain and wrong."""
    harmed = round(UNITS * rise / calibration.LARGEST_HARM)
    probabilities = np.ones((UNITS, 2), dtype=np.float32)
    probabilities[:harmed, 1] = 0.0
    return scored_pool(np.ones(UNITS, dtype=np.int64), probabilities)


def _means(make: Callable[[float], Pool], margin: float, n: int) -> Experiment:
    pool = make(margin)
    scores = _brier(pool)

    def read(_: Pool, index: Indices) -> Reading:
        before, after = scores[index].T
        points = Points(float(after.mean()), margin, higher_is_better=False, baseline=float(before.mean()))
        return calibration._measure(OVERALL, after - before), points  # noqa: SLF001

    return Whole(pool, n, read)


def precision_pool() -> Pool:
    """Return a candidate whose precision for the first class is 0.91, where the baseline's is 0.96."""
    quarter = UNITS // 4
    return pool_of(
        [
            Stratum(0, 0, 44_500, 3_500, 1_000, 1_000),
            Stratum(0, 1, quarter - 5_000, 3_000, 500, 1_500),
            Stratum(0, 2, quarter),
            Stratum(0, 3, quarter),
        ]
    )


PRECISION_MARGIN = 0.05


def macro_f1_change(pool: Pool, index: Indices | slice = slice(None)) -> tuple[float, float]:
    """Return the macro F1 of both models."""
    labels, size = pool.labels[index], len(pool.classes)
    found = []
    for decided in (pool.baseline[index], pool.candidate[index]):
        hits = np.bincount(labels[decided == labels], minlength=size)
        sizes = np.bincount(labels, minlength=size) + np.bincount(decided, minlength=size)
        found.append(float((2 * hits / np.maximum(sizes, 1)).mean()))
    return found[0], found[1]


def _precisions(pool: Pool, index: Indices) -> tuple[float, float]:
    labels = pool.labels[index]
    called = [decided[index] == 0 for decided in (pool.baseline, pool.candidate)]
    before, after = (float(np.mean(labels[which] == 0)) for which in called)
    return before, after


def _jackknifed(metric: str, margin: float, n: int) -> Experiment:
    def read(pool: Pool, index: Indices) -> Reading:
        measured = RatesCheck().measure(evidence_of(pool, index))
        target = "c00" if metric == "precision_change" else ""
        found = next(entry for entry in measured if (entry.metric, entry.target) == (metric, target))
        before, after = (_precisions if target else macro_f1_change)(pool, index)
        return found, Points(after, -margin, higher_is_better=True, baseline=before)

    return Whole(precision_pool(), n, read)


def _f1_margin() -> float:
    before, after = macro_f1_change(precision_pool())
    return before - after


_POINT = {"name": "point", "class": "c01", "threshold": 0.5, "reason": "A simulated threshold."}
_SLO = slowest_percent(10.0)


def _clauses() -> Iterator[Clause]:
    change = partial(Clause, exact=True)
    yield change(
        "accuracy, n 1000",
        {"metric": "accuracy_change", "margin": 0.02},
        build=_paired("accuracy_change", 0.02, 1000, loss=0.03, gain=0.01),
    )
    yield change(
        "accuracy, n 200",
        {"metric": "accuracy_change", "margin": 0.05},
        build=_paired("accuracy_change", 0.05, 200, loss=0.06, gain=0.01),
    )
    yield change(
        "accuracy of 1 slice of 20, n 4000",
        {"metric": "accuracy_change", "margin": 0.05, "slices": ["group=g00"]},
        build=partial(_slice, 0.05, 4000, 20),
    )
    yield change(
        "recall of 1 class of 10, n 2000",
        {"metric": "recall_change", "margin": 0.05, "classes": ["c00"]},
        build=partial(_recall, 0.05, 2000),
    )
    yield change(
        "false positive rate of a class, n 1000",
        {"metric": "false_positive_rate_change", "margin": 0.02, "classes": ["c00"]},
        build=partial(_false_positives, 0.02, 1000),
    )
    yield change(
        "sensitivity at a threshold, n 1000",
        {"metric": "sensitivity_change", "margin": 0.05, "operating_points": ["point"]},
        build=partial(_sensitivity, 0.05, 1000),
        keys={"operating_points": [_POINT]},
    )
    yield change(
        "robust accuracy, n 500",
        {"metric": "robust_accuracy_change", "margin": 0.1},
        build=_paired("robust_accuracy_change", 0.1, 500, loss=0.13, gain=0.03, wrong=0.15),
    )
    yield change(
        "candidate's accuracy at least, n 500",
        {"metric": "candidate_accuracy", "min": 0.95},
        build=_share(
            "candidate_accuracy", 0.95, 500, (0, 2), higher_is_better=True, loss=0.03, gain=0.01, wrong=0.02
        ),
    )
    yield change(
        "flip rate at most, n 500",
        {"metric": "flip_rate", "max": 0.05},
        build=_share("flip_rate", 0.05, 500, (1, 2), loss=0.03, gain=0.02),
    )
    yield change(
        "loss rate at most, n 500",
        {"metric": "loss_rate", "max": 0.02},
        build=_share("loss_rate", 0.02, 500, (1,), loss=0.02, gain=0.01),
    )
    yield from _approximate()
    yield from _timed()


def _approximate() -> Iterator[Clause]:
    gap = {"metric": "accuracy_change_gap", "max": 0.05, "slices": ["group"]}
    near = partial(Clause, exact=False)
    yield near("disparity added, 2 groups, n 1000", gap, build=partial(_change_gap, 0.05, 1000, (0.3, 0.7)))
    yield near("disparity added, 5 groups, n 2000", gap, build=partial(_change_gap, 0.05, 2000, (0.2,) * 5))
    yield near(
        "accuracy gap, n 600",
        {"metric": "accuracy_gap", "max": 0.1, "slices": ["group"]},
        build=partial(_gap, "accuracy_gap", 0.1, 600, (0.95, 0.85), ""),
    )
    yield near(
        "true positive rate gap, n 2400",
        {"metric": "true_positive_rate_gap", "max": 0.1, "slices": ["group"], "classes": ["c00"]},
        build=partial(_gap, "true_positive_rate_gap", 0.1, 2400, (0.95, 0.85), "c00"),
    )
    yield near(
        "selection rate ratio, n 800",
        {"metric": "selection_rate_ratio", "min": 0.8, "slices": ["group"], "classes": ["c00"]},
        build=partial(_ratio, 0.8, 800),
    )
    for n in (300, 600):
        yield near(
            f"Brier score, n {n}",
            {"metric": "brier_change", "margin": 0.02},
            build=partial(_means, overconfident_pool, 0.02, n),
        )
    yield near(
        "Brier score, harm rare and total, n 600",
        {"metric": "brier_change", "margin": 0.01},
        build=partial(_means, rare_harm_pool, 0.01, 600),
    )
    yield near(
        "precision of a class, n 1000",
        {"metric": "precision_change", "margin": PRECISION_MARGIN, "classes": ["c00"]},
        build=partial(_jackknifed, "precision_change", PRECISION_MARGIN, 1000),
    )
    margin = _f1_margin()
    yield near(
        "macro F1, n 1000",
        {"metric": "macro_f1_change", "margin": margin},
        build=partial(_jackknifed, "macro_f1_change", margin, 1000),
    )


def _timed() -> Iterator[Clause]:
    yield Clause(
        "latency ratio, 8 session pairs",
        {"metric": "latency_ratio_b64", "max": 1.05},
        exact=False,
        build=lambda: Timed("latency_ratio_b64", 1.05, partial(noisy_sessions, ratio=1.05)),
    )
    yield Clause(
        "peak memory ratio, 8 session pairs",
        {"metric": "peak_memory_ratio", "max": 1.05},
        exact=False,
        build=lambda: Timed("peak_memory_ratio", 1.05, partial(memory_sessions, ratio=1.05)),
    )
    yield Clause(
        "p99 of the slowest of 8 sessions, 1010 calls each",
        {"metric": "candidate_p99_ms_b64", "max": _SLO},
        exact=True,
        build=lambda: Timed("candidate_p99_ms_b64", _SLO, partial(slow_sessions, median_ms=10.0)),
    )


CLAUSES = tuple(_clauses())
