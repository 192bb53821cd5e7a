# SPDX-License-Identifier: Apache-2.0
"""Which passes may stand after which: an order in which one would undo another is refused before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.compress.configs import Pass

__all__ = ["expect_order"]

_TRAINS = ("recover", "iterate", "gradual")
_NARROWS = ("channels", "neurons")


def _shrinks(entry: Pass) -> Pass:
    """What a pass removes by: itself, or the one inside its schedule."""
    schedule = entry.iterate or entry.gradual
    return entry if schedule is None else Pass.model_validate(schedule.shrink.model_dump(exclude_none=True))


def expect_order(recipe: Sequence[Pass]) -> None:
    """Refuse a recipe of which one pass throws away what another has done.

    Raises:
        ValueError: naming the pass by its place.
    """
    methods = [entry.method for entry in recipe]
    patterned: int | None = None
    for index, entry in enumerate(recipe):
        if entry.method == "student":
            if index:
                raise ValueError(
                    f"expected student as the first pass, got it at [{index}] after {methods[:index]}: it takes "
                    "the place of the network that they changed"
                )
            if not any(method in _TRAINS for method in methods):
                raise ValueError(
                    f"expected one of {', '.join(_TRAINS)} after student, got none: it starts without having "
                    "learned anything"
                )
        shrinks = _shrinks(entry)
        if patterned is not None and shrinks.method in _NARROWS:
            raise ValueError(
                f"expected weights with pattern 2:4 after {shrinks.method}, got them before, at [{patterned}]: "
                f"taking channels out of fours breaks the pattern"
            )
        if shrinks.weights is not None and shrinks.weights.pattern == "2:4":
            patterned = index
