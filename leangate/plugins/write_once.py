# SPDX-License-Identifier: Apache-2.0
"""Artifact storage in which nothing that was published can change: `worm+file:///path`.

For the server, as `mlflow server --artifacts-destination worm+file:///path`; clients need no plugin. It is
built on the public contract of `ArtifactRepository` alone: a way to write that a later MLflow adds to its
own local storage is not inherited, so it cannot go around the one method here that publishes.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.store.artifact.artifact_repo import ArtifactRepository

__all__ = ["SCHEME", "WriteOnceArtifactRepository", "seal"]

SCHEME = "worm+file"
"""Scheme of the URIs this repository serves."""

_RESERVED = ".leangate-"
_STAGING = f"{_RESERVED}staging-"
_SEALED = f"{_RESERVED}sealed-"
_READ_ONLY = 0o444
_READ_ONLY_FOLDER = 0o555


def _refused(path: str, why: str, code: int) -> MlflowException:
    return MlflowException(f"write-once storage: {path!r}: {why}", error_code=code)


def _root(uri: str) -> Path:
    """Return the folder a URI names, made if it is not there.

    Raises:
        MlflowException: if the URI is no `worm+file:///absolute/path`.
    """
    parts = urlsplit(uri)
    path = url2pathname(parts.path)
    if (
        parts.scheme != SCHEME
        or parts.netloc
        or parts.query
        or parts.fragment
        or not Path(path).is_absolute()
    ):
        raise _refused(uri, f"expected {SCHEME}:///absolute/path", INVALID_PARAMETER_VALUE)
    root = Path(path)
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve(strict=True)


def _parts(path: str) -> tuple[str, ...]:
    """Split a path of an artifact; every file has exactly one path that is accepted.

    Raises:
        MlflowException: if a part is empty, a dot or two, reserved, or holds a control character.
    """
    parts = tuple(path.split("/"))
    for part in parts:
        if (
            part in ("", ".", "..")
            or part.startswith(_RESERVED)
            or "\\" in part
            or any(unicodedata.category(character) in ("Cc", "Cs") for character in part)
        ):
            raise _refused(path, f"the part {part!r} is not accepted", INVALID_PARAMETER_VALUE)
    return parts


def _folded(name: str) -> str:
    """Return a name without what some systems ignore: case, escapes, invisible characters, a blank end."""
    plain = unicodedata.normalize("NFKC", unquote(name))
    visible = "".join(c for c in plain if unicodedata.category(c) not in ("Cc", "Cf"))
    return unicodedata.normalize("NFKC", visible.casefold()).rstrip(". ")


def _mark(folder: Path) -> Path:
    # Beside the folder, so that what is in it stays what it was.
    return folder.with_name(_SEALED + folder.name)


def seal(folder: Path) -> None:
    """Let no file be added below a folder any more: a new file changes what a reader is given, too.

    This storage refuses by a mark. Where the server does not run as root, the folder's mode stops MLflow's
    own local storage too, which an experiment with a location of its own may point here.

    Args:
        folder: Of the storage; sealing it again changes nothing.
    """
    for inner, _, _ in os.walk(folder, topdown=False):
        Path(inner).chmod(_READ_ONLY_FOLDER)
    mark = _mark(folder)
    mark.touch(_READ_ONLY, exist_ok=True)
    _sync(mark.parent)


class WriteOnceArtifactRepository(ArtifactRepository):
    """Artifacts as read-only files in a folder; a path, once published, keeps its bytes.

    The same bytes again succeed and change nothing: a client that lost the answer to its upload may repeat
    it. Other bytes, deleting, symbolic links and spellings that another file system would take for an
    existing name are refused with HTTP 400 or 403, which MLflow's client does not retry.

    Args:
        artifact_uri: `worm+file:///absolute/path`.
        tracking_uri: As MLflow passes it.
        registry_uri: As MLflow passes it.

    Raises:
        MlflowException: if the URI is another one.
    """

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._folder = _root(artifact_uri)
        self._remove_leftovers()

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Publish one file.

        Raises:
            MlflowException: if its path is taken by other bytes, or is not accepted.
        """
        name = Path(local_file).name
        self._publish(Path(local_file), f"{artifact_path}/{name}" if artifact_path else name)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Publish every file of a folder, in the order of their names.

        Raises:
            MlflowException: at the first file whose path is taken by other bytes, or is not accepted.
        """
        for folder, folders, names in os.walk(local_dir, followlinks=True):
            folders.sort()
            for name in sorted(names):
                source = Path(folder, name)
                inner = source.relative_to(local_dir).as_posix()
                self._publish(source, f"{artifact_path}/{inner}" if artifact_path else inner)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Refuse.

        Raises:
            MlflowException: always.
        """
        raise _refused(artifact_path or "", "artifacts are kept; nothing is deleted", PERMISSION_DENIED)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return what is in a folder, by path; nothing for a file or for what is not there."""
        folder = self._locate(path)
        if not folder.is_dir():
            return []
        infos = []
        for name in sorted(entry.name for entry in folder.iterdir()):
            if not name.startswith(_RESERVED):
                found = (folder / name).lstat()
                inner = stat.S_ISDIR(found.st_mode)
                infos.append(
                    FileInfo(f"{path}/{name}" if path else name, inner, None if inner else found.st_size)
                )
        return infos

    def get_local_path(self, artifact_path: str) -> str:
        """Return where the server finds an artifact; clients are given copies.

        Raises:
            MlflowException: if it is not there, or behind a symbolic link.
        """
        path = self._locate(artifact_path)
        if not path.exists():
            raise _refused(artifact_path, "no such artifact", RESOURCE_DOES_NOT_EXIST)
        return str(path)

    def _is_directory(self, artifact_path: str | None) -> bool:
        return self._locate(artifact_path).is_dir()

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        shutil.copyfile(self.get_local_path(remote_file_path), local_path)

    def _locate(self, path: str | None) -> Path:
        """Return where an artifact is or would be, after a look at every part for symbolic links."""
        place = self._folder
        for part in _parts(path) if path else ():
            place /= part
            if place.is_symlink():
                raise _refused(path or "", "is behind a symbolic link", PERMISSION_DENIED)
        return place

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and workers of this folder out; the system lets go when a process dies."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _remove_leftovers(self) -> None:
        """Remove what uploads left whose process died; one that still runs holds a lock on its file."""
        with self._alone():
            for leftover in self._folder.glob(f"{_STAGING}*"):
                with suppress(OSError), leftover.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    leftover.unlink()

    def _publish(self, source: Path, path: str) -> None:
        """Copy a file aside, then link it to its path, which fails if something is there."""
        parts = _parts(path)
        with self._alone():
            descriptor, name = tempfile.mkstemp(prefix=_STAGING, dir=self._folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        staged = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as target, source.open("rb") as origin:
                shutil.copyfileobj(origin, target, 1 << 20)
                target.flush()
                os.fchmod(target.fileno(), _READ_ONLY)
                os.fsync(target.fileno())
                with self._alone():
                    self._link(staged, parts, path)
        finally:
            staged.unlink(missing_ok=True)

    def _link(self, staged: Path, parts: tuple[str, ...], path: str) -> None:
        place = self._folder
        for depth, part in enumerate(parts, start=1):
            self._check_name(place, part, path)
            folder, place = place, place / part
            last = depth == len(parts)
            if not os.path.lexists(place):
                self._check_open(folder, path)
                if not last:
                    place.mkdir()
                else:
                    os.link(staged, place)
                _sync(folder)
                continue
            kind = place.lstat().st_mode
            if stat.S_ISLNK(kind):
                raise _refused(path, "is behind a symbolic link", PERMISSION_DENIED)
            if not last and stat.S_ISDIR(kind):
                continue
            if last and stat.S_ISREG(kind) and filecmp.cmp(staged, place, shallow=False):
                return
            raise _refused(path, f"{part!r} was published before and is kept", RESOURCE_ALREADY_EXISTS)

    @staticmethod
    def _check_open(folder: Path, path: str) -> None:
        """Refuse a new name below a sealed folder, also where this repository serves a part of it."""
        sealed = next(
            (above for above in (folder, *folder.parents) if above.name and _mark(above).exists()), None
        )
        if sealed is not None:
            why = f"nothing is added to {sealed.name!r}, which a registered version consists of"
            raise _refused(path, why, PERMISSION_DENIED)

    @staticmethod
    def _check_name(folder: Path, name: str, path: str) -> None:
        """Refuse a new name that would overwrite an old one where a client that ignores case unpacks both."""
        if os.path.lexists(folder / name):
            return
        twin = next((old.name for old in folder.iterdir() if _folded(old.name) == _folded(name)), None)
        if twin is not None:
            raise _refused(path, f"{name!r} is another spelling of {twin!r}", RESOURCE_ALREADY_EXISTS)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
