# SPDX-License-Identifier: Apache-2.0
"""`report.md`: the decision for the job summary of a CI run, short enough to be read there."""

from __future__ import annotations

from pipeline.decision_entries import Finding
from pipeline.decision_file import Decision
from pipeline.markdown import Markdown, bullets, heading, join, literal, table, text
from pipeline.report.figures import Comparison, Report
from pipeline.report.rows import COLUMNS, DECISION, footnotes, table_rows
from pipeline.report.wording import (
    LISTED,
    SEARCH,
    count_of,
    describe_detectable,
    describe_distance,
    describe_exemplar,
    describe_limit,
    describe_mark,
    describe_outcome,
    describe_p,
    describe_place,
    describe_reason,
    describe_remedy,
    describe_value,
    describe_waiver,
    headline,
    summarise_findings,
    summarise_searches,
    summarise_timings,
)

__all__ = ["render_markdown"]

_MARKS = {
    "passed": "\u2705",
    "waived": "\u26a0\ufe0f",
    "blocked": "\u26d4",
    "inconclusive": "\u26a0\ufe0f",
    "error": "\u274c",
}
_SHOWN = 20
_FEW = 5
_LONG = 1_000


def render_markdown(report: Report) -> str:
    """Return the text of `report.md`.

    Args:
        report: Everything gathered for the page.
    """
    comparison = report.comparison
    title, why = headline(comparison)
    mark = _MARKS[comparison.outcome]
    parts = [
        heading(2, literal(f"{mark} {_told(title)}")),
        _told(why),
        _waived(comparison),
        _table(comparison),
        *(part for decision in comparison.judged for part in _finalist(decision)),
        _data_line(report),
        literal("\n".join(f"<sub>{_told(note)}</sub><br>" for note in footnotes(comparison))),
        literal("Every slice, finding, attack and digest, and the data, are in `report.html`, beside this."),
    ]
    return join((part for part in parts if part), "\n\n") + "\n"


def _told(words: str) -> Markdown:
    """Return a sentence whole: what was long in it has been cut already."""
    return text(words, _LONG)


def _table(comparison: Comparison) -> Markdown:
    rows = []
    for row in table_rows(comparison):
        cells = [
            "<br>".join(
                _told(line) if index == 0 else f"<sub>{_told(line)}</sub>" for index, line in enumerate(cell)
            )
            for cell in row.cells
        ]
        if row.standing == "chosen":
            cells = [f"**{cell}**" if index <= DECISION else cell for index, cell in enumerate(cells)]
        rows.append([literal(cell) for cell in cells])
    return table(COLUMNS, rows)


def _waived(comparison: Comparison) -> Markdown | None:
    """Return every finding that was waived, and who answers for it."""
    items = [
        literal(
            f"**WAIVED** {_told(str(decision.candidate))}: {_told(finding.verdict)} "
            f"{_told(describe_place([finding]))}, {_told(describe_waiver(finding))}"
        )
        for decision in comparison.judged
        for finding in decision.waived
    ]
    return bullets(items) if items else None


def _finalist(decision: Decision) -> list[Markdown]:
    """Return what is not settled, then what was searched, what changed most, and the times."""
    head = heading(3, _told(f"{decision.candidate}: {describe_outcome(decision.standing)}"))
    wanting = decision.concerns
    items = [_item(concern) for concern in wanting[:_SHOWN]]
    if len(wanting) > _SHOWN:
        items.append(literal(f"and {count_of(len(wanting) - _SHOWN, 'more finding')}, in `report.html`"))
    parts: list[Markdown | None] = [head, _told(summarise_findings(decision)), bullets(items)]
    parts += [_searches(decision), _listed(decision), _flips(decision), _times(decision)]
    return [part for part in parts if part]


def _item(concern: tuple[Finding, ...]) -> Markdown:
    finding = concern[0]
    figures = [
        ("measured", finding.value, describe_value(finding.value, finding.metric, finding.unit)),
        ("bound", finding.bound, describe_value(finding.bound, finding.metric, finding.unit)),
        ("limit", finding.limit if len(concern) == 1 else None, describe_limit(finding)),
    ]
    told = [f"{name} {words}" for name, number, words in figures if number is not None]
    named = (
        ("distance: ", describe_distance(finding)),
        ("", describe_p(finding.p)),
        ("smallest harm that would be seen: ", describe_detectable(finding)),
        ("reason: ", describe_reason(finding)),
    )
    told += [f"{name}{words}" for name, words in named if words]
    lines = ["; ".join(told), describe_remedy(finding)]
    detail = "".join(f"<br>{_told(line)}" for line in lines if line)
    place = f"**{_told(describe_mark(finding))}** {_told(describe_place(concern))}"
    return literal(f"{place}: {_told(finding.message)}{detail}")


def _searches(decision: Decision) -> Markdown | None:
    """Return what the screens found; of what is wrong with them more stands above."""
    searched = summarise_searches(decision)
    return _told(f"{searched}. {SEARCH}") if searched else None


def _listed(decision: Decision) -> Markdown | None:
    if not decision.listed:
        return None
    cells = ", ".join(_told(f"{item.subject} (n {item.n or 0:,})") for item in decision.listed[:_FEW])
    more = f" and {len(decision.listed) - _FEW:,} more" if len(decision.listed) > _FEW else ""
    return literal(f"Listed only: {cells}{more}. {LISTED}")


def _flips(decision: Decision) -> Markdown | None:
    if not decision.most_changed:
        return None
    named = [
        literal(f"{text(one.id)} ({text(describe_exemplar(one))})") for one in decision.most_changed[:_FEW]
    ]
    return literal(f"Flip exemplars, the examples that changed most: {join(named, ', ')}.")


def _times(decision: Decision) -> Markdown | None:
    told = summarise_timings(decision)
    return literal(f"Beside latency: {_told(told)}.") if told else None


def _data_line(report: Report) -> Markdown | None:
    found = report.data.findings
    failed = [finding for finding in found if finding.verdict != "PASS"]
    if report.data.open and not failed:
        return literal(f"Data: all {count_of(len(found), 'check')} passed.") if found else None
    items = [
        literal(
            f"**{_told(finding.verdict)}** {_told(finding.check)}: expected {_told(finding.expected)}, "
            f"got {_told(finding.came)} ({count_of(finding.row_count, 'row')})"
        )
        for finding in failed[:_SHOWN]
    ]
    head = heading(3, literal("Data"))
    return join(
        [head, bullets(items) if items else literal("The validation of the data did not open.")], "\n\n"
    )
