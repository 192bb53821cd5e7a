# SPDX-License-Identifier: Apache-2.0
"""blocks: residual blocks are found by what they compute, and the least useful are removed."""

import copy
from functools import cache

import pytest
import torch
from torch import nn

from checks.errors import CompressionError, ParamsError
from pipeline.compress.blocks import find_blocks, remove_blocks
from pipeline.compress.configs import Blocks
from pipeline.compress.macs import count_macs
from tests.pass_context import context_of


@cache
def _context():
    return context_of(_net())


class Block(nn.Module):
    """A basic block; with another width it projects its input."""

    def __init__(self, inputs, outputs=None):
        super().__init__()
        outputs = outputs or inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.short = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.short(x))


class Plain(nn.Module):
    """The same convolution without a shortcut."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x))


class Gate(nn.Module):
    """Squeeze and excitation keeps the shape and passes its input on, scaled; it adds nothing to it."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class Scaled(nn.Module):
    """Parameters of its own that no layer holds."""

    def __init__(self, inner, width):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(width, 1, 1))
        self.shift = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x):
        return x + self.scale * self.inner(x) + self.shift


class Tokens(nn.Module):
    """Pixels as tokens through a pre-norm transformer layer."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class InPlace(nn.Module):
    """Pre-activation, whose first operation overwrites the input."""

    def __init__(self, width):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        y = self.relu(x)
        return x + self.conv(y)


class GateInPlace(Gate):
    """The gate, multiplied into its input."""

    def forward(self, x):
        return x.mul_(torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None])


class Net(nn.Module):
    """Two stages of basic blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.stage1 = nn.Sequential(Block(8), Block(8))
        self.stage2 = nn.Sequential(Block(8, 12), Block(12), Plain(12), Gate(12))
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.stage2(self.stage1(torch.relu(self.stem(x)))).mean((2, 3)))


def _net(seed=0):
    torch.manual_seed(seed)
    module = Net()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.bias.data.normal_()
    return module.eval()


def _found(*layers):
    return find_blocks(nn.Sequential(*layers).eval(), torch.rand(2, 8, 4, 4))


def test_blocks_are_found_and_stages_plain_layers_gates_and_projections_are_not():
    assert find_blocks(_net(), torch.rand(2, 1, 8, 8)) == ["stage1.0", "stage1.1", "stage2.1"]


def test_of_blocks_in_blocks_the_outermost_counts():
    assert _found(Scaled(Block(8), 8), Scaled(nn.Sequential(Block(8), Block(8)), 8)) == ["0", "1"]
    assert _found(nn.Sequential(nn.Sequential(Block(8), Block(8)), nn.ReLU())) == ["0.0.0", "0.0.1"]


def test_a_transformer_layer_is_a_block():
    embed, unembed = nn.Sequential(nn.Flatten(2), nn.Linear(16, 8)), nn.Flatten()
    assert _found(embed, Tokens(8), unembed) == ["1"]


def test_what_overwrites_its_input_is_judged_by_what_went_in():
    assert _found(nn.Conv2d(8, 8, 1), InPlace(8), GateInPlace(8)) == ["1"]


def test_similarity_compares_with_what_went_in():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 1), InPlace(8), nn.Flatten(), nn.Linear(512, 4)).eval()
    images = _context().examples()[0]
    with torch.no_grad():
        given = module[0](images)
        came = module[1](given.clone())
    cosine = nn.functional.cosine_similarity(given.flatten(1), came.flatten(1)).mean()
    [entry] = remove_blocks(module, Blocks(remove=1, criterion="similarity"), _context()).figures["removed"]
    assert entry["similarity"] == pytest.approx(1 - float(cosine), abs=1e-5)


def test_a_block_that_runs_twice_is_none():
    block = Block(8)
    assert _found(block, nn.ReLU(), block, Block(8)) == ["3"]


@pytest.mark.parametrize("criterion", ["loss", "similarity"])
def test_removing_leaves_the_rest_as_it_was(criterion):
    module = _net()
    before = copy.deepcopy(module.state_dict())
    result = remove_blocks(module, Blocks(remove=2, criterion=criterion), _context())
    gone = [entry["name"] for entry in result.figures["removed"]]
    assert len(gone) == 2
    state = result.module.state_dict()
    assert set(state) == {name for name in before if not name.startswith(tuple(f"{name}." for name in gone))}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert all(torch.equal(before[name], state[name]) for name in state if not name.endswith(statistics))
    assert {layer.momentum for layer in result.module.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}
    assert not any(layer.training for layer in result.module.modules())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    image = torch.rand(1, 1, 8, 8)
    assert count_macs(result.module, image) < count_macs(module, image)
    assert sorted([*gone, *result.figures["kept"]]) == ["stage1.0", "stage1.1", "stage2.1"]


def test_what_is_removed_raises_the_loss_least():
    module = _net()
    context = _context()
    images, labels = context.examples()
    losses = {}
    for name in ("stage1.0", "stage1.1", "stage2.1"):
        shorter = copy.deepcopy(module)
        stage, index = name.split(".")
        getattr(shorter, stage)[int(index)] = nn.Identity()
        # Of one batch, the statistics in training mode are the ones to be estimated.
        for layer in shorter.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            shorter.train()(images)
            losses[name] = float(nn.functional.cross_entropy(shorter.eval()(images), labels))
    [entry] = remove_blocks(module, Blocks(remove=1), context).figures["removed"]
    assert entry["name"] == min(losses, key=losses.get)
    assert entry["loss"] == pytest.approx(losses[entry["name"]], rel=1e-5)


def test_what_does_nothing_goes_first():
    module = _net()
    with torch.no_grad():
        for parameter in module.stage1[1].bn2.parameters():
            parameter.zero_()
    [entry] = remove_blocks(module, Blocks(remove=1, criterion="similarity"), _context()).figures["removed"]
    assert entry["name"] == "stage1.1"
    assert entry["similarity"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("skip", [("stage1",), ("stage1.0", "stage1.1")])
def test_what_is_skipped_stays(skip):
    module = _net()
    result = remove_blocks(module, Blocks(remove=1, skip=skip), _context())
    assert [entry["name"] for entry in result.figures["removed"]] == ["stage2.1"]
    with pytest.raises(ParamsError, match="'head'"):
        remove_blocks(module, Blocks(remove=1, skip=("head",)), _context())


def test_more_than_there_are_is_an_error_that_names_them():
    module = _net()
    with pytest.raises(CompressionError, match=r"got 3: \['stage1.0', 'stage1.1', 'stage2.1'\]"):
        remove_blocks(module, Blocks(remove=4), _context())
    with pytest.raises(CompressionError, match=r"got 1: .*stage1.0.* under `skip`"):
        remove_blocks(module, Blocks(remove=2, skip=("stage1",)), _context())


def test_a_network_that_needs_its_block_is_refused():
    class Nosy(Net):
        def forward(self, x):
            return super().forward(x) + 0 * self.stage2[1].conv1.weight.sum()

    torch.manual_seed(0)
    module = Nosy().eval()
    with pytest.raises(CompressionError, match="without stage2.1.*expected the changed network to run"):
        remove_blocks(module, Blocks(remove=1), _context())
