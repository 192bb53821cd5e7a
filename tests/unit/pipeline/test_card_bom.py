# SPDX-License-Identifier: Apache-2.0
"""The bill of materials is CycloneDX 1.6 by its official schema, and every figure in it is one of the decision."""

from __future__ import annotations

import dataclasses
import importlib
import json

import numpy as np
import pytest

from checks.canonical import read_json, sha256_file
from pipeline.card.bom import bill_of_materials
from pipeline.card.contents import read_contents, read_manifest
from pipeline.card.licences import _IDS
from pipeline.governance import Governance, Provider, Risk, Risks, Use
from tests.bundle_project import Names, build_project, judge_project, project_params

stage = importlib.import_module("pipeline.bundle")


def _invalid(text):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def _made(root, names=None):
    layout = build_project(root, names)
    judge_project(layout)
    stage.run(layout, project_params())
    return layout.bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return _made(tmp_path_factory.mktemp("bom"))


@pytest.fixture(scope="module")
def bom(bundle):
    return json.loads((bundle / "bom.cdx.json").read_text(encoding="utf-8"))


def _written(bundle, **changes):
    contents = dataclasses.replace(read_contents(bundle), **changes)
    return bill_of_materials(contents, read_manifest(bundle).inner("environment"))


def _properties(entry):
    return {one["name"]: one["value"] for one in entry["properties"]}


def test_the_official_schema_accepts_it(bundle):
    assert _invalid((bundle / "bom.cdx.json").read_text(encoding="utf-8")) is None
    known = Risks(known=(Risk(risk="r", measure="m"), Risk(risk="s")))
    governance = Governance(
        license="My Own Terms",
        provider=Provider(name="N"),
        risks=known,
        version="3",
        use=Use(users="U", purpose="P"),
    )
    assert _invalid(_written(bundle, governance=governance)) is None
    assert _invalid(_written(bundle, governance=Governance())) is None


def test_the_schema_is_one_that_refuses(bundle, bom):
    wrong = bom | {"metadata": {"component": {"type": "model", "name": "x"}}}
    assert _invalid(json.dumps(wrong)) is not None


def test_licences_are_ids_of_the_schema(bundle):
    for name in _IDS:
        text = _written(bundle, governance=Governance(license=name.lower()))
        assert json.loads(text)["metadata"]["component"]["licenses"] == [{"license": {"id": name}}]
        assert _invalid(text) is None, name


def test_the_subject_is_the_file_with_its_ancestor(bundle, bom):
    model = bom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": sha256_file(bundle / "model.onnx")}]
    [ancestor] = model["pedigree"]["ancestors"]
    assert ancestor["hashes"][0]["content"] == read_json(bundle / "records" / "baseline.json")["sha256"]


def test_every_measurement_is_there_to_the_last_digit_and_no_other(bundle, bom):
    def key(metric, where, value, interval):
        return metric, where, value, interval

    said = [
        key(
            one["type"],
            one["slice"],
            float(one["value"]),
            tuple(float(one["confidenceInterval"][end]) for end in ("lowerBound", "upperBound"))
            if "confidenceInterval" in one
            else None,
        )
        for one in bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    ]
    decision = read_json(bundle / "decision.json")
    want = []
    for one in decision["measurements"]:
        where = f"{one['slice']} against {one['versus']}" if one["versus"] else one["slice"]
        where += f" for {one['target']}" if one["target"] else ""
        want.append(
            key(one["metric"], where, float(one["value"]), one["interval"] and tuple(one["interval"]))
        )
    assert said == want
    slices = {where for metric, where, _, interval in said if metric == "accuracy_change" and interval}
    assert {"overall", "label=3", "slant=upright", "stroke_weight=light"} <= slices


def test_every_figure_names_its_file_by_digest(bundle, bom):
    entries = [
        bom["metadata"]["component"]["modelCard"],
        *(one for one in bom["components"] if one["type"] == "data"),
    ]
    for entry in entries:
        sources = {
            name.removeprefix("leangate:source:"): value
            for name, value in _properties(entry).items()
            if name.startswith("leangate:source:")
        }
        assert sources
        for path, digest in sources.items():
            assert digest == f"sha256:{sha256_file(bundle / path)}"
    files = {one["name"]: one["hashes"][0]["content"] for one in bom["components"] if one["type"] == "file"}
    assert files == {
        name: digest for name, digest in read_contents(bundle).digests.items() if name != "model.onnx"
    }


def test_data_come_with_licence_consent_and_counts(bundle, bom):
    [data] = [one for one in bom["components"] if one["type"] == "data"]
    assert data["licenses"] == [{"license": {"id": "CC-BY-4.0"}}]
    told = _properties(data)
    assert (told["leangate:rows"], told["leangate:consent"], told["leangate:split:test"]) == (
        "120",
        "not-required",
        "60",
    )
    assert {"ref": data["bom-ref"]} in bom["metadata"]["component"]["modelCard"]["modelParameters"][
        "datasets"
    ]


def test_libraries_are_those_of_the_manifest(bundle, bom):
    environment = read_json(bundle / "bundle.json")["environment"]
    assert {
        one["name"]: one["version"] for one in bom["components"] if one["bom-ref"].startswith("library:")
    } == environment
    assert "pkg:pypi/numpy@" in {
        one["purl"].partition("@")[0] + "@" for one in bom["components"] if "purl" in one
    }


def test_fairness_is_of_groups_and_never_of_classes(bom):
    assessed = bom["metadata"]["component"]["modelCard"]["considerations"]["fairnessAssessments"]
    groups = [one["groupAtRisk"] for one in assessed]
    assert groups[:3] == ["stroke_weight=light", "stroke_weight=medium", "stroke_weight=bold"]
    assert not any(group.startswith(("label=", "overall")) for group in groups)
    assert all("90 % interval" in one["harms"] and "n = " in one["harms"] for one in assessed)


def test_energy_is_there_only_where_it_was_counted(bundle, bom):
    considerations = bom["metadata"]["component"]["modelCard"]["considerations"]
    assert "environmentalConsiderations" not in considerations
    contents = read_contents(bundle)
    timing = contents.evidence.timing
    spent = np.full(timing.candidate_ms.shape, 3_600_000, dtype=np.int64)
    counted = dataclasses.replace(
        timing, candidate_energy_uj=spent, baseline_energy_uj=spent, energy_counters=("package-0",)
    )
    text = _written(bundle, evidence=dataclasses.replace(contents.evidence, timing=counted))
    assert _invalid(text) is None
    [energy] = json.loads(text)["metadata"]["component"]["modelCard"]["considerations"][
        "environmentalConsiderations"
    ]["energyConsumptions"]
    assert energy["activityEnergyCost"] == {"unit": "kWh", "value": pytest.approx(1e-6 * spent.size)}
    assert {one["name"]: one["value"] for one in energy["properties"]}["leangate:counters"] == "package-0"


def test_the_serial_number_follows_from_the_files_and_no_time_stands_there(bundle, bom, tmp_path):
    again = json.loads((_made(tmp_path / "again") / "bom.cdx.json").read_text(encoding="utf-8"))
    assert again == bom
    other = json.loads(
        (_made(tmp_path / "other", Names(onnx_tail=b"\x00")) / "bom.cdx.json").read_text(encoding="utf-8")
    )
    assert other["serialNumber"] != bom["serialNumber"]
    assert "timestamp" not in bom["metadata"]
