# SPDX-License-Identifier: Apache-2.0
"""Flips: examples that the candidate decides otherwise than the baseline, and whether they concentrate.

A loss is a flip from right to wrong (negative flip; Yan et al. 2021, positive-congruent training). Rates are
bounded exactly. Two searches look for concentration: of losses within a slice, and of flips into one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from checks.accuracy import share_of
from checks.evidence import Evidence
from checks.measurement import DISPLAY_ALPHA, OVERALL, Measurement, Method, Slice
from checks.outcomes import Outcomes, join_ids, join_outcomes
from checks.protocol import Metric
from checks.statistics.binomial import clopper_pearson_lower, clopper_pearson_upper
from checks.statistics.proportions import LARGEST_RATIO
from checks.statistics.screens import risk_ratio, slice_concentration_p, target_concentration_p

__all__ = ["FlipsCheck", "most_changed"]

Indices = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


def _rates(outcomes: Outcomes) -> Iterator[Measurement]:
    flipped = outcomes.baseline_class != outcomes.candidate_class
    lost = outcomes.baseline_correct & ~outcomes.candidate_correct
    both_wrong = flipped & ~outcomes.baseline_correct & ~outcomes.candidate_correct
    for part in outcomes.slices:
        n = len(part.index)
        for metric, which in (
            ("flip_rate", flipped),
            ("loss_rate", lost),
            ("both_wrong_flip_rate", both_wrong),
        ):
            yield share_of(metric, part.slice, int(np.count_nonzero(which[part.index])), n)


def _capped(ratio: float) -> float:
    """Return a finite ratio: from 1000 on it is shown as 1000."""
    return min(ratio, LARGEST_RATIO)


def _loss_concentration(outcomes: Outcomes) -> Iterator[Measurement]:
    """Search each slice against the rest, among the units that the baseline gets right."""
    index = outcomes.independent
    right = outcomes.baseline_correct[index]
    lost = right & ~outcomes.candidate_correct[index]
    all_right, all_lost = int(np.count_nonzero(right)), int(np.count_nonzero(lost))
    for attribute in outcomes.attributes.values():
        codes, size = attribute.codes[index], len(attribute.levels)
        units = np.bincount(codes, minlength=size)
        rights = np.bincount(codes[right], minlength=size)
        losses = np.bincount(codes[lost], minlength=size)
        for position in np.flatnonzero(units):
            inside, within = int(losses[position]), int(rights[position])
            outside, without = all_lost - inside, all_right - within
            # Where one side has nothing to lose there is nothing to compare.
            ratio, low, high = 1.0, 0.0, LARGEST_RATIO
            if within and without:
                ratio, low, high = risk_ratio(inside, within, outside, without, DISPLAY_ALPHA)
            yield Measurement(
                metric="loss_concentration",
                slice=Slice(attribute.name, attribute.levels[position]),
                value=_capped(ratio),
                interval=(_capped(low), _capped(high)),
                n=int(units[position]),
                unit="ratio",
                method=Method.EXACT_TEST,
                statistics={
                    "p": slice_concentration_p(inside, within, all_lost, all_right),
                    "losses": inside,
                    "right": within,
                    "losses_all": all_lost,
                    "right_all": all_right,
                },
            )


def _target_concentration(evidence: Evidence, outcomes: Outcomes) -> Iterator[Measurement]:
    """Search each class among the flips."""
    size, index = len(outcomes.classes), outcomes.independent
    baseline, candidate = outcomes.baseline_class[index], outcomes.candidate_class[index]
    index = index[baseline != candidate]
    into = np.bincount(outcomes.candidate_class[index], minlength=size)
    rows = join_ids(evidence.examples.ids, evidence.baseline.ids, "baseline.npz")[index]
    scores = evidence.baseline.scores[rows]
    scores[np.arange(len(rows)), outcomes.baseline_class[index]] = -np.inf
    second = np.bincount(scores.argmax(axis=1), minlength=size)
    flips = len(index)
    for position, name in enumerate(outcomes.classes):
        hits = int(into[position])
        expected = int(second[position]) / flips if flips else 0.0
        share, interval = 0.0, (0.0, 1.0)
        if flips:
            share = hits / flips
            interval = (
                clopper_pearson_lower(hits, flips, DISPLAY_ALPHA),
                clopper_pearson_upper(hits, flips, DISPLAY_ALPHA),
            )
        yield Measurement(
            metric="flip_target_concentration",
            slice=OVERALL,
            value=share,
            interval=interval,
            n=len(outcomes.independent),
            unit="proportion",
            method=Method.EXACT_TEST,
            target=name,
            statistics={
                "p": target_concentration_p(hits, flips, expected),
                "flips_into": hits,
                "flips": flips,
                "expected_share": expected,
            },
        )


@dataclass(frozen=True)
class FlipsCheck:
    """Measures how often decisions change on every slice, and searches for concentrations of it.

    `loss_concentration` is the ratio of the share of losses within a slice to that outside of it, among the
    units that the baseline gets right; 1000 stands for that and more, infinity included, and p = 1 where no
    unit could be lost. `flip_target_concentration` is the share of the flips that end in a class; p compares
    it with the share of flips whose runner-up at the baseline was that class. n counts the units searched.
    """

    name: str = "flips"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics it measures."""
        share = Metric(Method.CLOPPER_PEARSON)
        return {
            "flip_rate": share,
            "loss_rate": share,
            "both_wrong_flip_rate": share,
            "loss_concentration": Metric(Method.EXACT_TEST, on_demand=True, places="levels"),
            "flip_target_concentration": Metric(
                Method.EXACT_TEST, targets="class", on_demand=True, places="overall"
            ),
        }

    def measure(self, evidence: Evidence) -> Sequence[Measurement]:
        """Measure every slice that has examples, and every class."""
        outcomes = join_outcomes(evidence)
        return [
            *_rates(outcomes),
            *_loss_concentration(outcomes),
            *_target_concentration(evidence, outcomes),
        ]


def _margins(scores: npt.NDArray[np.float32], labels: Indices) -> Doubles:
    """Return by how much the label's score lies above the best other one, `(n,)`."""
    others = scores.astype(np.float64)
    rows = np.arange(len(labels))
    own = others[rows, labels]
    others[rows, labels] = -np.inf
    return np.asarray(own - others.max(axis=1))


def most_changed(evidence: Evidence, count: int = 20) -> list[dict[str, Any]]:
    """Return the flip exemplars: examples decided otherwise, those that lost the most first.

    Args:
        evidence: Of one candidate.
        count: Most examples to return, >= 0.

    Returns:
        For each `id`, `label`, `baseline` and `candidate` as class names, and `margin_change`: by how much
        the margin of the label (its score minus the best other one) rose, in units of the scores, so
        negative where it fell. Ties are in the order of ids.

    Raises:
        EvidenceError: as `join_outcomes`.
    """
    outcomes = join_outcomes(evidence)
    ids, names = evidence.examples.ids, outcomes.classes
    index = np.flatnonzero(outcomes.baseline_class != outcomes.candidate_class)
    labels = outcomes.labels[index]
    before, after = (
        model.scores[join_ids(ids, model.ids, file)[index]]
        for model, file in ((evidence.baseline, "baseline.npz"), (evidence.candidate, "candidate.npz"))
    )
    change = _margins(after, labels) - _margins(before, labels)
    order = np.lexsort((ids[index], change))[:count]
    return [
        {
            "id": str(ids[index[position]]),
            "label": names[labels[position]],
            "baseline": names[outcomes.baseline_class[index[position]]],
            "candidate": names[outcomes.candidate_class[index[position]]],
            "margin_change": float(change[position]),
        }
        for position in order.tolist()
    ]
