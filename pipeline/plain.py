# SPDX-License-Identifier: Apache-2.0
"""Text from data as one line of plain text, before any medium escapes what is special to it."""

from __future__ import annotations

__all__ = ["clean", "shorten"]

_JOINERS = "\u200c\u200d"


def clean(text: str) -> str:
    """Return `text` on one line, with whatever cannot be printed shown as U+FFFD.

    Names of slices, classes and rows come from data: control characters could rewrite a terminal, and
    direction overrides could make one name read as another.
    """
    kept = [c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd" for c in text]
    return "".join(kept)


def shorten(text: str, length: int) -> str:
    """Return `text` cleaned and, if longer than `length` characters, cut with an ellipsis."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 1] + "\u2026"
