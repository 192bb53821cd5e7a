# SPDX-License-Identifier: Apache-2.0
"""Fairness between the levels of a slice attribute: of the candidate, and what compression did to it.

    accuracy                right decisions, of all
    selection_rate          decisions for a class, of all             demographic parity
    true_positive_rate      decisions for a class, of its examples    equal opportunity
    false_positive_rate     decisions for a class, of all others      with the former: equalized odds

Each is compared between every two levels, as `_gap` (difference) and as `_ratio` (four-fifths rule);
`_change_gap` is how much more a rate was harmed by compression on one level than on another. All but accuracy
take one class against the rest. What is shown is the pair of levels whose bound is the worst.

Sources: Dwork et al. 2012 (demographic parity); Hardt, Price & Srebro 2016 (equal opportunity, equalized
odds); bounds, `checks.statistics.pairs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from checks.disparity import change_gap_of
from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, Measurement, Method, Slice
from checks.outcomes import LABEL, Attribute, Outcomes, join_outcomes
from checks.protocol import Metric, Wanted
from checks.rates import positives_of
from checks.statistics.pairs import worst_difference, worst_ratio
from checks.statistics.proportions import LARGEST_RATIO, difference_lower, ratio_lower

__all__ = ["FairnessCheck", "gap_of", "ratio_of"]

Counts = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


def gap_of(
    metric: str, attribute: str, levels: Sequence[str], successes: Counts, n: Counts, target: str = ""
) -> Measurement:
    """Measure the gap between the rates of an attribute's levels.

    Args:
        metric: Name of the metric.
        attribute: Name of the attribute.
        levels: `(L,)` names of the levels, L >= 2.
        successes: `(L,)` counts, of each level.
        n: `(L,)` units of each level; where it is 0 the judge says so, and nothing passes.
        target: The class it is about, if any.
    """
    known = np.flatnonzero(n > 0)
    value, interval, pair = 0.0, (-1.0, 1.0), None
    if len(known) > 1:
        worst = worst_difference(successes[known], n[known], DISPLAY_ALPHA)
        g, h = known[worst.index_g], known[worst.index_h]
        low = float(difference_lower(successes[g], n[g], successes[h], n[h], DISPLAY_ALPHA))
        value, interval, pair = worst.value, (low, worst.bound), (levels[g], levels[h])
    return Measurement(
        metric=metric,
        slice=Slice(attribute),
        value=value,
        interval=interval,
        n=int(n.sum()),
        unit="proportion",
        method=Method.MIETTINEN_NURMINEN,
        target=target,
        levels=tuple(levels),
        pair=pair,
        statistics={"successes": successes.tolist(), "n": n.tolist()},
    )


def ratio_of(
    metric: str, attribute: str, levels: Sequence[str], successes: Counts, n: Counts, target: str = ""
) -> Measurement:
    """Measure the ratio between the rates of an attribute's levels; arguments as `gap_of`.

    The upper end of the interval, which nothing is judged by, is at most 1000.
    """
    known = np.flatnonzero(n > 0)
    value, interval, pair = 0.0, (0.0, LARGEST_RATIO), None
    if len(known) > 1:
        worst = worst_ratio(successes[known], n[known], DISPLAY_ALPHA)
        g, h = known[worst.index_g], known[worst.index_h]
        inverse = float(ratio_lower(successes[h], n[h], successes[g], n[g], DISPLAY_ALPHA))
        high = min(1 / inverse, LARGEST_RATIO) if inverse > 0 else LARGEST_RATIO
        value, interval, pair = worst.value, (worst.bound, high), (levels[g], levels[h])
    return Measurement(
        metric=metric,
        slice=Slice(attribute),
        value=value,
        interval=interval,
        n=int(n.sum()),
        unit="ratio",
        method=Method.MOVER_WILSON,
        target=target,
        levels=tuple(levels),
        pair=pair,
        statistics={"successes": successes.tolist(), "n": n.tolist()},
    )


@dataclass(frozen=True, eq=False)
class _Rate:
    """One rate: `(L, C)` counts, C = 1 where it is about no class.

    `losses` are the units on which compression harmed the rate, `gains` the reverse.
    """

    name: str
    n: Counts
    successes: Counts
    losses: Counts
    gains: Counts


class _Counter:
    """Counts of one attribute, as `(L, C)` tables."""

    def __init__(self, outcomes: Outcomes, attribute: Attribute) -> None:
        self.outcomes, self.attribute = outcomes, attribute
        self.levels, self.classes = len(attribute.levels), len(outcomes.classes)

    def table(self, index: Counts, classes: Counts, chosen: Booleans) -> Counts:
        """Count the chosen of the examples at `index`, by level and by class."""
        codes = self.attribute.codes[index[chosen]] * self.classes + classes[chosen]
        counts = np.bincount(codes, minlength=self.levels * self.classes)
        return counts.reshape(self.levels, self.classes)

    def sizes(self, index: Counts) -> Counts:
        """Count the examples at `index`, by level, as a column."""
        return np.bincount(self.attribute.codes[index], minlength=self.levels)[:, np.newaxis]

    def rates(self) -> Iterator[_Rate]:
        """Count accuracy, selection rate, and both rates that depend on the label."""
        index = self.outcomes.independent
        labels = self.outcomes.labels[index]
        baseline, candidate = self.outcomes.baseline_class[index], self.outcomes.candidate_class[index]
        every, changed = np.ones(len(index), dtype=bool), baseline != candidate
        n, of_class = self.sizes(index), self.table(index, labels, every)
        right = self.sizes(index[candidate == labels])
        yield _Rate("accuracy", n, right, np.zeros_like(n), np.zeros_like(n))
        yield _Rate(
            "selection_rate",
            np.broadcast_to(n, of_class.shape),
            self.table(index, candidate, every),
            self.table(index, baseline, changed),
            self.table(index, candidate, changed),
        )
        false = candidate != labels
        # Of a false positive the harm is that it is there.
        yield _Rate(
            "false_positive_rate",
            n - of_class,
            self.table(index, candidate, false),
            self.table(index, candidate, false & changed),
            self.table(index, baseline, (baseline != labels) & changed),
        )
        index = positives_of(self.outcomes)
        labels = self.outcomes.labels[index]
        before, after = self.outcomes.baseline_correct[index], self.outcomes.candidate_correct[index]
        yield _Rate(
            "true_positive_rate",
            self.table(index, labels, np.ones(len(index), dtype=bool)),
            self.table(index, labels, after),
            self.table(index, labels, before & ~after),
            self.table(index, labels, ~before & after),
        )


def _measure_rate(
    rate: _Rate, attribute: Attribute, targets: Sequence[str], wanted: Wanted
) -> Iterator[Measurement]:
    name, levels = attribute.name, attribute.levels
    for position, target in enumerate(targets):
        n, successes = rate.n[:, position], rate.successes[:, position]
        if not n.any():
            continue
        if wanted(f"{rate.name}_gap", name, target):
            yield gap_of(f"{rate.name}_gap", name, levels, successes, n, target)
        if wanted(f"{rate.name}_ratio", name, target):
            yield ratio_of(f"{rate.name}_ratio", name, levels, successes, n, target)
        if target and wanted(f"{rate.name}_change_gap", name, target):
            losses, gains = rate.losses[:, position], rate.gains[:, position]
            yield change_gap_of(f"{rate.name}_change_gap", name, levels, losses, gains, n, target)


@dataclass(frozen=True)
class FairnessCheck:
    """Compares the levels of every slice attribute but the classes themselves.

    A level without examples of a class keeps n = 0 for its true positive rate, which is then not judged
    fair. A class without examples anywhere is not measured at all.

    Attributes:
        wanted: Takes metric, attribute and class, and says whether to measure that: every two of up to a
            thousand levels are compared, for each of the classes.
    """

    name: str = "fairness"
    wanted: Wanted = lambda *_: True

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        overall, per_class = (partial(Metric, targets=per, on_demand=True) for per in ("", "class"))
        metrics = {
            "accuracy_gap": overall(Method.MIETTINEN_NURMINEN),
            "accuracy_ratio": overall(Method.MOVER_WILSON),
        }
        for rate in ("selection_rate", "true_positive_rate", "false_positive_rate"):
            metrics[f"{rate}_gap"] = per_class(Method.MIETTINEN_NURMINEN)
            metrics[f"{rate}_ratio"] = per_class(Method.MOVER_WILSON)
            metrics[f"{rate}_change_gap"] = per_class(Method.MOVER_TANGO)
        return metrics

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every attribute that has two levels or more."""
        outcomes = join_outcomes(evidence)
        measurements: list[Measurement] = []
        for attribute in outcomes.attributes.values():
            if attribute.name == LABEL or len(attribute.levels) < 2:
                continue
            for rate in _Counter(outcomes, attribute).rates():
                targets = ("",) if rate.name == "accuracy" else outcomes.classes
                measurements += _measure_rate(rate, attribute, targets, self.wanted)
        return measurements

    def narrow(self, wanted: Wanted) -> FairnessCheck:
        """Return a check that measures what is wanted alone."""
        return replace(self, wanted=wanted)
