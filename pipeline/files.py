# SPDX-License-Identifier: Apache-2.0
"""Outputs appear whole or not at all: write to a temporary name, fsync, rename."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checks.canonical import dumps
from checks.errors import StorageError

__all__ = ["output_dir", "output_file", "write_bytes", "write_json", "write_text"]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"expected to write this output, got {error.strerror or error}",
        where=str(path),
        hint="free disk space or fix the folder's permissions, then run again; nothing was half written",
    )


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed writer of the same output left behind; DVC never runs a stage twice at once."""
    for leftover in path.parent.glob(f".{path.name}.tmp-*"):
        _remove(leftover)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it disappears.

    Raises:
        StorageError: if the file cannot be written (no space, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
        try:
            inner = temporary / path.name
            yield inner
            _sync(inner)
            os.replace(inner, path)
            _sync(path.parent)
        finally:
            _remove(temporary)
    except OSError as error:
        raise _storage_error(path, error) from error


@contextmanager
def output_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces `path`, on any error it disappears.

    Raises:
        StorageError: if the folder cannot be written (no space, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
        try:
            inner = temporary / path.name
            inner.mkdir()
            yield inner
            for entry in sorted(inner.rglob("*")):
                _sync(entry)
            _sync(inner)
            if path.exists():
                os.rename(path, temporary / "replaced")
            os.rename(inner, path)
            _sync(path.parent)
        finally:
            _remove(temporary)
    except OSError as error:
        raise _storage_error(path, error) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with output_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as canonical JSON, whole or not at all."""
    write_text(path, dumps(value))
