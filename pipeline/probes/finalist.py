# SPDX-License-Identifier: Apache-2.0
"""The two ONNX files behind one slot of the shortlist; every recorded digest is checked against the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.canonical import read_json
from checks.errors import EvidenceError, InputError, ModelError
from checks.evidence import Output
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout

__all__ = ["Finalist", "read_finalist", "write_absent"]


@dataclass(frozen=True)
class Finalist:
    """One candidate on the shortlist, and the baseline it is measured against.

    Attributes:
        name: The candidate's.
        baseline: `model.onnx` of the baseline.
        candidate: `model.onnx` of the candidate.
        baseline_record: Content of the baseline's `model.json`.
        candidate_record: Content of the candidate's `model.json`.
    """

    name: str
    baseline: Path
    candidate: Path
    baseline_record: dict[str, Any]
    candidate_record: dict[str, Any]

    @property
    def baseline_sha256(self) -> str:
        """SHA-256 of the baseline's ONNX file."""
        return str(self.baseline_record["sha256"])

    @property
    def candidate_sha256(self) -> str:
        """SHA-256 of the candidate's ONNX file."""
        return str(self.candidate_record["sha256"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of an image."""
        channels, height, width = self.baseline_record["shape"]
        return channels, height, width

    @property
    def output(self) -> Output:
        """Whether both files answer logits or probabilities."""
        output: Output = self.baseline_record["output"]
        return output

    @property
    def pixel_max(self) -> int:
        """The value of a saturated pixel."""
        return int(self.baseline_record["pixel_max"])


def _read_entry(layout: Layout, slot: str) -> dict[str, Any]:
    folder = layout.finalist(slot)
    if not folder.is_dir():
        known = sorted(path.parent.name for path in layout.shortlist.glob("*/finalist.json"))
        raise InputError(f"expected a slot among {known}, got {slot!r}", where=str(layout.shortlist))
    path = folder / "finalist.json"
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema") != "leangate/finalist/1":
        raise EvidenceError("expected schema leangate/finalist/1", where=str(path))
    if value.get("slot") != slot or "candidate" not in value:
        raise EvidenceError(f"expected the finalist in slot {slot!r}, got {value}", where=str(path))
    return value


def _expect_digest(record: dict[str, Any], recorded: Any, folder: Path) -> None:
    if record["sha256"] != recorded:
        raise ModelError(
            f"expected the model of the shortlist, SHA-256 {recorded}, got {record['sha256']}",
            where=str(folder),
            hint="the file was changed after the shortlist was made; run `dvc repro`",
        )


def read_finalist(layout: Layout, slot: str) -> Finalist | None:
    """Read the finalist of one slot.

    Args:
        layout: Where files lie.
        slot: Name of the slot.

    Returns:
        The finalist, or None if the shortlist left the slot empty.

    Raises:
        InputError: if there is no such slot.
        ModelError: if any ONNX file is not the one its record or the shortlist names, or the two models
            differ in image shape, pixel range, classes or output.
        EvidenceError: if the shortlist or a record is missing or malformed.
    """
    from pipeline.models.record import read_record

    entry, folder = _read_entry(layout, slot), layout.finalist(slot)
    name = entry["candidate"]
    if name is None:
        return None
    baseline, candidate = read_record(layout.baseline), read_record(folder)
    if candidate.get("name") != name:
        raise EvidenceError(
            f"expected the candidate {name!r} in slot {slot!r}, got {candidate.get('name')!r}",
            where=str(folder / "model.json"),
        )
    _expect_digest(candidate, entry.get("sha256"), folder)
    _expect_digest(baseline, entry.get("baseline_sha256"), layout.baseline)
    for key in ("shape", "pixel_max", "classes", "output"):
        if baseline[key] != candidate[key]:
            raise ModelError(
                f"expected {key} {baseline[key]}, got {candidate[key]}", where=str(folder / "model.json")
            )
    return Finalist(name, layout.baseline / "model.onnx", folder / "model.onnx", baseline, candidate)


def write_absent(folder: Path, slot: str) -> None:
    """Write a folder that says: this slot of the shortlist is empty, nothing was measured."""
    with output_dir(folder) as output:
        write_json(output / "absent.json", {"schema": "leangate/absent/1", "slot": slot})
