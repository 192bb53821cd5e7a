# SPDX-License-Identifier: Apache-2.0
"""`leangate history` and `leangate ledger`: what was in production when, and whether the record holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from leangate.terminal import Line, Table, render

if TYPE_CHECKING:
    from pipeline.ledger.history import Term
    from pipeline.ledger.verification import Ledger

__all__ = ["EXPORT_HELP", "HISTORY_HELP", "VERIFY_HELP", "export", "history", "verify"]

HISTORY_HELP = """Say what held a protected alias when, who moved it, with whose approval and on what
evidence, from the ledger alone: of the registry that MLFLOW_TRACKING_URI names, or of
an exported file, offline. The ledger's chain is checked on the way; `leangate ledger
verify` checks its signatures too.

exit codes:
  0  answered
  1  nothing held it then
  2  wrong use or input
  4  the ledger does not hold together, or cannot be read
"""
EXPORT_HELP = """Write the whole ledger of the registry that MLFLOW_TRACKING_URI names into a file, one
entry a line, each with the checkpoint that stands for all entries up to it. Keep the
last checkpoint, which is printed, elsewhere: with it the file that is exported next
year proves that nothing was cut off or written anew.
"""
VERIFY_HELP = """Check an exported ledger offline: that no entry was changed, taken out, put in, moved or
dated back; that every checkpoint is the root of the Merkle tree (RFC 6962) of the
entries so far; with --trust that the registry signed them; with --checkpoint that it
goes on from what was kept earlier.

exit codes:
  0  all of it holds
  1  something does not; the message says what
  2  wrong use or input
"""


def _verified(lines: Sequence[str] | None, root: Path) -> tuple[Ledger, str]:
    from pipeline.ledger.verification import verify_lines
    from pipeline.registry_acts import open_registry

    if lines is not None:
        return verify_lines(lines, None, "ledger"), "ledger"
    with open_registry(root) as registry:
        return verify_lines(registry.ledger(), None, registry.uri), registry.uri


def _rows(terms: Sequence[Term]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for term in terms:
        until = "now" if term.until is None else f"{term.until:%Y-%m-%d %H:%M}"
        if term.revoked is not None and (term.until is None or term.revoked <= term.until):
            until = f"revoked {term.revoked:%Y-%m-%d %H:%M}"
        approvals = ", ".join(key[:8] + (f" ({by})" if by else "") for key, by in term.approvals)
        rows.append(
            (
                term.alias,
                term.version,
                f"{term.since:%Y-%m-%d %H:%M}",
                until,
                term.by or "not logged in",
                approvals or "none",
                term.evidence["onnx_sha256"][:12],
                str(term.number),
            )
        )
    return rows


def history(root: Path, model: str, at: str | None, file: Path | None, *, as_json: bool) -> tuple[str, int]:
    """Return what to print, and the exit code.

    Raises:
        LeanGateError: if the ledger cannot be read, or does not hold together.
    """
    from pipeline.ledger.history import end_of, terms_of
    from pipeline.ledger.verification import read_export

    when = None if at is None else end_of(at)
    ledger, _ = _verified(None if file is None else read_export(file), root)
    terms = terms_of(ledger.entries, model, when)
    code = 0 if terms else 1
    if as_json:
        return json.dumps([term.to_json() for term in terms], indent=2) + "\n", code
    then = "" if when is None else f" at {when:%Y-%m-%d %H:%M:%S} UTC"
    if not terms:
        return f"no version of {model} held a protected alias{then}\n", code
    heads = ("Alias", "Version", "Since (UTC)", "Until", "By", "Approved by", "model.onnx", "Entry")
    parts: list[Table | Line] = [Table(heads=heads, rows=_rows(terms))]
    if len(terms) == 1:
        parts += [
            Line(f"{name.removesuffix('_sha256'):9} {value}") for name, value in terms[0].evidence.items()
        ]
        if terms[0].reason:
            parts.append(Line(f"revoked: {terms[0].reason}", "bold red"))
    return render(parts), code


def export(root: Path, file: Path, checkpoint_file: Path | None) -> tuple[str, int]:
    """Write the ledger of a registry; return what to print, and the exit code.

    Raises:
        LeanGateError: if it cannot be read, does not hold together, or the file cannot be written.
    """
    from pipeline.files import write_text
    from pipeline.ledger.verification import verify_lines
    from pipeline.registry_acts import open_registry

    with open_registry(root) as registry:
        lines = list(registry.ledger())
        ledger = verify_lines(lines, None, registry.uri)
    write_text(file, "".join(f"{line}\n" for line in lines))
    checkpoint = json.dumps(json.loads(lines[-1])["checkpoint"], sort_keys=True)
    if checkpoint_file is not None:
        write_text(checkpoint_file, f"{checkpoint}\n")
    return f"{file}: {len(ledger.entries)} entries\ncheckpoint: {checkpoint}\n", 0


def verify(file: Path, trust: Sequence[Path], checkpoint: Path | None) -> tuple[str, int]:
    """Check an exported ledger; return what to print, and the exit code.

    Raises:
        InputError: if there is no such file, or no key to trust.
    """
    from checks.canonical import read_json
    from checks.errors import EvidenceError, InputError
    from pipeline.attestation.keys import read_trusted
    from pipeline.ledger.verification import expect_extends, read_checkpoint, read_export, verify_lines

    keys = {name: key for path in trust for name, key in read_trusted(path).items()} if trust else None
    earlier = None
    if checkpoint is not None:
        try:
            earlier = read_checkpoint(read_json(checkpoint), str(checkpoint))
        except EvidenceError as error:
            raise InputError(
                error.what,
                where=error.where,
                hint="`leangate ledger export FILE --checkpoint JSON` writes one",
            ) from error
    try:
        ledger = verify_lines(read_export(file), keys, str(file))
        if earlier is not None:
            expect_extends(ledger, earlier, str(file))
    except EvidenceError as error:
        hint = [Line(error.hint)] if error.hint else []
        return render([Line(str(error)), *hint, Line("NOT verified", "bold red")]), 1
    first, last = ledger.entries[0], ledger.entries[-1]
    by = ", ".join(key[:16] for key in ledger.keys) or "nobody"
    signed = (
        f"signed by {by}" if keys is not None else f"said to be signed by {by}, which --trust would check"
    )
    kept = [] if earlier is None else [Line(f"goes on from the checkpoint of {earlier.size} entries")]
    return render(
        [
            Line(f"{len(ledger.entries)} entries, {first.at:%Y-%m-%d %H:%M} to {last.at:%Y-%m-%d %H:%M} UTC"),
            Line(f"root {ledger.roots[-1]}"),
            Line(signed),
            *kept,
            Line("verified", "bold green"),
        ]
    ), 0
