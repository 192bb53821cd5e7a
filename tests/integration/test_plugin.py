# SPDX-License-Identifier: Apache-2.0
"""The example plugin as its user has it: installed by pip, named in a policy, judged by the real commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evidence_files import write_artifacts

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

POLICY = """
version: 1
name: with-a-plugin
alpha: 0.05
alpha_fail: 0.05
checks: [top2]
rules:
  - { id: two-best, kind: bounded, metric: top2_accuracy_change, slices: [overall, light], margin: 0.05, reason: why }
  - { id: level, kind: bounded, metric: candidate_top2_accuracy, min: 0.9, reason: why }
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the example into, without a network."""
    folder = tmp_path_factory.mktemp("plugin")
    # Built from a copy: setuptools leaves its working files beside the source.
    shutil.copytree(ROOT / "examples" / "check_plugin", folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(folder / "site")]
    done = subprocess.run(
        [*command, str(folder / "source")], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def judged(project, evidence):
    """The project with a policy that names the plugin, and evidence on 900 examples in slot `first`."""
    (project / "policy.yaml").write_text(POLICY)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("slices: [stroke_weight, slant, size]", "slices: [light]"))

    def write(third=0):
        """Of so many examples the candidate ranks the label third, and in all others as the baseline does."""
        built = evidence(900)
        scores = built.candidate.scores.copy()
        labels = built.examples.labels
        for row in range(third):
            scores[row] = 0
            scores[row, [(labels[row] + 1) % 4, (labels[row] + 2) % 4]] = 4
        # Contract and attacks tell of the same decisions.
        runs = dict.fromkeys(built.contract.candidate, scores[: len(built.contract.ids)])
        right = built.attacks.candidate_correct & (scores.argmax(axis=1) == labels)
        return write_artifacts(
            project,
            replace(
                built,
                candidate=replace(built.candidate, scores=scores),
                contract=replace(built.contract, candidate=runs),
                attacks=replace(built.attacks, candidate_correct=right),
            ),
        )

    return write


def _run(project: Path, *arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), *([str(site)] if site else [])]
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_check_is_judged_by_the_stage_and_by_the_command(project, judged, installed):
    layout = judged()
    stage = _run(project, "-m", "pipeline", "gate", "--slot", "first", site=installed)
    assert stage.returncode == 0, stage.stderr
    decision = json.loads(layout.decision("first").read_text())
    assert decision["outcome"] == "passed"
    seen = {(f["rule"], f["slice"], f["n"]) for f in decision["findings"]}
    assert ("two-best", "light=dim", 300) in seen
    assert ("level", "overall", 900) in seen
    command = _run(project, "-m", "leangate", "gate", site=installed)
    assert command.returncode == 0, command.stderr
    assert "top2_accuracy_change on light=dim is 0" in command.stdout


def test_its_measurements_can_close_the_gate(project, judged, installed):
    judged(third=120)
    done = _run(project, "-m", "leangate", "gate", "--json", site=installed)
    assert done.returncode == 1, done.stderr
    findings = json.loads(done.stdout)["findings"]
    overall = next(f for f in findings if f["rule"] == "two-best" and f["slice"] == "overall")
    assert overall["verdict"] == "FAIL"
    assert overall["value"] == pytest.approx(-120 / 900)


def test_a_policy_on_it_can_be_planned(project, judged, installed):
    judged()
    done = _run(project, "-m", "leangate", "policy", "lint", "--json", site=installed)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["n"] for row in rows if row["rule"] == "two-best"] == [900, 300, 300, 300]


@pytest.mark.parametrize(
    "arguments", [("-m", "leangate", "gate"), ("-m", "pipeline", "gate", "--slot", "first")]
)
def test_without_the_distribution_the_policy_is_wrong_input(project, judged, arguments):
    layout = judged()
    done = _run(project, *arguments)
    assert done.returncode == 2
    assert "top2" in done.stderr
    assert "install" in done.stderr
    assert "Traceback" not in done.stderr
    assert not layout.decision("first").exists()


def test_the_example_counts_ties_against_the_label(installed, decided, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    import leangate_top2

    labels = np.array([0, 0, 0, 0])
    evidence = decided(labels, labels, labels)
    scores = evidence.candidate.scores.copy()
    scores[0] = [5, 1, 1, 1]  # first
    scores[1] = [4, 5, 1, 1]  # second
    scores[2] = [4, 5, 4, 1]  # second, but tied
    scores[3] = [3, 5, 4, 1]  # third
    evidence = replace(evidence, candidate=replace(evidence.candidate, scores=scores))
    measured = {
        entry.metric: entry
        for entry in leangate_top2.Top2Check().measure(evidence)
        if str(entry.slice) == "overall"
    }
    assert measured["candidate_top2_accuracy"].statistics["successes"] == 2
    assert measured["top2_accuracy_change"].statistics == {"losses": 2, "gains": 0}
