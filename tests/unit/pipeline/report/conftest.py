# SPDX-License-Identifier: Apache-2.0
"""One realistic run as the report sees it: every JSON file of the stages, to be changed before it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from checks.canonical import dumps, sha256_bytes
from pipeline.layout import Layout
from pipeline.report import write_report

Json = dict[str, Any]
DIGITS = tuple("0123456789")
TERCILES = {
    "stroke_weight": ("light", "medium", "bold"),
    "slant": ("backward", "upright", "forward"),
    "size": ("small", "medium", "large"),
}


def digest(name: str) -> str:
    """Return a digest that stands for `name`."""
    return sha256_bytes(name.encode())


def measurement(
    metric: str, where: str, value: float, half: float | None, n: int, unit: str = "proportion"
) -> Json:
    """Return a measurement with an interval of `half` on each side."""
    interval = None if half is None else [round(value - half, 6), round(value + half, 6)]
    return {
        "metric": metric, "slice": where, "versus": None, "target": None, "levels": [], "value": value, "interval": interval, "n": n,
        "unit": unit, "method": "paired_exact" if half is not None else "exact_value", "statistics": {"losses": 3},
    }  # fmt: skip


def finding(
    rule: str, measured: Json | None, verdict: str, bound: float | None, limit: float, **more: Any
) -> Json:
    """Return the finding of `rule` on a measurement, with a message as the judge writes them."""
    keys = ("slice", "versus", "target", "value", "interval", "n", "unit", "method")
    base = {"metric": more.pop("metric", None) or (measured or {})["metric"]}
    base |= {key: (measured or {}).get(key) for key in keys}
    words = {"PASS": "is within its limit", "FAIL": "is beyond its limit", "ERROR": "could not be judged"}
    message = f"{base['metric']} on {base['slice']} {words.get(verdict, 'is not settled by this much data')}."
    return {
        "rule": rule, "kind": "bounded", "blocking": True, "listed": False, "verdict": verdict, "reason": "", "bound": bound,
        "limit": limit, "limit_kind": "margin" if limit < 0 else "max", "rule_reason": f"{rule} has its reasons.", "p": 0.01, "message": message, "detectable": None, "further_examples": None,
        "further_if_equal": None, **base, **more,
    }  # fmt: skip


@dataclass
class Case:
    """A run on disk-to-be.

    Attributes:
        root: The project's root.
        classes: Names of the classes.
        levels: Slice attribute to its levels.
        files: Path below `artifacts/` to its JSON; change it, then `write`.
    """

    root: Path
    classes: tuple[str, ...] = DIGITS
    levels: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(TERCILES))
    files: dict[str, Json] = field(default_factory=dict)

    @property
    def selection(self) -> Json:
        """The content of `selection.json`."""
        return self.files["selection.json"]

    def decision(self, slot: str = "first") -> Json:
        """The content of one decision."""
        return self.files[f"decisions/{slot}.json"]

    def write(self) -> Layout:
        """Write every file and return where they lie."""
        layout = Layout(self.root)
        for name, value in self.files.items():
            path = layout.artifacts / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dumps(value), encoding="utf-8")
        return layout

    def where(self) -> list[str]:
        """Every slice: overall, slice levels, classes."""
        cells = [f"{name}={level}" for name, levels in self.levels.items() for level in levels]
        return ["overall", *cells, *(f"label={name}" for name in self.classes)]

    def judged(self, slot: str, name: str, outcome: str) -> Json:
        """Return a decision of this outcome, its findings in keeping with it."""
        changes = []
        for index, where in enumerate(self.where()):
            overall, small = where == "overall", where.startswith("label=")
            value = -0.004 - 0.001 * (index % 4)
            half = 0.009 if overall else 0.034 if small else 0.019
            count = 898 if overall else 90 if small else 299
            changes.append(measurement("accuracy_change", where, value, half, count))
        limits = [-0.02 if index == 0 else -0.05 if index <= 9 else -0.1 for index in range(len(changes))]
        findings = [
            finding("accuracy-overall" if index == 0 else "accuracy-slices", change, "PASS",
                    round(change["interval"][0] - 0.003, 6), limit)
            for index, (change, limit) in enumerate(zip(changes, limits, strict=True))
        ]  # fmt: skip
        self._spoil(outcome, changes, findings)
        others, more = self._other_measurements()
        return {
            "schema": "leangate/decision/1", "slot": slot, "candidate": name, "outcome": outcome,
            "open": outcome == "passed", "policy": {"name": "vision-default", "sha256": digest("policy")},
            "alpha": 0.05, "alpha_each": 0.025, "finalists": 2,
            "subject": {"baseline_sha256": digest("baseline"), "candidate_sha256": digest(name),
                        "data_sha256": digest("data"), "code_sha256": digest("code")},
            "evidence": {file: digest(name + file) for file in ("attacks.npz", "candidate.npz", "timing.npz")},
            "findings": findings + more, "measurements": changes + others,
        }  # fmt: skip

    @staticmethod
    def _spoil(outcome: str, changes: list[Json], findings: list[Json]) -> None:
        """Make the first slice level stand for the outcome."""
        where = changes[1]["slice"]
        if outcome == "blocked":
            changes[1] |= {"value": -0.0936, "interval": [-0.1264, -0.0641]}
            message = (
                f"accuracy_change on {where} is -0.0936 (n=299, lower bound -0.1301), proven not above -0.05"
            )
            findings[1] = finding("accuracy-slices", changes[1], "FAIL", -0.1301, -0.05, message=message)
        elif outcome == "inconclusive":
            changes[1] |= {"value": -0.0301, "interval": [-0.0569, -0.0087]}
            findings[1] = finding("accuracy-slices", changes[1], "INCONCLUSIVE", -0.0604, -0.05,
                                  reason="underpowered", further_examples=214)  # fmt: skip
        elif outcome == "error":
            del changes[1]
            message = f"could not judge: expected examples of {where}, got none"
            findings[1] = finding("accuracy-slices", None, "ERROR", None, -0.05, metric="accuracy_change",
                                  message=message)  # fmt: skip

    @staticmethod
    def _other_measurements() -> tuple[list[Json], list[Json]]:
        ratio = "ratio"
        rows = [
            measurement("baseline_accuracy", "overall", 0.9766, 0.009, 898),
            measurement("candidate_accuracy", "overall", 0.9721, 0.0095, 898),
            measurement("baseline_robust_accuracy", "overall", 0.842, 0.027, 500),
            measurement("candidate_robust_accuracy", "overall", 0.836, 0.0275, 500),
            measurement("robust_accuracy_change", "overall", -0.006, 0.014, 500),
            measurement("candidate_attack_accuracy", "attack=pgd_on_candidate", 0.861, 0.026, 500),
            measurement("baseline_attack_accuracy", "attack=pgd_on_candidate", 0.874, 0.025, 500),
            measurement("latency_ratio_b64", "overall", 0.388, 0.012, 8, ratio),
            measurement("latency_ratio_b1", "overall", 0.912, 0.081, 8, ratio),
            measurement("bytes_ratio", "overall", 0.176, None, 1, ratio),
            measurement("nonfinite_outputs", "overall", 0.0, None, 898, "count"),
        ]
        gap = measurement("accuracy_change_gap", "size=small", 0.006, 0.02, 598)
        gap |= {"versus": "size=large", "levels": ["small", "medium", "large"], "method": "mover_tango"}
        more = [
            finding("robustness", rows[4], "PASS", -0.0221, -0.05),
            finding("speed-b64", rows[7], "PASS", 0.402, 1.0),
            finding("size", rows[9], "PASS", 0.176, 0.5, kind="assert", p=None),
            finding("finite", rows[10], "PASS", 0.0, 0.0, kind="assert", p=None),
            finding("disparity", gap, "PASS", 0.029, 0.05),
            finding("single-image-latency", rows[8], "INCONCLUSIVE", 1.04, 1.0, reason="borderline", blocking=False),
        ]  # fmt: skip
        return [*rows, gap], more


def _candidate(
    name: str, kilobytes: float, macs: int, accuracy: float, slot: str | None, front: bool
) -> Json:
    size = int(kilobytes * 1000)
    return {
        "name": name, "sha256": digest(name), "bytes": size, "gzip_bytes": int(size * 0.9), "macs": macs,
        "parameters": size // 3, "validation_accuracy": accuracy, "on_front": front, "slot": slot,
        "reason": f"finalist in slot {slot}" if slot else "half-int8 is smaller and no less accurate",
    }  # fmt: skip


def _made(name: str, *passes: Json) -> Json:
    left = {"macs": 607_000, "parameters": 27_172, "sparsity": 0.0, "bytes": 110_485, "gzip_bytes": 101_931,
            "validation_accuracy": 0.9722, "validation_loss": 0.1}  # fmt: skip
    passes = tuple({"left": left, **entry} for entry in passes)
    return {"schema": "leangate/compression/1", "name": name, "sha256": digest(name), "passes": list(passes)}


def _model(name: str) -> Json:
    return {
        "schema": "leangate/model/1", "name": name, "sha256": digest(name), "bytes": 1, "gzip_bytes": 1, "macs": 1,
        "parameters": 1, "pixel_max": 16, "shape": [1, 8, 8], "classes": list(DIGITS), "output": "logits",
        "validation_accuracy": 0.97,
    }  # fmt: skip


def build(root: Path, first: str = "passed", second: str = "blocked", **shape: Any) -> Case:
    """Build a run whose two slots have these outcomes; `absent` leaves the slot empty."""
    case = Case(root, **shape)
    names = {"first": "half-int8", "second": "third-int8"}
    outcomes = {"first": first, "second": second}
    slots = {slot: None if outcomes[slot] == "absent" else name for slot, name in names.items()}
    rows = [
        _candidate("dense-fp32", 161.4, 1_236_000, 0.9792, None, False),
        _candidate("dense-int8", 47.9, 1_236_000, 0.9792, None, True),
        _candidate("half-fp32", 81.2, 607_000, 0.9722, None, False),
        _candidate("half-int8", 28.3, 607_000, 0.9722, "first" if slots["first"] else None, True),
        _candidate("third-fp32", 55.0, 409_000, 0.9514, None, False),
        _candidate("third-int8", 21.7, 409_000, 0.9514, "second" if slots["second"] else None, True),
    ]
    baseline = _candidate("baseline", 161.4, 1_236_000, 0.9792, None, True)
    case.files["shortlist/shortlist.json"] = {
        "schema": "leangate/shortlist/1", "slots": slots, "candidates": rows,
        "baseline": {k: baseline[k] for k in ("bytes", "macs", "parameters", "validation_accuracy", "sha256")},
    }  # fmt: skip
    for slot, name in slots.items():
        decision = case.judged(slot, names[slot], outcomes[slot])
        if name is None:
            decision |= {
                "candidate": None,
                "subject": None,
                "evidence": {},
                "findings": [],
                "measurements": [],
            }
        else:
            case.files[f"shortlist/{slot}/model.json"] = _model(name)
            case.files[f"shortlist/{slot}/compression.json"] = _made(
                name,
                {"pass": "train", "options": {"epochs": 24, "seed": 0}},
                {"pass": "channels", "options": {"criterion": "taylor", "macs_reduction": 2.0},
                 "channels": {"network.0": [32, 27]}, "kept": {"network.12": "an output of the network"}},
                {"pass": "quantize", "options": {"method": "static", "precision": "int8"}, "convolutions": 3,
                 "integer_convolutions": 3, "kept_float": ["fc"]},
            )  # fmt: skip
        case.files[f"decisions/{slot}.json"] = decision
    case.files["selection.json"] = _selection(case, slots, outcomes)
    case.files["data/data.json"] = {
        "schema": "leangate/data/1", "classes": list(case.classes), "pixel_max": 16, "shape": [1, 8, 8],
        "rows": 1797, "slices": list(case.levels), "examples_sha256": digest("e"), "manifest_sha256": digest("m"),
        "slice_origins": {name: {"from": "pixels", "levels": list(levels), "formula": f"formula of {name}"}
                          for name, levels in case.levels.items()},
        "sources": [{"source": "uci-optical-digits", "license": "CC-BY-4.0", "consent": "not-required",
                     "rows": 1797}],
        "splits": {"train": 647, "calibration": 108, "validation": 144, "test": 898},
    }  # fmt: skip
    case.files["validation/findings.json"] = {
        "schema": "leangate/data-findings/1", "data_sha256": digest("data"), "open": True,
        "findings": [
            {"check": "unique-ids", "verdict": "PASS", "expected": "no id twice", "came": "1797 distinct ids",
             "rows": [], "row_count": 0},
            {"check": "near-duplicates", "verdict": "PASS", "expected": "none across splits", "came": "0 pairs",
             "rows": [], "row_count": 0},
        ],
    }  # fmt: skip
    return case


def _selection(case: Case, slots: dict[str, str | None], outcomes: dict[str, str]) -> Json:
    passed = [slot for slot, outcome in outcomes.items() if outcome == "passed"]
    rank = ["passed", "inconclusive", "blocked", "error"]
    outcome = min((o for o in outcomes.values() if o in rank), key=rank.index, default="blocked")
    chosen = None
    if passed:
        name = str(slots[passed[0]])
        chosen = {"slot": passed[0], "candidate": name, "sha256": digest(name)}
    return {
        "schema": "leangate/selection/1", "outcome": outcome, "chosen": chosen, "preference": ["bytes", "latency"],
        "finalists": [],
    }  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Case]:
    """Return `build` for a fresh folder."""
    return lambda *outcomes, **shape: build(tmp_path / "project", *outcomes, **shape)


_VOID = {"br", "meta"}


@dataclass
class Element:
    """One element of a parsed page: its name, attributes, children and own text in order."""

    name: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text below it, spaces collapsed."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(parts).split())

    def all(self, name: str = "", look: str = "") -> list[Element]:
        """Return the elements below it of this name and CSS class, in the order of the page."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                looks = (child.attributes.get("class") or "").split()
                if name in ("", child.name) and (not look or look in looks):
                    found.append(child)
                found += child.all(name, look)
        return found

    def one(self, name: str = "", *, id: str) -> Element:  # noqa: A002
        """Return the only element of this id."""
        found = [item for item in self.all(name) if item.attributes.get("id") == id]
        assert len(found) == 1, f"{len(found)} elements of id {id}"
        return found[0]


class _Parser(HTMLParser):
    """Builds the tree, and refuses markup whose elements do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice on {tag}"
        item = Element(tag, dict(attrs))
        self.open[-1].children.append(item)
        if tag not in _VOID:
            self.open.append(item)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(text: str) -> Element:
    """Parse a page whose elements must nest."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == [parser.root], "an element is never closed"
    return parser.root


@pytest.fixture
def page_of() -> Callable[[Case], Element]:
    """Return what writes a case and its report, and parses the page."""

    def write(case: Case) -> Element:
        layout, folder = case.write(), case.root / "out"
        folder.mkdir()
        write_report(folder, layout, case.selection)
        return parse((folder / "report.html").read_text(encoding="utf-8"))

    return write
