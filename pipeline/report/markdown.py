# SPDX-License-Identifier: Apache-2.0
"""`report.md`: the decision for the job summary of a CI run, short enough to be read there."""

from __future__ import annotations

import re

from pipeline.report.figures import Comparison, Decision, Finding, Report
from pipeline.report.rows import COLUMNS, DECISION, footnotes, table_rows
from pipeline.report.wording import (
    clean,
    count_of,
    describe_distance,
    describe_limit,
    describe_mark,
    describe_outcome,
    describe_place,
    describe_remedy,
    describe_value,
    headline,
    summarise_findings,
)

__all__ = ["escape", "render_markdown"]

_MARKS = {"passed": "\u2705", "blocked": "\u26d4", "inconclusive": "\u26a0\ufe0f", "error": "\u274c"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|~!])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "$": "&#36;"})
_SHOWN = 20


def escape(text: str) -> str:
    """Return `text` on one line, safe from Markdown, HTML and the links a forge makes by itself."""
    safe = _SPECIAL.sub(r"\\\1", clean(text).translate(_ENTITIES.copy()))
    safe = safe.replace("&\\#", "&#").replace("://", "&#58;//")
    return re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "&#46;", safe)


def render_markdown(report: Report) -> str:
    """Return the text of `report.md`.

    Args:
        report: Everything gathered for the page.
    """
    comparison = report.comparison
    title, why = headline(comparison)
    parts = [
        f"## {_MARKS['passed' if comparison.chosen else comparison.outcome]} {escape(title)}",
        escape(why),
        _table(comparison),
        *(_attention(decision) for decision in comparison.judged),
        _data_line(report),
        "\n".join(f"<sub>{escape(note)}</sub><br>" for note in footnotes(comparison)),
        "Every slice, finding, attack and digest, and the data, are in `report.html`, beside this file.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(comparison: Comparison) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in table_rows(comparison):
        cells = [
            "<br>".join(
                escape(line) if index == 0 else f"<sub>{escape(line)}</sub>"
                for index, line in enumerate(cell)
            )
            for cell in row.cells
        ]
        if row.standing == "chosen":
            cells = [f"**{cell}**" if index <= DECISION else cell for index, cell in enumerate(cells)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _attention(decision: Decision) -> str:
    """Return the findings that are not settled, or nothing if all are."""
    wanting = decision.concerns
    if decision.open and not wanting:
        return ""
    head = f"### {escape(str(decision.candidate))}: {escape(describe_outcome(decision.outcome))}"
    lines = [_item(concern) for concern in wanting[:_SHOWN]]
    if len(wanting) > _SHOWN:
        lines.append(f"- and {count_of(len(wanting) - _SHOWN, 'more finding')}, in `report.html`")
    return f"{head}\n\n{escape(summarise_findings(decision))}\n\n" + "\n".join(lines)


def _item(concern: tuple[Finding, ...]) -> str:
    finding = concern[0]
    figures = [
        ("measured", finding.value, describe_value(finding.value, finding.metric, finding.unit)),
        ("bound", finding.bound, describe_value(finding.bound, finding.metric, finding.unit)),
        ("limit", finding.limit if len(concern) == 1 else None, describe_limit(finding)),
    ]
    told = [f"{name} {words}" for name, number, words in figures if number is not None]
    distance = describe_distance(finding)
    told += [f"distance: {distance}"] if distance else []
    detail = f"<br>{escape('; '.join(told))}" if told else ""
    remedy = describe_remedy(finding) if finding.stops and finding.kind == "assert" else ""
    detail += f"<br>{escape(remedy)}" if remedy else ""
    place = f"**{escape(describe_mark(finding))}** {escape(describe_place(concern))}"
    return f"- {place}: {escape(finding.message)}{detail}"


def _data_line(report: Report) -> str:
    failed = [finding for finding in report.data.findings if finding.verdict != "PASS"]
    if report.data.open and not failed:
        return (
            f"Data: all {count_of(len(report.data.findings), 'check')} passed."
            if report.data.findings
            else ""
        )
    lines = [
        f"- **{escape(finding.verdict)}** {escape(finding.check)}: expected {escape(finding.expected)}, "
        f"got {escape(finding.came)} ({count_of(finding.row_count, 'row')})"
        for finding in failed[:_SHOWN]
    ]
    return "### Data\n\n" + "\n".join(lines or ["The validation of the data did not open."])
