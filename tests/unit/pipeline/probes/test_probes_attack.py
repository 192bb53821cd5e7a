# SPDX-License-Identifier: Apache-2.0
"""The pool of attacks: within budget, strong, the same for equal models, and repeatable to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from checks.errors import ProbeError
from pipeline.params import Attack
from pipeline.probes.attack import Target, project, run_attacks
from pipeline.probes.pool import ATTACKS
from pipeline.probes.session import open_session, predict
from pipeline.probes.twin import build_twin

ROOT = Path(__file__).parents[4]
OPTIONS = Attack(epsilon=0.12, examples=150, pgd_steps=10, pgd_restarts=2, square_queries=60)

pytestmark = pytest.mark.xdist_group("digits")


@dataclass(frozen=True)
class Examples:
    """The part of a split that attacks read."""

    ids: Any
    labels: Any
    images: Any


def _examples(images, labels):
    return Examples(np.array([f"id{index:04}" for index in range(len(labels))]), labels, images)


def _target(path):
    return Target(open_session(path), build_twin(path))


def _attack(baseline, candidate, examples, **changes):
    options = {"classes": 10, "pixel_max": 16, "options": OPTIONS, "seed": 3, "batch_size": 64} | changes
    return run_attacks(_target(baseline), _target(candidate), examples, **options)


def _survivors(attacks, model, name):
    """Share of examples that one model gets right on one attack's examples."""
    return float(getattr(attacks, f"{model}_correct")[attacks.names.index(name)].mean())


@pytest.fixture(scope="module")
def outcome(digits):
    return _attack(digits.fp32, digits.int8, _examples(digits.images, digits.labels))


# --- budget ------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    epsilon=st.floats(1e-3, 1.0),
    pixel_max=st.sampled_from([1, 16, 255]),
    seed=st.integers(0, 2**32 - 1),
)
def test_projected_images_keep_budget_and_range_to_the_last_bit(epsilon, pixel_max, seed):
    random = np.random.default_rng(seed)
    images = random.integers(0, pixel_max + 1, (4, 1, 3, 3)).astype(np.float32)
    attacked = images + random.normal(0, epsilon * pixel_max * 2, images.shape)
    result = project(attacked, images, epsilon, pixel_max)
    assert result.dtype == np.float32
    assert (result >= 0).all()
    assert (result <= pixel_max).all()
    change = np.abs(result.astype(np.float64) - images) / pixel_max
    assert (change <= epsilon).all()
    # What was allowed stays what it was, and what was not ends on the border.
    inside = (
        (np.abs(attacked - images) < 0.999 * epsilon * pixel_max) & (attacked > 0) & (attacked < pixel_max)
    )
    np.testing.assert_array_equal(result[inside], attacked[inside].astype(np.float32))
    pushed = (attacked - images > 1.01 * epsilon * pixel_max) & (images + epsilon * pixel_max < pixel_max)
    np.testing.assert_allclose(change[pushed], epsilon, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_attacked_images_must_be_finite(value):
    images = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(ProbeError, match="finite"):
        project(np.full((1, 1, 2, 2), value), images, 0.1, 16)


def test_every_attack_keeps_its_budget_and_the_strong_ones_use_it(outcome):
    assert outcome.names == ATTACKS
    assert (outcome.perturbation <= OPTIONS.epsilon).all()
    assert outcome.in_range.all()
    largest = dict(zip(outcome.names, outcome.perturbation.max(axis=1), strict=True))
    assert largest.pop("clean") == 0
    assert all(value > 0.99 * OPTIONS.epsilon for value in largest.values())


def test_outcomes_are_those_of_the_files_on_drawn_examples(digits, outcome):
    rows = [int(name.removeprefix("id")) for name in outcome.ids]
    assert len(rows) == OPTIONS.examples
    assert rows == sorted(set(rows))
    assert rows != list(range(OPTIONS.examples))
    clean = outcome.names.index("clean")
    for path, correct in ((digits.fp32, outcome.baseline_correct), (digits.int8, outcome.candidate_correct)):
        wanted = predict(open_session(path), digits.images[rows], 500).argmax(1) == digits.labels[rows]
        np.testing.assert_array_equal(correct[clean], wanted)
    assert min(outcome.twin_agreement) >= 0.99


def test_the_draw_depends_on_the_seed_alone(digits, outcome):
    quick = OPTIONS.model_copy(update={"pgd_steps": 1, "pgd_restarts": 1, "square_queries": 1})
    examples = _examples(digits.images, digits.labels)
    same = _attack(digits.int8, digits.fp32, examples, options=quick)
    other = _attack(digits.int8, digits.fp32, examples, options=quick, seed=4)
    assert same.ids.tolist() == outcome.ids.tolist() != other.ids.tolist()


def _with_softmax(path, target):
    model = onnx.load(path)
    end = model.graph.output[0]
    model.graph.node.append(helper.make_node("Softmax", [end.name], ["probabilities"], axis=-1))
    end.name = "probabilities"
    onnx.save(model, target)
    return target


def test_probabilities_are_attacked_as_the_logits_behind_them_are(digits, tmp_path):
    """A softmax at a model's end must not change what gradients find."""
    quick = OPTIONS.model_copy(update={"square_queries": 1})
    examples = _examples(digits.images, digits.labels)
    options = {"classes": 10, "pixel_max": 16, "options": quick, "seed": 3, "batch_size": 64}
    path = _with_softmax(digits.fp32, tmp_path / "softmax.onnx")
    soft = _target(path)
    logits = _target(digits.fp32)
    want = run_attacks(logits, logits, examples, **options)
    came = run_attacks(soft, soft, examples, **options)
    row = want.names.index("pgd-on-baseline")
    assert 0.1 < want.baseline_correct[row].mean() < 0.9
    assert np.mean(want.baseline_correct[row] == came.baseline_correct[row]) >= 0.97


def test_a_small_split_is_attacked_whole(digits):
    quick = OPTIONS.model_copy(update={"pgd_steps": 1, "square_queries": 1})
    small = _attack(digits.fp32, digits.fp32, _examples(digits.images[:7], digits.labels[:7]), options=quick)
    assert small.ids.tolist() == [f"id{index:04}" for index in range(7)]


# --- strength ----------------------------------------------------------------------------------------


def _plain_pgd(path, images, labels, epsilon, pixel_max, steps, restarts):
    """The textbook loop in raw pixel units; returns which examples the file still gets right."""
    twin, session = build_twin(path), open_session(path)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    reach, generator = epsilon * pixel_max, torch.Generator().manual_seed(0)
    right = np.ones(len(labels), bool)
    for _ in range(restarts):
        a = (x + reach * (2 * torch.rand(x.shape, generator=generator) - 1)).clamp(0, pixel_max)
        for _ in range(steps):
            leaf = a.detach().requires_grad_(True)  # noqa: FBT003
            torch.nn.functional.cross_entropy(twin(leaf), y).backward()
            a = a + 2.5 * reach / steps * leaf.grad.sign()
            a = torch.min(torch.max(a, x - reach), x + reach).clamp(0, pixel_max).detach()
        right &= predict(session, a.numpy(), 64).argmax(1) == labels
    return right


def test_gradient_attacks_are_as_strong_as_a_plain_loop(digits, outcome):
    rows = [int(name.removeprefix("id")) for name in outcome.ids]
    images, labels = digits.images[rows], digits.labels[rows]
    for model, path in (("baseline", digits.fp32), ("candidate", digits.int8)):
        plain = _plain_pgd(path, images, labels, OPTIONS.epsilon, 16, OPTIONS.pgd_steps, OPTIONS.pgd_restarts)
        ours = _survivors(outcome, model, f"pgd-on-{model}")
        assert 0.02 < plain.mean() < 0.6, (
            "the comparison needs an attack that mostly, but not always, succeeds"
        )
        assert ours <= plain.mean() + 3 / len(rows)


def test_attacks_hurt_most_the_model_they_were_made_for(outcome):
    for model in ("baseline", "candidate"):
        clean, noise = (_survivors(outcome, model, name) for name in ("clean", "noise"))
        square, gradient = (_survivors(outcome, model, f"{kind}-on-{model}") for kind in ("square", "pgd"))
        assert clean > 0.9
        assert noise > 0.8
        assert square < 0.85 * clean
        assert gradient < square


def test_each_model_has_attacks_of_its_own(linear_onnx):
    """A model that never errs gives attacks nothing to go by; they must come from the one that does."""
    steady = linear_onnx("steady.onnx", np.zeros((64, 2)), [1, 0])
    frail = linear_onnx("frail.onnx", np.array([[1, -1]] * 64) / (64 * 16), [-0.45, 0.45])
    examples = _examples(np.full((30, 1, 8, 8), 8, np.float32), np.zeros(30, np.int64))
    patient = OPTIONS.model_copy(update={"square_queries": 300})
    for baseline, candidate in ((steady, frail), (frail, steady)):
        attacks = _attack(baseline, candidate, examples, classes=2, options=patient)
        steady_name, frail_name = ("baseline", "candidate")[:: 1 if baseline == steady else -1]
        for kind in ("pgd", "square"):
            assert _survivors(attacks, steady_name, f"{kind}-on-{frail_name}") == 1
            assert _survivors(attacks, frail_name, f"{kind}-on-{frail_name}") < 0.2
            assert _survivors(attacks, frail_name, f"{kind}-on-{steady_name}") > 0.9


def _scaled_scores(path, target, factor):
    """Copy a model whose scores are `factor` times as large: as accurate, absurdly sure of itself."""
    model = onnx.load(path)
    (output,) = (node for node in model.graph.node if node.output[0] == "scores")
    output.output[0] = "plain"
    model.graph.node.append(helper.make_node("Mul", ["plain", "factor"], ["scores"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    target.write_bytes(model.SerializeToString())
    return target


def test_over_confidence_is_no_robustness(tmp_path, digits, outcome):
    sure = _scaled_scores(digits.fp32, tmp_path / "sure.onnx", 1e4)
    attacks = _attack(digits.fp32, sure, _examples(digits.images, digits.labels))
    honest = _survivors(outcome, "baseline", "pgd-on-baseline")
    assert _survivors(attacks, "candidate", "pgd-on-candidate") <= honest + 0.1


def test_the_effort_is_the_one_asked_for(digits, outcome):
    weak = OPTIONS.model_copy(update={"pgd_steps": 1, "pgd_restarts": 1, "square_queries": 1})
    attacks = _attack(digits.fp32, digits.int8, _examples(digits.images, digits.labels), options=weak)
    for kind in ("pgd", "square"):
        name = f"{kind}-on-candidate"
        assert _survivors(outcome, "candidate", name) < _survivors(attacks, "candidate", name) - 0.05


def test_epsilon_is_a_share_of_the_pixel_range(write_onnx):
    """Whether the mean pixel is above 0.4 of the range: from 0.5, a change of 0.05 is too small, one of 0.2 not."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"]),
    ]
    for pixel_max in (1, 16, 255):
        weights = {
            "weight": np.array([[1, -1]] * 4, np.float32) / (4 * pixel_max),
            "bias": np.array([-0.4, 0.4], np.float32),
        }
        path = write_onnx(f"{pixel_max}.onnx", nodes, weights, image=("b", 1, 2, 2), scores=("b", 2))
        images = np.full((20, 1, 2, 2), 0.5 * pixel_max, np.float32)
        examples = _examples(images, np.zeros(20, np.int64))
        for epsilon, survives in ((0.05, 1.0), (0.2, 0.0)):
            options = OPTIONS.model_copy(update={"epsilon": epsilon})
            attacks = _attack(path, path, examples, classes=2, pixel_max=pixel_max, options=options)
            assert _survivors(attacks, "baseline", "pgd-on-baseline") == survives
            assert _survivors(attacks, "candidate", "square-on-candidate") == survives


# --- fairness and repetition -------------------------------------------------------------------------


def test_equal_models_fare_equally(digits):
    attacks = _attack(digits.int8, digits.int8, _examples(digits.images, digits.labels))
    np.testing.assert_array_equal(attacks.baseline_correct, attacks.candidate_correct)
    for kind in ("pgd", "square"):
        rows = [attacks.names.index(f"{kind}-on-{model}") for model in ("baseline", "candidate")]
        np.testing.assert_array_equal(attacks.baseline_correct[rows[0]], attacks.baseline_correct[rows[1]])
        np.testing.assert_array_equal(attacks.perturbation[rows[0]], attacks.perturbation[rows[1]])


def test_a_repetition_is_equal_to_the_byte_and_disturbs_no_other_randomness(digits, outcome):
    np.random.seed(99)  # noqa: NPY002
    torch.manual_seed(99)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    wanted = np.random.get_state()[1].copy(), torch.get_rng_state().clone()  # noqa: NPY002
    again = _attack(digits.fp32, digits.int8, _examples(digits.images, digits.labels))
    for name in ("ids", "baseline_correct", "candidate_correct", "perturbation", "in_range"):
        assert getattr(again, name).tobytes() == getattr(outcome, name).tobytes(), name
    assert again.twin_agreement == outcome.twin_agreement
    np.testing.assert_array_equal(np.random.get_state()[1], wanted[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), wanted[1])
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


# --- what must not pass unseen -----------------------------------------------------------------------


def test_a_model_without_an_answer_is_wrong(linear_onnx, digits):
    weight = np.zeros((64, 10))
    weight[:, 0] = np.nan
    path = linear_onnx("nan.onnx", weight, np.arange(10))
    quick = OPTIONS.model_copy(update={"pgd_steps": 2, "square_queries": 2})
    examples = _examples(digits.images[:20], np.zeros(20, np.int64))
    attacks = _attack(digits.fp32, path, examples, options=quick)
    assert not attacks.candidate_correct.any()
    assert attacks.twin_agreement[1] == 0


def test_a_twin_of_another_model_shows_in_its_agreement(digits, linear_onnx):
    other = linear_onnx("other.onnx", np.zeros((64, 10)), np.arange(10))
    candidate = replace(_target(digits.int8), twin=build_twin(other))
    quick = OPTIONS.model_copy(update={"pgd_steps": 2, "square_queries": 2})
    attacks = run_attacks(
        _target(digits.fp32),
        candidate,
        _examples(digits.images, digits.labels),
        classes=10,
        pixel_max=16,
        options=quick,
        seed=0,
        batch_size=64,
    )
    assert attacks.twin_agreement[0] > 0.99
    assert attacks.twin_agreement[1] < 0.3


def test_an_attack_that_breaks_is_told_by_name(digits):
    class Broken(torch.nn.Module):
        def forward(self, images):
            raise RuntimeError("no gradient today")

    candidate = replace(_target(digits.int8), twin=Broken())
    with pytest.raises(ProbeError, match=r"pgd-on-candidate.*no gradient today"):
        run_attacks(
            _target(digits.fp32),
            candidate,
            _examples(digits.images[:5], digits.labels[:5]),
            classes=10,
            pixel_max=16,
            options=OPTIONS,
            seed=0,
            batch_size=64,
        )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (3, 17), (16, 4)])
def test_images_of_any_shape_are_attacked(write_onnx, height, width):
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    quick = OPTIONS.model_copy(update={"pgd_steps": 2, "square_queries": 5})
    weight = np.random.default_rng(0).normal(size=(height * width, 2)).astype(np.float32)
    path = write_onnx("m.onnx", nodes, {"weight": weight}, image=("b", 1, height, width), scores=("b", 2))
    images = np.random.default_rng(1).uniform(0, 16, (6, 1, height, width)).astype(np.float32)
    labels = predict(open_session(path), images, 6).argmax(1)
    attacks = _attack(path, path, _examples(images, labels), classes=2, options=quick)
    assert attacks.in_range.all()
    assert (attacks.perturbation <= quick.epsilon).all()


def test_art_is_quiet_and_leaves_nothing_in_the_users_home(tmp_path):
    code = (
        "from pipeline.probes.art_import import import_art; import os\n"
        "home = os.environ['HOME']\n"
        "import_art(); import_art()\n"
        "assert os.environ['HOME'] == home and 'USERPROFILE' not in os.environ\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "USERPROFILE"}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, check=True, capture_output=True
    )
    assert done.stdout + done.stderr == b""
    assert list(tmp_path.rglob("*")) == []
