# SPDX-License-Identifier: Apache-2.0
"""Probabilities of the classes, from whatever a model's file answers.

A file that answers logits gives them through softmax, in float64; one that answers probabilities gives them
as they are. Every score must be finite: `checks.outcomes.join_outcomes` refuses others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from checks.evidence import Scores

__all__ = ["brier_scores", "probability_of", "total_variation"]

_BLOCK = 1 << 20
"""Numbers held at once: a million examples of a thousand classes do not fit into memory in float64."""

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def _blocks(model: Scores, rows: Indices) -> Iterator[tuple[slice, Doubles]]:
    """Yield a part of the rows, and its probabilities."""
    step = max(1, _BLOCK // model.scores.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        block = model.scores[rows[part]].astype(np.float64)
        if model.output == "logits":
            block = np.exp(block - block.max(axis=1, keepdims=True))
            block /= block.sum(axis=1, keepdims=True)
        yield part, block


def probability_of(model: Scores, rows: Indices, column: int) -> Doubles:
    """Return the probability of one class.

    Args:
        model: Scores of one model.
        rows: `(n,)` positions in `model`.
        column: The class.

    Returns:
        `(n,)` in [0, 1].
    """
    found = np.empty(len(rows))
    for part, block in _blocks(model, rows):
        found[part] = block[:, column]
    return found


def total_variation(first: tuple[Scores, Indices], second: tuple[Scores, Indices]) -> Doubles:
    """Return how far two models' distributions over the classes are apart, example by example.

    Args:
        first: Scores of one model, and `(n,)` positions in them.
        second: The same of the other; equal positions in both lists are one example.

    Returns:
        `(n,)` in [0, 1]: half the sum of absolute differences of the probabilities.
    """
    found = np.empty(len(first[1]))
    for (part, one), (_, other) in zip(_blocks(*first), _blocks(*second), strict=True):
        found[part] = np.clip(np.abs(one - other).sum(axis=1) / 2, 0.0, 1.0)
    return found


def brier_scores(model: Scores, rows: Indices, labels: Indices) -> Doubles:
    """Return the Brier score of every example: the squared distance of its probabilities from the truth.

    Args:
        model: Scores of one model.
        rows: `(n,)` positions in `model`.
        labels: `(n,)` the true class of each.

    Returns:
        `(n,)` in [0, 2], 0 for certainty about the true class.

    Source: Brier 1950, Monthly Weather Review 78:1.
    """
    found = np.empty(len(rows))
    for part, block in _blocks(model, rows):
        true = block[np.arange(len(block)), labels[part]]
        squares = np.einsum("ij,ij->i", block, block)
        found[part] = np.clip(squares - 2 * true + 1, 0.0, 2.0)
    return found
