# SPDX-License-Identifier: Apache-2.0
"""`report.html`: one page, decision first, that needs no script, no network and no other file."""

from __future__ import annotations

from pipeline.report.figures import Report
from pipeline.report.finalists import attacks, finalists
from pipeline.report.markup import head, tag
from pipeline.report.sections import candidates, data, decision, lineage, reasons
from pipeline.report.style import style_sheet
from pipeline.report.svg import marker_shapes
from pipeline.report.wording import headline

__all__ = ["render_html"]

_PLACES = ("why", "candidates", "finalists", "attacks", "data", "lineage")


def render_html(report: Report) -> str:
    """Return the page.

    Args:
        report: Everything gathered for it.
    """
    comparison = report.comparison
    links = [tag("li", tag("a", place.capitalize(), href=f"#{place}")) for place in _PLACES]
    body = tag(
        "body",
        marker_shapes(),
        decision(comparison),
        tag("nav", tag("ul", *links), aria_label="Parts of this page"),
        tag(
            "main",
            reasons(comparison),
            candidates(comparison),
            finalists(comparison),
            attacks(comparison),
            data(report),
            lineage(report),
        ),
        tag(
            "footer",
            "Written by LeanGate from the files named under Lineage; the same files give the same bytes.",
        ),
    )
    page_head = head(f"{headline(comparison)[0]} - LeanGate report", style_sheet())
    return f"<!doctype html>\n{tag('html', page_head, body, lang='en')}\n"
