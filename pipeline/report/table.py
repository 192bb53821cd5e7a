# SPDX-License-Identifier: Apache-2.0
"""The decision and the table of candidates for a terminal."""

from __future__ import annotations

import io
import os
import shutil
import sys

from pipeline.plain import clean, shorten
from pipeline.report.figures import Comparison
from pipeline.report.rows import COLUMNS, DECISION, Row, footnotes, table_rows
from pipeline.report.wording import (
    LISTED,
    SEARCH,
    count_of,
    describe_exemplar,
    describe_mark,
    describe_outcome,
    describe_place,
    describe_remedy,
    describe_waiver,
    headline,
    summarise_findings,
    summarise_searches,
    summarise_timings,
)

__all__ = ["MAX_COLUMNS", "render"]

MAX_COLUMNS = 110
_MIN_COLUMNS = 60
_EXEMPLARS = 3
_STYLES = {
    "chosen": "bold green",
    "passed": "green",
    "waived": "bold yellow",
    "blocked": "red",
    "inconclusive": "yellow",
    "error": "magenta",
    "baseline": "bold",
    "not a finalist": "dim",
}
_ASCII = str.maketrans(
    {"\u2212": "-", "\u00d7": "x", "\u2013": "-", "\u2026": "~", "\u2500": "-", "\u2192": ">", "\u2265": ">="}
)


def render(comparison: Comparison) -> str:
    """Return the text; colour only for a terminal that wants it, and only letters it can show.

    Args:
        comparison: The decision and the candidates.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size((MAX_COLUMNS, 24)).columns if terminal else MAX_COLUMNS
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=max(_MIN_COLUMNS, min(MAX_COLUMNS, width)),
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
    )
    title, why = headline(comparison)
    chosen = comparison.chosen and comparison.outcome == "passed"
    style = _STYLES["chosen" if chosen else comparison.outcome]
    console.print(Text(title, style=f"bold {style}"))
    console.print(Text(why))
    console.print(_table(comparison))
    for line in [
        "",
        *_waived(comparison),
        *_wanting(comparison),
        *_beside(comparison),
        *_left_out(comparison),
        "",
    ]:
        indent = len(line) - len(line.lstrip())
        console.print(Padding(Text(line.lstrip()), (0, 0, 0, indent)))
    for note in footnotes(comparison):
        console.print(Text(note, style="dim"))
    return _showable("\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n")


def _table(comparison: Comparison) -> object:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name, width in zip(COLUMNS, (16, 14, 12, 10, 19, 10, 14, 9), strict=True):
        table.add_column(Text(name), max_width=width, overflow="fold")
    for row in table_rows(comparison):
        style = _STYLES.get(row.standing, "")
        cells = [
            Text("\n".join(lines), style=style if index <= DECISION else "")
            for index, lines in enumerate(_compact(row))
        ]
        table.add_row(*cells)
    return table


def _compact(row: Row) -> tuple[tuple[str, ...], ...]:
    """Shorten names out of data, and leave the reason of what is no finalist to the lines below the table."""
    kept = (lines[:1] if index == DECISION else lines for index, lines in enumerate(row.cells))
    return tuple(tuple(shorten(line, 120) for line in lines) for lines in kept)


def _left_out(comparison: Comparison) -> list[str]:
    """Say once for each reason which candidates are no finalists."""
    names: dict[str, list[str]] = {}
    for candidate in comparison.candidates:
        if candidate.decision is None:
            names.setdefault(shorten(candidate.reason, 200), []).append(shorten(candidate.name, 80))
    return [f"not a finalist: {', '.join(group)} ({reason})" for reason, group in names.items()]


def _waived(comparison: Comparison) -> list[str]:
    """Say of every finding that was waived who answers for it: all of them, however many."""
    return [
        f"WAIVED {shorten(str(decision.candidate), 80)}: {clean(finding.verdict)} "
        f"{shorten(describe_place([finding]), 140)}, {describe_waiver(finding)}"
        for decision in comparison.judged
        for finding in decision.waived
    ]


def _wanting(comparison: Comparison) -> list[str]:
    """Say for each finalist that did not pass what stands in its way, the most serious three."""
    lines = []
    for decision in comparison.judged:
        wanting = decision.concerns
        if decision.open and not wanting:
            continue
        outcome = describe_outcome(decision.standing)
        lines.append(f"{shorten(str(decision.candidate), 80)}: {outcome} ({summarise_findings(decision)})")
        for concern in wanting[:3]:
            finding = concern[0]
            # The sentence on a bound says what to do by itself.
            remedy = f". {describe_remedy(finding)}" if finding.stops and finding.kind != "bounded" else ""
            lines.append(
                f"  {describe_mark(finding)} {shorten(describe_place(concern), 140)}: "
                f"{shorten(finding.message.rstrip('.'), 300)}{remedy}".rstrip()
            )
        if len(wanting) > 3:
            lines.append(f"  and {len(wanting) - 3} more, in report.html")
    return lines


def _beside(comparison: Comparison) -> list[str]:
    """Say for each finalist what is no reason to stop: searches, cells only listed, flips, times."""
    lines = []
    for decision in comparison.judged:
        told = []
        if searched := summarise_searches(decision):
            told.append(f"{searched}. {SEARCH}")
        if decision.listed:
            told.append(f"{count_of(len(decision.listed), 'combination')} listed only. {LISTED}")
        if decision.most_changed:
            named = [f"{one.id} ({describe_exemplar(one)})" for one in decision.most_changed[:_EXEMPLARS]]
            told.append(f"changed most: {shorten(', '.join(named), 200)}")
        if timed := summarise_timings(decision):
            told.append(timed)
        if decision.attempt is not None:
            told.append(
                f"attempt {decision.attempt.number} on this test split; a rule passes by mistake with a "
                f"probability of at most {decision.alpha_each:.4g}"
            )
        if told:
            lines += [f"{shorten(str(decision.candidate), 80)}:", *(f"  {line}" for line in told)]
    return lines


def _showable(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "").startswith("utf"):
        return text
    return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
