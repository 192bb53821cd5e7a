# SPDX-License-Identifier: Apache-2.0
"""Built evidence as the files that the stages write, true to its digests, for whatever reads those."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from checks.attempts import Round, find_attempt, next_round
from checks.canonical import sha256_bytes, sha256_file
from checks.contract_runs import RUNS
from checks.evidence import RESTRICTED, Attacks, Evidence, Examples, Subject
from pipeline.data.dataset import content_digest, data_digest
from pipeline.data.test_examples import read_test_digest
from pipeline.files import write_bytes, write_json
from pipeline.layout import Layout
from pipeline.models.record import SCHEMA
from pipeline.probes.code_digest import code_sha256
from pipeline.probes.pool import ATTACKS
from pipeline.probes.tables import write_table


def write_data(layout: Layout, examples: Examples, **elsewhere: dict[str, str]) -> None:
    """Write prepared data whose test split is `examples`, and a row a further example in other splits.

    Args:
        layout: Where.
        examples: The test split.
        elsewhere: Id to what differs from the first test example, for example its split and a level.
    """
    layout.data.mkdir(parents=True, exist_ok=True)
    count = len(examples.ids)
    rows: dict[str, list[str]] = {
        "id": examples.ids.tolist(),
        "unit": examples.units.tolist(),
        "split": ["test"] * count,
        "label": [examples.classes[label] for label in examples.labels.tolist()],
        "source": ["built"] * count,
        "license": ["CC0-1.0"] * count,
        "consent": ["not-required"] * count,
        **{name: column.tolist() for name, column in examples.columns.items()},
    }
    for name, changed in elsewhere.items():
        row = {key: values[0] for key, values in rows.items()} | {"id": name, "unit": name} | changed
        for key, values in rows.items():
            values.append(row[key])
    pq.write_table(pa.table(rows), layout.data / "manifest.parquet")
    pixels = np.zeros((len(rows["id"]), 1, 1, 1), dtype=np.uint8)
    np.savez_compressed(layout.data / "examples.npz", pixels=pixels, ids=np.array(rows["id"]))
    write_json(
        layout.data / "data.json",
        {
            "schema": "leangate/data/1",
            "classes": list(examples.classes),
            "slices": list(examples.columns),
            **({"sensitive": list(examples.restricted)} if examples.restricted else {}),
            "pixel_max": 255,
            "shape": [1, 1, 1],
            "rows": len(rows["id"]),
            "test_sha256": content_digest(
                pixels[[split == "test" for split in rows["split"]]],
                [label for label, split in zip(rows["label"], rows["split"], strict=True) if split == "test"],
            ),
        },
    )


def _whole_pool(attacks: Attacks) -> Attacks:
    """Return the attacks under the names of the whole pool: the clean images, then the same attack again."""
    order = [0] + [1] * (len(ATTACKS) - 1)
    names = ("baseline_correct", "candidate_correct", "perturbation", "in_range")
    return replace(attacks, names=ATTACKS, **{name: getattr(attacks, name)[order] for name in names})


def _providers(*models: str) -> dict[str, list[str]]:
    return dict.fromkeys(("declared", *models), ["CPUExecutionProvider"])


def _write_tables(layout: Layout, slot: str, evidence: Evidence) -> None:
    folder, subject = layout.evidence(slot), evidence.subject.to_json()
    folder.mkdir(parents=True)
    layout.timing(slot).mkdir(parents=True)
    examples, attacks, timing = evidence.examples, evidence.attacks, evidence.timing
    levels = {name: list(levels) for name, levels in examples.levels.items()}
    apart = {name: levels.pop(name) for name in examples.restricted}
    columns = {f"slice:{name}": column for name, column in examples.columns.items()}
    columns_apart = {f"slice:{name}": columns.pop(f"slice:{name}") for name in apart}
    header: dict[str, Any] = {
        "classes": list(examples.classes),
        "test_sha256": examples.test_sha256,
        "levels": levels,
    }
    if apart:
        header["restricted"] = list(apart)
        write_table(
            folder / RESTRICTED,
            {"schema": "leangate/restricted/1", **subject, "levels": apart},
            {"ids": examples.ids, **columns_apart},
        )
    write_table(
        folder / "examples.npz",
        {"schema": "leangate/examples/1", **subject, **header},
        {"ids": examples.ids, "units": examples.units, "labels": examples.labels, **columns},
    )
    for model in ("baseline", "candidate"):
        scores = getattr(evidence, model)
        own = {"model_sha256": subject[f"{model}_sha256"], "output": scores.output}
        write_table(
            folder / f"{model}.npz",
            {"schema": "leangate/scores/1", **subject, **own, "providers": _providers(model)},
            {"ids": scores.ids, "scores": scores.scores},
        )
    runs = {
        f"{model}:{run}": getattr(evidence.contract, model)[run]
        for model in ("baseline", "candidate")
        for run in RUNS
    }
    write_table(
        folder / "contract.npz",
        {"schema": "leangate/contract/1", **subject, "effort": {"examples": len(evidence.contract.ids)}},
        {"ids": evidence.contract.ids, **runs},
    )
    write_table(
        folder / "attacks.npz",
        {
            "schema": "leangate/attacks/1",
            **subject,
            "attacks": list(attacks.names),
            "epsilon": attacks.epsilon,
            "effort": {"examples": len(attacks.ids)},
            "twin_agreement": list(attacks.twin_agreement),
        },
        {
            name: getattr(attacks, name)
            for name in ("ids", "baseline_correct", "candidate_correct", "perturbation", "in_range")
        },
    )
    times = {
        name: getattr(timing, name)
        for name in vars(timing)
        if name.startswith(("baseline_", "candidate_", "control_")) and not name.endswith("_providers")
    }
    write_table(
        layout.timing(slot) / "timing.npz",
        {
            "schema": "leangate/timing/1",
            **subject,
            "batch_sizes": list(timing.batch_sizes),
            "energy_counters": list(timing.energy_counters),
            "providers": _providers("baseline", "candidate", "control"),
        },
        {name: array for name, array in times.items() if array is not None},
    )
    write_json(folder / "cost.json", {"schema": "leangate/cost/1", **subject, **evidence.cost})
    write_json(folder / "groups.json", {"schema": "leangate/groups/1", **subject, **evidence.groups})


def write_artifacts(root: Path, evidence: Evidence, slot: str = "first") -> Layout:
    """Write everything `gate` reads, with the evidence in one slot and nobody in the slot `empty`.

    Args:
        root: Folder of `params.yaml` and `policy.yaml`.
        evidence: What is written; its digests are replaced by those of the files beside it.
        slot: Which slot the candidate `built` fills.
    """
    layout = Layout(root)
    write_data(layout, evidence.examples)
    folders = {"baseline": layout.baseline, "candidate": layout.finalist(slot)}
    for model, folder in folders.items():
        folder.mkdir(parents=True)
        figures, path = evidence.cost[model], folder / "model.onnx"
        write_bytes(path, model.encode().ljust(figures["bytes"]))
        record = {"schema": SCHEMA, "output": "logits", "sha256": sha256_file(path)}
        write_json(folder / "model.json", record | figures)
    write_json(layout.shortlist / "shortlist.json", {"slots": {slot: "built", "empty": None}})
    evidence = replace(evidence, attacks=_whole_pool(evidence.attacks))
    subject = Subject(
        baseline_sha256=sha256_file(layout.baseline / "model.onnx"),
        candidate_sha256=sha256_file(layout.finalist(slot) / "model.onnx"),
        data_sha256=data_digest(layout.data),
        code_sha256=code_sha256(),
    )
    examples = replace(evidence.examples, test_sha256=read_test_digest(layout.data))
    _write_tables(layout, slot, replace(evidence, subject=subject, examples=examples))
    write_attempt(layout, slot, examples.test_sha256, subject.candidate_sha256)
    return layout


def write_attempt(
    layout: Layout,
    slot: str,
    test_sha256: str,
    candidate_sha256: str,
    *,
    before: int = 0,
    beside: int = 0,
    after: tuple[Round, ...] = (),
    policy_sha256: str = "0" * 64,
) -> None:
    """Write the record of an attempt, and the file of attempts it stands in.

    Args:
        layout: Where.
        slot: Whose record.
        test_sha256: Of the test split.
        candidate_sha256: Of the candidate.
        before: Runs of one candidate each that came before.
        beside: Other candidates of the same run.
        after: Rounds that came before all of these.
        policy_sha256: Of the policy that lay there.
    """
    rounds = after
    batches = [[sha256_bytes(f"before {index}".encode())] for index in range(before)]
    batches.append([candidate_sha256, *(sha256_bytes(f"beside {index}".encode()) for index in range(beside))])
    for candidates in batches:
        entry = next_round(rounds, test_sha256, candidates, policy_sha256)
        assert entry is not None
        rounds = (*rounds, entry)
    write_bytes(layout.attempts_file, "".join(f"{entry.line}\n" for entry in rounds).encode())
    attempt = find_attempt(rounds, test_sha256, candidate_sha256)
    assert attempt is not None
    write_json(layout.attempt(slot), attempt.to_json())
