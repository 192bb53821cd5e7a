# SPDX-License-Identifier: Apache-2.0
"""Rates of each class against the rest: recall, false positive rate, precision, and macro F1.

A decision is the class of the highest score. Recall is a share of the class's examples, the false positive
rate a share of all others, so both are judged exactly. Precision and F1 have random denominators: their
paired change is judged by delete-a-group jackknife, corrected for skewness where that widens it, which is
approximate, and refused where one to nine units speak of a change. Where none does, the bound is the harm
that so many units would have shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf

import numpy as np
import numpy.typing as npt

from checks.accuracy import change_of, share_of
from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, OVERALL, Measurement, Method
from checks.outcomes import LABEL, Outcomes, join_outcomes
from checks.protocol import Metric
from checks.statistics.resampling import (
    FEWEST_DIFFERENT,
    JackknifeResult,
    grouped_jackknife_t,
    rare_harm_bound,
)

__all__ = ["JACKKNIFE_GROUPS", "JACKKNIFE_SEED", "RatesCheck", "positives_of"]

JACKKNIFE_GROUPS = 100
"""Most groups that the units are dealt into."""

JACKKNIFE_SEED = 20_241
"""Of the order in which units are dealt: fixed, so that the same evidence gives the same bounds."""

Indices = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def positives_of(outcomes: Outcomes) -> Indices:
    """Return the positions that recall is counted on: of each class one example a unit, class by class."""
    return np.concatenate([part.index for part in outcomes.slices if part.slice.attribute == LABEL])


def _recalls(outcomes: Outcomes) -> list[Measurement]:
    index, size = positives_of(outcomes), len(outcomes.classes)
    labels = outcomes.labels[index]
    baseline, candidate = outcomes.baseline_correct[index], outcomes.candidate_correct[index]
    n = np.bincount(labels, minlength=size)
    before = np.bincount(labels[baseline], minlength=size)
    after = np.bincount(labels[candidate], minlength=size)
    losses = np.bincount(labels[baseline & ~candidate], minlength=size)
    gains = np.bincount(labels[~baseline & candidate], minlength=size)
    measurements = []
    for position, name in enumerate(outcomes.classes):
        units = int(n[position])
        if units == 0:
            continue
        lost, gained = int(losses[position]), int(gains[position])
        measurements += [
            change_of("recall_change", OVERALL, lost, gained, units, target=name),
            share_of("baseline_recall", OVERALL, int(before[position]), units, target=name),
            share_of("candidate_recall", OVERALL, int(after[position]), units, target=name),
        ]
    return measurements


def _false_positive_rates(outcomes: Outcomes) -> list[Measurement]:
    index, size = outcomes.independent, len(outcomes.classes)
    labels = outcomes.labels[index]
    baseline, candidate = outcomes.baseline_class[index], outcomes.candidate_class[index]
    n = len(index) - np.bincount(labels, minlength=size)
    # A class called alike by both models is no change of it.
    false_before, false_after = baseline != labels, candidate != labels
    changed = baseline != candidate
    before = np.bincount(baseline[false_before], minlength=size)
    after = np.bincount(candidate[false_after], minlength=size)
    losses = np.bincount(candidate[false_after & changed], minlength=size)
    gains = np.bincount(baseline[false_before & changed], minlength=size)
    measurements = []
    for position, name in enumerate(outcomes.classes):
        units = int(n[position])
        if units == 0:
            continue
        new, gone = int(losses[position]), int(gains[position])
        measurements += [
            change_of("false_positive_rate_change", OVERALL, new, gone, units, target=name, harm="rise"),
            share_of("baseline_false_positive_rate", OVERALL, int(before[position]), units, target=name),
            share_of("candidate_false_positive_rate", OVERALL, int(after[position]), units, target=name),
        ]
    return measurements


@dataclass(frozen=True, eq=False)
class _Dealt:
    """Counts of independent units dealt into G groups: `(G, C)` arrays, and `(C,)` units that differ."""

    units: int
    positives: Doubles
    called: tuple[Doubles, Doubles]
    hits: tuple[Doubles, Doubles]
    differing: Indices
    changed: int


def _deal(outcomes: Outcomes) -> _Dealt:
    """Deal the units into groups, baseline first in each pair of tables."""
    index, size = outcomes.independent, len(outcomes.classes)
    codes = outcomes.labels[index] * size + outcomes.baseline_class[index]
    # Sorted, the order of the examples does not matter.
    codes = np.sort(codes * size + outcomes.candidate_class[index])
    rest, candidate = np.divmod(codes, size)
    labels, baseline = np.divmod(rest, size)
    units = len(index)
    groups = min(units, JACKKNIFE_GROUPS)
    group = np.empty(units, dtype=np.int64)
    order = np.random.Generator(np.random.PCG64(JACKKNIFE_SEED)).permutation(units)
    group[order] = np.arange(units) * groups // units

    def table(classes: Indices, chosen: npt.NDArray[np.bool_] | slice = slice(None)) -> Doubles:
        counts = np.bincount((group * size + classes)[chosen], minlength=groups * size)
        return counts.reshape(groups, size).astype(np.float64)

    changed = baseline != candidate
    differing = np.bincount(baseline[changed], minlength=size) + np.bincount(
        candidate[changed], minlength=size
    )
    return _Dealt(
        units=units,
        positives=table(labels),
        called=(table(baseline), table(candidate)),
        hits=(table(labels, baseline == labels), table(labels, candidate == labels)),
        differing=differing,
        changed=int(np.count_nonzero(changed)),
    )


def _share(hits: Doubles, total: Doubles, without: float) -> Doubles:
    return np.asarray(np.divide(hits, total, out=np.full(np.shape(total), without), where=total > 0))


def _skewness_shift(without: Doubles, found: JackknifeResult) -> float:
    """Return by how much Johnson's correction for skewness moves both bounds (1978, JASA 73:536).

    Harm that is rare and large per unit is skewed. By t alone, 7 to 9 % of changes at the limit passed at
    5 %, with this 5 to 5.5 % (500 to 3,000 units, the harm in the precision of a class of a tenth of them).

    Args:
        without: `(G,)` the statistic without each of the groups.
        found: The bounds by t.
    """
    groups = len(without)
    # Of the pseudo-values, G value - (G - 1) without.
    third = -(((groups - 1) * (without - without.mean())) ** 3).mean()
    t = (found.upper - found.value) / found.standard_error
    return float(third / (6 * groups**2 * found.standard_error**2) * (1 + 2 * t * t))


def _jackknifed(
    metric: str,
    sums: Doubles,
    statistic: Callable[[Doubles], Doubles],
    *,
    differing: int,
    units: int,
    largest_harm: float = 1.0,
    target: str = "",
) -> Measurement:
    """Measure a change in [-1, 1] that is made of `(G, k)` sums, one row a group of units.

    Each group counts as one: for a ratio of totals, sizes that differ by one unit do not matter.
    `differing` units bear on the change at all, and none can add more than `largest_harm / units` to it.
    """
    totals = sums.sum(axis=0)
    without = statistic(totals - sums)
    known = differing >= FEWEST_DIFFERENT and len(sums) > 1 and bool(np.isfinite(without).all())

    @cache
    def spread(alpha: float) -> JackknifeResult:
        return grouped_jackknife_t(sums, statistic, alpha, seed=JACKKNIFE_SEED, groups=len(sums))

    def bounds(alpha: float) -> tuple[float, float]:
        if not differing:
            reach = min(rare_harm_bound(alpha, units, largest_harm), 1.0)
            return -reach, reach
        if not known or spread(alpha).upper == inf:
            return -inf, inf
        found = spread(alpha)
        shift = _skewness_shift(without, found)
        return max(found.lower + min(shift, 0.0), -1.0), min(found.upper + max(shift, 0.0), 1.0)

    low, high = bounds(DISPLAY_ALPHA)
    statistics = {"groups": len(sums), "largest_harm": largest_harm, "differing": differing}
    if known:
        statistics["standard_error"] = spread(DISPLAY_ALPHA).standard_error
    return Measurement(
        metric=metric,
        slice=OVERALL,
        value=float(statistic(totals)),
        interval=(max(low, -1.0), min(high, 1.0)),
        n=units,
        unit="proportion",
        method=Method.JACKKNIFE_T,
        target=target,
        statistics=statistics,
        bounds=bounds,
    )


def _precision_change(totals: Doubles) -> Doubles:
    hits_before, called_before, hits_after, called_after = np.moveaxis(totals, -1, 0)
    return _share(hits_after, called_after, np.nan) - _share(hits_before, called_before, np.nan)


def _macro_f1_change(totals: Doubles) -> Doubles:
    hits_before, sizes_before, hits_after, sizes_after = np.split(totals, 4, axis=-1)
    # Without a class's only examples its F1 is 0 for both models: it adds nothing to the change.
    before, after = _share(hits_before, sizes_before, 0.0), _share(hits_after, sizes_after, 0.0)
    return np.asarray(2 * (after - before).mean(axis=-1))


def _precision_changes(outcomes: Outcomes, dealt: _Dealt) -> Iterator[Measurement]:
    for position, name in enumerate(outcomes.classes):
        columns = [
            table[:, position] for model in (0, 1) for table in (dealt.hits[model], dealt.called[model])
        ]
        sums = np.stack(columns, axis=1)
        # Only calls of the class tell of its precision, however many other units there are.
        calls = int(min(sums[:, 1].sum(), sums[:, 3].sum()))
        if calls:
            yield _jackknifed(
                "precision_change",
                sums,
                _precision_change,
                differing=int(dealt.differing[position]),
                units=calls,
                target=name,
            )


def _macro_f1(dealt: _Dealt) -> Measurement:
    positives = dealt.positives.sum(axis=0)
    known = positives > 0
    parts = [
        table[:, known]
        for model in (0, 1)
        for table in (dealt.hits[model], dealt.called[model] + dealt.positives)
    ]
    # With P examples of each of two classes, a unit moved from right to wrong takes at most 2 / P from the
    # F1 of the one and 1 / (2 P) from that of the other: the rarest class decides how much one unit can harm.
    largest = 2.5 * dealt.units / (np.count_nonzero(known) * positives[known].min())
    return _jackknifed(
        "macro_f1_change",
        np.concatenate(parts, axis=1),
        _macro_f1_change,
        differing=dealt.changed,
        units=dealt.units,
        largest_harm=float(largest),
    )


@dataclass(frozen=True)
class RatesCheck:
    """Measures recall, false positive rate and precision of every class, and macro F1, on all examples.

    A class without examples has no recall, one that a model never calls no precision: neither is measured,
    and a rule that asks for it cannot be judged. n of precision is the number of calls of the class by the
    model that calls it less. Macro F1 is the mean over the classes with examples.
    """

    name: str = "rates"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        change = Metric(Method.PAIRED_EXACT, targets="class", on_demand=True, places="overall")
        share = Metric(Method.CLOPPER_PEARSON, targets="class", on_demand=True, places="overall")
        return {
            "recall_change": change,
            "baseline_recall": share,
            "candidate_recall": share,
            "false_positive_rate_change": change,
            "baseline_false_positive_rate": share,
            "candidate_false_positive_rate": share,
            "precision_change": Metric(Method.JACKKNIFE_T, targets="class", on_demand=True, places="overall"),
            "macro_f1_change": Metric(Method.JACKKNIFE_T, places="overall"),
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every class that has examples, and every one that both models call."""
        outcomes = join_outcomes(evidence)
        dealt = _deal(outcomes)
        return [
            *_recalls(outcomes),
            *_false_positive_rates(outcomes),
            *_precision_changes(outcomes, dealt),
            _macro_f1(dealt),
        ]
