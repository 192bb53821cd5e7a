# SPDX-License-Identifier: Apache-2.0
"""`leangate search`: wrong use ends in one sentence that says what to do."""

import importlib.util

import pytest

from leangate.cli import main


@pytest.fixture
def refused(project, monkeypatch, capsys):
    """Run a command that must be refused; return its exit code and what it said."""
    monkeypatch.chdir(project)

    def run(*arguments):
        code = main(["search", *arguments])
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return code, said.err

    return run


def test_without_data_or_baseline_it_says_what_to_run(refused, project):
    code, said = refused()
    assert (code, "artifacts/data: expected what the stage prepare makes" in said) == (2, True)
    assert "dvc repro train" in said
    (project / "artifacts" / "data").mkdir(parents=True)
    (project / "artifacts" / "data" / "data.json").write_text("{}")
    code, said = refused("--write")
    assert (code, "artifacts/baseline" in said) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [(["--trials", "0"], "--trials: expected at least 1"), (["--jobs", "0"], "--jobs: expected at least 1")],
)
def test_numbers_out_of_range_are_named(refused, arguments, what):
    code, said = refused(*arguments)
    assert code == 2
    assert what in said


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ("{ trials: 0 }", "search.trials"),
        ("{ space: { precisions: [int4] } }", "int4"),
        ("{ space: { channels: null, precisions: [fp32] } }", "empty space"),
        ("{ objectives: [speed] }", "search.objectives"),
    ],
)
def test_a_wrong_section_is_named(refused, project, section, what):
    path = project / "params.yaml"
    path.write_text(path.read_text().partition("\nsearch:")[0] + f"\nsearch: {section}\n")
    code, said = refused()
    assert code == 2
    assert what in said


def test_without_optuna_it_says_what_to_install(refused, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, said = refused()
    assert code == 2
    assert "leangate[search]" in said


def test_a_folder_that_cannot_be_made_is_named(refused, project):
    data, baseline = project / "artifacts" / "data", project / "artifacts" / "baseline"
    for folder, name in ((data, "data.json"), (data, "examples.npz"), (data, "manifest.parquet")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    baseline.mkdir()
    (baseline / "model.onnx").write_bytes(b"x")
    (project / "artifacts" / "search").write_text("a file where a folder must be")
    code, said = refused()
    assert code == 4
    assert "artifacts/search" in said
