# SPDX-License-Identifier: Apache-2.0
"""Outcomes of both models on the same examples, joined by id, and the slices they are counted on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.errors import EvidenceError
from checks.evidence import Evidence, Examples
from checks.measurement import OVERALL, Slice

__all__ = [
    "ATTACK",
    "LABEL",
    "Outcomes",
    "Selection",
    "join_ids",
    "join_outcomes",
    "one_per_unit",
    "slices_of",
]

LABEL = "label"
"""The slice attribute whose levels are the classes."""

ATTACK = "attack"
"""The slice attribute whose levels are the attacks of the pool."""

Strings = npt.NDArray[np.str_]
Booleans = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """Whether each model was right, `(N,)` each, in the order of the examples' ids."""

    baseline_correct: Booleans
    candidate_correct: Booleans


@dataclass(frozen=True)
class Selection:
    """A slice and the `(n,)` positions of its examples, at most one of each unit."""

    slice: Slice
    index: Indices


def join_ids(wanted: Strings, came: Strings, what: str) -> Indices:
    """Return where each of the `(N,)` wanted ids stands in `came`.

    Raises:
        EvidenceError: if an id is missing or left over.
    """
    missing = np.setdiff1d(wanted, came)
    extra = np.setdiff1d(came, wanted)
    if len(missing) or len(extra):
        raise EvidenceError(
            f"expected the ids of the examples, got {len(missing)} missing {missing[:3].tolist()} "
            f"and {len(extra)} left over {extra[:3].tolist()}",
            where=what,
        )
    order = np.argsort(came, kind="stable")
    return order[np.searchsorted(came[order], wanted)]


def _correct(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Booleans:
    # A row with NaN or infinity decides nothing, so it is wrong whatever argmax would say.
    finite: Booleans = np.logical_and.reduce(np.isfinite(scores), axis=1)
    right: Booleans = np.equal(scores.argmax(axis=1), labels)
    return finite & right


def join_outcomes(evidence: Evidence) -> Outcomes:
    """Join both models' scores to the labels, by id.

    Raises:
        EvidenceError: if the ids differ, or the baseline's scores are not all finite.
    """
    examples = evidence.examples
    baseline = evidence.baseline.scores[join_ids(examples.ids, evidence.baseline.ids, "baseline.npz")]
    if not np.isfinite(baseline).all():
        # Counted as wrong, as the candidate's are, they would turn every hit of the candidate into a gain.
        raise EvidenceError(
            "expected finite scores of the baseline, got NaN or infinity", where="baseline.npz"
        )
    candidate = evidence.candidate.scores[join_ids(examples.ids, evidence.candidate.ids, "candidate.npz")]
    return Outcomes(_correct(baseline, examples.labels), _correct(candidate, examples.labels))


def one_per_unit(index: Indices, examples: Examples) -> Indices:
    """Keep one example of each unit, drawn by the digest of its id, so that units are independent.

    Frames of one subject are not so many examples: counted one by one they would pass bad models.
    """
    units = examples.units[index]
    if len(np.unique(units)) == len(units):
        return index
    ranks = np.array([hashlib.sha256(str(name).encode()).hexdigest() for name in examples.ids[index]])
    order = np.lexsort((ranks, units))
    first = np.ones(len(order), dtype=bool)
    first[1:] = units[order][1:] != units[order][:-1]
    return np.sort(index[order[first]])


def slices_of(examples: Examples) -> Iterator[Selection]:
    """Yield every slice: all examples, each level of each slice column, each class."""
    everything = np.arange(len(examples.ids))
    yield Selection(OVERALL, one_per_unit(everything, examples))
    for attribute, column in sorted(examples.columns.items()):
        for level in np.unique(column):
            index = np.flatnonzero(column == level)
            yield Selection(Slice(attribute, str(level)), one_per_unit(index, examples))
    for position, name in enumerate(examples.classes):
        index = np.flatnonzero(examples.labels == position)
        if len(index):
            yield Selection(Slice(LABEL, name), one_per_unit(index, examples))
