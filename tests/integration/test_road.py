# SPDX-License-Identifier: Apache-2.0
"""The whole road, with real DVC and real MLflow, on a copy of the repository as a new user has it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.attestation.keys import make_keys

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def _environment(folder: Path, **extra: str) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    keep["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), keep.get("PATH", "")])
    return {
        **keep,
        "HOME": str(folder / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DVC_NO_ANALYTICS": "1",
        **extra,
    }


def _run(command: list[str], folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder / "clone",
        env=_environment(folder, **extra),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _leangate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "leangate", *arguments], folder)


def _repro(folder: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "dvc", "repro", *arguments], folder, **extra)


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    done = _run(["git", *identity, *arguments], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _copy_repository(folder: Path) -> None:
    """What git would commit here now, as a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file() and name != "dvc.lock":
            target = folder / "clone" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    # Whoever ran the example here has shown its test split candidates already.
    (folder / "clone" / "attempts.jsonl").write_text("")
    (folder / "home").mkdir()
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "start")


def _stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _versions(folder: Path) -> int:
    script = (
        "import mlflow, sys;"
        "c = mlflow.MlflowClient('sqlite:///mlflow.db');"
        "print('versions', len(c.search_model_versions(\"name='leangate-digits'\")))"
    )
    done = _run([sys.executable, "-c", script], folder, MLFLOW_DISABLE_TELEMETRY="true")
    return int(re.search(r"versions (\d+)", done.stdout)[1])


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository after `leangate run`."""
    folder = tmp_path_factory.mktemp("road")
    _copy_repository(folder)
    done = _leangate(folder, "run")
    for _ in range(2):
        # Other tests may keep this host too busy to time anything, which LeanGate rightly does not pass.
        if done.returncode != 3 or "two copies of one file" not in done.stdout + done.stderr:
            break
        _repro(folder, "--force", "--single-item", "time@first", "time@second")
        done = _leangate(folder, "run")
    (folder / "first.out").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_first_run_proves_and_registers(road: Path):
    clone = road / "clone"
    output = (road / "first.out").read_text()
    assert "half-int8" in output
    assert "models:/leangate-digits@challenger" in output
    verdict = json.loads((clone / "artifacts/verdict.json").read_text())
    registration = json.loads((clone / "artifacts/registration.json").read_text())
    assert verdict["onnx_sha256"] == registration["onnx_sha256"]
    for name in (
        "report/report.html",
        "report/report.md",
        "bundle/MODEL_CARD.md",
        "validation/docs/index.html",
    ):
        assert (clone / "artifacts" / name).stat().st_size > 1000
    # Whatever the host, one int8 candidate of half the multiply-accumulates is a fifth of the size.
    candidates = json.loads((clone / "artifacts/shortlist/shortlist.json").read_text())
    half = next(row for row in candidates["candidates"] if row["name"] == "half-int8")
    assert half["macs"] * 2 <= candidates["baseline"]["macs"]
    assert half["bytes"] * 5 <= candidates["baseline"]["bytes"]


def test_the_bundle_is_verified_from_its_files_alone(road: Path):
    bundle = road / "clone" / "artifacts" / "bundle"
    done = _leangate(road, "verify", str(bundle))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("verified")


def test_registered_model_loads_and_predicts(road: Path):
    done = _run([sys.executable, "examples/predict_registered.py"], road, MLFLOW_DISABLE_TELEMETRY="true")
    assert done.returncode == 0, done.stderr


def test_second_run_does_nothing(road: Path):
    _git(road, "add", "-A")
    _git(road, "commit", "-qm", "lock")
    done = _repro(road)
    assert done.returncode == 0
    assert _stages_run(done.stdout) == []
    assert _git(road, "status", "--porcelain") == ""


def test_moved_threshold_reruns_only_the_gate_and_what_follows(road: Path):
    _change(road / "clone/policy.yaml", "margin: 0.15", "margin: 0.16")
    done = _repro(road)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _stages_run(done.stdout) == [
        "gate@first",
        "gate@second",
        "select",
        "enforce",
        "bundle",
        "register",
    ]


def test_policy_nobody_can_meet_blocks_and_registers_nothing(road: Path):
    before = _versions(road)
    _change(road / "clone/policy.yaml", "max: 0.8 ", "max: 0.001 ")
    done = _leangate(road, "run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "smaller" in done.stderr + done.stdout
    assert "nothing was registered" in done.stdout
    assert not (road / "clone/artifacts/verdict.json").exists()
    assert (road / "clone/artifacts/report/report.html").exists()
    assert _versions(road) == before
    _change(road / "clone/policy.yaml", "max: 0.001 ", "max: 0.8 ")
    assert _leangate(road, "run").returncode == 0
    assert _versions(road) == before


def test_attempts_are_counted_once_and_known_bytes_are_free(road: Path):
    clone = road / "clone"
    ledger = clone / "attempts.jsonl"
    assert _repro(road).returncode == 0
    before = ledger.read_text()
    [first] = [json.loads(line) for line in before.splitlines()]
    decisions = [
        json.loads((clone / f"artifacts/decisions/{slot}.json").read_text()) for slot in ("first", "second")
    ]
    assert [decision["attempt"]["number"] for decision in decisions] == [1, 2]
    assert {decision["subject"]["candidate_sha256"] for decision in decisions} == set(first["candidates"])
    assert (
        f"attempt {decisions[1]['attempt']['number']} on this test split" in (road / "first.out").read_text()
    )
    # The other order: the same bytes in other slots.
    _change(clone / "params.yaml", "slots: [first, second]", "slots: [second, first]")
    assert _repro(road, "attempt").returncode == 0
    assert ledger.read_text() == before
    # One finalist less leaves those that are there what they were.
    _change(clone / "params.yaml", "slots: [second, first]", "slots: [first]")
    assert _repro(road, "attempt").returncode == 0
    assert ledger.read_text() == before
    _change(clone / "params.yaml", "slots: [first]", "slots: [first, second]")
    # Other bytes: calibrated on fewer images.
    _change(clone / "params.yaml", "max_examples: 512", "max_examples: 64")
    done = _repro(road, "attempt")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = ledger.read_text().splitlines()
    assert len(lines) == 2
    assert ledger.read_text().startswith(before)
    assert json.loads(lines[1])["first"] == 3
    # And back: DVC has them all, and the count stays.
    _change(clone / "params.yaml", "max_examples: 64", "max_examples: 512")
    done = _repro(road)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ledger.read_text().splitlines() == lines
    assert json.loads((clone / "artifacts/decisions/first.json").read_text()) == decisions[0]
    kept = ledger.read_text()
    ledger.write_text(lines[1] + "\n")
    done = _leangate(road, "run")
    assert done.returncode == 4
    assert "attempts.jsonl line 1" in done.stderr
    ledger.write_text(kept)
    assert _repro(road).returncode == 0


def test_what_an_approver_waives_ships_and_says_so(road: Path):
    clone = road / "clone"
    policy, kept = clone / "policy.yaml", (clone / "policy.yaml").read_text()
    key_id = make_keys(road / "approver")
    _change(policy, "\nrules:\n", f'\nwaivers: {{approvers: ["{key_id}"], max_days: 30}}\n\nrules:\n')
    _change(policy, "max: 0.8 ", "waivable: true\n    max: 0.001 ")
    assert _leangate(road, "run").returncode == 1
    until = (datetime.now(UTC).date() + timedelta(days=7)).isoformat()
    words = ("--rule", "smaller", "--slice", "overall", "--reason", "Nothing can be that small.")
    words += ("--approver", "Risk owner", "--until", until)
    for slot in ("first", "second"):
        signing = {"LEANGATE_SIGNING_KEY": str(road / "approver" / "leangate.key")}
        done = _run([sys.executable, "-m", "leangate", "waive", *words, "--slot", slot], road, **signing)
        assert done.returncode == 0, done.stderr
    done = _leangate(road, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ships, waived" in done.stdout
    assert f"FAIL smaller on overall, until {until} by Risk owner" in done.stdout
    assert "models:/leangate-digits@challenger" in done.stdout
    bundle = clone / "artifacts" / "bundle"
    done = _leangate(road, "verify", str(bundle))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waivers" in done.stdout
    assert "## Waivers" in (bundle / "MODEL_CARD.md").read_text()
    policy.write_text(kept)
    (clone / "waivers.jsonl").write_text("")
    assert _leangate(road, "run").returncode == 0
    assert "## Waivers" not in (bundle / "MODEL_CARD.md").read_text()


def test_wrong_files_are_refused_by_key_before_anything_runs(road: Path):
    params, policy = road / "clone/params.yaml", road / "clone/policy.yaml"
    for path, old, new, where in (
        (params, "max_accuracy_drop", "max_acuracy_drop", "did you mean `max_accuracy_drop`"),
        (params, "epsilon: 0.05", "epsilon: .nan", "evaluate.attack.epsilon"),
        (policy, "alpha: 0.05", "alpha: 7", "policy.yaml alpha"),
        (policy, "slices: [label]", "slices: [colour]", "policy.yaml rules["),
    ):
        good = path.read_text()
        _change(path, old, new)
        done = _leangate(road, "run")
        path.write_text(good)
        assert done.returncode == 2, (where, done.stdout + done.stderr)
        assert where in done.stderr
        assert "Traceback" not in done.stderr
    assert _repro(road).returncode == 0


def test_candidate_changed_after_evaluation_is_not_judged(road: Path):
    """Evidence on other bytes is no evidence; DVC restores the file, then all is well again."""
    path = road / "clone/artifacts/shortlist/first/model.onnx"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = _run([sys.executable, "-m", "pipeline", "gate", "--slot", "first"], road)
    assert done.returncode == 0
    decision = json.loads((road / "clone/artifacts/decisions/first.json").read_text())
    assert decision["outcome"] == "error"
    assert not decision["open"]
    assert {finding["verdict"] for finding in decision["findings"]} == {"ERROR"}
    assert _repro(road).returncode == 0
    assert path.read_bytes() == data


# Each its own value: DVC remembers what a finished run made, and would not run the stage again.
@pytest.mark.parametrize(("victim", "smoothing"), [("stage", "0.04"), ("dvc", "0.03")])
def test_a_killed_run_recovers_and_leaves_no_orphan(road: Path, victim: str, smoothing: str):
    clone = road / "clone"
    before = "label_smoothing: 0.05\n  max_shift"
    after = f"label_smoothing: {smoothing}\n  max_shift"
    _change(clone / "params.yaml", before, after)
    dvc = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "train"],
        cwd=clone,
        env=_environment(road),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        stage = _wait_for_stage(dvc.pid)
        os.kill(stage if victim == "stage" else dvc.pid, signal.SIGKILL)
        dvc.wait(timeout=60)
    finally:
        dvc.kill()
        dvc.wait()
    deadline = time.monotonic() + 20
    while _alive(stage) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(stage)
    assert not (clone / "artifacts/baseline/model.json").exists()
    done = _repro(road, "train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (clone / "artifacts/baseline/model.json").exists()
    assert not list((clone / "artifacts").glob("**/.*.tmp-*"))
    _change(clone / "params.yaml", after, before)
    assert _repro(road, "train").returncode == 0


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait_for_stage(parent: int) -> int:
    """The process of `python -m pipeline train`, once it runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
                ancestor = int((path.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if b"pipeline" in words and b"train" in words and b"-m" in words and ancestor == parent:
                time.sleep(1.5)  # past its imports, into the work
                return int(path.parent.name)
        time.sleep(0.05)
    raise AssertionError("the stage never started")
