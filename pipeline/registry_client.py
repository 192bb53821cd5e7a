# SPDX-License-Identifier: Apache-2.0
"""The connection to MLflow.

Where to is decided by `MLFLOW_TRACKING_URI` alone; without it, by `mlflow.db` and `mlruns/` beside
`dvc.yaml`. MLflow is kept quiet, its telemetry off, and every failure of it becomes a `RegistryError`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from checks.errors import BlockedError, InputError, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["DATABASES", "URI", "connected", "default_uri", "quiet", "redact"]

URI = "MLFLOW_TRACKING_URI"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_FIRST_CONTACT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
_AFTERWARDS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_MAX_MESSAGE = 1_000
_NO_SCHEME = re.compile(r"[\w.-]+:\d+(/.*)?")
_REFUSAL = "LeanGate refuses:"
"""How a gated registry's refusals begin."""


def redact(words: str) -> str:
    """Remove what a URI or a message about one could give away."""
    words = re.sub(r"//\S*@", "//***@", words)
    return re.sub(r"(?i)([?&][^=&\s]*(?:pass|pwd|token|secret|key)[^=&\s]*=)[^&\s]*", r"\1***", words)


def default_uri(root: Path) -> str:
    """Return the address of the database beside `dvc.yaml`."""
    # Relative, because MLflow and SQLAlchemy disagree on how an absolute path with blanks is quoted.
    return f"sqlite:///{Path(os.path.relpath(root / 'mlflow.db')).as_posix()}"


@contextlib.contextmanager
def _environment(values: Mapping[str, str], *, keep: bool) -> Iterator[None]:
    """Set environment variables for a while; with `keep`, what the user has set stands."""
    changed = {name: value for name, value in values.items() if not (keep and name in os.environ)}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep back what libraries tell their own authors; what goes wrong is raised all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401 - it sets the level of its logger

        logger = logging.getLogger("mlflow")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def _reported(uri: str) -> Iterator[None]:
    """Turn whatever MLflow and the libraries below it raise into one kind of error."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        words = redact(" ".join(str(error).split()))[:_MAX_MESSAGE]
        if _REFUSAL in words:
            raise BlockedError(f"the registry refuses: {words.partition(_REFUSAL)[2].strip()}") from error
        raise RegistryError(
            f"expected the registry to answer, got {type(error).__name__}: {words}",
            where=f"{URI} {redact(uri)}",
            hint="start the server or correct the variable; unset, mlflow.db beside dvc.yaml is used",
        ) from error


def _probe_database(uri: str) -> None:
    """Connect once: MLflow itself tries a wrong address for almost two minutes."""
    import sqlalchemy

    if uri.startswith("sqlite"):
        path = uri.partition(":///")[2].partition("?")[0]
        if path in ("", ":memory:"):
            raise ValueError("a database in memory, which would forget the registration")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    patient = uri.startswith(("postgresql", "mysql"))
    engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": 5} if patient else {})
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow quiet and its telemetry off; the environment is afterwards what it was."""
    with _environment(_QUIET, keep=False), _silence():
        yield


@contextlib.contextmanager
def connected(root: Path) -> Iterator[tuple[MlflowClient, str]]:
    """Yield a client and the URI it talks to; the process's environment is afterwards what it was."""
    chosen = os.environ.get(URI, "").strip()
    uri = chosen or default_uri(root)
    if _NO_SCHEME.fullmatch(uri):
        raise InputError(f"expected http:// or https:// before the address, got {redact(uri)!r}", where=URI)
    with _environment(_QUIET | {URI: uri}, keep=False), _silence():
        import mlflow

        with _reported(uri):
            if urlsplit(uri).scheme.split("+")[0] in DATABASES:
                _probe_database(uri)
            mlflow.set_tracking_uri(uri)
            try:
                with _environment(_FIRST_CONTACT, keep=True):
                    client = mlflow.MlflowClient()
                    client.search_experiments(max_results=1)
                with _environment(_AFTERWARDS, keep=True):
                    yield client, uri
            finally:
                mlflow.set_tracking_uri(None)
