# SPDX-License-Identifier: Apache-2.0
"""From an artifact's URI to its files, inside the server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from checks.errors import EvidenceError, LeanGateError

__all__ = ["expect_kept_here", "files_of", "seal"]

_DESTINATION = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
_LOCAL = ("", "file", "worm+file")


def _resolve(uri: str) -> str:
    """Return where the server keeps what clients know by `mlflow-artifacts:`."""
    parts = urlsplit(uri)
    if parts.scheme != "mlflow-artifacts":
        return uri
    base = os.environ.get(_DESTINATION, "")
    if not base:
        raise EvidenceError("expected the server to keep its artifacts itself", where=uri)
    path = unquote(parts.path).lstrip("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise EvidenceError("expected a plain path, got one that leads elsewhere", where=uri)
    return f"{base.rstrip('/')}/{path}"


def expect_kept_here(uri: str) -> None:
    """Refuse artifacts that lie past the store of a server that keeps artifacts itself.

    Raises:
        EvidenceError: naming where they lie.
    """
    parts = urlsplit(uri)
    # With a host in it, readers would ask that host, and what is hashed here would be other files.
    if os.environ.get(_DESTINATION) and (
        parts.scheme != "mlflow-artifacts" or parts.netloc or parts.query or parts.fragment
    ):
        raise EvidenceError(
            "expected files in the server's own artifact store, got some elsewhere",
            where=uri,
            hint="log them into an experiment without an artifact location of its own",
        )


def _local_path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme not in _LOCAL or parts.netloc not in ("", "localhost"):
        return None
    return Path(unquote(parts.path) if parts.scheme else uri)


def seal(uri: str) -> None:
    """Let nobody add files to an artifact any more, where it lies in write-once storage."""
    from leangate.plugins.write_once import SCHEME
    from leangate.plugins.write_once import seal as seal_folder

    place = _resolve(uri)
    if urlsplit(place).scheme == SCHEME:
        seal_folder(Path(unquote(urlsplit(place).path)))


@contextmanager
def _told_as(uri: str, folder: Path) -> Iterator[None]:
    """Name files in errors as clients know them: where a server keeps them is nothing to tell."""
    try:
        yield
    except LeanGateError as error:
        where, what = (words.replace(str(folder), uri) for words in (error.where, error.what))
        raise type(error)(what, where=where, hint=error.hint.replace(str(folder), uri)) from error


@contextmanager
def files_of(uri: str) -> Iterator[Path]:
    """Yield the folder of an artifact; one that lies on another machine is fetched, and removed afterwards.

    Raises:
        EvidenceError: if there is none.
    """
    place = _resolve(uri)
    local = _local_path(place)
    if local is not None:
        if not local.is_dir():
            raise EvidenceError("expected the files of an artifact, got none", where=uri)
        with _told_as(uri, local):
            yield local
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory(prefix="leangate-") as folder:
        try:
            fetched = get_artifact_repository(place).download_artifacts("", folder)
        except Exception as error:  # of as many libraries as there are stores
            raise EvidenceError(
                f"expected to fetch the files of an artifact, got {type(error).__name__}", where=uri
            ) from error
        with _told_as(uri, Path(fetched)):
            yield Path(fetched)
