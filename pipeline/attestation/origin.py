# SPDX-License-Identifier: Apache-2.0
"""Where a bundle comes from: the commit, the parameters, every output that DVC's lock names, by SHA-256."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checks.canonical import sha256_file, sha256_value
from checks.errors import InputError
from pipeline.params import load_yaml

__all__ = ["read_origin"]

_LATER = ("bundle", "register")
"""Stages that come after what is described: on a first run the lock does not name them yet."""


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit(root: Path) -> list[dict[str, Any]]:
    """The commit that is checked out; what differs from it is no part of it, and said."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return []
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    entry: dict[str, Any] = {"name": "git", "digest": {"gitCommit": commit}}
    return [entry | {"annotations": {"changed": changed != ""}}]


def _sha256(path: Path) -> str | None:
    if path.is_file():
        return sha256_file(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return sha256_value({file.relative_to(path).as_posix(): sha256_file(file) for file in files})
    return None


def _outs(root: Path) -> Iterator[dict[str, Any]]:
    lock = root / "dvc.lock"
    if not lock.is_file():
        return
    value = load_yaml(lock, InputError)
    stages = value.get("stages") if isinstance(value, dict) else None
    if not isinstance(stages, dict):
        raise InputError(
            "expected the stages of DVC's lock, got none", where=str(lock), hint="run `dvc repro`"
        )
    for stage in sorted(stages):
        if stage.partition("@")[0] in _LATER:
            continue
        outs = stages[stage].get("outs") if isinstance(stages[stage], dict) else None
        for out in outs or []:
            path, md5 = str(out["path"]), str(out.get("md5", "")).removesuffix(".dir")
            sha256 = _sha256(root / path)
            if sha256 is not None:
                digest = {"sha256": sha256} | ({"md5": md5} if md5 else {})
                yield {"name": path, "digest": digest, "annotations": {"stage": stage}}


def read_origin(root: Path) -> dict[str, Any]:
    """Return digests of what a bundle was made from.

    Folders have the SHA-256 of the canonical JSON of their files' paths and digests.

    Args:
        root: Folder of `dvc.yaml`.

    Raises:
        InputError: if there are no parameters, or DVC's lock is none.
    """
    params = root / "params.yaml"
    if not params.is_file():
        raise InputError(
            "expected the project's parameters, got no such file",
            where=str(params),
            hint="run it in the folder that holds dvc.yaml",
        )
    named = [
        {"name": name, "digest": {"sha256": sha256_file(root / name)}}
        for name in ("dvc.yaml", "params.yaml", "policy.yaml")
        if (root / name).is_file()
    ]
    return {
        "params": {"name": "params.yaml", "digest": {"sha256": sha256_file(params)}},
        "dependencies": [*_commit(root), *named, *_outs(root)],
    }
