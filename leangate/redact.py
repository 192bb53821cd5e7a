# SPDX-License-Identifier: Apache-2.0
"""`leangate redact`: answer an erasure request without touching any evidence, digest or verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["HELP", "redact"]

HELP = """Destroy salts and names behind the pseudonyms of examples or units, in restricted/pseudonyms.jsonl.
Evidence, digests and verdicts stay as they are and verify; nobody can tell any more whose rows they hold.
Without a NAME: say how many rows there are, how many are redacted, and whether the file is the one that the
prepared data name.

exit codes:
  0  redacted; or the file is the one that the data name
  2  a name is nobody's; nothing was redacted
  4  the file is missing, was changed, or is not the one that the data name
"""


def _expect_recorded(root: Path) -> tuple[str, int]:
    from checks.errors import EvidenceError
    from pipeline.data.pseudonyms import read_pseudonyms
    from pipeline.fields import read_fields
    from pipeline.layout import Layout

    layout = Layout(root)
    pseudonyms = read_pseudonyms(layout.pseudonyms)
    said = read_fields(layout.data / "data.json", "leangate/data/1").inner("pseudonyms")
    rows, want = said.count("rows"), said.text("sha256")
    came = pseudonyms.digest_of(rows)
    if len(pseudonyms.rows) < rows or came != want:
        raise EvidenceError(
            f"expected {rows} rows with the SHA-256 {want}, got {len(pseudonyms.rows)} with {came}",
            where=str(layout.pseudonyms),
            hint="rows may be redacted, but not removed, changed or moved",
        )
    gone = sum(row.removed is not None for row in pseudonyms.rows)
    return f"{len(pseudonyms.rows)} rows, {gone} redacted; the data name this file, {want}\n", 0


def redact(root: Path, names: Sequence[str]) -> tuple[str, int]:
    """Return what to print, and the exit code.

    Raises:
        DataError: if a name is nobody's.
        EvidenceError: if the file was changed, or is not the one that the data name.
        StorageError: if it cannot be read or written.
    """
    from pipeline.data.pseudonyms import read_pseudonyms, write_pseudonyms
    from pipeline.layout import Layout

    if not names:
        return _expect_recorded(root)
    path = Layout(root).pseudonyms
    before = read_pseudonyms(path)
    after = before.redact(names)
    write_pseudonyms(path, after)
    count = sum(one != other for one, other in zip(before.rows, after.rows, strict=True))
    return f"{count} row{'' if count == 1 else 's'} redacted in {path}\n", 0
