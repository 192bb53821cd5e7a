# SPDX-License-Identifier: Apache-2.0
"""student: the user's smaller network stands behind the same preprocessing, and wrong ones are refused."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from checks.errors import ModelError
from pipeline.compress.configs import Pass, Student
from pipeline.compress.recipe import apply_recipe
from pipeline.compress.student import take_student
from tests.pass_context import context_of

NETS = """
from torch import nn

def student(width=4, classes=4):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(16 * width, classes),
    )

def nothing():
    return "a network"

def broken():
    raise RuntimeError("no such luck")

def flat():
    return nn.Linear(3, 4)
"""

RECOVER = {
    "epochs": 4, "batch_size": 16, "learning_rate": 0.02, "weight_decay": 0.0, "label_smoothing": 0.0,
    "max_shift": 0, "distill": {"soft": 0.5},
}  # fmt: skip


@cache
def _context():
    torch.manual_seed(0)
    return context_of(
        nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(192, 4),
        )
    )


@pytest.fixture
def context(tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "small.py").write_text(NETS)
    (tmp_path / "elsewhere.py").write_text(NETS)
    context = _context()
    model = context.model.model_copy(update={"factory": "nets/small.py:student", "code": "nets"})
    return replace(context, root=tmp_path, model=model)


def _take(context, name="student", **arguments):
    return take_student(
        context.teacher, Student(factory=f"nets/small.py:{name}", arguments=arguments), context
    )


def test_a_student_stands_behind_the_same_preprocessing(context):
    student = _take(context, width=3).module
    images = context.examples(8)[0]
    mean, std = context.model.mean[0], context.model.std[0]
    want = student.network((images / context.dataset.pixel_max - mean) / std)
    torch.testing.assert_close(student(images), want)
    assert student.network[0].out_channels == 3
    assert not student.training


@pytest.mark.integration
def test_a_student_repeats_and_its_weights_come_from_the_seed(context):
    first, again, other = (_take(replace(context, seed=seed)).module.network[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.integration
def test_recovery_trains_it(context):
    recipe = [
        Pass.model_validate({"student": {"factory": "nets/small.py:student"}}),
        Pass.model_validate({"recover": RECOVER}),
    ]
    _, (untrained, trained) = apply_recipe(context.teacher, recipe, context, "recipes.x")
    assert untrained["options"]["factory"] == "nets/small.py:student"
    assert trained["left"]["validation_accuracy"] > untrained["left"]["validation_accuracy"] + 0.2
    assert trained["left"]["macs"] < context.baseline.macs


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nothing", {}, r"expected a torch.nn.Module, got str"),
        ("broken", {}, "no such luck"),
        ("flat", {}, "expected a batch of images"),
        ("student", {"classes": 3}, r"\(2, 4\) for two images, got \(2, 3\)"),
        ("student", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("missing", {}, "expected a function 'missing'"),
    ],
)
def test_what_is_no_such_network_is_refused_by_its_own_key(context, name, arguments, message):
    with pytest.raises(ModelError, match=message) as caught:
        _take(context, name, **arguments)
    assert str(caught.value).startswith(f"student.factory (nets/small.py:{name})")


def test_in_a_recipe_the_key_is_whole(context):
    entry = Pass.model_validate({"student": {"factory": "nets/small.py:nothing"}})
    with pytest.raises(
        ModelError, match=r"^recipes\.x\[0\]\.student\.factory .*: expected a torch\.nn\.Module"
    ):
        apply_recipe(context.teacher, [entry], context, "recipes.x")


@pytest.mark.parametrize("factory", ["elsewhere.py:student", "nets/../elsewhere.py:student"])
def test_code_that_dvc_does_not_watch_is_refused(context, factory):
    with pytest.raises(ModelError, match=r"model\.code"):
        take_student(context.teacher, Student(factory=factory), context)


def test_a_student_larger_than_its_teacher_is_refused(context):
    with pytest.raises(ModelError, match="expected fewer multiply-accumulates or bytes"):
        _take(context, width=40)


@pytest.mark.integration
@pytest.mark.parametrize("cheaper", ["macs", "bytes"])
def test_a_student_smaller_in_one_respect_is_taken(context, cheaper):
    other = {"macs": "bytes", "bytes": "macs"}[cheaper]
    assert _take(replace(context, baseline=replace(context.baseline, **{other: 1}))).module
