# SPDX-License-Identifier: Apache-2.0
"""Clauses with a candidate exactly at their limit: the rule, the population, and how test sets are read.

Counts are taken here from the population's own table, not by the checks: the share of draws that goes through
`decide` shows that both counts agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from gates_experiments import Clause, Counted, Counts, Experiment, Indices, Reading, Timed, strata
from gates_means import (
    PRECISION_MARGIN,
    f1_margin,
    jackknifed,
    means,
    overconfident_pool,
    rare_harm_pool,
    shifts,
)
from gates_pool import UNITS, Pool, Stratum, pool_of, scored_pool
from gates_rules import Points
from gates_timing import memory_sessions, noisy_sessions, slow_sessions, slowest_percent

from checks.accuracy import change_of, share_of
from checks.disparity import change_gap_of
from checks.fairness import gap_of, ratio_of
from checks.measurement import OVERALL, Slice

__all__ = ["CLAUSES"]


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
    for tail, spread in (("", 0.75), (", long tail", 1.5)):
        yield Clause(
            f"probability shift at most, n 600{tail}",
            {"metric": "probability_shift", "margin": 0.03},
            exact=False,
            build=partial(shifts, 0.03, spread, 600),
        )


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
            build=partial(means, overconfident_pool, 0.02, n),
        )
    yield near(
        "Brier score, harm rare and total, n 600",
        {"metric": "brier_change", "margin": 0.01},
        build=partial(means, rare_harm_pool, 0.01, 600),
    )
    yield near(
        "precision of a class, n 1000",
        {"metric": "precision_change", "margin": PRECISION_MARGIN, "classes": ["c00"]},
        build=partial(jackknifed, "precision_change", PRECISION_MARGIN, 1000),
    )
    margin = f1_margin()
    yield near(
        "macro F1, n 1000",
        {"metric": "macro_f1_change", "margin": margin},
        build=partial(jackknifed, "macro_f1_change", margin, 1000),
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
