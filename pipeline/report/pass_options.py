# SPDX-License-Identifier: Apache-2.0
"""Options of a pass in words: those that differ from the method's defaults, all of them if it is unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined, to_jsonable_python

from pipeline.compress.configs import Pass
from pipeline.compress.precision_configs import QuantizeRecipe
from pipeline.plain import shorten
from pipeline.report.wording import count_of
from pipeline.sections import Section, Training

__all__ = ["describe_options", "describe_plain"]

_MOST = 12
_LONGEST = 60
_DEEPEST = 4


def _section_in(annotation: Any) -> type[Section] | None:
    """Return the section that an option holds, `Distill` of `Distill | None` for example."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) is Literal:
        return None
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)


def _quantizer(method: object) -> type[Section] | None:
    for config in get_args(get_args(QuantizeRecipe)[0]):
        if method in get_args(config.model_fields["method"].annotation):
            return config  # type: ignore[no-any-return]
    return None


def _section_of(name: str, options: Mapping[str, Any]) -> type[Section] | None:
    """Return the options of a pass as they are declared, or None for a pass that is not known here."""
    if name == "train":
        return Training
    if name == "quantize":
        return _quantizer(options.get("method"))
    field = Pass.model_fields.get(name)
    return _section_in(field.annotation) if field else None


def describe_plain(value: object) -> str:
    """Return a JSON value in few words; what is long is cut, what is nested is counted."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        if any(isinstance(entry, list | dict) for entry in value):
            return count_of(len(value), "entry", "entries")
        few = ", ".join(describe_plain(entry) for entry in value[:3])
        return f"{few} and {len(value) - 3:,} more" if len(value) > 3 else few
    if isinstance(value, dict):
        return count_of(len(value), "entry", "entries")
    return shorten("none" if value is None else str(value), _LONGEST)


def _told(options: Mapping[str, Any], section: type[Section] | None, depth: int = 0) -> Iterator[str]:
    fields = section.model_fields if section else {}
    # A method has its defaults, and is no option itself.
    for key in sorted(options, key=lambda key: (key != "method", key)):
        value, field = options[key], fields.get(key)
        name = shorten(key, _LONGEST)
        default: object = None
        if field is not None and key != "method":
            default = field.get_default(call_default_factory=True)
            default = None if default is PydanticUndefined else to_jsonable_python(default)
        if (
            value is None
            or value is False
            or value in ([], {}, "")
            or (default is not None and value == default)
        ):
            continue
        if value is True:
            yield name
        elif isinstance(value, dict) and depth < _DEEPEST:
            inner = ", ".join(_told(value, _section_in(field.annotation) if field else None, depth + 1))
            yield f"{name} ({inner})" if inner else name
        else:
            yield f"{name} {describe_plain(value)}"


def describe_options(name: str, options: Mapping[str, Any]) -> str:
    """Return what was asked of a pass, without what its method does by default.

    Args:
        name: Of the pass; one that is not known here shows every option that is neither empty nor false.
        options: Resolved, as they stand in `compression.json`.
    """
    told = list(_told(options, _section_of(name, options)))
    return ", ".join([*told[:_MOST], f"{len(told) - _MOST} more"] if len(told) > _MOST else told)
