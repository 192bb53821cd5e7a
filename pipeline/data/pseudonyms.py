# SPDX-License-Identifier: Apache-2.0
"""Pseudonyms of examples and units: salted digests, whose salts can be destroyed one by one.

    pseudonym = first 32 hexadecimal digits of SHA-256(salt, name)     16 random bytes of salt a name

Names and salts lie in one restricted file, a line a name. A line that is redacted leaves its SHA-256 and the
pseudonym behind: the file has the digest it had, and nobody can tell any more whose pseudonym it was, not
even by trying names, since the salt is gone.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from checks.canonical import MAX_JSON_BYTES, read_json_text, sha256_bytes, sha256_value
from checks.errors import DataError, EvidenceError, StorageError
from pipeline.files import output_file, write_bytes

__all__ = ["Pseudonyms", "Row", "read_pseudonyms", "write_pseudonyms"]

Kind = Literal["example", "unit"]

_SALT = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_BYTES = 16 * MAX_JSON_BYTES


def _pseudonym(salt: str, name: str) -> str:
    return sha256_bytes(bytes.fromhex(salt) + name.encode())[:32]


@dataclass(frozen=True)
class Row:
    """One name and its pseudonym, or what is left of it.

    Attributes:
        of: Whether it names an example or a unit.
        pseudonym: What stands for it everywhere else.
        name: As the source has it; None once redacted.
        salt: 32 hexadecimal digits; None once redacted.
        removed: SHA-256 of the line that was redacted; None before.
    """

    of: Kind
    pseudonym: str
    name: str | None
    salt: str | None
    removed: str | None = None

    @property
    def line(self) -> str:
        """The row as a line of the file, without the line's end."""
        kept = {"name": self.name, "salt": self.salt} if self.removed is None else {"removed": self.removed}
        value = {"of": self.of, "pseudonym": self.pseudonym, **kept}
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """Of the line as it was before any redaction."""
        return self.removed or sha256_bytes(self.line.encode())

    def redacted(self) -> Row:
        """Return what may stay once the name must go."""
        return Row(self.of, self.pseudonym, None, None, self.sha256)


class Pseudonyms:
    """All rows; names that are asked for and unknown get a row of their own."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self.rows = list(rows)
        self._known = {(row.of, row.name): row.pseudonym for row in rows if row.name is not None}

    def of(self, kind: Kind, names: Sequence[str]) -> list[str]:
        """Return the pseudonym of each name."""
        for name in names:
            if (kind, name) not in self._known:
                salt = secrets.token_hex(16)
                row = Row(kind, _pseudonym(salt, name), name, salt)
                self.rows.append(row)
                self._known[kind, name] = row.pseudonym
        return [self._known[kind, name] for name in names]

    def redact(self, names: Sequence[str]) -> Pseudonyms:
        """Return the rows without names and salts of `names`, be they examples or units.

        Raises:
            DataError: if a name is nobody's; nothing is redacted then.
        """
        known = {row.name for row in self.rows}
        strangers = [name for name in names if name not in known]
        if strangers:
            raise DataError(
                f"expected names of examples or units not redacted yet, got {len(strangers)} others, "
                f"the first {strangers[0]!r:.80}",
                hint="nothing was redacted",
            )
        return Pseudonyms([row.redacted() if row.name in names else row for row in self.rows])

    def digest(self) -> dict[str, Any]:
        """Return the number of rows and their SHA-256, which no redaction changes."""
        return {"rows": len(self.rows), "sha256": self.digest_of(len(self.rows))}

    def digest_of(self, rows: int) -> str:
        """Return the SHA-256 of the first rows, as it was recorded when there were no more."""
        return sha256_value([row.sha256 for row in self.rows[:rows]])


def _row(value: Any, where: str) -> Row:
    raw: Mapping[str, Any] = value if isinstance(value, dict) else {}
    of, pseudonym, name, salt, removed = map(raw.get, ("of", "pseudonym", "name", "salt", "removed"))
    row = Row(of, pseudonym, name, salt, removed)  # type: ignore[arg-type] # looked at below
    whole = isinstance(name, str) and isinstance(salt, str) and _SALT.fullmatch(salt) and removed is None
    gone = name is None and salt is None and isinstance(removed, str) and _DIGEST.fullmatch(removed)
    if of not in ("example", "unit") or not isinstance(pseudonym, str) or not (whole or gone):
        raise EvidenceError("expected a name with pseudonym and salt, or what redaction left", where=where)
    if whole and _pseudonym(str(salt), str(name)) != pseudonym:
        raise EvidenceError("expected the pseudonym that follows from name and salt", where=where)
    return row


def read_pseudonyms(path: Path) -> Pseudonyms:
    """Read the restricted file; one that is not there has no rows.

    Raises:
        EvidenceError: naming the line but nothing in it, if one is malformed or was changed.
        StorageError: if the file cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise EvidenceError(f"expected at most {_MAX_BYTES} bytes, got more", where=str(path))
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return Pseudonyms()
    except OSError as error:
        raise StorageError(f"expected a readable file, got {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise EvidenceError("expected lines of JSON, got other bytes", where=str(path)) from error
    rows = []
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        row = _row(read_json_text(line, where), where)
        if row.line != line:
            raise EvidenceError("expected the line as it was written", where=where)
        rows.append(row)
    return Pseudonyms(rows)


def write_pseudonyms(path: Path, pseudonyms: Pseudonyms) -> None:
    """Write the restricted file, readable by its owner alone, in a folder that git leaves out.

    Raises:
        StorageError: if it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = path.parent / ".gitignore"
    if not ignore.exists():
        write_bytes(ignore, b"*\n")
    with output_file(path) as temporary:
        temporary.touch(0o600)  # before there is anything in it
        temporary.write_bytes("".join(f"{row.line}\n" for row in pseudonyms.rows).encode())
