# SPDX-License-Identifier: Apache-2.0
"""An exported ledger checked offline: order, chain, times, tree and signatures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.canonical import read_json_text
from checks.errors import EvidenceError, InputError
from pipeline.ledger.entries import SCHEMA, Checkpoint, Entry, expect_signed, parse_entry
from pipeline.ledger.merkle import Frontier

if TYPE_CHECKING:
    from securesystemslib.signer import Key

__all__ = ["Ledger", "expect_extends", "export_lines", "read_checkpoint", "read_export", "verify_lines"]

START = "0" * 64
"""What the first entry names as the one before it."""

_MAX_LINE = 4 * 1024 * 1024
_MAX_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class Ledger:
    """A ledger that holds together.

    Attributes:
        entries: In order.
        roots: Of the tree after each entry.
        keys: Ids of the keys that signed checkpoints.
        signed: How many entries the last signed checkpoint stands for.
    """

    entries: tuple[Entry, ...]
    roots: tuple[str, ...]
    keys: tuple[str, ...]
    signed: int


def export_lines(pairs: Iterable[tuple[str, Checkpoint]]) -> Iterator[str]:
    """Yield the lines of an export: each entry's own text, with the checkpoint after it."""
    for line, checkpoint in pairs:
        yield json.dumps(
            {"entry": line, "checkpoint": checkpoint.to_json()}, sort_keys=True, separators=(",", ":")
        )


def read_checkpoint(value: Any, where: str) -> Checkpoint:
    """Read a checkpoint as `to_json` wrote it.

    Raises:
        EvidenceError: if it is none.
    """
    keys = {"size": int, "root": str, "key": str, "signature": str}
    if (
        not isinstance(value, dict)
        or set(value) != set(keys)
        or any(type(value[key]) is not kind for key, kind in keys.items())
    ):
        raise EvidenceError(f"expected a checkpoint with {', '.join(keys)}, got something else", where=where)
    return Checkpoint(**value)


def _expect_follows(entry: Entry, before: Entry | None, where: str) -> None:
    want = (1, START) if before is None else (before.number + 1, before.leaf)
    for what, wanted, came in (
        ("number", want[0], entry.number),
        ("the entry before it to be", want[1], entry.previous),
        ("the ledger", entry.ledger if before is None else before.ledger, entry.ledger),
    ):
        if wanted != came:
            raise EvidenceError(
                f"expected {what} {wanted}, got {came}",
                where=where,
                hint="an entry was taken out, put in, moved or changed",
            )
    if before is not None and entry.at < before.at:
        raise EvidenceError(
            f"expected a time not before {before.at.isoformat()}, got {entry.at.isoformat()}",
            where=where,
            hint="the entry was dated back",
        )


def verify_lines(lines: Iterable[str], keys: Mapping[str, Key] | None, where: str) -> Ledger:
    """Check the lines of an export.

    Args:
        lines: As `export_lines` gave them.
        keys: Public keys of the registry by their ids; None looks at no signature.
        where: The file, for messages.

    Raises:
        EvidenceError: at the first line that was changed, taken out, put in, moved or dated back, or whose
            checkpoint is not of these entries; or if no trusted key signed the last one.
    """
    entries: list[Entry] = []
    roots: list[str] = []
    signers: set[str] = set()
    frontier, signed = Frontier(), 0
    for number, line in enumerate(lines, start=1):
        place = f"{where} line {number}"
        value = read_json_text(line, place)
        if not isinstance(value, dict) or set(value) != {"entry", "checkpoint"}:
            raise EvidenceError(f"expected an entry and a checkpoint of {SCHEMA}", where=place)
        if not isinstance(value["entry"], str):
            raise EvidenceError("expected the entry's own text", where=place)
        entry = parse_entry(value["entry"], place)
        _expect_follows(entry, entries[-1] if entries else None, place)
        frontier = frontier.add(entry.leaf)
        checkpoint = read_checkpoint(value["checkpoint"], place)
        if (checkpoint.size, checkpoint.root) != (frontier.size, frontier.root):
            raise EvidenceError(
                f"expected the checkpoint of {frontier.size} entries with root {frontier.root}, "
                f"got {checkpoint.size} and {checkpoint.root}"[:300],
                where=place,
            )
        if checkpoint.key:
            if keys is not None:
                expect_signed(entry, checkpoint, keys, place)
            signers.add(checkpoint.key)
            signed = frontier.size
        entries.append(entry)
        roots.append(frontier.root)
    if not entries:
        raise EvidenceError("expected entries, got none", where=where)
    if keys is not None and signed != len(entries):
        raise EvidenceError(
            f"expected all {len(entries)} entries below a signed checkpoint, got {signed}", where=where
        )
    return Ledger(tuple(entries), tuple(roots), tuple(sorted(signers)), signed)


def expect_extends(ledger: Ledger, earlier: Checkpoint, where: str) -> None:
    """Refuse a ledger that is not a continuation of what an earlier checkpoint stood for.

    Raises:
        EvidenceError: if entries were changed or cut off since.
    """
    if not 1 <= earlier.size <= len(ledger.entries):
        raise EvidenceError(
            f"expected at least the {earlier.size} entries of the checkpoint, got {len(ledger.entries)}",
            where=where,
            hint="entries were cut off at the end",
        )
    if ledger.roots[earlier.size - 1] != earlier.root:
        raise EvidenceError(
            f"expected root {earlier.root} after {earlier.size} entries, got "
            f"{ledger.roots[earlier.size - 1]}",
            where=where,
            hint="the ledger was written anew since the checkpoint was kept",
        )


def read_export(path: Path) -> Sequence[str]:
    """Return the lines of an exported ledger, bounded.

    Raises:
        InputError: if there is no such file.
        EvidenceError: if it is no text, ends in the middle of a line, or is too large.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise EvidenceError(f"expected at most {_MAX_BYTES} bytes, got more", where=str(path))
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"expected an exported ledger, got {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise EvidenceError("expected lines of JSON, got other bytes", where=str(path)) from error
    if text and not text.endswith("\n"):
        raise EvidenceError(
            "expected whole lines, got one that breaks off", where=str(path), hint="export it again"
        )
    lines = text.split("\n")[:-1]
    if any(len(line) > _MAX_LINE for line in lines):
        raise EvidenceError(f"expected lines of at most {_MAX_LINE} characters", where=str(path))
    return lines
