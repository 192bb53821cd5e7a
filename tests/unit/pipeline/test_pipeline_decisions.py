# SPDX-License-Identifier: Apache-2.0
"""shortlist, select and enforce: who is judged, who ships, and what is said when nobody does."""

import json
from pathlib import Path

import pytest

from checks.canonical import sha256_file
from checks.errors import BlockedError, EvidenceError, InconclusiveError, LeanGateError, ModelError
from pipeline import enforce, select, shortlist
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.models.compression import write_passes
from pipeline.params import load_params

CANDIDATES = {
    # name: bytes, macs, validation accuracy, validation loss
    "dense-fp32": (1000, 900, 0.990, 0.30),
    "dense-int8": (300, 900, 0.990, 0.31),
    "half-fp32": (500, 400, 0.985, 0.33),
    "half-int8": (150, 400, 0.985, 0.34),
    "third-fp32": (350, 300, 0.985, 0.36),
    "third-int8": (100, 300, 0.985, 0.38),
}


def _record(folder, name, size, macs, accuracy, loss):
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(name.encode())
    figures = {
        "bytes": size,
        "gzip_bytes": size,
        "macs": macs,
        "parameters": macs,
        "validation_accuracy": accuracy,
    }
    digest = sha256_file(folder / "model.onnx")
    write_json(
        folder / "model.json",
        {"schema": "leangate/model/1", "name": name, "sha256": digest, "validation_loss": loss}
        | {"output": "logits", **figures},
    )
    write_passes(folder, {"name": name, "sha256": digest}, [{"pass": "train", "of": name}])


def _shortlist(project, **changed):
    layout = Layout(project)
    _record(layout.baseline, "baseline", 1000, 900, 0.99, 0.30)
    for name, figures in {**CANDIDATES, **changed}.items():
        _record(layout.candidate(name), name, *figures)
    shortlist.run(layout, load_params(project / "params.yaml"))
    return json.loads((layout.shortlist / "shortlist.json").read_text()), layout


def test_the_smallest_of_the_front_are_finalists(project):
    result, layout = _shortlist(project)
    assert result["slots"] == {"first": "third-int8", "second": "half-int8"}
    assert (layout.shortlist / "second" / "model.onnx").read_bytes() == b"half-int8"
    reasons = {row["name"]: row["reason"] for row in result["candidates"]}
    assert "slot" in reasons["dense-int8"]
    assert reasons["third-int8"] == "finalist"


def test_a_candidate_that_is_beaten_everywhere_is_not_on_the_front(project):
    result, _ = _shortlist(project, **{"half-int8": (150, 400, 0.985, 0.40)})
    rows = {row["name"]: row for row in result["candidates"]}
    assert not rows["half-int8"]["on_front"]
    assert result["slots"]["second"] != "half-int8"


def test_a_candidate_that_lost_too_much_is_no_finalist(project):
    result, _ = _shortlist(project, **{"third-int8": (100, 300, 0.969, 0.38)})
    assert result["slots"]["first"] == "half-int8"
    result_reason = next(row["reason"] for row in result["candidates"] if row["name"] == "third-int8")
    assert "below 0.97" in result_reason


def test_a_copy_of_another_file_fills_no_slot(project):
    layout = Layout(project)
    _record(layout.baseline, "baseline", 1000, 900, 0.99, 0.30)
    for name, figures in CANDIDATES.items():
        _record(layout.candidate(name), name, *figures)
    twin, other = layout.candidate("half-int8"), layout.candidate("third-int8")
    (twin / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    record = json.loads((twin / "model.json").read_text())
    record.update(sha256=sha256_file(other / "model.onnx"), bytes=100, macs=300, validation_loss=0.38)
    write_json(twin / "model.json", record)
    write_passes(twin, record, [])
    shortlist.run(layout, load_params(project / "params.yaml"))
    slots = json.loads((layout.shortlist / "shortlist.json").read_text())["slots"]
    assert list(slots.values()).count("half-int8") == 1
    assert "third-int8" not in slots.values()


def test_slots_nobody_deserves_stay_empty(project):
    lost = {name: (*figures[:2], 0.5, 2.0) for name, figures in CANDIDATES.items()}
    result, layout = _shortlist(project, **lost)
    assert result["slots"] == {"first": None, "second": None}
    assert [path.name for path in layout.finalist("first").iterdir()] == ["finalist.json"]


def test_a_candidate_changed_since_it_was_recorded_is_refused(project):
    layout = Layout(project)
    _record(layout.baseline, "baseline", 1000, 900, 0.99, 0.30)
    for name, figures in CANDIDATES.items():
        _record(layout.candidate(name), name, *figures)
    (layout.candidate("half-int8") / "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="SHA-256"):
        shortlist.run(layout, load_params(project / "params.yaml"))
    assert not layout.shortlist.exists()


def _decision(layout, slot, outcome, size=100, ratio=0.5, findings=(), candidate="x"):
    folder = layout.shortlist / slot
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(slot.encode())
    metrics = {
        "candidate_bytes": size,
        "candidate_macs": size,
        "latency_ratio_b64": ratio,
        "latency_ratio_b1": 9.0,
    }
    value = {
        "schema": "leangate/decision/1",
        "slot": slot,
        "candidate": None if outcome == "absent" else f"{candidate}-{slot}",
        "outcome": outcome,
        "open": outcome == "passed",
        "policy": {"name": "p", "sha256": sha256_file(layout.policy)},
        "alpha": 0.05,
        "alpha_each": 0.025,
        "finalists": 2,
        "evidence": {},
        "subject": {"candidate_sha256": sha256_file(folder / "model.onnx")},
        "findings": list(findings),
        "measurements": [
            {"metric": name, "slice": "overall", "value": number, "n": 1, "unit": "count", "levels": []}
            for name, number in metrics.items()
        ],
    }
    write_json(layout.decision(slot), value)


def _select(project, monkeypatch):
    monkeypatch.setattr(
        "pipeline.report.write_report", lambda folder, layout, selection: (folder / "r").touch()
    )
    layout = Layout(project)
    select.run(layout, load_params(project / "params.yaml"))
    return json.loads(layout.selection.read_text())


def test_the_smallest_that_passed_ships_then_the_fastest(project, monkeypatch):
    layout = Layout(project)
    _decision(layout, "first", "passed", size=100, ratio=0.5)
    _decision(layout, "second", "passed", size=90, ratio=0.9)
    assert _select(project, monkeypatch)["chosen"]["slot"] == "second"
    _decision(layout, "second", "passed", size=100, ratio=0.4)
    assert _select(project, monkeypatch)["chosen"]["slot"] == "second"
    _decision(layout, "second", "blocked", size=1, ratio=0.1)
    selection = _select(project, monkeypatch)
    assert selection["chosen"]["slot"] == "first"
    assert selection["outcome"] == "passed"


FINDING = {
    "rule": "accuracy-slices",
    "kind": "bounded",
    "blocking": True,
    "listed": False,
    "verdict": "FAIL",
    "metric": "accuracy_change",
    "slice": "slant=forward",
    "value": -0.2,
    "bound": -0.3,
    "limit": -0.05,
    "limit_kind": "margin",
    "n": 300,
    "unit": "proportion",
    "message": "slant=forward lost 0.2",
    "rule_reason": "",
}


@pytest.mark.parametrize(
    ("outcomes", "outcome", "error"),
    [
        (("blocked", "error"), "blocked", BlockedError),
        (("blocked", "inconclusive"), "inconclusive", InconclusiveError),
        (("absent", "absent"), "blocked", BlockedError),
        (("absent", "inconclusive"), "inconclusive", InconclusiveError),
        (("error", "error"), "error", LeanGateError),
        (("absent", "error"), "error", LeanGateError),
    ],
)
def test_when_nothing_passed_enforce_says_why(project, monkeypatch, outcomes, outcome, error):
    layout = Layout(project)
    for slot, each in zip(("first", "second"), outcomes, strict=True):
        _decision(layout, slot, each, findings=[FINDING] if each == "blocked" else [])
    assert _select(project, monkeypatch)["outcome"] == outcome
    layout.bundle.mkdir()
    with pytest.raises(error) as caught:
        enforce.run(layout, load_params(project / "params.yaml"))
    assert type(caught.value) is error
    assert not layout.verdict.exists()
    assert not layout.bundle.exists(), "an older bundle must not be taken for this run's"
    if "blocked" in outcomes:
        assert "accuracy-slices" in str(caught.value)
        assert "slant=forward" in str(caught.value)


def _message(project, monkeypatch, *findings):
    layout = Layout(project)
    _decision(layout, "first", "blocked", findings=findings)
    _decision(layout, "second", "absent")
    _select(project, monkeypatch)
    with pytest.raises(BlockedError) as caught:
        enforce.run(layout, load_params(project / "params.yaml"))
    return str(caught.value)


SCREEN = FINDING | {
    "rule": "losses-in-one-place",
    "kind": "screen",
    "metric": "loss_concentration",
    "limit": 0.01,
    "limit_kind": "alarm",
    "bound": None,
    "unit": "ratio",
    "value": 4.0,
    "p": 0.0004,
    "message": "loss_concentration on slant=forward is 4",
}


def test_enforce_names_a_search_that_found_something_and_what_to_do(project, monkeypatch):
    told = _message(project, monkeypatch, SCREEN)
    assert "FAIL losses-in-one-place on slant=forward: loss_concentration on slant=forward is 4" in told
    assert "look at its flip exemplars" in told


def test_enforce_names_a_search_that_did_not_run_and_what_to_do(project, monkeypatch):
    skipped = SCREEN | {"verdict": "NOT-RUN", "slice": None, "value": None, "message": "it did not run"}
    told = _message(project, monkeypatch, skipped)
    assert "NOT-RUN losses-in-one-place: it did not run" in told
    assert "until it has run, the gate stays shut" in told


def test_enforce_is_silent_on_what_is_settled_or_only_listed(project, monkeypatch):
    found = SCREEN | {"verdict": "NO-FINDING", "rule": "found-nothing"}
    cell = {"rule": "cells", "verdict": "INCONCLUSIVE", "listed": True, "blocking": False}
    advisory = FINDING | {"rule": "for-information", "blocking": False}
    told = _message(project, monkeypatch, found, FINDING | cell, advisory, FINDING)
    assert "accuracy-slices" in told
    assert "for-information" not in told
    assert "found-nothing" not in told
    assert "cells" not in told


def test_enforce_says_how_far_an_open_question_is_off(project, monkeypatch):
    unsure = FINDING | {"verdict": "INCONCLUSIVE", "value": -0.01, "bound": -0.06, "message": "not proven"}
    told = _message(project, monkeypatch, unsure)
    assert "measured 4.00 pp inside the limit, the bound 1.00 pp beyond it" in told


def _passed(project, monkeypatch):
    layout = Layout(project)
    _decision(layout, "first", "passed")
    _decision(layout, "second", "blocked")
    _select(project, monkeypatch)
    return layout, load_params(project / "params.yaml")


def test_enforce_writes_what_was_proven(project, monkeypatch):
    layout, params = _passed(project, monkeypatch)
    enforce.run(layout, params)
    verdict = json.loads(layout.verdict.read_text())
    assert verdict["onnx_sha256"] == sha256_file(layout.shortlist / "first" / "model.onnx")
    assert verdict["decision_sha256"] == sha256_file(layout.decision("first"))


@pytest.mark.parametrize("tampered", ["model", "policy", "decision"])
def test_enforce_refuses_what_changed_since(project, monkeypatch, tampered):
    layout, params = _passed(project, monkeypatch)
    if tampered == "model":
        (layout.shortlist / "first" / "model.onnx").write_bytes(b"other")
    elif tampered == "policy":
        layout.policy.write_text(layout.policy.read_text() + "\n# changed\n")
    else:
        _decision(layout, "first", "blocked")
    with pytest.raises(EvidenceError):
        enforce.run(layout, params)
    assert not layout.verdict.exists()


def test_a_missing_or_foreign_decision_is_an_error(project, monkeypatch):
    layout = Layout(project)
    _decision(layout, "first", "passed")
    with pytest.raises(EvidenceError, match=r"second\.json"):
        _select(project, monkeypatch)
    _decision(layout, "second", "passed")
    Path(layout.decision("second")).write_text(layout.decision("first").read_text())
    with pytest.raises(EvidenceError, match="second"):
        _select(project, monkeypatch)
