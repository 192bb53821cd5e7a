# SPDX-License-Identifier: Apache-2.0
"""A forest plot as a file of its own, on a ground of its own: it reads on a white page and on a dark one."""

from __future__ import annotations

from pipeline.decision_file import Decision
from pipeline.plain import shorten
from pipeline.report.forest import ACCURACY, LEFT, RIGHT, draw_forest, forest_of
from pipeline.report.markup import Markup, tag
from pipeline.report.svg import as_file, marker

__all__ = ["render_picture"]

_WIDTH = 920
_EDGE = 18
_HEAD = 62
_HOW_TO_READ = "Thick line: 90 % interval. Tick: the bound that decides. Dashed: the margin."


def render_picture(decision: Decision, metric: str = ACCURACY) -> str | None:
    """Return the plot as an SVG file, or None if nothing of the metric was measured or judged.

    Args:
        decision: On one finalist.
        metric: A paired change.
    """
    drawn = draw_forest(decision, metric)
    if drawn is None:
        return None
    forest = forest_of(decision, metric)
    rows = forest.rows if forest else ()
    height = float(drawn.partition('height="')[2].partition('"')[0]) + _HEAD + 2 * _EDGE
    title = f"{forest.words if forest else metric} by slice, {decision.candidate}: candidate minus baseline"
    told = [
        tag("text", shorten(title, 110), x=_EDGE, y=_EDGE + 14, class_="title"),
        tag("text", _HOW_TO_READ, x=_EDGE, y=_EDGE + 34, class_="s"),
        *_legend({row.verdict or "no rule": row.look for row in rows}),
    ]
    plot = tag(
        "svg", drawn, x=LEFT + _EDGE, y=_EDGE + _HEAD, width=_WIDTH - LEFT - RIGHT - 2 * _EDGE, height=height
    )
    return as_file(title, [*told, plot], width=_WIDTH, height=height, style="svg{overflow:visible}")


def _legend(looks: dict[str, str]) -> list[Markup]:
    """Return the shape of each verdict there is beside its word, from the right edge to the left."""
    parts: list[Markup] = []
    right = float(_WIDTH - _EDGE)
    for verdict, look in reversed(looks.items()):
        parts.append(tag("text", shorten(verdict, 20), x=right, y=_EDGE + 34, class_="e"))
        right -= 7.4 * min(len(verdict), 20) + 12
        parts.append(marker(look, f"{right:g}", _EDGE + 30))
        right -= 20
    return parts
