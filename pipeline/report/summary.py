# SPDX-License-Identifier: Apache-2.0
"""Gathers the figures from the JSON files of the stages; computes nothing, refuses contradictions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from checks.canonical import sha256_file, sha256_value
from checks.errors import EvidenceError
from pipeline.decision_entries import Reading
from pipeline.decision_file import Decision, outcome_of, read_decision
from pipeline.fields import Fields, expect_schema, read_fields
from pipeline.layout import Layout
from pipeline.report.figures import (
    Candidate,
    Chosen,
    Comparison,
    Data,
    DataFinding,
    Digest,
    Model,
    Report,
    Size,
    SliceColumn,
    Source,
)
from pipeline.report.passes import passes_in
from pipeline.waiver import parse_waiver
from pipeline.waivers import with_waivers

__all__ = ["gather_comparison", "gather_report"]

_SLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_STALE = "the files are of different runs; run `dvc repro`"


def gather_comparison(layout: Layout, selection: Mapping[str, Any], on: date | None = None) -> Comparison:
    """Gather the decision of the run and the table of candidates.

    Args:
        layout: Where `shortlist.json` and the decisions lie.
        selection: The content of `selection.json`.
        on: The day, UTC, on which waivers have to hold; None tells what was selected, whatever the day.

    Raises:
        EvidenceError: if an input is missing, malformed, or contradicts another one.
    """
    path = layout.shortlist / "shortlist.json"
    shortlist = read_fields(path, "leangate/shortlist/1")
    slots = shortlist.inner("slots")
    for slot in slots.value:
        if not _SLOT.fullmatch(slot):
            raise EvidenceError(f"expected a slot's name, got {slot!r}"[:120], where=str(path))
    decisions = {
        slot: _decision(layout.decision(slot), slots.maybe_text(slot)) for slot in sorted(slots.value)
    }
    picked = expect_schema(dict(selection), "leangate/selection/1", str(layout.selection))
    decisions = _waived(picked, decisions, str(layout.selection))
    chosen = _chosen(picked, decisions)
    outcome = outcome_of(picked, "absent")
    if on is not None:
        decisions = {slot: _on_day(decision, on) for slot, decision in decisions.items()}
    if chosen is not None and not decisions[chosen.slot].ships:
        outcome, chosen = decisions[chosen.slot].outcome, None
    rows = tuple(_candidate(fields, decisions, chosen) for fields in shortlist.entries("candidates"))
    if len({row.name for row in rows}) != len(rows):
        raise EvidenceError("expected each candidate once", where=f"{path} candidates")
    seated = {row.name for row in rows if row.decision}
    missing = sorted({item.candidate for item in decisions.values() if item.candidate} - seated)
    if missing:
        raise EvidenceError(f"expected every finalist among candidates, miss {missing}", where=str(path))
    baseline = shortlist.inner("baseline")
    return Comparison(
        outcome=outcome,
        chosen=chosen,
        preference=picked.texts("preference"),
        baseline=_size(baseline),
        baseline_sha256=baseline.text("sha256"),
        baseline_accuracy=_first(decisions, "baseline_accuracy"),
        baseline_robust_accuracy=_first(decisions, "baseline_robust_accuracy"),
        candidates=rows,
        decisions=tuple(decisions.values()),
    )


def gather_report(layout: Layout, selection: Mapping[str, Any]) -> Report:
    """Gather everything on the page.

    Args:
        layout: Where the outputs of the stages lie.
        selection: The content of `selection.json`.

    Raises:
        EvidenceError: if an input is missing, malformed, or contradicts another one.
    """
    comparison = gather_comparison(layout, selection)
    data_path, findings_path = layout.data / "data.json", layout.validation / "findings.json"
    data = _data(data_path, findings_path)
    models = [_model(layout.finalist(decision.slot)) for decision in comparison.judged]
    return Report(comparison, data, tuple(models), _digests(layout, comparison, selection))


def _size(fields: Fields) -> Size:
    size = Size(
        bytes=fields.count("bytes"),
        macs=fields.count("macs"),
        parameters=fields.count("parameters"),
        validation_accuracy=fields.number("validation_accuracy"),
    )
    if size.bytes < 1:
        raise EvidenceError("expected bytes above 0, got 0", where=fields.where)
    return size


def _decision(path: Path, candidate: str | None) -> Decision:
    decision = read_decision(path)
    agrees = decision.candidate == candidate or (decision.outcome == "error" and decision.candidate is None)
    if decision.slot != path.stem or not agrees:
        raise EvidenceError(
            f"expected the decision on {candidate} in slot {path.stem}, "
            f"got the one on {decision.candidate} in slot {decision.slot}",
            where=str(path),
            hint=_STALE,
        )
    if decision.open != (decision.outcome == "passed") or (decision.outcome == "absent" and candidate):
        raise EvidenceError(
            f"expected outcome and open that agree, got {decision.outcome} and open {decision.open}",
            where=str(path),
        )
    return replace(decision, candidate=candidate)


def _waived(selection: Fields, decisions: Mapping[str, Decision], where: str) -> dict[str, Decision]:
    """Put each waiver that the selection names beside its finding."""
    marked = dict(decisions)
    for row in selection.entries("finalists"):
        waivers = [parse_waiver(entry) for entry in row.entries("waived")] if "waived" in row.value else []
        slot = row.text("slot")
        if waivers and slot not in marked:
            raise EvidenceError(f"expected a slot, got {slot!r}"[:120], where=row.where, hint=_STALE)
        if waivers:
            marked[slot] = with_waivers(marked[slot], waivers, where)
    return marked


def _on_day(decision: Decision, on: date) -> Decision:
    """Return the decision without the waivers that have ended."""
    findings = tuple(
        replace(one, waiver=None) if one.waiver is not None and one.waiver.until < on else one
        for one in decision.findings
    )
    return replace(decision, findings=findings)


def _chosen(fields: Fields, decisions: Mapping[str, Decision]) -> Chosen | None:
    """Return what ships, having made sure that an open decision on exactly this file says so."""
    entry = fields.maybe_inner("chosen")
    outcome = fields.text("outcome")
    if (entry is not None) != (outcome in ("passed", "waived")):
        raise EvidenceError(
            "expected something chosen exactly when the outcome is passed or waived", where=fields.where
        )
    if entry is None:
        return None
    chosen = Chosen(entry.text("slot"), entry.text("candidate"), entry.text("sha256"))
    decision = decisions.get(chosen.slot)
    judged = dict(decision.subject).get("candidate_sha256") if decision else None
    fits = decision is not None and decision.standing == outcome
    if not decision or not fits or (decision.candidate, judged) != (chosen.candidate, chosen.sha256):
        raise EvidenceError(
            f"expected the {outcome} decision on {chosen.candidate}, {chosen.sha256}, in slot {chosen.slot}",
            where=entry.where,
            hint=_STALE,
        )
    return chosen


def _candidate(fields: Fields, decisions: Mapping[str, Decision], chosen: Chosen | None) -> Candidate:
    name, sha256, slot = fields.text("name"), fields.text("sha256"), fields.maybe_text("slot")
    decision = decisions.get(slot) if slot is not None else None
    if slot is not None and (decision is None or decision.candidate != name):
        raise EvidenceError(f"expected slot {slot} to hold {name}", where=fields.where, hint=_STALE)
    subject = dict(decision.subject) if decision else {}
    if subject and subject.get("candidate_sha256") != sha256:
        raise EvidenceError(
            f"expected the decision on {sha256}, got the one on {subject.get('candidate_sha256')}",
            where=fields.where,
            hint=_STALE,
        )
    return Candidate(
        name=name,
        sha256=sha256,
        size=_size(fields),
        gzip_bytes=fields.count("gzip_bytes"),
        on_front=fields.flag("on_front"),
        reason=fields.text("reason"),
        decision=decision,
        latency=decision.by_batch("latency_ratio") if decision else (),
        worst_slice=_worst_slice(decision),
        chosen=chosen is not None and chosen.candidate == name,
    )


def _worst_slice(decision: Decision | None) -> Reading | None:
    """Return the change in accuracy whose interval reaches lowest, the whole split left out."""
    changes = [
        (reading.interval[0], reading.slice, reading)
        for reading in (decision.slices_of("accuracy_change") if decision else ())
        if reading.interval is not None
    ]
    return min(changes, key=lambda change: change[:2])[2] if changes else None


def _first(decisions: Mapping[str, Decision], metric: str) -> Reading | None:
    return next((found for item in decisions.values() if (found := item.reading(metric))), None)


def _data(data_path: Path, findings_path: Path) -> Data:
    data = read_fields(data_path, "leangate/data/1")
    validation = read_fields(findings_path, "leangate/data-findings/1")
    splits = data.inner("splits")
    origins = data.maybe_inner("slice_origins")
    shape = data.value.get("shape")
    if not isinstance(shape, list) or not all(isinstance(size, int) and 0 < size < 2**31 for size in shape):
        raise EvidenceError("expected a list of sizes", where=f"{data_path} shape")
    return Data(
        classes=data.texts("classes"),
        slices=data.texts("slices"),
        shape=tuple(shape),
        rows=data.count("rows"),
        sources=tuple(
            Source(entry.text("source"), entry.text("license"), entry.text("consent"), entry.count("rows"))
            for entry in data.entries("sources")
        ),
        splits=tuple((name, splits.count(name)) for name in sorted(splits.value, key=_split_order)),
        columns=tuple(_column(name, origins.inner(name)) for name in data.texts("slices")) if origins else (),
        open=validation.flag("open"),
        findings=tuple(
            DataFinding(
                check=entry.text("check"),
                verdict=entry.text("verdict"),
                expected=entry.text("expected"),
                came=entry.text("came"),
                rows=entry.texts("rows"),
                row_count=entry.count("row_count"),
            )
            for entry in validation.entries("findings")
        ),
    )


def _split_order(name: str) -> tuple[int, str]:
    known = ("train", "calibration", "validation", "test")
    return (known.index(name) if name in known else len(known)), name


def _column(name: str, fields: Fields) -> SliceColumn:
    origin = fields.maybe_text("formula") or fields.maybe_text("from") or ""
    return SliceColumn(name, fields.texts("levels"), origin)


def _model(folder: Path) -> Model:
    model = read_fields(folder / "model.json", "leangate/model/1")
    made = read_fields(folder / "compression.json", "leangate/compression/1")
    for key in ("name", "sha256"):
        if made.text(key) != model.text(key):
            raise EvidenceError(
                f"expected the passes of {key} {model.text(key)}, got those of {made.text(key)}"[:400],
                where=made.where,
                hint=_STALE,
            )
    return Model(model.text("name"), model.text("sha256"), passes_in(made))


def _digests(layout: Layout, comparison: Comparison, selection: Mapping[str, Any]) -> tuple[Digest, ...]:
    """Name every file the report was drawn from, by its path below the root, and what they vouch for."""
    paths = [
        layout.shortlist / "shortlist.json",
        layout.data / "data.json",
        layout.validation / "findings.json",
    ]
    paths += [layout.decision(decision.slot) for decision in comparison.decisions]
    paths += [
        layout.finalist(decision.slot) / name
        for decision in comparison.judged
        for name in ("model.json", "compression.json")
    ]
    named = {path.relative_to(layout.root).as_posix(): sha256_file(path) for path in paths}
    named[layout.selection.relative_to(layout.root).as_posix()] = sha256_value(dict(selection))
    listed = [Digest("baseline, ONNX file", comparison.baseline_sha256)]
    listed += [Digest(f"candidate {row.name}, ONNX file", row.sha256) for row in comparison.candidates]
    for decision in comparison.decisions:
        listed.append(Digest(f"slot {decision.slot}: policy {decision.policy_name}", decision.policy_sha256))
        subject = [
            (name, digest) for name, digest in decision.subject if name in ("data_sha256", "code_sha256")
        ]
        for name, digest in subject:
            listed.append(Digest(f"slot {decision.slot}: {name.removesuffix('_sha256')}", digest))
        listed += [
            Digest(f"slot {decision.slot}: evidence {name}", digest) for name, digest in decision.evidence
        ]
    return tuple(listed + [Digest(f"read: {name}", digest) for name, digest in sorted(named.items())])
