# SPDX-License-Identifier: Apache-2.0
"""Whether an MLflow server enforces what a gated registry promises, asked without changing anything.

Every question is one that a gated registry answers in words no other server has. What it refuses, it
writes into its ledger; nothing else comes of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from checks.errors import InputError, RegistryError
from pipeline.registry_client import DATABASES, quiet, redact

if TYPE_CHECKING:
    from requests import Response

__all__ = ["Probe", "probe_registry"]

State = Literal["holds", "missing", "unknown"]

_API = "/api/2.0/mlflow"
_REFUSES = "LeanGate refuses:"
_WRITE_ONCE = "write-once storage:"
_LEDGER = "leangate:ledger/0"
_NO_VERSION = "999999999"
"""MLflow itself finds no such version, so that nothing changes where nothing refuses."""
_NO_EVIDENCE = "expected a version whose evidence was derived"
_NO_STAGE = "expected another stage than Production"
_SECONDS = 10
_MAX_WORDS = 300


@dataclass(frozen=True)
class Probe:
    """What was asked, and what was seen.

    Attributes:
        name: What should hold.
        state: Whether it does.
        said: What was seen, and what to do.
    """

    name: str
    state: State
    said: str


@dataclass(frozen=True)
class _Answer:
    status: int
    words: str


class _Server:
    """A server, asked once each time, without the retries of MLflow's client."""

    def __init__(self, uri: str, model: str | None) -> None:
        self.uri = uri.rstrip("/")
        self.model = model or f"leangate-doctor-{secrets.token_hex(8)}"

    def ask(self, method: str, path: str, *, anonymous: bool = False, **more: Any) -> _Answer:
        """Send one request with the credentials that MLflow's client would send.

        Raises:
            RegistryError: if nobody answers.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.tracking._tracking_service.utils import get_default_host_creds
        from mlflow.utils.rest_utils import MlflowHostCreds, http_request

        known = get_default_host_creds(self.uri)
        creds = MlflowHostCreds(self.uri, ignore_tls_verification=known.ignore_tls_verification)
        try:
            response: Response = http_request(
                creds if anonymous else known,
                path,
                method,
                max_retries=0,
                timeout=_SECONDS,
                raise_on_status=False,
                **more,
            )
        except (MlflowException, OSError) as error:
            words = redact(" ".join(str(error).split()))[:_MAX_WORDS]
            raise RegistryError(
                f"expected an MLflow server, got no answer: {words}",
                where=redact(self.uri),
                hint="start it, or name another with --registry or MLFLOW_TRACKING_URI",
            ) from error
        try:
            value = response.json()
            words = str(value["message"]) if isinstance(value, dict) and "message" in value else response.text
        except ValueError:
            words = response.text
        return _Answer(response.status_code, " ".join(words.split()))


def _unclear(name: str, answer: _Answer) -> Probe:
    if answer.status == 401:
        hint = "give a user's MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    elif answer.status == 403:
        hint = "name a registered model that you may edit with --model"
    else:
        hint = "look into the server's log"
    words = redact(answer.words)[:_MAX_WORDS] or "nothing"
    return Probe(name, "unknown", f"HTTP {answer.status}: {words} ({hint})")


def _version(server: _Server) -> Probe:
    name = "server"
    answer = server.ask("GET", "/version")
    if answer.status == 200 and len(answer.words) <= 40 and answer.words[:1].isdigit():
        return Probe(name, "holds", f"MLflow {answer.words}")
    return _unclear(name, answer)


def _authentication(server: _Server) -> Probe:
    name = "authentication"
    answer = server.ask("GET", f"{_API}/experiments/search", anonymous=True, params={"max_results": 1})
    if answer.status == 401:
        return Probe(name, "holds", "who gives no name and password is answered 401")
    if answer.status == 200:
        return Probe(
            name,
            "missing",
            "anybody is answered: who did something stays unknown, and approvals rest on keys alone; start "
            "the server with --app-name basic-auth",
        )
    return _unclear(name, answer)


def _refusal(name: str, answer: _Answer, reason: str, held: str) -> Probe:
    """Judge the answer to something that only a gated registry refuses in words of its own."""
    if _REFUSES in answer.words:
        why = answer.words.partition(_REFUSES)[2].strip()
        if reason not in why:
            return Probe(
                name, "missing", f"refused, but nothing could be promoted either: {why[:_MAX_WORDS]}"
            )
        return Probe(name, "holds", f"{held}: {why.partition(' (')[0][:_MAX_WORDS]}")
    if answer.status == 404 or "RESOURCE_DOES_NOT_EXIST" in answer.words or "not found" in answer.words:
        return Probe(
            name,
            "missing",
            "the request was looked into without asking for evidence; start the server with "
            "--registry-store-uri gated+sqlite:///... or gated+postgresql://...",
        )
    if answer.status == 400 and "gated+" in answer.words:
        return Probe(
            name,
            "missing",
            "the server's registry is gated, and LeanGate is not installed there: every call fails",
        )
    return _unclear(name, answer)


def _alias(server: _Server) -> Probe:
    body = {"name": server.model, "alias": "production", "version": _NO_VERSION}
    answer = server.ask("POST", f"{_API}/registered-models/alias", json=body)
    return _refusal(
        "alias production", answer, _NO_EVIDENCE, "of a version that does not exist it is refused"
    )


def _stage(server: _Server) -> Probe:
    body: dict[str, Any] = {"name": server.model, "version": _NO_VERSION, "stage": "Production"}
    body["archive_existing_versions"] = False
    answer = server.ask("POST", f"{_API}/model-versions/transition-stage", json=body)
    return _refusal("stage Production", answer, _NO_STAGE, "it is refused")


def _ledger(server: _Server) -> Probe:
    name = "ledger"
    answer = server.ask("GET", f"{_API}/registered-models/get", params={"name": _LEDGER})
    if answer.status == 200 and "leangate/ledger/" in answer.words:
        return Probe(name, "holds", "the registry keeps one, and shows it to whoever may read")
    if answer.status == 403 and _REFUSES not in answer.words:
        return _unclear(name, answer)
    if answer.status in (200, 400, 404):
        return Probe(name, "missing", "nothing is written down of what was done and refused")
    return _unclear(name, answer)


def _artifacts(server: _Server) -> Probe:
    """Ask for a name that write-once storage reserves: nothing is written, on any kind of storage."""
    name = "artifacts"
    answer = server.ask("GET", "/api/2.0/mlflow-artifacts/artifacts/.leangate-doctor")
    if _WRITE_ONCE in answer.words:
        return Probe(
            name, "holds", "files that were published cannot be overwritten or deleted through the server"
        )
    if answer.status == 404:
        return Probe(
            name,
            "missing",
            "files can be overwritten through the server; start it with --artifacts-destination worm+file:///...",
        )
    if answer.status == 503:
        return Probe(
            name,
            "missing",
            "the server keeps none, clients reach the storage by themselves; start it with --serve-artifacts",
        )
    if answer.status in (401, 403):
        return _unclear(name, answer)
    return Probe(
        name,
        "unknown",
        f"HTTP {answer.status}: another kind of storage, whose own settings decide (docs/write-once.md)",
    )


_PROBES: tuple[Callable[[_Server], Probe], ...] = (
    _version,
    _authentication,
    _alias,
    _stage,
    _ledger,
    _artifacts,
)


def probe_registry(uri: str, model: str | None = None) -> list[Probe]:
    """Ask a registry whether it enforces.

    Args:
        uri: As MLflow's clients are given it.
        model: A registered model that may be edited; by default a name that nobody uses.

    Raises:
        InputError: if it is no address of a registry.
        RegistryError: if nobody answers there.
    """
    scheme = urlsplit(uri).scheme
    if scheme.removeprefix("gated+").split("+")[0] in (*DATABASES, "file", ""):
        return [
            Probe(
                "server",
                "missing",
                f"{redact(uri)} is no server: whoever has its address may write past every gate; what "
                "LeanGate checks there is advice",
            )
        ]
    if scheme not in ("http", "https") or not urlsplit(uri).netloc:
        raise InputError(
            f"expected the address of an MLflow server, got {redact(uri)!r}"[:_MAX_WORDS],
            where="leangate doctor --registry",
            hint="as in http://127.0.0.1:5000",
        )
    with quiet():
        server = _Server(uri, model)
        return [probe(server) for probe in _PROBES]
