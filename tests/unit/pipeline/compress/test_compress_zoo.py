# SPDX-License-Identifier: Apache-2.0
"""The zoo: every topology is pruned right, or refused before anything changes, naming what held it."""

import copy

import pytest
import torch

from checks.errors import CompressionError
from pipeline.compress.channels import prune_channels, prune_neurons
from pipeline.compress.configs import Channels, Neurons
from pipeline.compress.macs import count_macs
from tests import zoo

PRUNED = [name for name, topology in zoo.ZOO.items() if topology.refused is None]
REFUSED = [name for name, topology in zoo.ZOO.items() if topology.refused is not None]
NARROW = {"fused attention": 1.2, "packed attention": 1.3}
"""What little can be removed where the widths of attention must stay."""


def _images(seed=7, size=5):
    return torch.randn(size, *zoo.SHAPE, generator=torch.Generator().manual_seed(seed))


def _prune(name, criterion, reduction=1.4, seed=0, **options):
    module = zoo.build(name, seed)
    before = copy.deepcopy(module.state_dict())
    reduction = min(reduction, NARROW.get(name, reduction))
    config = Channels(macs_reduction=reduction, criterion=criterion, **options)
    result = prune_channels(module, config, zoo.context_of(module))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    macs = [count_macs(network, _images(size=1)) for network in (module, result.module)]
    assert macs[1] <= macs[0] / reduction
    assert macs[1] > macs[0] / reduction / 1.2
    return module, result


@pytest.mark.parametrize("name", PRUNED)
def test_a_pruned_network_equals_the_same_channels_at_zero(name):
    module, result = _prune(name, "l2")
    assert zoo.difference(module, result.module, _images()) < 1e-4
    for layer, reason in zoo.ZOO[name].held:
        assert reason in result.figures["kept"][layer]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(name):
    module = zoo.build(name)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(CompressionError) as caught:
        prune_channels(module, Channels(macs_reduction=1.4, criterion="l2"), zoo.context_of(module))
    assert zoo.ZOO[name].refused in str(caught.value)
    assert all(
        torch.equal(a, b) or not b.isfinite().all()
        for a, b in zip(before.values(), module.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("scope", ["global", "layer", "sensitivity"])
@pytest.mark.parametrize("name", ["residual, option A", "channel shuffle", "split and chunk"])
def test_every_scope_prunes_right(name, scope):
    module, result = _prune(name, "taylor", scope=scope)
    assert zoo.difference(module, result.module, _images()) < 1e-4


def test_neurons_are_of_hidden_linear_layers_alone():
    module = zoo.build("flatten to linear")
    result = prune_neurons(module, Neurons(macs_reduction=1.05, criterion="l1"), zoo.context_of(module))
    assert [name for name, (old, new) in result.figures["channels"].items() if old != new] == ["3"]
    assert zoo.difference(module, result.module, _images()) < 1e-4


def test_what_holds_a_target_back_is_named_with_the_closest_reduction():
    module = zoo.build("fused attention")
    with pytest.raises(CompressionError, match=r"a reduction of 1\.3") as caught:
        prune_channels(module, Channels(macs_reduction=4.0, criterion="l2"), zoo.context_of(module))
    assert "block.attention.qkv (scaled_dot_product_attention in block.attention)" in caught.value.hint


def test_frozen_and_shared_parameters_stay_so():
    module = zoo.build("shared weights")
    module.block.bias.requires_grad_(False)
    result = prune_channels(module, Channels(macs_reduction=1.4, criterion="taylor"), zoo.context_of(module))
    assert result.module.block.weight is result.module.other.weight
    assert not result.module.block.bias.requires_grad
    assert result.module.block.out_channels == result.module.block.weight.shape[0]


@pytest.mark.integration
@pytest.mark.parametrize("criterion", ["l1", "l2", "batchnorm", "taylor", "random"])
@pytest.mark.parametrize("name", PRUNED)
def test_the_whole_grid_prunes_right_and_exports(name, criterion):
    if criterion == "taylor" and zoo.ZOO[name].outputs > 1:
        pytest.skip("taylor needs one tensor of scores")
    for seed, reduction in ((1, 1.2), (2, 1.7)):
        try:
            module, result = _prune(name, criterion, reduction, seed)
        except CompressionError as refusal:
            said = refusal  # too little of this network may go, or the criterion ranks too little
        else:
            said = None
            assert zoo.difference(module, result.module, _images(seed)) < 1e-4
            if criterion in ("l2", "random"):
                assert zoo.onnx_difference(result.module, _images(seed)) < 1e-4
        assert said is None or ("reached" in said.what and said.hint.startswith("kept: "))
