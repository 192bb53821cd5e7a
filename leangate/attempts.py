# SPDX-License-Identifier: Apache-2.0
"""`leangate attempts merge`: what another branch showed a test split counts here, too."""

from __future__ import annotations

from pathlib import Path

__all__ = ["HELP", "merge"]

HELP = """Enter the attempts of another branch's attempts.jsonl that this one lacks, after its own: both
looked at the same examples. Candidates that both know keep the number they have here.

exit codes:
  0  entered, or there was nothing to enter
  4  one of the files is missing, or was changed other than by growing
"""


def merge(root: Path, other: Path) -> tuple[str, int]:
    """Return what to print, and the exit code.

    Raises:
        EvidenceError: if one of the files is missing, or was changed other than by growing.
        StorageError: if the file cannot be written.
    """
    from checks.attempts import merge_rounds, read_rounds
    from pipeline.files import write_text
    from pipeline.layout import Layout

    path = Layout(root).attempts_file
    ours = read_rounds(path)
    merged = merge_rounds(ours, read_rounds(other))
    new = merged[len(ours) :]
    if new:
        write_text(path, "".join(f"{entry.line}\n" for entry in merged))
    candidates = sum(len(entry.candidates) for entry in new)
    return f"{candidates} candidate{'' if candidates == 1 else 's'} of {other} entered into {path}\n", 0
