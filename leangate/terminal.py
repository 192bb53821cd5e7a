# SPDX-License-Identifier: Apache-2.0
"""Tables and lines for people: coloured on a terminal that wants it, plain text everywhere else."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.plain import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["MAX_COLUMNS", "Line", "Table", "render"]

MAX_COLUMNS = 110
_MIN_COLUMNS = 60
_ASCII = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2026": "~", "\u2500": "-", "\u00d7": "x"})


@dataclass(frozen=True)
class Line:
    """One sentence, wrapped where the terminal ends.

    Attributes:
        text: May hold names out of data: what cannot be printed is replaced.
        style: Of rich, for example `bold red`.
        indent: Columns before every line of it.
    """

    text: str
    style: str = ""
    indent: int = 0


@dataclass(frozen=True)
class Table:
    """A table without frame.

    Attributes:
        heads: Names of the columns.
        rows: Cells as text, one for each column.
        styles: Style of each row.
        right: Positions of the columns of numbers.
        widest: Position to the most columns of the terminal that a column may take.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    styles: Sequence[str] = ()
    right: frozenset[int] = field(default_factory=frozenset)
    widest: Mapping[int, int] = field(default_factory=dict)


def _line(line: Line) -> RenderableType:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(clean(line.text), style=line.style), (0, 0, 0, line.indent))


def _table(table: Table) -> RenderableType:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for position, name in enumerate(table.heads):
        right = position in table.right
        drawn.add_column(
            Text(name),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
            max_width=table.widest.get(position),
        )
    styles = table.styles or [""] * len(table.rows)
    for cells, style in zip(table.rows, styles, strict=True):
        drawn.add_row(*(Text(clean(cell), style=style) for cell in cells))
    return drawn


def _showable(text: str) -> str:
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "").startswith("utf"):
        return text
    return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)


def render(parts: Iterable[Line | Table]) -> str:
    """Return the text; colour only for a terminal that wants it, and only letters it can show.

    Args:
        parts: In their order.
    """
    from rich.console import Console

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
    for part in parts:
        console.print(_table(part) if isinstance(part, Table) else _line(part))
    return _showable("\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n")
