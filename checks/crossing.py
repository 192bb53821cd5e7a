# SPDX-License-Identifier: Apache-2.0
"""Combinations of slice attributes, such as `sex*age`: harm can hide where no single attribute shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from checks.errors import PolicyError
from checks.evidence import MAX_LEVELS, Examples
from checks.outcomes import LABEL

__all__ = ["cross"]


def _column(examples: Examples, name: str, crossing: str) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    if name == LABEL:
        return np.asarray(examples.classes, dtype=np.str_)[examples.labels]
    if name not in examples.columns:
        raise PolicyError(
            f"expected attributes among {sorted([*examples.columns, LABEL])}, got {name!r} in {crossing!r}",
            where="policy.yaml rules[].slices",
            hint="slice columns are named in params.yaml prepare.slices",
        )
    return examples.columns[name]


def cross(examples: Examples, crossings: Sequence[str]) -> Examples:
    """Return the examples with a further slice column for each combination of attributes.

    Args:
        examples: With one column an attribute.
        crossings: Each `attribute*attribute`, of two attributes or more, the classes as `label`.

    Returns:
        The same examples; a level of `a*b` is `x*y`, and only levels with examples exist.

    Raises:
        PolicyError: if an attribute does not exist, or there are too many combinations.
    """
    columns, levels = dict(examples.columns), dict(examples.levels)
    for crossing in crossings:
        names = crossing.split("*")
        parts = [_column(examples, name, crossing) for name in names]
        if len(set(names)) != len(names):
            raise PolicyError(
                f"expected each attribute once, got {crossing!r}", where="policy.yaml rules[].slices"
            )
        for name, part in zip(names, parts, strict=True):
            ambiguous = sorted(level for level in set(part.tolist()) if "*" in level)
            if ambiguous:
                raise PolicyError(
                    f"expected levels without '*' in what is combined, got {ambiguous[:3]} of {name}",
                    where="policy.yaml rules[].slices",
                    hint="rename the levels in the data: x*y and z could not be told from x and y*z",
                )
        column = parts[0]
        for part in parts[1:]:
            column = np.strings.add(np.strings.add(column, "*"), part)
        found = sorted(set(column.tolist()))
        if len(found) > MAX_LEVELS:
            raise PolicyError(
                f"expected at most {MAX_LEVELS} combinations, got {len(found)} of {crossing!r}",
                where="policy.yaml rules[].slices",
            )
        columns[crossing], levels[crossing] = column, tuple(found)
    return replace(examples, columns=columns, levels=levels) if crossings else examples
