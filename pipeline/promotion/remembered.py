# SPDX-License-Identifier: Apache-2.0
"""Digests of files that nobody touched since they were hashed, for who has to answer often."""

from __future__ import annotations

import time
from pathlib import Path

from checks.canonical import sha256_file

__all__ = ["remembered_sha256"]

_SETTLED_NS = 2_000_000_000
"""A clock of files ticks coarsely: what changed just now could change again without showing it."""
_MOST = 10_000
_digests: dict[str, tuple[tuple[int, ...], str]] = {}


def remembered_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hashed again whenever inode, size or one of its times is another.

    The kernel sets the time of change (ctime) itself, at every write and at every attempt to set other times.

    Raises:
        StorageError: if the file cannot be read.
    """
    try:
        stat = path.stat()
    except OSError:
        return sha256_file(path)  # says why
    state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    known = _digests.get(str(path))
    if known is not None and known[0] == state:
        return known[1]
    settled = time.time_ns() - stat.st_ctime_ns > _SETTLED_NS
    digest = sha256_file(path)
    if settled:
        if len(_digests) >= _MOST:
            _digests.clear()
        _digests[str(path)] = (state, digest)
    return digest
