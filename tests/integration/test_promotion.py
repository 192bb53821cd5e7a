# SPDX-License-Identifier: Apache-2.0
"""The whole road on a real server: registered, refused, approved, promoted, rolled back, revoked, remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from checks.errors import BlockedError
from leangate.cli import main
from tests.governed_registry import Keys, Made, governed_keys, make_bundle
from tests.registry_server import Server, registry_server

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mlflow")]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return governed_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[Server]:
    environment = {"LEANGATE_REGISTRY": str(keys.config)}
    with registry_server(tmp_path_factory.mktemp("server"), environment=environment) as server:
        yield server


class Desk:
    """Somebody at a terminal: the command line, against the server."""

    def __init__(self, server: Server, keys: Keys, patch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.keys, self.patch, self.capsys = keys, patch, capsys
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        patch.delenv("LEANGATE_SIGNING_KEY", raising=False)

    def __call__(self, *arguments: str, by: str = "", code: int = 0) -> str:
        if by:
            self.patch.setenv("LEANGATE_SIGNING_KEY", str(self.keys.private(by)))
        self.capsys.readouterr()
        came = main(list(arguments))
        said = self.capsys.readouterr()
        assert came == code, said
        return str(said.out if code == 0 else said.out + said.err)


@pytest.fixture
def desk(
    server: Server, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    return Desk(server, keys, monkeypatch, capsys)


@pytest.fixture
def approvers(keys: Keys, tmp_path: Path) -> Path:
    folder = tmp_path / "approvers"
    folder.mkdir()
    for name in ("approver", "second"):
        (folder / f"{name}.pub").write_bytes(keys.public(name).read_bytes())
    return folder


def two_versions(keys: Keys, tmp_path: Path, model: str) -> tuple[Made, Made]:
    first = make_bundle(tmp_path / "first", keys.private("maker"), model)
    second = make_bundle(tmp_path / "second", keys.private("maker"), model, tail=b"\x7a\x02hi", after=first)
    assert first.onnx_sha256 != second.onnx_sha256
    return first, second


def test_the_whole_road(server: Server, keys: Keys, desk: Desk, approvers: Path, tmp_path: Path) -> None:
    first, second = two_versions(keys, tmp_path, "road")
    policy = str(first.layout.policy)
    agree = [
        "policy",
        "approve",
        policy,
        "--model",
        "road",
        "--approvers",
        str(approvers),
        "--until",
        "2999-01-01",
    ]
    assert "1 of 2 approvers" in desk(*agree, by="owner")
    assert first.register(server.uri) == "1"

    assert "expected 1 approvals of 2 approvers, got 0" in desk("promote", "road", "1", code=1)
    assert "key that may" in desk("approve", "road", "1", by="stranger", code=1)
    assert "findings follow from the evidence" in desk("approve", "road", "1", by="approver")
    assert desk("promote", "road", "1") == "road@production is version 1\n"

    assert second.register(server.uri) == "2"
    assert "got 0" in desk("promote", "road", "2", code=1)
    desk("approve", "road", "2", by="second")
    assert desk("promote", "road", "2") == "road@production is version 2\n"
    assert desk("rollback", "road") == "road@production is version 1, it was 2\n"
    assert desk("rollback", "road", "--to", "2") == "road@production is version 2, it was 1\n"

    desk("revoke", "road", "2", "--reason", "it was recalled")
    with server.client() as client, pytest.raises(Exception, match="revoked on .*: it was recalled"):
        client.get_model_version_by_alias("road", "production")
    assert "revoked" in desk("promote", "road", "2", code=1)
    assert desk("rollback", "road") == "road@production is version 1, it was 2\n"

    terms = json.loads(desk("history", "road", "--json"))
    assert [term["version"] for term in terms] == ["1", "2", "1", "2", "1"]
    assert terms[1]["evidence"]["onnx_sha256"] == second.onnx_sha256
    assert terms[1]["approvals"] == [{"key": keys.ids["second"], "by": None}]

    file = tmp_path / "ledger.jsonl"
    kept = tmp_path / "checkpoint.json"
    assert desk("ledger", "export", str(file), "--checkpoint", str(kept)).endswith(kept.read_text())
    check = ["ledger", "verify", str(file), "--trust", str(keys.public("ledger")), "--checkpoint", str(kept)]
    assert desk(*check).endswith("verified\n")
    refused = [
        entry["detail"]["attempted"]
        for line in file.read_text().splitlines()
        if (entry := json.loads(json.loads(line)["entry"]))["act"] == "refuse" and entry["model"] == "road"
    ]
    assert refused == ["promote", "approve", "promote", "alias", "promote"]


def test_a_version_registered_before_its_policy_was_approved_is_not_promoted(
    server: Server, keys: Keys, desk: Desk, tmp_path: Path
) -> None:
    made = make_bundle(tmp_path / "early", keys.private("maker"), "early", policy="# of its own\n")
    version = made.register(server.uri)
    assert "which no owner approved" in desk("promote", "early", version, code=1)
    with server.client() as client:
        client.set_registered_model_tag("early", "leangate.policy", keys.policy_approval(made.policy_sha256))
    assert "approved before the version was registered" in desk("promote", "early", version, code=1)


@pytest.mark.parametrize(
    ("key", "want"), [(None, "expected signed attestations, got none"), ("stranger", "got signatures of")]
)
def test_a_bundle_that_no_maker_signed_is_not_registered(
    key: str | None, want: str, server: Server, keys: Keys, tmp_path: Path
) -> None:
    made = make_bundle(tmp_path / "made", None if key is None else keys.private(key), f"signed-by-{key}")
    with pytest.raises(BlockedError, match=want):
        made.register(server.uri)


def test_attempts_that_were_counted_anew_are_not_registered(
    server: Server, keys: Keys, tmp_path: Path
) -> None:
    first = make_bundle(tmp_path / "first", keys.private("maker"), "forgetful")
    anew = make_bundle(tmp_path / "anew", keys.private("maker"), "forgetful", tail=b"\x7a\x02hi")
    first.register(server.uri)
    with pytest.raises(
        BlockedError, match=r"attempts\.jsonl: expected attempt 1 counted on from the 1 rounds"
    ):
        anew.register(server.uri)


def test_a_policy_changed_after_the_test_split_was_looked_at_is_not_registered(
    server: Server, keys: Keys, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        import tests.bundle_project

        write = tests.bundle_project.write_attempt
        patch.setattr(
            tests.bundle_project,
            "write_attempt",
            lambda *a, **k: write(*a, **(k | {"policy_sha256": "0" * 64})),
        )
        made = make_bundle(tmp_path / "made", keys.private("maker"), "swapped")
    with pytest.raises(BlockedError, match="the policy that lay there before the test split was looked at"):
        made.register(server.uri)


def test_bytes_changed_on_disk_are_not_resolved_nor_promoted(
    server: Server, keys: Keys, tmp_path: Path
) -> None:
    made = make_bundle(tmp_path / "made", keys.private("maker"), "changed", policy="# for bytes\n")
    with server.client() as client:
        client.create_registered_model("changed")
        client.set_registered_model_tag(
            "changed", "leangate.policy", keys.policy_approval(made.policy_sha256, approvals=0)
        )
        version = made.register(server.uri)
        client.set_registered_model_alias("changed", "production", version)
        source = client.get_model_version("changed", version).source.removeprefix("models:/")
        with pytest.raises(Exception, match="as it is spelled, got 'Production'"):
            client.set_registered_model_alias("changed", "Production", version)
        run = client.get_model_version("changed", version).run_id
        (model,) = server.artifacts.glob(f"*/models/{source}/artifacts")
        (bundle,) = server.artifacts.glob(f"*/{run}/artifacts/bundle")
        for folder, name, resolves in (
            (model, "model.onnx", False),
            (model, "extra.py", False),
            (bundle, "decision.json", True),
            (bundle, "extra.json", True),
        ):
            with _changed(folder / name):
                with pytest.raises(Exception, match=f"PERMISSION_DENIED.*got another {name}"):
                    client.set_registered_model_alias("changed", "production", version)
                if not resolves:
                    with pytest.raises(Exception, match=f"PERMISSION_DENIED.*got another {name}"):
                        client.get_model_version_by_alias("changed", "production")
            assert str(client.get_model_version_by_alias("changed", "production").version) == version


@contextmanager
def _changed(file: Path) -> Iterator[None]:
    """Have other bytes in a published file for a while, or a file where there was none."""
    file.parent.chmod(0o755)
    before = file.read_bytes() if file.exists() else None
    if before is not None:
        file.chmod(0o644)
    file.write_bytes(b"import os" if before is None else before[:-1] + b"\x00")
    yield
    if before is None:
        file.unlink()
    else:
        file.write_bytes(before)


def test_an_alias_moved_in_the_database_itself_is_not_resolved(
    server: Server, keys: Keys, tmp_path: Path
) -> None:
    import sqlite3

    made = make_bundle(tmp_path / "made", keys.private("maker"), "moved", policy="# for moves\n")
    with server.client() as client:
        client.create_registered_model("moved")
        client.set_registered_model_tag(
            "moved", "leangate.policy", keys.policy_approval(made.policy_sha256, approvals=0)
        )
        version = made.register(server.uri)
        source = client.get_model_version("moved", version).source
        other = client.create_model_version("moved", source, model_id=source.removeprefix("models:/"))
        client.set_registered_model_alias("moved", "production", version)
        with sqlite3.connect(server.log.parent / "mlflow.db") as database:
            database.execute(
                "update registered_model_aliases set version = ? where name = 'moved'", (int(other.version),)
            )
        database.close()
        with pytest.raises(Exception, match="which the ledger says holds 'production'"):
            client.get_model_version_by_alias("moved", "production")


def test_an_entry_that_the_registry_did_not_sign_opens_nothing(
    server: Server, keys: Keys, tmp_path: Path
) -> None:
    """Whoever writes to the database can hash, and go on with the chain; but not sign."""
    import sqlite3

    from pipeline.ledger.entries import Checkpoint, Entry, parse_entry

    made = make_bundle(tmp_path / "made", keys.private("maker"), "forged", policy="# for forgers\n")
    with server.client() as client:
        client.create_registered_model("forged")
        client.set_registered_model_tag("forged", "leangate.policy", keys.policy_approval(made.policy_sha256))
        version = made.register(server.uri)
        client.set_registered_model_alias("forged", "candidate", version)
        database = sqlite3.connect(server.log.parent / "mlflow.db")
        (line, mark) = database.execute(
            "select entry, checkpoint from leangate_ledger order by number desc limit 1"
        ).fetchone()
        last = parse_entry(line, "last")
        detail = {"alias": "production", "registered": last.number, "approvals": []}
        entry = Entry(
            last.ledger, last.number + 1, last.at, None, "promote", "forged", version, detail, last.leaf
        )
        stolen = json.loads(mark)["signature"]
        key = keys.ids["ledger"]
        try:
            for checkpoint in (
                Checkpoint(entry.number, "0" * 64),
                Checkpoint(entry.number, "0" * 64, key, stolen),
            ):
                with database:
                    database.execute(
                        "insert or replace into leangate_ledger values (?, 'promote', 'forged', ?, ?, ?)",
                        (entry.number, version, entry.line, json.dumps(checkpoint.to_json())),
                    )
                    database.execute(
                        "update registered_model_aliases set alias = 'production' "
                        "where name = 'forged' and alias = 'candidate'"
                    )
                with pytest.raises(
                    Exception, match="PERMISSION_DENIED.*(checkpoint signed by|signature of key)"
                ):
                    client.get_model_version_by_alias("forged", "production")
        finally:
            with database:
                database.execute("delete from leangate_ledger where number = ?", (entry.number,))
                database.execute("delete from registered_model_aliases where name = 'forged'")
            database.close()


def test_what_cannot_be_written_down_does_not_happen(server: Server, keys: Keys, tmp_path: Path) -> None:
    """The database fails between the change and its entry: neither is there, and nobody is told to try again."""
    import sqlite3

    made = make_bundle(tmp_path / "made", keys.private("maker"), "unwritten", policy="# for failures\n")
    database = sqlite3.connect(server.log.parent / "mlflow.db")
    with server.client() as client:
        client.create_registered_model("unwritten")
        approval = keys.policy_approval(made.policy_sha256, approvals=0)
        client.set_registered_model_tag("unwritten", "leangate.policy", approval)
        version = made.register(server.uri)
        with database:
            database.execute(
                "create trigger broken before insert on leangate_ledger begin insert into nowhere values (1); end"
            )
        try:
            body = {"name": "unwritten", "alias": "production", "version": version}
            reply = server.call("POST", "/api/2.0/mlflow/registered-models/alias", body)
        finally:
            with database:
                database.execute("drop trigger broken")
        assert reply.status == 403, reply.reason
        assert reply.reason == (
            "LeanGate refuses: the registry could not promote: OperationalError; its log says why"
        )
        moved = (
            "select count(*) from registered_model_aliases where name = 'unwritten' and alias = 'production'"
        )
        assert database.execute(moved).fetchone() == (0,)
        client.set_registered_model_alias("unwritten", "production", version)
        assert database.execute(moved).fetchone() == (1,)
    database.close()
    assert "a refusal could not be written into the ledger: promote" in server.log.read_text()


def test_a_clock_behind_the_ledger_promotes_nothing(keys: Keys, tmp_path: Path) -> None:
    """On a server of its own: what is refused is dated as the entry before it, and stays in the ledger."""
    import sqlite3

    made = make_bundle(tmp_path / "made", keys.private("maker"), "late")
    environment = {"LEANGATE_REGISTRY": str(keys.config)}
    with (
        registry_server(tmp_path / "server", environment=environment) as server,
        server.client() as client,
    ):
        client.create_registered_model("late")
        approval = keys.policy_approval(made.policy_sha256, approvals=0)
        client.set_registered_model_tag("late", "leangate.policy", approval)
        version = made.register(server.uri)
        client.set_registered_model_alias("late", "production", version)
        ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        database = sqlite3.connect(server.log.parent / "mlflow.db")
        with database:
            database.execute("update leangate_ledger_head set at = ?", (ahead,))
        database.close()
        with pytest.raises(
            Exception, match=r"PERMISSION_DENIED.*expected a clock not behind.*got one 3\d\d\d s"
        ):
            client.set_registered_model_alias("late", "production", version)
        assert str(client.get_model_version_by_alias("late", "production").version) == version
        tags = client.get_registered_model("leangate:ledger/0").tags
        last = json.loads(json.loads(tags[max(tags)])["entry"])
        assert (last["act"], last["detail"]["attempted"]) == ("refuse", "promote")
        assert last["at"][:19] == ahead[:19], "dated back by no clock"


def test_without_its_configuration_the_registry_moves_nothing(
    server: Server, keys: Keys, tmp_path: Path
) -> None:
    aside = keys.config.with_suffix(".aside")
    keys.config.rename(aside)
    try:
        with server.client() as client:
            client.create_registered_model("closed")
            for alias in ("production", "anything"):
                with pytest.raises(Exception, match="LEANGATE_REGISTRY|registry.yaml"):
                    client.set_registered_model_alias("closed", alias, "1")
            with pytest.raises(Exception, match=r"registry\.yaml"):
                client.delete_registered_model("closed")
    finally:
        aside.rename(keys.config)
    with server.client() as client:
        client.delete_registered_model("closed")


def test_wrong_use_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "protects, champion, production, got 'prodution'" in desk(
        "promote", "nobody", "1", "--alias", "prodution", code=2
    )
    assert "not found" in desk("promote", "nobody", "1", code=2)
    assert "expected a day" in desk("approve", "road", "1", "--until", "soon", by="approver", code=2)
    assert "not found" in desk("revoke", "nobody", "1", "--reason", "why", code=2)
    desk("history", "nobody", code=1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "127.0.0.1:5000")
    assert "expected http:// or https://" in desk("promote", "nobody", "1", code=2)


def test_a_server_without_a_ledger_is_told(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'plain.db'}")
    assert "expected a registry that keeps a ledger" in desk("history", "digits", code=4)
