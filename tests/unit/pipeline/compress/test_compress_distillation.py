# SPDX-License-Identifier: Apache-2.0
"""Distillation: every part of the loss equals its formula, and a student follows its teacher."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn

from checks.errors import CompressionError, ParamsError
from pipeline.compress.configs import Distill
from pipeline.compress.distillation import Distillation, attention_map, feature_loss, soft_target_loss
from pipeline.models.training import Batch, LabelLoss


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    def __init__(self, width, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.last = nn.Linear(width, 3)

    def forward(self, images):
        images = torch.relu(self.first(images))
        return self.last(torch.relu(self.second(images)).mean((2, 3)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_targets_are_the_divergence_of_the_softened_answers(temperature):
    logits, target = _normal(7, 5), _normal(7, 5, seed=1) * 3
    want = entropy(
        softmax(target.double().numpy() / temperature, 1),
        softmax(logits.double().numpy() / temperature, 1),
        axis=1,
    )
    assert float(soft_target_loss(logits, target, temperature)) == pytest.approx(
        want.mean() * temperature**2, rel=1e-5
    )


def test_soft_targets_pull_alike_at_high_temperatures():
    """At a high temperature the gradient is that of half the squared error of centred logits, over K."""
    logits, target = _normal(1, 5).requires_grad_(True), _normal(1, 5, seed=1)
    soft_target_loss(logits, target, 1000.0).backward()
    difference = (logits - target).detach().numpy()
    assert logits.grad.numpy() == pytest.approx((difference - difference.mean()) / 5, abs=1e-3)


def test_attention_is_the_normalised_energy_of_each_place():
    features = _normal(2, 3, 4, 5).numpy()
    energy = np.einsum("bchw,bchw->bhw", features, features).reshape(2, 20)
    want = energy / np.sqrt((energy**2).sum(axis=1, keepdims=True))
    assert attention_map(torch.from_numpy(features)).numpy() == pytest.approx(want, rel=1e-5)


def test_features_are_compared_by_values_or_by_attention():
    own, same, wide = _normal(2, 3, 4, 4), _normal(2, 3, 4, 4, seed=1), _normal(2, 6, 4, 4, seed=1)
    loss, how = feature_loss(own, same, "x")
    assert (float(loss), how) == (pytest.approx(((own - same) ** 2).numpy().mean(), rel=1e-6), "values")
    loss, how = feature_loss(own, wide, "x")
    want = ((attention_map(own) - attention_map(wide)) ** 2).numpy().mean()
    assert (float(loss), how) == (pytest.approx(want, rel=1e-6), "attention")
    scaled, _ = feature_loss(own, own.repeat(1, 2, 1, 1) * 5, "x")
    assert float(scaled) == pytest.approx(0, abs=1e-12)
    assert float(feature_loss(own, own, "x")[0]) == 0


@pytest.mark.parametrize("other", [_normal(2, 3, 8, 8), _normal(2, 6)])
def test_features_of_other_places_cannot_be_compared(other):
    with pytest.raises(CompressionError, match="layer 'x' that differ in channels alone"):
        feature_loss(_normal(2, 3, 4, 4), other, "x")


def _batch():
    images = _normal(6, 1, 8, 8, seed=5)
    return Batch(images, images, torch.tensor([0, 1, 2, 0, 1, 2]))


@torch.no_grad()
def test_the_parts_add_up():
    teacher, student, batch = Net(6).eval(), Net(4, seed=1), _batch()
    parts = {
        "soft": {"soft": 1.0}, "labels": {"soft": 0.0}, "logits": {"soft": 0.0, "logits": 1.0},
        "features": {"soft": 0.0, "features": 1.0, "layers": ("first", "second")},
    }  # fmt: skip
    labels = LabelLoss(0.1)
    alone = {
        name: float(Distillation(teacher, Distill(**config), labels)(student, batch))
        for name, config in parts.items()
    }
    assert alone["labels"] == pytest.approx(float(labels(student, batch)))
    both = student(batch.images), teacher(batch.images)
    squared = float(((both[0] - both[1]) ** 2).mean())
    assert alone["logits"] - alone["labels"] == pytest.approx(squared, rel=1e-4)
    whole = Distill(soft=0.25, logits=2.0, features=3.0, layers=("first", "second"))
    want = (
        0.25 * alone["soft"]
        + 0.75 * alone["labels"]
        + 2 * (alone["logits"] - alone["labels"])
        + 3 * (alone["features"] - alone["labels"])
    )
    assert float(Distillation(teacher, whole, labels)(student, batch)) == pytest.approx(want, rel=1e-4)


@torch.no_grad()
def test_a_teacher_that_answers_probabilities_teaches_the_same():
    teacher, student, batch = Net(6).eval(), Net(4, seed=1), _batch()
    config = Distill(soft=0.5, temperature=3.0)
    want = Distillation(teacher, config, LabelLoss())(student, batch)
    shares = LabelLoss(output="probabilities")
    ending = nn.Sequential(teacher, nn.Softmax(1)), nn.Sequential(student, nn.Softmax(1))
    came = Distillation(ending[0], config, shares)(ending[1], batch)
    assert float(came) == pytest.approx(float(want), rel=1e-5)


def test_a_teacher_sees_images_before_the_attack_and_is_left_alone():
    teacher, student = Net(6), Net(4, seed=1)
    teacher.train()
    clean = _batch()
    attacked = Batch(clean.images + 1, clean.images, clean.labels)
    config = Distill(soft=0.0, logits=1.0)
    loss = Distillation(teacher, config, LabelLoss())(student, attacked)
    assert not teacher.training
    loss.backward()
    with torch.no_grad():
        hard = nn.functional.cross_entropy(student(attacked.images), clean.labels)
        squared = ((student(attacked.images) - teacher(clean.images)) ** 2).mean()
    assert loss.item() == pytest.approx(float(hard + squared), rel=1e-5)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not teacher.first._forward_hooks
    assert not student.first._forward_hooks


def test_an_unknown_layer_is_answered_with_close_ones():
    config = Distill(features=1.0, layers=("frist",))
    with pytest.raises(ParamsError, match="layer of the baseline, got 'frist'") as caught:
        Distillation(Net(4), config, LabelLoss())
    assert "first" in caught.value.hint
    teacher = Net(4)
    teacher.extra = nn.Identity()
    with pytest.raises(CompressionError, match="that run and answer one tensor"):
        Distillation(teacher, Distill(features=1.0, layers=("extra",)), LabelLoss())(Net(4), _batch())
