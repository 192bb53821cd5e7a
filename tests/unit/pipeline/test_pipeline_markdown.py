# SPDX-License-Identifier: Apache-2.0
"""Text from data stays text: whatever it holds, a Markdown reader shows it and does nothing else."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.markdown import bullets, code, heading, literal, table, text

NASTY = [
    "a | b",
    "pipe \\| slash",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt; &amp;",
    "![x](javascript:alert(1))",
    "[click](http://example.org)",
    "`code` ``more``",
    "*bold* _it_ **x** __y__ ~~z~~",
    "# heading",
    "- item",
    "+ item",
    "> quote",
    "1. one",
    "23) two",
    "===",
    "---",
    "```",
    "http://example.org www.example.org me@example.org",
    "line\none\r\ntwo\u2028three",
    "\\",
    "\\\\|",
    "$x^2$",
    "  padded  ",
]


def show(markdown: str) -> str:
    """Render as hubs do: tables, strikethrough and bare links on."""
    reader = MarkdownIt("gfm-like", {"linkify": False, "html": True})
    return reader.render(markdown)


def words(rendered: str) -> str:
    """What a person reads: tags off, entities resolved."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", rendered)).split())


def tags(rendered: str) -> set[str]:
    return set(re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)", rendered))


@pytest.mark.parametrize("value", NASTY)
def test_a_paragraph_shows_the_text_and_nothing_else(value: str) -> None:
    rendered = show(text(value))
    assert tags(rendered) == {"p"}
    assert words(rendered) == " ".join(value.split())


@pytest.mark.parametrize("value", NASTY)
def test_a_cell_shows_the_text_and_keeps_its_neighbours(value: str) -> None:
    rendered = show(table(("left", "right"), [(text(value), literal("here"))]))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", rendered, re.DOTALL)
    assert [words(cell) for cell in cells] == [" ".join(value.split()), "here"]
    assert tags(rendered) == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("value", NASTY)
def test_a_list_item_and_a_heading_hold_one_line(value: str) -> None:
    assert tags(show(bullets([text(value)]))) == {"ul", "li"}
    assert tags(show(heading(2, text(value)))) == {"h2"}


@pytest.mark.parametrize("value", NASTY)
def test_code_type_is_used_only_where_nothing_can_leave_it(value: str) -> None:
    rendered = show(table(("left", "right"), [(code(value), literal("here"))]))
    assert tags(rendered) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    cells = re.findall(r"<td[^>]*>(.*?)</td>", rendered, re.DOTALL)
    assert [words(cell) for cell in cells] == [" ".join(value.split()), "here"]


def test_names_that_programs_give_appear_in_code_type() -> None:
    assert code("half-int8") == "`half-int8`"
    assert code("pgd_on_candidate") == "`pgd_on_candidate`"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_text_gives_one_paragraph_without_markup(value: str) -> None:
    rendered = show(text("x" + value))
    assert tags(rendered) == {"p"}
    assert "\n" not in text(value)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_two_texts_stay_two_cells(left: str, right: str) -> None:
    rendered = show(table(("a", "b"), [(text(left), text(right))]))
    assert rendered.count("<td") == 2
    assert tags(rendered) == {"table", "thead", "tbody", "tr", "th", "td"}


def test_controls_and_direction_overrides_cannot_hide() -> None:
    assert text("a\x00b\x1b[31mc") == "a\ufffdb\ufffd\\[31mc"
    assert text("evil\u202egnp.exe") == "evil\ufffdgnp.exe"
    assert text("zero\u200bwidth") == "zero\ufffdwidth"


def test_long_text_is_cut_visibly() -> None:
    assert text("x" * 1000, 10) == "x" * 9 + "…"


def test_a_bare_address_does_not_become_a_link() -> None:
    assert "://" not in text("see https://example.org")
    assert "@" not in text("a@b.example")


def test_a_row_of_another_width_or_a_cell_of_two_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        table(("a", "b"), [(literal("only one"),)])
    with pytest.raises(ValueError, match="one line"):
        table(("a",), [(literal("two\nlines"),)])
