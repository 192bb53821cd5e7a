# SPDX-License-Identifier: Apache-2.0
"""The table in the terminal."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from pipeline.report import render_table
from pipeline.report.table import MAX_COLUMNS


class Screen(io.StringIO):
    """A standard output that may be a terminal."""

    def __init__(self, encoding: str = "utf-8", *, terminal: bool = True) -> None:
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes standard output a terminal, colour neither refused nor forced."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *a, **k: monkeypatch.setattr(sys, "stdout", Screen(*a, **k))


OUTCOMES = [("passed", "blocked"), ("blocked", "inconclusive"), ("error", "absent"), ("absent", "absent")]


@pytest.mark.parametrize("outcomes", OUTCOMES)
def test_no_line_is_wider_than_promised(make: Any, outcomes: tuple[str, str]) -> None:
    text = render_table(make(*outcomes).write())
    assert max(len(line) for line in text.splitlines()) <= MAX_COLUMNS == 110


def test_long_names_fold_within_the_width(make: Any) -> None:
    case = make("blocked", "absent", levels={"a" * 60: ("b" * 200, "c")})
    case.decision()["findings"][1]["rule"] = "r" * 300
    text = render_table(case.write())
    assert max(len(line) for line in text.splitlines()) <= MAX_COLUMNS


def test_decision_comes_first_and_every_candidate_has_a_row(make: Any) -> None:
    case = make("passed", "blocked")
    lines = render_table(case.write()).splitlines()
    assert lines[0] == "half-int8 ships"
    for row in case.files["shortlist/shortlist.json"]["candidates"]:
        assert any(line.startswith(row["name"]) for line in lines)
    assert any(line.startswith("half-int8") and "passed, chosen" in line for line in lines)
    assert any(line.startswith("third-int8") and "blocked" in line for line in lines)


def test_numbers_of_finalists_are_of_test_and_those_of_others_of_validation(make: Any) -> None:
    lines = render_table(make("passed", "blocked").write()).splitlines()
    row = next(line for line in lines if line.startswith("half-int8  "))
    assert [part.strip() for part in row.split("  ") if part.strip()][-3:] == ["97.2 %", "−4.1 pp", "83.6 %"]
    other = next(line for line in lines if line.startswith("half-fp32"))
    assert "97.2 % val" in other
    assert any("no test figures by design" in line for line in lines)


def test_what_stands_in_the_way_is_named(make: Any) -> None:
    text = " ".join(render_table(make("blocked", "inconclusive").write()).split())
    assert "half-int8: blocked (24 PASS, 1 FAIL, 1 INCONCLUSIVE)" in text
    assert (
        "FAIL accuracy-slices on stroke_weight=light: accuracy_change on stroke_weight=light is -0.0936"
        in text
    )
    assert "INCONCLUSIVE, advisory single-image-latency on overall" in text
    assert "Nothing ships yet" in text


def test_reason_of_a_missing_finalist_and_empty_slots_are_told(make: Any) -> None:
    text = " ".join(render_table(make("passed", "absent").write()).split())
    assert "not a finalist: dense-fp32, dense-int8, half-fp32, third-fp32, third-int8 (half-int8 is" in text
    assert "Slot second is empty" in text


def test_a_file_gets_no_colour(make: Any, screen: Any) -> None:
    screen(terminal=False)
    assert "\x1b" not in render_table(make("passed", "blocked").write())


def test_a_terminal_gets_colour(make: Any, screen: Any) -> None:
    screen()
    text = render_table(make("passed", "blocked").write())
    assert "\x1b[" in text
    assert "\x1b[0m" in text


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_colour_gets_none(
    make: Any, screen: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    screen()
    monkeypatch.setenv(name, value)
    assert "\x1b" not in render_table(make("passed", "blocked").write())


def test_a_narrow_terminal_is_respected(make: Any, screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    screen()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in render_table(make("passed", "blocked").write()).splitlines()) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_text_fits_the_encoding_of_the_terminal(make: Any, screen: Any, encoding: str) -> None:
    screen(encoding, terminal=False)
    case = make("blocked", "absent", levels={"slant": ("größer 数", "b")})
    text = render_table(case.write())
    assert text.encode(encoding)
    assert "-12.6 pp" in text


def test_names_out_of_data_cannot_steer_the_terminal(make: Any, screen: Any) -> None:
    screen(terminal=False)
    level = "\x1b]0;owned\x07\x1b[2J[bold red]x[/]\r\n:smile:\u202e"
    text = render_table(make("blocked", "absent", levels={"slant": (level, "b")}).write())
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "[bold red]x[/]" in text
    assert ":smile:" in text
