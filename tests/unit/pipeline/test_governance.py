# SPDX-License-Identifier: Apache-2.0
"""`governance.yaml`: every answer may stay empty, every slip is named with file and key."""

from pathlib import Path

import pytest

from checks.errors import GovernanceError, ParamsError
from pipeline.governance import KEYS, Governance, answers_to, completed_by, load_governance
from pipeline.params import load_params
from pipeline.stages import run_stage


def _load(tmp_path: Path, words: str) -> Governance:
    path = tmp_path / "governance.yaml"
    path.write_text(words, encoding="utf-8")
    return load_governance(path)


def test_the_file_of_this_repository_is_read_and_has_every_key(repository):
    from ruamel.yaml import YAML

    def flat(value, prefix=""):
        for key, entry in value.items():
            yield from flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else [f"{prefix}{key}"]

    governance = load_governance(repository / "governance.yaml")
    assert answers_to(governance, "use.purpose")[0].startswith("Reading one isolated")
    assert list(flat(YAML(typ="safe").load(repository / "governance.yaml"))) == list(KEYS)
    told = (repository / "docs" / "card.md").read_text(encoding="utf-8")
    assert [key for key in KEYS if f"`{key}`" not in told] == []


@pytest.mark.parametrize(
    "words", ["", "# nothing\n", "{}", "provider:\n", "provider: {name: }\nuse: {limitations: [ ]}\n"]
)
def test_every_answer_may_stay_empty(tmp_path, words):
    governance = _load(tmp_path, words)
    assert governance == Governance()
    assert all(answers_to(governance, key) == () for key in KEYS)
    assert {completed_by(key) for key in KEYS} == {"provider", "deployer"}


def test_lists_and_risks_are_answers_one_by_one(tmp_path):
    words = 'oversight: {measures: [a stop button, " "]}\nrisks: {known: [{risk: r., measure: m}, {risk: alone}]}\n'
    governance = _load(tmp_path, words)
    assert answers_to(governance, "oversight.measures") == ("a stop button",)
    assert answers_to(governance, "risks.known") == ("r. Measure: m", "alone")
    with pytest.raises(KeyError):
        answers_to(governance, "risks.unknown")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("purpose: x", r"governance\.yaml: top level: unknown key `purpose`; known are "),
        ("use: {purpos: x}", r"use: unknown key `purpos`, did you mean `purpose`\?"),
        ("version: 1.0", r"version: expected text, got 1\.0"),
        ("use: {limitations: one}", r"use\.limitations: expected a list, got 'one'"),
        ("risks: {known: [{measure: m}]}", r"risks\.known\[0\]\.risk: expected this key"),
        ("provider: [a]", r"provider: "),
        (f"title: {'x' * 300}", r"title: expected text of at most 200 characters"),
        ("- a", "expected keys"),
        ("title: a\ntitle: b", "expected YAML"),
        ("use: &a {users: *a}", "expected"),
        ("a: &a [*a]", "at most 6 levels|unknown key|aliases written out"),
        ("title: !!python/object:os.system x", "expected YAML"),
    ],
)
def test_a_slip_is_named_with_file_and_key(tmp_path, words, match):
    with pytest.raises(GovernanceError, match=match) as caught:
        _load(tmp_path, words)
    assert caught.value.exit_code == 2
    assert "governance.yaml" in str(caught.value)


def test_a_missing_file_is_wrong_input(tmp_path):
    with pytest.raises(GovernanceError, match=r"governance\.yaml: expected a readable file"):
        load_governance(tmp_path / "governance.yaml")


def test_any_stage_stops_at_a_slip_before_it_runs(project, capsys):
    (project / "governance.yaml").write_text("provider: {nam: x}\n", encoding="utf-8")
    assert run_stage("prepare", {}, project) == 2
    said = capsys.readouterr().err
    assert "governance.yaml: provider: unknown key `nam`" in said
    assert "Traceback" not in said
    assert not (project / "artifacts").exists()


def test_a_run_stops_at_a_slip_before_dvc_starts(project, monkeypatch, capsys):
    from leangate.cli import main

    (project / ".dvc").mkdir()
    (project / "governance.yaml").unlink()
    monkeypatch.chdir(project)
    assert main(["run"]) == 2
    assert "governance.yaml: expected a readable file" in capsys.readouterr().err


def test_the_section_that_params_had_says_where_it_went(project):
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "\nbundle: {title: x}\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"params\.yaml bundle: expected .* in governance\.yaml") as caught:
        load_params(path)
    assert "below use" in caught.value.hint
