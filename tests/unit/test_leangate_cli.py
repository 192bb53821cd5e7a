# SPDX-License-Identifier: Apache-2.0
"""The command: help, exit codes, and one-sentence errors."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from checks.attempts import next_round, read_rounds
from checks.canonical import sha256_bytes
from checks.finding import Verdict
from checks.statistics.planning import n_min
from leangate.cli import build_parser, main
from pipeline.data.test_examples import read_test_digest
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.stages import STAGES, run_stage
from tests.evidence_files import write_artifacts, write_data


def _run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "leangate", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_names_every_stage_and_exit_code(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in [*STAGES, "run", "table", "policy", "could not judge"]:
        assert word in text


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["prune"], ["gate", "--slot"], ["run", "--nonsense"], ["policy"], ["policy", "x"]],
)
def test_wrong_use_is_exit_code_2(arguments):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(arguments)
    assert caught.value.code == 2


def test_a_folder_without_a_pipeline_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    assert "dvc.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        (
            "params.yaml",
            "macs_reduction: 2.0",
            "macs_redaction: 2.0",
            "prune.recipes.half[0].channels: unknown key `macs_redaction`, did you mean `macs_reduction`?",
        ),
        ("policy.yaml", "margin: 0.02", "margin: .nan", "rules[12].margin"),
        ("policy.yaml", "rules:", "rules: []\nnever:", "never"),
        ("policy.yaml", "latency_ratio_b64", "latency_ratio_b32", "time.batch_sizes"),
        ("params.yaml", "  sessions: 10", "  sessions: 7", "time.sessions 8 or more"),
        ("params.yaml", "  calls: 5", "  calls: 1", "time.calls 3 or more"),
        ("policy.yaml", "slices: [label]", "slices: [labl]", "prepare.slices"),
        ("policy.yaml", "slices: [label]", "slices: [label*slnt]", "slnt"),
    ],
)
def test_a_stage_refuses_wrong_files_before_it_works(project, repository, file, old, new, where):
    path = project / file
    path.write_text(path.read_text().replace(old, new, 1))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "prepare"],
        cwd=project,
        env={"PYTHONPATH": str(repository), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert where in done.stderr
    assert file in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "artifacts").exists()


@pytest.mark.parametrize(
    ("stage", "matrix", "says"),
    [
        (
            "prune",
            {"variant": "hafl"},
            "--variant: expected one of prune.recipes (dense, half, third), got 'hafl', ",
        ),
        ("prune", {"variant": "hafl"}, "did you mean `half`?"),
        ("quantize", {"variant": "hafl", "precision": "int8"}, "--variant: expected one of prune.recipes"),
        (
            "quantize",
            {"variant": "half", "precision": "int9"},
            "--precision: expected one of quantize.recipes",
        ),
        (
            "evaluate",
            {"slot": "third"},
            "--slot: expected one of shortlist.slots (first, second), got 'third'",
        ),
        ("time", {"slot": "third"}, "--slot: expected one of shortlist.slots"),
        ("gate", {"slot": "third"}, "--slot: expected one of shortlist.slots"),
    ],
)
def test_a_name_that_the_file_does_not_know_is_wrong_input(project, capsys, stage, matrix, says):
    assert run_stage(stage, matrix, project) == 2
    assert says in capsys.readouterr().err
    assert not (project / "artifacts").exists()


def test_an_unwritable_folder_is_one_sentence(project, repository):
    (project / "artifacts").write_text("a file where a folder must be")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "prepare"],
        cwd=project,
        env={"PYTHONPATH": str(repository), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "artifacts" in done.stderr


def test_a_full_disk_is_one_sentence_and_leaves_nothing(project, repository):
    """A limit on file sizes fails writes as a full disk does, in the middle of a file."""
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            limited + "sys.argv = ['p', 'prepare']; runpy.run_module('pipeline', run_name='__main__')",
        ],
        cwd=project,
        # Without bytecode: the limit would cut that short too, and leave it broken for every later test.
        env={"PYTHONPATH": str(repository), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "artifacts/data" in done.stderr
    assert "hint: free disk space" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project / "artifacts").iterdir())


@pytest.fixture
def prepared(project, evidence, monkeypatch):
    """The project with prepared data of 900 test examples and no model, and a policy of `light` on it."""
    monkeypatch.chdir(project)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("slices: [stroke_weight, slant, size]", "slices: [light]"))

    def write(*rules, n=900, units=None, **elsewhere):
        examples = evidence(n, units=units).examples
        write_data(Layout(project), examples, **elsewhere)
        rows = rules or ("{id: overall, kind: bounded, metric: accuracy_change, margin: 0.02, reason: why}",)
        text = "version: 1\nname: tested\nalpha: 0.05\nalpha_fail: 0.05\nattempts: {planned: 2}\nrules:\n"
        (project / "policy.yaml").write_text(text + "".join(f"  - {row}\n" for row in rows))
        return project

    return write


LIGHT = "{id: light, kind: bounded, metric: accuracy_change, slices: [light], margin: 0.05, reason: why}"


def test_lint_shows_every_rule_and_slice_before_any_model(prepared, capsys):
    prepared(
        LIGHT, "{id: gap, kind: bounded, metric: accuracy_change_gap, slices: [light], max: 0.1, reason: why}"
    )
    assert main(["policy", "lint", "--finalists", "1"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith(("light", "gap"))]
    assert [row[:4] for row in rows] == [
        ["light", "light=bright", "300", "73"],
        ["light", "light=dim", "300", "73"],
        ["light", "light=even", "300", "73"],
        ["gap", "light", "300", "50"],
    ]
    assert "900 test examples" in out
    assert "\x1b" not in out


def test_lint_shares_alpha_among_the_slots_of_params(prepared, capsys):
    prepared(LIGHT)
    assert main(["policy", "lint", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["attempts"]["next"] == [1, 2]
    assert plan["alpha_each"] == plan["attempts"]["alpha_each"] == 0.025
    assert [row["n_min"] for row in plan["rows"]] == [73, 73, 73]
    assert all(0 < row["chance"] <= 1 for row in plan["rows"])
    assert plan["chance_of_all"][0] <= plan["chance_of_all"][1]


def _shown(project, *sizes):
    """Let the test split have been shown runs of so many candidates."""
    split, rounds = read_test_digest(Layout(project).data), ()
    for run, size in enumerate(sizes):
        candidates = [sha256_bytes(f"{run} {index}".encode()) for index in range(size)]
        rounds = (*rounds, next_round(rounds, split, candidates, "0" * 64))
    Layout(project).attempts_file.write_text("".join(f"{entry.line}\n" for entry in rounds))


def test_lint_tells_what_is_used_and_what_is_left(prepared, capsys):
    project = prepared(LIGHT)
    policy = project / "policy.yaml"
    policy.write_text(policy.read_text().replace("attempts: {planned: 2}\n", ""))
    assert main(["policy", "lint"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "shown no candidate yet. Next: attempts 1 and 2, at alpha 0.019 each." in out
    _shown(project, 2, 1)
    assert main(["policy", "lint", "--json", "--finalists", "1"]) == 0
    plan = json.loads(capsys.readouterr().out)
    attempts = plan["attempts"]
    each = 0.05 * 6 / math.pi**2 / 16
    assert (attempts["used"], attempts["runs"], attempts["next"]) == (3, 2, [4, 4])
    assert attempts["alpha_each"] == plan["alpha_each"] == pytest.approx(each)
    # Of 100 images a slice without a loss, at most this p: 0.95^300 or more passes no more.
    closed = attempts["closed_from"]
    least = [n_min(0.05, 0.05 * 6 / math.pi**2 / attempt**2) for attempt in (closed - 1, closed)]
    assert least[0] <= 300 < least[1]


def test_lint_counts_only_the_split_that_lies_here(prepared, capsys):
    project = prepared(LIGHT)
    _shown(project, 2)
    prepared(LIGHT, n=901)
    main(["policy", "lint"])
    assert "shown no candidate yet" in capsys.readouterr().out


def test_lint_of_a_plan_that_is_used_up_asks_for_a_fresh_split(prepared, capsys):
    _shown(prepared(LIGHT), 2)
    assert main(["policy", "lint"]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "shown 2 candidates, in 1 run. The policy plans no attempt 3: take a fresh test split." in out
    assert main(["policy", "lint", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["attempts"]["alpha_each"] == 0


def test_what_another_branch_tried_counts_here_too(prepared, capsys):
    project = prepared(LIGHT)
    split, policy = read_test_digest(Layout(project).data), "0" * 64
    shared = next_round((), split, ["a" * 64], policy)
    ours = (shared, next_round((shared,), split, ["b" * 64], policy))
    theirs = (shared, next_round((shared,), split, ["c" * 64, "b" * 64, "d" * 64], policy))
    path, other = Layout(project).attempts_file, project / "other.jsonl"
    for file, rounds in ((path, ours), (other, theirs)):
        file.write_text("".join(f"{entry.line}\n" for entry in rounds))
    for said in ("2 candidates of other.jsonl", "0 candidates of other.jsonl"):
        assert main(["attempts", "merge", "other.jsonl"]) == 0
        assert said in capsys.readouterr().out
    rounds = read_rounds(path)
    assert rounds[:2] == ours
    assert [(entry.first, entry.candidates) for entry in rounds[2:]] == [(3, ("c" * 64, "d" * 64))]
    other.write_text(other.read_text().splitlines(keepends=True)[1])
    assert main(["attempts", "merge", "other.jsonl"]) == 4
    assert "other.jsonl line 1" in capsys.readouterr().err


def test_lint_without_the_attempts_file_says_so(prepared, capsys):
    (prepared(LIGHT) / "attempts.jsonl").unlink()
    assert main(["policy", "lint"]) == 4
    assert "attempts.jsonl" in capsys.readouterr().err


def test_lint_of_a_policy_that_cannot_pass_says_which_slice_lacks_what(prepared, capsys):
    prepared(LIGHT, n=180)
    assert main(["policy", "lint"]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "light on light=dim: n 60 is below n_min 73: collect 13 more" in out
    assert "with a reason" in out


def test_lint_warns_of_a_small_chance_and_goes_on(prepared, capsys):
    prepared(n=200)
    assert main(["policy", "lint"]) == 0
    assert "Warning" in capsys.readouterr().out


def test_lint_counts_units_and_names_levels_that_no_test_example_has(prepared, capsys):
    prepared(LIGHT, n=900, units=np.array([f"u{i // 3}" for i in range(900)]))
    main(["policy", "lint", "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert (plan["examples"], plan["units"]) == (900, 300)
    prepared(LIGHT, other={"split": "train", "light": "night"})
    assert main(["policy", "lint"]) == 2
    assert "light=night" in capsys.readouterr().out


def test_lint_reads_the_policy_it_is_given(prepared, repository, capsys):
    prepared(LIGHT)
    assert main(["policy", "lint", "--policy", str(repository / "policies" / "default.yaml")]) == 2
    err = capsys.readouterr().err
    assert "stroke_weight" in err
    assert "Traceback" not in err


def test_lint_shows_names_out_of_data_without_their_control_characters(prepared, capsys):
    prepared(LIGHT, other={"split": "test", "light": "n\x1b[31might"})
    main(["policy", "lint"])
    out = capsys.readouterr().out
    assert "ight" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--churn", "1.5"], "--churn"),
        (["--churn", "nan"], "--churn"),
        (["--finalists", "0"], "--finalists"),
        (["--policy", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_lint_refuses_wrong_arguments(prepared, capsys, arguments, where):
    prepared(LIGHT)
    assert main(["policy", "lint", *arguments]) == 2
    assert where in capsys.readouterr().err


def test_lint_without_data_says_how_to_make_them(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert main(["policy", "lint"]) == 2
    err = capsys.readouterr().err
    assert "artifacts/data" in err
    assert "dvc repro prepare" in err


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.parquet", b"no parquet"),
        ("manifest.parquet", None),
        ("data.json", b'{"schema": "leangate/data/1", "classes": 3, "slices": []}'),
        ("data.json", b'{"schema": "leangate/data/1", "classes": ["a", "b"], "slices": ["colour"]}'),
        ("data.json", b'{"schema": "leangate/data/1", "classes": ["a", "b"], "slices": []}'),
        ("data.json", b"{}"),
    ],
)
def test_lint_refuses_broken_data_by_file(prepared, capsys, file, content):
    project = prepared(LIGHT)
    path = project / "artifacts" / "data" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert main(["policy", "lint"]) == 2
    err = capsys.readouterr().err
    assert "artifacts/data" in err
    assert "Traceback" not in err


def test_lint_attacks_the_examples_that_evaluate_will_attack(prepared):
    from types import SimpleNamespace

    from pipeline.params import load_params
    from pipeline.policy_lint import _effort, read_test_examples
    from pipeline.probes.attack import _draw

    project = prepared(LIGHT)
    params, examples = (
        load_params(project / "params.yaml"),
        read_test_examples(project / "artifacts" / "data"),
    )
    rows = _draw(SimpleNamespace(ids=examples.ids), params.evaluate.attack, params.seed)
    assert _effort(examples, params).attacked.tolist() == examples.ids[rows].tolist()


@pytest.fixture
def dvc(monkeypatch):
    """Record what `dvc repro` is asked for instead of running it; `act` stands for what it does."""
    from leangate.reproduce import _Ended

    calls = []

    def run(root, targets, *, force, alone=False):
        calls.append(list(targets))
        run.act()
        return run.ends.pop(0) if run.ends else _Ended()

    run.act, run.calls, run.ends, run.Ended = lambda: None, calls, [], _Ended
    monkeypatch.setattr("leangate.reproduce._run_dvc", run)
    return run


def test_a_run_with_a_hopeless_policy_stops_before_anything_is_trained(prepared, dvc, capsys):
    project = prepared(LIGHT, n=180)
    (project / ".dvc").mkdir()
    assert main(["run"]) == 2
    output = capsys.readouterr()
    assert dvc.calls == [["prepare"]]  # the data might have been of yesterday
    assert "n 60 is below n_min 73" in output.err
    assert "policy.yaml" in output.err
    assert "leangate policy lint" in output.err
    assert output.out == ""


def test_a_run_refuses_no_policy_because_of_old_data(prepared, dvc):
    project = prepared(LIGHT, n=180)
    (project / ".dvc").mkdir()
    dvc.act = lambda: prepared(LIGHT, n=900)
    assert main(["run"]) == 0
    assert dvc.calls == [["prepare"], []]


@pytest.mark.parametrize("broken", [False, True])
def test_a_run_with_a_policy_that_can_pass_runs_everything(prepared, dvc, broken):
    project = prepared(LIGHT)
    (project / ".dvc").mkdir()
    if broken:
        (project / "artifacts" / "data" / "manifest.parquet").write_bytes(b"half a fi")
        dvc.act = lambda: prepared(LIGHT)
    assert main(["run", "validate"]) == 0
    assert dvc.calls == [*([["prepare"]] if broken else []), ["validate"]]


@pytest.fixture
def maker(tmp_path, monkeypatch):
    """A key that signs, as the environment names it; returns its id."""
    from pipeline.attestation.keys import make_keys

    key_id = make_keys(tmp_path / "maker")
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(tmp_path / "maker" / "leangate.key"))
    return key_id


@pytest.mark.parametrize(
    ("ends", "signed_by", "calls"),
    [
        ([], None, [[], ["bundle"], []]),  # DVC says that nothing changed: a key is no file
        ([], "another", [[], ["bundle"], []]),
        ([], "maker", [[]]),
        ([(1, "register", "expected signed attestations, got none")], None, [[], ["bundle"], []]),
        ([(4, "", "")], None, [[]]),  # DVC itself failed
        ([(4, "bundle", "no space")], None, [[]]),
    ],
)
def test_a_key_that_is_set_later_signs_the_bundle(project, monkeypatch, dvc, maker, ends, signed_by, calls):
    monkeypatch.chdir(project)
    (project / ".dvc").mkdir()
    bundle = project / "artifacts" / "bundle"
    bundle.mkdir(parents=True)
    if signed_by:
        key_id = maker if signed_by == "maker" else "0" * 64
        (bundle / "attestations.jsonl").write_text(f'{{"signatures":[{{"keyid":"{key_id}"}}]}}\n')
    dvc.ends = [dvc.Ended(*end) for end in ends]
    main(["run"])
    assert dvc.calls == calls


def test_without_a_key_nothing_is_signed_anew(project, monkeypatch, dvc):
    monkeypatch.chdir(project)
    (project / ".dvc").mkdir()
    (project / "artifacts" / "bundle").mkdir(parents=True)
    assert main(["run"]) == 0
    assert dvc.calls == [[]]


@pytest.mark.parametrize("kind", ["missing", "public"])
def test_a_wrong_key_is_told_before_anything_runs(project, monkeypatch, dvc, maker, capsys, tmp_path, kind):
    monkeypatch.chdir(project)
    (project / ".dvc").mkdir()
    name = {"missing": "nope.key", "public": "leangate.pub"}[kind]
    monkeypatch.setenv("LEANGATE_SIGNING_KEY", str(tmp_path / "maker" / name))
    assert main(["run"]) == 2
    assert dvc.calls == []
    assert "expected a private key, got " in capsys.readouterr().err


def test_a_first_run_has_no_data_to_plan_on(project, monkeypatch, dvc):
    monkeypatch.chdir(project)
    (project / ".dvc").mkdir()
    assert main(["run"]) == 0
    assert dvc.calls == [[]]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        (
            "source: examples/digits/source.py:digits",
            "source: examples/digits/sauce.py:digits",
            "prepare.source",
        ),
        ("source: examples/digits/source.py:digits", "source: own/t.parquet", "prepare.source"),
        (
            "factory: examples/digits/net.py:digits_net",
            "factory: examples/digits/nett.py:net",
            "model.factory",
        ),
    ],
)
def test_a_run_names_the_key_of_a_file_that_is_not_there(project, monkeypatch, dvc, capsys, old, new, where):
    monkeypatch.chdir(project)
    (project / ".dvc").mkdir()
    params = project / "params.yaml"
    text = params.read_text().replace(old, new)
    for key in ("input", "code"):
        text = text.replace(f"{key}: examples/digits/{'source' if key == 'input' else 'net'}.py", f"{key}: .")
    params.write_text(text)
    assert main(["run"]) == 2
    assert f"params.yaml {where}" in capsys.readouterr().err
    assert dvc.calls == []


@pytest.mark.parametrize(
    ("targets", "code"), [(["prepare"], 0), (["train", "prune"], 0), (["select"], 1), ([], 1)]
)
def test_a_run_of_targets_claims_no_pass_that_nothing_judged(
    project, monkeypatch, dvc, capsys, targets, code
):
    """An older selection lies there; only a run that judges may show it, and its code is its own."""
    monkeypatch.chdir(project)
    (project / ".dvc").mkdir()
    monkeypatch.setattr("leangate.reproduce.describe_outcome", lambda root: "the table")
    write_json(Layout(project).selection, {"outcome": "blocked"})
    assert main(["run", *targets]) == code
    assert ("the table" in capsys.readouterr().out) == bool(code)


def _is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait_for(what):
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_takes_dvc_with_it(project, repository, tmp_path_factory, how):
    """One left alive would hold DVC's lock against the next run."""
    (project / ".dvc").mkdir()
    stand_in = tmp_path_factory.mktemp("stand-in")
    (stand_in / "dvc").mkdir()
    (stand_in / "dvc" / "__init__.py").touch()
    (stand_in / "dvc" / "__main__.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(stand_in), str(repository)])}
    run = subprocess.Popen([sys.executable, "-m", "leangate", "run"], cwd=project, env=environment)
    try:
        _wait_for(lambda: (project / "pid").exists() and (project / "pid").read_text())
        pid = int((project / "pid").read_text())
        assert _is_alive(pid)
        run.send_signal(how)
        run.wait(timeout=30)
        _wait_for(lambda: not _is_alive(pid))
    finally:
        run.kill()
        run.wait()


GATE = """
version: 1
name: tested
alpha: 0.05
alpha_fail: 0.05
rules:
  - {id: overall, kind: bounded, metric: accuracy_change, margin: 0.02, reason: why}
  - {id: small, kind: assert, metric: bytes_ratio, max: 0.5, reason: why}
  - {id: shown, kind: bounded, metric: candidate_accuracy, min: 0.999, blocking: false, reason: why}
"""


@pytest.fixture
def judged(project, evidence, monkeypatch):
    """The project with evidence in slot `first`, and nobody in slot `empty`."""
    monkeypatch.chdir(project)
    (project / "policy.yaml").write_text(GATE)

    def write(**changes):
        return write_artifacts(project, evidence(**changes))

    return write


@pytest.mark.parametrize(
    ("changes", "code", "outcome"),
    [
        ({"losses": 1}, 0, "passed"),
        ({"losses": 60}, 1, "blocked"),
        ({"losses": 14}, 3, "inconclusive"),
    ],
)
def test_gate_prints_each_finding_and_returns_the_outcome(judged, capsys, changes, code, outcome):
    judged(**changes)
    before = sorted(Path().rglob("*"))
    assert main(["gate"]) == code
    out = capsys.readouterr().out
    for word in ("overall", "small", "shown (advisory)", outcome, "built in slot first"):
        assert word in out
    assert "accuracy_change on overall is" in out
    assert sorted(Path().rglob("*")) == before  # nothing is written
    assert " s  accuracy" not in out


def test_gate_says_what_broke_and_could_not_judge(judged, capsys):
    layout = judged()
    (layout.evidence("first") / "candidate.npz").write_bytes(b"nothing")
    assert main(["gate"]) == 4
    out = capsys.readouterr().out
    assert out.count("ERROR") == 3
    assert "candidate.npz" in out
    assert main(["gate", "--json"]) == 4
    decision = json.loads(capsys.readouterr().out)
    assert decision["most_changed"] == []
    assert decision["outcome"] == "error"


def test_gate_on_evidence_of_another_file_could_not_judge(judged, capsys):
    layout = judged()
    (layout.finalist("first") / "model.onnx").write_bytes(b"other")
    assert main(["gate"]) == 4
    assert "expected evidence of" in " ".join(capsys.readouterr().out.split())


def test_gate_on_an_empty_slot_is_blocked(judged, capsys):
    judged()
    assert main(["gate", "--slot", "empty"]) == 1
    assert "no candidate" in capsys.readouterr().out


def test_gate_json_is_what_the_stage_writes(judged, capsys):
    layout = judged(losses=3)
    assert main(["gate", "--json"]) == 0
    text = capsys.readouterr().out
    assert run_stage("gate", {"slot": "first"}, Path()) == 0
    assert layout.decision("first").read_text() == text
    decision = json.loads(text)
    assert [entry["id"] for entry in decision["most_changed"]] == ["x00000", "x00150", "x00300"]
    assert main(["gate", "--json", "--verbose"]) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds"]
    assert seconds["accuracy"] >= 0


def test_gate_verbose_shows_seconds(judged, capsys):
    judged()
    assert main(["gate", "--verbose"]) == 0
    assert " s  accuracy" in capsys.readouterr().out


def test_gate_judges_under_the_policy_it_is_given(judged, tmp_path, capsys):
    judged(losses=14)
    path = tmp_path / "wide.yaml"
    path.write_text(GATE.replace("0.02", "0.1"))
    assert main(["gate", "--policy", str(path)]) == 0
    assert main(["gate"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "where"),
    [
        (["--slot", "third"], 2, "shortlist.slots"),
        (["--policy", "nowhere.yaml"], 2, "nowhere.yaml"),
    ],
)
def test_gate_refuses_wrong_arguments(judged, capsys, arguments, code, where):
    judged()
    assert main(["gate", *arguments]) == code
    assert where in capsys.readouterr().err


def test_gate_under_a_policy_on_an_unknown_slice_is_the_users_slip(judged, capsys):
    judged()
    path = Path("policy.yaml")
    path.write_text(GATE.replace("margin: 0.02", "slices: [colour], margin: 0.02"))
    assert main(["gate"]) == 2
    assert "colour" in capsys.readouterr().err


def test_gate_before_any_run_says_what_is_missing(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert main(["gate"]) == 4
    assert "shortlist.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["gate"], ["policy", "lint"]])
def test_help_explains_verdicts_and_exit_codes(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes:" in text
    if command == ["gate"]:
        for verdict in Verdict:
            assert verdict in text


def test_output_is_coloured_for_a_terminal_that_wants_it_alone(judged, capsys, monkeypatch):
    judged()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    main(["gate"])
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main(["gate"])
    assert "\x1b[3" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [["gate"], ["policy", "lint"]])
def test_a_check_that_calls_exit_does_not_choose_the_exit_code(judged, capsys, monkeypatch, command):
    def leave(self, evidence):
        sys.exit(0)

    judged()
    monkeypatch.setattr("checks.accuracy.AccuracyCheck.measure", leave)
    assert main(command) in ([4] if command == ["gate"] else [0, 4])
    output = capsys.readouterr()
    assert "SystemExit" in output.out or "sys.exit" in output.err


def test_the_table_before_any_run_says_what_to_do(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert main(["table"]) == 2
    assert "run `leangate run` first, in the folder that holds dvc.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("content", [{}, [], {"schema": "leangate/registration/1", "bundle_sha256": 3}])
def test_a_wrong_registration_is_named(judged, capsys, monkeypatch, content):
    judged()
    layout = Layout(Path())
    layout.bundle.mkdir(parents=True)
    for path in (layout.bundle / "bundle.json", layout.selection):
        write_json(path, {})
    write_json(layout.verdict, {"schema": "leangate/verdict/1", "onnx_sha256": None})
    write_json(layout.registration, content)
    monkeypatch.setattr("leangate.reproduce.render_table", lambda layout, on: "")
    assert main(["table"]) == 4
    assert "registration.json" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_not_called_standard_output(project, capsys, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system", "artifacts/.lock")

    monkeypatch.chdir(project)
    monkeypatch.setattr("leangate.reproduce.reproduce", refuse)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert main(["run"]) == 4
    assert "artifacts/.lock: expected to write" in capsys.readouterr().err
