# SPDX-License-Identifier: Apache-2.0
"""One SHA-256 for the code that measures, so that evidence made by other code is recognised."""

from __future__ import annotations

from pathlib import Path

from checks.canonical import sha256_file, sha256_value
from checks.errors import StorageError

__all__ = ["code_sha256"]


def code_sha256(folder: Path | None = None) -> str:
    """Return the SHA-256 over the sorted pairs of relative path and SHA-256 of every probe's source file.

    It covers what `dvc.yaml` names as the code of `evaluate` and of `time` alike: a change elsewhere, in a
    report say, makes no evidence stale.

    Args:
        folder: Folder of the probes; by default the one this very code was imported from.

    Raises:
        StorageError: if the folder holds no source files or one cannot be read.
    """
    folder = folder or Path(__file__).resolve().parent
    files = sorted(folder.rglob("*.py"))
    if not files:
        raise StorageError("expected Python files, got none", where=str(folder))
    return sha256_value(sorted([path.relative_to(folder).as_posix(), sha256_file(path)] for path in files))
