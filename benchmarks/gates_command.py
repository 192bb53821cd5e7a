# SPDX-License-Identifier: Apache-2.0
"""A project folder that holds nothing but evidence, and the real command judging it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from project import ROOT

from checks.attempts import Attempt, Round
from checks.canonical import dumps, sha256_bytes
from checks.evidence import Evidence, Examples, Subject
from pipeline.data.dataset import data_digest
from pipeline.layout import Layout
from pipeline.models.record import SCHEMA
from pipeline.probes.code_digest import code_sha256
from pipeline.probes.pool import ATTACKS
from pipeline.probes.tables import write_table

__all__ = ["command_verdict", "make_project", "write_evidence"]

SLOT = "first"

_MODELS = ("baseline", "candidate")

_TEST = sha256_bytes(b"no image is looked at")

_COST = {"macs": 1000, "parameters": 100}


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_project(folder: Path, rule: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    """Make a project with a policy of one rule.

    No model runs: of data and models only the digests matter to the gate.
    """
    layout = Layout(folder)
    _put(layout.data / "examples.npz", b"no image is looked at")
    for model, place in (("baseline", layout.baseline), ("candidate", layout.finalist(SLOT))):
        content = model.encode()
        _put(place / "model.onnx", content)
        record = {"schema": SCHEMA, "output": "logits", "sha256": sha256_bytes(content), **_COST}
        _put(place / "model.json", dumps(record).encode())
    _put(layout.shortlist / "shortlist.json", dumps({"slots": {SLOT: "simulated"}}).encode())
    shutil.copy(ROOT / "params.yaml", layout.params)
    filled = {"id": "rule-0", "kind": "bounded", "reason": "A simulated limit."} | dict(rule)
    # One planned attempt has the whole of alpha.
    policy = {
        "version": 1,
        "name": "simulated",
        "alpha": 0.05,
        "alpha_fail": 0.05,
        "attempts": {"planned": 1},
    }
    policy |= {"rules": [filled]}
    _put(layout.policy, dumps(policy | dict(keys)).encode())


def _write_manifest(examples: Examples, folder: Path) -> None:
    """Write the test split, and an example of each level in another split."""
    labels = np.array(examples.classes)[examples.labels]
    columns = {"id": examples.ids, "unit": examples.units, "label": labels, **examples.columns}
    rows = {name: column.tolist() for name, column in columns.items()}
    rows["split"] = ["test"] * len(examples.ids)
    for name, levels in examples.levels.items():
        for level in levels:
            other = {key: values[0] for key, values in rows.items()}
            other |= {"id": f"{name}-{level}", "split": "train", name: level}
            for key, values in rows.items():
                values.append(other[key])
    pq.write_table(pa.table(rows), folder / "manifest.parquet")
    facts = {"schema": "leangate/data/1", "classes": list(examples.classes), "slices": list(examples.columns)}
    facts |= {"test_sha256": _TEST}
    _put(folder / "data.json", dumps(facts).encode())


def _write_examples(evidence: Evidence, folder: Path, digests: Mapping[str, str]) -> None:
    examples = evidence.examples
    levels = {name: list(entries) for name, entries in examples.levels.items()}
    header = {
        "schema": "leangate/examples/1",
        "data_sha256": digests["data_sha256"],
        "classes": list(examples.classes),
        "test_sha256": _TEST,
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
    header = {
        "schema": "leangate/contract/1",
        **digests,
        "effort": {"examples": len(evidence.contract.ids)},
    }
    write_table(folder / "contract.npz", header, {"ids": evidence.contract.ids} | runs)


def _write_attacks(evidence: Evidence, folder: Path, digests: Mapping[str, str]) -> None:
    clean, worst = 0, 1
    attacks = evidence.attacks
    order = [clean] + [worst] * (len(ATTACKS) - 1)
    header = {
        "schema": "leangate/attacks/1",
        **digests,
        "attacks": list(ATTACKS),
        "epsilon": attacks.epsilon,
        "effort": {"examples": len(attacks.ids)},
        "twin_agreement": list(attacks.twin_agreement),
    }
    names = ("baseline_correct", "candidate_correct", "perturbation", "in_range")
    arrays = {name: getattr(attacks, name)[order] for name in names}
    write_table(folder / "attacks.npz", header, {"ids": attacks.ids} | arrays)


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


def write_evidence(evidence: Evidence, layout: Layout) -> Subject:
    """Write `evidence` as the files that the gate reads, and return what it is about."""
    _write_manifest(evidence.examples, layout.data)
    baseline, candidate = (sha256_bytes(model.encode()) for model in _MODELS)
    subject = Subject(baseline, candidate, data_digest(layout.data), code_sha256())
    digests = subject.to_json()
    attempt = Attempt(_TEST, candidate, 1, (Round(_TEST, 1, (candidate,), "0" * 64, None),))
    _put(layout.attempt(SLOT), dumps(attempt.to_json()).encode())
    folder = layout.evidence(SLOT)
    folder.mkdir(parents=True, exist_ok=True)
    _write_examples(evidence, folder, digests)
    _write_scores(evidence, folder, digests)
    _write_attacks(evidence, folder, digests)
    _write_timing(evidence, layout.timing(SLOT), digests)
    cost = {model: {"bytes": len(model), **_COST} for model in _MODELS}
    for name, said in (("cost", cost), ("groups", evidence.groups)):
        content = {"schema": f"leangate/{name}/1", **digests, **said}
        _put(folder / f"{name}.json", dumps(content).encode())
    return subject


def command_verdict(folder: Path) -> tuple[str, int]:
    """Run `leangate gate --json` in `folder`; return the verdict on the one rule, and the exit code."""
    command = [sys.executable, "-m", "leangate", "gate", "--slot", SLOT, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        findings = json.loads(done.stdout)["findings"]
    except ValueError:
        raise SystemExit(done.stdout + done.stderr) from None
    return findings[0]["verdict"], done.returncode
