# SPDX-License-Identifier: Apache-2.0
"""Markdown that text from data cannot break out of.

`Markdown` is a string that is safe to put into a document. Only the functions here turn a foreign
string into one, so a type checker sees where somebody forgot to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NewType

from pipeline.plain import clean, shorten

__all__ = ["DASH", "MAX_TEXT", "Markdown", "bullets", "code", "heading", "join", "literal", "table", "text"]

Markdown = NewType("Markdown", str)

DASH = Markdown("\N{EN DASH}")
"""Stands where there is no figure."""

MAX_TEXT = 400
"""Longer strings from data are cut, so that one value cannot drown a page."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~#])")
_ENTITIES = str.maketrans(
    {sign: f"&#{ord(sign)};" for sign in "@$"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
)
_LINE_START = re.compile(r"^(?:([+=-])|(\d{1,9})([.)])(?=\s|$))")
_PLAIN_CODE = re.compile(r"[A-Za-z0-9 .,:;=/+@%_-]+")


def literal(words: str) -> Markdown:
    """Vouch for Markdown written in this program's source, or put together from escaped parts."""
    return Markdown(words)


def text(value: str, limit: int = MAX_TEXT) -> Markdown:
    """Return any string as one line of Markdown that shows it and does nothing else.

    Args:
        value: Text from data or from a user.
        limit: Characters kept, at least 1; what is cut off shows as an ellipsis.
    """
    line = shorten(" ".join(clean(value).split()), limit)
    # Special signs first: the entities hold a sign that would be escaped too.
    safe = _SPECIAL.sub(r"\\\1", line).translate(_ENTITIES)
    # A bare URL would become a link by itself.
    safe = safe.replace("://", "&#58;//")
    safe = re.sub(r"(?i)\bwww\.", lambda match: match[0][:-1] + "&#46;", safe)
    return Markdown(
        _LINE_START.sub(lambda match: f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}", safe)
    )


def code(value: str) -> Markdown:
    """Return a string in code type where that is safe, else as text."""
    return Markdown(f"`{value}`") if _PLAIN_CODE.fullmatch(value) and value == value.strip() else text(value)


def join(parts: Iterable[Markdown], between: str = " ") -> Markdown:
    """Return the parts with words of this program's source between them."""
    return Markdown(between.join(parts))


def heading(level: int, words: Markdown) -> Markdown:
    """Return a heading of level 1 to 6."""
    return Markdown(f"{'#' * level} {words}")


def bullets(entries: Iterable[Markdown]) -> Markdown:
    """Return a list, one line an entry."""
    return Markdown("\n".join(f"- {entry}" for entry in entries))


def table(header: Sequence[str], rows: Iterable[Sequence[Markdown]], align: str = "") -> Markdown:
    """Return a table.

    Args:
        header: Column titles, words of this program's source.
        rows: Cells that are one line each, as many as there are titles.
        align: One of `l`, `r`, `c` a column; left where it is shorter than the header.

    Raises:
        ValueError: if a row has too many or too few cells, or a cell more than one line.
    """
    rules = {"l": ":---", "r": "---:", "c": ":---:"}
    lines = [
        "| " + " | ".join(header) + " |",
        "| "
        + " | ".join(rules[align[index] if index < len(align) else "l"] for index in range(len(header)))
        + " |",
    ]
    for row in rows:
        if len(row) != len(header) or any("\n" in cell for cell in row):
            raise ValueError(f"expected {len(header)} cells of one line, got {list(row)}")
        lines.append("| " + " | ".join(row) + " |")
    return Markdown("\n".join(lines))
