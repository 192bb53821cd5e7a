# SPDX-License-Identifier: Apache-2.0
"""The stage `evaluate`: evidence that `gate` accepts, the same bytes every time, and nothing of the wrong model."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from checks.contract import ContractCheck
from checks.errors import EvidenceError, InputError, ModelError
from checks.evidence import RESTRICTED, Providers, Subject, read_evidence, read_table
from pipeline import evaluate
from pipeline.data.dataset import read_dataset
from pipeline.probes.session import open_session, predict
from pipeline.probes.tables import write_table

CODE = "c" * 64
CPU = ["CPUExecutionProvider"]


def _digests(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _subject(project):
    records = [
        json.loads((folder / "model.json").read_text()) for folder in (project.baseline, project.finalist)
    ]
    return Subject(records[0]["sha256"], records[1]["sha256"], read_dataset(project.layout.data).sha256, CODE)


def _write_timing(project):
    """The smallest timing that can be read, so that the whole of the evidence can."""
    arrays = {f"{name}_ms": np.ones((1, 1, 1)) for name in ("baseline", "candidate", "control")}
    for name in ("baseline", "candidate"):
        arrays |= {f"{name}_calls_ms": np.ones((1, 1, 1, 1)), f"{name}_processor_s": np.ones((1, 1, 1))}
        arrays |= {f"{name}_peak_bytes": np.ones(1, np.int64)}
    header = {"schema": "leangate/timing/1", "batch_sizes": [1], **_subject(project).to_json()}
    header |= {"energy_counters": []}
    header |= {"providers": dict.fromkeys(("declared", "baseline", "candidate", "control"), CPU)}
    folder = project.layout.timing("first")
    folder.mkdir(parents=True)
    write_table(folder / "timing.npz", header, arrays)
    return folder


@pytest.fixture
def evaluated(project):
    evaluate.run(project.layout, project.params, slot="first")
    return project


def test_the_evidence_is_read_back_and_is_about_these_files(evaluated):
    evidence = read_evidence(
        evaluated.layout.evidence("first"), _write_timing(evaluated), _subject(evaluated)
    )
    split = read_dataset(evaluated.layout.data).split("test")
    assert evidence.examples.ids.tolist() == split.ids.tolist()
    assert evidence.examples.units.tolist() == split.units.tolist()
    assert evidence.examples.labels.tolist() == split.labels.tolist()
    assert evidence.examples.classes == ("low", "high")
    assert evidence.examples.columns["light"].tolist() == split.columns["light"].tolist()
    for scores, folder in ((evidence.baseline, evaluated.baseline), (evidence.candidate, evaluated.finalist)):
        assert scores.ids.tolist() == split.ids.tolist()
        wanted = predict(open_session(folder / "model.onnx"), split.images, 1000)
        np.testing.assert_allclose(scores.scores, wanted, rtol=1e-5)
        assert scores.output == "logits"
        assert scores.providers == Providers(tuple(CPU), tuple(CPU))
    assert not np.array_equal(evidence.baseline.scores, evidence.candidate.scores)
    assert set(evidence.contract.ids) <= set(split.ids)
    assert len(evidence.contract.ids) == 60
    assert {entry.metric: entry.value for entry in ContractCheck().measure(evidence)} == pytest.approx(
        dict.fromkeys(ContractCheck().metrics, 0), abs=1e-5
    )
    assert evidence.attacks.epsilon == evaluated.params.evaluate.attack.epsilon
    assert set(evidence.attacks.ids) <= set(split.ids)
    assert evidence.cost["baseline"] == {"bytes": 1000, "macs": 128, "parameters": 130}
    assert evidence.cost["candidate"] == {"bytes": 500, "macs": 64, "parameters": 65}
    assert set(evidence.groups["attributes"]) == {"light", "label"}


def test_the_group_table_holds_the_accuracies_of_the_scores(evaluated):
    split = read_dataset(evaluated.layout.data).split("test")
    table = json.loads((evaluated.layout.evidence("first") / "groups.json").read_text())["attributes"]
    for folder, name in (
        (evaluated.baseline, "baseline_accuracy"),
        (evaluated.finalist, "candidate_accuracy"),
    ):
        right = predict(open_session(folder / "model.onnx"), split.images, 1000).argmax(1) == split.labels
        for level, row in table["light"].items():
            inside = split.columns["light"] == level
            assert row["n"] == inside.sum()
            assert row[name] == pytest.approx(right[inside].mean())


def test_a_second_run_writes_the_same_bytes(evaluated):
    first = _digests(evaluated.layout.evidence("first"))
    evaluate.run(evaluated.layout, evaluated.params, slot="first")
    assert _digests(evaluated.layout.evidence("first")) == first
    assert set(first) == {
        "examples.npz",
        "baseline.npz",
        "candidate.npz",
        "contract.npz",
        "attacks.npz",
        "cost.json",
        "groups.json",
    }
    assert not any(str(evaluated.layout.root).encode() in content for content in first.values())


def test_sensitive_columns_lie_apart_and_nothing_else_changes(evaluated):
    folder, timing, subject = (
        evaluated.layout.evidence("first"),
        _write_timing(evaluated),
        _subject(evaluated),
    )
    clear, before = read_evidence(folder, timing, subject), _digests(folder)
    assert RESTRICTED not in before
    path = evaluated.layout.data / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sensitive": ["light"]}))
    evaluate.run(evaluated.layout, evaluated.params, slot="first")
    after = _digests(folder)
    assert {name for name in after if after[name] != before.get(name)} == {"examples.npz", RESTRICTED}
    header, arrays = read_table(folder / "examples.npz", "leangate/examples/1")
    assert set(arrays) == {"ids", "units", "labels"}
    assert (header["restricted"], header["levels"]) == (["light"], {})
    withheld = read_evidence(folder, timing, subject).examples
    assert (withheld.withheld, withheld.columns) == (("light",), {})
    apart = read_evidence(folder, timing, subject, folder / RESTRICTED)
    assert apart.examples.withheld == ()
    assert apart.examples.columns["light"].tolist() == clear.examples.columns["light"].tolist()
    assert apart.examples.levels == clear.examples.levels
    assert apart.files.keys() == {*clear.files, RESTRICTED}
    header, arrays = read_table(folder / RESTRICTED, "leangate/restricted/1")
    assert set(arrays) == {"ids", "slice:light"}
    pixels = read_dataset(evaluated.layout.data).pixels
    assert header["salt"] == hashlib.sha256(b"leangate/restricted/1" + pixels.tobytes()).hexdigest()


def test_other_seeds_and_other_code_show_in_the_bytes(evaluated, monkeypatch):
    first = _digests(evaluated.layout.evidence("first"))
    evaluate.run(evaluated.layout, evaluated.params.model_copy(update={"seed": 1}), slot="first")
    assert _digests(evaluated.layout.evidence("first"))["attacks.npz"] != first["attacks.npz"]
    monkeypatch.setattr("pipeline.probes.code_digest.code_sha256", lambda: "d" * 64)
    evaluate.run(evaluated.layout, evaluated.params, slot="first")
    changed = {
        name
        for name, content in _digests(evaluated.layout.evidence("first")).items()
        if content != first[name]
    }
    assert changed == {"baseline.npz", "candidate.npz", "contract.npz", "attacks.npz"}


def test_an_empty_slot_leaves_only_word_of_it(project):
    evaluate.run(project.layout, project.params, slot="second")
    (only,) = project.layout.evidence("second").iterdir()
    assert json.loads(only.read_text()) == {"schema": "leangate/absent/1", "slot": "second"}
    assert only.name == "absent.json"


def test_absence_replaces_evidence_of_the_past(evaluated):
    evaluated.edit_entry(candidate=None)
    evaluate.run(evaluated.layout, evaluated.params, slot="first")
    assert [path.name for path in evaluated.layout.evidence("first").iterdir()] == ["absent.json"]


def test_a_slot_that_does_not_exist_is_wrong_input(project):
    with pytest.raises(InputError, match="third"):
        evaluate.run(project.layout, project.params, slot="third")


def _touch(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


WRONG = {
    "baseline's bytes": lambda project: _touch(project.baseline / "model.onnx"),
    "candidate's bytes": lambda project: _touch(project.finalist / "model.onnx"),
    "another candidate in the slot": lambda project: project.put_finalist(bias=[9, 9]),
    "another baseline since": lambda project: project.put_baseline(bias=[9, 9]),
    "a candidate of other images": lambda project: project.edit_record(project.finalist, shape=[1, 4, 4]),
    "a candidate of another range": lambda project: project.edit_record(project.finalist, pixel_max=255),
    "a candidate of other classes": lambda project: project.edit_record(
        project.finalist, classes=["high", "low"]
    ),
    "a candidate that answers probabilities": lambda project: project.edit_record(
        project.finalist, output="probabilities"
    ),
    "models that do not say what they answer": lambda project: [
        project.edit_record(folder, output=None) for folder in (project.baseline, project.finalist)
    ],
    "models of another dataset": lambda project: [
        project.edit_record(folder, classes=["low", "other"])
        for folder in (project.baseline, project.finalist)
    ],
}


@pytest.mark.parametrize("what", WRONG)
def test_anything_but_the_recorded_models_is_refused(project, what):
    WRONG[what](project)
    with pytest.raises(ModelError):
        evaluate.run(project.layout, project.params, slot="first")
    assert not project.layout.evidence("first").exists()


def test_models_of_another_number_of_classes_are_refused(project):
    project.put_baseline(weight=np.ones((64, 3)), bias=[0, 0, 0], listed=True)
    with pytest.raises(ModelError, match="2 classes, got 3"):
        evaluate.run(project.layout, project.params, slot="first")


BROKEN = {
    "another schema": {"schema": "leangate/finalist/2"},
    "another slot": {"slot": "second"},
    "another name": {"candidate": "other"},
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_slot_that_contradicts_itself_is_refused(project, what):
    project.edit_entry(**BROKEN[what])
    with pytest.raises(EvidenceError):
        evaluate.run(project.layout, project.params, slot="first")


def test_a_failing_run_leaves_the_last_evidence_as_it_was(evaluated):
    first = _digests(evaluated.layout.evidence("first"))
    _touch(evaluated.finalist / "model.onnx")
    with pytest.raises(ModelError):
        evaluate.run(evaluated.layout, evaluated.params, slot="first")
    assert _digests(evaluated.layout.evidence("first")) == first


def test_a_model_that_answers_nan_is_recorded_not_hidden(project):
    weight = np.zeros((64, 2))
    weight[0, 0] = np.nan
    project.put_finalist(weight=weight, listed=True)
    evaluate.run(project.layout, project.params, slot="first")
    evidence = read_evidence(project.layout.evidence("first"), _write_timing(project), _subject(project))
    assert np.isnan(evidence.candidate.scores).any()
    assert not evidence.attacks.candidate_correct.any()
    rows = evidence.groups["attributes"]["light"].values()
    assert all(row["candidate_accuracy"] == 0 for row in rows)


def test_what_the_models_are_said_to_answer_is_evidence_and_is_checked(project):
    for folder in (project.baseline, project.finalist):
        project.edit_record(folder, output="probabilities")
    evaluate.run(project.layout, project.params, slot="first")
    with pytest.raises(EvidenceError, match=r"baseline\.npz.*expected probabilities"):
        read_evidence(project.layout.evidence("first"), _write_timing(project), _subject(project))


def test_the_contract_is_run_on_as_many_examples_as_params_say(project):
    fewer = project.params.evaluate.model_copy(update={"contract_examples": 7})
    evaluate.run(project.layout, project.params.model_copy(update={"evaluate": fewer}), slot="first")
    evidence = read_evidence(project.layout.evidence("first"), _write_timing(project), _subject(project))
    assert len(evidence.contract.ids) == 7
