# SPDX-License-Identifier: Apache-2.0
"""Sensitive slice columns: judged as all others, and never in a bundle; without them no verdict is derived."""

import importlib
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from checks.canonical import dumps, sha256_file
from checks.decision import decide
from checks.errors import EvidenceError, InputError, ParamsError
from checks.evidence import RESTRICTED
from checks.measurement import OVERALL, Measurement, Method
from checks.protocol import Metric
from leangate import verifier
from leangate.cli import main
from pipeline.attestation.keys import read_trusted
from pipeline.card.contents import with_digest
from pipeline.gate import judge_slot
from pipeline.params import load_params
from pipeline.policy_file import load_policy
from pipeline.promotion.proof import prove
from pipeline.restricted import measure_shown, measurements_shown
from pipeline.verification import verify_bundle
from tests.bundle_project import LENIENT, Names, build_project, judge_project, project_params
from tests.evidence_files import write_artifacts
from tests.governed_registry import governed_keys, make_bundle

POLICY = """
version: 1
name: tested
alpha: 0.05
alpha_fail: 0.05
rules:
  - {id: overall, kind: bounded, metric: accuracy_change, margin: 0.05, reason: why}
  - {id: light, kind: bounded, metric: accuracy_change, margin: 0.1, slices: [light], reason: why}
  - {id: cells, kind: bounded, metric: accuracy_change, margin: 0.2, slices: [light*label], reason: why}
  - {id: gap, kind: bounded, metric: accuracy_change_gap, max: 0.1, slices: [light], reason: why}
  - {id: table, kind: assert, metric: group_table_mismatch, max: 0, reason: why}
  - {id: places, kind: screen, metric: loss_concentration, alarm: 0.01, slices: [light, label], reason: why}
"""
SENSITIVE = ("slant",)
MLMODEL = """flavors:
  onnx: {code: null, data: model.onnx, onnx_session_options: null, providers: [CPUExecutionProvider]}
  python_function: {data: model.onnx, loader_module: mlflow.onnx, env: {virtualenv: python_env.yaml}}
"""


@pytest.mark.parametrize(
    ("named", "want"),
    [
        (
            "[slnat]",
            r"sensitive\[0\]: expected names in prepare\.slices \(stro.*\), .*, got 'slnat', did you mean `slant`\?",
        ),
        ("[slant, slant]", r"prepare\.sensitive\[1\]: expected names in prepare\.slices"),
    ],
)
def test_only_slices_are_sensitive(named, want, project):
    path = project / "params.yaml"
    assert load_params(path).prepare.sensitive == ()
    text = path.read_text()
    path.write_text(text.replace("  pseudonyms: false", "  sensitive: [slant]\n  pseudonyms: false"))
    assert load_params(path).prepare.sensitive == ("slant",)
    path.write_text(text.replace("  pseudonyms: false", f"  sensitive: {named}\n  pseudonyms: false"))
    with pytest.raises(ParamsError, match=want):
        load_params(path)


# The gate


@pytest.fixture
def judged(project, evidence):
    def judge(*, restricted=True, change=None):
        made = evidence(losses=30, level_losses={"dim": 60})
        if restricted:
            made = replace(made, examples=replace(made.examples, restricted=("light",)))
        root = project / ("apart" if restricted else "clear")
        root.mkdir()
        (root / "policy.yaml").write_text(POLICY)
        layout = write_artifacts(root, made)
        if change:
            change(layout)
        return layout, judge_slot(layout, "first", load_policy(layout.policy)).value

    return judge


def test_verdicts_are_those_of_columns_in_clear(judged):
    layout, apart = judged()
    _, clear = judged(restricted=False)
    for key in ("findings", "measurements", "outcome", "most_changed", "attempt", "alpha_each"):
        assert apart[key] == clear[key]
    assert {entry["verdict"] for entry in apart["findings"]} >= {"PASS", "FAIL"}
    assert any(entry["slice"] == "light=dim" for entry in apart["findings"])
    table = layout.evidence("first") / RESTRICTED
    assert apart["evidence"][RESTRICTED] == sha256_file(table)
    assert RESTRICTED not in clear["evidence"]
    with zipfile.ZipFile(layout.evidence("first") / "examples.npz") as archive:
        assert "slice:light.npy" not in archive.namelist()
        for name in archive.namelist():
            assert "dim".encode("utf-32-le") not in archive.read(name)
    assert apart["most_changed"]
    for entry in apart["most_changed"]:  # a flipped example, without what it is sensitive in
        assert set(entry) == {"id", "label", "baseline", "candidate", "margin_change"}


def _edit(path, change):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    np.savez(path, header=json.dumps(header), **arrays)


def _drop(layout):
    (layout.evidence("first") / RESTRICTED).unlink()


def _table(change):
    return lambda layout: _edit(layout.evidence("first") / RESTRICTED, change)


def _swap(_, arrays):
    arrays["slice:light"] = arrays["slice:light"][::-1].copy()


def _other_order(_, arrays):
    arrays["ids"] = arrays["ids"][::-1].copy()


def _renamed(header, arrays):
    arrays["slice:dark"] = arrays.pop("slice:light")
    header["levels"]["dark"] = header["levels"].pop("light")


def _undeclared(layout):
    path = layout.data / "data.json"
    path.write_text(dumps({**json.loads(path.read_text()), "sensitive": []}))


def _in_clear_as_well(layout):
    with np.load(layout.evidence("first") / RESTRICTED) as archive:
        column = archive["slice:light"]

    def change(header, arrays):
        arrays["slice:light"] = column
        header["levels"]["light"] = sorted(set(column.tolist()))

    _edit(layout.evidence("first") / "examples.npz", change)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (_drop, "No such file"),
        (_table(_swap), "expected the slice light of the manifest"),
        (_table(_other_order), "expected the ids of examples.npz in the same order"),
        (_table(_renamed), r"restricted\.npz: expected the slice columns \['light'\], got \['dark'\]"),
        (_table(lambda header, _: header.update(data_sha256="0" * 64)), "expected evidence of data_sha256"),
        (_table(lambda header, _: header.update(code_sha256="0" * 64)), "expected evidence of code_sha256"),
        (_table(lambda header, _: header.update(schema="leangate/examples/1")), "leangate/restricted/1"),
        (_undeclared, r"expected the sensitive columns \[\] apart, got \['light'\]"),
        (_in_clear_as_well, "expected restricted columns apart"),
    ],
)
def test_a_table_that_is_missing_or_another_is_an_error(judged, change, want):
    _, value = judged(change=change)
    assert value["outcome"] == "error"
    assert re.search(want, value["findings"][0]["message"])


def test_withheld_columns_are_never_judged(evidence, tmp_path):
    (tmp_path / "policy.yaml").write_text(LENIENT.replace("slices: [slant], ", ""))
    file, made = load_policy(tmp_path / "policy.yaml"), evidence()
    made = replace(made, examples=replace(made.examples, columns={}, levels={}, restricted=("light",)))
    with pytest.raises(EvidenceError, match=r"expected the columns \['light'\], got none"):
        decide(file.checks, made, file.policy, alpha=0.05)


class _AllColumns:
    """A check of another distribution that looks at all columns together."""

    name = "all_columns"
    metrics = {"columns": Metric(Method.EXACT_VALUE)}  # noqa: RUF012

    def measure(self, evidence):
        count = len(evidence.examples.columns)
        return [Measurement("columns", OVERALL, count, None, count, "count", Method.EXACT_VALUE)]


def test_what_another_check_makes_of_all_columns_is_not_compared(evidence, tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    file, made = load_policy(tmp_path / "policy.yaml"), evidence()
    file = replace(file, checks=[*file.checks, _AllColumns()])
    whole = decide(file.checks, made, file.policy, alpha=0.05).measurements
    recorded = [entry.to_json() for entry in whole]
    assert {"columns", "group_table_mismatch"} <= {entry["metric"] for entry in recorded}
    bare = replace(made, examples=replace(made.examples, columns={}, levels={}, restricted=("light",)))
    shown = [entry.to_json() for entry in measure_shown(bare, file)]
    assert shown == measurements_shown(recorded, bare, file)
    assert {entry["slice"].partition("=")[0] for entry in shown} == {"overall", "label", "attack"}


# The bundle


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    made = build_project(tmp_path_factory.mktemp("restricted"), Names(sensitive=SENSITIVE))
    rules = LENIENT + (
        "  - {id: cells, kind: bounded, metric: accuracy_change, margin: 0.5, slices: [slant*stroke_weight], "
        "blocking: false, reason: why}\n"
        "  - {id: places, kind: screen, metric: loss_concentration, alarm: 0.01, slices: [slant, "
        "stroke_weight], blocking: false, reason: why}\n"
    )
    judge_project(made, base=rules)
    importlib.import_module("pipeline.bundle").run(made, project_params())
    return made


@pytest.fixture
def table(layout):
    return layout.evidence("first") / RESTRICTED


@pytest.fixture
def bundle(layout, tmp_path):
    return Path(shutil.copytree(layout.bundle, tmp_path / "bundle"))


def test_a_bundle_names_the_table_and_does_not_hold_it(layout, table):
    sha256 = sha256_file(table)
    assert not list(layout.bundle.rglob(RESTRICTED))
    assert json.loads((layout.bundle / "bundle.json").read_text())["restricted_sha256"] == sha256
    assert json.loads((layout.bundle / "decision.json").read_text())["evidence"][RESTRICTED] == sha256
    assert sha256 in (layout.bundle / "MODEL_CARD.md").read_text()
    with zipfile.ZipFile(layout.bundle / "evidence" / "examples.npz") as archive:
        names = archive.namelist()
    assert "slice:slant.npy" not in names
    assert "slice:stroke_weight.npy" in names


def test_documents_show_groups_and_no_example(layout, table):
    with np.load(table) as archive:
        ids = archive["ids"].tolist()
    for name in ("MODEL_CARD.md", "MODEL_CARD.html", "bom.cdx.json", "compliance/annex-iv.md"):
        text = (layout.bundle / name).read_text()
        assert "slant" in text
        assert not [one for one in ids if one in text]


def test_a_bundle_is_not_made_of_another_table(layout, tmp_path):
    from pipeline.layout import Layout

    other = Layout(Path(shutil.copytree(layout.root, tmp_path / "project")))
    _edit(other.evidence("first") / RESTRICTED, lambda header, _: header.update(salt="0"))
    with pytest.raises(EvidenceError, match="expected the restricted table"):
        importlib.import_module("pipeline.bundle").run(other, project_params())


def test_without_the_table_what_can_be_derived_is(layout, table, capsys):
    steps = {step.name: step for step in verify_bundle(layout.bundle)}
    assert [name for name, step in steps.items() if step.state == "unchecked"] == ["verdicts"]
    assert steps["documents"].state == "holds"
    said = steps["verdicts"].said
    recorded = json.loads((layout.bundle / "decision.json").read_text())
    shown = [
        entry
        for entry in recorded["measurements"]
        if "slant" not in entry["slice"] and entry["metric"] != "group_table_mismatch"
    ]
    assert f"{len(shown)} of {len(recorded['measurements'])} measurements follow" in said
    assert f"need slant, in the restricted table {sha256_file(table)}" in said
    assert 0 < len(shown) < len(recorded["measurements"])
    assert main(["verify", str(layout.bundle)]) == 4
    assert "not all of it could be checked" in capsys.readouterr().out


@pytest.mark.parametrize("command", [lambda words: main(["verify", *words]), verifier.main])
def test_with_the_table_everything_is_derived(command, layout, table, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "tables"
    folder.mkdir()
    words = [str(layout.bundle), "--json", "--restricted"]
    assert command([*words, str(folder)]) == 4
    shutil.copy(table, folder / f"{sha256_file(table)}.npz")
    capsys.readouterr()
    for place in (table, folder):
        assert command([*words, str(place)]) == 0
        steps = json.loads(capsys.readouterr().out)["steps"]
        assert "follow from the evidence" in steps[2]["said"]
        assert steps[2]["state"] == "holds"
    assert command(words[:-1]) == 4
    monkeypatch.setenv("LEANGATE_RESTRICTED", str(folder))
    assert command(words[:-1]) == 0
    monkeypatch.setenv("LEANGATE_RESTRICTED", str(table))
    assert command(words[:-1]) == 2


def test_another_table_is_wrong_use(layout, table, tmp_path, capsys):
    other = tmp_path / "other.npz"
    shutil.copy(table, other)
    _edit(other, lambda header, _: header.update(salt="0"))
    assert main(["verify", str(layout.bundle), "--restricted", str(other)]) == 2
    assert f"expected the restricted table {sha256_file(table)}" in capsys.readouterr().err
    assert main(["verify", str(layout.bundle), "--restricted", str(tmp_path / "none")]) == 2
    plain = build_project(tmp_path / "plain")
    judge_project(plain)
    importlib.import_module("pipeline.bundle").run(plain, project_params())
    assert "restricted_sha256" not in json.loads((plain.bundle / "bundle.json").read_text())
    assert main(["verify", str(plain.bundle), "--restricted", str(table)]) == 2
    assert "expected none" in capsys.readouterr().err
    assert main(["verify", str(plain.bundle), "--restricted", str(tmp_path)]) == 0


def _rewrite(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(dumps(with_digest(value) if path.name == "bundle.json" else value))


def _mend(bundle):
    """Give every file the digest it has now, as somebody would who knows how."""
    decision = sha256_file(bundle / "decision.json")
    _rewrite(bundle / "records" / "verdict.json", lambda value: value.update(decision_sha256=decision))

    def name_again(manifest):
        manifest["decision_sha256"] = decision
        for name in manifest["files"]:
            path = bundle / name
            manifest["files"][name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}

    _rewrite(bundle / "bundle.json", name_again)


def _measurement(metric, where):
    def change(value):
        for entry in value["measurements"]:
            if (entry["metric"], entry["slice"]) == (metric, where):
                entry["value"] += 0.001

    return change


@pytest.mark.parametrize(
    "change",
    [
        _measurement("candidate_accuracy", "overall"),
        _measurement("candidate_accuracy", "stroke_weight=bold"),
        lambda value: value["measurements"].pop(0),
        lambda value: value.update(alpha_each=0.05),
        lambda value: value.update(most_changed=[{"id": "digit-0001"}]),
    ],
)
def test_a_false_figure_on_what_is_shown_is_found_without_the_table(bundle, change):
    _rewrite(bundle / "decision.json", change)
    _mend(bundle)
    with pytest.raises(EvidenceError, match="expected what follows from the evidence"):
        list(verify_bundle(bundle))


def test_a_false_figure_on_a_sensitive_slice_is_found_with_the_table(bundle, table):
    _rewrite(bundle / "decision.json", _measurement("candidate_accuracy", "slant=upright"))
    _mend(bundle)
    steps = verify_bundle(bundle)
    assert next(step.state for step in steps if step.name == "verdicts") == "unchecked"
    with pytest.raises(EvidenceError, match="expected what follows from the evidence"):
        list(verify_bundle(bundle, restricted=table))


def _put_in(bundle, table):
    shutil.copy(table, bundle / "evidence" / RESTRICTED)
    entry = {"sha256": sha256_file(table), "bytes": table.stat().st_size}
    _rewrite(bundle / "bundle.json", lambda value: value["files"].update({f"evidence/{RESTRICTED}": entry}))


def _other_name(bundle, table):
    _rewrite(bundle / "bundle.json", lambda value: value.update(restricted_sha256="0" * 64))


def _unnamed(bundle, table):
    _rewrite(bundle / "decision.json", lambda value: value["evidence"].pop(RESTRICTED))
    _mend(bundle)


def _a_path(bundle, table):
    _rewrite(bundle / "decision.json", lambda value: value["evidence"].update({RESTRICTED: "../../x"}))
    _mend(bundle)


def _undeclared_here(bundle, table):
    _rewrite(bundle / "records" / "data.json", lambda value: value.pop("sensitive"))
    _mend(bundle)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (_put_in, "expected the files"),
        (_other_name, "bundle.json restricted_sha256: expected"),
        (_unnamed, "decision.json evidence: expected evidence"),
        (_a_path, "expected a SHA-256"),
        (_undeclared_here, r"expected the sensitive columns \[\], got \['slant'\]"),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_a_bundle_that_hides_what_is_apart_is_refused(bundle, table, change, want, given, tmp_path):
    change(bundle, table)
    with pytest.raises(EvidenceError, match=want):
        list(verify_bundle(bundle, restricted=tmp_path if given else None))


# Signatures and the registry


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return governed_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signed(tmp_path_factory, keys):
    return make_bundle(tmp_path_factory.mktemp("signed"), keys.private("maker"), sensitive=SENSITIVE)


def test_a_trusted_signature_answers_for_the_verdicts(signed, keys, capsys):
    assert main(["verify", str(signed.layout.bundle)]) == 4
    assert main(["verify", str(signed.layout.bundle), "--trust", str(keys.public("maker"))]) == 0
    assert "the signature answers for them" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", str(signed.layout.bundle), "--trust", str(keys.public("stranger"))]) == 1


def test_the_registry_takes_no_signature_for_a_verdict(signed, keys, tmp_path):
    bundle, makers = signed.layout.bundle, read_trusted(keys.public("maker"))
    table = signed.layout.evidence("first") / RESTRICTED
    sha256, model = sha256_file(table), tmp_path / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    (model / "MLmodel").write_text(MLMODEL)
    tables = tmp_path / "tables"
    tables.mkdir()
    for environment in ({}, {"LEANGATE_RESTRICTED": str(tables)}):
        with pytest.raises(EvidenceError, match=f"needs the restricted table {sha256}"):
            prove(bundle, model, makers, environment)
    with pytest.raises(InputError, match="LEANGATE_RESTRICTED: expected a folder"):
        prove(bundle, model, makers, {"LEANGATE_RESTRICTED": str(table)})
    (tables / f"{sha256}.npz").write_bytes(b"something else")
    with pytest.raises(InputError, match=f"expected the restricted table {sha256}"):
        prove(bundle, model, makers, {"LEANGATE_RESTRICTED": str(tables)})
    shutil.copy(table, tables / f"{sha256}.npz")
    proof = prove(bundle, model, makers, {"LEANGATE_RESTRICTED": str(tables)})
    assert f"evidence/{RESTRICTED}" not in proof.bundle
    assert proof.onnx_sha256 == signed.onnx_sha256


def test_nobody_signs_what_was_not_derived(layout, bundle, table, keys, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(keys.private("maker")))
    monkeypatch.chdir(layout.root)
    assert main(["sign", str(bundle)]) == 4
    assert sha256_file(table) in capsys.readouterr().err
    tables = tmp_path / "tables"
    tables.mkdir()
    shutil.copy(table, tables / f"{sha256_file(table)}.npz")
    monkeypatch.setenv("LEANGATE_RESTRICTED", str(tables))
    assert main(["sign", str(bundle)]) == 0
