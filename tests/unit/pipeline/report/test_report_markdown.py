# SPDX-License-Identifier: Apache-2.0
"""report.md: the decision as a CI job summary."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.markdown import text as escape
from pipeline.report.markdown import render_markdown
from pipeline.report.rows import COLUMNS
from pipeline.report.summary import gather_report


def _text(case: Any) -> str:
    return render_markdown(gather_report(case.write(), case.selection))


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_decision_comes_first(make: Any) -> None:
    assert _text(make("passed", "blocked")).splitlines()[0] == "## ✅ half-int8 ships"
    assert _text(make("blocked", "blocked")).splitlines()[0] == "## ⛔ Nothing ships"


def test_table_has_every_candidate_and_as_many_cells_a_row(make: Any) -> None:
    case = make("passed", "blocked")
    rows = _rows(_text(case))
    assert rows[0] == list(COLUMNS)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    names = [row["name"] for row in case.files["shortlist/shortlist.json"]["candidates"]]
    assert [row[0].strip("*") for row in rows[2:]] == ["baseline", *names]
    assert [row[1] for row in rows if row[0] == "**half-int8**"] == ["**passed, chosen**"]


def test_findings_that_are_not_settled_are_listed_with_their_distance(make: Any) -> None:
    text = _text(make("blocked", "inconclusive")).replace("\\", "")
    assert "- **FAIL** accuracy-slices on stroke_weight=light" in text
    assert "limit above −5.00 pp; distance: measured 4.36 pp beyond the limit" in text
    assert "- **INCONCLUSIVE** accuracy-slices on stroke_weight=light" in text
    assert "- **INCONCLUSIVE, advisory** single-image-latency" in text
    assert "**PASS**" not in text


def test_many_findings_are_cut_short_and_counted(make: Any) -> None:
    case = make("blocked", "absent")
    failed = next(item for item in case.decision()["findings"] if item["verdict"] == "FAIL")
    case.decision()["findings"] += [failed | {"slice": f"size={index}"} for index in range(40)]
    text = _text(case)
    assert text.count("- **FAIL**") == 20
    assert "and 22 more findings, in `report.html`" in text


def test_data_that_failed_a_check_is_told(make: Any) -> None:
    case = make("passed", "absent")
    findings = case.files["validation/findings.json"]["findings"]
    assert "all 2 checks passed" in _text(case)
    findings[0] |= {"verdict": "FAIL", "came": "3 ids twice", "row_count": 3}
    assert "- **FAIL** unique-ids: expected no id twice, got 3 ids twice (3 rows)" in _text(case)


@pytest.mark.parametrize(
    "text",
    [
        "<script>", "a|b", "[x](javascript:alert(1))", "![x](y)", "`code`", "*b* _i_ ~s~", "# head", "@team",
        "https://example.org", "www.example.org", "$x$", "&lt;", "a\n\n# b", "\\|", "#123", "{{x}}",
    ],
)  # fmt: skip
def test_escaped_text_has_no_meaning_left(text: str) -> None:
    safe = escape(text)
    assert "\n" not in safe
    assert not re.search(r"[<>@$]", safe)
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_{}\[\]|~]", safe)
    assert not re.search(r"(?<![\\&])#", safe)
    assert "://" not in safe
    assert "www." not in safe
    entities = {
        "&amp;": "&",
        "&lt;": "<",
        "&gt;": ">",
        "&#64;": "@",
        "&#36;": "$",
        "&#58;": ":",
        "&#46;": ".",
    }
    back = re.sub(r"&(?:amp|lt|gt|#64|#36|#58|#46);", lambda found: entities[found[0]], safe)
    assert re.sub(r"\\([\\`*_{}\[\]()#|~!])", r"\1", back) == " ".join(text.split())


def test_names_out_of_data_break_no_row(make: Any) -> None:
    text = _text(make("blocked", "absent", levels={"a|b": ("<b>x</b>|\n| y |", "z")}))
    assert {len(row) for row in _rows(text)} == {len(COLUMNS)}
    assert "<b>" not in text
