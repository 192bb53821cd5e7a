# SPDX-License-Identifier: Apache-2.0
"""Harm at the level of predictions: chosen examples are decided otherwise, everything else stays.

Only for rows whose harm no single change of a file brings about at will: losses confined to a class, a
condition or an intersection, trades between groups, flips towards one class.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.planted.workshop import Arrays, Project, read_arrays

PUSH = 1000.0
"""Far above any score, so that the class it is added to is decided for."""


class Predictions:
    """The good candidate's predictions on the test split, about to be changed.

    Attributes:
        labels: `(N,)` class of each example.
        light: `(N,)` capture condition.
        glyph: `(N,)` shape of the digit.
    """

    def __init__(self, project: Project, seed: int) -> None:
        self._project = project
        _, examples = read_arrays(project.table("examples.npz"))
        _, before = read_arrays(project.table("baseline.npz"))
        _, after = read_arrays(project.table("candidate.npz"))
        assert examples["ids"].tolist() == before["ids"].tolist() == after["ids"].tolist()
        self.labels, self.light = examples["labels"], examples["slice:light"]
        self.glyph = examples["slice:glyph"]
        self._before = before["scores"].argmax(axis=1)
        self._scores = after["scores"].copy()
        self._classes = self._scores.shape[1]
        self._changed = np.zeros(len(self.labels), dtype=bool)
        self._position = {name: row for row, name in enumerate(examples["ids"].tolist())}
        self._random = np.random.default_rng([seed, 0xDEFEC7])
        self._targets = list(np.random.default_rng([seed, 0x7A26E7]).permutation(self._classes))

    def _draw(self, where: np.ndarray, count: int) -> np.ndarray:
        index = np.flatnonzero(where)
        return self._random.choice(index, min(count, len(index)), replace=False)

    def decide(self, index: np.ndarray, classes: np.ndarray) -> None:
        """Make the candidate decide for these classes."""
        self._scores[index, classes] += np.float32(PUSH)
        self._changed[index] = True

    def lose(self, where: np.ndarray, count: int) -> int:
        """Get `count` of the examples wrong that both models get right; return how many there were."""
        right = (self._before == self.labels) & (self._scores.argmax(axis=1) == self.labels)
        index = self._draw(where & right, count)
        wrong = (self.labels[index] + self._random.integers(1, self._classes, len(index))) % self._classes
        self.decide(index, wrong)
        return len(index)

    def lose_to_all(self, where: np.ndarray, count: int) -> int:
        """As `lose`, but no two of them to one class: by chance alone they may gather, which a search finds."""
        right = (self._before == self.labels) & (self._scores.argmax(axis=1) == self.labels)
        index = self._draw(where & right, count)
        for one in index:
            free = [target for target in self._targets if target != self.labels[one]]
            self._targets.remove(free[0])
            self.decide(np.array([one]), np.array([free[0]]))
        return len(index)

    def gain(self, where: np.ndarray, count: int) -> int:
        """Get up to `count` of the examples right that both models get wrong; return how many there were."""
        wrong = (self._before != self.labels) & (self._scores.argmax(axis=1) != self.labels)
        index = self._draw(where & wrong, count)
        self.decide(index, self.labels[index])
        return len(index)

    def flip(self, targets: list[int]) -> None:
        """Send one random example, of another class, to each of `targets`."""
        free = np.ones(len(self.labels), dtype=bool)
        for target in targets:
            index = self._draw(free & (self.labels != target) & (self._before == self.labels), 1)
            free[index] = False
            self.decide(index, np.array([target]))

    def write(self) -> Project:
        """Write the scores, and whatever tells of the same decisions, and return the project."""

        def change(_: dict[str, Any], arrays: Arrays) -> None:
            arrays["scores"] = self._scores

        def change_runs(_: dict[str, Any], arrays: Arrays) -> None:
            rows = self._rows(arrays["ids"])
            changed = self._changed[rows]
            for name in [name for name in arrays if name.startswith("candidate:")]:
                arrays[name][changed] = self._scores[rows[changed]]

        def change_attacks(header: dict[str, Any], arrays: Arrays) -> None:
            rows = self._rows(arrays["ids"])
            right = self._scores[rows].argmax(axis=1) == self.labels[rows]
            correct = arrays["candidate_correct"]
            # Who is wrong on the clean image is not robust on it; a gain makes nobody more robust.
            correct &= right
            correct[header["attacks"].index("clean")] = right

        self._project.edit("candidate.npz", change)
        self._project.edit("contract.npz", change_runs)
        self._project.edit("attacks.npz", change_attacks)
        self._project.tabulate_groups()
        return self._project

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        return np.array([self._position[name] for name in ids.tolist()])
