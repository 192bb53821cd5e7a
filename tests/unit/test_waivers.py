# SPDX-License-Identifier: Apache-2.0
"""Waivers: what an approver lets through opens the gate and is shown everywhere; nothing else opens it."""

import base64
import importlib
import json
import shutil
import tomllib
from datetime import date, timedelta
from pathlib import Path

import jsonschema
import pytest
from cryptography.hazmat.primitives import serialization

from checks.canonical import dumps, sha256_file
from checks.errors import BlockedError, EvidenceError, InconclusiveError, LeanGateError, PolicyError
from leangate.cli import main
from pipeline import enforce, select
from pipeline.attestation.keys import make_keys, read_signer, read_trusted
from pipeline.card.contents import read_bundle, with_digest
from pipeline.layout import Layout
from pipeline.policy_file import load_policy
from pipeline.promotion.proof import prove
from pipeline.report import render_table
from pipeline.verification import verify_bundle
from pipeline.waiver_file import lines_of, sign_waiver, write_lines
from pipeline.waivers import check_waivers, read_waivers
from tests.blocked_project import build_blocked
from tests.bundle_project import project_params

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "pipeline" / "attestation" / "schemas"
TODAY = date(2026, 3, 1)
UNTIL = date(2026, 4, 1)
bundle_stage = importlib.import_module("pipeline.bundle")
register_stage = importlib.import_module("pipeline.register")


def _set_day(monkeypatch, day):
    for module in ("select", "enforce", "register", "verification"):
        monkeypatch.setattr(f"pipeline.{module}.today", lambda: day)
    for module in ("pipeline.waiver", "leangate.reproduce"):
        monkeypatch.setattr(f"{module}.today", lambda: day)


@pytest.fixture(autouse=True)
def on_day(monkeypatch):
    """The day it is for every stage and command; a test may move it."""
    _set_day(monkeypatch, TODAY)
    return lambda day: _set_day(monkeypatch, day)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("approver", "stranger", "maker"):
        make_keys(folder / name)
    return folder


def _signer(keys, name="approver"):
    return read_signer(str(keys / name / "leangate.key"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory, keys):
    return build_blocked(tmp_path_factory.mktemp("blocked"), next(iter(read_trusted(keys / "approver"))))


@pytest.fixture
def layout(judged, tmp_path, monkeypatch, keys):
    """A project whose only finalist is blocked by two findings, as the working folder."""
    shutil.copytree(judged.root, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys / "approver" / "leangate.key"))
    return Layout()


def _value(layout, of_rule, **changes):
    decision = json.loads(layout.decision("first").read_text())
    finding = next(entry for entry in decision["findings"] if entry["rule"] == of_rule)
    subject = decision["subject"]
    return {
        **{name: finding[name] for name in ("rule", "slice", "versus", "target", "verdict")},
        "reason": "The next release has more examples.",
        "approver": "Risk owner",
        "since": TODAY.isoformat(),
        "until": UNTIL.isoformat(),
        "onnx_sha256": subject["candidate_sha256"],
        "policy_sha256": decision["policy"]["sha256"],
        "data_sha256": subject["data_sha256"],
        **changes,
    }


def _sign(layout, keys, *values, by="approver"):
    write_lines(layout.root, [sign_waiver(value, _signer(keys, by))[0] for value in values])


def _both(layout, keys, **changes):
    _sign(layout, keys, _value(layout, "overall"), _value(layout, "fewer", **changes))


def _params():
    """Four sessions are too few to claim a latency, so that it cannot be preferred."""
    return project_params(select=project_params().select.model_copy(update={"preference": ("bytes",)}))


def _stages(layout):
    params = _params()
    select.run(layout, params)
    enforce.run(layout, params)
    return json.loads(layout.verdict.read_text())


def _bundle(layout, monkeypatch):
    _stages(layout)
    monkeypatch.delenv("LEANGATE_SIGNING_KEY", raising=False)
    bundle_stage.run(layout, project_params())
    return layout.bundle


def _waive(rule, *more):
    words = ["--rule", rule, "--slice", "overall", "--slot", "first", "--until", UNTIL.isoformat()]
    words += ["--reason", "The next release has more examples.", "--approver", "Risk owner"]
    return main(["waive", *words, *more])


# --- it opens, and shows it --------------------------------------------------------------------------


def test_without_a_waiver_the_gate_is_closed(layout):
    with pytest.raises(BlockedError, match="fewer on overall"):
        _stages(layout)


def test_one_of_two_findings_waived_leaves_it_closed(layout, capsys):
    assert _waive("fewer") == 0
    assert "closed    still: INCONCLUSIVE overall on overall" in capsys.readouterr().out
    with pytest.raises(BlockedError) as caught:
        _stages(layout)
    assert "INCONCLUSIVE overall on overall" in str(caught.value)
    assert "FAIL fewer" not in str(caught.value)


def test_both_findings_waived_open_the_gate_and_change_no_verdict(layout, keys, capsys):
    before = layout.decision("first").read_bytes()
    assert _waive("fewer") == 0
    assert _waive("overall") == 0
    assert "nothing else blocks half-int8" in capsys.readouterr().out
    verdict = _stages(layout)
    assert verdict["outcome"] == "waived"
    assert [(one["rule"], one["verdict"], one["until"]) for one in verdict["waived"]] == [
        ("overall", "INCONCLUSIVE", "2026-04-01"),
        ("fewer", "FAIL", "2026-04-01"),
    ]
    assert verdict["waived"][0]["key_id"] == next(iter(read_trusted(keys / "approver")))
    selection = json.loads(layout.selection.read_text())
    assert selection["outcome"] == selection["finalists"][0]["outcome"] == "waived"
    assert selection["chosen"]["slot"] == "first"
    assert layout.decision("first").read_bytes() == before
    assert json.loads(before)["outcome"] == "blocked"


def test_table_report_and_card_show_what_was_waived(layout, keys, monkeypatch):
    said = "<img src=x> needs | more *examples*"
    _both(layout, keys, reason=said, approver="Ada </td>")
    bundle = _bundle(layout, monkeypatch)
    table = " ".join(render_table(layout, TODAY).split())
    assert "half-int8 ships, waived" in table
    assert "It did not pass: 2 findings that block are waived. It may ship until 2026-04-01" in table
    assert "WAIVED half-int8: FAIL fewer on overall, until 2026-04-01 by Ada </td> (key " in table
    assert "1 FAIL waived, 1 INCONCLUSIVE waived" in table
    html = (layout.report / "report.html").read_text()
    assert "half-int8 ships, waived" in html
    assert "WAIVED until 2026-04-01" in html
    assert "&lt;img src=x&gt; needs" in html
    assert "<img" not in html
    assert "Ada </td>" not in html
    markdown = (layout.report / "report.md").read_text()
    assert "**WAIVED** half-int8: FAIL fewer on overall, until 2026-04-01" in markdown
    assert "<img" not in markdown
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "**Passed.**" not in card
    assert "**Waived: 2 findings that block did not pass." in card
    section = card.partition("## Waivers")[2].partition("\n## ")[0]
    assert "The next release has more examples." in section
    assert "2026-03-01 to 2026-04-01" in section
    assert "&lt;img src=x&gt; needs \\| more \\*examples\\*" in section
    assert f"{sha256_file(bundle / 'waivers.jsonl')}  waivers.jsonl" in card


def test_a_waived_bundle_is_verified_until_its_day_is_over(layout, keys, monkeypatch, on_day, capsys):
    _both(layout, keys, until="2026-03-20")
    bundle = _bundle(layout, monkeypatch)
    steps = {step.name: step for step in verify_bundle(bundle)}
    assert list(steps) == ["files", "subject", "verdicts", "waivers", "documents", "signatures"]
    assert "2 findings did not pass and are waived on 2026-03-01" in steps["waivers"].said
    assert main(["verify", str(bundle)]) == 0
    on_day(date(2026, 3, 20))
    assert main(["verify", str(bundle)]) == 0
    on_day(date(2026, 3, 21))
    capsys.readouterr()
    assert main(["verify", str(bundle)]) == 1
    assert "it ended on 2026-03-20" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", str(bundle), "--at", "2026-03-20"]) == 0
    assert main(["verify", str(bundle), "--at", "2026-02-28"]) == 1
    assert main(["verify", str(bundle), "--at", "yesterday"]) == 2


def test_signed_statements_say_that_it_was_waived(layout, keys, monkeypatch):
    _both(layout, keys)
    _stages(layout)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys / "maker" / "leangate.key"))
    bundle_stage.run(layout, project_params())
    assert [step.name for step in verify_bundle(layout.bundle, read_trusted(keys / "maker"))][
        -1
    ] == "signatures"
    kinds = {}
    for line in (layout.bundle / "attestations.jsonl").read_text().splitlines():
        value = json.loads(base64.b64decode(json.loads(line)["payload"]))
        kinds[value["predicateType"]] = value["predicate"]
    evidence = kinds["urn:leangate:gate-evidence:1"]
    schema = json.loads((SCHEMAS / "gate-evidence.json").read_text())
    jsonschema.validate(
        evidence, schema, jsonschema.Draft202012Validator, format_checker=jsonschema.FormatChecker()
    )
    assert evidence["outcome"] == "blocked"
    assert [one["rule"] for one in evidence["waived"]] == ["overall", "fewer"]
    summary = kinds["https://slsa.dev/verification_summary/v1"]
    assert summary["verifiedLevels"] == ["LEANGATE_WAIVED"]
    assert summary["urn:leangate:waived"] == evidence["waived"]


def test_a_bundle_holds_the_waivers_it_rests_on_and_no_other(layout, keys, monkeypatch):
    _both(layout, keys)
    line, _ = sign_waiver(_value(layout, "fewer", onnx_sha256="0" * 64), _signer(keys))
    write_lines(layout.root, [line, *lines_of(layout.root).values()])
    bundle = _bundle(layout, monkeypatch)
    assert [waiver.rule for waiver in read_waivers(bundle)] == ["overall", "fewer"]
    assert (bundle / "waivers.jsonl").stat().st_size < (layout.root / "waivers.jsonl").stat().st_size


def test_of_two_waivers_the_one_that_holds_longest_counts(layout, keys):
    _sign(
        layout,
        keys,
        _value(layout, "overall"),
        _value(layout, "fewer", until="2026-03-05"),
        _value(layout, "fewer", until="2026-05-05"),
        _value(layout, "fewer", until="2026-03-07"),
    )
    assert [one["until"] for one in _stages(layout)["waived"]] == ["2026-04-01", "2026-05-05"]


def test_what_passed_ships_rather_than_what_was_waived(layout, keys):
    _both(layout, keys)
    decision = json.loads(layout.decision("first").read_text())
    kept = [entry for entry in decision["findings"] if entry["verdict"] == "PASS"]
    passed = decision | {"slot": "second", "outcome": "passed", "open": True, "findings": kept}
    shortlist = json.loads((layout.shortlist / "shortlist.json").read_text())
    shortlist["slots"]["second"] = "other-int8"
    other = dict(shortlist["candidates"][0]) | {"name": "other-int8", "slot": "second"}
    shortlist["candidates"].append(other)
    (layout.shortlist / "shortlist.json").write_text(dumps(shortlist))
    shutil.copytree(layout.finalist("first"), layout.finalist("second"))
    # Larger, so that the preference alone would not choose it.
    for entry in passed["measurements"]:
        entry["value"] = entry["value"] * 1.5 if entry["metric"] == "candidate_bytes" else entry["value"]
    layout.decision("second").write_text(dumps(passed | {"candidate": "other-int8"}))
    select.run(layout, _params())
    selection = json.loads(layout.selection.read_text())
    assert selection["outcome"] == "passed"
    assert selection["chosen"]["slot"] == "second"


# --- it does not open --------------------------------------------------------------------------------


def _other_policy(layout, keys):
    _both(layout, keys)
    text = layout.policy.read_text().replace("name: strict", "name: stricter")
    layout.policy.write_text(text)
    decision = json.loads(layout.decision("first").read_text())
    decision["policy"]["sha256"] = sha256_file(layout.policy)
    layout.decision("first").write_text(dumps(decision))


def _nobody_may(layout, keys):
    _both(layout, keys)
    lines = layout.policy.read_text().splitlines(keepends=True)
    at = lines.index("waivers:\n")
    layout.policy.write_text("".join(lines[:at] + lines[at + 3 :]))
    digest = sha256_file(layout.policy)
    decision = json.loads(layout.decision("first").read_text())
    decision["policy"]["sha256"] = digest
    layout.decision("first").write_text(dumps(decision))
    _sign(layout, keys, *(_value(layout, rule, policy_sha256=digest) for rule in ("overall", "fewer")))


def _worse_than_seen(layout, keys):
    _both(layout, keys, verdict="INCONCLUSIVE")


def _broken_off(layout, keys):
    """What could not be measured: the same finding, as an ERROR."""
    _both(layout, keys)
    decision = json.loads(layout.decision("first").read_text())
    finding = next(entry for entry in decision["findings"] if entry["rule"] == "fewer")
    finding["verdict"] = "ERROR"
    decision["outcome"] = "error"
    layout.decision("first").write_text(dumps(decision))


def _unwaivable(layout, keys):
    decision = json.loads(layout.decision("first").read_text())
    finding = next(entry for entry in decision["findings"] if entry["rule"] == "finite")
    finding["verdict"] = "FAIL"
    layout.decision("first").write_text(dumps(decision))
    _sign(layout, keys, *(_value(layout, rule) for rule in ("overall", "fewer", "finite")))


CLOSED = {
    "another slice": (lambda where, k: _both(where, k, slice="slant=upright"), "is about slant=upright"),
    "another target": (lambda where, k: _both(where, k, target="3"), "is about overall for 3"),
    "another pair": (lambda where, k: _both(where, k, versus="label=3"), "is about overall against label=3"),
    "another file": (lambda where, k: _both(where, k, onnx_sha256="0" * 64), "about the file 0000"),
    "other data": (lambda where, k: _both(where, k, data_sha256="0" * 64), "about the data 0000"),
    "another policy": (_other_policy, "signed under the policy"),
    "no approvers": (_nobody_may, "lets nobody waive"),
    "ended": (
        lambda where, k: _both(where, k, since="2026-02-01", until="2026-02-28"),
        "ended on 2026-02-28",
    ),
    "not yet": (lambda where, k: _both(where, k, since="2026-03-02"), "begins on 2026-03-02"),
    "too long": (lambda where, k: _both(where, k, until="2026-05-31"), "91 days, and the policy allows 90"),
    "unknown rule": (lambda where, k: _both(where, k, rule="nothing"), "fewer on overall"),
    "worse than seen": (_worse_than_seen, "what was waived was INCONCLUSIVE"),
    "unwaivable": (_unwaivable, "rule finite cannot be waived"),
    "ERROR": (_broken_off, "ERROR fewer"),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_waiver_of_anything_else_leaves_the_gate_closed(layout, keys, name):
    plant, why = CLOSED[name]
    plant(layout, keys)
    with pytest.raises(LeanGateError, match="expected a finalist that passed") as caught:
        _stages(layout)
    assert why in str(caught.value)
    assert not layout.verdict.exists()


def test_a_key_that_the_policy_does_not_name_opens_nothing(layout, keys, monkeypatch, capsys):
    _sign(layout, keys, _value(layout, "overall"), _value(layout, "fewer"), by="stranger")
    with pytest.raises(BlockedError, match="is none of the policy's approvers"):
        _stages(layout)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys / "stranger" / "leangate.key"))
    (layout.root / "waivers.jsonl").unlink()
    assert _waive("fewer") == 2
    assert "none of the policy's approvers" in capsys.readouterr().err
    assert not (layout.root / "waivers.jsonl").exists()


def _forge(layout, change, payload=None):
    path = layout.root / "waivers.jsonl"
    first, *rest = path.read_text().splitlines()
    envelope = json.loads(first)
    value = base64.b64decode(envelope["payload"]).decode()
    change(envelope)
    if payload is not None:
        envelope["payload"] = base64.b64encode(payload(value).encode()).decode()
    line = json.dumps(envelope, sort_keys=True, separators=(",", ":"))
    path.write_text("\n".join([line, *rest]) + "\n")


def _replace(old, new):
    def change(value):
        assert old in value
        return value.replace(old, new)

    return change


def _name_stranger(keys):
    own, other = (
        json.dumps((keys / name / "leangate.pub").read_text())[1:-1] for name in ("approver", "stranger")
    )
    return _replace(own, other)


BROKEN = {
    "another day": (lambda e: None, lambda k: _replace("2026-04-01", "2026-04-02")),
    "another reason": (lambda e: None, lambda k: _replace("more examples", "no examples")),
    "another key in it": (lambda e: None, _name_stranger),
    "a key twice": (
        lambda e: None,
        lambda k: _replace('"rule":"overall"', '"rule":"fewer","rule":"overall"'),
    ),
    "another type": (lambda e: e.update(payloadType="text/plain"), None),
    "no signature": (lambda e: e.update(signatures=[]), None),
    "another key's name": (lambda e: e["signatures"][0].update(keyid="0" * 64), None),
    "no base64": (lambda e: e.update(payload="%%%"), None),
    "more in it": (lambda e: e.update(note="x"), None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_line_that_was_changed_stops_with_its_number(layout, keys, name):
    _both(layout, keys)
    change, payload = BROKEN[name]
    _forge(layout, change, payload(keys) if payload else None)
    with pytest.raises(EvidenceError, match=r"waivers\.jsonl line 1"):
        _stages(layout)
    assert not layout.verdict.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reason": ""}, "reason: expected 1 to 1000 characters"),
        ({"reason": " "}, "reason: expected"),
        ({"reason": "a\nb"}, "reason: expected"),
        ({"reason": "x" * 1_001}, "reason: expected"),
        ({"approver": "\u202eevil"}, "approver: expected"),
        ({"approver": ""}, "approver: expected"),
        ({"verdict": "ERROR"}, "what could not be measured cannot be waived"),
        ({"verdict": "NOT-RUN"}, "what could not be measured cannot be waived"),
        ({"until": "2026-2-1"}, "expected a day as YYYY-MM-DD"),
        ({"until": "2026-02-30"}, "expected a day as YYYY-MM-DD"),
        ({"until": "2026-02-01"}, "expected 2026-03-01 or later"),
        ({"slice": None}, "slice: expected text"),
        ({"slice": ""}, "slice: expected 1 to 500"),
        ({"onnx_sha256": "0" * 63}, "expected a SHA-256"),
        ({"policy_sha256": "A" * 64}, "expected a SHA-256"),
    ],
)
def test_what_is_no_waiver_cannot_be_signed(layout, keys, change, message):
    with pytest.raises(EvidenceError, match=message):
        sign_waiver(_value(layout, "fewer", **change), _signer(keys))


def test_files_that_are_too_large_are_not_read(layout, keys):
    path = layout.root / "waivers.jsonl"
    path.write_text("x" * (1024 * 1024 + 1))
    with pytest.raises(EvidenceError, match="at most 1048576 bytes"):
        read_waivers(layout.root)
    path.write_text("{}\n" * 1_001)
    with pytest.raises(EvidenceError, match="at most 1000 waivers"):
        read_waivers(layout.root)
    for text in ("\n", "[]\n", "{}\n", "<<<<<<< HEAD\n", "\ufeff{}\n"):
        path.write_text(text)
        with pytest.raises(EvidenceError, match="line 1"):
            read_waivers(layout.root)
    path.write_bytes(b"\xff\n")
    with pytest.raises(EvidenceError, match="expected lines of JSON"):
        read_waivers(layout.root)
    line = sign_waiver(_value(layout, "fewer"), _signer(keys))[0]
    path.write_text(f"{line}\n{line}\n")
    with pytest.raises(EvidenceError, match="each waiver once"):
        read_waivers(layout.root)


# --- it closes again ---------------------------------------------------------------------------------


def test_the_gate_closes_the_day_after_the_last_one(layout, keys, monkeypatch, on_day):
    _both(layout, keys)
    bundle = _bundle(layout, monkeypatch)
    on_day(UNTIL)
    enforce.run(layout, project_params())
    on_day(UNTIL + timedelta(days=1))
    with pytest.raises(BlockedError, match=r"line 2 does not waive fewer: it ended on 2026-04-01"):
        enforce.run(layout, project_params())
    assert not layout.verdict.exists()
    assert not bundle.exists()
    assert "Nothing ships" in render_table(layout, UNTIL + timedelta(days=1))
    with pytest.raises(BlockedError):
        _stages(layout)
    assert "WAIVED" not in (layout.report / "report.html").read_text()


def test_register_refuses_what_was_waived_until_yesterday(layout, keys, monkeypatch, on_day):
    _both(layout, keys)
    _bundle(layout, monkeypatch)
    sent = []
    monkeypatch.setattr("pipeline.register.register_bundle", lambda *args: sent.append(args))
    on_day(UNTIL + timedelta(days=1))
    with pytest.raises(BlockedError, match=r"fewer|overall"):
        register_stage.run(layout, project_params())
    assert not sent
    on_day(UNTIL)
    with pytest.raises(AttributeError):  # nothing was registered: the stand-in answers None
        register_stage.run(layout, project_params())
    submission = sent[0][0]
    assert submission.tags["leangate.decision"] == "waived"
    assert submission.tags["leangate.waived_until"] == "2026-04-01"
    assert "FAIL of fewer on overall until 2026-04-01" in submission.tags["leangate.waived"]
    assert "Waived, not passed" in submission.description


def test_what_the_registry_asks_of_a_bundle(layout, keys, monkeypatch):
    _both(layout, keys)
    bundle = _bundle(layout, monkeypatch)
    waivers, file = read_waivers(bundle), load_policy(bundle / "policy.yaml")
    assert [(one.rule, one.slice, one.until, one.approver) for one in waivers] == [
        ("overall", "overall", UNTIL, "Risk owner"),
        ("fewer", "overall", UNTIL, "Risk owner"),
    ]
    assert {one.key_id for one in waivers} == set(read_trusted(keys / "approver"))
    check_waivers(file, waivers, UNTIL)
    with pytest.raises(EvidenceError, match="ended on"):
        check_waivers(file, waivers, UNTIL + timedelta(days=1))
    check_waivers(file, (), UNTIL)
    assert read_waivers(layout.root / "nowhere") == ()
    for change, why in (
        ({"rule": "finite"}, "cannot be waived"),
        ({"until": "2026-05-31"}, "91 days"),
        ({"policy_sha256": "0" * 64}, "under the policy"),
    ):
        _, waiver = sign_waiver(_value(layout, "fewer", **change), _signer(keys))
        with pytest.raises(EvidenceError, match=why):
            check_waivers(file, [waiver], TODAY)
    _, waiver = sign_waiver(_value(layout, "fewer"), _signer(keys, "stranger"))
    with pytest.raises(EvidenceError, match="approvers"):
        check_waivers(file, [waiver], TODAY)


def _signed_bundle(layout, keys, monkeypatch, by):
    """The bundle signed by somebody, and a folder as MLflow loads it."""
    bundle = _bundle(layout, monkeypatch)
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys / by / "leangate.key"))
    bundle_stage.run(layout, project_params())
    model = layout.root / "loaded"
    model.mkdir(exist_ok=True)
    shutil.copy(bundle / "model.onnx", model)
    (model / "MLmodel").write_text(
        "flavors:\n  onnx: {data: model.onnx}\n"
        "  python_function: {data: model.onnx, loader_module: mlflow.onnx}\n"
    )
    return bundle, model


def test_a_registry_keeps_what_was_waived_and_until_when(layout, keys, monkeypatch):
    _both(layout, keys)
    bundle, model = _signed_bundle(layout, keys, monkeypatch, "maker")
    proof = prove(bundle, model, read_trusted(keys / "maker"))
    (key_id,) = read_trusted(keys / "approver")
    assert [dict(one) for one in proof.waivers] == [
        {"rule": rule, "slice": "overall", "until": UNTIL.isoformat(), "key": key_id}
        for rule in ("overall", "fewer")
    ]


def test_who_made_a_bundle_waives_nothing_in_it_for_a_registry(layout, keys, monkeypatch):
    _both(layout, keys)
    bundle, model = _signed_bundle(layout, keys, monkeypatch, "approver")
    assert all(step.state == "holds" for step in verify_bundle(bundle, read_trusted(keys / "approver")))
    with pytest.raises(EvidenceError, match="waived by somebody who did not make the bundle"):
        prove(bundle, model, read_trusted(keys / "approver"))


# --- bundles that were changed -----------------------------------------------------------------------


def _mend(bundle):
    manifest = json.loads((bundle / "bundle.json").read_text())
    names = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()]
    manifest["files"] = {
        name: {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
        for name in names
        if name not in ("bundle.json", "attestations.jsonl")
    }
    (bundle / "bundle.json").write_text(dumps(with_digest(manifest)))


def _drop_all(bundle, spare):
    (bundle / "waivers.jsonl").unlink()


def _drop_one(bundle, spare):
    write_lines(bundle, list(lines_of(bundle).values())[:1])


def _one_more(bundle, spare):
    write_lines(bundle, [*lines_of(bundle).values(), spare])


def _say_passed(bundle, spare):
    path = bundle / "records" / "verdict.json"
    path.write_text(dumps(json.loads(path.read_text()) | {"outcome": "passed", "waived": []}))


def _say_another_reason(bundle, spare):
    path = bundle / "records" / "verdict.json"
    path.write_text(path.read_text().replace("more examples", "no examples"))


def _selected_as_passed(bundle, spare):
    path = bundle / "records" / "selection.json"
    path.write_text(dumps(json.loads(path.read_text()) | {"outcome": "passed"}))


@pytest.mark.parametrize(
    "change",
    [_drop_all, _drop_one, _one_more, _say_passed, _say_another_reason, _selected_as_passed],
)
def test_a_bundle_whose_waivers_were_changed_is_found(layout, keys, monkeypatch, change):
    _both(layout, keys)
    bundle = _bundle(layout, monkeypatch)
    change(bundle, sign_waiver(_value(layout, "fewer", until="2026-03-03"), _signer(keys))[0])
    _mend(bundle)
    with pytest.raises(EvidenceError):
        read_bundle(bundle)
    with pytest.raises(EvidenceError):
        list(verify_bundle(bundle))


def test_a_stranger_cannot_put_his_waiver_into_a_bundle(layout, keys, monkeypatch):
    _both(layout, keys)
    bundle = _bundle(layout, monkeypatch)
    lines = [sign_waiver(_value(layout, rule), _signer(keys, "stranger"))[0] for rule in ("overall", "fewer")]
    write_lines(bundle, lines)
    verdict = bundle / "records" / "verdict.json"
    said = json.loads(verdict.read_text()) | {"waived": [one.to_json() for one in read_waivers(bundle)]}
    verdict.write_text(dumps(said))
    _mend(bundle)
    with pytest.raises(EvidenceError, match="none of the policy's approvers"):
        list(verify_bundle(bundle))


# --- the command, the file, the policy ---------------------------------------------------------------


def test_the_line_is_dsse_and_in_toto_as_the_standards_and_the_schema_say(layout, keys):
    assert _waive("overall") == 0
    envelope = json.loads((layout.root / "waivers.jsonl").read_text())
    public = serialization.load_pem_public_key((keys / "approver" / "leangate.pub").read_bytes())
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    public.verify(
        base64.b64decode(envelope["signatures"][0]["sig"]),
        b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload),
    )
    value = json.loads(payload)
    assert value["_type"] == "https://in-toto.io/Statement/v1"
    assert value["predicateType"] == "urn:leangate:waiver:1"
    assert value["subject"] == [
        {"name": "model.onnx", "digest": {"sha256": sha256_file(layout.finalist("first") / "model.onnx")}}
    ]
    schema = json.loads((SCHEMAS / "waiver.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.validate(value["predicate"])
    for change in (
        {"reason": " "},
        {"verdict": "ERROR"},
        {"until": "2026-02-30"},
        {"note": "x"},
        {"slice": None},
    ):
        assert not validator.is_valid(value["predicate"] | change), change
    assert value["predicate"]["verdict"] == "INCONCLUSIVE"
    assert value["predicate"]["policy"]["sha256"] == sha256_file(layout.policy)


def test_waiving_again_writes_the_same_line_once(layout):
    artifact = sha256_file(layout.finalist("first") / "model.onnx")
    assert _waive("overall") == 0
    before = (layout.root / "waivers.jsonl").read_bytes()
    assert _waive("overall") == 0
    assert (layout.root / "waivers.jsonl").read_bytes() == before
    words = ["--rule", "overall", "--slice", "overall", "--artifact", artifact, "--until", "2026-04-01"]
    words += ["--reason", "The next release has more examples.", "--approver", "Risk owner"]
    assert main(["waive", *words]) == 0
    assert (layout.root / "waivers.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"--rule": "finite"}, "a finding that blocks nothing"),
        ({"--rule": "nothing"}, "there are: INCONCLUSIVE of overall on overall; FAIL of fewer on overall"),
        ({"--slice": "slant=upright"}, "got none of rule 'fewer' on 'slant=upright'"),
        ({"--target": "3"}, "for '3'"),
        ({"--slot": "third"}, "expected a finalist that was judged"),
        ({"--slot": "../first"}, "expected a finalist that was judged"),
        ({"--slot": "second"}, "there are: nothing blocks it"),
        ({"--reason": "  "}, "a waiver without its reason"),
        ({"--reason": "a\nb"}, "characters on one line"),
        ({"--approver": "  "}, "--approver"),
        ({"--until": "2026-02-28"}, "a day from today, 2026-03-01, and at most 90 days on"),
        ({"--until": "2026-05-31"}, "at most 90 days on"),
        ({"--until": "soon"}, "expected a day as YYYY-MM-DD"),
    ],
)
def test_what_cannot_be_waived_is_wrong_input(layout, words, message, capsys):
    given = {"--rule": "fewer", "--slice": "overall", "--slot": "first", "--until": "2026-04-01"}
    given |= {"--reason": "why", "--approver": "Risk owner"} | words
    assert main(["waive", *(word for pair in given.items() for word in pair)]) == 2
    assert message in capsys.readouterr().err
    assert not (layout.root / "waivers.jsonl").exists()


def test_nothing_is_appended_to_a_file_that_is_broken(layout, capsys):
    (layout.root / "waivers.jsonl").write_text("{}\n")
    assert _waive("fewer") == 4
    assert "waivers.jsonl line 1" in capsys.readouterr().err
    assert (layout.root / "waivers.jsonl").read_text() == "{}\n"


def test_without_a_key_or_a_section_nothing_is_waived(layout, monkeypatch, capsys):
    monkeypatch.delenv("LEANGATE_SIGNING_KEY")
    assert _waive("fewer") == 2
    assert "LEANGATE_SIGNING_KEY" in capsys.readouterr().err
    text = layout.policy.read_text()
    layout.policy.write_text(text[: text.index("waivers:")] + text[text.index("rules:") :])
    assert _waive("fewer") == 2
    assert "nothing can be waived" in capsys.readouterr().err


def test_a_decision_under_another_policy_is_nothing_to_waive(layout, capsys):
    layout.policy.write_text(layout.policy.read_text().replace("max_days: 90", "max_days: 80"))
    assert _waive("fewer") == 2
    assert "under this policy" in capsys.readouterr().err


KEY = "0" * 63 + "a"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (f"approvers: ['{KEY}']", "waivers.max_days"),
        ("max_days: 3", "waivers.approvers"),
        ("{approvers: [], max_days: 3}", "1 to 100 key ids"),
        (f"{{approvers: ['{KEY[:16]}'], max_days: 3}}", "the whole id"),
        (f"{{approvers: ['{KEY.upper()}'], max_days: 3}}", "the whole id"),
        (f"{{approvers: ['{KEY}', '{KEY}'], max_days: 3}}", "each key id once"),
        (f"{{approvers: ['{KEY}'], max_days: 0}}", "from 1 to 366"),
        (f"{{approvers: ['{KEY}'], max_days: 367}}", "from 1 to 366"),
        (f"{{approvers: ['{KEY}'], max_days: true}}", "from 1 to 366"),
        (f"{{approvers: ['{KEY}'], max_days: 3, until: never}}", "waivers: expected keys among"),
        ("null", "waivers: expected keys and values"),
    ],
)
def test_a_section_that_is_wrong_names_its_key(layout, section, message):
    text = layout.policy.read_text()
    inner = section if section.startswith(("{", "n")) else "{" + section + "}"
    layout.policy.write_text(
        text[: text.index("waivers:")] + f"waivers: {inner}\n" + text[text.index("rules:") :]
    )
    with pytest.raises(PolicyError, match=message):
        load_policy(layout.policy)


def test_asserts_are_waivable_only_where_they_say_so_and_advisory_rules_never(layout):
    rules = {rule.id: rule.waivable for rule in load_policy(layout.policy).policy.rules}
    assert rules == {"overall": True, "levels": True, "finite": False, "fewer": True, "into-one": False}
    text = layout.policy.read_text()
    layout.policy.write_text(text.replace("margin: 0.02", "margin: 0.02, waivable: false"))
    assert not load_policy(layout.policy).policy.rules[0].waivable
    layout.policy.write_text(text.replace("margin: 0.02", "margin: 0.02, waivable: maybe"))
    with pytest.raises(PolicyError, match="true or false"):
        load_policy(layout.policy)
    layout.policy.write_text(text.replace("blocking: false", "blocking: false, waivable: true"))
    with pytest.raises(PolicyError, match="it stops nothing"):
        load_policy(layout.policy)


def test_lint_says_who_may_waive_what(layout, keys, capsys):
    main(["policy", "lint"])
    said = " ".join(capsys.readouterr().out.split())
    key_id = next(iter(read_trusted(keys / "approver")))
    assert f"at most 90 days, by the holder of the key {key_id} these rules: overall, levels, fewer" in said
    assert "never: finite" in said
    main(["policy", "lint", "--json"])
    told = json.loads(capsys.readouterr().out)["waivers"]
    assert told == {"approvers": [key_id], "max_days": 90, "rules": ["overall", "levels", "fewer"]}


def test_an_inconclusive_decision_opens_too(layout, keys):
    decision = json.loads(layout.decision("first").read_text())
    decision["findings"] = [entry for entry in decision["findings"] if entry["rule"] != "fewer"]
    decision["outcome"] = "inconclusive"
    layout.decision("first").write_text(dumps(decision))
    with pytest.raises(InconclusiveError):
        _stages(layout)
    _sign(layout, keys, _value(layout, "overall"))
    assert _stages(layout)["outcome"] == "waived"


def test_the_schemas_ship_with_the_code():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setup["package-data"]["pipeline.attestation"]
    shipped = {path for pattern in patterns for path in SCHEMAS.parent.glob(pattern)}
    assert set(SCHEMAS.iterdir()) <= shipped
    assert {path.name for path in shipped} >= {"gate-evidence.json", "waiver.json"}
