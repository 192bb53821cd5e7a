# SPDX-License-Identifier: Apache-2.0
"""A project folder that holds nothing but evidence, and the real command judging it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from project import ROOT

from checks.canonical import dumps, sha256_bytes
from checks.evidence import Evidence, Subject
from pipeline.data.dataset import data_digest
from pipeline.layout import Layout
from pipeline.probes.code_digest import code_sha256
from pipeline.probes.tables import write_table

__all__ = ["command_verdict", "make_project", "write_evidence"]

SLOT = "first"

_MODELS = ("baseline", "candidate")


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_project(folder: Path, rule: Mapping[str, Any], keys: Mapping[str, Any]) -> Subject:
    """Make a project with a policy of one rule, and return what its evidence must be about.

    No model runs: of data and models only the digests matter to the gate.
    """
    layout = Layout(folder)
    for path in (layout.data / "examples.npz", layout.data / "manifest.parquet"):
        _put(path, path.name.encode())
    files = {"baseline": layout.baseline, "candidate": layout.finalist(SLOT)}
    for model, place in files.items():
        _put(place / "model.onnx", model.encode())
    _put(layout.shortlist / "shortlist.json", dumps({"slots": {SLOT: "simulated"}}).encode())
    shutil.copy(ROOT / "params.yaml", layout.params)
    filled = {"id": "rule-0", "kind": "bounded", "reason": "A simulated limit."} | dict(rule)
    policy = {"version": 1, "name": "simulated", "alpha": 0.05, "alpha_fail": 0.05, "rules": [filled]}
    _put(layout.policy, dumps(policy | dict(keys)).encode())
    baseline, candidate = (sha256_bytes(model.encode()) for model in files)
    return Subject(baseline, candidate, data_digest(layout.data), code_sha256())


def _write_examples(evidence: Evidence, folder: Path, digests: Mapping[str, str]) -> None:
    examples = evidence.examples
    levels = {name: list(entries) for name, entries in examples.levels.items()}
    header = {
        "schema": "leangate/examples/1",
        "data_sha256": digests["data_sha256"],
        "classes": list(examples.classes),
        "levels": levels,
    }
    columns = {f"slice:{name}": column for name, column in examples.columns.items()}
    arrays = {"ids": examples.ids, "units": examples.units, "labels": examples.labels} | columns
    write_table(folder / "examples.npz", header, arrays)


def _providers(*models: str) -> dict[str, list[str]]:
    return {name: ["CPUExecutionProvider"] for name in ("declared", *models)}


def _write_scores(evidence: Evidence, folder: Path, digests: Mapping[str, str]) -> None:
    for model, scores in zip(_MODELS, (evidence.baseline, evidence.candidate), strict=True):
        header = {
            "schema": "leangate/scores/1",
            "data_sha256": digests["data_sha256"],
            "code_sha256": digests["code_sha256"],
            "model_sha256": digests[f"{model}_sha256"],
            "output": scores.output,
            "providers": _providers(model),
        }
        write_table(folder / f"{model}.npz", header, {"ids": scores.ids, "scores": scores.scores})
    runs = {
        f"{model}:{run}": scores
        for model in _MODELS
        for run, scores in getattr(evidence.contract, model).items()
    }
    header = {"schema": "leangate/contract/1", **digests}
    write_table(folder / "contract.npz", header, {"ids": evidence.contract.ids} | runs)


def _write_attacks(evidence: Evidence, folder: Path, digests: Mapping[str, str]) -> None:
    attacks = evidence.attacks
    header = {
        "schema": "leangate/attacks/1",
        **digests,
        "attacks": list(attacks.names),
        "epsilon": attacks.epsilon,
        "twin_agreement": list(attacks.twin_agreement),
    }
    names = ("ids", "baseline_correct", "candidate_correct", "perturbation", "in_range")
    write_table(folder / "attacks.npz", header, {name: getattr(attacks, name) for name in names})


def _write_timing(evidence: Evidence, folder: Path, digests: Mapping[str, str]) -> None:
    timing = evidence.timing
    header = {
        "schema": "leangate/timing/1",
        **{name: digest for name, digest in digests.items() if name != "data_sha256"},
        "batch_sizes": list(timing.batch_sizes),
        "energy_counters": [],
        "providers": _providers("baseline", "candidate", "control"),
    }
    names = ["control_ms"]
    for model in _MODELS:
        names += [f"{model}_{what}" for what in ("ms", "peak_bytes", "calls_ms", "processor_s")]
    write_table(folder / "timing.npz", header, {name: getattr(timing, name) for name in names})


def write_evidence(evidence: Evidence, layout: Layout, subject: Subject) -> None:
    """Write `evidence` as the files that the gate reads, about `subject`."""
    digests = replace(subject).to_json()
    folder = layout.evidence(SLOT)
    folder.mkdir(parents=True, exist_ok=True)
    _write_examples(evidence, folder, digests)
    _write_scores(evidence, folder, digests)
    _write_attacks(evidence, folder, digests)
    _write_timing(evidence, layout.timing(SLOT), digests)
    for name in ("cost", "groups"):
        content = {"schema": f"leangate/{name}/1", **digests, **getattr(evidence, name)}
        _put(folder / f"{name}.json", dumps(content).encode())


def command_verdict(folder: Path) -> tuple[str, int]:
    """Run `leangate gate --json` in `folder`; return the verdict on the one rule, and the exit code."""
    command = [sys.executable, "-m", "leangate", "gate", "--slot", SLOT, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        findings = json.loads(done.stdout)["findings"]
    except ValueError:
        raise SystemExit(done.stdout + done.stderr) from None
    return findings[0]["verdict"], done.returncode
