# SPDX-License-Identifier: Apache-2.0
"""What both models decided on the same examples, joined by id, and the slices that is counted on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from checks.errors import EvidenceError
from checks.evidence import Evidence, Examples
from checks.measurement import OVERALL, Slice

__all__ = [
    "ATTACK",
    "LABEL",
    "UNDECIDED",
    "Attribute",
    "Outcomes",
    "Selection",
    "Units",
    "join_ids",
    "join_outcomes",
    "units_of",
]

LABEL = "label"
"""The slice attribute whose levels are the classes."""

ATTACK = "attack"
"""The slice attribute whose levels are the attacks of the pool."""

UNDECIDED = -1
"""The class of an example whose scores are not all finite; equal to no label."""

Strings = npt.NDArray[np.str_]
Booleans = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """A slice and the `(n,)` positions of its examples, at most one of each unit."""

    slice: Slice
    index: Indices


@dataclass(frozen=True, eq=False)
class Attribute:
    """A slice attribute: its levels, in the order they were declared, and the `(N,)` codes of examples."""

    name: str
    levels: tuple[str, ...]
    codes: Indices


@dataclass(frozen=True, eq=False)
class Units:
    """Which examples are one independent unit, and in which order one is drawn from each.

    Attributes:
        codes: `(N,)` the unit of each example, or None where every example is its own.
        ranks: `(N,)` the order of the digests of the ids, so that no order of rows or names matters.
    """

    codes: Indices | None
    ranks: Indices

    def draw(self, index: Indices) -> Indices:
        """Keep one example of each unit: frames of one subject are not so many examples.

        Counted one by one, they would pass bad models.
        """
        if self.codes is None:
            return index
        codes = self.codes[index]
        order = np.lexsort((self.ranks[index], codes))
        first = np.ones(len(order), dtype=bool)
        first[1:] = codes[order][1:] != codes[order][:-1]
        return np.sort(index[order[first]])


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Decisions of both models, in the order of the examples' ids.

    Attributes:
        labels: `(N,)` index into `classes`.
        baseline_class: `(N,)` the class the baseline decides for, or `UNDECIDED`.
        candidate_class: `(N,)` the same of the candidate.
        classes: Names of the classes.
        attributes: Slice attributes by name, the classes as `label` among them.
        units: Which examples belong together.
    """

    labels: Indices
    baseline_class: Indices
    candidate_class: Indices
    classes: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    units: Units

    @cached_property
    def baseline_correct(self) -> Booleans:
        """`(N,)` whether the baseline was right."""
        return np.equal(self.baseline_class, self.labels)

    @cached_property
    def candidate_correct(self) -> Booleans:
        """`(N,)` whether the candidate was right."""
        return np.equal(self.candidate_class, self.labels)

    @cached_property
    def independent(self) -> Indices:
        """Positions of one example a unit, out of all: what groups may be compared on.

        A unit with examples in two groups would make the groups depend on each other.
        """
        return self.units.draw(np.arange(len(self.labels)))

    @cached_property
    def slices(self) -> tuple[Selection, ...]:
        """Every slice that has examples: all examples, then each level of each attribute."""
        selections = [Selection(OVERALL, self.independent)]
        for attribute in self.attributes.values():
            order = np.argsort(attribute.codes, kind="stable")
            ends = np.cumsum(np.bincount(attribute.codes, minlength=len(attribute.levels)))
            for level, index in zip(attribute.levels, np.split(order, ends[:-1]), strict=True):
                if len(index):
                    selections.append(Selection(Slice(attribute.name, level), self.units.draw(index)))
        return tuple(selections)


def join_ids(wanted: Strings, came: Strings, what: str) -> Indices:
    """Return where each of the `(N,)` wanted ids stands in `came`.

    Raises:
        EvidenceError: if an id is missing or left over.
    """
    if np.array_equal(wanted, came):
        return np.arange(len(wanted))
    order = np.argsort(came, kind="stable")
    ordered = came[order]
    place = np.searchsorted(ordered, wanted)
    known = place < len(came)
    known[known] = ordered[place[known]] == wanted[known]
    used = np.zeros(len(came), dtype=bool)
    used[place[known]] = True
    # Of equal ids the first counts, and the others are not left over.
    used[1:] |= ordered[1:] == ordered[:-1]
    if known.all() and used.all():
        return order[place]
    missing = np.setdiff1d(wanted, came)
    extra = np.setdiff1d(came, wanted)
    raise EvidenceError(
        f"expected the ids of the examples, got {len(missing)} missing {missing[:3].tolist()} "
        f"and {len(extra)} left over {extra[:3].tolist()}",
        where=what,
    )


def units_of(examples: Examples) -> Units:
    """Return the units of the examples."""
    count = len(examples.ids)
    if np.array_equal(examples.ids, examples.units) or len(set(examples.units.tolist())) == count:
        return Units(None, np.arange(count))
    digests = [hashlib.sha256(str(name).encode()).digest() for name in examples.ids.tolist()]
    ranks = np.empty(count, dtype=np.int64)
    ranks[sorted(range(count), key=digests.__getitem__)] = np.arange(count)
    return Units(np.unique(examples.units, return_inverse=True)[1].astype(np.int64), ranks)


def _decide(scores: npt.NDArray[np.float32]) -> Indices:
    # A row with NaN or infinity decides nothing, whatever argmax would say.
    decided = scores.argmax(axis=1).astype(np.int64)
    finite = np.logical_and.reduce(np.isfinite(scores), axis=1)
    return decided if finite.all() else np.where(finite, decided, UNDECIDED)


def _attributes(examples: Examples) -> dict[str, Attribute]:
    attributes = {}
    for name, column in sorted(examples.columns.items()):
        levels = examples.levels[name]
        position = {level: code for code, level in enumerate(levels)}
        codes = np.fromiter((position[level] for level in column.tolist()), np.int64, len(column))
        attributes[name] = Attribute(name, levels, codes)
    attributes[LABEL] = Attribute(LABEL, examples.classes, examples.labels)
    return attributes


@lru_cache(maxsize=2)
def join_outcomes(evidence: Evidence) -> Outcomes:
    """Join both models' scores to the labels, by id; remembered, since every check asks for it.

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
    return Outcomes(
        labels=examples.labels,
        baseline_class=_decide(baseline),
        candidate_class=_decide(candidate),
        classes=examples.classes,
        attributes=_attributes(examples),
        units=units_of(examples),
    )
