# SPDX-License-Identifier: Apache-2.0
"""A private PostgreSQL for tests, in a folder of its own, reachable on 127.0.0.1 with a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["REQUIRED", "Postgres", "postgres_cluster"]

REQUIRED = "LEANGATE_REQUIRE_POSTGRES"
"""Environment variable: if set, a missing PostgreSQL fails the tests that need it and skips none."""

_USER = "leangate"


@dataclass(frozen=True)
class Postgres:
    """A running cluster.

    Attributes:
        port: On 127.0.0.1.
        password: Of its one user.
    """

    port: int
    password: str

    def database(self, name: str) -> str:
        """Make an empty database; return its URI for SQLAlchemy."""
        import pg8000.native

        with pg8000.native.Connection(
            _USER, host="127.0.0.1", port=self.port, database="postgres", password=self.password
        ) as connection:
            connection.run(f"CREATE DATABASE {pg8000.native.identifier(name)}")
        return f"postgresql+pg8000://{_USER}:{self.password}@127.0.0.1:{self.port}/{name}"


def _missing(why: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, but {why}")
    pytest.skip(why)


def _programs() -> Path:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not places or not (places[-1] / "initdb").is_file():
        _missing("PostgreSQL is not installed (Debian and Ubuntu: apt-get install postgresql)")
    return places[-1]


def _owner() -> int | None:
    """Return as whom to run it: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_uid
    except KeyError:
        _missing("PostgreSQL does not run as root, and there is no user `postgres` to run it as")
        raise


@contextmanager
def postgres_cluster() -> Iterator[Postgres]:
    """Start a cluster; when the block is left, it and its files are gone."""
    programs, owner = _programs(), _owner()
    # Not below pytest's folders, which other users cannot enter; short, as a socket's path has to be.
    folder = Path(tempfile.mkdtemp(prefix="leangate-pg-"))
    data, password = folder / "data", secrets.token_urlsafe(18)
    try:
        (folder / "password").write_text(password)
        if owner is not None:
            group = pwd.getpwuid(owner).pw_gid
            for path in (folder, folder / "password"):
                os.chown(path, owner, group)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])

        def run(program: str, *arguments: str) -> None:
            # Its output goes to a file: the server inherits a pipe and would keep it open.
            with (folder / "out").open("ab") as out:
                done = subprocess.run(
                    [programs / program, *arguments],
                    cwd=folder,
                    stdout=out,
                    stderr=out,
                    user=owner,
                    check=False,
                )
            if done.returncode:
                log = folder / "log"
                words = (folder / "out").read_text() + (log.read_text() if log.exists() else "")
                raise RuntimeError(f"{program} failed:\n{words}")

        run(
            *("initdb", "-D", str(data), "-U", _USER, "-E", "UTF8", "--locale=C", "--no-sync"),
            *("--auth=scram-sha-256", f"--pwfile={folder / 'password'}"),
        )
        settings = f"-h 127.0.0.1 -p {port} -k {folder} -F"
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", settings, "start")
        try:
            yield Postgres(port, password)
        finally:
            run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
