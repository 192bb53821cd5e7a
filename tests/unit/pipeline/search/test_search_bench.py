# SPDX-License-Identifier: Apache-2.0
"""What is measured: the validation split alone, and what the stages themselves would make."""

import numpy as np
import pytest
import torch

from checks.errors import CompressionError, ModelError, ParamsError
from pipeline.compress.configs import Channels, Pass
from pipeline.data.dataset import Split
from pipeline.search.bench import FileBench, epochs_inside, measure_scores
from pipeline.search.space import Drawn
from tests.pass_context import context_of
from tests.search_bench import params_of


def _split(labels, **columns):
    labels = np.asarray(labels)
    ids = np.array([f"e{row}" for row in range(len(labels))])
    images = np.zeros((len(labels), 1, 2, 2), np.float32)
    return Split(ids, ids, labels, images, {name: np.array(values) for name, values in columns.items()})


def test_scores_are_measured_as_torch_does():
    random = np.random.default_rng(0)
    scores = random.normal(size=(50, 3)).astype(np.float32)
    labels = random.integers(0, 3, 50)
    found = measure_scores(scores, _split(labels), output="logits", least=1)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(scores).double(), torch.from_numpy(labels))
    assert found["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert found["accuracy"] == pytest.approx(float(np.mean(scores.argmax(axis=1) == labels)))
    shares = torch.softmax(torch.from_numpy(scores), dim=1).numpy()
    again = measure_scores(shares, _split(labels), output="probabilities", least=1)
    assert again["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_the_worst_slice_is_the_worst_that_is_large_enough():
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    light = ["dim", "dim", "dim", "even", "even", "even", "even", "even"]
    wrong = np.array([0, 0, 0, 1, 0, 0, 0, 0], bool)
    scores = np.eye(2, dtype=np.float32)[np.where(wrong, 1, labels)]
    worst = [
        measure_scores(scores, _split(labels, light=light), output="logits", least=least)[
            "worst_slice_accuracy"
        ]
        for least in (1, 4, 5)
    ]
    assert worst == [0.75, 0.75, 0.8]
    with pytest.raises(ParamsError, match="at least 9 examples"):
        measure_scores(scores, _split(labels), output="logits", least=9)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="finite"):
        measure_scores(np.array([[np.nan, 1.0]], np.float32), _split([0]), output="logits", least=1)


def test_a_precision_trains_whole_epochs_and_at_least_one():
    recipes = params_of().quantize.recipes
    assert epochs_inside(recipes["int8"]) == 0
    assert [epochs_inside(recipes["taught"], share) for share in (0.1, 0.5, 0.8, 1.0)] == [1, 1, 2, 2]


def test_what_does_not_fit_one_recipe_ends_the_trial_and_not_the_search():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 4)).eval()
    bench = object.__new__(FileBench)
    bench.context = context_of(net)
    # Wrong input where a person wrote it; of a recipe that was drawn, a reason to drop it.
    drawn = Drawn((Pass(channels=Channels(macs_reduction=1.5, skip=("7",))),), (None,), "fp32")
    with pytest.raises(CompressionError, match="channels: expected a layer"):
        bench.begin(drawn)
