# SPDX-License-Identifier: Apache-2.0
"""What is wrong in a file of sections (`params.yaml`, `governance.yaml`): key, what was expected, what came.

pydantic knows where a value stood by fields, list places and the tags of unions; people know it by the keys
that they wrote.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

__all__ = ["did_you_mean", "explain"]

_MOST_LISTED = 40
_LONGEST = 80
_NEAR = 0.7
"""Share of letters in common; below it, names that only rhyme would be taken for slips."""

_WORDS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_short": "at least {min_length} entries, got {actual_length}",
    "too_long": "at most {max_length} entries, got {actual_length}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "finite_number": "a finite number",
}
"""Kind of a fault to what was expected, with pydantic's own figures."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean a?`, or nothing if no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=_NEAR)
    return f", did you mean `{near[0]}`?" if near else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def _name_of(model: type[BaseModel], field: str) -> str:
    return model.model_fields[field].alias or field


def _members(hint: Any) -> list[Any]:
    """The types that a value of this type may have; of an annotated one those that it annotates."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [member for entry in get_args(hint) for member in _members(entry)]
    return [hint]


def _inside(hint: Any, part: int | str) -> list[Any]:
    """The types of what stands at one place in a value of this type."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        fields = {_name_of(hint, field): info.annotation for field, info in hint.model_fields.items()}
        return _members(fields[part]) if part in fields else []
    arguments = get_args(hint)
    if get_origin(hint) is tuple and isinstance(part, int):
        if arguments[-1] is Ellipsis or part >= len(arguments):
            return _members(arguments[0])
        return _members(arguments[part])
    if get_origin(hint) in (dict, Mapping) and isinstance(part, str):
        return _members(arguments[1])
    return []


def _tagged(hints: Sequence[Any], part: int | str) -> list[Any]:
    """Those of a union of sections that a tag chooses, by a field that may hold nothing else."""
    return [
        hint
        for hint in hints
        if isinstance(hint, type) and issubclass(hint, BaseModel)
        for info in hint.model_fields.values()
        if get_origin(info.annotation) is Literal and get_args(info.annotation) == (part,)
    ]


def _walk(model: type[BaseModel], place: Sequence[int | str]) -> tuple[str, list[Any]]:
    """Return a place as people write it, and the types of what stands there."""
    key, hints = "", [model]
    for part in place:
        if part == "[key]":
            continue
        found = [entry for hint in hints for entry in _inside(hint, part)]
        tagged = _tagged(hints, part) if not found and len(hints) > 1 else []
        if tagged:
            hints = tagged
            continue
        hints = found
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    return key or "top level", hints


def _known_keys(hints: Sequence[Any]) -> list[str]:
    return sorted(
        {
            _name_of(hint, field)
            for hint in hints
            if isinstance(hint, type) and issubclass(hint, BaseModel)
            for field in hint.model_fields
        }
    )


def _one_of(expected: str, value: object) -> str:
    """The same words for tags and for choices; `expected` is a list of quoted names as pydantic writes it."""
    names = [name.strip().strip("'") for name in expected.replace(" or ", ", ").split(",")]
    near = did_you_mean(value, names) if isinstance(value, str) else ""
    return f"expected one of {_listed(names)}, got {_shown(value)}{near}"


def _explain(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    place, kind, value, context = error["loc"], error["type"], error["input"], error.get("ctx", {})
    key, _ = _walk(model, place)
    if kind == "extra_forbidden":
        above, hints = _walk(model, place[:-1])
        known, name = _known_keys(hints), str(place[-1])
        return (
            f"{above}: unknown key `{name[:_LONGEST]}`{did_you_mean(name, known) or ';'} "
            f"known are {_listed(known)}"
        )
    if kind == "missing":
        return f"{key}: expected this key, got none"
    if kind == "union_tag_not_found":
        names = [str(get_args(hint.model_fields["method"].annotation)[0]) for hint in _walk(model, place)[1]]
        return f"{key}: expected a key `method`, one of {_listed(names)}, got none"
    if kind == "union_tag_invalid":
        return f"{key}.method: {_one_of(context['expected_tags'], value['method'])}"
    if kind in ("literal_error", "enum"):
        return f"{key}: {_one_of(context['expected'], value)}"
    words = _WORDS.get(kind)
    said = f"expected {words.format(**context)}" if words else error["msg"].removeprefix("Value error, ")
    came = f", got {_shown(value)}" if isinstance(value, str | int | float) else ""
    return f"{context.get('key', key)}: {said}{came}"


def explain(model: type[BaseModel], error: ValidationError) -> list[str]:
    """Return a line for every fault: the key, what was expected and what came.

    Args:
        model: What was validated.
        error: What pydantic says of it.
    """
    found = error.errors(include_url=False)
    places = [entry["loc"] for entry in found]
    return [
        _explain(model, entry)
        for entry in found
        # A list is too short only because what is wrong in it was left out.
        if entry["type"] != "too_short" or not any(place[:-1] == entry["loc"] for place in places)
    ]
