# SPDX-License-Identifier: Apache-2.0
"""The stage `time`: a table that `gate` accepts, about the recorded models and no others."""

from __future__ import annotations

import json

import numpy as np
import pytest

from checks.errors import InputError, ModelError
from checks.tables import Subject, read_table
from checks.timing import read_timing
from pipeline import time as stage


def test_the_table_says_what_was_timed_and_how(project):
    stage.run(project.layout, project.params, slot="first")
    assert [path.name for path in project.layout.timing("first").iterdir()] == ["timing.npz"]
    header, arrays = read_table(project.layout.timing("first") / "timing.npz", "leangate/timing/1")
    records = [
        json.loads((folder / "model.json").read_text()) for folder in (project.baseline, project.finalist)
    ]
    assert [header["baseline_sha256"], header["candidate_sha256"]] == [record["sha256"] for record in records]
    assert header["code_sha256"] == "c" * 64
    assert header["batch_sizes"] == [1, 3]
    assert header["threads"] == 1
    assert header["providers"] == dict.fromkeys(
        ("declared", "baseline", "candidate", "control"), ["CPUExecutionProvider"]
    )
    assert header["onnxruntime"]
    assert set(header["load_average"]) == {"before", "after"}
    assert str(project.layout.root) not in json.dumps(header)
    for name in ("baseline_ms", "candidate_ms", "control_ms"):
        assert arrays[name].shape == (2, 2, 2)
        assert (arrays[name] > 0).all()
    for name in ("baseline_peak_bytes", "candidate_peak_bytes"):
        assert arrays[name].shape == (2,)
        assert arrays[name].dtype == np.int64
    for name in ("baseline", "candidate"):
        assert arrays[f"{name}_calls_ms"].shape == (2, 2, 2, 1)
        assert arrays[f"{name}_processor_s"].shape == (2, 2, 2)
    assert all(
        (f"{name}_energy_uj" in arrays) == bool(header["energy_counters"])
        for name in ("baseline", "candidate")
    )


def test_the_gate_reads_what_was_timed(project):
    stage.run(project.layout, project.params, slot="first")
    records = [
        json.loads((folder / "model.json").read_text()) for folder in (project.baseline, project.finalist)
    ]
    subject = Subject(*(record["sha256"] for record in records), "d" * 64, "c" * 64)
    timing = read_timing(project.layout.timing("first") / "timing.npz", subject)
    assert timing.batch_sizes == (1, 3)
    assert not timing.baseline_providers.fell_back


def test_an_empty_slot_leaves_only_word_of_it(project):
    stage.run(project.layout, project.params, slot="second")
    (only,) = project.layout.timing("second").iterdir()
    assert json.loads(only.read_text()) == {"schema": "leangate/absent/1", "slot": "second"}


def test_a_slot_that_does_not_exist_is_wrong_input(project):
    with pytest.raises(InputError, match="third"):
        stage.run(project.layout, project.params, slot="third")


@pytest.mark.parametrize("folder", ["baseline", "finalist"])
def test_a_changed_model_is_refused(project, folder):
    path = getattr(project, folder) / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ModelError):
        stage.run(project.layout, project.params, slot="first")
    assert not project.layout.timing("first").exists()


def test_a_model_with_weights_elsewhere_is_refused(project):
    """Its digest would stand for a file that is only half of it."""
    import onnx

    model = onnx.load(project.finalist / "model.onnx")
    onnx.save(
        model, project.finalist / "model.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    project.list_finalist()
    with pytest.raises(ModelError, match="other files"):
        stage.run(project.layout, project.params, slot="first")
