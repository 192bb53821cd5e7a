# SPDX-License-Identifier: Apache-2.0
"""Which file or declaration speaks to which entry of which framework: a crosswalk, and no judgement.

The frameworks are data, `catalogue/*.json`; each entry says what a bundle holds for it, which answers of
`governance.yaml` belong to it, and who completes the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from checks.canonical import dumps, read_json_text, sha256_bytes
from checks.errors import EvidenceError
from pipeline.card.contents import CROSSWALK, GOVERNANCE, Contents
from pipeline.card.figures import cite, title_of, to_complete
from pipeline.card.waived import waived_notice
from pipeline.fields import Fields, expect_schema
from pipeline.governance import answers_to, completed_by
from pipeline.markdown import DASH, Markdown, bullets, heading, join, literal, table, text

__all__ = [
    "ANNEX",
    "CATALOGUES",
    "NOTHING_CLAIMED",
    "Answer",
    "Catalogue",
    "Entry",
    "Row",
    "crosswalk",
    "crosswalk_index",
    "crosswalk_value",
    "read_catalogue",
    "row_of",
]

ANNEX = "eu-ai-act-annex-iv"
CATALOGUES = ("eu-ai-act", ANNEX, "nist-ai-rmf", "iso-iec-42001")
"""Frameworks in the order they are printed."""

NOTHING_CLAIMED = (
    "It says where something stands, and never that a requirement is met: that is for the provider, the "
    "deployer and whoever assesses them to judge."
)
_MAX_TITLE = 1_000


@dataclass(frozen=True)
class Entry:
    """One requirement, control or outcome of a framework.

    Attributes:
        id: As the framework numbers it.
        title: What it is about.
        here: What a bundle holds that speaks to it, or nothing.
        files: Files of the bundle that hold it.
        declared: Keys of `governance.yaml` that belong to it.
        missing: What it also asks for and no file here can show, or nothing.
        by: Who completes what is missing.
    """

    id: str
    title: str
    here: str
    files: tuple[str, ...]
    declared: tuple[str, ...]
    missing: str
    by: str


@dataclass(frozen=True)
class Catalogue:
    """One framework, pinned to a version.

    Attributes:
        name: Of the file.
        framework: Its name.
        short: Its short name.
        version: Its version.
        source: Where it is published.
        notes: What a reader has to know of it.
        sha256: Of the file.
        entries: In its order.
    """

    name: str
    framework: str
    short: str
    version: str
    source: str
    notes: tuple[str, ...]
    sha256: str
    entries: tuple[Entry, ...]


def _entry(fields: Fields) -> Entry:
    return Entry(
        id=fields.text("id"),
        title=fields.text("title"),
        here=fields.text("here"),
        files=fields.texts("files"),
        declared=fields.texts("declared"),
        missing=fields.text("missing"),
        by=fields.text("by"),
    )


@cache
def read_catalogue(name: str) -> Catalogue:
    """Read one framework of this package.

    Raises:
        EvidenceError: if the file is malformed.
    """
    data = (resources.files("pipeline.card") / "catalogue" / f"{name}.json").read_bytes()
    fields = expect_schema(
        read_json_text(data.decode(), f"{name}.json"), "leangate/catalogue/1", f"{name}.json"
    )
    return Catalogue(
        name=name,
        framework=fields.text("framework"),
        short=fields.text("short"),
        version=fields.text("version"),
        source=fields.text("source"),
        notes=fields.texts("notes"),
        sha256=sha256_bytes(data),
        entries=tuple(_entry(entry) for entry in fields.entries("entries")),
    )


@dataclass(frozen=True)
class Answer:
    """One answer of `governance.yaml` that belongs to a row.

    Attributes:
        key: Its dotted key.
        given: Whether anything was declared.
        by: Who owes it.
    """

    key: str
    given: bool
    by: str


@dataclass(frozen=True)
class Row:
    """One entry as a bundle answers it.

    Attributes:
        entry: Of the framework.
        files: Path to SHA-256 of the files that speak to it.
        answers: Declared, or open.
    """

    entry: Entry
    files: Mapping[str, str]
    answers: tuple[Answer, ...]

    @property
    def is_open(self) -> bool:
        """Whether anything is left to complete."""
        return bool(self.entry.missing) or not all(answer.given for answer in self.answers)


def row_of(entry: Entry, contents: Contents) -> Row:
    """Hold one entry against the files and declarations of a bundle.

    Raises:
        EvidenceError: if the bundle lacks a file that the entry names.
    """
    lacking = [path for path in entry.files if path not in contents.digests]
    if lacking:
        raise EvidenceError(f"expected the files of entry {entry.id}, got no {lacking}", where="catalogue")
    answers = tuple(
        Answer(key, bool(answers_to(contents.governance, key)), completed_by(key)) for key in entry.declared
    )
    return Row(entry, {path: contents.digest(path) for path in entry.files}, answers)


def _evidence(row: Row) -> Markdown:
    if not row.files:
        return DASH
    cited = ", ".join(f"`{path}` (`{digest[:12]}`)" for path, digest in row.files.items())
    return literal(f"{row.entry.here}: {cited}")


def _declared(row: Row) -> Markdown:
    given = [literal(f"declared input `{answer.key}`") for answer in row.answers if answer.given]
    return join(given, ", ") if given else DASH


def _open(row: Row) -> Markdown:
    owed = [literal(f"`{one.key}`: {to_complete(one.by)}") for one in row.answers if not one.given]
    if row.entry.missing:
        owed.append(literal(f"{row.entry.missing}: {to_complete(row.entry.by)}"))
    return join(owed, "; ") if owed else DASH


def _section(catalogue: Catalogue, contents: Contents) -> list[Markdown]:
    rows = [row_of(entry, contents) for entry in catalogue.entries]
    cells = [
        (
            literal(f"**{row.entry.id}**"),
            text(row.entry.title, _MAX_TITLE),
            _evidence(row),
            _declared(row),
            _open(row),
        )
        for row in rows
    ]
    digest = catalogue.sha256[:12]
    return [
        heading(2, literal(f"{catalogue.framework}")),
        literal(
            f"Version: {catalogue.version}. {catalogue.source}. Catalogue `{catalogue.name}` (`{digest}`)."
        ),
        bullets(literal(note) for note in catalogue.notes),
        table(("Id", "What it is about", "Evidence here", "Declared", "Open"), cells),
    ]


def crosswalk(contents: Contents) -> str:
    """Return `compliance/crosswalk.md`: every entry of every framework, as this bundle answers it.

    Args:
        contents: Of the bundle, checked.

    Raises:
        EvidenceError: if a catalogue names a file that the bundle lacks.
    """
    blocks = [
        heading(1, literal(f"Crosswalk: {text(title_of(contents))}")),
        literal(
            f"Candidate `model.onnx` (`{contents.digest('model.onnx')}`), decision `decision.json` "
            f"(`{contents.digest('decision.json')}`), declarations `{GOVERNANCE}` "
            f"(`{contents.digest(GOVERNANCE)}`)."
        ),
        literal(
            "Each row names the files of this bundle that speak to it, with the start of their SHA-256, the "
            f"answers of `{GOVERNANCE}`, and what is open. {NOTHING_CLAIMED}"
        ),
    ]
    blocks += waived_notice(contents)
    for name in CATALOGUES:
        blocks += _section(read_catalogue(name), contents)
    return join(blocks, "\n\n") + "\n"


def _row_value(row: Row) -> dict[str, Any]:
    entry = row.entry
    return {
        "id": entry.id,
        "title": entry.title,
        "evidence": {"says": entry.here, "files": dict(row.files)} if row.files else None,
        "declared": [answer.key for answer in row.answers if answer.given],
        "open": [
            *({"what": answer.key, "by": answer.by} for answer in row.answers if not answer.given),
            *([{"what": entry.missing, "by": entry.by}] if entry.missing else []),
        ],
    }


def crosswalk_value(contents: Contents) -> str:
    """Return `compliance/crosswalk.json`: the same as `crosswalk`, for programs, with whole digests."""
    catalogues = [read_catalogue(name) for name in CATALOGUES]
    about = ("model.onnx", "decision.json", "policy.yaml", GOVERNANCE)
    value = {
        "schema": "leangate/crosswalk/1",
        "about": {name: contents.digest(name) for name in about},
        "catalogues": [
            {
                "name": catalogue.name,
                "framework": catalogue.framework,
                "version": catalogue.version,
                "source": catalogue.source,
                "notes": list(catalogue.notes),
                "sha256": catalogue.sha256,
                "rows": [_row_value(row_of(entry, contents)) for entry in catalogue.entries],
            }
            for catalogue in catalogues
        ],
    }
    return dumps(value)


def crosswalk_index(contents: Contents) -> list[Markdown]:
    """Return the blocks of the card that say how much of each framework is answered here, and where."""
    cells = []
    for name in CATALOGUES:
        catalogue = read_catalogue(name)
        rows = [row_of(entry, contents) for entry in catalogue.entries]
        counts = (
            len(rows),
            sum(bool(row.files) for row in rows),
            sum(any(answer.given for answer in row.answers) for row in rows),
            sum(row.is_open for row in rows),
        )
        cells.append(
            (
                literal(f"{catalogue.framework} (catalogue `{catalogue.sha256[:12]}`)"),
                literal(catalogue.version),
                *(literal(str(count)) for count in counts),
            )
        )
    header = (
        "Framework",
        "Version",
        "Entries",
        "With evidence here",
        "With declared input",
        "With something open",
    )
    return [
        literal(f"`{CROSSWALK}` has every entry, with the files that speak to it. {NOTHING_CLAIMED}"),
        table(header, cells, "llrrrr"),
        cite(contents, "decision.json", GOVERNANCE),
    ]
