# SPDX-License-Identifier: Apache-2.0
"""HTML that is escaped by construction: a plain string is always text, only `Markup` is markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from pipeline.plain import clean

__all__ = ["Markup", "chip", "code", "head", "join", "look", "table", "tag"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_VOID = frozenset({"br", "meta"})
_CHILDLESS = frozenset({"circle", "line", "path", "rect", "use"})
_LOOKS = {
    "PASS": "pass",
    "FAIL": "fail",
    "INCONCLUSIVE": "open",
    "ERROR": "error",
    "NO-FINDING": "calm",
    "passed": "pass",
    "waived": "open",
    "chosen": "pass",
    "blocked": "fail",
    "inconclusive": "open",
    "error": "error",
    "absent": "calm",
    "baseline": "base",
    "not a finalist": "calm",
}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _safe(content: str) -> str:
    return content if isinstance(content, Markup) else html.escape(clean(content), quote=True)


def join(parts: Iterable[str]) -> Markup:
    """Return the parts one after the other, escaping each that is not markup."""
    return Markup("".join(_safe(part) for part in parts))


def tag(name: str, /, *content: str, **attributes: str | float | None) -> Markup:
    """Return one element.

    Args:
        name: Of the element.
        content: Texts, escaped, and markup, kept.
        attributes: Escaped; `class_` is `class`, other underscores are hyphens, None leaves one out.
    """
    pairs = [
        f' {key.rstrip("_").replace("_", "-")}="{_safe(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    start = f"<{name}{''.join(pairs)}"
    if name in _CHILDLESS and not content:
        return Markup(f"{start}/>")
    return Markup(f"{start}>" if name in _VOID else f"{start}>{join(content)}</{name}>")


def code(text: str) -> Markup:
    """Return a name out of data or policy, set apart from the sentence around it and from its direction."""
    return tag("code", text)


def look(standing: str) -> str:
    """Return the CSS class of a verdict or outcome; an unknown one looks like an error, never like a pass."""
    return _LOOKS.get(standing, "error")


def chip(standing: str, words: str = "") -> Markup:
    """Return a verdict or outcome, told by word, shape and colour."""
    return tag("span", words or standing, class_=f"chip {look(standing)}")


def table(
    caption: str, heads: Sequence[str], rows: Iterable[str], *, label: str = "", look: str = ""
) -> Markup:
    """Return a table that scrolls sideways where it does not fit.

    Args:
        caption: What it shows.
        heads: Names of the columns.
        rows: `<tr>` elements, or `<tbody>` elements that hold them.
        label: Name of the scrolling region, by default the caption.
        look: A CSS class.
    """
    body = join(rows)
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", caption)),
            tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
            body if body.startswith("<tbody") else tag("tbody", body),
            class_=look or None,
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=label or caption,
    )


def head(title: str, style: str) -> Markup:
    """Return the head of a page that needs no other file.

    Args:
        title: For the browser's tab.
        style: The style sheet; of this package, as it is not escaped.
    """
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        # Should an escape ever be missed, the browser still runs nothing and fetches nothing.
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
