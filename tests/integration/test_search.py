# SPDX-License-Identifier: Apache-2.0
"""`leangate search` on the bundled digits: killed, gone on with, written, and made again by the stages."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from checks.canonical import read_json, sha256_file
from leangate.cli import main
from leangate.search import Options, search
from pipeline.data.dataset import Dataset
from pipeline.layout import Layout
from pipeline.params import load_params
from pipeline.stages import run_stage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SEARCH = """
search:
  trials: 5
  bracket: 5
  rungs: [0.5, 1.0]
  objectives: [accuracy, bytes, macs]
  winners: 2
  space:
    channels: { macs_reduction: [1.5, 3.0], criteria: [l1, taylor] }
    recover: { epochs: [2, 3], distill: [0.0, 0.5] }
"""


@pytest.fixture
def trained(project, monkeypatch):
    """The digits, prepared, and a baseline that was trained for a moment."""
    monkeypatch.chdir(project)
    path = project / "params.yaml"
    text = path.read_text().partition("\n# No stage reads this")[0]
    text = text.replace("epochs: 24", "epochs: 4").replace(
        "max_accuracy_drop: 0.02", "max_accuracy_drop: 0.5"
    )
    path.write_text(text + SEARCH)
    assert run_stage("prepare", {}, project) == 0
    assert run_stage("train", {}, project) == 0
    return project


def _leangate(repository, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "leangate", *arguments],
        env=os.environ | {"PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _measured(path):
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            [(count,)] = connection.execute(
                "SELECT count(*) FROM trial_user_attributes WHERE key = 'measured'"
            ).fetchall()
    except sqlite3.Error:
        return 0
    return count


def _kill_midway(repository, layout):
    """Kill the search as soon as three trials were measured, in the middle of another one's training."""
    process = _leangate(repository, "search")
    end = time.monotonic() + 300
    while _measured(layout.artifacts / "search" / "search.db") < 3 and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_search_goes_on_and_its_winners_are_what_the_stages_make(
    trained, repository, monkeypatch, capsys
):
    layout = Layout(trained)
    _kill_midway(repository, layout)
    assert not (layout.artifacts / "search" / "trials.json").exists()
    assert main(["search"]) == 2  # not by mistake
    assert "--resume" in capsys.readouterr().err
    process = _leangate(repository, "search", "--resume", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert err == ""
    resumed = json.loads(out)
    assert resumed == read_json(layout.artifacts / "search" / "trials.json")
    assert (layout.artifacts / "search" / "front.svg").exists()
    # A trial is no run of the stages: what it took stands nowhere among theirs.
    assert not list(layout.artifacts.glob("seconds/*trial*"))
    assert {row["state"] for row in resumed["trials"]} <= {"finished", "dropped"}

    # One that nobody killed, in a process that cannot read the test split, comes to the same.
    split = Dataset.split

    def guarded(self, name):
        assert name != "test", "the search read the test split"
        return split(self, name)

    monkeypatch.setattr(Dataset, "split", guarded)
    undisturbed, code = search(trained, Options(storage=f"sqlite:///{trained / 'other.db'}", as_json=True))
    assert code == 0
    assert json.loads(undisturbed) == resumed

    assert main(["search", "--write"]) == 0
    assert "wrote search_1" in capsys.readouterr().out
    params = load_params(layout.params)
    winners = {row["winner"]: row for row in resumed["trials"] if row["winner"]}
    assert set(winners) <= set(params.prune.variants)
    assert main(["policy", "lint"]) == 0
    for name, row in winners.items():
        precision = row["recipe"]["precision"]
        assert run_stage("prune", {"variant": name}, trained) == 0
        assert run_stage("quantize", {"variant": name, "precision": precision}, trained) == 0
        made = layout.candidate(f"{name}-{precision}") / "model.onnx"
        assert sha256_file(made) == row["sha256"]


def test_processes_share_a_search_and_robustness_and_slices_are_objectives(trained, repository):
    path = trained / "params.yaml"
    text = path.read_text().replace(
        "objectives: [accuracy, bytes, macs]",
        "objectives: [worst_slice_accuracy, robust_accuracy, latency]\n  min_slice_examples: 5\n"
        "  robustness: { steps: 2, examples: 20 }",
    )
    path.write_text(text.replace("trials: 5\n  bracket: 5", "trials: 6\n  bracket: 3"))
    process = _leangate(repository, "search", "--jobs", "2", "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    found = json.loads(out)
    assert len(found["trials"]) == 6
    ended = [row for row in found["trials"] if row["state"] == "finished"]
    assert ended
    for row in ended:
        assert set(row["objectives"]) == {
            "accuracy", "bytes", "latency", "robust_accuracy", "worst_slice_accuracy"
        }  # fmt: skip
        assert 0 <= row["objectives"]["robust_accuracy"] <= row["objectives"]["accuracy"] + 0.2
    assert len({row["bracket"] for row in found["trials"]}) == 2


def test_another_baseline_is_another_search(trained, capsys):
    assert main(["search", "--trials", "2"]) == 0
    path = trained / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 4", "epochs: 3", 1))
    assert run_stage("train", {}, trained) == 0
    capsys.readouterr()
    assert main(["search", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "other baseline, settings: train.epochs was 4, is 3" in said
    assert "remove artifacts/search" in said
