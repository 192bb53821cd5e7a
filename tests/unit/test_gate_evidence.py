# SPDX-License-Identifier: Apache-2.0
"""Evidence as files: whatever was taken out, put in or made with something else is an ERROR, never a PASS."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.gate import judge_slot
from pipeline.policy_file import load_policy
from tests.evidence_files import write_artifacts, write_attempt

POLICY = """
version: 1
name: tested
alpha: 0.05
alpha_fail: 0.05
rules:
  - {id: overall, kind: bounded, metric: accuracy_change, margin: 0.05, reason: why}
  - {id: repeats, kind: assert, metric: repeat_difference, max: 0, reason: why}
  - {id: robust, kind: bounded, metric: robust_accuracy_change, margin: 0.5, reason: why}
  - {id: smaller, kind: assert, metric: bytes_ratio, max: 0.8, reason: why}
  - {id: faster, kind: bounded, metric: latency_ratio_b64, max: 1.0, control_tolerance: 0.05, reason: why}
"""


@pytest.fixture
def made(project, evidence):
    def write(**changes):
        (project / "policy.yaml").write_text(POLICY)
        return write_artifacts(project, evidence(**changes))

    return write


def _edit(path, change):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    np.savez(path, header=json.dumps(header), **arrays)


def _outcome(layout):
    value = judge_slot(layout, "first", load_policy(layout.policy)).value
    return value["outcome"], " ".join(finding["message"] for finding in value["findings"])


def _without(rows):
    def change(_, arrays):
        for name, array in arrays.items():
            axis = 1 if array.ndim == 2 and name != "scores" and ":" not in name else 0
            keep = np.setdiff1d(np.arange(array.shape[axis]), rows)
            arrays[name] = np.take(array, keep, axis=axis)

    return change


@pytest.mark.parametrize(("losses", "outcome"), [(2, "passed"), (100, "blocked")])
def test_whole_evidence_is_judged(made, losses, outcome):
    assert _outcome(made(losses=losses))[0] == outcome


def test_losses_left_out_of_every_table_are_missed(made):
    layout = made(losses=100)
    lost = np.linspace(0, 450, 100, endpoint=False).astype(int)
    folder = layout.evidence("first")
    for name in ("examples", "baseline", "candidate", "attacks"):
        _edit(folder / f"{name}.npz", _without(lost))
    _edit(folder / "contract.npz", _without(lost[lost < 64]))
    for name in ("contract", "attacks"):
        _edit(folder / f"{name}.npz", lambda h, a: h.update(effort={"examples": len(a["ids"])}))
    outcome, message = _outcome(layout)
    assert outcome == "error"
    assert "100 missing" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, a: a.update(labels=(a["labels"] + 1) % 4), "labels of the manifest"),
        (lambda _, a: a.update(units=np.full(len(a["ids"]), "one")), "units of the manifest"),
        (lambda _, a: a.update({"slice:light": np.roll(a["slice:light"], 1)}), "slice light of the manifest"),
        (lambda h, _: h["levels"].update(light=["bright", "dim", "even", "new"]), "levels"),
        (lambda h, a: (h["levels"].pop("light"), a.pop("slice:light")), "slice columns"),
        (lambda h, _: h.update(classes=["b", "a", "c", "d"]), "classes"),
    ],
)
def test_examples_that_are_not_the_manifests_are_refused(made, change, message):
    layout = made()
    _edit(layout.evidence("first") / "examples.npz", change)
    outcome, said = _outcome(layout)
    assert outcome == "error"
    assert message in said


def test_a_reordered_table_is_joined(made):
    layout = made(losses=2)

    def reverse(_, arrays):
        for name, array in arrays.items():
            arrays[name] = array[::-1]

    _edit(layout.evidence("first") / "examples.npz", reverse)
    assert _outcome(layout)[0] == "passed"


def _few(count):
    return lambda _, arrays: arrays.update({name: array[:count] for name, array in arrays.items()})


def _rolled(model):
    def change(_, arrays):
        for name in [name for name in arrays if name.startswith(f"{model}:")]:
            arrays[name] = np.roll(arrays[name], 1, axis=1)

    return change


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("contract", _few(40), "expected 64 examples, as were asked for, got 40"),
        (
            "contract",
            lambda h, a: (_few(31)(h, a), h.update(effort={"examples": 31})),
            "of 32 examples or more",
        ),
        ("contract", lambda h, _: h.pop("effort"), "'effort' in the header"),
        (
            "attacks",
            lambda h, _: h.update(effort={"examples": 400}),
            "expected 400 examples, as were asked for",
        ),
        ("attacks", lambda h, _: h.update(effort="many"), "how many examples were asked for"),
        ("contract", _rolled("candidate"), "decisions of candidate.npz, got 64 others"),
        ("contract", _rolled("baseline"), "decisions of baseline.npz"),
        ("contract", lambda _, a: a.update(ids=np.char.add(a["ids"], "x")), "examples of the test split"),
        ("attacks", lambda _, a: a.update(candidate_correct=np.ones_like(a["candidate_correct"])), "clean"),
        ("attacks", lambda _, a: a.update(baseline_correct=np.zeros_like(a["baseline_correct"])), "clean"),
        ("attacks", lambda h, _: h.update(attacks=["none", *h["attacks"][1:]]), "expected the attacks"),
        ("attacks", lambda h, _: h.update(attacks=[*h["attacks"][:-1], "soft"]), "square-on-candidate"),
        ("attacks", lambda _, a: a.update(perturbation=-a["perturbation"]), "perturbations of at least 0"),
        ("candidate", lambda h, _: h["providers"].update(declared=["X"], candidate=["X"]), "declared"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(made, table, change, message):
    layout = made(losses=2)
    _edit(layout.evidence("first") / f"{table}.npz", change)
    outcome, said = _outcome(layout)
    assert outcome == "error"
    assert message in said


@pytest.mark.parametrize("key", ["bytes", "macs", "parameters"])
def test_costs_that_are_not_the_files_are_refused(made, key):
    layout = made()
    path = layout.evidence("first") / "cost.json"
    cost = json.loads(path.read_text())
    cost["candidate"][key] -= 1
    path.write_text(json.dumps(cost))
    outcome, said = _outcome(layout)
    assert outcome == "error"
    assert "cost.json candidate" in said


def test_a_level_of_another_split_alone_is_known(made):
    layout = made()
    manifest = pq.read_table(layout.data / "manifest.parquet").to_pandas()
    extra = manifest.iloc[[0]].assign(id="t", unit="t", split="train", light="dusk")
    import pandas as pd

    pd.concat([manifest, extra]).to_parquet(layout.data / "manifest.parquet", index=False)
    outcome, said = _outcome(layout)
    assert outcome == "error"
    assert "data_sha256" in said  # the evidence was made from other data


def _attempt_of(layout, **keys):
    subject = json.loads((layout.attempt("first")).read_text())
    write_attempt(
        layout,
        "first",
        keys.pop("test_sha256", subject["test_sha256"]),
        keys.pop("candidate_sha256", subject["candidate_sha256"]),
        **keys,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layout: layout.attempt("first").unlink(), "attempts/first.json"),
        (lambda layout: _attempt_of(layout, candidate_sha256="5" * 64), "the attempt of the candidate"),
        (lambda layout: _attempt_of(layout, test_sha256="5" * 64), "the attempt of the test split"),
        (
            lambda layout: layout.attempt("first").write_text(
                layout.attempt("first").read_text().replace('"attempt": 1', '"attempt": 0')
            ),
            "follows from its rounds",
        ),
    ],
)
def test_without_the_count_of_attempts_nothing_passes(made, change, message):
    layout = made()
    change(layout)
    outcome, said = _outcome(layout)
    assert outcome == "error"
    assert message in said


def test_evidence_of_another_test_split_than_the_datas_is_refused(made):
    """Whoever writes another digest into evidence and record would count from one again."""
    layout = made()
    _edit(layout.evidence("first") / "examples.npz", lambda h, _: h.update(test_sha256="5" * 64))
    _attempt_of(layout, test_sha256="5" * 64)
    outcome, said = _outcome(layout)
    assert outcome == "error"
    assert "expected the test split" in said


def test_every_attempt_is_charged_and_the_same_evidence_passes_no_more(made):
    layout = made(losses=8)
    levels = []
    for before in (0, 1, 5):
        _attempt_of(layout, before=before)
        value = judge_slot(layout, "first", load_policy(layout.policy)).value
        levels.append((value["attempt"]["number"], value["alpha_each"], value["outcome"]))
    share = 0.05 * 6 / np.pi**2
    assert [number for number, _, _ in levels] == [1, 2, 6]
    assert [each for _, each, _ in levels] == pytest.approx([share, share / 4, share / 36])
    assert [outcome for _, _, outcome in levels] == ["passed", "passed", "inconclusive"]


def test_a_plan_of_attempts_shares_alpha_equally_and_ends(made):
    layout = made()
    layout.policy.write_text("attempts: {planned: 2}\n" + layout.policy.read_text())
    _attempt_of(layout, before=1)
    value = judge_slot(layout, "first", load_policy(layout.policy)).value
    assert (value["outcome"], value["alpha_each"], value["attempt"]["planned"]) == ("passed", 0.025, 2)
    _attempt_of(layout, before=2)
    outcome, said = _outcome(layout)
    assert outcome == "error"
    assert "got attempt 3" in said


@pytest.mark.parametrize("command", [["gate"], ["gate", "--json"], ["policy", "lint"]])
def test_an_output_that_cannot_be_written_is_one_sentence(made, repository, command):
    layout = made(losses=2)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "leangate", *command],
            cwd=layout.root,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(repository)},
        )
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


def test_a_closed_output_is_no_verdict(made, repository):
    layout = made(losses=2)
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m leangate gate >&-"],
        cwd=layout.root,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )
    assert done.returncode == 4
    assert done.stderr.startswith("error: standard output")
