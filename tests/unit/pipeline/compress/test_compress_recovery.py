# SPDX-License-Identifier: Apache-2.0
"""recover: learns, repeats, follows its teacher, and withstands what it was trained under."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from checks.errors import ParamsError
from pipeline.compress.adversary import Descent, step_size
from pipeline.compress.configs import Adversarial, Recover
from pipeline.compress.recovery import recover
from tests.pass_context import PIXEL_MAX, context_of

BASE = {
    "epochs": 4, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0, "max_shift": 0,
}  # fmt: skip


def _net(width=8, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(width * 16, 4),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def context():
    return context_of(_net())


def _recover(module, context, **keys):
    return recover(module, Recover.model_validate({**BASE, **keys}), context)


def _validation(context):
    split = context.dataset.split("validation")
    return torch.from_numpy(split.images), torch.from_numpy(split.labels)


def _equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    "keys",
    [
        {"distill": {"soft": 0.5, "logits": 0.1, "features": 0.5, "layers": ("0",)}},
        {"adversarial": {"epsilon": 0.05, "steps": 2, "share": 0.5}},
        {"precision": "bf16", "distill": {}, "adversarial": {"epsilon": 0.05, "steps": 2}},
    ],
)
def test_recovery_learns_repeats_and_changes_nothing_it_was_given(context, keys):
    module = _net()
    before = copy.deepcopy(module.state_dict())
    taught = copy.deepcopy(context.teacher.state_dict())
    first, again = (_recover(module, context, epochs=2, **keys) for _ in range(2))
    assert _equal(first.module, again.module)
    assert not _equal(first.module, module)
    assert not first.module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(torch.equal(taught[name], value) for name, value in context.teacher.state_dict().items())


def test_a_student_follows_its_teacher(context):
    """A teacher that says the opposite of the labels is believed when it has all the weight."""

    class Contrary(nn.Module):
        def forward(self, images):
            bands = images.reshape(len(images), 4, -1).mean(2)
            return 8 * functional.one_hot((bands.argmax(1) + 1) % 4, 4).float()

    context = replace(context, teacher=Contrary())
    images, labels = _validation(context)
    believing = _recover(_net(), context, distill={"soft": 1.0}).module
    doubting = _recover(_net(), context, distill={"soft": 0.0}).module
    with torch.no_grad():
        assert (believing(images).argmax(1) == (labels + 1) % 4).float().mean() > 0.7
        assert (doubting(images).argmax(1) == labels).float().mean() > 0.7


def test_features_are_followed_across_other_widths(context):
    teacher, student = _net(12), _net(6, seed=1)
    context = replace(context, teacher=teacher)
    images, _ = _validation(context)

    def distance(network):
        with torch.no_grad():
            maps = [
                functional.normalize(half[:2](images).square().sum(1).flatten(1), dim=1)
                for half in (network, teacher)
            ]
        return float((maps[0] - maps[1]).square().mean())

    plain = _recover(student, context, distill={"soft": 0.0})
    matched = _recover(student, context, distill={"soft": 0.0, "features": 1000.0, "layers": ("1",)})
    assert matched.figures == {"matched": {"1": "attention"}}
    assert plain.figures == {}
    assert distance(matched.module) < 0.7 * distance(plain.module)


def test_an_unknown_layer_costs_no_epoch(context):
    teacher = _net()
    with pytest.raises(ParamsError, match="layer of the network, got '3'"):
        _recover(teacher[:3], replace(context, teacher=teacher), distill={"features": 1.0, "layers": ("3",)})


def _attacked(network, images, labels, epsilon, steps=20):
    """Projected gradient descent, written apart from the one that trains."""
    reach = epsilon * PIXEL_MAX
    best = images.clone()
    for _ in range(steps):
        point = best.clone().requires_grad_(True)
        functional.cross_entropy(network(point), labels).backward()
        best = best + reach / 4 * point.grad.sign()
        best = torch.min(torch.max(best, images - reach), images + reach).clamp(0, PIXEL_MAX)
    return best


def _robust(network, images, labels, epsilon):
    attacked_images = _attacked(network, images, labels, epsilon)
    with torch.no_grad():
        return float((network(attacked_images).argmax(1) == labels).float().mean())


def test_adversarial_training_withstands_an_attack_that_plain_training_does_not(context):
    images, labels = _validation(context)
    epsilon = 0.25
    plain = _recover(_net(), context, epochs=8).module
    trained = _recover(_net(), context, epochs=8, adversarial={"epsilon": epsilon, "steps": 5}).module
    assert _robust(trained, images, labels, epsilon) > _robust(plain, images, labels, epsilon) + 0.3


def _descent(network, images, labels, **keys):
    config = Adversarial(**{"epsilon": 0.1, "steps": 5, **keys})
    descent = Descent(config, Recover.model_validate(BASE), "logits", PIXEL_MAX)
    return descent(network, images, labels, torch.Generator().manual_seed(0))


def test_the_attack_stays_within_budget_and_range_and_raises_the_loss(context):
    network = _recover(_net(), context).module
    images, labels = _validation(context)
    attacked = _descent(network, images, labels)
    assert float((attacked - images).abs().max()) <= 0.1 * PIXEL_MAX + 1e-5
    assert float(attacked.min()) >= 0
    assert float(attacked.max()) <= PIXEL_MAX
    with torch.no_grad():
        before, after = (functional.cross_entropy(network(x), labels) for x in (images, attacked))
    assert after > before + 0.1
    assert not attacked.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_attack_moves_pixels_that_are_saturated():
    """A clamp inside the loss has no gradient there, so that they would stay where the start put them."""

    class Brightness(nn.Module):
        def forward(self, images):
            total = images.mean((1, 2, 3))
            return torch.stack([total, -total], 1)

    images = torch.full((4, 1, 2, 2), float(PIXEL_MAX))
    attacked = _descent(Brightness(), images, torch.zeros(4, dtype=torch.int64), steps=10)
    assert torch.allclose(attacked, images - 0.1 * PIXEL_MAX, atol=1e-4)


def test_a_share_of_the_batch_is_attacked_and_modes_are_kept(context):
    network = _net().train()
    network[5].eval()
    images, labels = _validation(context)
    running = network[1].running_mean.clone()
    attacked = _descent(network, images, labels, share=0.25)
    changed = (attacked != images).flatten(1).any(1)
    assert changed[: len(images) // 4].all()
    assert not changed[len(images) // 4 :].any()
    assert network[1].training
    assert not network[5].training
    assert torch.equal(network[1].running_mean, running)


@pytest.mark.parametrize(("steps", "size"), [(1, 0.1), (2, 0.1), (5, 0.05), (10, 0.025)])
def test_steps_can_cross_the_budget(steps, size):
    assert step_size(Adversarial(epsilon=0.1, steps=steps)) == pytest.approx(size)
