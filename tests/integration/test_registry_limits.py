# SPDX-License-Identifier: Apache-2.0
"""What clients send again, spell otherwise or make too long for a ledger, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from leangate.cli import main
from pipeline.ledger.entries import Entry
from tests.governed_registry import Keys, Made, governed_keys, make_bundle
from tests.registry_server import Reply, Server, registry_server

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mlflow")]

API = "/api/2.0/mlflow"
LONG = 5_000_000


@dataclass
class Desk:
    """A server with version 1 of a model in production, and what is sent to it."""

    server: Server
    keys: Keys
    made: Made
    policy: str

    def post(self, path: str, **body: Any) -> Reply:
        return self.server.call("POST", f"{API}/{path}", body)

    def promote(self, name: str, version: str) -> Reply:
        return self.post("registered-models/alias", name=name, alias="production", version=version)

    def approve_policy(self, name: str, envelope: str) -> Reply:
        return self.post("registered-models/set-tag", name=name, key="leangate.policy", value=envelope)

    def tag(self, version: str, key: str, value: str) -> Reply:
        return self.post("model-versions/set-tag", name="digits", version=version, key=key, value=value)

    def resolve(self) -> Reply:
        return self.server.call("GET", f"{API}/registered-models/alias?name=digits&alias=production")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("limits")
    keys = governed_keys(folder / "keys")
    made = make_bundle(folder / "project", keys.private("maker"), "digits")
    environment = {"LEANGATE_REGISTRY": str(keys.config)}
    with registry_server(folder / "server", environment=environment) as server:
        desk = Desk(server, keys, made, keys.policy_approval(made.policy_sha256))
        desk.post("registered-models/create", name="digits")
        assert desk.approve_policy("digits", desk.policy).status == 200
        assert made.register(server.uri) == "1"
        assert desk.tag("1", "leangate.approve", keys.approval(made, "1")).status == 200
        assert desk.promote("digits", "1").status == 200
        yield desk


def test_what_an_owner_ended_is_not_begun_again_by_sending_it_again(desk: Desk) -> None:
    """Envelopes are in the ledger, where everybody may read them."""
    assert desk.approve_policy("digits", desk.policy).status == 200, "the last one again says nothing new"
    ended = desk.keys.policy_approval(desk.made.policy_sha256, until="2020-01-01")
    assert desk.approve_policy("digits", ended).status == 200
    assert desk.resolve().status == 403
    again = desk.approve_policy("digits", desk.policy)
    assert again.status == 403
    assert "that nothing has replaced" in again.reason
    assert desk.resolve().status == 403
    anew = desk.keys.policy_approval(desk.made.policy_sha256, until="2998-12-31")
    assert desk.approve_policy("digits", anew).status == 200
    assert desk.resolve().status == 200


@pytest.mark.parametrize("version", ["01", " 1", "+1", "\uff11", "0_1"])
def test_a_version_spelled_otherwise_is_the_same_version(desk: Desk, version: str) -> None:
    refused = desk.server.call(
        "DELETE", f"{API}/model-versions/delete", {"name": "digits", "version": version}
    )
    assert refused.status == 403, refused.reason
    assert "never was in production" in refused.reason
    assert desk.resolve().status == 200


@pytest.mark.parametrize("version", ["9" * 11, "2147483648", "-1", "9" * LONG])
def test_a_number_that_no_version_has_is_refused_at_once(desk: Desk, version: str) -> None:
    """SQLite would overflow, which is answered 500, and tried again."""
    refused = desk.server.call(
        "DELETE", f"{API}/model-versions/delete", {"name": "digits", "version": version}
    )
    assert refused.status == 403, refused.reason
    assert "the number of a version" in refused.reason


def test_a_model_with_a_name_that_the_ledger_cannot_keep_is_not_made(desk: Desk) -> None:
    """Its entries would be found under another name, and close the gate for every model."""
    name = "n" * 257
    assert desk.post("registered-models/create", name=name).status == 403
    assert desk.approve_policy(name, desk.policy).status == 403
    renamed = desk.post("registered-models/rename", name="digits", new_name=name)
    assert renamed.status == 403
    assert desk.resolve().status == 200


def test_the_ledger_can_be_verified_whatever_was_refused(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _size(desk)
    assert desk.promote("n" * LONG, "1").status == 403
    assert desk.promote("di\0gits", "1").status == 403
    assert desk.promote("digits", "x" * LONG).status == 403
    assert desk.tag("x" * LONG, "leangate.own", "x").status == 403
    assert desk.tag("1", "leangate." + "x" * LONG, "x").status == 403
    assert desk.tag("1", "leangate.revoke", "x" * LONG).status == 403
    assert _size(desk) == before + 6, "each refusal is in the ledger"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", desk.server.uri)
    file = tmp_path / "ledger.jsonl"
    assert main(["ledger", "export", str(file)]) == 0
    assert main(["ledger", "verify", str(file), "--trust", str(desk.keys.public("ledger"))]) == 0
    assert "verified" in capsys.readouterr().out
    assert max(len(line) for line in file.read_text().splitlines()) < 100_000


def _size(desk: Desk) -> int:
    number = 0
    while True:
        page = desk.server.call("GET", f"{API}/registered-models/get?name=leangate:ledger/{number}").json
        tags = page["registered_model"].get("tags", [])
        if not tags:
            return number
        number = max(int(tag["key"]) for tag in tags)


@pytest.mark.parametrize(
    ("key", "value", "want"),
    [
        ("leangate.approve", "{}", "no tag 'leangate.approve'"),
        ("leangate.policy.0123456789abcdef", "approved", "no tag 'leangate.policy"),
        ("leangate.decision", "waived", "tag leangate.decision passed"),
        ("leangate.waived_until", "2999-12-31", "tag leangate.waived_until None"),
        ("leangate.waived", "everything", "only where something is waived"),
    ],
)
def test_a_version_is_not_registered_with_tags_that_are_not_so(
    desk: Desk, key: str, value: str, want: str
) -> None:
    reply = _register_again(desk, {key: value})
    assert reply.status == 403, reply.reason
    assert want in reply.reason


def _register_again(desk: Desk, more: dict[str, str]) -> Reply:
    made = desk.server.call("GET", f"{API}/model-versions/get?name=digits&version=1").json["model_version"]
    tags = {tag["key"]: tag["value"] for tag in made["tags"]} | more
    body = {name: made[name] for name in ("name", "source", "run_id")}
    body["model_id"] = made["source"].removeprefix("models:/")
    return desk.post(
        "model-versions/create", **body, tags=[{"key": key, "value": value} for key, value in tags.items()]
    )


def test_a_copy_is_not_shown_as_approved(desk: Desk) -> None:
    reply = _register_again(desk, {"leangate.approved.0123456789abcdef": "until 2999-12-31"})
    assert reply.status == 200, reply.reason
    keys = {tag["key"] for tag in reply.json["model_version"]["tags"]}
    assert "leangate.bundle_sha256" in keys
    assert not [key for key in keys if key.startswith("leangate.approved")]
    assert desk.promote("digits", reply.json["model_version"]["version"]).status == 403


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_reader_is_not_refused_because_the_alias_moves_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leangate.plugins.gated_store import GatedStore

    monkeypatch.setenv("LEANGATE_REGISTRY", str(desk.keys.config))
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", f"worm+file://{desk.server.artifacts}")
    store = GatedStore(f"gated+sqlite:///{desk.server.log.parent / 'mlflow.db'}")
    truth, reads = store._promoted, []

    def moving(name: str) -> list[Entry]:
        """At the first look the alias has just been moved to another version than was found."""
        entries = truth(name)
        reads.append(name)
        return [replace(entry, version="2") for entry in entries] if len(reads) == 1 else entries

    try:
        monkeypatch.setattr(store, "_promoted", moving)
        assert store.get_model_version_by_alias("digits", "production").version == 1
        assert len(reads) == 2
        # The answer of a broken disk is no 500, which clients try again.
        monkeypatch.setattr(store, "_promoted", lambda name: 1 / 0)
        with pytest.raises(MlflowException, match="LeanGate refuses: .* ZeroDivisionError") as refused:
            store.get_model_version_by_alias("digits", "production")
        assert refused.value.get_http_status_code() == 403
    finally:
        store.engine.dispose()
