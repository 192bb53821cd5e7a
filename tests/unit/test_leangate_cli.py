# SPDX-License-Identifier: Apache-2.0
"""The command: help, exit codes, and one-sentence errors."""

import subprocess
import sys

import pytest

from leangate.cli import build_parser, main
from pipeline.stages import STAGES


def _run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "leangate", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_help_names_every_stage_and_exit_code(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in [*STAGES, "run", "table", "could not judge"]:
        assert word in text


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["prune"], ["gate", "--slot"], ["run", "--nonsense"]]
)
def test_wrong_use_is_exit_code_2(arguments):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(arguments)
    assert caught.value.code == 2


def test_a_folder_without_a_pipeline_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    assert "dvc.yaml" in capsys.readouterr().err


def test_a_table_before_any_run_is_an_error(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert main(["table"]) == 4
    assert "selection.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "old", "new", "where"),
    [
        ("params.yaml", "macs_reduction: 2.0", "macs_redaction: 2.0", "prune.recipes.half.macs_redaction"),
        ("policy.yaml", "margin: 0.02", "margin: .nan", "rules[5].margin"),
        ("policy.yaml", "rules:", "rules: []\nnever:", "never"),
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
