# SPDX-License-Identifier: Apache-2.0
"""Waivers on the road from `select` to `register`, with real DVC and real MLflow, from day to day."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.attestation.keys import make_keys
from tests.blocked_project import POLICY, build_blocked

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.xdist_group("mlflow")]

IMPOSSIBLE = "kind: bounded, metric: accuracy_change, margin: 0.02"
POSSIBLE = "kind: assert, metric: bytes_ratio, max: 0.8, waivable: true"
STAGES = ("select", "enforce", "bundle", "register")


def _run(root: Path, day: str, *words: str) -> subprocess.CompletedProcess[str]:
    keep = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        env={
            **keep,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "HOME": str(root.parent / "home"),
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LEANGATE_SIGNING_KEY": str(root.parent / "keys" / "leangate.key"),
            "TEST_DAY": day,
        },
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The last stages of dvc.yaml on a finalist that is blocked; the day it is comes from the environment."""
    key_id = make_keys(tmp_path / "keys")
    root = tmp_path / "project"
    # Sixty examples can never prove two points, which `leangate run` refuses before anything is judged.
    assert IMPOSSIBLE in POLICY
    build_blocked(root, key_id, POLICY.replace(IMPOSSIBLE, POSSIBLE))
    for name in ("checks", "pipeline", "leangate", "examples"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    clock = root / "pipeline" / "waiver.py"
    now, given = "datetime.now(UTC).date()", 'date.fromisoformat(__import__("os").environ["TEST_DAY"])'
    assert now in clock.read_text()
    clock.write_text(clock.read_text().replace(now, given))
    yaml = YAML()
    whole = yaml.load(ROOT / "dvc.yaml")
    yaml.dump({"stages": {name: whole["stages"][name] for name in STAGES}}, root / "dvc.yaml")
    params = root / "params.yaml"
    text = params.read_text()
    assert "preference: [bytes, latency]" in text
    params.write_text(text.replace("preference: [bytes, latency]", "preference: [bytes]"))
    (tmp_path / "home").mkdir()
    done = _run(root, "2026-03-01", "dvc", "init", "-q", "--no-scm")
    assert done.returncode == 0, done.stderr
    return root


def _waive(root: Path, rule: str, until: str) -> None:
    words = ("--rule", rule, "--slice", "overall", "--slot", "first", "--until", until)
    done = _run(
        root,
        "2026-03-01",
        "leangate",
        "waive",
        *words,
        "--reason",
        "More data follow.",
        "--approver",
        "Owner",
    )
    assert done.returncode == 0, done.stderr


def test_from_day_to_day(root: Path):
    artifacts = root / "artifacts"
    # Blocked. The file that DVC depends on is made where there is none.
    assert not (root / "waivers.jsonl").exists()
    done = _run(root, "2026-03-01", "leangate", "run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert (root / "waivers.jsonl").read_bytes() == b""
    assert not (artifacts / "verdict.json").exists()
    # Waived, it ships, and says so.
    _waive(root, "overall", "2026-04-01")
    _waive(root, "fewer", "2026-03-20")
    done = _run(root, "2026-03-01", "leangate", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "half-int8 ships, waived" in done.stdout
    assert "WAIVED half-int8: FAIL fewer on overall, until 2026-03-20 by Owner" in done.stdout
    assert json.loads((artifacts / "verdict.json").read_text())["outcome"] == "waived"
    assert "Waived, not passed" in (artifacts / "bundle" / "MODEL_CARD.md").read_text()
    assert (artifacts / "registration.json").exists()
    # On its last day nothing has changed: DVC runs nothing.
    done = _run(root, "2026-03-20", "dvc", "repro")
    assert (done.returncode, _stages_run(done.stdout)) == (0, []), done.stdout + done.stderr
    assert _run(root, "2026-03-20", "leangate", "verify", "artifacts/bundle").returncode == 0
    # The day after, the bundle no longer verifies, and no stage that acts lets it through.
    assert _run(root, "2026-03-21", "leangate", "verify", "artifacts/bundle").returncode == 1
    for stage in ("register", "enforce"):
        kept = (artifacts / "registration.json").read_bytes()
        done = _run(root, "2026-03-21", "pipeline", stage)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "2026-03-20" in done.stderr
        assert (artifacts / "registration.json").read_bytes() == kept


def test_a_run_after_the_last_day_closes_the_gate_and_no_cache_opens_it(root: Path):
    artifacts = root / "artifacts"
    (root / "waivers.jsonl").touch()
    _waive(root, "overall", "2026-04-01")
    _waive(root, "fewer", "2026-03-20")
    assert _run(root, "2026-03-01", "leangate", "run").returncode == 0
    done = _run(root, "2026-03-21", "leangate", "run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "waivers.jsonl line 2 does not waive fewer: it ended on 2026-03-20" in done.stderr
    assert "Nothing ships" in done.stdout
    assert "nothing was registered" in done.stdout
    for name in ("verdict.json", "bundle"):
        assert not (artifacts / name).exists()
    # DVC has the selection and the verdict of the day before in its run cache.
    (artifacts / "selection.json").unlink()
    for words in (("dvc", "repro"), ("leangate", "run"), ("dvc", "repro")):
        done = _run(root, "2026-03-22", *words)
        assert done.returncode != 0, done.stdout + done.stderr
        assert not (artifacts / "verdict.json").exists()
    # A new waiver opens it again.
    line = (root / "waivers.jsonl").read_text().splitlines()[0]
    (root / "waivers.jsonl").write_text(f"{line}\n")
    words = ("--rule", "fewer", "--slice", "overall", "--slot", "first", "--until", "2026-04-02")
    words += ("--reason", "Once more.", "--approver", "Owner")
    assert _run(root, "2026-03-22", "leangate", "waive", *words).returncode == 0
    done = _run(root, "2026-03-22", "leangate", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "It may ship until 2026-04-01" in done.stdout


def test_a_stage_that_always_runs_closes_it_under_dvc_alone(root: Path):
    text = (root / "dvc.yaml").read_text()
    mark = "    cmd: exec python -m pipeline enforce\n"
    assert mark in text
    (root / "dvc.yaml").write_text(text.replace(mark, f"{mark}    always_changed: true\n"))
    (root / "waivers.jsonl").touch()
    _waive(root, "overall", "2026-04-01")
    _waive(root, "fewer", "2026-03-20")
    assert _run(root, "2026-03-01", "dvc", "repro").returncode == 0
    done = _run(root, "2026-03-20", "dvc", "repro")
    assert (done.returncode, _stages_run(done.stdout)) == (0, ["enforce"]), done.stdout + done.stderr
    done = _run(root, "2026-03-21", "dvc", "repro")
    assert done.returncode != 0
    assert not (root / "artifacts" / "verdict.json").exists()


def test_no_run_cache_brings_back_the_verdict_of_another_day(root: Path):
    (root / "waivers.jsonl").touch()
    _waive(root, "overall", "2026-04-01")
    _waive(root, "fewer", "2026-03-20")
    kept = (root / "waivers.jsonl").read_text()
    assert _run(root, "2026-03-01", "dvc", "repro").returncode == 0
    _waive(root, "fewer", "2026-03-19")
    assert _run(root, "2026-03-01", "dvc", "repro").returncode == 0
    # Now every input is what it was when a verdict was written; only the day is not.
    (root / "waivers.jsonl").write_text(kept)
    done = _run(root, "2026-03-21", "dvc", "repro")
    assert done.returncode != 0, done.stdout + done.stderr
    assert "it ended on 2026-03-20" in done.stdout + done.stderr
    assert not (root / "artifacts" / "verdict.json").exists()
