# SPDX-License-Identifier: Apache-2.0
"""Pseudonyms: salted, the same every time, and gone for good once redacted."""

import hashlib
import json
import stat

import numpy as np
import pytest

from checks.errors import DataError, EvidenceError
from leangate.cli import main
from pipeline import prepare
from pipeline.data.dataset import data_digest, read_dataset
from pipeline.data.pseudonyms import read_pseudonyms
from pipeline.layout import Layout
from pipeline.params import load_params

SOURCE = """
import numpy as np
from pipeline.data.source import SourceExamples

def people():
    random = np.random.default_rng(0)
    return SourceExamples(
        ids=[f"scan-{index}" for index in range(80)],
        pixels=random.integers(0, 17, (80, 1, 8, 8), dtype=np.uint8),
        pixel_max=16,
        labels=["cat" if index % 2 else "dog" for index in range(80)],
        units=[f"Jane Doe {index // 2}" for index in range(80)],
        source="clinic", license="CC0-1.0", consent="given",
    )
"""


@pytest.fixture
def people(project, monkeypatch):
    monkeypatch.chdir(project)
    (project / "people.py").write_text(SOURCE)
    return project


def _prepare(project, **changes):
    params = load_params(project / "params.yaml")
    changes = {
        "source": "people.py:people",
        "input": "people.py",
        "classes": None,
        "pseudonyms": True,
    } | changes
    params = params.model_copy(update={"prepare": params.prepare.model_copy(update=changes)})
    prepare.run(Layout(project), params)
    return read_dataset(Layout(project).data)


def test_no_name_is_left_in_what_prepare_writes(people):
    dataset = _prepare(people)
    for path in Layout(people).data.iterdir():
        content = path.read_bytes()
        assert b"Jane" not in content
        assert b"scan-" not in content
    with np.load(Layout(people).data / "examples.npz") as archive:
        assert archive["ids"].tolist() == dataset.columns["id"].tolist()
    assert len(set(dataset.columns["id"].tolist())) == 80
    assert len(set(dataset.columns["unit"].tolist())) == 40
    assert {len(name) for name in dataset.columns["unit"].tolist()} == {32}


def test_only_the_names_differ(people):
    hidden = _prepare(people)
    shown = _prepare(people, pseudonyms=False)
    assert shown.columns["id"][0] == "scan-0"
    for name in set(shown.columns) - {"id", "unit"}:
        assert hidden.columns[name].tolist() == shown.columns[name].tolist()
    np.testing.assert_array_equal(hidden.pixels, shown.pixels)
    assert hidden.digest("test") == shown.digest("test")  # names make no split fresh


def test_sensitive_columns_are_named_where_there_are_any(people):
    path = Layout(people).data / "data.json"
    assert _prepare(people).sensitive == ()
    assert "sensitive" not in json.loads(path.read_text())
    digest = data_digest(Layout(people).data)
    assert _prepare(people, sensitive=("slant",)).sensitive == ("slant",)
    assert data_digest(Layout(people).data) == digest
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sensitive": ["age"]}))
    with pytest.raises(DataError, match=r"expected sensitive columns among .* got \['age'\]"):
        read_dataset(Layout(people).data)


def test_pseudonyms_are_salted_and_stay(people):
    _prepare(people)
    path, before = Layout(people).pseudonyms, data_digest(Layout(people).data)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 120
    assert len({row["salt"] for row in rows}) == 120
    for row in rows:
        digest = hashlib.sha256(bytes.fromhex(row["salt"]) + row["name"].encode()).hexdigest()
        assert row["pseudonym"] == digest[:32]
    kept = path.read_bytes()
    _prepare(people)
    assert data_digest(Layout(people).data) == before
    assert path.read_bytes() == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_redaction_leaves_data_and_digest_and_takes_name_and_salt(people, capsys):
    _prepare(people)
    layout = Layout(people)
    data, rows = data_digest(layout.data), read_pseudonyms(layout.pseudonyms).rows
    salts = {row.name: row.salt for row in rows}
    assert main(["redact"]) == 0
    assert "120 rows, 0 redacted" in capsys.readouterr().out
    assert main(["redact", "Jane Doe 3", "scan-6", "scan-7"]) == 0
    assert "3 rows redacted" in capsys.readouterr().out
    text = layout.pseudonyms.read_text()
    for name in ("Jane Doe 3", "scan-6", "scan-7"):
        assert f'"{name}"' not in text
        assert salts[name] not in text
    assert [row.pseudonym for row in read_pseudonyms(layout.pseudonyms).rows] == [
        row.pseudonym for row in rows
    ]
    assert data_digest(layout.data) == data
    assert main(["redact"]) == 0
    assert "120 rows, 3 redacted; the data name this file" in capsys.readouterr().out
    # Who comes again is somebody new, and the file still proves against what was recorded before.
    _prepare(people)
    assert len(read_pseudonyms(layout.pseudonyms).rows) == 123
    assert main(["redact"]) == 0


def test_a_name_that_is_nobodys_redacts_nothing(people, capsys):
    _prepare(people)
    before = Layout(people).pseudonyms.read_bytes()
    assert main(["redact", "scan-1", "Jane Doe 99"]) == 2
    assert "Jane Doe 99" in capsys.readouterr().err
    assert Layout(people).pseudonyms.read_bytes() == before
    with pytest.raises(DataError):
        read_pseudonyms(Layout(people).pseudonyms).redact(["", "scan-1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "got 119"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "expected 120 rows with the SHA-256"),
        (lambda lines: [lines[0].replace("scan-0", "scan-x"), *lines[1:]], "line 1"),
        (lambda lines: [lines[0].replace(",", ", "), *lines[1:]], "line 1"),
        (lambda lines: [*lines[:-1], "{"], "line 120"),
    ],
)
def test_a_file_that_was_changed_is_no_proof(people, capsys, change, message):
    _prepare(people)
    path = Layout(people).pseudonyms
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    assert main(["redact"]) == 4
    said = capsys.readouterr().err
    assert message in said
    assert "Jane" not in said


def test_bytes_that_are_no_text_are_refused(people):
    path = Layout(people).pseudonyms
    path.parent.mkdir()
    path.write_bytes(b"\xff\n")
    with pytest.raises(EvidenceError, match="lines of JSON"):
        _prepare(people)
