# SPDX-License-Identifier: Apache-2.0
"""What a version needs to be called production: each rule refuses, naming what is missing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from checks.canonical import sha256_file
from checks.errors import EvidenceError, InputError
from pipeline.attestation.keys import read_trusted
from pipeline.ledger.entries import Entry
from pipeline.promotion.config import load_trust
from pipeline.promotion.proof import (
    Proof,
    expect_counted_on,
    expect_model_unchanged,
    expect_signed,
    expect_unchanged,
    prove,
)
from pipeline.promotion.standing import (
    expect_agreed,
    expect_not_replaced,
    expect_policy,
    expect_standing,
    first_held,
    holder_of,
    standing_of,
)
from pipeline.promotion.statements import open_approval, open_policy_approval
from tests.governed_registry import FOREVER, Keys, Made, governed_keys, make_bundle

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ONNX, BUNDLE, POLICY = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return governed_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Made:
    return make_bundle(tmp_path_factory.mktemp("made"), keys.private("maker"))


@pytest.fixture(scope="module")
def model(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.onnx").write_bytes((made.layout.bundle / "model.onnx").read_bytes())
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "requirements.txt").write_text("onnxruntime\n")
    return folder


MLMODEL = """flavors:
  onnx: {code: null, data: model.onnx, onnx_session_options: null, providers: [CPUExecutionProvider]}
  python_function: {data: model.onnx, loader_module: mlflow.onnx, env: {virtualenv: python_env.yaml}}
"""


def attempt(test: str, *rounds: str) -> dict[str, Any]:
    return {"test_sha256": test, "number": len(rounds), "rounds": list(rounds)}


class Papers:
    """An approval of anything, for a version that was made up."""

    model, onnx_sha256, bundle_sha256, policy_sha256 = "digits", ONNX, BUNDLE, POLICY


class Story:
    """Entries of one version, told in order."""

    def __init__(self, keys: Keys) -> None:
        self.keys, self.entries = keys, []
        self.proof = Proof(
            ONNX,
            "d" * 64,
            "e" * 64,
            POLICY,
            "f" * 64,
            BUNDLE,
            (keys.ids["maker"],),
            attempt("t", "1"),
            (),
            {},
            {},
        )

    def tell(self, act: str, *, by: str | None = None, version: str = "1", **detail: Any) -> Story:
        at = NOW - timedelta(days=9) + timedelta(hours=len(self.entries))
        number = len(self.entries) + 1
        name = "" if act == "open" else "digits"
        self.entries.append(Entry("0" * 32, number, at, by, act, name, version, detail, "0" * 64))
        return self

    def policy(self, by: str = "owner", **changes: Any) -> Story:
        return self.tell("policy", version="", envelope=self.keys.policy_approval(POLICY, by, **changes))

    def register(self, by: str | None = None) -> Story:
        return self.tell("register", by=by, proof=self.proof.to_json())

    def approve(self, by: str = "approver", person: str | None = None, **changes: Any) -> Story:
        envelope = self.keys.approval(Papers(), changes.pop("number", "1"), by, **changes)  # type: ignore[arg-type]
        return self.tell("approve", by=person, envelope=envelope)

    def promote(self, now: datetime = NOW) -> list[int]:
        standing = standing_of(self.entries, "digits", "1")
        expect_standing(standing, read_trusted(self.keys.config.parent / "makers"), now)
        policy = expect_policy(standing, read_trusted(self.keys.config.parent / "owners"), now)
        return [entry.number for entry in expect_agreed(standing, policy, "production", now)]


@pytest.fixture
def story(keys: Keys) -> Story:
    return Story(keys)


def test_a_proven_approved_version_may(story: Story) -> None:
    assert story.policy().register().approve().promote() == [3]


def test_two_of_two(story: Story) -> None:
    story.policy(approvals=2).register().approve()
    with pytest.raises(EvidenceError, match="expected 2 approvals of 2 approvers, got 1"):
        story.promote()
    assert story.approve("second").promote() == [3, 4]


def test_none_of_none(story: Story) -> None:
    assert story.policy(approvals=0, approvers=()).register().promote() == []


REFUSED = {
    "nothing was derived": (lambda s: s.policy(), "whose evidence was derived"),
    "no policy": (lambda s: s.register().approve(), "which no owner approved"),
    "a policy of somebody": (lambda s: s.policy("stranger").register().approve(), "which no owner approved"),
    "a policy for another model": (
        lambda s: s.policy(models=("others",)).register().approve(),
        "which no owner approved",
    ),
    "a policy approved afterwards": (
        lambda s: s.register().policy().approve(),
        "approved before the version was registered",
    ),
    "a policy that ended": (
        lambda s: s.policy(until="2026-11-23").register().approve(),
        "approved until 2026-11-23",
    ),
    "a policy that was ended": (
        lambda s: s.policy().register().approve().policy(until="2026-11-01"),
        "approved until 2026-11-01",
    ),
    "no approval": (lambda s: s.policy().register(), "got 0"),
    "the same approver twice": (lambda s: s.policy(approvals=2).register().approve().approve(), "got 1"),
    "an approval that ended": (
        lambda s: s.policy().register().approve(until="2026-11-23"),
        "one that ended on 2026-11-23",
    ),
    "for another alias": (
        lambda s: s.policy().register().approve(alias="champion"),
        "one for the alias 'champion'",
    ),
    "of another version": (
        lambda s: s.policy().register().approve(number="2"),
        "approval of version 1, got 2",
    ),
    "of another model": (
        lambda s: s.policy().register().approve(model="x"),
        "approval of model digits, got x",
    ),
    "of another bundle": (
        lambda s: s.policy().register().approve(bundle_sha256="0" * 64),
        "approval of SHA-256 of the bundle",
    ),
    "of another file": (
        lambda s: s.policy().register().approve(onnx_sha256="0" * 64),
        "approval of SHA-256 of the ONNX file",
    ),
    "under another policy": (
        lambda s: s.policy().register().approve(policy_sha256="0" * 64),
        "approval of SHA-256 of the policy",
    ),
    "of a stranger": (lambda s: s.policy().register().approve("stranger"), "signature of one key that may"),
    "of the maker": (
        lambda s: s.policy(approvers=("maker", "approver")).register().approve("maker"),
        "an approver who did not make the bundle",
    ),
    "of who registered": (
        lambda s: s.policy().register(by="ann").approve(person="ann"),
        "by 'ann', who registered or approved already",
    ),
    "two of one person": (
        lambda s: s.policy(approvals=2).register().approve(person="bob").approve("second", person="bob"),
        "a second one by 'bob'",
    ),
    "revoked": (
        lambda s: s.policy().register().approve().tell("revoke", reason="a recall"),
        "revoked on 2026-11-15: a recall",
    ),
    "made anew under the same number": (
        lambda s: s.policy().register().approve().tell("create-version"),
        "whose evidence was derived",
    ),
    "approved before it was registered again": (
        lambda s: s.policy().register().approve().register(),
        "got 0",
    ),
    "approved before it was made anew": (
        lambda s: s.policy().register().approve().tell("create-version").register(),
        "got 0",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str, story: Story) -> None:
    told, want = REFUSED[what]
    told(story)
    with pytest.raises(EvidenceError) as refused:
        story.promote()
    assert want in str(refused.value)


def test_a_waiver_that_ended_closes_the_gate_again(story: Story) -> None:
    waiver = {"rule": "accuracy", "slice": "label=8", "until": "2026-11-24", "key": "k"}
    story.proof = replace(story.proof, waivers=(waiver,))
    story.policy().register().approve()
    assert story.promote() == [3]
    with pytest.raises(
        EvidenceError, match="accuracy on label=8 waived, got a waiver that ended on 2026-11-24"
    ):
        story.promote(NOW + timedelta(days=1))


def test_a_key_that_was_withdrawn_counts_no_longer(story: Story) -> None:
    story.proof = replace(story.proof, makers=("0" * 64,))
    with pytest.raises(EvidenceError, match="signed by a key that counts"):
        story.policy().register().approve().promote()


def test_attempts_are_counted_on(story: Story) -> None:
    def proof(*rounds: str, test: str = "t") -> Proof:
        return replace(story.proof, attempt=attempt(test, *rounds))

    expect_counted_on(proof("1", "2"), [proof("1"), proof("1", "2", "3"), proof("9", test="another")])
    expect_counted_on(proof("1"), [])
    for forgotten in (proof("2"), proof("2", "1"), proof("1", "3", "2")):
        with pytest.raises(EvidenceError, match="counted on from the 2 rounds"):
            expect_counted_on(forgotten, [proof("1", "2")])


def test_who_holds_an_alias_and_since_when(story: Story) -> None:
    story.policy().register()
    assert holder_of(story.entries, "digits", "production") is None
    for alias, version in (("production", "1"), ("champion", "2"), ("production", "3")):
        story.tell("promote", version=version, alias=alias, registered=2)
    held = holder_of(story.entries, "digits", "production")
    assert held is not None
    assert held.version == "3"
    standing = standing_of(story.entries, "digits", "1")
    promoted = [entry for entry in story.entries if entry.act == "promote"]
    assert first_held(promoted, standing, "production") == promoted[0].at
    assert first_held(promoted, replace(standing, registered=promoted[0]), "production") is None


def test_only_what_an_alias_was_moved_on_outlives_its_last_day(story: Story, keys: Keys) -> None:
    story.policy(approvals=2).register().approve(until="2026-11-20")
    held = story.entries[-1].at
    story.approve("second", until="2026-11-20")
    standing = standing_of(story.entries, "digits", "1")
    policy = expect_policy(standing, read_trusted(keys.config.parent / "owners"), NOW)
    with pytest.raises(EvidenceError, match="got 1; not counted: one that ended on 2026-11-20"):
        expect_agreed(standing, policy, "production", NOW, held)
    with pytest.raises(EvidenceError, match="got 0; not counted"):
        expect_agreed(standing, policy, "production", NOW)
    agreed = expect_agreed(standing, policy, "production", NOW, story.entries[-1].at)
    assert [entry.number for entry in agreed] == [3, 4]


def test_a_proof_is_what_the_files_are(made: Made, model: Path, keys: Keys) -> None:
    trust = load_trust({"LEANGATE_REGISTRY": str(keys.config)})
    proof = prove(made.layout.bundle, model, trust.makers)
    assert proof.onnx_sha256 == made.onnx_sha256
    assert proof.makers == (keys.ids["maker"],)
    assert set(proof.model) == {"model.onnx", "MLmodel", "requirements.txt"}
    assert Proof.from_json(json.loads(json.dumps(proof.to_json()))) == proof
    expect_signed(proof, made.layout.bundle, trust.makers)
    expect_model_unchanged(proof, model)


def test_signatures_are_looked_at_again(made: Made, model: Path, keys: Keys) -> None:
    makers = load_trust({"LEANGATE_REGISTRY": str(keys.config)}).makers
    proof = prove(made.layout.bundle, model, makers)
    with pytest.raises(EvidenceError, match="signed by one of 1 makers"):
        expect_signed(proof, made.layout.bundle, read_trusted(keys.public("stranger")))
    lines = made.layout.bundle / "attestations.jsonl"
    whole = lines.read_bytes()
    for forged, want in (
        (whole.replace(b"keyid", b"keyld"), "attestations.jsonl"),
        (
            re.sub(rb'"sig":"(.)', lambda found: b'"sig":"' + (b"1" if found[1] == b"0" else b"0"), whole),
            "jsonl",
        ),
    ):
        lines.write_bytes(forged)
        with pytest.raises(EvidenceError, match=want):
            expect_signed(proof, made.layout.bundle, makers)
        if forged != whole:
            told = replace(proof, bundle=dict(proof.bundle) | {"attestations.jsonl": sha256_file(lines)})
            with pytest.raises(EvidenceError, match=want):
                expect_signed(told, made.layout.bundle, makers)
    lines.write_bytes(whole)
    (made.layout.bundle / "extra").write_bytes(b"")
    other = replace(proof, bundle=dict(proof.bundle) | {"extra": sha256_file(made.layout.bundle / "extra")})
    with pytest.raises(EvidenceError, match="a statement about these files"):
        expect_signed(other, made.layout.bundle, makers)
    (made.layout.bundle / "extra").unlink()


@pytest.mark.parametrize("name", ["model.onnx", "MLmodel", "requirements.txt", "new.py"])
def test_a_model_of_other_bytes_is_refused(
    name: str, made: Made, model: Path, keys: Keys, tmp_path: Path
) -> None:
    import shutil

    proof = prove(made.layout.bundle, model, load_trust({"LEANGATE_REGISTRY": str(keys.config)}).makers)
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "registered_model_meta").write_text("written by MLflow when somebody reads")
    expect_model_unchanged(proof, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(b"other")
    with pytest.raises(EvidenceError, match=f"as it was registered, got another {name}"):
        expect_model_unchanged(proof, tmp_path / "model")


def test_many_changed_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"")
    with pytest.raises(EvidenceError, match="got another a, b, c and 2 more"):
        expect_unchanged(dict.fromkeys("abcd", "1"), tmp_path, "it")


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ("loader_module: mlflow.onnx", "loader_module: evil", "loader_module mlflow.onnx, got 'evil'"),
        ("{data: model.onnx, loader", "{data: other.onnx, loader", "python_function.data model.onnx"),
        ("code: null, data: model.onnx", "code: null, data: other.onnx", "flavors.onnx.data model.onnx"),
        ("{data: model.onnx, loader", "{code: code, data: model.onnx, loader", "python_function.code None"),
        ("onnx_session_options: null", "onnx_session_options: {a: 1}", "onnx_session_options None"),
        ("flavors:", "flavors:\n  sklearn: {}", "only the flavours"),
        ("flavors:", "flavours:", "the flavours onnx and python_function"),
        ("  onnx: {", "  onnx: [", "expected YAML"),
    ],
)
def test_a_description_that_loads_something_else_is_refused(
    old: str, new: str, want: str, made: Made, model: Path, keys: Keys, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "MLmodel").write_text(MLMODEL.replace(old, new))
    with pytest.raises(Exception) as refused:
        prove(
            made.layout.bundle, tmp_path / "model", load_trust({"LEANGATE_REGISTRY": str(keys.config)}).makers
        )
    assert want in str(refused.value)


def test_another_onnx_file_than_the_judged_one_is_refused(
    made: Made, model: Path, keys: Keys, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "model.onnx").write_bytes(b"other")
    with pytest.raises(EvidenceError, match="expected the judged ONNX file"):
        prove(
            made.layout.bundle, tmp_path / "model", load_trust({"LEANGATE_REGISTRY": str(keys.config)}).makers
        )


ENVELOPES = {
    "not JSON": lambda line: line[:-1],
    "duplicate keys": lambda line: line.replace('{"payload"', '{"payload":"","payload"'),
    "another text for it": lambda line: line.replace('":', '": '),
    "too long": lambda line: line + " " * 70_000,
    "another payload": lambda line: line.replace(
        json.loads(line)["payload"], base64.b64encode(b'{"_type":"x"}').decode()
    ),
}


@pytest.mark.parametrize("what", ENVELOPES)
def test_envelopes_that_are_none(what: str, keys: Keys) -> None:
    owners = read_trusted(keys.config.parent / "owners")
    line = keys.policy_approval(POLICY)
    assert open_policy_approval(line, owners, "here").subject == POLICY
    with pytest.raises(EvidenceError, match="here"):
        open_policy_approval(ENVELOPES[what](line), owners, "here")


def test_an_approval_passes_for_no_policy_and_the_other_way_round(keys: Keys) -> None:
    owners = read_trusted(keys.config.parent / "owners")
    approvers = {keys.ids["owner"]: read_trusted(keys.public("owner"))[keys.ids["owner"]].to_dict()}
    with pytest.raises(EvidenceError, match="about policy.yaml"):
        open_policy_approval(keys.approval(Papers(), "1", "owner"), owners, "here")  # type: ignore[arg-type]
    with pytest.raises(EvidenceError, match=r"about model\.onnx"):
        open_approval(keys.policy_approval(POLICY), approvers, "here")


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"until": "soon"}, "until"),
        ({"approvals": 3}, "expected at least 3 approvers, got 2"),
        ({"approvals": -1}, "approvals"),
        ({"models": ()}, "models"),
        ({"more": 1}, "more"),
    ],
)
def test_a_policy_approval_that_says_nothing_sensible(changes: dict[str, Any], want: str, keys: Keys) -> None:
    from pipeline.attestation.envelopes import seal
    from pipeline.attestation.statements import statement
    from pipeline.promotion.statements import POLICY_APPROVAL

    good = json.loads(base64.b64decode(json.loads(keys.policy_approval(POLICY))["payload"]))["predicate"]
    said = statement({"policy.yaml": POLICY}, POLICY_APPROVAL, good | changes)
    with pytest.raises(EvidenceError) as refused:
        open_policy_approval(
            seal(said, keys.signer("owner")), read_trusted(keys.config.parent / "owners"), "here"
        )
    assert want in str(refused.value)


def test_a_statement_that_a_stranger_signed_too_is_refused(keys: Keys) -> None:
    """An approval is one person's: a second signature could be of who may, copied from elsewhere."""
    from pipeline.attestation.dsse import PAYLOAD_TYPE

    owners = read_trusted(keys.config.parent / "owners")
    both = json.loads(keys.policy_approval(POLICY))
    other = json.loads(keys.policy_approval(POLICY, "stranger"))
    assert both["payload"] == other["payload"]
    assert both["payloadType"] == PAYLOAD_TYPE
    both["signatures"] += other["signatures"]
    line = json.dumps(both, sort_keys=True, separators=(",", ":"))
    with pytest.raises(EvidenceError, match="of one key that may, and no other"):
        open_policy_approval(line, owners, "here")


def test_what_could_not_be_checked_is_not_proven(
    made: Made, model: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.promotion import proof
    from pipeline.verification import Step

    steps = iter([Step("files", "27 files"), Step("documents", "of another version", "unchecked")])
    monkeypatch.setattr(proof, "verify_bundle", lambda *_, **__: steps)
    with pytest.raises(EvidenceError, match="expected all of it checked, got documents: of another version"):
        prove(made.layout.bundle, model, load_trust({"LEANGATE_REGISTRY": str(keys.config)}).makers)


def test_a_foreign_key_under_a_trusted_name_is_refused(keys: Keys) -> None:
    """Ids are hashes of keys: nobody signs under another's."""
    owners = read_trusted(keys.config.parent / "owners")
    forged = json.loads(keys.policy_approval(POLICY, "stranger"))
    forged["signatures"][0]["keyid"] = keys.ids["owner"]
    with pytest.raises(EvidenceError, match="signature of key"):
        open_policy_approval(json.dumps(forged, sort_keys=True, separators=(",", ":")), owners, "here")
    line = keys.policy_approval(POLICY, approvers=("approver",))
    payload = json.loads(base64.b64decode(json.loads(line)["payload"]))
    (key,) = payload["predicate"]["approvers"].values()
    from pipeline.attestation.envelopes import seal

    payload["predicate"]["approvers"] = {keys.ids["second"]: key}
    with pytest.raises(EvidenceError, match="expected key"):
        open_policy_approval(seal(payload, keys.signer("owner")), owners, "here")


def test_configuration_is_read_again_when_it_changes(keys: Keys, tmp_path: Path) -> None:
    other = governed_keys(tmp_path / "other", protected_aliases="[Production, live]")
    environment = {"LEANGATE_REGISTRY": str(other.config)}
    trust = load_trust(environment)
    assert trust.protected == {"production", "live"}
    assert set(trust.makers) == {other.ids["maker"]}
    assert load_trust(environment) is trust
    added = other.config.parent / "makers" / "second.pub"
    added.write_bytes(other.public("second").read_bytes())
    assert set(load_trust(environment).makers) == {other.ids["maker"], other.ids["second"]}
    added.unlink()
    assert set(load_trust(environment).makers) == {other.ids["maker"]}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (None, "expected a readable file"),
        ("schema: leangate/registry/2\n", "registry.yaml: schema"),
        ("schema: leangate/registry/1\nmakers: makers\nledger_key: k\n", "registry.yaml: policy_owners"),
        ("- a\n", "registry.yaml"),
        ("schema: leangate/registry/1\nschema: x\n", "expected YAML"),
        (
            "schema: leangate/registry/1\npolicy_owners: a\nmakers: a\nledger_key: k\nmore: 1\n",
            "unknown key `more`",
        ),
        ("schema: leangate/registry/1\npolicy_owners: a\nmakers: b\nledger_key: k\n", "a private key"),
    ],
)
def test_wrong_configuration_names_file_and_key(text: str | None, want: str, tmp_path: Path) -> None:
    file = tmp_path / "registry.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError) as refused:
        load_trust({"LEANGATE_REGISTRY": str(file)})
    assert want in str(refused.value)


def test_without_configuration_nothing_is_trusted() -> None:
    with pytest.raises(InputError, match="LEANGATE_REGISTRY"):
        load_trust({})
    assert FOREVER > "2900"


def test_every_way_to_write_to_mlflows_store_is_guarded() -> None:
    """A method that a new MLflow adds is unknown here, and has to be looked at before it is let through."""
    import inspect
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

        from leangate.plugins.gated_store import GatedStore
    reads = ("get_", "search_", "list_", "test_", "supports_")
    # Webhooks announce and cannot change a version; prompts and copies end in the methods below.
    beside = {"create_webhook", "update_webhook", "delete_webhook", "copy_model_version"}
    writers = {
        name
        for name, _ in inspect.getmembers(SqlAlchemyStore, callable)
        if not name.startswith(("_", *reads)) and "prompt" not in name and name[0].islower()
    } - beside
    assert writers == {
        *("create_registered_model", "update_registered_model", "rename_registered_model"),
        *("delete_registered_model", "set_registered_model_tag", "delete_registered_model_tag"),
        *("create_model_version", "update_model_version", "delete_model_version"),
        *("transition_model_version_stage", "set_model_version_tag", "delete_model_version_tag"),
        *("set_registered_model_alias", "delete_registered_model_alias"),
    }
    for name in (*writers, "get_model_version_by_alias"):
        assert getattr(GatedStore, name).__module__.startswith("leangate.plugins."), name


def test_a_revocation_beside_a_single_key_counts_at_once(tmp_path: Path) -> None:
    keys = governed_keys(tmp_path, makers=str(tmp_path / "maker" / "leangate.pub"))
    environment = {"LEANGATE_REGISTRY": str(keys.config)}
    assert set(load_trust(environment).makers) == {keys.ids["maker"]}
    (tmp_path / "maker" / "revoked").write_text(f"{keys.ids['maker']} 2026-11-24 stolen\n")
    try:
        makers = set(load_trust(environment).makers)
    except InputError:  # of nobody who is left
        makers = set()
    assert makers == set()


def test_keys_that_were_withdrawn_while_another_thread_read_them_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.promotion import config

    keys = governed_keys(tmp_path)
    environment = {"LEANGATE_REGISTRY": str(keys.config)}
    added = keys.config.parent / "makers" / "second.pub"
    added.write_bytes(keys.public("second").read_bytes())
    plain = config.read_signer

    def slow(text: str) -> Any:
        """While one thread reads, the key is withdrawn, and another one reads what is left."""
        monkeypatch.setattr(config, "read_signer", plain)
        signer = plain(text)
        before = read_trusted(keys.config.parent / "makers")
        added.unlink()
        assert set(load_trust(environment).makers) == {keys.ids["maker"]}
        monkeypatch.setattr(config, "read_trusted", lambda path: before)
        return signer

    monkeypatch.setattr(config, "read_signer", slow)
    assert keys.ids["second"] in load_trust(environment).makers
    monkeypatch.setattr(config, "read_trusted", read_trusted)
    assert set(load_trust(environment).makers) == {keys.ids["maker"]}


def test_what_no_maker_signed_is_not_read_as_evidence(
    made: Made, model: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.promotion import proof

    monkeypatch.setattr(proof, "verify_bundle", lambda *_: pytest.fail("it was read"))
    with pytest.raises(EvidenceError, match="signed by one of 1 trusted keys"):
        prove(made.layout.bundle, model, read_trusted(keys.public("stranger")))
    bundle = Path(shutil.copytree(made.layout.bundle, tmp_path / "bundle"))
    (bundle / "policy.yaml").write_text("a: [" * 20)
    with pytest.raises(EvidenceError, match="about these files"):
        prove(bundle, model, read_trusted(keys.public("maker")))
    (bundle / "attestations.jsonl").unlink()
    with pytest.raises(EvidenceError, match="signed attestations, got none"):
        prove(bundle, model, read_trusted(keys.public("maker")))


def test_an_approval_of_a_policy_that_was_replaced_counts_once(story: Story, keys: Keys) -> None:
    owners = read_trusted(keys.config.parent / "owners")
    story.policy(until="2030-01-01").policy(until="2029-01-01", models=("other",))

    def comes(**changes: Any) -> None:
        envelope = keys.policy_approval(POLICY, **changes)
        expect_not_replaced(story.entries, open_policy_approval(envelope, owners, "here"), owners, "here")

    with pytest.raises(EvidenceError, match="entry 1, which entry 2 replaced"):
        comes(until="2030-01-01")
    comes(until="2029-01-01", models=("other",))
    comes(until="2031-01-01")
    story.policy(until="2028-01-01", models=("third",))
    comes(until="2029-01-01", models=("other",))  # of other models alone


def test_a_remembered_digest_sees_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same size and the times set back: the kernel's own time of change tells."""
    import os

    from pipeline.promotion import remembered

    file = tmp_path / "model.onnx"
    file.write_bytes(b"one")
    before = file.stat()
    hashed: list[Path] = []
    real = sha256_file
    monkeypatch.setattr(remembered, "sha256_file", lambda path: hashed.append(path) or real(path))
    first = remembered.remembered_sha256(file)
    assert remembered.remembered_sha256(file) == first
    assert len(hashed) == 2, "what changed just now is not remembered"
    monkeypatch.setattr(remembered, "_SETTLED_NS", -(10**18))
    assert [remembered.remembered_sha256(file) for _ in range(3)] == [first] * 3
    assert len(hashed) == 3
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remembered.remembered_sha256(file) == real(file) != first
    other = tmp_path / "other"
    other.write_bytes(b"six")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert remembered.remembered_sha256(file) == real(file)
