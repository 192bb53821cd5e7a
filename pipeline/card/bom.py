# SPDX-License-Identifier: Apache-2.0
"""The bill of materials: CycloneDX 1.6 with the model card, data sets, libraries and every file of a bundle.

https://cyclonedx.org/docs/1.6/json/. No time stands in it, and its serial number follows from its files.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from checks.canonical import dumps, sha256_value
from checks.evidence import RESTRICTED
from pipeline.card.contents import ANNEX_IV, CARD, CROSSWALK, GOVERNANCE, Contents
from pipeline.card.figures import Judged, order_slices, read_judged, title_of
from pipeline.card.licences import spdx_id
from pipeline.card.method import LIMITATIONS
from pipeline.decision_entries import Reading, attribute_of
from pipeline.fields import Fields
from pipeline.governance import answers_to
from pipeline.plain import clean
from pipeline.report.wording import describe_interval, describe_value

__all__ = ["bill_of_materials"]

_MODEL = "model"
_OPEN = "to be completed by the provider"
_UJ_PER_KWH = 3.6e12
_SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:leangate:bundle")


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": f"leangate:{name}", "value": clean(value)} for name, value in values.items()]


def _licenses(name: str) -> list[dict[str, Any]]:
    known = spdx_id(name)
    return [{"license": {"id": known} if known else {"name": clean(name)}}] if name.strip() else []


def _sources(contents: Contents, *paths: str) -> dict[str, str]:
    """Where figures come from, as properties."""
    return {f"source:{path}": f"sha256:{contents.digest(path)}" for path in paths}


def _number(value: float) -> str:
    return dumps(value).strip()


def _metric(reading: Reading) -> dict[str, Any]:
    metric: dict[str, Any] = {
        "type": reading.metric,
        "value": _number(reading.value),
        "slice": clean(reading.subject),
    }
    if reading.interval is not None:
        low, high = reading.interval
        metric["confidenceInterval"] = {"lowerBound": _number(low), "upperBound": _number(high)}
    return metric


def _fairness(contents: Contents, judged: Judged) -> list[dict[str, str]]:
    """One assessment a level of the slice columns; a class is no group of people."""
    changes = {
        one.slice: one
        for one in judged.decision.slices_of("accuracy_change")
        if attribute_of(one.slice) != "label"
    }
    assessments = []
    for place in order_slices(changes, contents.data):
        change = changes[place]
        spread = (
            f" (90 % interval {describe_interval(change.interval, change.metric, change.unit)})"
            if change.interval
            else ""
        )
        rules = ", ".join(f"{one.rule}: {one.verdict}" for one in judged.decision.findings_on(change))
        harm = f"Change of accuracy by compression {describe_value(change.value, change.metric, change.unit)}"
        harm += f"{spread}, n = {change.n:,}; {rules or 'no rule'}."
        assessments.append(
            {"groupAtRisk": clean(place), "harms": clean(harm), "mitigationStrategy": _OPEN},
        )
    return assessments


def _energy(contents: Contents) -> dict[str, Any] | None:
    """What the timed calls of the candidate took, where counters could be read; else nothing is claimed."""
    timing = contents.evidence.timing
    if timing.candidate_energy_uj is None:
        return None
    kwh = float(timing.candidate_energy_uj.sum()) / _UJ_PER_KWH
    calls = {size: timing.candidate_calls_ms[index].size for index, size in enumerate(timing.batch_sizes)}
    said = ", ".join(f"{count} calls of {size}" for size, count in calls.items())
    consumption = {
        "activity": "inference",
        "energyProviders": [],
        "activityEnergyCost": {"value": kwh, "unit": "kWh"},
        "properties": _properties(
            {"counters": ", ".join(timing.energy_counters), "calls": said}
            | _sources(contents, "evidence/timing.npz")
        ),
    }
    return {"energyConsumptions": [consumption]}


def _said(contents: Contents, key: str) -> list[str]:
    return [clean(entry) for entry in answers_to(contents.governance, key)]


def _considerations(contents: Contents, judged: Judged) -> dict[str, Any]:
    risks = [
        {"name": clean(one.risk), "mitigationStrategy": clean(one.measure) or _OPEN}
        for one in contents.governance.risks.known
    ]
    considerations: dict[str, Any] = {
        "users": _said(contents, "use.users"),
        "useCases": _said(contents, "use.purpose"),
        "technicalLimitations": [
            *(
                clean(f"Waived until {one.until}: {one.verdict} of {one.rule} on {one.subject}")
                for one in contents.waivers
            ),
            *_said(contents, "use.limitations"),
            *(f"Not meant for: {entry}" for entry in _said(contents, "use.out_of_scope")),
            *LIMITATIONS,
        ],
        "ethicalConsiderations": risks,
        "fairnessAssessments": _fairness(contents, judged),
    }
    if energy := _energy(contents):
        considerations["environmentalConsiderations"] = energy
    return {key: value for key, value in considerations.items() if value}


def _model_card(contents: Contents, judged: Judged) -> dict[str, Any]:
    model = contents.model
    shape = "x".join(str(size) for size in model.value["shape"])
    data = [{"ref": ref} for ref in _data_refs(contents)]
    tables = sorted(
        f"evidence/{name}" for name in contents.decision.inner("evidence").value if name != RESTRICTED
    )
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image-classification",
            "datasets": data,
            "inputs": [{"format": f"pixels 0 to {model.count('pixel_max')}, {shape}"}],
            "outputs": [{"format": f"{model.text('output')} of {len(model.texts('classes'))} classes"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [_metric(reading) for reading in judged.decision.readings],
        },
        "considerations": _considerations(contents, judged),
        "properties": _properties(
            {"confidence-interval": "90 %, each end a one-sided 95 % bound", "outcome": contents.outcome}
            | _sources(
                contents, "decision.json", *tables, "records/model.json", "records/data.json", GOVERNANCE
            )
        ),
    }


def _data_refs(contents: Contents) -> list[str]:
    return [f"data:{index}" for index, _ in enumerate(contents.data.entries("sources"))]


def _data(contents: Contents) -> list[dict[str, Any]]:
    """The data sets by source, with licence and consent as the manifest has them."""
    splits = contents.data.inner("splits")
    counts = {f"split:{name}": str(splits.count(name)) for name in sorted(splits.value)}
    components = []
    for ref, entry in zip(_data_refs(contents), contents.data.entries("sources"), strict=True):
        name = clean(entry.text("source"))
        told = {"rows": str(entry.count("rows")), "consent": entry.text("consent")} | counts
        told |= {"data_sha256": contents.evidence.subject.data_sha256}
        component = {
            "type": "data",
            "bom-ref": ref,
            "name": name,
            "data": [{"type": "dataset", "name": name}],
            "licenses": _licenses(entry.text("license")),
            "properties": _properties(told | _sources(contents, "records/data.json")),
        }
        components.append({key: value for key, value in component.items() if value})
    return components


def _libraries(environment: Fields) -> list[dict[str, Any]]:
    """What made and judged the file; it is not inside it."""
    return [
        {
            "type": "application" if name == "python" else "library",
            "bom-ref": f"library:{name}",
            "name": name,
            "version": environment.text(name),
            "scope": "excluded",
            "purl": f"pkg:{'generic' if name == 'python' else 'pypi'}/{name}@{environment.text(name)}",
        }
        for name in sorted(environment.value)
    ]


def _files(contents: Contents) -> list[dict[str, Any]]:
    return [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(digest)}
        for name, digest in sorted(contents.digests.items())
        if name != "model.onnx"
    ]


def _subject(contents: Contents, judged: Judged) -> dict[str, Any]:
    """The model that ships: its hash, its ancestor, its card."""
    governance, subject = contents.governance, contents.evidence.subject
    evidence = [
        {"type": "evidence", "url": name, "hashes": _hashes(contents.digest(name))}
        for name in ("decision.json", "policy.yaml")
    ]
    documents = [
        {"type": "model-card", "url": CARD},
        {"type": "documentation", "url": ANNEX_IV},
        {"type": "documentation", "url": CROSSWALK},
    ]
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": clean(title_of(contents)),
        "version": clean(governance.version.strip() or contents.verdict.text("candidate")),
        "description": clean(governance.use.purpose),
        "hashes": _hashes(contents.digest("model.onnx")),
        "licenses": _licenses(governance.license),
        "pedigree": {
            "ancestors": [
                {
                    "type": "machine-learning-model",
                    "bom-ref": "baseline",
                    "name": "baseline",
                    "hashes": _hashes(subject.baseline_sha256),
                }
            ],
        },
        "externalReferences": [*evidence, *documents],
        "modelCard": _model_card(contents, judged),
    }
    if governance.provider.name.strip():
        component["manufacturer"] = {"name": clean(governance.provider.name)}
    return {key: value for key, value in component.items() if value}


def bill_of_materials(contents: Contents, environment: Fields) -> str:
    """Return `bom.cdx.json`.

    Args:
        contents: Of the bundle, checked.
        environment: Versions of what made it, as `bundle.json` has them.

    Raises:
        EvidenceError: if a figure that it needs is malformed.
    """
    judged = read_judged(contents.decision, contents.waivers)
    data, libraries = _data(contents), _libraries(environment)
    identity = {"files": dict(contents.digests), "environment": dict(environment.value)}
    value = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SERIALS, sha256_value(identity))}",
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {"type": "application", "name": "leangate", "version": environment.text("leangate")}
                ]
            },
            "component": _subject(contents, judged),
        },
        "components": [*data, *libraries, *_files(contents)],
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [entry["bom-ref"] for entry in data]},
            *({"ref": entry["bom-ref"]} for entry in data),
        ],
    }
    return dumps(value)
