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
from checks.evidence import Evidence, Examples, Scores
from checks.measurement import OVERALL, Slice

__all__ = [
    "ATTACK",
    "LABEL",
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
        baseline_class: `(N,)` the class the baseline decides for.
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
        EvidenceError: if an id is missing, left over, or there twice.
    """
    if np.array_equal(wanted, came):
        return np.arange(len(wanted))
    order = np.argsort(came, kind="stable")
    ordered = came[order]
    place = np.searchsorted(ordered, wanted)
    known = place < len(came)
    known[known] = ordered[place[known]] == wanted[known]
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise EvidenceError(f"expected each id once, got {repeated[:3].tolist()} again", where=what)
    if known.all() and len(wanted) == len(came):
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


def _decide(model: Scores, examples: Examples, where: str) -> Indices:
    scores = model.scores[join_ids(examples.ids, model.ids, where)]
    # NaN decides nothing. Whatever it were counted as, some rate would gain by it: a candidate that answers
    # nothing has no false positives.
    broken = np.flatnonzero(~np.logical_and.reduce(np.isfinite(scores), axis=1))
    if len(broken):
        raise EvidenceError(
            f"expected finite scores, got NaN or infinity on {len(broken)} of {len(scores)} examples, "
            f"{', '.join(examples.ids[broken[:3]].tolist())} among them",
            where=where,
        )
    decided: Indices = scores.argmax(axis=1).astype(np.int64)
    return decided


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
        EvidenceError: if the ids differ, or scores are not all finite.
    """
    examples = evidence.examples
    outcomes = Outcomes(
        labels=examples.labels,
        baseline_class=_decide(evidence.baseline, examples, "baseline.npz"),
        candidate_class=_decide(evidence.candidate, examples, "candidate.npz"),
        classes=examples.classes,
        attributes=_attributes(examples),
        units=units_of(examples),
    )
    # All checks share them: one that wrote here would change what others measure.
    for shared in (outcomes.labels, outcomes.baseline_class, outcomes.candidate_class):
        shared.setflags(write=False)
    for attribute in outcomes.attributes.values():
        attribute.codes.setflags(write=False)
    return outcomes
