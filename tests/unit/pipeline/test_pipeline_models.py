# SPDX-License-Identifier: Apache-2.0
"""Networks, weights, export and cost: verified against torch, ONNX Runtime and counting by hand."""

import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from checks.errors import ModelError, ParamsError
from pipeline.models.cost import measure_cost
from pipeline.models.export import export_onnx
from pipeline.models.network import Preprocessed, build_network, load_weights, save_weights
from pipeline.models.training import LabelLoss, as_logits, make_deterministic, train_network
from pipeline.params import Model, Training
from pipeline.probes.session import open_session, predict


def _model(factory="net.py:build", **keys):
    defaults = {"code": "net.py", "weights": None, "mean": (0.3,), "std": (0.4,)}
    return Model(factory=factory, **{**defaults, **keys})


def _randomised(module):
    """Distinct statistics in every BatchNorm: identical ones would hide mistakes of fusion."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.bias.data, layer.running_mean):
                values.copy_(torch.randn_like(values))
            layer.running_var.copy_(torch.rand_like(layer.running_var) + 0.5)
    return module.eval()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    ]
    return Preprocessed(_randomised(nn.Sequential(*layers)), _model(), 16)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(network, (1, 8, 8), path)
    return path


def test_export_agrees_with_torch_on_raw_pixels_and_any_batch(network, exported):
    rng = np.random.default_rng(0)
    for count in (1, 2, 7):
        images = rng.integers(0, 17, (count, 1, 8, 8)).astype(np.float32)
        with torch.no_grad():
            want = network(torch.from_numpy(images)).numpy()
            by_hand = network.network(torch.from_numpy((images / 16 - 0.3) / 0.4)).numpy()
        np.testing.assert_allclose(predict(open_session(exported), images, 4), want, atol=1e-4)
        np.testing.assert_allclose(want, by_hand, atol=1e-4)


def test_export_holds_no_metadata_no_paths_and_repeats(network, exported, tmp_path):
    export_onnx(network, (1, 8, 8), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()
    model = onnx.load(exported, load_external_data=False)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert b"/site-packages/" not in exported.read_bytes()
    assert b"test_pipeline_models" not in exported.read_bytes()


def test_cost_is_counted_as_by_hand(exported):
    cost = measure_cost(exported)
    assert cost.macs == 64 * 9 * 6 + 64 * 9 * 6 + 24
    assert cost.bytes == exported.stat().st_size
    assert 0 < cost.gzip_bytes < cost.bytes * 1.1
    # The exporter folds BatchNorm into the first convolution, which gains six biases.
    assert cost.parameters == (9 * 6 + 6) + (9 * 6 + 6) + (24 + 4)


class _Recurrent(torch.nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.core = kind(8, 5, batch_first=True, **options)
        self.head = torch.nn.Linear(8 * (10 if options else 5), 4)

    def forward(self, x):
        return self.head(self.core(x[:, 0])[0].flatten(1))


class _Einsum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 6))
        self.left, self.right = (
            torch.nn.Parameter(torch.randn(4, 48)),
            torch.nn.Parameter(torch.randn(48, 48)),
        )

    def forward(self, x):
        mixed = torch.einsum("bcij,jk->bcik", x, self.weight).flatten(1)
        return torch.nn.functional.linear(mixed, self.left @ self.right)


class _Fused(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.core = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = torch.nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.core(x[:, 0]).flatten(1))


@pytest.mark.parametrize(
    ("build", "by_hand"),
    [
        # 8 rows are 8 steps; a step multiplies with the weights of inputs and of the state.
        (lambda: _Recurrent(torch.nn.GRU), 8 * 3 * 5 * (8 + 5) + 40 * 4),
        (lambda: _Recurrent(torch.nn.LSTM), 8 * 4 * 5 * (8 + 5) + 40 * 4),
        (lambda: _Recurrent(torch.nn.RNN), 8 * 5 * (8 + 5) + 40 * 4),
        (lambda: _Recurrent(torch.nn.GRU, bidirectional=True), 2 * 8 * 3 * 5 * (8 + 5) + 80 * 4),
        # The product of the two parameters is no work of an image.
        (_Einsum, 8 * 8 * 6 + 48 * 4),
        # Query, key, value; scores and sums of two heads; out; two layers; head.
        (_Fused, 8 * 8 * 24 + 2 * 8 * 8 * 8 + 8 * 8 * 8 + 2 * 8 * 8 * 16 + 64 * 4),
    ],
)
def test_both_counts_know_what_is_no_convolution(tmp_path, build, by_hand):
    from pipeline.compress.macs import count_macs

    torch.manual_seed(0)
    module = build().eval()
    export_onnx(module, (1, 8, 8), tmp_path / "x.onnx")
    assert measure_cost(tmp_path / "x.onnx").macs == by_hand
    # In torch the product of parameters is computed in every call.
    extra = 4 * 48 * 48 if isinstance(module, _Einsum) else 0
    assert count_macs(module, torch.zeros(1, 1, 8, 8)) == by_hand + extra


def test_cost_of_a_file_that_is_no_model_is_an_error(tmp_path, exported):
    (tmp_path / "x.onnx").write_bytes(exported.read_bytes()[:100])
    with pytest.raises(ModelError, match="ONNX"):
        measure_cost(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def build(): return 1", "torch.nn.Module"),
        ("def build(): raise RuntimeError('no weights')", "no weights"),
        ("def build(x): pass", "TypeError"),
        (
            "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))",
            r"\(2, 3\)",
        ),
        ("from torch import nn\ndef build(): return nn.Linear(5, 4)", "pass"),
        ("def other(): pass", "'build'"),
    ],
)
def test_a_broken_factory_is_named(tmp_path, code, message):
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(ModelError, match=message) as caught:
        build_network(_model(), (1, 8, 8), 4, tmp_path, 0)
    assert "model.factory" in str(caught.value)


def test_a_missing_factory_file_is_named(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        build_network(_model(), (1, 8, 8), 4, tmp_path, 0)


def test_channels_must_fit_the_means(tmp_path):
    with pytest.raises(ModelError, match="3 means"):
        build_network(_model(), (3, 8, 8), 4, tmp_path, 0)


def test_weights_round_trip_and_wrong_ones_are_refused(tmp_path):
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_weights(net, tmp_path / "w")
    load_weights(other, tmp_path / "w", "w")
    assert torch.equal(net.weight, other.weight)
    with pytest.raises(ModelError, match="this network"):
        load_weights(nn.Linear(4, 2), tmp_path / "w", "w")
    (tmp_path / "cut").write_bytes((tmp_path / "w").read_bytes()[:-4])
    with pytest.raises(ModelError, match="safetensors"):
        load_weights(other, tmp_path / "cut", "cut")
    with pytest.raises(ModelError, match="safetensors"):
        load_weights(other, tmp_path / "nothing", "nothing")
    net.weight.data[0, 0] = float("nan")
    save_weights(net, tmp_path / "nan")
    with pytest.raises(ModelError, match="finite"):
        load_weights(other, tmp_path / "nan", "nan")


def test_a_pickle_is_never_loaded(tmp_path):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="safetensors"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.pt", "w.pt")


def _task():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 128)
    images = rng.integers(0, 6, (128, 1, 4, 4)).astype(np.float32)
    images[labels == 1, :, :2] += 8
    return images, labels.astype(np.int64)


def _train(seed=0, net=None, output="logits", **keys):
    make_deterministic(0)
    net = net or nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    training = Training(
        **{
            "epochs": 8, "batch_size": 16, "learning_rate": 0.1, "weight_decay": 0.0, "label_smoothing": 0.0,
            "max_shift": 1, "noise": 0.05, "flip": True, **keys,
        }
    )  # fmt: skip
    train_network(
        net,
        *_task(),
        training,
        pixel_max=16,
        seed=seed,
        objective=LabelLoss(training.label_smoothing, output),
    )
    return net


def _accuracy(net):
    images, labels = _task()
    with torch.no_grad():
        return float((net(torch.from_numpy(images)).argmax(1).numpy() == labels).mean())


def test_training_learns_and_repeats():
    first, again, other = _train(), _train(), _train(seed=1)
    assert _accuracy(first) > 0.9
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)
    assert not first.training


def test_a_batch_larger_than_the_data_is_wrong_input():
    images = len(_task()[0])
    _train(epochs=1, batch_size=images)
    with pytest.raises(
        ParamsError, match=rf"recover.batch_size: expected .* at most the {images} images"
    ) as caught:
        _train(epochs=1, batch_size=images + 1)
    assert caught.value.exit_code == 2


def test_no_epochs_change_nothing():
    make_deterministic(0)
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    assert torch.equal(_train(epochs=0)[1].weight, fresh[1].weight)


def test_training_in_bf16_learns_and_repeats():
    first, again, exact = _train(precision="bf16"), _train(precision="bf16"), _train()
    assert _accuracy(first) > 0.9
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, exact[1].weight)
    assert first[1].weight.dtype == torch.float32


class Viewing(nn.Module):
    """A view of a feature map, which works in one memory layout alone."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Linear(64, 2)

    def forward(self, images):
        return self.last(torch.relu(self.convolution(images)).view(len(images), -1))


def test_a_network_that_views_its_feature_maps_trains():
    net = _train(net=Viewing(), learning_rate=0.02)
    assert _accuracy(net) > 0.9
    assert all(parameter.is_contiguous() for parameter in net.parameters())


def test_probabilities_are_trained_as_the_logits_behind_them():
    """A softmax inside the network and one inside the loss would be two."""
    make_deterministic(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    ending = nn.Sequential(*copy.deepcopy(plain), nn.Softmax(dim=1))
    keys = {"noise": 0.0, "label_smoothing": 0.1}
    logits, shares = _train(net=plain, **keys), _train(net=ending, output="probabilities", **keys)
    assert torch.allclose(logits[1].weight, shares[1].weight, atol=1e-3)
    doubled = _train(net=nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Softmax(dim=1)), **keys)
    assert not torch.allclose(logits[1].weight, doubled[1].weight, atol=1e-1)


def test_a_probability_of_zero_has_a_finite_logit():
    shares = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
    logits = as_logits(shares, "probabilities")
    assert torch.isfinite(logits).all()
    assert torch.allclose(torch.softmax(logits, 1), shares)
    assert torch.equal(as_logits(shares, "logits"), shares)
