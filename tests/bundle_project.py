# SPDX-License-Identifier: Apache-2.0
"""A small but complete project whose candidate passed: every file that `bundle` reads, true to its digests."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.attempts import Round
from checks.canonical import sha256_bytes, sha256_file
from checks.contract_runs import RUNS
from checks.evidence import RESTRICTED, Subject
from pipeline.attestation.keys import make_keys
from pipeline.data.dataset import content_digest, data_digest
from pipeline.data.test_examples import read_test_digest
from pipeline.files import write_bytes, write_json, write_text
from pipeline.layout import Layout
from pipeline.models.compression import left_of, write_passes
from pipeline.params import Params, load_params
from pipeline.probes.tables import write_table
from tests.evidence_files import write_attempt

SHAPE = (1, 8, 8)
ROOT = Path(__file__).parents[1]
LEVELS = {"stroke_weight": ("light", "medium", "bold"), "slant": ("backward", "upright", "forward")}
CODE = sha256_bytes(b"code")
CPU = ["CPUExecutionProvider"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Names:
    """What a test may choose: text from data, and bytes at the end of the candidate's file."""

    classes: tuple[str, ...] = tuple("0123456789")
    source: str = "UCI Optical Recognition of Handwritten Digits, doi:10.24432/C50P49"
    license: str = "CC-BY-4.0"
    bold: str = "bold"
    option: str = "taylor"
    policy: str = "default"
    onnx_tail: bytes = b""
    pixels: int = 0
    sensitive: tuple[str, ...] = ()


def onnx_bytes(seed: int, classes: int = 10) -> bytes:
    """Return a linear classifier of raw pixels as a clean ONNX file."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    size = int(np.prod(SHAPE))
    weight = numpy_helper.from_array(rng.normal(size=(size, classes)).astype(np.float32), "weight")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString(deterministic=True)


def _rows(names: Names) -> Json:
    count = 120
    splits = np.repeat(["train", "calibration", "validation", "test"], [40, 10, 10, 60])
    bold = {"bold": names.bold}
    return {
        "id": [f"digit-{index:04d}" for index in range(count)],
        "unit": [f"digit-{index:04d}" for index in range(count)],
        "split": splits.tolist(),
        "label": [names.classes[index % len(names.classes)] for index in range(count)],
        "source": [names.source] * count,
        "license": [names.license] * count,
        "consent": ["not-required"] * count,
        "stroke_weight": [
            bold.get(level := LEVELS["stroke_weight"][index % 3], level) for index in range(count)
        ],
        "slant": [LEVELS["slant"][index // 3 % 3] for index in range(count)],
    }


def _write_data(layout: Layout, names: Names) -> str:
    import pandas as pd

    layout.data.mkdir(parents=True)
    rows = _rows(names)
    pixels = np.random.default_rng(names.pixels).integers(
        0, 17, size=(len(rows["id"]), *SHAPE), dtype=np.uint8
    )
    np.savez_compressed(layout.data / "examples.npz", pixels=pixels, ids=np.array(rows["id"]))
    pd.DataFrame(rows, dtype="str").to_parquet(layout.data / "manifest.parquet", index=False)
    origins = {
        "stroke_weight": {
            "from": "pixels",
            "formula": "share of the image that is ink, m / (H W)",
            "edges": [0.27, 0.33],
            "levels": ["light", "medium", names.bold],
        },
        "slant": {"from": "source"},
    }
    facts = {
        "schema": "leangate/data/1",
        "classes": list(names.classes),
        "pixel_max": 16,
        "shape": list(SHAPE),
        "rows": len(rows["id"]),
        "slices": list(LEVELS),
        **({"sensitive": list(names.sensitive)} if names.sensitive else {}),
        "slice_origins": origins,
        "test_sha256": content_digest(pixels[60:], rows["label"][60:]),
        "examples_sha256": sha256_file(layout.data / "examples.npz"),
        "manifest_sha256": sha256_file(layout.data / "manifest.parquet"),
        "sources": [
            {
                "source": names.source,
                "license": names.license,
                "consent": "not-required",
                "rows": len(rows["id"]),
            }
        ],
        "splits": {"train": 40, "calibration": 10, "validation": 10, "test": 60},
    }
    write_json(layout.data / "data.json", facts)
    digest = data_digest(layout.data)
    checks = ("no-duplicates", "licenses", "consent", "leakage")
    findings = [
        {"check": name, "verdict": "PASS", "expected": "none", "came": "none", "rows": [], "row_count": 0}
        for name in checks
    ]
    validation = {
        "schema": "leangate/data-findings/1",
        "data_sha256": digest,
        "open": True,
        "findings": findings,
    }
    write_json(layout.validation / "findings.json", validation)
    return digest


def _model_record(name: str, data: bytes, names: Names) -> Json:
    return {
        "schema": "leangate/model/1",
        "name": name,
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        "gzip_bytes": len(data) - 100,
        "macs": 640_000 if name == "baseline" else 320_000,
        "parameters": 56_000 if name == "baseline" else 14_000,
        "pixel_max": 16,
        "shape": list(SHAPE),
        "classes": list(names.classes),
        "output": "logits",
        "sparsity": 0.0,
        "validation_accuracy": 0.99,
        "validation_loss": 0.04,
    }


def _write_evidence(layout: Layout, names: Names, subject: Json) -> dict[str, str]:
    rows = _rows(names)
    test = [index for index, split in enumerate(rows["split"]) if split == "test"]
    ids = np.array([rows["id"][index] for index in test])
    labels = np.array([names.classes.index(rows["label"][index]) for index in test], dtype=np.int64)
    columns = {f"slice:{name}": np.array([rows[name][index] for index in test]) for name in LEVELS}
    evidence, timing = layout.evidence("first"), layout.timing("first")
    data = {"data_sha256": subject["data_sha256"]}
    pair = {name: subject[name] for name in ("baseline_sha256", "candidate_sha256")}
    code = {"code_sha256": subject["code_sha256"]}
    levels = {name: sorted(set(rows[name])) for name in LEVELS}
    if names.sensitive:
        header = {"schema": "leangate/restricted/1"} | data | code
        header |= {"levels": {name: levels.pop(name) for name in names.sensitive}}
        apart = {f"slice:{name}": columns.pop(f"slice:{name}") for name in names.sensitive}
        write_table(evidence / RESTRICTED, header, {"ids": ids} | apart)
    header = {"schema": "leangate/examples/1", "classes": list(names.classes), "levels": levels} | data
    header |= {"restricted": list(names.sensitive)} if names.sensitive else {}
    header |= {"test_sha256": read_test_digest(layout.data)}
    write_table(evidence / "examples.npz", header, {"ids": ids, "units": ids, "labels": labels} | columns)
    scores = np.eye(len(names.classes), dtype=np.float32)[labels]
    for model in ("baseline", "candidate"):
        header = {"schema": "leangate/scores/1", "model_sha256": subject[f"{model}_sha256"]} | data | code
        header |= {"output": "logits", "providers": {"declared": CPU, model: CPU}}
        write_table(evidence / f"{model}.npz", header, {"ids": ids, "scores": scores})
    runs = {f"{model}:{run}": scores[:40] for model in ("baseline", "candidate") for run in RUNS}
    effort = {"effort": {"examples": 20}}
    header = {"schema": "leangate/contract/1", "effort": {"examples": 40}} | data | code | pair
    write_table(evidence / "contract.npz", header, {"ids": ids[:40]} | runs)
    attacks = ("pgd_on_baseline", "pgd_on_candidate", "square_on_candidate")
    grid = (len(attacks), 20)
    header = {"schema": "leangate/attacks/1", "attacks": list(attacks), "epsilon": 0.05}
    header |= data | code | pair | effort
    arrays = {
        "ids": ids[:20],
        "baseline_correct": np.ones(grid, dtype=bool),
        "candidate_correct": np.ones(grid, dtype=bool),
        "perturbation": np.full(grid, 0.05),
        "in_range": np.ones(grid, dtype=bool),
    }
    write_table(evidence / "attacks.npz", header | {"twin_agreement": [1.0, 0.996]}, arrays)
    times = np.full((2, 4, 3), 0.5)
    arrays = {"control_ms": times}
    for model, share in (("baseline", 1.0), ("candidate", 0.5)):
        arrays |= {f"{model}_ms": times * share, f"{model}_calls_ms": times[..., None] * share}
        arrays |= {f"{model}_processor_s": times, f"{model}_peak_bytes": np.full(4, 10**8, dtype=np.int64)}
    header = {"schema": "leangate/timing/1", "batch_sizes": [1, 64], "energy_counters": []} | code | pair
    header |= {"providers": dict.fromkeys(("declared", "baseline", "candidate", "control"), CPU)}
    write_table(timing / "timing.npz", header, arrays)
    costs = {
        "baseline": {"bytes": 227_120, "macs": 640_000, "parameters": 56_000},
        "candidate": {"bytes": 22_104, "macs": 320_000, "parameters": 14_000},
    }
    write_json(evidence / "cost.json", {"schema": "leangate/cost/1"} | pair | costs)
    groups = {"schema": "leangate/groups/1", "attributes": {}, "fairlearn": "0.15.0"} | pair | data
    write_json(evidence / "groups.json", groups)
    files = {path.name: sha256_file(path) for path in sorted(evidence.iterdir())}
    return files | {"timing.npz": sha256_file(timing / "timing.npz")}


def measurement(
    metric: str, where: str, value: float, half: float | None, n: int, unit: str = "proportion"
) -> Json:
    """Return a measurement with an interval of `half` on each side."""
    interval = None if half is None else [round(value - half, 6), round(value + half, 6)]
    return {
        "metric": metric,
        "slice": where,
        "versus": None,
        "target": None,
        "levels": [],
        "value": value,
        "interval": interval,
        "n": n,
        "unit": unit,
        "method": "paired_exact" if half is not None else "exact_value",
        "statistics": {},
    }


def finding(rule: str, measured: Json, bound: float | None, limit: float, kind: str = "bounded") -> Json:
    """Return a passing finding of `rule`."""
    copied = {
        key: measured[key]
        for key in ("metric", "slice", "versus", "target", "value", "interval", "n", "unit", "method")
    }
    return copied | {
        "rule": rule,
        "kind": kind,
        "blocking": True,
        "listed": False,
        "verdict": "PASS",
        "reason": "",
        "bound": bound,
        "limit": limit,
        "p": 0.003,
        "limit_kind": "margin" if limit < 0 else "min" if rule.endswith("-floor") else "max",
        "rule_reason": "More than this was never agreed to.",
        "message": f"{measured['metric']} on {measured['slice']} is within its limit.",
        "detectable": 0.021 if measured["interval"] else None,
        "further_examples": None,
        "further_if_equal": None,
    }


def _searched(into: Json, cell: Json) -> list[Json]:
    """Findings that are no PASS and stop nothing: a search, one that did not run, a cell only listed."""
    screen = {"kind": "screen", "limit_kind": "alarm", "verdict": "NO-FINDING", "p": 0.4, "detectable": None}
    search = finding("flips-into-one-class", into, None, 0.01) | screen
    nothing = dict.fromkeys(("slice", "versus", "target", "value", "interval", "n", "unit", "method", "p"))
    skipped = search | nothing | {"rule": "losses-in-one-place", "metric": "loss_concentration"}
    skipped |= {"verdict": "NOT-RUN", "blocking": False, "message": "loss_concentration did not run"}
    listed = finding("accuracy-cells", cell, -0.6, -0.1)
    listed |= {"verdict": "INCONCLUSIVE", "reason": "too_small", "listed": True, "blocking": False}
    return [search, skipped, listed]


def _timed() -> list[Json]:
    return [
        measurement("baseline_p99_ms_b64", "overall", 0.812, 0.05, 2400, "ms"),
        measurement("candidate_p99_ms_b64", "overall", 0.341, 0.03, 2400, "ms"),
        measurement("energy_proxy_ratio_b64", "overall", 0.35, 0.02, 8, "proxy"),
    ]


def _measured(names: Names) -> tuple[list[Json], list[Json]]:
    levels = {"stroke_weight": ("light", "medium", names.bold), "slant": LEVELS["slant"]}
    slices = [f"{name}={level}" for name, values in levels.items() for level in values]
    classes = [f"label={name}" for name in names.classes]
    measurements, findings = [], []
    for index, where in enumerate(["overall", *slices, *classes]):
        n, half = (899, 0.006) if index == 0 else (299, 0.014) if where in slices else (90, 0.03)
        change = measurement("accuracy_change", where, -0.001 * (index % 4), half, n)
        measurements += [
            measurement("baseline_accuracy", where, 0.9911, half, n),
            measurement("candidate_accuracy", where, round(0.9911 + change["value"], 6), half, n),
            change,
        ]
        rule = (
            "accuracy-overall" if index == 0 else "accuracy-slices" if where in slices else "accuracy-classes"
        )
        bound = round(change["interval"][0] - 0.002, 6)
        findings.append(
            finding(rule, change, bound, -0.02 if index == 0 else -0.05 if where in slices else -0.15)
        )
    grouped = {"method": "mover_tango", "levels": list(levels["stroke_weight"])}
    gap = measurement("accuracy_change_gap", slices[0], 0.002, 0.02, 899) | {"versus": slices[2]} | grouped
    # The judge's pair need not be the one that the measurement shows.
    judged = gap | {"slice": slices[1], "value": 0.001, "interval": None}
    robust = measurement("robust_accuracy_change", "overall", -0.012, 0.02, 500)
    floor = measurement("candidate_robust_accuracy", "overall", 0.842, 0.027, 500)
    fast = measurement("latency_ratio_b64", "overall", 0.31, 0.02, 8, "ratio")
    slow = measurement("latency_ratio_b1", "overall", 0.83, 0.04, 8, "ratio")
    small = measurement("bytes_ratio", "overall", 0.0973, None, 1, "ratio")
    finite = measurement("nonfinite_outputs", "overall", 0.0, None, 899, "count")
    into = measurement("flip_target_concentration", "overall", 0.25, 0.2, 60) | {"target": names.classes[3]}
    cell = measurement("accuracy_change", f"stroke_weight*slant={names.bold}*upright", -0.2, 0.3, 5)
    findings += [
        finding("disparity-added", judged, 0.031, 0.08),
        finding("robustness-change", robust, -0.04, -0.10),
        finding("robustness-floor", floor, 0.81, 0.60),
        finding("never-slower", fast, 0.34, 1.0),
        finding("single-image-latency", slow, 0.88, 1.0) | {"blocking": False},
        finding("smaller", small, None, 0.8, "assert"),
        finding("outputs-finite", finite, None, 0.0, "assert"),
        *_searched(into, cell),
    ]
    measurements += [gap, into, cell, *_timed(), robust, floor, fast, slow, small, finite]
    measurements.append(measurement("baseline_robust_accuracy", "overall", 0.854, 0.026, 500))
    return measurements, findings


def _decision(names: Names, layout: Layout, subject: Json, evidence: dict[str, str]) -> Json:
    measurements, findings = _measured(names)
    return {
        "schema": "leangate/decision/1",
        "slot": "first",
        "candidate": "half-int8",
        "outcome": "passed",
        "open": True,
        "policy": {"name": names.policy, "sha256": sha256_file(layout.policy)},
        "alpha": 0.05,
        "alpha_each": 0.05 * 7.5 / math.pi**2 / 2,
        "attempt": {
            "number": 1,
            "shared": [1, 2],
            "planned": None,
            "test_sha256": read_test_digest(layout.data),
        },
        "subject": subject,
        "evidence": evidence,
        "findings": findings,
        "measurements": measurements,
        "most_changed": [
            {
                "id": f"digit-{names.bold}",
                "label": names.classes[3],
                "baseline": names.classes[3],
                "candidate": names.classes[5],
                "margin_change": -3.25,
            },
            {
                "id": "digit-0099",
                "label": names.classes[1],
                "baseline": names.classes[2],
                "candidate": None,
                "margin_change": None,
            },
        ],
    }


def _write_models(layout: Layout, names: Names) -> tuple[Json, Json]:
    files = {
        "baseline": onnx_bytes(0, len(names.classes)),
        "half-int8": onnx_bytes(1, len(names.classes)) + names.onnx_tail,
    }
    records = {name: _model_record(name, data, names) for name, data in files.items()}
    left = {name: left_of(record) for name, record in records.items()}
    trained: Json = {"pass": "train", "options": {"epochs": 24, "learning_rate": 0.004}}
    trained |= {"left": left["baseline"]}
    pruned: Json = {
        "pass": "channels",
        "options": {"criterion": names.option, "macs_reduction": 2.0, "seed": 0},
    }
    pruned |= {"channels": {"network.0": [32, 27], "network.3": [64, 64]}, "kept": {}}
    pruned |= {"zeros": {f"layer{index}": [9, 3] for index in range(30)}}
    pruned |= {"left": left["half-int8"] | {"bytes": 110_485, "gzip_bytes": 101_931, "sparsity": 0.25}}
    options = {"method": "static", "calibration": "minmax", "equalize": True, "precision": "int8"}
    quantised: Json = {"pass": "quantize", "options": options, "left": left["half-int8"]}
    quantised |= {"convolutions": 3, "integer_convolutions": 3, "products": 1, "integer_products": 0}
    passes = {"baseline": [trained], "half-int8": [trained, pruned, quantised]}
    for name, folder in (("baseline", layout.baseline), ("half-int8", layout.shortlist / "first")):
        write_bytes(folder / "model.onnx", files[name])
        write_json(folder / "model.json", records[name])
        write_passes(folder, records[name], passes[name])
    return records["baseline"], records["half-int8"]


def build_project(root: Path, names: Names | None = None) -> Layout:
    """Write a project below `root` in which everything up to `enforce` has run, and return its layout."""
    names = names or Names()
    layout = Layout(root)
    write_text(layout.params, (ROOT / "params.yaml").read_text(encoding="utf-8"))
    write_text(layout.governance, (ROOT / "governance.yaml").read_text(encoding="utf-8"))
    write_text(layout.policy, "name: default\nversion: 1\n")
    data_sha256 = _write_data(layout, names)
    baseline, candidate = _write_models(layout, names)
    subject = {
        "baseline_sha256": baseline["sha256"],
        "candidate_sha256": candidate["sha256"],
        "data_sha256": data_sha256,
        "code_sha256": CODE,
    }
    keys = ("bytes", "macs", "parameters", "validation_accuracy", "sha256")
    chosen = {"slot": "first", "candidate": "half-int8", "sha256": candidate["sha256"]}
    shortlist = {
        "schema": "leangate/shortlist/1",
        "slots": {"first": "half-int8", "second": None},
        "baseline": {key: baseline[key] for key in keys},
        "candidates": [
            {key: candidate[key] for key in (*keys, "name", "gzip_bytes")}
            | {"on_front": True, "slot": "first", "reason": "smallest"}
        ],
    }
    write_json(layout.shortlist / "shortlist.json", shortlist)
    evidence = _write_evidence(layout, names, subject)
    write_attempt(layout, "first", read_test_digest(layout.data), candidate["sha256"], beside=1)
    write_json(layout.decision("first"), _decision(names, layout, subject, evidence))
    selection = {
        "schema": "leangate/selection/1",
        "outcome": "passed",
        "chosen": chosen,
        "finalists": [],
        "preference": ["bytes"],
    }
    write_json(layout.selection, selection)
    verdict = {
        "schema": "leangate/verdict/1",
        "slot": "first",
        "candidate": "half-int8",
        "onnx_sha256": candidate["sha256"],
        "policy_sha256": sha256_file(layout.policy),
        "decision_sha256": sha256_file(layout.decision("first")),
    }
    write_json(layout.verdict, verdict)
    return layout


LENIENT = """
version: 1
name: lenient
alpha: 0.05
alpha_fail: 0.05
rules:
  - {id: overall, kind: bounded, metric: accuracy_change, margin: 0.3, reason: why}
  - {id: levels, kind: bounded, metric: accuracy_change, margin: 0.5, slices: [slant], reason: why}
  - {id: finite, kind: assert, metric: nonfinite_outputs, max: 0, reason: why}
  - {id: fewer, kind: assert, metric: macs_ratio, max: 0.8, reason: why}
  - {id: into-one, kind: screen, metric: flip_target_concentration, alarm: 0.01, reason: why, blocking: false}
"""


def judge_project(
    layout: Layout, *, policy: str = "", base: str = LENIENT, after: tuple[Round, ...] = ()
) -> None:
    """Put the judge's own decision on the evidence, under a policy it passes, in place of the one made up.

    Under another base it need not pass; the verdict that stands there is then none.
    """
    from checks.attempts import read_attempt
    from checks.decision import decide
    from checks.evidence import read_evidence
    from pipeline.judgement import describe
    from pipeline.policy_file import load_policy
    from pipeline.probes.pool import ATTACKS

    table = layout.evidence("first") / "attacks.npz"
    with np.load(table) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays.pop("header"))) | {"attacks": list(ATTACKS)}
    pool = (len(ATTACKS), len(arrays["ids"]))
    arrays |= {
        name: np.ones(pool, dtype=bool) for name in ("baseline_correct", "candidate_correct", "in_range")
    }
    arrays |= {"perturbation": np.zeros(pool)}
    write_table(table, header, arrays)
    write_text(layout.policy, base + policy)
    cost = json.loads((layout.evidence("first") / "cost.json").read_text())
    for model, folder in (("baseline", layout.baseline), ("candidate", layout.finalist("first"))):
        cost[model]["bytes"] = (folder / "model.onnx").stat().st_size
    write_json(layout.evidence("first") / "cost.json", cost)
    decision = json.loads(layout.decision("first").read_text())
    subject = Subject(**decision["subject"])
    folder = layout.evidence("first")
    evidence = read_evidence(folder, layout.timing("first"), subject, folder / RESTRICTED)
    file = load_policy(layout.policy)
    write_attempt(
        layout,
        "first",
        read_test_digest(layout.data),
        subject.candidate_sha256,
        beside=1,
        after=after,
        policy_sha256=file.sha256,
    )
    attempt = read_attempt(layout.attempt("first"))
    assert attempt is not None
    made = decide(file.checks, evidence, file.policy, alpha=attempt.alpha(file.policy))
    write_json(layout.decision("first"), describe("first", "half-int8", file, attempt, made, evidence))
    verdict = json.loads(layout.verdict.read_text())
    digests = {"policy_sha256": file.sha256, "decision_sha256": sha256_file(layout.decision("first"))}
    write_json(layout.verdict, verdict | digests)


@cache
def _params() -> Params:
    return load_params(ROOT / "params.yaml")


def project_params(**changes: Any) -> Params:
    """Return this project's params, with sections replaced."""
    return _params().model_copy(update=changes)


def signed_bundle(root: Path) -> tuple[Path, Path]:
    """Make a project and its bundle, signed; return the bundle, and the folder of the key."""
    import importlib

    layout = build_project(root)
    judge_project(layout)
    make_keys(root / "keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEANGATE_SIGNING_KEY", str(root / "keys" / "leangate.key"))
        importlib.import_module("pipeline.bundle").run(layout, project_params())
    return layout.bundle, root / "keys"
