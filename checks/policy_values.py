# SPDX-License-Identifier: Apache-2.0
"""Single values of a policy file: what is unknown, of another type or out of range names file and key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checks.errors import PolicyError

__all__ = ["known_keys", "number_of", "text_of"]


def known_keys(value: Any, keys: set[str], where: str, file: str) -> Mapping[str, Any]:
    """Return an object whose keys are all among `keys`.

    Raises:
        PolicyError: if it is no object, or has another key.
    """
    if not isinstance(value, dict):
        raise PolicyError(
            f"expected keys and values, got {type(value).__name__}", where=f"{file} {where}".strip()
        )
    unknown = sorted(str(key) for key in value if key not in keys)
    if unknown:
        raise PolicyError(
            f"expected keys among {sorted(keys)}, got {unknown}",
            where=f"{file} {where}".strip(),
            hint="a misspelt key would be a rule that never holds",
        )
    return value


def number_of(value: Any, where: str, low: float, high: float) -> float:
    """Return a finite number in [low, high].

    Raises:
        PolicyError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise PolicyError(f"expected a finite number, got {value!r}", where=where)
    if not low <= value <= high:
        raise PolicyError(f"expected a number in [{low:g}, {high:g}], got {value:g}", where=where)
    return float(value)


def text_of(value: Any, where: str) -> str:
    """Return text that is not blank, without blanks around it.

    Raises:
        PolicyError: if it is none, or holds control characters.
    """
    if not isinstance(value, str) or not value.strip():
        raise PolicyError(f"expected text, got {value!r}", where=where)
    if not value.replace("\n", " ").isprintable():
        raise PolicyError(f"expected text without control characters, got {value!r}", where=where)
    return value.strip()
