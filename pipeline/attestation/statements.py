# SPDX-License-Identifier: Apache-2.0
"""What is stated of a bundle: how it was made, what the gate saw, and what was decided.

in-toto Statement v1 (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) with three
predicates: SLSA provenance v1 (https://slsa.dev/spec/v1.1/provenance), the gate's evidence, whose JSON Schema
is `schemas/gate-evidence.json`, and a SLSA verification summary
(https://slsa.dev/spec/v1.1/verification_summary).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checks.canonical import sha256_file
from pipeline.attestation.dsse import STATEMENT
from pipeline.card.contents import MANIFEST, Contents
from pipeline.fields import Fields

__all__ = ["GATE_EVIDENCE", "PROVENANCE", "SUMMARY", "gate_evidence", "provenance", "statement", "summary"]

PROVENANCE = "https://slsa.dev/provenance/v1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
GATE_EVIDENCE = "urn:leangate:gate-evidence:1"

_BUILD_TYPE = "urn:leangate:dvc-repro:1"
_BUILDER = "urn:leangate:pipeline"
_VERIFIER = "urn:leangate:gate"
_WAIVED = "urn:leangate:waived"
"""An extension field, named as in-toto asks; the summary itself knows passed and failed alone."""


def statement(files: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Return a statement about files.

    Args:
        files: Path below the bundle to SHA-256.
        predicate_type: One of `PROVENANCE`, `GATE_EVIDENCE`, `SUMMARY`.
        predicate: What is stated.
    """
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


def gate_evidence(contents: Contents) -> dict[str, Any]:
    """Return what the gate saw, and what it made of it; follows from the bundle's files."""
    decision = contents.decision
    findings = [
        {key: entry.value[key] for key in ("rule", "kind", "slice", "target", "blocking", "verdict", "bound")}
        for entry in decision.entries("findings")
    ]
    stated = {
        "subject": contents.evidence.subject.to_json(),
        "policy": decision.value["policy"],
        "decision": {"sha256": contents.digest("decision.json")},
        "evidence": {name: {"sha256": digest} for name, digest in decision.value["evidence"].items()},
        "outcome": decision.text("outcome"),
        "alpha": decision.value["alpha"],
        "attempt": decision.value["attempt"],
        "findings": findings,
    }
    return stated | _waived(contents, "waived")


def _waived(contents: Contents, key: str) -> dict[str, Any]:
    """What was waived, under `key`; nothing where nothing was, so that such statements stay as they were."""
    return {key: [waiver.to_json() for waiver in contents.waivers]} if contents.waivers else {}


def summary(contents: Contents) -> dict[str, Any]:
    """Return the verification summary; follows from the bundle's files, so that no time stands in it.

    Whoever asks for the level LEANGATE_PROVEN does not get what needed a waiver.
    """
    return _waived(contents, _WAIVED) | {
        "verifier": {"id": _VERIFIER},
        "resourceUri": f"sha256:{contents.digest('model.onnx')}",
        "policy": {"uri": "policy.yaml", "digest": {"sha256": contents.digest("policy.yaml")}},
        "verificationResult": "PASSED",
        "verifiedLevels": ["LEANGATE_WAIVED" if contents.waivers else "LEANGATE_PROVEN"],
        "slsaVersion": "1.1",
    }


def provenance(folder: Path, manifest: Fields, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the bundle was made.

    Args:
        folder: The bundle.
        manifest: Its `bundle.json`.
        origin: From `read_origin`: the parameters, the commit, and what DVC's lock names.
    """
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {"params": origin["params"], "slot": manifest.text("slot")},
            "internalParameters": {"environment": manifest.value["environment"]},
            "resolvedDependencies": origin["dependencies"],
        },
        "runDetails": {
            "builder": {
                "id": _BUILDER,
                "version": {"leangate": manifest.inner("environment").text("leangate")},
            },
            "byproducts": [
                {"name": MANIFEST, "digest": {"sha256": sha256_file(folder / MANIFEST)}},
            ],
        },
    }
