# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training: less is lost than by static int8, and the file is of the same structure."""

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from pydantic import ValidationError
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.configs import Recover
from pipeline.compress.precision_configs import StaticInt8, TrainedInt8
from pipeline.compress.recovery import recover
from pipeline.compress.static_int8 import integer_share, quantize_static_int8
from pipeline.compress.trainable_twin import Integers, TrainableTwin
from pipeline.compress.trained_int8 import Lesson, quantize_trained_int8, write_integers
from pipeline.models.export import export_onnx
from pipeline.models.recording import measure_on_validation
from pipeline.probes.session import open_session, predict
from pipeline.probes.twin import build_twin, read_graph
from tests.pass_context import context_of

TRAINING = {
    "epochs": 4, "batch_size": 16, "learning_rate": 0.003, "weight_decay": 0.0, "label_smoothing": 0.0, "max_shift": 0,
    "distill": {"soft": 0.5},
}  # fmt: skip


def _untrained():
    """A file asks for at least one epoch; none shows what reading and writing do by themselves."""
    config = TrainedInt8(recover=Recover.model_validate(TRAINING))
    return config.model_copy(update={"recover": config.recover.model_copy(update={"epochs": 0})})


class Residual(nn.Module):
    """A shortcut, a depthwise convolution, a pooling: all that shares ranges or has its own axis."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.ReLU())
        self.pointwise = nn.Conv2d(12, 12, 1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(12 * 16, 4)

    def forward(self, images):
        images = self.stem(images / 16)
        images = torch.relu(images + self.pointwise(self.depthwise(images)))
        return self.head(self.pool(images).flatten(1))


def _coarse(module):
    """The same function with one channel hundreds of times larger: the others share few steps of uint8."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        module.depthwise[0].weight[3] *= 400
        module.depthwise[0].bias[3] *= 400
        module.depthwise[0].bias[3] += 1200
        module.pointwise.bias -= module.pointwise.weight[:, 3, 0, 0] * 3
        module.pointwise.weight[:, 3] /= 400
    return module


@pytest.fixture(scope="module")
def learned():
    torch.manual_seed(0)
    fresh = Residual().eval()
    context = context_of(fresh)
    plain = Recover.model_validate({**TRAINING, "epochs": 6, "learning_rate": 0.01, "distill": None})
    return recover(fresh, plain, context).module, context.dataset


@pytest.fixture(scope="module")
def made(learned, tmp_path_factory):
    """Float, static and trained files of a network that static int8 hurts."""
    network, dataset = learned
    folder = tmp_path_factory.mktemp("trained")
    export_onnx(_coarse(network), (1, 8, 8), folder / "float.onnx")
    images = dataset.split("calibration").images
    lesson = Lesson(dataset, build_twin(folder / "float.onnx"), "logits", 0)
    quantize_static_int8(folder / "float.onnx", folder / "static.onnx", images, StaticInt8(), fold=False)
    config = TrainedInt8.model_validate({"recover": TRAINING})
    figures = quantize_trained_int8(folder / "float.onnx", folder / "trained.onnx", images, config, lesson)
    return folder, images, lesson, figures


def _initializers(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_training_wins_back_what_rounding_lost(made):
    folder, _, lesson, figures = made
    losses = {
        name: measure_on_validation(folder / f"{name}.onnx", lesson.dataset)[1]
        for name in ("float", "static", "trained")
    }
    assert losses["static"] > losses["float"] + 0.02
    assert losses["trained"] < losses["static"] - 0.02
    assert figures["untrained"]["validation_loss"] == losses["static"]


def test_the_trained_file_has_the_structure_of_the_static_one(made):
    folder, _, _, figures = made
    static, trained = (onnx.load(folder / f"{name}.onnx") for name in ("static", "trained"))
    assert integer_share(folder / "trained.onnx") == integer_share(folder / "static.onnx") == (3, 3)
    assert (figures["convolutions"], figures["integer_convolutions"]) == (3, 3)
    assert list(static.graph.node) == list(trained.graph.node)
    kinds = [[(t.name, t.data_type, t.dims) for t in model.graph.initializer] for model in (static, trained)]
    assert kinds[0] == kinds[1]
    assert (folder / "trained.onnx").stat().st_size <= (folder / "static.onnx").stat().st_size


def test_weights_and_biases_are_trained_and_activations_keep_their_ranges(made):
    folder = made[0]
    models = [onnx.load(folder / f"{name}.onnx") for name in ("static", "trained")]
    static, trained = (_initializers(folder / f"{name}.onnx") for name in ("static", "trained"))
    codes, ranges = 0, 0
    for before, after in zip(*(model.graph.node for model in models), strict=True):
        if before.op_type == "QuantizeLinear":
            ranges += 1
            for old, new in zip(before.input[1:], after.input[1:], strict=True):
                assert np.array_equal(static[old], trained[new])
        elif before.op_type == "DequantizeLinear" and before.input[0] in static:
            codes += 1
            old, new = static[before.input[0]], trained[after.input[0]]
            assert old.dtype == new.dtype
            assert not np.array_equal(old, new)
            if old.dtype == np.int8:
                assert np.abs(new.astype(int)).max() <= 127
    assert codes >= 7
    assert ranges >= 3


def test_what_was_trained_is_what_runs(made):
    folder, _, lesson, figures = made
    images = lesson.dataset.split("validation").images
    scores = predict(open_session(folder / "trained.onnx"), images, 32)
    with torch.no_grad():
        twin = build_twin(folder / "trained.onnx")(torch.from_numpy(images)).numpy()
        trainable = TrainableTwin(read_graph(folder / "trained.onnx"), {})(torch.from_numpy(images)).numpy()
    assert np.array_equal(twin, trainable)
    assert np.abs(scores - twin).mean() < 0.01 * np.abs(scores).max()
    assert np.mean(scores.argmax(1) == twin.argmax(1)) >= 0.98
    assert figures["agreement"] >= 0.98


def test_training_repeats_byte_for_byte_and_follows_the_seed(made, tmp_path):
    folder, images, lesson, figures = made
    config = TrainedInt8.model_validate({"recover": TRAINING})
    again = quantize_trained_int8(folder / "float.onnx", tmp_path / "again.onnx", images, config, lesson)
    assert (tmp_path / "again.onnx").read_bytes() == (folder / "trained.onnx").read_bytes()
    assert again == figures
    other = replace(lesson, seed=1)
    quantize_trained_int8(folder / "float.onnx", tmp_path / "other.onnx", images, config, other)
    assert (tmp_path / "other.onnx").read_bytes() != (folder / "trained.onnx").read_bytes()


def test_no_epoch_leaves_the_static_file(made, tmp_path):
    """Reading weights from a file and writing them back loses nothing."""
    folder, images, lesson, _ = made
    config = _untrained()
    quantize_trained_int8(folder / "float.onnx", tmp_path / "same.onnx", images, config, lesson)
    static, same = _initializers(folder / "static.onnx"), _initializers(tmp_path / "same.onnx")
    for name, value in static.items():
        if value.dtype == np.float32:
            assert same[name] == pytest.approx(value, rel=1e-5)
        else:
            assert np.abs(same[name].astype(np.int64) - value).max() <= (0 if value.dtype != np.int32 else 2)


def test_pruned_weights_stay_zero(learned, tmp_path):
    network, dataset = copy.deepcopy(learned[0]), learned[1]
    with torch.no_grad():
        for layer in (network.pointwise, network.head):
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0
    export_onnx(network, (1, 8, 8), tmp_path / "float.onnx")
    lesson = Lesson(dataset, build_twin(tmp_path / "float.onnx"), "logits", 0)
    config = TrainedInt8.model_validate({"recover": {**TRAINING, "epochs": 1}})
    quantize_trained_int8(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", dataset.split("calibration").images, config, lesson
    )
    floats, codes = _initializers(tmp_path / "float.onnx"), _initializers(tmp_path / "int8.onnx")
    weights = floats["pointwise.weight"]
    zeros = weights == 0
    assert 0.4 < zeros.mean() < 0.6
    [quantized] = [v for v in codes.values() if v.dtype == np.int8 and v.shape == weights.shape]
    assert (quantized[zeros] == 0).all()
    assert (quantized[~zeros] != 0).mean() > 0.8


def test_training_that_diverges_is_refused_and_leaves_nothing(made, tmp_path):
    folder, images, lesson, _ = made
    broken = replace(lesson, teacher=nn.Sequential(nn.Flatten(), nn.LazyLinear(4)).eval())
    broken.teacher(torch.from_numpy(images[:1]))
    nn.init.constant_(broken.teacher[1].weight, float("nan"))
    config = TrainedInt8.model_validate({"recover": {**TRAINING, "epochs": 1}})
    with pytest.raises(CompressionError, match="finite weights after training"):
        quantize_trained_int8(folder / "float.onnx", tmp_path / "x.onnx", images, config, broken)
    assert not (tmp_path / "x.onnx").exists()


def test_a_file_that_answers_other_than_what_was_trained_is_refused(made, tmp_path, monkeypatch):
    folder, images, lesson, _ = made
    right = TrainableTwin.integers

    def swapped(self):
        return {
            name: Integers(np.flip(value.codes, 0), value.scale) if value.codes.ndim > 1 else value
            for name, value in right(self).items()
        }

    monkeypatch.setattr(TrainableTwin, "integers", swapped)
    config = _untrained()
    with pytest.raises(CompressionError, match="decide as what was trained"):
        quantize_trained_int8(folder / "float.onnx", tmp_path / "x.onnx", images, config, lesson)
    assert not (tmp_path / "x.onnx").exists()


def test_a_float_file_has_nothing_to_train(made):
    with pytest.raises(CompressionError, match="int8 weights, got none"):
        TrainableTwin(read_graph(made[0] / "float.onnx"), {})


@pytest.mark.parametrize("portable", [True, False])
def test_portable_weights_cannot_saturate(made, portable):
    """Without VNNI, x86 sums two products in 16 bits."""
    twin = TrainableTwin(read_graph(made[0] / "static.onnx"), {}, portable=portable)
    sums = []
    for value in twin.integers().values():
        if value.codes.dtype == np.int8:
            axis = 1 if value.codes.shape[0] != len(value.scale) else 0
            rows = np.moveaxis(value.codes, axis, 0).reshape(len(value.scale), -1).astype(int)
            for side in (rows, -rows):
                pairs = np.sort(side, axis=1)[:, -2:]
                sums.append(255 * np.maximum(pairs, 0).sum(axis=1).max())
    assert (max(sums) < 2**15) == portable


def test_a_bias_that_exceeds_its_integers_widens_the_weights_scale(made):
    twin = TrainableTwin(read_graph(made[0] / "static.onnx"), {})
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1e-9 if parameter.ndim > 1 else 1e3)
    want = {
        name: parameter.detach().numpy() for name, parameter in twin.named_parameters() if parameter.ndim == 1
    }
    biases = [value for value in twin.integers().values() if value.codes.dtype == np.int32]
    assert any(np.abs(value.codes.astype(np.int64)).max() > 2**30 for value in biases)
    for value in biases:
        exact = value.codes * value.scale.astype(np.float64)
        assert any(
            exact.shape == bias.shape and np.allclose(exact, bias, rtol=1e-5) for bias in want.values()
        )


def test_a_scale_that_two_weights_share_is_parted(made, tmp_path):
    """Equal scales may be stored once; after training they differ."""
    folder, images, lesson, _ = made
    model = onnx.load(folder / "static.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and tensors.get(node.input[0]) is not None
        and tensors[node.input[0]].data_type == onnx.TensorProto.INT8
        and list(tensors[node.input[1]].dims) == [12]
    ]
    assert len(nodes) == 3
    for node in nodes[1:]:
        node.input[1] = nodes[0].input[1]
    onnx.save(model, tmp_path / "shared.onnx")
    twin = TrainableTwin(read_graph(tmp_path / "shared.onnx"), {})
    with torch.no_grad():
        for index, parameter in enumerate(twin.parameters()):
            parameter.mul_(1 + 0.1 * index)
    write_integers(onnx.load(tmp_path / "shared.onnx"), twin, tmp_path / "parted.onnx")
    shown = torch.from_numpy(images[:32])
    with torch.no_grad():
        want, came = twin(shown), build_twin(tmp_path / "parted.onnx")(shown)
    assert torch.allclose(want, came, atol=float(want.abs().max()) / 50)
    scales = [
        node.input[1]
        for node in onnx.load(tmp_path / "parted.onnx").graph.node
        if node.input[0] in {n.input[0] for n in nodes}
    ]
    assert len(set(scales)) == 3


@pytest.mark.parametrize(
    "keys", [{"precision": "bf16"}, {"distill": {"features": 1.0, "layers": ["stem"]}}, {"epochs": -1}]
)
def test_what_cannot_train_a_file_is_refused(keys):
    with pytest.raises(ValidationError):
        TrainedInt8.model_validate({"recover": {**TRAINING, **keys}})
