# SPDX-License-Identifier: Apache-2.0
"""Every precision: recorded, attackable, refused where it is slow, and the source untouched."""

import numpy as np
import pytest
from pydantic import TypeAdapter

import pipeline.compress.precisions as precisions
from checks.canonical import dumps
from checks.errors import CompressionError
from pipeline.compress.precision_configs import QuantizeRecipe
from pipeline.compress.precisions import METHODS, Job, quantize_file
from pipeline.compress.trained_int8 import Lesson
from pipeline.models.recording import record_model
from pipeline.probes.twin import build_twin
from tests.onnx_nets import residual_net
from tests.pass_context import dataset_of

CONFIG = TypeAdapter(QuantizeRecipe)


RECOVER = {
    "epochs": 1,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "max_shift": 0,
}
NEEDED = {"trained": {"recover": RECOVER}, "rescue": {"max_accuracy_drop": 0.9, "max_class_drop": 1.0}}


@pytest.fixture(scope="module")
def dataset():
    return dataset_of()


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch):
    # So small a net may well be slower in int8, the more so on a busy machine: its speed is not asked here.
    monkeypatch.setattr(precisions, "refuse_slower", lambda *_: None)


def _job(tmp_path, dataset, method, **options):
    source = residual_net(tmp_path / "float.onnx")
    config = CONFIG.validate_python({"method": method, **NEEDED.get(method, {}), **options})
    images = dataset.split("calibration").images

    def lesson():
        return Lesson(dataset, build_twin(source), "logits", 0)

    return Job(source, tmp_path / "made.onnx", config, images, "logits", lesson)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_every_precision_can_be_recorded_and_attacked(tmp_path, dataset, method):
    import torch

    job = _job(tmp_path, dataset, method)
    before = job.source.read_bytes()
    figures = quantize_file(job)
    assert dumps(figures)
    assert job.source.read_bytes() == before
    record = record_model(job.destination, "dense-x", dataset)
    float_record = record_model(job.source, "dense", dataset)
    for key in ("macs", "parameters"):
        assert record[key] == float_record[key]
    assert (record["bytes"] < float_record["bytes"]) is (method != "none")
    pixels = torch.from_numpy(job.images[:4]).requires_grad_()
    build_twin(job.destination)(pixels).sum().backward()
    assert np.isfinite(pixels.grad.numpy()).all()
    assert pixels.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ["static", "dynamic", "weights"])
def test_what_is_slower_than_float_is_refused_and_removed(tmp_path, dataset, monkeypatch, method):
    def refuse(source, candidate, images):
        assert candidate.exists()
        raise CompressionError("slow")

    monkeypatch.setattr(precisions, "refuse_slower", refuse)
    job = _job(tmp_path, dataset, method)
    with pytest.raises(CompressionError, match="slow"):
        quantize_file(job)
    assert not job.destination.exists()


@pytest.mark.parametrize("method", ["none", "fp16"])
def test_what_is_no_int8_is_not_timed(tmp_path, dataset, monkeypatch, method):
    monkeypatch.setattr(precisions, "refuse_slower", lambda *_: pytest.fail("timed"))
    quantize_file(_job(tmp_path, dataset, method))
