# SPDX-License-Identifier: Apache-2.0
"""bundle: what ships is what was judged, byte for byte, and nothing else ever ships."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checks.canonical import dumps, read_json, sha256_bytes, sha256_file
from checks.errors import EvidenceError, StorageError
from pipeline.card.contents import DOCUMENTS, read_bundle, with_digest
from pipeline.layout import Layout
from tests.bundle_project import build_project, project_params

bundle = importlib.import_module("pipeline.bundle")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return build_project(tmp_path_factory.mktemp("original"))


@pytest.fixture
def layout(original: Layout, tmp_path: Path) -> Layout:
    shutil.copytree(original.root, tmp_path / "project")
    return Layout(tmp_path / "project")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def change(path: Path, edit: Callable[[Any], None]) -> None:
    value = read_json(path)
    edit(value)
    path.write_text(dumps(with_digest(value) if path.name == "bundle.json" else value), encoding="utf-8")


def trust(layout: Layout) -> None:
    """Make the verdict agree with a decision that a test has changed, so that the next check has to see it."""
    change(
        layout.verdict, lambda verdict: verdict.update(decision_sha256=sha256_file(layout.decision("first")))
    )


def expect_refusal(layout: Layout, match: str, error: type[Exception] = EvidenceError) -> Exception:
    with pytest.raises(error, match=match) as caught:
        bundle.run(layout, project_params())
    assert not layout.bundle.exists()
    assert list(layout.artifacts.glob(".bundle*")) == []
    return caught.value


def test_the_bundle_holds_the_judged_bytes_and_a_manifest_of_all_files(layout: Layout) -> None:
    bundle.run(layout, project_params())

    files = files_of(layout.bundle)
    manifest = json.loads(files.pop("bundle.json"))
    assert manifest["schema"] == "leangate/bundle/2"
    assert manifest["files"] == {
        name: {"sha256": sha256_bytes(data), "bytes": len(data)} for name, data in files.items()
    }
    assert files["model.onnx"] == (layout.shortlist / "first" / "model.onnx").read_bytes()
    assert sha256_bytes(files["model.onnx"]) == manifest["onnx_sha256"]
    assert files["decision.json"] == layout.decision("first").read_bytes()
    assert files["policy.yaml"] == layout.policy.read_bytes()
    assert files["governance.yaml"] == layout.governance.read_bytes()
    assert files["data-findings.json"] == (layout.validation / "findings.json").read_bytes()
    assert {name for name in files if name.startswith("evidence/")} == {
        *(f"evidence/{path.name}" for path in layout.evidence("first").iterdir()),
        "evidence/timing.npz",
    }
    assert [entry["pass"] for entry in manifest["passes"]] == ["train", "channels", "quantize"]
    assert {"python", "numpy", "onnx", "onnxruntime"} <= set(manifest["environment"])


def test_repeating_gives_the_same_bytes(layout: Layout) -> None:
    bundle.run(layout, project_params())
    first = files_of(layout.bundle)
    bundle.run(layout, project_params())
    assert files_of(layout.bundle) == first


def test_the_folder_of_the_project_changes_no_byte(original: Layout, layout: Layout) -> None:
    bundle.run(original, project_params())
    bundle.run(layout, project_params())
    assert files_of(original.bundle) == files_of(layout.bundle)
    assert not any(str(layout.root).encode() in data for data in files_of(layout.bundle).values())
    shutil.rmtree(original.bundle)


def test_a_finished_bundle_reads_back(layout: Layout) -> None:
    bundle.run(layout, project_params())
    manifest, contents = read_bundle(layout.bundle)
    assert manifest.text("onnx_sha256") == contents.evidence.subject.candidate_sha256


def test_the_card_s_own_command_verifies_the_files(layout: Layout) -> None:
    bundle.run(layout, project_params())
    card = (layout.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    command = re.search(r"`(sed -n [^`]* \| sha256sum --check)`", card)
    assert command is not None

    def verify() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command[1]], cwd=layout.bundle, capture_output=True, text=True, check=False
        )

    done = verify()
    assert done.returncode == 0
    checked = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
    assert checked == set(files_of(layout.bundle)) - {*DOCUMENTS, "bundle.json"}
    (layout.bundle / "evidence" / "cost.json").write_text("{}", encoding="utf-8")
    assert verify().returncode != 0


ONE_BYTE = [
    ("shortlist/first/model.onnx", "SHA-256"),
    ("evidence/first/examples.npz", "SHA-256"),
    ("evidence/first/baseline.npz", "SHA-256"),
    ("evidence/first/candidate.npz", "SHA-256"),
    ("evidence/first/attacks.npz", "SHA-256"),
    ("evidence/first/contract.npz", "SHA-256"),
    ("evidence/first/cost.json", "SHA-256"),
    ("evidence/first/groups.json", "SHA-256"),
    ("timing/first/timing.npz", "SHA-256"),
    ("decisions/first.json", "SHA-256"),
    ("baseline/model.onnx", "baseline"),
    ("data/manifest.parquet", "data"),
    ("data/examples.npz", "data"),
]


@pytest.mark.parametrize(("name", "match"), ONE_BYTE, ids=[name for name, _ in ONE_BYTE])
def test_one_changed_byte_is_refused(layout: Layout, name: str, match: str) -> None:
    path = layout.artifacts / name
    data = bytearray(path.read_bytes())
    position = len(data) // 2
    data[position] = data[position] ^ 1
    path.write_bytes(data)
    expect_refusal(layout, match)


def test_a_changed_policy_is_refused_and_named(layout: Layout) -> None:
    layout.policy.write_text("name: default\nversion: 1 \n", encoding="utf-8")
    error = expect_refusal(layout, "SHA-256")
    assert error.where == str(layout.policy)
    assert "dvc repro" in error.hint


def test_a_policy_swapped_together_with_the_decision_s_digest_is_refused(layout: Layout) -> None:
    layout.policy.write_text("name: generous\n", encoding="utf-8")
    change(layout.decision("first"), lambda value: value["policy"].update(sha256=sha256_file(layout.policy)))
    expect_refusal(layout, "SHA-256")
    trust(layout)
    expect_refusal(layout, "policy")


def test_another_model_under_the_judged_name_is_refused(layout: Layout) -> None:
    folder = layout.shortlist / "first"
    shutil.copy(layout.baseline / "model.onnx", folder / "model.onnx")
    change(folder / "model.json", lambda value: value.update(sha256=sha256_file(folder / "model.onnx")))
    expect_refusal(layout, "SHA-256")


def test_a_swapped_model_is_refused_even_if_all_records_follow(layout: Layout) -> None:
    """Only the decision still names the judged bytes; the attacker cannot make it anew without the gate."""
    folder = layout.shortlist / "first"
    shutil.copy(layout.baseline / "model.onnx", folder / "model.onnx")
    digest = sha256_file(folder / "model.onnx")
    change(folder / "model.json", lambda value: value.update(sha256=digest))
    change(layout.shortlist / "shortlist.json", lambda value: value["candidates"][0].update(sha256=digest))
    change(layout.selection, lambda value: value["chosen"].update(sha256=digest))
    change(layout.verdict, lambda value: value.update(onnx_sha256=digest))
    error = expect_refusal(layout, "SHA-256")
    assert error.where == str(folder / "model.onnx")


def test_a_verdict_on_other_bytes_is_refused_even_if_the_selection_follows(layout: Layout) -> None:
    change(layout.selection, lambda value: value["chosen"].update(sha256="0" * 64))
    change(layout.verdict, lambda value: value.update(onnx_sha256="0" * 64))
    error = expect_refusal(layout, "SHA-256")
    assert error.where == str(layout.shortlist / "first" / "model.onnx")


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("outcome", "blocked", "outcome"),
        ("open", False, "open"),
        ("slot", "second", "slot"),
        ("candidate", "third-int8", "candidate"),
        ("findings", [], "blocking"),
        ("evidence", {}, "evidence"),
    ],
)
def test_a_decision_that_does_not_carry_the_verdict_is_refused(
    layout: Layout, key: str, value: object, match: str
) -> None:
    change(layout.decision("first"), lambda decision: decision.update({key: value}))
    trust(layout)
    expect_refusal(layout, match)


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE", "ERROR", "SURPRISE", ""])
def test_an_open_decision_with_a_blocking_rule_that_did_not_pass_is_refused(
    layout: Layout, verdict: str
) -> None:
    change(layout.decision("first"), lambda decision: decision["findings"][3].update(verdict=verdict))
    trust(layout)
    expect_refusal(layout, "only what passed")


@pytest.mark.parametrize(("verdict", "ships"), [("NO-FINDING", True), ("PASS", False), ("NOT-RUN", False)])
def test_a_blocking_search_ships_only_without_a_finding(layout: Layout, verdict: str, ships: bool) -> None:
    def edit(decision: Any) -> None:
        [entry] = [entry for entry in decision["findings"] if entry["rule"] == "flips-into-one-class"]
        entry["verdict"] = verdict

    change(layout.decision("first"), edit)
    trust(layout)
    if ships:
        bundle.run(layout, project_params())
        assert (layout.bundle / "MODEL_CARD.md").exists()
    else:
        expect_refusal(layout, "only what passed")


def test_a_bounded_rule_cannot_be_met_by_finding_nothing(layout: Layout) -> None:
    change(layout.decision("first"), lambda decision: decision["findings"][0].update(verdict="NO-FINDING"))
    trust(layout)
    expect_refusal(layout, "only what passed")


def test_an_advisory_rule_may_fail_but_not_break(layout: Layout) -> None:
    def set_advisory(verdict: str) -> None:
        def edit(decision: Any) -> None:
            [entry] = [entry for entry in decision["findings"] if entry["rule"] == "single-image-latency"]
            entry["verdict"] = verdict

        change(layout.decision("first"), edit)
        trust(layout)

    set_advisory("ERROR")
    expect_refusal(layout, "only what passed")
    set_advisory("FAIL")
    bundle.run(layout, project_params())
    assert "**FAIL** (advisory)" in (layout.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "edit", "match"),
    [
        ("selection.json", {"outcome": "blocked"}, "outcome"),
        (
            "selection.json",
            {"chosen": {"slot": "first", "candidate": "half-int8", "sha256": "0" * 64}},
            "SHA-256",
        ),
        ("shortlist/shortlist.json", {"slots": {"first": "third-int8"}}, "slot first"),
        ("shortlist/shortlist.json", {"candidates": []}, "candidates"),
        ("validation/findings.json", {"open": False}, "open"),
        ("validation/findings.json", {"data_sha256": "0" * 64}, "data"),
        ("data/data.json", {"manifest_sha256": "0" * 64}, "data"),
        ("baseline/model.json", {"sha256": "0" * 64}, "SHA-256"),
        ("shortlist/first/model.json", {"bytes": 1}, "bytes"),
        ("verdict.json", {"onnx_sha256": "0" * 64}, "SHA-256"),
        ("verdict.json", {"slot": "../first"}, "slot"),
    ],
)
def test_a_record_that_contradicts_the_decision_is_refused(
    layout: Layout, name: str, edit: dict[str, Any], match: str
) -> None:
    change(layout.artifacts / name, lambda value: value.update(edit))
    expect_refusal(layout, match)


def test_a_licence_that_the_manifest_does_not_have_is_refused(layout: Layout) -> None:
    change(layout.data / "data.json", lambda value: value["sources"][0].update(license="CC0-1.0"))
    expect_refusal(layout, "manifest.parquet")


def test_split_sizes_that_the_manifest_does_not_have_are_refused(layout: Layout) -> None:
    change(layout.data / "data.json", lambda value: value["splits"].update(test=61))
    expect_refusal(layout, "manifest.parquet")


@pytest.mark.parametrize(
    "name", ["verdict.json", "decisions/first.json", "timing/first/timing.npz", "baseline/model.json"]
)
def test_a_missing_file_is_refused_by_name(layout: Layout, name: str) -> None:
    (layout.artifacts / name).unlink()
    error = expect_refusal(layout, "expected")
    assert str(layout.artifacts / name) in error.where


def test_a_missing_baseline_is_refused(layout: Layout) -> None:
    (layout.baseline / "model.onnx").unlink()
    expect_refusal(layout, "expected", StorageError)


def test_a_refusal_leaves_the_old_bundle_alone(layout: Layout) -> None:
    bundle.run(layout, project_params())
    before = files_of(layout.bundle)
    layout.policy.write_text("name: other\n", encoding="utf-8")
    with pytest.raises(EvidenceError):
        bundle.run(layout, project_params())
    assert files_of(layout.bundle) == before


@pytest.mark.parametrize("name", ["model.onnx", "MODEL_CARD.md", "evidence/cost.json", "records/data.json"])
def test_a_bundle_changed_after_it_was_made_does_not_read_back(layout: Layout, name: str) -> None:
    bundle.run(layout, project_params())
    path = layout.bundle / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(EvidenceError, match="bytes"):
        read_bundle(layout.bundle)


def test_a_card_changed_without_changing_its_size_does_not_read_back(layout: Layout) -> None:
    bundle.run(layout, project_params())
    path = layout.bundle / "MODEL_CARD.md"
    path.write_bytes(path.read_bytes().replace(b"99.11 %", b"99.99 %"))
    with pytest.raises(EvidenceError, match="SHA-256"):
        read_bundle(layout.bundle)


def test_a_bundle_with_a_file_too_many_or_too_few_does_not_read_back(layout: Layout) -> None:
    bundle.run(layout, project_params())
    (layout.bundle / "extra.txt").write_text("x", encoding="utf-8")
    with pytest.raises(EvidenceError, match="files"):
        read_bundle(layout.bundle)
    (layout.bundle / "extra.txt").unlink()
    (layout.bundle / "evidence" / "groups.json").unlink()
    with pytest.raises(EvidenceError, match="files"):
        read_bundle(layout.bundle)


def test_a_card_rewritten_together_with_the_manifest_cannot_hide_a_changed_model(layout: Layout) -> None:
    bundle.run(layout, project_params())
    path = layout.bundle / "model.onnx"
    path.write_bytes((layout.baseline / "model.onnx").read_bytes())
    digest = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    change(layout.bundle / "bundle.json", lambda value: value["files"].update({"model.onnx": digest}))
    with pytest.raises(EvidenceError, match="SHA-256"):
        read_bundle(layout.bundle)
