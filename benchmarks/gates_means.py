# SPDX-License-Identifier: Apache-2.0
"""Experiments on what no few counts describe: means of probabilities, and ratios with random denominators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from gates_experiments import Experiment, Indices, Reading, Whole
from gates_pool import UNITS, Pool, Stratum, evidence_of, pool_of, scored_pool
from gates_rules import Points

from checks import calibration, probability_shift
from checks.measurement import OVERALL
from checks.rates import RatesCheck

__all__ = [
    "PRECISION_MARGIN",
    "f1_margin",
    "jackknifed",
    "macro_f1_change",
    "means",
    "overconfident_pool",
    "precision_pool",
    "rare_harm_pool",
    "shifts",
]


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


def means(make: Callable[[float], Pool], margin: float, n: int) -> Experiment:
    """Return test sets judged by the mean rise of the Brier score."""
    pool = make(margin)
    scores = _brier(pool)

    def read(_: Pool, index: Indices) -> Reading:
        before, after = scores[index].T
        points = Points(float(after.mean()), margin, higher_is_better=False, baseline=float(before.mean()))
        return calibration._measure(OVERALL, after - before), points  # noqa: SLF001

    return Whole(pool, n, read)


def _shifted_pool(mean: float, spread: float) -> Pool:
    """Return a certain baseline, and a candidate less certain by lognormal amounts of the given mean."""
    drawn = np.random.default_rng(20_244).lognormal(0, spread, UNITS)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = float(np.minimum(1, middle * drawn).mean()) >= mean
        low, high = (low, middle) if reached else (middle, high)
    candidate = 1 - np.minimum(1, high * drawn)
    scores = np.stack([np.ones(UNITS), candidate], axis=1).astype(np.float32)
    return scored_pool(np.ones(UNITS, dtype=np.int64), scores)


def shifts(limit: float, spread: float, n: int) -> Experiment:
    """Return test sets judged by the mean total variation distance of both models' probabilities."""
    pool = _shifted_pool(limit, spread)
    assert pool.probabilities is not None
    before, after = pool.probabilities.astype(np.float64).T
    distances = np.abs(before - after)

    def read(_: Pool, index: Indices) -> Reading:
        drawn = distances[index]
        points = Points(float(drawn.mean()), limit, higher_is_better=False)
        return probability_shift._measure(OVERALL, drawn), points  # noqa: SLF001

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


def jackknifed(metric: str, margin: float, n: int) -> Experiment:
    """Return test sets judged by the change of precision of the first class, or of macro F1."""

    def read(pool: Pool, index: Indices) -> Reading:
        measured = RatesCheck().measure(evidence_of(pool, index))
        target = "c00" if metric == "precision_change" else ""
        found = next(entry for entry in measured if (entry.metric, entry.target) == (metric, target))
        before, after = (_precisions if target else macro_f1_change)(pool, index)
        return found, Points(after, -margin, higher_is_better=True, baseline=before)

    return Whole(precision_pool(), n, read)


def f1_margin() -> float:
    """Return by how much macro F1 falls on the whole population."""
    before, after = macro_f1_change(precision_pool())
    return before - after
