# SPDX-License-Identifier: Apache-2.0
"""select: which of the finalists that passed ships, and the report on all of them.

The preference looks at no test metric: choosing the better test result among several would be one more
use of the test split, and would flatter. What needs a waiver ships only where nothing passed without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from checks.canonical import read_json
from checks.decision import SCHEMA
from checks.errors import EvidenceError
from pipeline.decision_file import Decision, Outcome, parse_decision
from pipeline.fields import Fields
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.policy_file import load_policy
from pipeline.waiver import today
from pipeline.waivers import apply_waivers, read_waivers

__all__ = ["run"]

_SEVERITY: Sequence[Outcome] = ("passed", "waived", "inconclusive", "blocked", "error", "absent")


def _read_decision(layout: Layout, slot: str) -> Mapping[str, Any]:
    path = layout.decision(slot)
    decision = read_json(path)
    if not isinstance(decision, dict) or decision.get("schema") != SCHEMA or decision.get("slot") != slot:
        raise EvidenceError(f"expected the decision on slot {slot!r} of schema {SCHEMA}", where=str(path))
    return decision


def _value(decision: Mapping[str, Any], metric: str) -> float | None:
    values = [entry["value"] for entry in decision["measurements"] if entry["metric"] == metric]
    return values[0] if values else None


def _latency(decision: Mapping[str, Any]) -> float | None:
    """Ratio at the largest batch: the least of it is call overhead."""
    ratios = {
        int(entry["metric"].removeprefix("latency_ratio_b")): entry["value"]
        for entry in decision["measurements"]
        if entry["metric"].startswith("latency_ratio_b")
    }
    return ratios[max(ratios)] if ratios else None


def _row(decision: Mapping[str, Any], judged: Decision) -> dict[str, Any]:
    return {
        "slot": decision["slot"],
        "candidate": decision["candidate"],
        "outcome": judged.standing,
        "waived": [one.waiver.to_json() for one in judged.waived if one.waiver is not None],
        "bytes": _value(decision, "candidate_bytes"),
        "macs": _value(decision, "candidate_macs"),
        "latency_ratio": _latency(decision),
    }


def _choose(rows: Sequence[Mapping[str, Any]], preference: Sequence[str]) -> Mapping[str, Any] | None:
    keys = ["latency_ratio" if name == "latency" else name for name in preference]
    passed = [row for row in rows if row["outcome"] == "passed"]
    passed = passed or [row for row in rows if row["outcome"] == "waived"]
    for row in passed:
        missing = [key for key in keys if row[key] is None]
        if missing:
            raise EvidenceError(
                f"expected {missing} of a finalist that passed, got none", where=f"slot {row['slot']}"
            )
    return min(passed, key=lambda row: (*[row[key] for key in keys], row["slot"]), default=None)


def _rows(layout: Layout, decisions: Mapping[str, Mapping[str, Any]], on: date) -> list[dict[str, Any]]:
    file, waivers = load_policy(layout.policy), read_waivers(layout.root)
    rows = []
    for slot, decision in decisions.items():
        judged = parse_decision(Fields(decision, str(layout.decision(slot))))
        rows.append(_row(decision, apply_waivers(judged, file, waivers, on)))
    return rows


def run(layout: Layout, params: Params) -> None:
    """Write `selection.json` and the report.

    Raises:
        EvidenceError: if a decision or a waiver is missing or malformed.
    """
    from pipeline.report import write_report

    decisions = {slot: _read_decision(layout, slot) for slot in params.shortlist.slots}
    rows = _rows(layout, decisions, today())
    chosen = _choose(rows, params.select.preference)
    outcome: Outcome = min((row["outcome"] for row in rows), key=_SEVERITY.index)
    if outcome == "absent":  # no candidate was good enough on validation to be judged at all
        outcome = "blocked"
    selection: dict[str, Any] = {
        "schema": "leangate/selection/1",
        "outcome": outcome,
        "chosen": None,
        "finalists": rows,
        "preference": list(params.select.preference),
    }
    if chosen is not None:
        sha256 = decisions[chosen["slot"]]["subject"]["candidate_sha256"]
        selection["chosen"] = {"slot": chosen["slot"], "candidate": chosen["candidate"], "sha256": sha256}
    with output_dir(layout.report) as folder:
        write_report(folder, layout, selection)
    write_json(layout.selection, selection)
