# SPDX-License-Identifier: Apache-2.0
"""The technical documentation of Annex IV of the EU AI Act, as far as a bundle can tell it.

Regulation (EU) 2024/1689 as amended by Regulation (EU) 2026/1744, Annex IV, points 1 to 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pipeline.card.compliance import ANNEX, NOTHING_CLAIMED, Row, read_catalogue, row_of
from pipeline.card.contents import GOVERNANCE, Contents
from pipeline.card.figures import Judged, cite, read_judged, title_of, to_complete
from pipeline.card.method import LIMITATIONS
from pipeline.card.provenance import data_section
from pipeline.card.rules import flips_section, policy_section, screens_section
from pipeline.card.sections import (
    accuracy_section,
    attack_section,
    costs,
    decision_section,
    disparity_section,
    passes,
)
from pipeline.card.waived import waived_notice, waivers_section
from pipeline.governance import answers_to
from pipeline.markdown import Markdown, bullets, code, heading, join, literal, table, text

__all__ = ["annex_iv"]

_GROUPS = {"1": "General description", "2": "Elements of the system, and how it was developed"}
_MAX_ANSWER = 4_000

_Show = Callable[[Contents, Judged], list[Markdown]]


def _below(blocks: Iterable[Markdown], levels: int) -> list[Markdown]:
    """Move headings down, so that sections of the card stand below a point."""
    return [literal("#" * levels + block) if re.match(r"#+ ", block) else block for block in blocks]


def _without_title(blocks: list[Markdown]) -> list[Markdown]:
    return blocks[1:]


def _identity(contents: Contents, judged: Judged) -> list[Markdown]:
    return _without_title(decision_section(contents, judged))


def _figures(contents: Contents, judged: Judged) -> list[Markdown]:
    blocks = [
        *accuracy_section(contents, judged),
        *disparity_section(contents, judged),
        *attack_section(contents, judged),
        *flips_section(contents, judged),
        *screens_section(contents, judged),
        *waivers_section(contents, judged),
    ]
    return _below(blocks, 2)


def _input(contents: Contents, judged: Judged) -> list[Markdown]:
    """What goes in and what comes out, as the record of the file says."""
    del judged
    model = contents.model
    shape = "x".join(str(size) for size in model.value["shape"])
    rows = [
        (
            "Input",
            f"pixels, whole numbers from 0 to {model.count('pixel_max')}, {shape} (channels, height, width)",
        ),
        ("Output", f"{model.text('output')} of {len(model.texts('classes'))} classes"),
    ]
    return [
        table(("What", "As recorded"), [(literal(what), text(said)) for what, said in rows]),
        cite(contents, "records/model.json"),
        literal("Limitations of the method:"),
        bullets(literal(entry) for entry in LIMITATIONS),
    ]


_SHOWN: dict[str, _Show] = {
    "1(a)": _identity,
    "2(a)": lambda contents, _: passes(contents),
    "2(b)": costs,
    "2(d)": lambda contents, _: _without_title(data_section(contents)),
    "2(g)": _figures,
    "3": _input,
    "4": lambda contents, judged: _without_title(policy_section(contents, judged)),
}
"""Point to the tables that belong below it; the others are said in words."""


def _answers(contents: Contents, row: Row) -> list[Markdown]:
    blocks: list[Markdown] = []
    for answer in row.answers:
        said = answers_to(contents.governance, answer.key)
        if len(said) == 1:
            blocks.append(literal(f"Declared, {code(answer.key)}: {text(said[0], _MAX_ANSWER)}"))
        elif said:
            blocks += [
                literal(f"Declared, {code(answer.key)}:"),
                bullets(text(entry, _MAX_ANSWER) for entry in said),
            ]
    if any(answer.given for answer in row.answers):
        blocks.append(cite(contents, GOVERNANCE))
    return blocks


def _owed(row: Row) -> list[Markdown]:
    owed = [literal(f"{code(one.key)}: {to_complete(one.by)}") for one in row.answers if not one.given]
    if row.entry.missing:
        owed.append(literal(f"{row.entry.missing}: {to_complete(row.entry.by)}"))
    return [literal("Open:"), bullets(owed)] if owed else []


def _point(contents: Contents, judged: Judged, row: Row) -> list[Markdown]:
    entry = row.entry
    level = 3 if "(" in entry.id else 2
    blocks = [heading(level, literal(f"{entry.id} {text(entry.title)}")), *_answers(contents, row)]
    if row.files:
        blocks += [literal(f"Here: {entry.here}."), cite(contents, *row.files)]
    if show := _SHOWN.get(entry.id):
        blocks += show(contents, judged)
    return [*blocks, *_owed(row)]


def annex_iv(contents: Contents) -> str:
    """Return `compliance/annex-iv.md`.

    Args:
        contents: Of the bundle, checked.

    Raises:
        EvidenceError: if a figure that it needs is malformed.
    """
    judged = read_judged(contents.decision, contents.waivers)
    catalogue = read_catalogue(ANNEX)
    blocks = [
        heading(1, literal(f"Technical documentation, Annex IV: {text(title_of(contents))}")),
        literal(
            f"What a bundle can tell for the points of Annex IV, {catalogue.version}. It is about one model "
            f"file, not about the system around it. {NOTHING_CLAIMED}"
        ),
        literal(
            f"Declared is what people wrote into `{GOVERNANCE}`; every figure is from the file named "
            "below it, with the start of its SHA-256; open is what neither can tell."
        ),
        *waived_notice(contents),
        bullets(literal(note) for note in catalogue.notes),
    ]
    group = ""
    for entry in catalogue.entries:
        number = entry.id.partition("(")[0]
        if number in _GROUPS and number != group:
            blocks.append(heading(2, literal(f"{number} {_GROUPS[number]}")))
        group = number
        blocks += _point(contents, judged, row_of(entry, contents))
    return join(blocks, "\n\n") + "\n"
