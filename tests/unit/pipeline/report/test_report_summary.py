# SPDX-License-Identifier: Apache-2.0
"""Gathering: figures come from the files, and files that are missing, malformed or contradictory are refused."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from checks.errors import EvidenceError
from pipeline.layout import Layout
from pipeline.report.summary import gather_comparison, gather_report

READ = [
    "shortlist/shortlist.json",
    "shortlist/first/model.json",
    "shortlist/first/compression.json",
    "decisions/first.json",
    "decisions/second.json",
    "data/data.json",
    "validation/findings.json",
]

WRONG = (None, True, -1, 1e999, 10**400, "text", [], {"x": 1})


def test_figures_are_those_of_the_files(make: Any) -> None:
    case = make("passed", "blocked")
    comparison = gather_comparison(case.write(), case.selection)
    winner = comparison.winner
    assert winner is not None
    assert (winner.name, winner.size.bytes, winner.size.macs) == ("half-int8", 28300, 607_000)
    assert [(batch, reading.value) for batch, reading in winner.latency] == [(1, 0.912), (64, 0.388)]
    assert winner.test_accuracy is not None
    assert winner.test_accuracy.value == 0.9721
    assert winner.worst_slice is not None
    assert (winner.worst_slice.slice, winner.worst_slice.interval) == ("label=1", (-0.041, 0.027))
    assert comparison.baseline_accuracy is not None
    assert comparison.baseline_accuracy.value == 0.9766
    assert [candidate.standing for candidate in comparison.candidates] == [
        "not a finalist", "not a finalist", "not a finalist", "chosen", "not a finalist", "blocked",
    ]  # fmt: skip


def test_candidates_that_are_no_finalists_have_no_test_figures(make: Any) -> None:
    case = make("passed", "blocked")
    for candidate in gather_comparison(case.write(), case.selection).candidates:
        if candidate.decision is None:
            assert (candidate.test_accuracy, candidate.worst_slice, candidate.latency) == (None, None, ())


def test_worst_slice_is_the_lowest_end_and_never_the_whole_split(make: Any) -> None:
    case = make("passed", "absent")
    for entry in case.decision()["measurements"]:
        if entry["metric"] == "accuracy_change":
            entry["interval"] = [-0.9 if entry["slice"] == "overall" else -0.01, 0.02]
        if (entry["metric"], entry["slice"]) == ("accuracy_change", "size=medium"):
            entry["interval"] = [-0.0101, 0.9]
    worst = gather_comparison(case.write(), case.selection).candidates[3].worst_slice
    assert worst is not None
    assert worst.slice == "size=medium"


def test_empty_slot_is_no_finalist(make: Any) -> None:
    case = make("passed", "absent")
    comparison = gather_comparison(case.write(), case.selection)
    assert [decision.slot for decision in comparison.judged] == ["first"]
    assert comparison.decisions[1].outcome == "absent"


def test_evidence_that_could_not_be_read_leaves_a_row_without_test_figures(make: Any) -> None:
    case = make("error", "absent")
    case.decision().update(subject=None, evidence={}, measurements=[])
    row = gather_comparison(case.write(), case.selection).candidates[3]
    assert (row.standing, row.test_accuracy, row.worst_slice) == ("error", None, None)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "null", '{"schema": "leangate/other/1"}', '{"a": 1, "a": 2}']
)
def test_missing_or_malformed_file_is_an_evidence_error_that_names_it(
    make: Any, name: str, content: str | None
) -> None:
    case = make("passed", "blocked")
    layout = case.write()
    path = layout.artifacts / name
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(EvidenceError) as caught:
        gather_report(layout, case.selection)
    assert str(path) in str(caught.value)


def _keys(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every key, into the first entry of every list."""
    if isinstance(value, dict):
        return [
            found for key, entry in value.items() for found in [(*path, key), *_keys(entry, (*path, key))]
        ]
    return _keys(value[0], (*path, 0)) if isinstance(value, list) and value else []


@pytest.mark.parametrize("name", READ)
def test_any_value_of_a_wrong_type_is_drawn_or_refused_but_never_a_traceback(make: Any, name: str) -> None:
    case = make("passed", "blocked")
    layout = case.write()
    path = layout.artifacts / name
    for where, wrong in product(_keys(case.files[name]), WRONG):
        value = json.loads(json.dumps(case.files[name]))
        holder = value
        for key in where[:-1]:
            holder = holder[key]
        holder[where[-1]] = wrong
        path.write_text(json.dumps(value), encoding="utf-8")
        try:
            report = gather_report(layout, case.selection)
        except EvidenceError:
            continue
        _assert_finite(report)


def _assert_finite(report: object) -> None:
    text = repr(report)
    assert "inf" not in text.replace("info", "")
    assert "nan" not in text


@pytest.mark.parametrize(
    "wrong", [None, {}, {"schema": "leangate/selection/1"}, {"outcome": "absent"}, {"chosen": 3}]
)
def test_malformed_selection_is_refused(make: Any, wrong: Any) -> None:
    case = make("passed", "blocked")
    layout = case.write()
    selection = case.selection | wrong if wrong and "schema" not in wrong else (wrong or {})
    with pytest.raises(EvidenceError):
        gather_comparison(layout, selection)


def _edit(make: Any, outcomes: tuple[str, str], change: Any) -> tuple[Layout, dict[str, Any]]:
    case = make(*outcomes)
    change(case)
    return case.write(), case.selection


CONTRADICTIONS = {
    "chosen is closed": lambda case: case.selection["chosen"].update(slot="second", candidate="third-int8"),
    "chosen is another file": lambda case: case.selection["chosen"].update(sha256="0" * 64),
    "chosen is of no slot": lambda case: case.selection["chosen"].update(slot="third"),
    "passed without a choice": lambda case: case.selection.update(chosen=None),
    "choice without a pass": lambda case: case.selection.update(outcome="blocked"),
    "open and blocked": lambda case: case.decision("second").update(open=True),
    "passed and closed": lambda case: case.decision().update(open=False),
    "decision of another slot": lambda case: case.decision().update(slot="second"),
    "decision on another candidate": lambda case: case.decision().update(candidate="dense-int8"),
    "decision on other bytes": lambda case: case.decision("second")["subject"].update(
        candidate_sha256="0" * 64
    ),
    "absent yet filled": lambda case: case.decision("second").update(outcome="absent"),
    "finalist missing": lambda case: case.files["shortlist/shortlist.json"]["candidates"].pop(5),
    "candidate twice": lambda case: case.files["shortlist/shortlist.json"]["candidates"].append(
        case.files["shortlist/shortlist.json"]["candidates"][0]
    ),
    "unknown slot": lambda case: case.files["shortlist/shortlist.json"]["candidates"][0].update(slot="third"),
    "slot that is a path": lambda case: case.files["shortlist/shortlist.json"]["slots"].update(
        {"../x": None}
    ),
    "interval upside down": lambda case: case.decision()["measurements"][0].update(interval=[0.1, -0.1]),
    "file of no bytes": lambda case: case.files["shortlist/shortlist.json"]["candidates"][0].update(bytes=0),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_contradictions_are_refused(make: Any, change: Any) -> None:
    layout, selection = _edit(make, ("passed", "blocked"), change)
    with pytest.raises(EvidenceError) as caught:
        gather_report(layout, selection)
    assert caught.value.where
