# SPDX-License-Identifier: Apache-2.0
"""shortlist: finalists, chosen on the validation split alone.

A candidate is eligible if its validation accuracy is at most `max_accuracy_drop` below the baseline's. Of
the eligible, those that no other beats on cross-entropy, bytes and multiply-accumulates at once are the
Pareto front; the smallest of the front fill the slots. The test split chooses nothing.

Cross-entropy, because accuracies of a few hundred images tie: a candidate of half the size and one lucky
image would push all others off the front.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checks.errors import ModelError
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params

__all__ = ["run"]

_FIGURES = ("sha256", "bytes", "gzip_bytes", "macs", "parameters", "validation_accuracy", "validation_loss")


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `one` is as good as `other` everywhere and better somewhere."""
    gains = [
        other["validation_loss"] - one["validation_loss"],
        other["bytes"] - one["bytes"],
        other["macs"] - one["macs"],
    ]
    return bool(min(gains) >= 0 and max(gains) > 0)


def _rank(
    baseline: Mapping[str, Any], records: Sequence[Mapping[str, Any]], slots: Sequence[str], max_drop: float
) -> list[dict[str, Any]]:
    least = baseline["validation_accuracy"] - max_drop
    seen: set[str] = {baseline["sha256"]}
    eligible = []
    for record in records:
        # A file that is the baseline's, or another candidate's, would be judged for nothing and cost alpha.
        if record["validation_accuracy"] >= least and record["sha256"] not in seen:
            eligible.append(record)
            seen.add(record["sha256"])
    front = [record for record in eligible if not any(_beats(other, record) for other in eligible)]
    ordered = sorted(front, key=lambda record: (record["bytes"], record["macs"], record["name"]))
    slot_of = {record["name"]: slot for record, slot in zip(ordered, slots, strict=False)}
    rows = []
    for record in records:
        name = record["name"]
        on_front = any(record is member for member in front)
        if name in slot_of:
            reason = "finalist"
        elif on_front:
            reason = "on the front, but every slot was filled by a smaller candidate"
        elif record["validation_accuracy"] < least:
            reason = f"validation accuracy below {least:.4f}"
        elif not any(record is member for member in eligible):
            reason = "the same file as the baseline or another candidate"
        else:
            reason = "another candidate is as good everywhere and better somewhere"
        figures = {key: record[key] for key in _FIGURES}
        rows.append(
            {"name": name, "on_front": on_front, "slot": slot_of.get(name), "reason": reason, **figures}
        )
    return rows


def _fill(folder: Path, layout: Layout, row: Mapping[str, Any] | None, baseline: Mapping[str, Any]) -> None:
    """Write one slot's folder: what `evaluate` and `time` depend on, so that losers do not run them again."""
    folder.mkdir()
    name = row["name"] if row else None
    entry = {"schema": "leangate/finalist/1", "slot": folder.name, "candidate": name}
    if row:
        entry |= {"sha256": row["sha256"], "baseline_sha256": baseline["sha256"]}
        for file in ("model.onnx", "model.json", "compression.json"):
            shutil.copyfile(layout.candidate(row["name"]) / file, folder / file)
    write_json(folder / "finalist.json", entry)


def run(layout: Layout, params: Params) -> None:
    """Write `shortlist.json` and copies of the finalists.

    Raises:
        ModelError: if a candidate's files are unusable.
    """
    from pipeline.models.compression import read_passes
    from pipeline.models.record import read_record

    baseline = read_record(layout.baseline)
    names = [
        f"{variant}-{precision}"
        for variant in params.prune.variants
        for precision in params.quantize.precisions
    ]
    records = [read_record(layout.candidate(name)) for name in names]
    for name, record in zip(names, records, strict=True):
        if record["name"] != name:
            raise ModelError(
                f"expected the candidate {name}, got {record['name']}", where=str(layout.candidate(name))
            )
        read_passes(layout.candidate(name))
    rows = _rank(baseline, records, params.shortlist.slots, params.shortlist.max_accuracy_drop)
    by_slot = {row["slot"]: row for row in rows if row["slot"]}
    with output_dir(layout.shortlist) as folder:
        for slot in params.shortlist.slots:
            _fill(folder / slot, layout, by_slot.get(slot), baseline)
        write_json(
            folder / "shortlist.json",
            {
                "schema": "leangate/shortlist/1",
                "slots": {slot: by_slot.get(slot, {}).get("name") for slot in params.shortlist.slots},
                "baseline": {key: baseline[key] for key in _FIGURES},
                "candidates": rows,
            },
        )
