# SPDX-License-Identifier: Apache-2.0
"""Which settings are not those that a search began with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.plain import shorten

__all__ = ["describe_changes"]

_MOST_CHANGES = 5
_MOST_SHOWN = 80


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    found: dict[str, Any] = {}
    for name, entry in value.items():
        found |= _flat(entry, f"{key}.{name}" if key else str(name))
    return found


def _shown_value(values: Mapping[str, Any], key: str) -> str:
    # What a database holds is data, and others may write into one that is shared.
    return shorten(json.dumps(values[key], ensure_ascii=False), _MOST_SHOWN) if key in values else "nothing"


def _place(key: str) -> tuple[bool, str]:
    """The section of the search first: recipes come and go with what it names."""
    return not key.startswith("search."), key


def describe_changes(before: Any, now: Any) -> str:
    """Return `: key was old, is new; ...`, or nothing where there are none, or the old ones are unknown.

    Args:
        before: Settings by key, nested, as a database returned them.
        now: The same of this call.
    """
    if not isinstance(before, dict):
        return ""
    # Through JSON, which has lists where sections hold tuples.
    old, new = _flat(before), _flat(json.loads(json.dumps(now)))
    changed = [
        key
        for key in sorted({*old, *new}, key=_place)
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]
    said = [
        f"{shorten(key, _MOST_SHOWN)} was {_shown_value(old, key)}, is {_shown_value(new, key)}"
        for key in changed[:_MOST_CHANGES]
    ]
    more = [f"and {len(changed) - _MOST_CHANGES} more"] if len(changed) > _MOST_CHANGES else []
    return f": {'; '.join([*said, *more])}" if said else ""
