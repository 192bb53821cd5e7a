# SPDX-License-Identifier: Apache-2.0
"""The report people look at: which candidate ships, or why none does.

figures    the frozen dataclasses everything below is drawn from, with those of `pipeline.decision_file`
summary    JSON files of the stages in, figures out
glossary   what every metric means, and what to do where it fails
wording    numbers, verdicts and distances in words
table      the table of candidates for a terminal
markdown   report.md, for the job summary of a CI run
html       report.html, one page that needs nothing else
sections   its parts;  markup, svg, style: what they are drawn with
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.layout import Layout

__all__ = ["render_table", "write_report"]


def write_report(folder: Path, layout: Layout, selection: Mapping[str, Any]) -> None:
    """Write `report.html` and `report.md` into `folder`.

    Args:
        folder: An existing folder, normally the temporary one of `files.output_dir`.
        layout: Where the outputs of the earlier stages lie.
        selection: The content of `selection.json`, which need not be written yet.

    Raises:
        EvidenceError: if an input is missing, malformed, or contradicts another one.
    """
    from pipeline.report.html import render_html
    from pipeline.report.markdown import render_markdown
    from pipeline.report.summary import gather_report

    report = gather_report(layout, selection)
    (folder / "report.html").write_bytes(render_html(report).encode())
    (folder / "report.md").write_bytes(render_markdown(report).encode())


def render_table(layout: Layout, on: date | None = None) -> str:
    """Return the decision and the table of candidates as text for the terminal, at most 110 columns wide.

    Coloured only if standard output is a terminal and `NO_COLOR` is not set.

    Args:
        layout: Where the outputs of the stages lie, `selection.json` included.
        on: The day, UTC: what was waived until an earlier one ships no longer. None leaves days out.

    Raises:
        EvidenceError: if an input is missing, malformed, or contradicts another one.
    """
    from checks.canonical import read_json
    from pipeline.report.summary import gather_comparison
    from pipeline.report.table import render

    return render(gather_comparison(layout, read_json(layout.selection), on))
