# SPDX-License-Identifier: Apache-2.0
"""low_rank: full rank changes nothing, a lower one errs by what it drops, and targets are met."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.configs import LowRank
from pipeline.compress.low_rank import factorize, factorize_layer
from pipeline.compress.macs import count_macs
from pipeline.models.export import cost_of
from pipeline.models.zeros import mark_zeros
from tests.pass_context import context_of


def _steep(layer, seed=0):
    """Give the layer a weight whose singular values fall, as trained ones do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        flat = layer.weight.flatten(1)
        left = torch.randn(flat.shape[0], 6, generator=generator)
        right = torch.randn(6, flat.shape[1], generator=generator)
        layer.weight.copy_(
            ((left * 0.5 ** torch.arange(6)) @ right / 20 + 0.05 * flat).reshape(layer.weight.shape)
        )
    return layer


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        _steep(nn.Conv2d(1, 16, 3, padding=1, bias=False), 1), nn.BatchNorm2d(16), nn.ReLU(),
        _steep(nn.Conv2d(16, 24, 3, padding=1), 2), nn.ReLU(),
        _steep(nn.Conv2d(24, 32, 1), 3), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), _steep(nn.Linear(512, 48), 4), nn.ReLU(), nn.Linear(48, 4),
    ).eval()  # fmt: skip


@cache
def _context():
    return context_of(_net())


LAYERS = [
    (nn.Linear(12, 20), (5, 12)),
    (nn.Linear(20, 12, bias=False), (3, 7, 20)),
    (nn.Conv2d(6, 10, 1, stride=2), (2, 6, 9, 8)),
    (nn.Conv2d(6, 10, 1, padding=1, bias=False), (2, 6, 5, 5)),
    (nn.Conv2d(6, 10, 3, padding=1), (2, 6, 9, 8)),
    (nn.Conv2d(10, 6, 3, stride=2, padding=1, bias=False), (2, 10, 9, 8)),
    (nn.Conv2d(4, 7, (5, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), (2, 4, 13, 11)),
    (nn.Conv2d(4, 7, 3, padding="same", dilation=2), (2, 4, 8, 8)),
    (nn.Conv2d(4, 7, 3, padding="valid"), (2, 4, 8, 8)),
    (nn.Conv2d(4, 7, 3, padding=1, padding_mode="reflect"), (2, 4, 8, 8)),
    (nn.Conv2d(4, 7, (3, 1), padding=(1, 0), stride=2), (2, 4, 8, 8)),
    (nn.Conv2d(4, 7, (1, 5), padding=(0, 1)), (2, 4, 8, 8)),
]


def _full(layer):
    if isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1):
        return min(layer.weight.shape[:2])
    return min(layer.in_channels * layer.kernel_size[0], layer.out_channels * layer.kernel_size[1])


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value))
def test_full_rank_computes_the_same(layer, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    pair = factorize_layer(layer, _full(layer))
    torch.testing.assert_close(pair(x), layer(x), atol=1e-5, rtol=1e-5)
    assert all(part.bias is None for part in pair[:1])


def _composed(pair):
    """Return the one weight that the two compute, by running them on unit images."""
    first, second = pair
    if isinstance(first, nn.Linear):
        return (second.weight @ first.weight).detach().numpy()
    return torch.einsum("orj,rci->ocij", second.weight[:, :, 0], first.weight[..., 0]).detach().numpy()


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_the_tail_of_singular_values(rank):
    linear, conv = LAYERS[0][0], LAYERS[4][0]
    kernel = conv.weight.detach().numpy()
    matrices = {
        linear: linear.weight.detach().numpy(),
        conv: np.concatenate(
            [np.concatenate([kernel[o, :, :, j].reshape(-1, 1) for j in range(3)], 1) for o in range(10)], 1
        ),
    }
    for layer, matrix in matrices.items():
        came = _composed(factorize_layer(layer, rank))
        error = np.linalg.norm(layer.weight.detach().numpy() - came)
        tail = np.linalg.svd(matrix, compute_uv=False)[rank:]
        assert error == pytest.approx(np.sqrt((tail**2).sum()), rel=1e-4)


@pytest.mark.parametrize("energy", [0.7, 0.95])
def test_energy_gives_the_smallest_rank_that_keeps_it(energy):
    module = _net()
    ranks = factorize(module, LowRank(energy=energy), _context()).figures["ranks"]
    for name, layer in (("5", module[5]), ("9", module[9])):
        squares = np.linalg.svd(layer.weight.detach().flatten(1).double().numpy(), compute_uv=False) ** 2
        kept = np.cumsum(squares) / squares.sum()
        full, rank = ranks[name]
        assert full == len(squares)
        assert kept[rank - 1] >= energy > (kept[rank - 2] if rank > 1 else 0)


@pytest.mark.parametrize(
    "reduction",
    [2.0, pytest.param(1.5, marks=pytest.mark.integration), pytest.param(4.0, marks=pytest.mark.integration)],
)
def test_a_reduction_is_met_closely(reduction):
    module = _net()
    before = copy.deepcopy(module.state_dict())
    result = factorize(module, LowRank(macs_reduction=reduction), _context())
    images = _context().examples(64)[0]
    allowed = _context().baseline.macs / reduction
    # One rank of the largest layer is 3 % of this small network.
    assert 0.93 * allowed < count_macs(result.module, images[:1]) <= allowed
    assert result.module(images).shape == (64, 4)
    assert list(module.state_dict()) == list(before)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    untouched = set(result.module.state_dict()) & set(before)
    assert {"1.weight", "11.weight"} <= untouched
    assert all(torch.equal(before[name], result.module.state_dict()[name]) for name in untouched)


@pytest.mark.parametrize("reduction", [1.5, 2.5, 4.0])
def test_a_reduction_of_parameters_is_met_closely(reduction):
    module, context = _net(), _context()
    result = factorize(module, LowRank(parameters_reduction=reduction), context)
    allowed = context.baseline.parameters / reduction
    left = cost_of(result.module, context.shape).parameters
    # One rank of the linear layer is 2 % of this small network's weights.
    assert 0.93 * allowed < left <= allowed
    assert result.figures["ranks"]["9"][1] < result.figures["ranks"]["9"][0]


@pytest.mark.parametrize("kind", [nn.Conv2d(1, 24, 1), nn.Conv2d(1, 24, 3, stride=(1, 2), padding=1)])
def test_strides_are_counted(kind):
    torch.manual_seed(0)
    strided = _steep(nn.Conv2d(24, 24, kind.kernel_size, stride=(2, 4), padding=kind.padding))
    module = nn.Sequential(copy.deepcopy(kind), nn.ReLU(), strided, nn.Flatten(), nn.LazyLinear(4)).eval()
    images = _context().examples(2)[0]
    module(images)
    macs = count_macs(module, images[:1])
    context = replace(_context(), baseline=replace(_context().baseline, macs=macs))
    result = factorize(module, LowRank(macs_reduction=1.3, skip=("0", "4")), context)
    assert set(result.figures["ranks"]) == {"2"}
    one_rank = count_macs(factorize_layer(strided, 1), module[:2](images[:1]))
    assert macs / 1.3 - one_rank < count_macs(result.module, images[:1]) <= macs / 1.3


def test_layers_that_share_a_weight_stay_together():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), _steep(nn.Linear(64, 64)), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    module.append(_steep(nn.Linear(64, 64), 5)).append(nn.ReLU()).append(nn.Linear(64, 4))
    module[3].weight = module[1].weight
    result = factorize(module, LowRank(energy=0.5), _context())
    assert set(result.figures["ranks"]) == {"5", "7"}
    assert result.module[3].weight is result.module[1].weight


def test_layers_give_where_their_spectrum_is_steep():
    torch.manual_seed(0)
    flat = nn.Linear(64, 64)
    nn.init.orthogonal_(flat.weight)
    module = nn.Sequential(
        nn.Flatten(), _steep(nn.Linear(64, 64)), nn.ReLU(), flat, nn.ReLU(), nn.Linear(64, 4)
    )
    macs = 2 * 64 * 64 + 64 * 4
    context = replace(_context(), baseline=replace(_context().baseline, macs=macs))
    ranks = factorize(module, LowRank(macs_reduction=1.5), context).figures["ranks"]
    assert set(ranks) == {"1"}


@pytest.mark.integration
def test_a_reduction_already_there_changes_nothing():
    module = _net()
    result = factorize(module, LowRank(macs_reduction=1.0), _context())
    assert result.figures["ranks"] == {}
    images = _context().examples(4)[0]
    assert torch.equal(result.module(images), module(images))


def test_a_reduction_out_of_reach_says_what_was_reached():
    with pytest.raises(CompressionError, match=r"reached \d+ with every rank 1"):
        factorize(_net(), LowRank(macs_reduction=500.0), _context())


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"kinds": ("linear",)}, {"9", "11"}),
        ({"kinds": ("pointwise",)}, {"5"}),
        ({"kinds": ("spatial",)}, {"0", "3"}),
        ({"skip": ("5", "0")}, {"3", "9", "11"}),
    ],
)
def test_only_layers_that_were_asked_for_change(options, left):
    assert set(factorize(_net(), LowRank(energy=0.5, **options), _context()).figures["ranks"]) == left


def test_grouped_unused_and_sparse_layers_stay():
    torch.manual_seed(0)

    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 16, 3)
            self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
            self.sparse = nn.Conv2d(16, 16, 1)
            self.spare = nn.Linear(64, 64)
            self.head = nn.Linear(256, 4)

        def forward(self, x):
            return self.head(self.sparse(self.depthwise(self.stem(x))).flatten(1))

    module = Spare().eval()
    mark_zeros(module.sparse)
    result = factorize(module, LowRank(energy=0.3), _context())
    assert set(result.figures["ranks"]) == {"stem", "head"}
    assert isinstance(result.module.depthwise, nn.Conv2d)


def test_frozen_layers_stay_frozen():
    module = _net()
    module[5].weight.requires_grad_(False)
    pair = factorize(module, LowRank(energy=0.5), _context()).module[5]
    assert [part.weight.requires_grad for part in pair] == [False, False]
    assert pair[1].bias.requires_grad


def test_nothing_to_factorize_is_an_error():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(CompressionError, match="got none"):
        factorize(module, LowRank(energy=0.5, kinds=("spatial",)), _context())
