# SPDX-License-Identifier: Apache-2.0
"""`model.json` says what a file answers, and its loss follows from that."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from sklearn.metrics import log_loss

from checks.errors import ModelError
from pipeline.data.dataset import read_dataset
from pipeline.models.record import read_record
from pipeline.models.recording import measure_on_validation, record_model
from pipeline.probes.session import open_session, predict


@pytest.fixture
def files(write_onnx):
    """The same model twice: with logits, and with a softmax at its end."""
    weights = {"weight": (np.array([[-1, 1]] * 64) / 64).astype(np.float32), "bias": np.float32([8, -8])}
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"]),
    ]
    logits = write_onnx("logits.onnx", nodes, weights)
    nodes[1].output[0] = "logits"
    nodes.append(helper.make_node("Softmax", ["logits"], ["scores"], axis=-1))
    return logits, write_onnx("probabilities.onnx", nodes, weights)


def test_the_loss_is_that_of_the_probabilities_whatever_the_file_answers(project, files):
    dataset = read_dataset(project.layout.data)
    split = dataset.split("validation")
    logits, probabilities = files
    shares = predict(open_session(probabilities), split.images, 10)
    exact = shares.astype(np.float64)
    want = log_loss(split.labels, exact / exact.sum(axis=1, keepdims=True), labels=[0, 1])
    accuracy, loss = measure_on_validation(logits, dataset)
    assert loss == pytest.approx(want, rel=1e-4)
    assert measure_on_validation(probabilities, dataset, output="probabilities") == pytest.approx(
        (accuracy, want), rel=1e-4
    )


def test_logits_that_are_called_probabilities_are_refused(project, files):
    with pytest.raises(ModelError, match="expected probabilities") as caught:
        measure_on_validation(files[0], read_dataset(project.layout.data), output="probabilities")
    assert "model.output" in caught.value.hint


def test_the_record_says_what_the_file_answers(project, files):
    dataset = read_dataset(project.layout.data)
    assert record_model(files[0], "m", dataset)["output"] == "logits"
    assert record_model(files[1], "m", dataset, output="probabilities")["output"] == "probabilities"


@pytest.mark.parametrize("output", [None, "softmax", 1])
def test_a_record_that_does_not_say_it_is_refused(project, output):
    project.edit_record(project.baseline, output=output)
    with pytest.raises(ModelError, match="expected output among"):
        read_record(project.baseline)
