# SPDX-License-Identifier: Apache-2.0
"""Attempts with evidence, policies and approvals that are forged, stale, or of something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from checks.canonical import dumps, read_json, sha256_file
from pipeline.attestation.keys import PUBLIC
from pipeline.card.contents import ATTESTATIONS, MANIFEST, with_digest
from tests.bypass.attempts import Attempt
from tests.bypass.world import API, MODEL, World, day
from tests.registry_server import Reply

__all__ = ["EVIDENCE"]

REST = "REST"


def _register(world: World, bundle: Path, onnx: Path | None = None, name: str = "") -> Reply:
    """Log a bundle and a model, and claim the one for the other."""
    name = name or world.fresh("claimed")
    world.approve_policy(name, world.policy(world.project.bundle, name))
    run_id, model_id = world.log(bundle, onnx or bundle / "model.onnx")
    return world.claim(name, bundle, run_id, f"models:/{model_id}", model_id=model_id)


def _mend(bundle: Path) -> None:
    """Give every file of a bundle the digest it has now, as somebody would who knows how."""
    policy = sha256_file(bundle / "policy.yaml")
    value = read_json(bundle / "decision.json")
    value["policy"]["sha256"] = policy
    value["evidence"] = {name: sha256_file(bundle / "evidence" / name) for name in value["evidence"]}
    (bundle / "decision.json").write_text(dumps(value))
    decision = sha256_file(bundle / "decision.json")
    verdict = bundle / "records/verdict.json"
    changed = {"decision_sha256": decision, "policy_sha256": policy}
    verdict.write_text(dumps(read_json(verdict) | changed))
    manifest = read_json(bundle / MANIFEST) | changed
    for name in manifest["files"]:
        path = bundle / name
        manifest["files"][name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    (bundle / MANIFEST).write_text(dumps(with_digest(manifest)))


def _changed(change: Callable[[Path], None], *, signed: bool) -> Callable[[World], Reply]:
    def act(world: World) -> Reply:
        bundle = world.copy(world.project.bundle)
        (bundle / ATTESTATIONS).unlink()
        change(bundle)
        _mend(bundle)
        if signed:
            world.sign(bundle, "maker")
        return _register(world, bundle)

    return act


def _better_number(bundle: Path) -> None:
    decision = read_json(bundle / "decision.json")
    decision["findings"][0]["value"] = 0.5
    (bundle / "decision.json").write_text(dumps(decision))


def _fewer_losses(bundle: Path) -> None:
    path = bundle / "evidence/candidate.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = next(name for name, value in arrays.items() if value.dtype == np.float32 and value.ndim == 2)
    arrays[name] = arrays[name][:, ::-1].copy()
    np.savez(path, **arrays)


def _lax_policy(bundle: Path) -> None:
    path = bundle / "policy.yaml"
    path.write_text(path.read_text().replace("margin: 0.3", "margin: 0.9"))


def _onnx_of_another(world: World) -> Reply:
    return _register(world, world.project.bundle, world.other.bundle / "model.onnx")


def _flipped_byte(world: World) -> Reply:
    """The bytes that were judged, but for one weight."""
    changed = world.folder / world.fresh("onnx")
    data = bytearray((world.project.bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(bytes(data))
    return _register(world, world.project.bundle, changed)


def _unsigned(world: World) -> Reply:
    bundle = world.copy(world.project.bundle)
    (bundle / ATTESTATIONS).unlink()
    return _register(world, bundle)


def _signed_by_stranger(world: World) -> Reply:
    bundle = world.copy(world.project.bundle)
    world.sign(bundle, "stranger")
    return _register(world, bundle)


def _foreign_signatures(world: World) -> Reply:
    bundle = world.copy(world.project.bundle)
    shutil.copy(world.other.bundle / ATTESTATIONS, bundle / ATTESTATIONS)
    return _register(world, bundle)


def _maker_withdrawn(world: World) -> Reply:
    """Signed and approved while the key counted; promoted when it does no more."""
    bundle = world.copy(world.project.bundle)
    world.sign(bundle, "withdrawn")
    name = world.fresh("withdrawn")
    made = _register(world, bundle, name=name)
    assert made.status == 200, made.reason
    assert world.approve(name, "1", world.approval(bundle, name, "1")).status == 200
    key = world.folder / "trusted/makers/withdrawn.pub"
    key.unlink()
    try:
        return world.alias(name, "1")
    finally:
        shutil.copy(world.key("withdrawn") / PUBLIC, key)


def _unapproved_policy(world: World) -> Reply:
    name = world.fresh("policyless")
    version = world.governed(name, world.project)
    assert version == "1"
    version = world.register(world.unapproved, name)
    return world.alias(name, version)


def _policy_of_a_stranger(world: World) -> Reply:
    name = world.fresh("strange")
    return world.approve_policy(name, world.policy(world.unapproved.bundle, name, by="stranger"))


def _policy_afterwards(world: World) -> Reply:
    name = world.fresh("afterwards")
    world.post("registered-models/create", {"name": name})
    version = world.register(world.project, name)
    assert world.approve_policy(name, world.policy(world.project.bundle, name, approvals=0)).status == 200
    return world.alias(name, version)


def _policy_ended(world: World) -> Reply:
    name = world.fresh("ended")
    version = world.governed(name, world.project)
    assert world.approve(name, version, world.approval(world.project.bundle, name, version)).status == 200
    ended = world.policy(world.project.bundle, name, until=day(-1))
    assert world.approve_policy(name, ended).status == 200
    return world.alias(name, version)


def _policy_of_another_model(world: World) -> Reply:
    """The proof of one model, registered under a name the policy was not approved for."""
    name = world.fresh("foreign")
    version = world.register(world.project, name)
    return world.alias(name, version)


def _claim_from(source: Callable[[World], str], **more: Any) -> Callable[[World], Reply]:
    def act(world: World) -> Reply:
        name = world.fresh("elsewhere")
        world.approve_policy(name, world.policy(world.project.bundle, name, approvals=0))
        run_id = world.proof_home.parts[-3]
        made = world.claim(name, world.project.bundle, run_id, source(world), **more)
        # A version that could be made is held against its evidence once more when it is promoted.
        return made if made.status != 200 else world.alias(name, made.json["model_version"]["version"])

    return act


def _mutable_place(world: World) -> Reply:
    """An experiment may have a place of its own, and the server overwrites what is there."""
    place = world.folder / world.fresh("place")
    body = {"name": world.fresh("experiment"), "artifact_location": f"file://{place}"}
    made = world.post("experiments/create", body)
    if made.status != 200:
        return made
    run = world.post("runs/create", {"experiment_id": made.json["experiment_id"]}).json["run"]["info"]
    home = place / run["run_id"] / "artifacts"
    shutil.copytree(world.proof_home, home / "bundle")
    shutil.copytree(world.home, home / "model")
    name = world.fresh("movable")
    assert world.approve_policy(name, world.policy(world.project.bundle, name, approvals=0)).status == 200
    made = world.claim(name, world.project.bundle, run["run_id"], f"file://{home}/model")
    return made if made.status != 200 else world.alias(name, "1")


def _ready(world: World, stem: str, **policy: Any) -> tuple[str, str]:
    name = world.fresh(stem)
    return name, world.governed(name, world.project, **policy)


def _approval(**how: Any) -> Callable[[World], Reply]:
    """Send an approval that does not fit; if it were taken, the promotion would be the step that counts."""

    def act(world: World) -> Reply:
        name, version = _ready(world, "approved")
        says = {key: value(world) if callable(value) else value for key, value in how.items()}
        sent = world.approve(name, version, world.approval(world.project.bundle, name, version, **says))
        return sent if sent.status != 200 else world.alias(name, version)

    return act


def _approval_replayed(world: World) -> Reply:
    """What was agreed to for the version in production, sent for the next one."""
    envelope = world.approval(world.project.bundle, MODEL, "1")
    sent = world.approve(MODEL, "2", envelope)
    return sent if sent.status != 200 else world.alias(MODEL, "2")


def _approval_tampered(world: World) -> Reply:
    name, version = _ready(world, "tampered")
    value = json.loads(world.approval(world.project.bundle, name, version))
    signature = value["signatures"][0]["sig"]
    value["signatures"][0]["sig"] = ("A" if signature[0] != "A" else "B") + signature[1:]
    sent = world.approve(name, version, json.dumps(value))
    return sent if sent.status != 200 else world.alias(name, version)


def _approval_with_two_signatures(world: World) -> Reply:
    name, version = _ready(world, "doubled")
    value = json.loads(world.approval(world.project.bundle, name, version))
    more = json.loads(world.approval(world.project.bundle, name, version, by="stranger"))
    value["signatures"] += more["signatures"]
    return world.approve(name, version, json.dumps(value))


def _approved_by_who_registered(world: World) -> Reply:
    """An approver's key in the hands of who registered the version."""
    name, version = _ready(world, "alone")
    envelope = world.approval(world.project.bundle, name, version)
    sent = world.approve(name, version, envelope, user="author")
    return sent if sent.status != 200 else world.alias(name, version)


def _one_approver_twice(world: World) -> Reply:
    name, version = _ready(world, "pair", approvals=2)
    for distance in (10, 20):
        envelope = world.approval(world.project.bundle, name, version, until=day(distance))
        assert world.approve(name, version, envelope).status == 200
    return world.alias(name, version)


def _one_person_with_two_keys(world: World) -> Reply:
    name, version = _ready(world, "pair", approvals=2)
    for person in ("approver", "second"):
        envelope = world.approval(world.project.bundle, name, version, by=person)
        assert world.approve(name, version, envelope).status == 200
    return world.alias(name, version)


def _revoke(world: World, name: str, version: str) -> None:
    body = {"name": name, "version": version, "key": "leangate.revoke", "value": "wrong labels"}
    reply = world.post("model-versions/set-tag", body, user="approver")
    assert reply.status == 200, reply.reason


def _revoked(world: World) -> Reply:
    name, version = _ready(world, "revoked")
    assert world.approve(name, version, world.approval(world.project.bundle, name, version)).status == 200
    _revoke(world, name, version)
    return world.alias(name, version)


def _revoked_in_production(world: World) -> Reply:
    name, version = _ready(world, "recalled")
    assert world.approve(name, version, world.approval(world.project.bundle, name, version)).status == 200
    world.promote(name, version)
    _revoke(world, name, version)
    return world.resolve(name)


def _revoked_and_registered_again(world: World) -> Reply:
    """A revocation is not undone by deleting the model and doing everything again with the old approval."""
    name, version = _ready(world, "undead")
    envelope = world.approval(world.project.bundle, name, version)
    assert world.approve(name, version, envelope).status == 200
    _revoke(world, name, version)
    deleted = world.server.call("DELETE", f"{API}/registered-models/delete", {"name": name}, user="author")
    if deleted.status != 200:
        return deleted
    world.post("registered-models/create", {"name": name})
    again = world.register(world.project, name)
    sent = world.approve(name, again, envelope)
    return sent if sent.status != 200 else world.alias(name, again)


def _configuration_unreadable(world: World) -> Reply:
    """While nobody can say which aliases are protected, none moves."""
    path = world.folder / "trusted/registry.yaml"
    words = path.read_text()
    path.write_text("schema: another\n")
    try:
        return world.alias(MODEL, "3", "live")
    finally:
        path.write_text(words)


def _killed(world: World) -> Reply:
    """The server dies while it promotes; what it says afterwards is what its ledger says."""
    import threading
    import time

    name, version = _ready(world, "killed", approvals=0)
    bad = world.unproven(name)
    for delay in (0.005, 0.02):
        thread = threading.Thread(target=world.alias, args=(name, version))
        thread.start()
        time.sleep(delay)
        world.server.kill()
        thread.join()
        world.server.start()
        held = world.protected().get((name, "production"))
        rows = world.query("SELECT entry FROM leangate_ledger WHERE model = :m AND act = 'promote'", m=name)
        told = {json.loads(row[0])["version"] for row in rows}
        assert told == ({held} if held else set()), (held, told)
        if held:
            world.expected[name, "production"] = held
            assert world.resolve(name).status == 200
            break
    return world.alias(name, bad)


EVIDENCE: tuple[Attempt, ...] = (
    Attempt("the bundle of another model", REST, _onnx_of_another, quick=True),
    Attempt("the judged model but for one byte", REST, _flipped_byte),
    Attempt("a bundle with a better number", REST, _changed(_better_number, signed=False)),
    Attempt(
        "a bundle with a better number, signed by its maker", REST, _changed(_better_number, signed=True)
    ),
    Attempt("evidence with other predictions, signed", REST, _changed(_fewer_losses, signed=True)),
    Attempt("a bundle with a laxer policy, signed", REST, _changed(_lax_policy, signed=True)),
    Attempt("an unsigned bundle", REST, _unsigned, quick=True),
    Attempt("a bundle signed by a key nobody knows", REST, _signed_by_stranger),
    Attempt("a bundle with another bundle's signatures", REST, _foreign_signatures),
    Attempt("a bundle signed by a key that was withdrawn", REST, _maker_withdrawn),
    Attempt("a policy nobody approved", REST, _unapproved_policy),
    Attempt("a policy approved by a key that owns none", REST, _policy_of_a_stranger),
    Attempt("a policy approved after the model was judged", REST, _policy_afterwards),
    Attempt("a policy that has ended", REST, _policy_ended, quick=True),
    Attempt("the proof of one model under another's name", REST, _policy_of_another_model),
    Attempt(
        "a source on the server's disk", REST, _claim_from(lambda world: f"file://{world.home}"), entry=False
    ),
    Attempt(
        "a source beside the artifacts",
        REST,
        _claim_from(lambda world: f"mlflow-artifacts:/{world.artifact(world.home)}/../artifacts"),
        entry=False,
    ),
    Attempt(
        "the artifacts' address on another host",
        REST,
        _claim_from(lambda world: f"mlflow-artifacts://127.0.0.2:80/{world.artifact(world.home)}"),
        entry=False,
    ),
    Attempt("a source on the web", REST, _claim_from(lambda _: "https://example.org/model"), entry=False),
    Attempt("a source in a bucket", REST, _claim_from(lambda _: "s3://bucket/model"), entry=False),
    Attempt(
        "a source of another run",
        REST,
        _claim_from(lambda world: f"runs:/{world.plain[0]}/model"),
        entry=False,
    ),
    Attempt(
        "a logged model under the id of another",
        REST,
        _claim_from(lambda world: f"models:/{world.plain[1]}", model_id="m-" + "0" * 32),
        entry=False,
    ),
    Attempt(
        "another logged model beside the proof",
        REST,
        _claim_from(lambda world: f"models:/{MODEL}/3"),
        entry=False,
    ),
    Attempt("files in a place where they can be overwritten", REST, _mutable_place),
    Attempt("an approval that has ended", REST, _approval(until=day(-1)), quick=True),
    Attempt("an approval by the bundle's maker", REST, _approval(by="maker"), quick=True),
    Attempt("an approval by a key that may not", REST, _approval(by="stranger")),
    Attempt("an approval for another alias", REST, _approval(alias="champion")),
    Attempt("an approval of another version", REST, _approval(version="7")),
    Attempt("an approval of another model", REST, _approval(model=MODEL)),
    Attempt("an approval of another bundle", REST, _approval(bundle_sha256="0" * 64)),
    Attempt("an approval under another policy", REST, _approval(policy_sha256="0" * 64)),
    Attempt("an approval of another ONNX file", REST, _approval(onnx="0" * 64)),
    Attempt("an approval replayed for the next version", REST, _approval_replayed, quick=True),
    Attempt("an approval with a changed signature", REST, _approval_tampered),
    Attempt("an approval with a second signature", REST, _approval_with_two_signatures),
    Attempt("approved by who registered it", REST, _approved_by_who_registered, quick=True),
    Attempt("two approvals by one approver", REST, _one_approver_twice),
    Attempt("two approvals by one person with two keys", REST, _one_person_with_two_keys),
    Attempt("a version that was revoked", REST, _revoked, quick=True),
    Attempt("ask for production that was revoked", REST, _revoked_in_production, quick=True),
    Attempt("a revoked version registered again, with its approval", REST, _revoked_and_registered_again),
    Attempt("an alias while the configuration cannot be read", REST, _configuration_unreadable),
    Attempt("the server killed while it promotes", REST, _killed, quick=True),
)
