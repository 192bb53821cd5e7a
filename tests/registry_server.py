# SPDX-License-Identifier: Apache-2.0
"""A real MLflow server on 127.0.0.1 for tests: gated or not, with users or without."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Reply", "Server", "registry_server"]

_READY_SECONDS = 90
_STOP_SECONDS = 15
_ADMIN = "admin"
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Reply:
    """What the server answered.

    Attributes:
        status: Of HTTP.
        body: As it came.
        seconds: Until it came.
    """

    status: int
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body as JSON; an empty object if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def reason(self) -> str:
        """The words of a refusal."""
        value = self.json
        return (
            str(value.get("message", "")) if isinstance(value, dict) else self.body.decode(errors="replace")
        )


@dataclass
class Server:
    """A running server.

    Attributes:
        uri: `http://127.0.0.1:port`.
        artifacts: Folder of its artifact store.
        users: Passwords by name; empty without authentication.
        log: File with everything it printed.
    """

    command: list[str]
    environment: dict[str, str]
    uri: str
    artifacts: Path
    users: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.log.parent,
                start_new_session=True,
            )
        end = time.monotonic() + _READY_SECONDS
        while self.call("GET", "/health", anonymous=True).status != 200:
            if self.process.poll() is not None or time.monotonic() > end:
                code = self.process.poll()
                self.stop()
                raise RuntimeError(f"the server did not come up (exit code {code}):\n{self.tail()}")
            time.sleep(0.1)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it and the workers it started, at the latest by SIGKILL."""
        if self.process is None:
            return
        group = self.process.pid
        for number, seconds in ((signal_number, _STOP_SECONDS), (signal.SIGKILL, _STOP_SECONDS)):
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            # Workers may outlive the process that started them.
            for _ in range(seconds * 20):
                try:
                    os.killpg(group, 0)
                except ProcessLookupError:
                    break
                time.sleep(0.05)
            else:
                continue
            break
        self.process.wait()
        self.process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        self.stop(signal.SIGKILL)

    def tail(self, lines: int = 60) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: str = "",
        anonymous: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request, without MLflow's client and its retries.

        Args:
            method: Of HTTP.
            path: With the leading slash, as it is sent.
            body: Bytes as they are, anything else as JSON.
            user: Whose name and password go along; by default the first user there is.
            anonymous: Nobody's.
            headers: More of them.
        """
        sent = dict(headers or {})
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if body is not None:
            kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
            sent.setdefault("Content-Type", kind)
        if self.users and not anonymous:
            name = user or next(iter(self.users))
            pair = base64.b64encode(f"{name}:{self.users[name]}".encode()).decode()
            sent["Authorization"] = f"Basic {pair}"
        request = urllib.request.Request(self.uri + path, data=data, method=method, headers=sent)
        began = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        except (urllib.error.URLError, OSError) as error:
            status, content = 0, str(error).encode()
        return Reply(status, content, time.monotonic() - began)

    @contextmanager
    def client(self, user: str = "") -> Iterator[Any]:
        """MLflow's own client, as a user, retrying as often as it does by default."""
        import mlflow

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", self.uri)
            patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
            patch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
            for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
                patch.delenv(name, raising=False)
            if self.users:
                name = user or next(iter(self.users))
                patch.setenv("MLFLOW_TRACKING_USERNAME", name)
                patch.setenv("MLFLOW_TRACKING_PASSWORD", self.users[name])
            mlflow.set_tracking_uri(self.uri)
            try:
                yield mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            finally:
                mlflow.set_tracking_uri(None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _authentication(folder: Path, users: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    passwords = {name: secrets.token_urlsafe(18) for name in (*users, _ADMIN)}
    (folder / "auth.ini").write_text(
        "[mlflow]\n"
        "default_permission = EDIT\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\n"
        f"admin_username = {_ADMIN}\n"
        # Read by older releases, where the variable is not.
        f"admin_password = {passwords[_ADMIN]}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Checking a password takes a tenth of a second, and a test sends hundreds of requests.
        "auth_cache_ttl_seconds = 600\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
    }
    return passwords, environment


@contextmanager
def registry_server(
    folder: Path,
    *,
    backend: str = "",
    registry: str = "",
    artifacts: str = "worm+file",
    users: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    options: tuple[str, ...] = (),
) -> Iterator[Server]:
    """Start a server; when the block is left, it and its workers are gone.

    Args:
        folder: Empty; databases, artifacts and the log come here.
        backend: URI of the tracking store; by default `sqlite:///FOLDER/mlflow.db`.
        registry: URI of the registry store; by default `gated+` before the tracking store's.
        artifacts: Scheme of the artifact store, `worm+file` or `file`.
        users: Who is let in beside `admin`, each with EDIT; nobody is asked for a name if empty.
        environment: More variables of the server.
        python: With MLflow installed.
        options: More arguments of `mlflow server`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backend = backend or f"sqlite:///{folder / 'mlflow.db'}"
    passwords, authentication = _authentication(folder, users) if users else ({}, {})
    port = _free_port()
    command = [
        *(python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", backend, "--registry-store-uri", registry or f"gated+{backend}"),
        *("--serve-artifacts", "--artifacts-destination", f"{artifacts}://{folder / 'artifacts'}"),
        *(("--app-name", "basic-auth") if users else ()),
        *options,
    ]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    server = Server(
        command=command,
        environment=inherited | _QUIET | authentication | dict(environment or {}),
        uri=f"http://127.0.0.1:{port}",
        artifacts=folder / "artifacts",
        users=passwords,
        log=folder / "server.log",
    )
    try:
        server.start()
        for name in users:
            made = server.call(
                "POST",
                "/api/2.0/mlflow/users/create",
                {"username": name, "password": passwords[name]},
                user=_ADMIN,
            )
            assert made.status == 200, made.reason
        yield server
    except BaseException:
        # Shown by pytest below the failure of whichever test or fixture it was.
        sys.stderr.write(f"--- {server.log}\n{server.tail()}\n")
        raise
    finally:
        server.stop()
