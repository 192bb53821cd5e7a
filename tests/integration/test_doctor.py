# SPDX-License-Identifier: Apache-2.0
"""doctor: what it says of servers that enforce, and of such that do not."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from leangate.cli import main
from tests.governed_registry import Keys, governed_keys
from tests.registry_server import Server, registry_server

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mlflow")]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return governed_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def enforcing(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("enforcing")
    environment = {"LEANGATE_REGISTRY": str(keys.config)}
    with registry_server(folder, users=("author", "reader"), environment=environment) as server:
        server.call("POST", "/api/2.0/mlflow/registered-models/create", {"name": "mine"}, user="author")
        yield server


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Gated, but without users, configuration and write-once storage."""
    with registry_server(tmp_path_factory.mktemp("open"), artifacts="file") as server:
        yield server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("plain")
    with registry_server(folder, registry=f"sqlite:///{folder / 'mlflow.db'}", artifacts="file") as server:
        yield server


@pytest.fixture(scope="module")
def without_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry URI whose scheme the server does not know, as ours is where LeanGate is not installed."""
    folder = tmp_path_factory.mktemp("without")
    registry = f"gated+nothing:///{folder / 'mlflow.db'}"
    with registry_server(folder, registry=registry, artifacts="file") as server:
        yield server


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, dict[str, str]]:
    capsys.readouterr()
    code = main(["doctor", *arguments, "--json"])
    value = json.loads(capsys.readouterr().out)
    return code, value["enforces"], {probe["name"]: probe["state"] for probe in value["probes"]}


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    main(["doctor", *arguments])
    return " ".join(capsys.readouterr().out.split())


def log_in(server: Server, monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.users[user])


def rows(server: Server) -> list[Any]:
    engine = sqlalchemy.create_engine(f"sqlite:///{server.log.parent / 'mlflow.db'}")
    with engine.connect() as connection:
        found = [
            connection.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar()
            for table in (
                "registered_models",
                "model_versions",
                "registered_model_aliases",
                "experiments",
                "runs",
            )
        ]
    engine.dispose()
    return [found, sorted(str(path) for path in server.artifacts.rglob("*"))]


def test_a_server_that_enforces_passes_and_nothing_comes_of_asking(
    enforcing: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(enforcing, monkeypatch, "author")
    before = rows(enforcing)

    code, enforces, states = ask(capsys, "--registry", enforcing.uri, "--model", "mine")

    assert (code, enforces) == (0, True)
    names = ["server", "authentication", "alias production", "stage Production", "ledger", "artifacts"]
    assert states == dict.fromkeys(names, "holds")
    assert rows(enforcing) == before
    assert said(capsys, "--registry", enforcing.uri, "--model", "mine").endswith("it enforces")


def test_an_administrator_need_not_name_a_model(
    enforcing: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(enforcing, monkeypatch, "admin")
    assert ask(capsys, "--registry", enforcing.uri)[0] == 0


def test_who_may_edit_nothing_is_told_what_to_name(
    enforcing: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(enforcing, monkeypatch, "reader")
    code, _, states = ask(capsys, "--registry", enforcing.uri)
    assert (code, states["alias production"], states["ledger"]) == (4, "unknown", "holds")
    assert "--model" in said(capsys, "--registry", enforcing.uri)


def test_the_address_comes_from_the_environment(
    enforcing: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log_in(enforcing, monkeypatch, "author")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", enforcing.uri)
    assert ask(capsys, "--model", "mine")[0] == 0


def test_who_is_not_let_in_cannot_tell(enforcing: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, enforces, states = ask(capsys, "--registry", enforcing.uri)
    assert (code, enforces) == (4, None)
    assert states["authentication"] == "holds"
    assert states["alias production"] == "unknown"
    assert "MLFLOW_TRACKING_PASSWORD" in said(capsys, "--registry", enforcing.uri)


def test_a_gate_without_the_rest_is_named_part_by_part(
    open_to_all: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, enforces, states = ask(capsys, "--registry", open_to_all.uri)
    assert (code, enforces) == (1, False)
    assert states == {
        "server": "holds",
        "authentication": "missing",
        "alias production": "missing",
        "stage Production": "holds",
        "ledger": "holds",
        "artifacts": "missing",
    }
    words = said(capsys, "--registry", open_to_all.uri)
    assert "LEANGATE_REGISTRY" in words
    assert "worm+file" in words


def test_a_plain_server_does_not_enforce_and_stays_as_it_was(
    plain: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    plain.call("POST", "/api/2.0/mlflow/registered-models/create", {"name": "mine"})
    before = rows(plain)
    assert ask(capsys, "--registry", plain.uri, "--model", "mine")[0] == 1
    code, enforces, states = ask(capsys, "--registry", plain.uri)
    assert (code, enforces) == (1, False)
    assert states == {"server": "holds"} | dict.fromkeys(
        ["authentication", "alias production", "stage Production", "ledger", "artifacts"], "missing"
    )
    assert rows(plain) == before
    words = said(capsys, "--registry", plain.uri)
    assert "--registry-store-uri gated+sqlite" in words
    assert words.endswith("it does NOT enforce")


def test_a_server_without_the_plugin_is_recognised(
    without_plugin: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, states = ask(capsys, "--registry", without_plugin.uri)
    assert (code, states["alias production"]) == (1, "missing")
    assert "LeanGate is not installed there" in said(capsys, "--registry", without_plugin.uri)


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "gated+sqlite:///mlflow.db",
        "postgresql://me:secret@host/db",
        "file:mlruns",
        "mlruns",
    ],
)
def test_a_database_is_no_server(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, enforces, _ = ask(capsys, "--registry", uri)
    assert (code, enforces) == (1, False)
    words = said(capsys, "--registry", uri)
    assert "advice" in words
    assert "secret" not in words


def test_without_any_address_it_is_the_database_beside_dvc_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ask(capsys)[0] == 1
    assert "sqlite:///mlflow.db" in said(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["ftp://host/x", "http://", "databricks://profile"])
def test_no_address_is_wrong_use(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--registry", uri]) == 2
    assert "expected the address of an MLflow server" in capsys.readouterr().err


def test_nobody_there_cannot_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert main(["doctor", "--registry", f"http://me:secret@127.0.0.1:{port}"]) == 4
    captured = capsys.readouterr()
    assert "expected an MLflow server" in captured.err
    assert "secret" not in captured.err + captured.out


def test_a_key_that_went_missing_is_seen(
    enforcing: Server,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    log_in(enforcing, monkeypatch, "author")
    owners = keys.config.parent / "owners"
    shutil.move(owners, tmp_path / "owners")
    try:
        code, _, states = ask(capsys, "--registry", enforcing.uri, "--model", "mine")
    finally:
        shutil.move(tmp_path / "owners", owners)
    assert (code, states["alias production"]) == (1, "missing")
    assert ask(capsys, "--registry", enforcing.uri, "--model", "mine")[0] == 0
