# SPDX-License-Identifier: Apache-2.0
"""iterate and gradual: targets move as their formulas say, and a training in parts is one training."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from checks.errors import ParamsError
from pipeline.compress.configs import Gradual, Iterate, Recover
from pipeline.compress.macs import count_macs
from pipeline.compress.recovery import recover
from pipeline.compress.schedules import iterate, shrink_gradually
from pipeline.models.training import Part, count_steps, train_network
from tests.pass_context import context_of

RECOVER = {
    "epochs": 4, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0,
    "max_shift": 0,
}  # fmt: skip
STEPS = 4 * (96 // 16)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 4),
    ).eval()  # fmt: skip


@cache
def _context():
    return context_of(_net())


def _gradual(shrink, **options):
    config = Gradual.model_validate({"shrink": shrink, "recover": RECOVER} | options)
    return shrink_gradually(_net(), config, _context())


def _sparsity(figures):
    sizes, zeros = zip(*figures["zeros"].values(), strict=True)
    return sum(zeros) / sum(sizes)


@pytest.mark.parametrize("shrink", [{"sparsity": 0.875}, {"sparsity": 0.5, "pattern": "2:4", "skip": ("0",)}])
def test_iterating_thins_weights_on_a_geometric_path(shrink):
    config = Iterate.model_validate(
        {"steps": 3, "shrink": {"weights": shrink}, "recover": RECOVER | {"epochs": 1}}
    )
    result = iterate(_net(), config, _context())
    kept = 1 - shrink["sparsity"]
    came = [1 - _sparsity(step) for step in result.figures["steps"]]
    assert came == pytest.approx([kept ** (1 / 3), kept ** (2 / 3), kept], abs=1e-3)
    zeros = sum(int((value == 0).sum()) for value in result.module.parameters() if value.ndim > 1)
    assert zeros == sum(zeros for _, zeros in result.figures["steps"][-1]["zeros"].values())


def test_iterating_removes_channels_on_a_geometric_path():
    config = Iterate.model_validate(
        {"steps": 2, "shrink": {"channels": {"macs_reduction": 3.0}}, "recover": RECOVER | {"epochs": 1}}
    )
    first, last = iterate(_net(), config, _context()).figures["steps"]

    def macs(step):
        (_, one), (_, two) = step["channels"]["0"], step["channels"]["2"]
        return 64 * 9 * one + 64 * 9 * one * two + 16 * two * 4

    whole = _context().baseline.macs
    assert whole / 3 < macs(first) <= whole / 3**0.5
    assert whole / 6 < macs(last) <= whole / 3


def test_gradual_sparsity_follows_the_cubic_ramp():
    result = _gradual({"weights": {"sparsity": 0.8}}, events=4, until=0.5)
    events = result.figures["events"]
    assert [event["step"] for event in events] == [3, 6, 9, 12]
    # Zhu and Gupta 2017, equation 1, from nothing to 0.8 in four events.
    want = [0.8 + (0 - 0.8) * (1 - event / 4) ** 3 for event in (1, 2, 3, 4)]
    assert [_sparsity(event) for event in events] == pytest.approx(want, abs=1e-3)
    weights = [value for value in result.module.parameters() if value.ndim > 1]
    zeros = sum(int((value == 0).sum()) for value in weights)
    assert zeros == round(0.8 * sum(value.numel() for value in weights))
    assert result.figures["training_macs_share"] == 1


def test_gradual_channels_leave_early_so_that_training_costs_less():
    module = _net()
    before = copy.deepcopy(module.state_dict())
    config = Gradual.model_validate(
        {"shrink": {"channels": {"macs_reduction": 3.0}}, "recover": RECOVER, "events": 3, "until": 0.5}
    )
    result = shrink_gradually(module, config, _context())
    whole = _context().baseline.macs
    image = _context().examples(1)[0]
    assert count_macs(result.module, image) <= whole / 3
    widths = np.array(
        [[after for _, after in event["channels"].values()] for event in result.figures["events"]]
    )
    assert (np.diff(widths.sum(1)) <= 0).all()
    assert widths.sum(1)[0] > widths.sum(1)[-1]
    macs = [whole, *(64 * 9 * one * (1 + two) + 16 * two * 4 for one, two, _ in widths)]
    spent = sum(size * length for size, length in zip(macs, (4, 4, 4, 12), strict=True))
    assert result.figures["training_macs_share"] == pytest.approx(spent / (whole * STEPS))
    assert result.figures["training_macs_share"] < 0.65
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.integration
def test_gradual_learns_and_repeats():
    first, again = (
        _gradual({"weights": {"sparsity": 0.7, "criterion": "taylor"}}, events=2).module for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    split = _context().dataset.split("validation")
    with torch.no_grad():
        scores = first(torch.from_numpy(split.images))
    assert float((scores.argmax(1).numpy() == split.labels).mean()) > 0.6


def test_gradual_trains_once(monkeypatch):
    steps = []

    class Counting(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            steps.append(self.param_groups[0]["params"][0].grad is not None)
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Counting)
    _gradual({"weights": {"sparsity": 0.5}}, events=3)
    assert sum(steps) == STEPS


@pytest.mark.parametrize("options", [{"events": 13}, {"events": 2, "until": 0.99}])
def test_more_events_than_steps_is_wrong_input(options):
    with pytest.raises(ParamsError, match="expected a training step before, between and after"):
        _gradual({"weights": {"sparsity": 0.5}}, **options)


def _train(network, part=None, **options):
    split = _context().dataset.split("train")
    training = Recover.model_validate(RECOVER | options)
    train_network(network, split.images, split.labels, training, pixel_max=16, seed=0, part=part)
    return network


def test_a_training_in_parts_sees_the_same_batches_at_the_same_rates(monkeypatch):
    seen = []

    class Watching(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            if self.param_groups[0]["params"][0].grad is not None:
                group = self.param_groups[0]
                seen.append((group["lr"], group["betas"][0], float(BATCH[0].sum())))
            return super().step(*args, **kwargs)

    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = _net()

        def forward(self, image):
            BATCH[0] = image
            return self.net(image)

    BATCH = [None]
    monkeypatch.setattr(torch.optim, "AdamW", Watching)
    _train(Remembering())
    whole = list(seen)
    seen.clear()
    network = Remembering()
    for part in (Part(0, 1), Part(1, 9), Part(9, STEPS)):
        _train(network, part)
    assert len(whole) == STEPS == count_steps(Recover.model_validate(RECOVER), 96)
    assert [row[2] for row in seen] == [row[2] for row in whole]
    np.testing.assert_allclose([row[:2] for row in seen], [row[:2] for row in whole], rtol=1e-9)


def test_a_part_is_all_that_is_trained():
    assert torch.equal(_train(_net(), Part(5, 5))[0].weight, _net()[0].weight)
    whole, all_of_it = _train(_net()), _train(_net(), Part(0, STEPS))
    assert torch.equal(whole[0].weight, all_of_it[0].weight)
    recovered = recover(_net(), Recover.model_validate(RECOVER), _context(), part=Part(0, 2)).module
    assert torch.equal(recovered[0].weight, _train(_net(), Part(0, 2))[0].weight)
