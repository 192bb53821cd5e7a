# SPDX-License-Identifier: Apache-2.0
"""The files of a folder that somebody else made: counted, bounded and named before any is read."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from checks.canonical import MAX_JSON_BYTES
from checks.errors import EvidenceError, LeanGateError, StorageError
from checks.tables import MAX_TABLE_BYTES
from pipeline.params import MAX_YAML_BYTES

__all__ = ["expect_names", "list_files"]

_MOST_ENTRIES = 1_000
_DEEPEST = 8
_LARGEST = {
    ".json": MAX_JSON_BYTES,
    ".jsonl": 16 * 1024**2,
    ".md": 16 * 1024**2,
    ".onnx": 2 * 1024**3,  # what a Protocol Buffers message may have
    ".yaml": MAX_YAML_BYTES,
}
_LARGEST_TOTAL = 16 * 1024**3

_NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}/){0,7}[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def _unreadable(path: Path, error: OSError) -> LeanGateError:
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):  # swapped for a link or a device since
        return EvidenceError("expected files, got a link or a device", where=str(path))
    return StorageError(f"expected a readable file or folder, got {error.strerror}", where=str(path))


def _size(path: Path) -> int:
    """Return the size of a regular file that can be opened; no link is followed, no device waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise EvidenceError("expected files, got a link or a device", where=str(path))
    limit = _LARGEST.get(path.suffix, MAX_TABLE_BYTES)
    if status.st_size > limit:
        raise EvidenceError(f"expected at most {limit:,} bytes, got {status.st_size:,}", where=str(path))
    return status.st_size


def _entries(folder: Path, depth: int, budget: list[int]) -> Iterator[os.DirEntry[str]]:
    """Yield entries below `folder` that are files, and stop at the first too many."""
    if depth > _DEEPEST:
        raise EvidenceError(f"expected at most {_DEEPEST} folders in each other", where=str(folder)[:400])
    try:
        with os.scandir(folder) as found:
            for entry in found:
                budget[0] -= 1
                if budget[0] < 0:
                    raise EvidenceError(
                        f"expected at most {_MOST_ENTRIES} files, got more", where=str(folder)
                    )
                if not entry.name.isprintable() or "\\" in entry.name:
                    raise EvidenceError(
                        f"expected names of printable characters without \\, got {ascii(entry.name)[:120]}",
                        where=str(folder),
                    )
                if entry.is_symlink():
                    raise EvidenceError("expected files, got a link or a device", where=entry.path)
                if entry.is_dir(follow_symlinks=False):
                    yield from _entries(Path(entry.path), depth + 1, budget)
                else:
                    yield entry
    except OSError as error:
        raise _unreadable(folder, error) from error


def _expect_one_case(names: Iterable[str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise EvidenceError(
                f"expected names that differ by more than case, got {other} and {name}", where=where
            )


def list_files(folder: Path) -> dict[str, Path]:
    """Return every file below `folder` by its POSIX path, in order.

    Raises:
        EvidenceError: if there is no such folder; if it holds links or devices, since what lies elsewhere is
            not what ships; or too many or too large files, or names that another system reads otherwise.
        StorageError: if a file or folder cannot be read.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise EvidenceError("expected the folder of a bundle, got none", where=str(folder))
    found: dict[str, Path] = {}
    total = 0
    for entry in _entries(folder, 0, [_MOST_ENTRIES]):
        path = Path(entry.path)
        total += _size(path)
        if total > _LARGEST_TOTAL:
            raise EvidenceError(f"expected at most {_LARGEST_TOTAL:,} bytes, got more", where=str(folder))
        found[path.relative_to(folder).as_posix()] = path
    _expect_one_case(found, str(folder))
    return dict(sorted(found.items()))


def expect_names(names: Iterable[str], where: str) -> None:
    """Refuse names that are not those of files below a bundle, on any system.

    Args:
        names: As a manifest has them.
        where: The manifest, for the message.

    Raises:
        EvidenceError: naming the first that leaves the folder, is absolute, or clashes with another.
    """
    kept = sorted(names)
    for name in kept:
        if not _NAME.fullmatch(name):
            raise EvidenceError(
                "expected names of files below the bundle, of letters, digits, '.', '_', '-' and '/', got "
                f"{ascii(name)[:120]}",
                where=where,
                hint="whoever wrote this name may mean a file outside; do not unpack such a bundle",
            )
    _expect_one_case(kept, where)
