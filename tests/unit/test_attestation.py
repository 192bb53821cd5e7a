# SPDX-License-Identifier: Apache-2.0
"""Signatures of bundles: made by file, environment or command, checked by another implementation, and not fooled."""

import base64
import importlib
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from checks.canonical import dumps, sha256_file
from checks.errors import EvidenceError, InputError, LeanGateError
from leangate.cli import main
from pipeline.attestation.keys import find_signer, make_keys, read_trusted
from pipeline.card.contents import with_digest
from pipeline.verification import verify_bundle
from tests.bundle_project import build_project, judge_project, project_params

ROOT = Path(__file__).resolve().parents[2]
stage = importlib.import_module("pipeline.bundle")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory, keys):
    layout = build_project(tmp_path_factory.mktemp("signed"))
    judge_project(layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEANGATE_SIGNING_KEY", str(keys / "leangate.key"))
        stage.run(layout, project_params())
    return layout


@pytest.fixture
def bundle(project, tmp_path):
    return Path(shutil.copytree(project.bundle, tmp_path / "bundle"))


def _envelopes(bundle):
    return [json.loads(line) for line in (bundle / "attestations.jsonl").read_text().splitlines()]


def _write(bundle, envelopes):
    lines = [json.dumps(entry, sort_keys=True, separators=(",", ":")) for entry in envelopes]
    (bundle / "attestations.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _payload(envelope):
    return json.loads(base64.b64decode(envelope["payload"]))


def test_a_signed_bundle_is_verified_by_its_key(project, keys, capsys):
    steps = list(verify_bundle(project.bundle, read_trusted(keys)))
    assert steps[-1].name == "signatures"
    assert next(iter(read_trusted(keys)))[:16] in steps[-1].said
    assert main(["verify", str(project.bundle), "--trust", str(keys / "leangate.pub")]) == 0
    assert "signed by" in capsys.readouterr().out
    assert "--trust would check" in list(verify_bundle(project.bundle))[-1].said


def test_signing_again_gives_the_same_bytes(project, bundle, keys, monkeypatch):
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", (keys / "leangate.key").read_text())
    before = (bundle / "attestations.jsonl").read_bytes()
    (bundle / "attestations.jsonl").unlink()
    assert main(["sign", str(bundle)]) == 0
    assert (bundle / "attestations.jsonl").read_bytes() == before


def test_the_signatures_are_ed25519_over_dsse_as_the_standard_says(project, keys):
    public = serialization.load_pem_public_key((keys / "leangate.pub").read_bytes())
    for envelope in _envelopes(project.bundle):
        kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
        encoded = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), encoded)


def test_the_statements_are_in_toto_about_every_file(project):
    kinds = {}
    for envelope in _envelopes(project.bundle):
        value = _payload(envelope)
        assert value["_type"] == "https://in-toto.io/Statement/v1"
        kinds[value["predicateType"]] = value["predicate"]
        named = {entry["name"]: entry["digest"]["sha256"] for entry in value["subject"]}
        files = {
            path.relative_to(project.bundle).as_posix(): sha256_file(path)
            for path in project.bundle.rglob("*")
            if path.is_file() and path.name != "attestations.jsonl"
        }
        assert named == files
    assert set(kinds) == {
        "https://slsa.dev/provenance/v1",
        "https://slsa.dev/verification_summary/v1",
        "urn:leangate:gate-evidence:1",
    }
    schema = json.loads((ROOT / "pipeline/attestation/schemas/gate-evidence.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(kinds["urn:leangate:gate-evidence:1"], schema, jsonschema.Draft202012Validator)
    summary = kinds["https://slsa.dev/verification_summary/v1"]
    assert summary["verificationResult"] == "PASSED"
    assert summary["policy"]["digest"]["sha256"] == sha256_file(project.policy)
    made = kinds["https://slsa.dev/provenance/v1"]["buildDefinition"]
    assert made["externalParameters"]["params"]["digest"]["sha256"] == sha256_file(project.params)


def test_provenance_names_the_commit_and_what_the_lock_names(project, bundle, keys, monkeypatch):
    root = bundle.parent / "repository"
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.txt").write_text("a")
    (root / "model.bin").write_text("m")
    (root / "bundle").mkdir()
    (root / "bundle" / "model.onnx").write_text("what is described is no part of where it comes from")
    shutil.copy(project.params, root / "params.yaml")
    lock = {
        "train": {"cmd": "x", "outs": [{"path": "model.bin", "md5": "0" * 32, "hash": "md5"}]},
        "prepare": {"cmd": "x", "outs": [{"path": "data", "md5": "1" * 32 + ".dir", "hash": "md5"}]},
        "bundle": {"cmd": "x", "outs": [{"path": "bundle", "md5": "2" * 32 + ".dir"}]},
    }
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))
    git = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    monkeypatch.chdir(root)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys / "leangate.key"))

    def signed():
        assert main(["sign", str(bundle)]) == 0
        made = next(
            _payload(entry)
            for entry in _envelopes(bundle)
            if "provenance" in _payload(entry)["predicateType"]
        )
        found = made["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {entry["name"]: entry for entry in found}

    first = signed()
    assert first["git"] == {
        "name": "git", "digest": {"gitCommit": commit}, "annotations": {"changed": False},
    }  # fmt: skip
    assert first["model.bin"]["digest"] == {"md5": "0" * 32, "sha256": sha256_file(root / "model.bin")}
    assert first["data"]["annotations"] == {"stage": "prepare"}
    assert "bundle" not in first
    (root / "data" / "a.txt").write_text("b")
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "\n")
    second = signed()
    assert second["git"]["annotations"] == {"changed": True}
    assert second["data"]["digest"]["sha256"] != first["data"]["digest"]["sha256"]
    assert [step.name for step in verify_bundle(bundle, read_trusted(keys))][-1] == "signatures"


def _cut_off(bundle):
    _write(bundle, _envelopes(bundle)[:2])


def _twice(bundle):
    _write(bundle, [*_envelopes(bundle), _envelopes(bundle)[0]])


def _restate(bundle, change):
    envelopes = _envelopes(bundle)
    value = _payload(envelopes[0])
    change(value)
    envelopes[0]["payload"] = base64.b64encode(json.dumps(value).encode()).decode()
    _write(bundle, envelopes)


def _other_origin(bundle):
    _restate(bundle, lambda value: value["predicate"]["buildDefinition"].update(buildType="mine"))


def _other_subject(bundle):
    _restate(bundle, lambda value: value["subject"].pop())


def _other_type(bundle):
    envelopes = _envelopes(bundle)
    envelopes[1]["payloadType"] = "text/plain"
    _write(bundle, envelopes)


def _other_environment(bundle):
    path = bundle / "bundle.json"
    value = json.loads(path.read_text())
    value["environment"]["numpy"] = "9.9.9"
    path.write_text(dumps(with_digest(value)))


def _no_json(bundle):
    (bundle / "attestations.jsonl").write_text("{]\n")


def _nothing(bundle):
    (bundle / "attestations.jsonl").write_text("")


def _no_base64(bundle):
    envelopes = _envelopes(bundle)
    envelopes[0]["payload"] = "%%%"
    _write(bundle, envelopes)


def _other_spacing(bundle):
    lines = [json.dumps(entry) for entry in _envelopes(bundle)]
    (bundle / "attestations.jsonl").write_text("".join(f"{line}\n" for line in lines))


def _other_base64(bundle):
    """The same 64 bytes: the last digit of a signature holds four bits that no byte needs."""
    envelopes = _envelopes(bundle)
    text = envelopes[0]["signatures"][0]["sig"]
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = f"{text[:-3]}{digits[digits.index(text[-3]) ^ 1]}=="
    assert base64.b64decode(other) == base64.b64decode(text)
    envelopes[0]["signatures"][0]["sig"] = other
    _write(bundle, envelopes)


def _no_signature(bundle):
    _write(bundle, [entry | {"signatures": []} for entry in _envelopes(bundle)])


def _one_unsigned(bundle):
    first, *rest = _envelopes(bundle)
    _write(bundle, [first | {"signatures": []}, *rest])


def _removed(bundle):
    (bundle / "attestations.jsonl").unlink()


CHANGES = [
    *(_cut_off, _twice, _other_origin, _other_subject, _other_type, _other_environment, _no_json, _nothing),
    *(_no_base64, _other_spacing, _other_base64, _no_signature, _one_unsigned, _removed),
]


@pytest.mark.parametrize("change", CHANGES)
def test_attestations_that_were_changed_are_found(bundle, keys, change, capsys):
    change(bundle)
    with pytest.raises(EvidenceError):
        list(verify_bundle(bundle, read_trusted(keys)))
    assert main(["verify", str(bundle), "--trust", str(keys)]) == 1
    said = capsys.readouterr()
    assert "NOT verified" in said.out
    assert "Traceback" not in said.out + said.err


def test_any_byte_of_a_signed_bundle_that_changes_is_found(bundle, keys):
    trusted, rng = read_trusted(keys), np.random.default_rng(0)
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    about = [bundle / "bundle.json", bundle / "attestations.jsonl"]
    # Most of all in what no other file holds the digest of.
    for path in [*files, *about * 40]:
        kept = path.read_bytes()
        data = bytearray(kept)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        with pytest.raises(LeanGateError):
            list(verify_bundle(bundle, trusted))
        path.write_bytes(kept)
    assert len(list(verify_bundle(bundle, trusted))) == 5


def test_a_signature_of_another_key_does_not_open(bundle, keys, tmp_path, capsys, monkeypatch):
    make_keys(tmp_path / "other")
    assert main(["verify", str(bundle), "--trust", str(tmp_path / "other")]) == 1
    assert "trusted keys, got signatures of" in " ".join(capsys.readouterr().out.split())
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(tmp_path / "other" / "leangate.key"))
    assert main(["sign", str(bundle)]) == 0
    assert main(["verify", str(bundle), "--trust", str(keys)]) == 1
    assert main(["verify", str(bundle), "--trust", str(tmp_path / "other")]) == 0


def test_several_places_of_keys_are_trusted_together(bundle, keys, tmp_path):
    make_keys(tmp_path / "other")
    places = [str(keys / "leangate.pub"), str(tmp_path / "other")]
    for one, other in (places, places[::-1]):
        assert main(["verify", str(bundle), "--trust", one, "--trust", other]) == 0


def test_nobody_signs_what_does_not_follow(project, bundle, keys, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys / "leangate.key"))
    (bundle / "attestations.jsonl").unlink()
    decision, manifest, verdict = (
        bundle / name for name in ("decision.json", "bundle.json", "records/verdict.json")
    )
    value = json.loads(decision.read_text())
    value["findings"][0]["value"] = 0.5
    decision.write_text(json.dumps(value))
    value = json.loads(verdict.read_text()) | {"decision_sha256": sha256_file(decision)}
    verdict.write_text(json.dumps(value))
    value = json.loads(manifest.read_text()) | {"decision_sha256": sha256_file(decision)}
    for name in ("decision.json", "records/verdict.json"):
        value["files"][name] = {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
    manifest.write_text(dumps(with_digest(value)))
    assert main(["sign", str(bundle)]) == 4
    assert "what follows from the evidence" in capsys.readouterr().err
    assert not (bundle / "attestations.jsonl").exists()


def test_signing_outside_a_project_is_wrong_use(bundle, keys, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys / "leangate.key"))
    assert main(["sign", str(bundle)]) == 2
    assert "folder that holds dvc.yaml" in capsys.readouterr().err


def test_the_signature_answers_for_the_words_of_another_version(project, keys, tmp_path, monkeypatch):
    """A later version cannot word the card again, and a trusted key has signed it."""
    monkeypatch.setattr("pipeline.verification.VERSION", "99.0")
    assert main(["verify", str(project.bundle)]) == 4
    assert main(["verify", str(project.bundle), "--trust", str(keys)]) == 0
    make_keys(tmp_path / "other")
    assert main(["verify", str(project.bundle), "--trust", str(tmp_path / "other")]) == 1


def test_a_stranger_who_takes_the_name_of_a_trusted_key_is_found(bundle, keys, tmp_path, monkeypatch):
    make_keys(tmp_path / "other")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(tmp_path / "other" / "leangate.key"))
    assert main(["sign", str(bundle)]) == 0
    trusted = next(iter(read_trusted(keys)))
    _write(
        bundle,
        [e | {"signatures": [s | {"keyid": trusted} for s in e["signatures"]]} for e in _envelopes(bundle)],
    )
    with pytest.raises(EvidenceError, match="signature of key .* to hold"):
        list(verify_bundle(bundle, read_trusted(keys)))


def test_keys_are_secret_and_never_overwritten(tmp_path, capsys):
    assert main(["keys", "new", str(tmp_path / "k")]) == 0
    said = capsys.readouterr().out
    assert "PRIVATE" not in said
    private = tmp_path / "k" / "leangate.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes()
    assert main(["keys", "new", str(tmp_path / "k")]) == 2
    assert private.read_bytes() == before
    private.chmod(0o644)
    with pytest.raises(InputError, match="owner alone"):
        find_signer({"LEANGATE_SIGNING_KEY": str(private)})


def test_a_command_signs_as_a_key_service_does(bundle, keys, tmp_path, monkeypatch):
    script = tmp_path / "service.py"
    script.write_text(
        "import base64, sys\n"
        "from cryptography.hazmat.primitives.serialization import load_pem_private_key\n"
        "key = load_pem_private_key(open(sys.argv[1], 'rb').read(), None)\n"
        "print(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())\n"
    )
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LEANGATE_SIGNING_COMMAND", f"{sys.executable} {script} {keys / 'leangate.key'}")
    monkeypatch.setenv("LEANGATE_SIGNING_PUBLIC_KEY", str(keys / "leangate.pub"))
    assert main(["sign", str(bundle)]) == 0
    assert main(["verify", str(bundle), "--trust", str(keys)]) == 0
    make_keys(tmp_path / "other")
    monkeypatch.setenv("LEANGATE_SIGNING_PUBLIC_KEY", str(tmp_path / "other" / "leangate.pub"))
    before = (bundle / "attestations.jsonl").read_bytes()
    assert main(["sign", str(bundle)]) == 2
    assert (bundle / "attestations.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "environment",
    [
        {"LEANGATE_SIGNING_KEY": "nowhere.key"},
        {"LEANGATE_SIGNING_KEY": "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"},
        {"LEANGATE_SIGNING_COMMAND": "true"},
        {"LEANGATE_SIGNING_COMMAND": "true", "LEANGATE_SIGNING_KEY": "x"},
    ],
)
def test_what_is_no_key_is_refused(environment):
    with pytest.raises(InputError):
        find_signer(environment)


@pytest.mark.parametrize(
    "command", ["false", "echo short", "no-such-command-anywhere", "echo %%%", "echo 'open", " "]
)
def test_a_command_that_does_not_sign_is_one_sentence(keys, bundle, command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LEANGATE_SIGNING_COMMAND", command)
    monkeypatch.setenv("LEANGATE_SIGNING_PUBLIC_KEY", str(keys / "leangate.pub"))
    assert main(["sign", str(bundle)]) == 2
    assert capsys.readouterr().err.startswith("error: LEANGATE_SIGNING_COMMAND: ")


_LAST_WORDS = """import sys
payload = sys.stdin.buffer.read()
sys.stderr.write("an earlier line\\n" + {said} + "\\n")
sys.exit(3)
"""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("'no such key: \\x1b[31mci\\x1b[0m'", "got exit status 3: no such key: \ufffd[31mci\ufffd[0m"),
        ("'x' * 5000", "got exit status 3: " + "x" * 199 + "\u2026"),
        ("'cannot sign ' + payload.decode()", "got exit status 3, and on standard error what it was to sign"),
        ("payload.hex()", "got exit status 3, and on standard error what it was to sign"),
    ],
)
def test_a_command_that_fails_has_its_last_words_but_not_the_payload(
    keys, bundle, tmp_path, monkeypatch, capsys, said, shown
):
    script = tmp_path / "service.py"
    script.write_text(_LAST_WORDS.format(said=said))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LEANGATE_SIGNING_COMMAND", f"{sys.executable} {script}")
    monkeypatch.setenv("LEANGATE_SIGNING_PUBLIC_KEY", str(keys / "leangate.pub"))
    assert main(["sign", str(bundle)]) == 2
    told = capsys.readouterr().err
    assert f"error: LEANGATE_SIGNING_COMMAND: expected a signature from the command, {shown}" in told
    assert "earlier" not in told
    assert "predicateType" not in told
    assert len(told) < 500


def test_keys_of_another_kind_are_not_trusted(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "a.pub"
    path.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(InputError, match="Ed25519"):
        read_trusted(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="1 to 1000 public keys"):
        read_trusted(tmp_path / "empty")


def test_nobody_who_signs_leaves_the_bundle_unsigned(project, bundle, monkeypatch, capsys):
    assert find_signer({}) is None
    monkeypatch.chdir(project.root)
    assert main(["sign", str(bundle)]) == 2
    assert "LEANGATE_SIGNING_KEY" in capsys.readouterr().err
