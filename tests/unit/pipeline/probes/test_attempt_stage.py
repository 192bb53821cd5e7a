# SPDX-License-Identifier: Apache-2.0
"""The stage `attempt`: written down before the test split is looked at, and charged once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from checks.attempts import read_rounds
from checks.canonical import sha256_file
from checks.errors import EvidenceError
from pipeline import attempt, evaluate
from pipeline.data.dataset import content_digest
from pipeline.data.test_examples import read_test_digest
from pipeline.files import write_json

ROOT = Path(__file__).parents[4]


@pytest.fixture
def fresh(project):
    """The project with an empty attempts file and a policy."""
    shutil.copyfile(ROOT / "policy.yaml", project.layout.policy)
    project.layout.attempts_file.write_text("")
    shutil.rmtree(project.layout.attempts)
    return project


def _run(project):
    attempt.run(project.layout, project.params)
    return json.loads(project.layout.attempt("first").read_text())


def _another_candidate(project, bias):
    """Fill the slot with other bytes, and say so in the shortlist alone."""
    project.put_finalist(bias=bias)
    sha256 = sha256_file(project.finalist / "model.onnx")
    project.edit_record(project.finalist, sha256=sha256)
    project.edit_entry(sha256=sha256)


def test_finalists_are_entered_once_and_an_empty_slot_has_no_attempt(fresh):
    record = _run(fresh)
    assert record["attempt"] == 1
    assert record["candidate_sha256"] == sha256_file(fresh.finalist / "model.onnx")
    [entry] = read_rounds(fresh.layout.attempts_file)
    assert entry.policy_sha256 == sha256_file(fresh.layout.policy)
    empty = json.loads(fresh.layout.attempt("second").read_text())
    assert (empty["candidate_sha256"], empty["attempt"]) == (None, None)
    before = fresh.layout.attempts_file.read_bytes()
    fresh.layout.policy.write_text(fresh.layout.policy.read_text().replace("alpha: 0.05", "alpha: 0.04"))
    assert _run(fresh) == record  # a policy that moved makes no attempt
    assert fresh.layout.attempts_file.read_bytes() == before


def test_other_bytes_are_another_attempt_and_known_ones_are_free(fresh):
    first = _run(fresh)
    _another_candidate(fresh, (7, -7))
    assert _run(fresh)["attempt"] == 2
    _another_candidate(fresh, (9, -9))
    assert _run(fresh) == first
    assert len(read_rounds(fresh.layout.attempts_file)) == 2


def _test_digest(project, **swap):
    """What `prepare` would write down of the test split with some images in other places."""
    import pandas as pd

    manifest = pd.read_parquet(project.layout.data / "manifest.parquet")
    with np.load(project.layout.data / "examples.npz") as archive:
        pixels = archive["pixels"]
    rows = np.flatnonzero(manifest["split"] == "test")
    labels = manifest["label"].to_numpy()[rows].copy()
    images = pixels[rows]
    if swap.get("reverse"):
        images, labels = images[::-1], labels[::-1]
    if swap.get("label"):
        labels[0] = "low" if labels[0] == "high" else "high"
    if swap.get("pixel"):
        images[0, 0, 0, 0] ^= 1
    return content_digest(images, labels.tolist())


def test_a_split_is_its_images_and_labels_and_nothing_else(fresh):
    own = read_test_digest(fresh.layout.data)
    assert _test_digest(fresh) == _test_digest(fresh, reverse=True) == own
    others = {_test_digest(fresh, label=True), _test_digest(fresh, pixel=True)}
    assert len(others | {own}) == 3


def test_a_fresh_test_split_counts_from_one(fresh):
    _run(fresh)
    _another_candidate(fresh, (7, -7))
    facts = json.loads((fresh.layout.data / "data.json").read_text())
    write_json(fresh.layout.data / "data.json", facts | {"test_sha256": _test_digest(fresh, pixel=True)})
    assert _run(fresh)["attempt"] == 1


def test_a_file_that_lost_a_line_or_is_gone_stops_the_stage(fresh):
    _run(fresh)
    _another_candidate(fresh, (7, -7))
    _run(fresh)
    lines = fresh.layout.attempts_file.read_text().splitlines(keepends=True)
    fresh.layout.attempts_file.write_text(lines[1])
    with pytest.raises(EvidenceError, match=r"attempts\.jsonl line 1"):
        _run(fresh)
    fresh.layout.attempts_file.unlink()
    with pytest.raises(EvidenceError, match="no such file"):
        _run(fresh)
    assert not fresh.layout.attempts_file.exists()


def test_evaluate_looks_at_nothing_before_the_attempt_is_written_down(fresh):
    with pytest.raises(EvidenceError, match=r"attempts/first\.json"):
        evaluate.run(fresh.layout, fresh.params, slot="first")
    _run(fresh)
    _another_candidate(fresh, (7, -7))
    with pytest.raises(EvidenceError, match="the attempt of the candidate"):
        evaluate.run(fresh.layout, fresh.params, slot="first")
    _run(fresh)
    facts = json.loads((fresh.layout.data / "data.json").read_text())
    write_json(fresh.layout.data / "data.json", facts | {"test_sha256": "5" * 64})  # to count anew
    _run(fresh)
    with pytest.raises(EvidenceError, match="the attempt of the test split"):
        evaluate.run(fresh.layout, fresh.params, slot="first")
    assert not fresh.layout.evidence("first").exists()
