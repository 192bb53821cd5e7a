# SPDX-License-Identifier: Apache-2.0
"""The contract probe: a file that hangs on how it is run shows it, in that run and in no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from onnx import helper

from checks.contract_runs import REFERENCE, RUNS
from checks.errors import ProbeError
from pipeline.probes import contract
from pipeline.probes.attack import Target
from pipeline.probes.contract import run_contract
from pipeline.probes.session import create_session, open_session
from pipeline.probes.twin import build_twin

COUNT = 20


@dataclass(frozen=True)
class Split:
    images: Any
    ids: Any


@pytest.fixture
def split():
    random = np.random.default_rng(0)
    images = random.integers(0, 17, (COUNT, 1, 8, 8)).astype(np.float32)
    return Split(images, np.array([f"x{index:02}" for index in range(COUNT)]))


@pytest.fixture
def honest(linear_onnx):
    return linear_onnx("honest.onnx", np.random.default_rng(1).normal(size=(64, 3)), [0, 1, 2])


def _target(path, twin=None):
    return Target(open_session(path), build_twin(twin or path)), path


def _run(baseline, candidate, split, **options):
    options = {"examples": 8, "seed": 0, "batch_size": 5} | options
    return run_contract(baseline, candidate, split, **options)


def _differing(runs):
    return {run for run in RUNS if not np.allclose(runs[run], runs[REFERENCE], atol=1e-3, equal_nan=True)}


def test_an_honest_file_answers_alike_in_every_run(honest, split):
    came = _run(_target(honest), _target(honest), split)
    for runs in (came.baseline, came.candidate):
        assert tuple(runs) == RUNS
        assert all(scores.shape == (8, 3) and scores.dtype == np.float32 for scores in runs.values())
        assert _differing(runs) == set()
    rows = [split.ids.tolist().index(name) for name in came.ids]
    weight = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    want = split.images[rows].reshape(8, 64).astype(np.float64) @ weight + [0, 1, 2]
    np.testing.assert_allclose(came.baseline[REFERENCE], want, rtol=1e-4, atol=1e-4)


def test_examples_are_drawn_by_the_seed_and_never_more_than_there_are(honest, split):
    pair = _target(honest), _target(honest)
    first = _run(*pair, split, seed=1).ids.tolist()
    assert first == _run(*pair, split, seed=1).ids.tolist() == sorted(set(first))
    assert first != _run(*pair, split, seed=2).ids.tolist()
    assert _run(*pair, split, examples=1000).ids.tolist() == split.ids.tolist()


def test_a_file_that_normalises_over_its_batch_shows_it(write_onnx, honest, split):
    nodes = [
        helper.make_node("ReduceMean", ["image", "axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["image", "mean"], ["centred"]),
        helper.make_node("Flatten", ["centred"], ["scores"], axis=1),
    ]
    path = write_onnx("batch.onnx", nodes, {"axis": np.array([0])}, scores=("batch", 64))
    came = _run(_target(honest), _target(path), split)
    assert _differing(came.candidate) == {"batch_one"}
    assert _differing(came.baseline) == set()


def test_a_file_that_draws_random_numbers_shows_it(write_onnx, honest, split):
    nodes = [
        helper.make_node("RandomNormalLike", ["image"], ["noise"]),
        helper.make_node("Add", ["image", "noise"], ["noisy"]),
        helper.make_node("Flatten", ["noisy"], ["scores"], axis=1),
    ]
    path = write_onnx("noise.onnx", nodes, scores=("batch", 64))
    flat = write_onnx(
        "flat.onnx", [helper.make_node("Flatten", ["image"], ["scores"], axis=1)], scores=("batch", 64)
    )
    came = _run(_target(path, twin=flat), _target(honest), split)
    # A new session draws the same numbers from the start; one session, called again, goes on.
    assert _differing(came.baseline) == {"repeat", "batch_one", "twin"}


def test_a_twin_of_another_file_shows_it(linear_onnx, honest, split):
    other = linear_onnx("other.onnx", np.random.default_rng(2).normal(size=(64, 3)), [0, 1, 2])
    came = _run(_target(honest), _target(honest, twin=other), split)
    assert _differing(came.candidate) == {"twin"}


def test_every_run_is_the_one_it_is_called(monkeypatch, honest, split):
    """What is opened for a run is what its name says."""
    opened = []

    def record(path, **options):
        opened.append(options)
        return create_session(path, **options)

    monkeypatch.setattr(contract, "create_session", record)
    _run(_target(honest), _target(honest), split)
    levels = [{"optimization": level} for level in ("disabled", "basic", "extended")]
    assert opened == [{"threads": 2}, *levels] * 2


def test_scores_that_are_not_finite_are_recorded(linear_onnx, honest, split):
    blank = linear_onnx("blank.onnx", np.full((64, 3), np.nan), [0, 0, 0])
    came = _run(_target(honest), _target(blank), split)
    assert all(np.isnan(scores).all() for scores in came.candidate.values())


def test_a_twin_of_other_classes_is_refused(linear_onnx, honest, split):
    other = linear_onnx("other.onnx", np.ones((64, 4)), [0, 0, 0, 0])
    with pytest.raises(ProbeError, match=r"\(8, 3\).*\(8, 4\) from twin"):
        _run(_target(honest), _target(honest, twin=other), split)


def test_int8_and_float_of_a_trained_network_answer_alike(digits):
    split = Split(digits.images, np.array([f"{index:03}" for index in range(len(digits.images))]))
    came = _run(_target(digits.fp32), _target(digits.int8), split, examples=128, batch_size=256)
    for runs in (came.baseline, came.candidate):
        for run in ("repeat", "batch_one", "threads_two"):
            np.testing.assert_array_equal(runs[run].argmax(axis=1), runs[REFERENCE].argmax(axis=1))
        for run in RUNS:
            assert np.mean(runs[run].argmax(axis=1) == runs[REFERENCE].argmax(axis=1)) >= 0.98
