# SPDX-License-Identifier: Apache-2.0
"""channels: targets are met, and what was pruned equals the same channels at zero."""

import copy

import pytest
import torch
from torch import nn

from checks.errors import CompressionError
from pipeline.compress.channels import count_macs, prune_channels
from pipeline.compress.configs import Channels
from tests.pass_context import context_of


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12),
        )  # fmt: skip
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.block(x))
        return self.head(x.mean((2, 3)))


class Shuffle(nn.Module):
    """Channel shuffle, which torch-pruning traces wrongly."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


class PaddedShortcut(nn.Module):
    """The option-A shortcut of the first residual networks: channels padded with zeros, no weights."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(torch.relu(self.second(x) + short).mean((2, 3)))


def _plain():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 16, 4),
    )  # fmt: skip


def _randomised(module, seed=0):
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.bias.data, layer.running_mean):
                values.copy_(torch.randn_like(values))
            layer.running_var.copy_(torch.rand_like(layer.running_var) + 0.5)
    return module.eval()


def _prune(module, reduction, criterion="taylor", **options):
    context = context_of(module)
    config = Channels(macs_reduction=reduction, criterion=criterion, **options)
    return prune_channels(module, config, context), context.examples(64)[0], context.baseline.macs


@pytest.mark.parametrize("criterion", ["l1", "l2", "batchnorm", "taylor", "random"])
@pytest.mark.parametrize("build", [_plain, Residual])
def test_pruning_meets_its_target_and_changes_nothing_else(build, criterion):
    torch.manual_seed(0)
    module = _randomised(build())
    before = copy.deepcopy(module.state_dict())
    result, images, macs = _prune(module, 2.0, criterion)
    after = count_macs(result.module, images[:1])
    assert macs / 4 < after <= macs / 2
    assert result.module(images).shape == (64, 4)
    assert sum(after < width for width, after in result.figures["channels"].values()) >= 1
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_frozen_layers_are_pruned_and_stay_frozen():
    torch.manual_seed(0)
    module = _randomised(Residual())
    module.block[0].weight.requires_grad_(False)
    result, images, macs = _prune(module, 2.0)
    assert count_macs(result.module, images[:1]) <= macs / 2
    assert [parameter.requires_grad for parameter in result.module.parameters()] == [
        parameter.requires_grad for parameter in module.parameters()
    ]


def test_pruning_repeats():
    torch.manual_seed(0)
    module = _randomised(Residual())
    first, again = (_prune(module, 3.0)[0].module for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_factor_of_one_prunes_nothing():
    module = _randomised(_plain())
    result, images, macs = _prune(module, 1.0)
    assert count_macs(result.module, images[:1]) == macs
    assert torch.equal(result.module(images), module(images))


def test_channel_counts_are_multiples_when_asked():
    torch.manual_seed(0)
    result, images, macs = _prune(_randomised(_plain()), 2.0, "l2", round_to=4)
    assert all(after % 4 == 0 for _, after in result.figures["channels"].values())
    assert count_macs(result.module, images[:1]) <= macs / 2


@pytest.mark.parametrize("build", [Shuffle, PaddedShortcut])
def test_what_cannot_be_traced_is_pruned_right_or_refused(build):
    torch.manual_seed(0)
    module = _randomised(build())
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(CompressionError):
        _prune(module, 2.0, "l2")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_target_out_of_reach_says_what_was_reached():
    with pytest.raises(CompressionError, match="reached"):
        _prune(_randomised(_plain()), 100.0, "l2")
