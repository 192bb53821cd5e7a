# SPDX-License-Identifier: Apache-2.0
"""rescue: rungs in order, each judged on the validation split, up to the first that does no harm."""

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import recall_score
from torch import nn

from checks.errors import CompressionError, ParamsError
from pipeline.compress.configs import Recover
from pipeline.compress.precision_configs import Rescue, StaticInt8, TrainedInt8
from pipeline.compress.recovery import recover
from pipeline.compress.rescue import measure_drop, rescue
from pipeline.compress.static_int8 import quantize_static_int8
from pipeline.compress.trained_int8 import Lesson
from pipeline.models.export import export_onnx
from pipeline.probes.session import open_session, predict
from pipeline.probes.twin import build_twin
from tests.pass_context import context_of

TRAINING = {
    "epochs": 4, "batch_size": 16, "learning_rate": 0.003, "weight_decay": 0.0, "label_smoothing": 0.0, "max_shift": 0,
    "distill": {},
}  # fmt: skip
ORDER = [
    "minmax", "percentile", "mse", "equalize", "correct_bias", "keep_float_1", "keep_float_2", "keep_float_4", "trained",
]  # fmt: skip


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """The file of a network that knows the task, a lesson, and a file that can be made to lose."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 4)
    ).eval()
    context = context_of(network)
    plain = Recover.model_validate({**TRAINING, "learning_rate": 0.01, "epochs": 6, "distill": None})
    network = recover(network, plain, context).module
    folder = tmp_path_factory.mktemp("rescue")
    export_onnx(network, (1, 8, 8), folder / "float.onnx")
    export_onnx(Losing(network), (1, 8, 8), folder / "losing.onnx")
    lesson = Lesson(context.dataset, build_twin(folder / "float.onnx"), "logits", 0)
    return folder / "float.onnx", lesson, folder / "losing.onnx"


class Losing(nn.Module):
    """Answers wrongly where one pixel is not above `bound`."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("bound", torch.tensor(-1.0))

    def forward(self, images):
        wrong = (images[:, 0, 3, 3] <= self.bound).float()[:, None]
        return self.network(images) * (1 - 2 * wrong)


class Stub:
    """Makes files that lose about a stated share of the validation split; remembers what it was asked for."""

    def __init__(self, losing, losses):
        self.losing, self.losses, self.asked = losing, losses, []

    def __call__(self, source, destination, images, config, lesson):
        self.asked.append(config)
        share = self.losses(config)
        if share is None:
            raise CompressionError(f"expected what this rung can do, got {destination.parent}")
        pixels = lesson.dataset.split("validation").images[:, 0, 3, 3]
        model = onnx.load(self.losing)
        bound = next(tensor for tensor in model.graph.initializer if tensor.name == "bound")
        value = np.float32(np.quantile(pixels, share) if share else -1)
        bound.CopyFrom(onnx.numpy_helper.from_array(np.asarray(value), "bound"))
        onnx.save(model, destination)
        return {"convolutions": 1, "integer_convolutions": 1 - min(1, config.keep_float)}


def _rescue(setting, tmp_path, losses, **keys):
    source, lesson, losing = setting
    stub = Stub(losing, losses)
    config = Rescue.model_validate(
        {"method": "rescue", "max_accuracy_drop": 0.01, "max_class_drop": 0.05, **keys}
    )
    images = lesson.dataset.split("calibration").images
    try:
        return rescue(source, tmp_path / "int8.onnx", images, config, lesson, stub), stub
    except CompressionError as error:
        return error, stub


def _rungs(figures):
    return [record["rung"] for record in figures["rungs"]]


def test_the_first_rung_that_passes_is_taken(setting, tmp_path):
    figures, stub = _rescue(setting, tmp_path, lambda config: 0.0 if config.calibration == "mse" else 0.4)
    assert figures["rung"] == "mse"
    assert _rungs(figures) == ORDER[:3]
    assert [record["outcome"] for record in figures["rungs"]] == ["failed", "failed", "passed"]
    assert [config.calibration for config in stub.asked] == ["minmax", "percentile", "mse"]
    assert (tmp_path / "int8.onnx").exists()
    last = figures["rungs"][-1]
    assert last["options"]["calibration"] == "mse"
    assert (last["accuracy_drop"], last["class_drop"], last["integer_convolutions"]) == (0.0, 0.0, 1)


def test_every_rung_is_climbed_in_order_and_the_last_one_trains(setting, tmp_path):
    figures, stub = _rescue(
        setting, tmp_path, lambda config: 0.0 if isinstance(config, TrainedInt8) else 0.4, recover=TRAINING
    )
    assert _rungs(figures) == ORDER
    assert figures["rung"] == "trained"
    assert stub.asked[-1].recover.distill is not None
    assert [config.keep_float for config in stub.asked[5:8]] == [1, 2, 4]


def test_a_rung_that_asks_too_much_of_a_small_network_is_passed_over(setting, tmp_path):
    def losses(config):
        if config.keep_float == 4:
            raise ParamsError("expected keep_float below the number of layers 3, got 4", where="quantize")
        return 0.0 if isinstance(config, TrainedInt8) else 0.4

    figures, _ = _rescue(setting, tmp_path, losses, recover=TRAINING)
    assert figures["rung"] == "trained"
    assert [record["outcome"] for record in figures["rungs"]][-2:] == ["impossible", "passed"]


def test_a_rung_slower_than_float_is_passed_over_and_no_time_is_recorded(setting, tmp_path, monkeypatch):
    source, lesson, _ = setting
    asked = []

    def time_it(*_):
        asked.append(1)
        if len(asked) == 1:
            raise CompressionError("expected a file no slower than the float one, got 1.66 times its time")

    monkeypatch.setattr("pipeline.compress.rescue.refuse_slower", time_it)
    config = Rescue(method="rescue", max_accuracy_drop=0.05, max_class_drop=0.2)
    images = lesson.dataset.split("calibration").images
    figures = rescue(source, tmp_path / "int8.onnx", images, config, lesson)
    assert figures["rungs"][0]["outcome"] == "impossible"
    assert "1.66" not in str(figures["rungs"])
    assert figures["rung"] == figures["rungs"][-1]["rung"] != figures["rungs"][0]["rung"]


def test_options_that_help_are_kept_and_others_are_not(setting, tmp_path):
    def losses(config):
        helped = (
            0.1 * (config.calibration == "percentile")
            + 0.1 * config.correct_bias
            + 0.1 * (config.keep_float == 4)
        )
        return 0.5 - helped + 0.2 * config.equalize

    error, stub = _rescue(setting, tmp_path, losses)
    assert isinstance(error, CompressionError)
    assert [config.calibration for config in stub.asked] == [
        "minmax",
        "percentile",
        "mse",
        *["percentile"] * 5,
    ]
    assert [config.equalize for config in stub.asked] == [False] * 3 + [True] + [False] * 4
    assert [config.correct_bias for config in stub.asked] == [False] * 4 + [True] * 4


def test_none_that_passes_says_what_the_best_one_lost(setting, tmp_path):
    error, stub = _rescue(setting, tmp_path, lambda config: 0.2 if config.equalize else 0.4)
    assert len(stub.asked) == 8
    assert "the best of 8 rungs, equalize, loses" in error.what
    assert "give recover" in error.hint
    assert not (tmp_path / "int8.onnx").exists()
    error, stub = _rescue(setting, tmp_path, lambda config: 0.4, recover=TRAINING)
    assert len(stub.asked) == 9
    assert "give recover" not in error.hint


def test_a_rung_that_cannot_be_climbed_is_logged_without_where_it_stood(setting, tmp_path):
    figures, _ = _rescue(setting, tmp_path, lambda config: None if config.calibration == "minmax" else 0.0)
    assert [record["outcome"] for record in figures["rungs"]] == ["impossible", "passed"]
    assert figures["rungs"][0]["error"] == "expected what this rung can do, got "
    error, _ = _rescue(setting, tmp_path, lambda config: None)
    assert "the first said: expected what this rung can do" in error.what


def test_the_worst_class_counts_apart(setting, tmp_path):
    figures, _ = _rescue(setting, tmp_path, lambda config: 0.15, max_accuracy_drop=0.5, max_class_drop=0.9)
    drop = figures["rungs"][0]
    assert 0 < drop["accuracy_drop"] < 0.5
    assert drop["class_drop"] > drop["accuracy_drop"]
    error, _ = _rescue(setting, tmp_path, lambda config: 0.15, max_accuracy_drop=0.5, max_class_drop=0.001)
    assert isinstance(error, CompressionError)
    exact, _ = _rescue(
        setting,
        tmp_path,
        lambda config: 0.15,
        max_accuracy_drop=drop["accuracy_drop"],
        max_class_drop=drop["class_drop"],
    )
    assert exact["rung"] == "minmax"


def test_drops_are_those_of_recall():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    before, after = (
        np.where(rng.random(200) < share, labels, rng.integers(-1, 4, 200)) for share in (0.9, 0.6)
    )
    drop = measure_drop(before, after, labels, ("a", "b", "c", "d", "never"))
    recalls = [recall_score(labels, made, labels=range(4), average=None) for made in (before, after)]
    lost = recalls[0] - recalls[1]
    assert drop.class_accuracy == pytest.approx(lost.max())
    assert drop.worst_class == "abcd"[lost.argmax()]
    assert drop.accuracy == pytest.approx((before == labels).mean() - (after == labels).mean())
    won = measure_drop(after, before, labels, ("a", "b", "c", "d", "never"))
    assert won.accuracy == -drop.accuracy


def test_real_rungs_rescue_a_real_file(setting, tmp_path, monkeypatch):
    # A file so small is not timed: on a busy host the clock would refuse it.
    monkeypatch.setattr("pipeline.compress.rescue.refuse_slower", lambda *_: None)
    source, lesson, _ = setting
    config = Rescue(method="rescue", max_accuracy_drop=0.05, max_class_drop=0.2)
    images = lesson.dataset.split("calibration").images
    figures, again = (
        rescue(source, tmp_path / name, images, config, lesson) for name in ("a.onnx", "b.onnx")
    )
    assert figures == again
    assert figures["rung"] == "minmax"
    assert figures["integer_convolutions"] == figures["convolutions"] == 1
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    quantize_static_int8(source, tmp_path / "static.onnx", images, StaticInt8())
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "static.onnx").read_bytes()
    split = lesson.dataset.split("validation")
    right = (predict(open_session(tmp_path / "a.onnx"), split.images, 32).argmax(1) == split.labels).mean()
    assert figures["rungs"][0]["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("keys", [{"max_accuracy_drop": 0}, {"recover": {**TRAINING, "precision": "bf16"}}])
def test_wrong_options_are_refused(keys):
    with pytest.raises(ValidationError):
        Rescue.model_validate({"method": "rescue", "max_accuracy_drop": 0.01, "max_class_drop": 0.05, **keys})
