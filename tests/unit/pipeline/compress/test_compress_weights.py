# SPDX-License-Identifier: Apache-2.0
"""weights: the asked share is zero, the same weights as torch's own pruning, and training keeps them zero."""

import copy
from dataclasses import replace
from functools import cache

import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils import prune

from checks.errors import CompressionError, ParamsError
from pipeline.compress.channels import prune_channels
from pipeline.compress.configs import Channels, Recover, Weights
from pipeline.compress.recovery import recover
from pipeline.compress.weights import prune_weights
from pipeline.models.export import export_onnx
from tests.pass_context import context_of


@cache
def _context():
    return context_of(_net())


RECOVER = Recover(
    epochs=2, batch_size=16, learning_rate=0.01, weight_decay=0.01, label_smoothing=0.0, max_shift=1
)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(48, 4),
    ).eval()  # fmt: skip


def _layers(module):
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def _prune(module, **options):
    return prune_weights(module, Weights(**options), _context())


@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize("sparsity", [0.3, 0.77])
def test_global_magnitude_is_what_torch_prunes(sparsity, criterion):
    module, reference = _net(), _net()
    pruned = _prune(module, sparsity=sparsity, criterion=criterion).module
    pairs = [(layer, "weight") for layer in _layers(reference).values()]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=sparsity)
    for name, layer in _layers(reference).items():
        assert torch.equal(pruned.get_submodule(name).weight, layer.weight)


def test_magnitude_in_each_layer_is_what_torch_prunes():
    module, reference = _net(), _net()
    pruned = _prune(module, sparsity=0.6, scope="layer").module
    for name, layer in _layers(reference).items():
        prune.l1_unstructured(layer, "weight", amount=0.6)
        assert torch.equal(pruned.get_submodule(name).weight, layer.weight)


@pytest.mark.parametrize("criterion", ["l1", "taylor", "random"])
def test_the_share_is_met_exactly_and_nothing_else_changes(criterion):
    module = _net()
    before = copy.deepcopy(module.state_dict())
    result = _prune(module, sparsity=0.5, criterion=criterion)
    sizes, zeros = zip(*result.figures["zeros"].values(), strict=True)
    assert sum(zeros) == round(0.5 * sum(sizes))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    after = result.module.state_dict()
    assert list(after) == list(before)
    for name, value in after.items():
        kept = value != 0
        assert torch.equal(value[kept], before[name][kept])
        if not name.endswith("weight") or value.ndim == 1:
            assert torch.equal(value, before[name])


def test_equals_are_taken_in_order():
    module = _net()
    with torch.no_grad():
        for layer in _layers(module).values():
            layer.weight.fill_(0.1)
    weight = _prune(module, sparsity=0.5, scope="layer").module[3].weight.flatten()
    half = len(weight) // 2
    assert not weight[:half].any()
    assert (weight[half:] != 0).all()


def test_taylor_is_weight_times_gradient():
    module = _net()
    context = _context()
    pruned = prune_weights(module, Weights(sparsity=0.4, criterion="taylor"), context).module
    images, labels = context.examples()
    twin = _net()
    scores = 0
    for batch, target in zip(images.split(32), labels.split(32), strict=True):
        twin.zero_grad()
        nn.functional.cross_entropy(twin(batch), target).backward()
        products = [(layer.weight * layer.weight.grad).flatten() for layer in _layers(twin).values()]
        scores = scores + torch.cat(products).detach() ** 2
    gone = torch.cat([pruned.get_submodule(name).weight.flatten() == 0 for name in _layers(twin)])
    assert scores[gone].max() <= scores[~gone].min() * (1 + 1e-4)


def test_two_in_every_four_inputs_are_zero():
    module = _net()
    result = _prune(module, sparsity=0.5, pattern="2:4")
    for name in ("3", "7"):
        weight, old = result.module.get_submodule(name).weight, module.get_submodule(name).weight
        fours = weight.movedim(1, -1).reshape(-1, 4)
        assert ((fours == 0).sum(1) == 2).all()
        # The two that stay are the two largest.
        kept = fours.abs().sort(1).values[:, 2:]
        assert torch.equal(kept, old.movedim(1, -1).reshape(-1, 4).abs().sort(1).values[:, 2:])
    # One input channel makes no group of four.
    assert torch.equal(result.module[0].weight, module[0].weight)
    assert result.figures["zeros"]["0"] == [72, 0]


def test_two_in_four_can_be_approached():
    module = _net()
    part = prune_weights(
        module,
        Weights(sparsity=0.5, pattern="2:4").model_copy(update={"sparsity": 0.2}),
        _context(),
    )
    whole = _prune(module, sparsity=0.5, pattern="2:4")
    for name in ("3", "7"):
        some, all_ = (result.module.get_submodule(name).weight == 0 for result in (part, whole))
        assert not (some & ~all_).any()
    size = 12 * 8 * 9 + 4 * 48
    assert sum(zeros for _, zeros in part.figures["zeros"].values()) == round(0.2 * size)


def test_no_layer_with_inputs_in_fours_is_an_error():
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(3 * 36, 4))
    with pytest.raises(CompressionError, match="multiple of 4"):
        _prune(module, sparsity=0.5, pattern="2:4", skip=("2",))


def test_what_is_zero_already_counts_even_at_random():
    options = {"criterion": "random", "scope": "layer"}
    first = _prune(_net(), sparsity=0.3, **options).module
    figures = prune_weights(first, Weights(sparsity=0.6, **options), replace(_context(), seed=9)).figures
    assert all(zeros == round(0.6 * size) for size, zeros in figures["zeros"].values())


def test_what_is_skipped_stays_and_is_not_counted():
    module = _net()
    result = _prune(module, sparsity=0.5, skip=("3",))
    assert set(result.figures["zeros"]) == {"0", "7"}
    assert torch.equal(result.module[3].weight, module[3].weight)
    with pytest.raises(ParamsError, match="'stem'"):
        _prune(module, sparsity=0.5, skip=("stem",))


def test_zeros_stay_through_training_and_other_weights_move():
    module = _net()
    pruned = _prune(module, sparsity=0.5, skip=("7",)).module
    trained = recover(copy.deepcopy(pruned), RECOVER, _context()).module
    for name in ("0", "3"):
        before, after = pruned.get_submodule(name).weight, trained.get_submodule(name).weight
        assert torch.equal(before == 0, after == 0)
        assert not torch.signbit(after[after == 0]).any()
        assert (before[before != 0] != after[before != 0]).any()


def test_a_zero_nobody_pruned_is_free_to_move():
    module = _net()
    with torch.no_grad():
        module[7].weight[0] = 0
    assert recover(module, RECOVER, _context()).module[7].weight[0].all()


def test_zeros_stay_after_channels_were_removed():
    module = _net()
    context = _context()
    sparse = prune_weights(module, Weights(sparsity=0.5), context).module
    narrow = prune_channels(sparse, Channels(macs_reduction=2.0), context).module
    trained = recover(narrow, RECOVER, context).module
    zeros = 0
    for name, layer in _layers(narrow).items():
        assert torch.equal(layer.weight == 0, trained.get_submodule(name).weight == 0)
        zeros += int((layer.weight == 0).sum())
    assert zeros > 0
    assert narrow[0].out_channels < 8


@pytest.mark.integration
def test_what_holds_zeros_is_not_exported(tmp_path):
    module = _net()
    pruned = _prune(module, sparsity=0.5).module
    plain = _net()
    plain.load_state_dict(pruned.state_dict(), strict=True)
    for name, network in (("pruned", pruned), ("plain", plain)):
        export_onnx(network, (1, 8, 8), tmp_path / f"{name}.onnx")
    assert (tmp_path / "pruned.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()
    onnx.checker.check_model(tmp_path / "pruned.onnx")


def test_a_layer_without_any_weight_left_is_refused():
    module = _net()
    with torch.no_grad():
        module[7].weight.mul_(1e-6)
    with pytest.raises(CompressionError, match="only zeros in \\['7'\\]"):
        _prune(module, sparsity=0.9)
    assert _prune(module, sparsity=0.9, scope="layer").module[7].weight.any()


def test_shared_weights_count_once_and_computed_ones_stay():
    module = _net()
    twice = nn.Sequential(
        module[0], module[3], nn.Conv2d(12, 8, 1), nn.Conv2d(8, 12, 3, padding=1), nn.Flatten()
    )
    twice[3].weight = twice[1].weight
    nn.utils.parametrizations.weight_norm(twice[2])
    result = prune_weights(twice.eval(), Weights(sparsity=0.5), _context())
    assert result.figures["zeros"].keys() == {"0", "1"}
    assert sum(zeros for _, zeros in result.figures["zeros"].values()) == (72 + 864) // 2
    assert result.module[3].weight is result.module[1].weight


def test_frozen_weights_are_pruned_and_stay_frozen():
    module = _net()
    module[3].weight.requires_grad_(False)
    result = _prune(module, sparsity=0.5, criterion="taylor", scope="layer")
    assert not result.module[3].weight.requires_grad
    assert result.figures["zeros"]["3"] == [864, 432]


@pytest.mark.parametrize("criterion", ["batchnorm", "best"])
def test_criteria_of_channels_are_refused(criterion):
    with pytest.raises(ValidationError):
        Weights(sparsity=0.5, criterion=criterion)
