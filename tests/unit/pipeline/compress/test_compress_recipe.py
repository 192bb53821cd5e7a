# SPDX-License-Identifier: Apache-2.0
"""Recipes: passes in order, each recorded with what it left; a wrong recipe is named by its key."""

import copy
import json

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from checks.errors import CompressionError, ParamsError
from pipeline.compress import channel_targets
from pipeline.compress.configs import Pass
from pipeline.compress.recipe import apply_recipe
from pipeline.models.seconds import Stopwatch
from tests.pass_context import ByMacs, context_of

RECOVER = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
    "max_shift": 0,
}


def _net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip


def _recipe(*entries):
    return [Pass.model_validate(entry) for entry in entries]


def _apply(module, *entries):
    context = context_of(module)
    return apply_recipe(module, _recipe(*entries), context, "recipes.x")


def test_passes_are_applied_in_order_and_recorded():
    module = _net()
    before = copy.deepcopy(module.state_dict())
    made, records = _apply(module, {"channels": {"macs_reduction": 2.0}}, {"recover": RECOVER})
    assert [record["pass"] for record in records] == ["channels", "recover"]
    pruned, recovered = (record["left"] for record in records)
    assert pruned["macs"] == recovered["macs"] <= context_of(module).baseline.macs / 2
    assert recovered["validation_loss"] < pruned["validation_loss"]
    assert records[0]["options"]["criterion"] == "taylor"
    assert records[0]["options"]["seed"] != records[1]["options"]["seed"]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert made is not module


def test_what_a_latency_target_reached_stands_with_the_seconds_and_not_in_the_record(tmp_path, monkeypatch):
    """No second run measures the same time, and the record must be the same."""
    monkeypatch.setattr(channel_targets, "Stopwatch", ByMacs)
    shrink = {"channels": {"latency_reduction": 1.5, "criterion": "l2"}}
    entries = (shrink, {"iterate": {"steps": 2, "shrink": shrink, "recover": RECOVER}}, {"recover": RECOVER})
    stopwatch, module = Stopwatch(), _net()
    _, records = apply_recipe(module, _recipe(*entries), context_of(module), "recipes.x", stopwatch)
    stopwatch.write(tmp_path / "seconds.json")
    first, within, recovered = json.loads((tmp_path / "seconds.json").read_text())["passes"]
    for entry in (first, within):
        assert (
            0 < entry["latency_ratio"] <= entry["latency_ratio_allowed"] == pytest.approx(1 / 1.5, abs=1e-4)
        )
    assert set(recovered) == {"pass", "seconds"}
    assert "latency_ratio" not in json.dumps(records)


def test_a_recipe_repeats():
    entries = ({"channels": {"macs_reduction": 2.0}}, {"recover": RECOVER | {"distill": {"soft": 0.5}}})
    (first, one), (again, other) = (_apply(_net(), *entries) for _ in range(2))
    assert one == other
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_iterating_reaches_the_whole_target_in_steps():
    entry = {"iterate": {"steps": 2, "shrink": {"channels": {"macs_reduction": 3.0}}, "recover": RECOVER}}
    module = _net()
    _, [record] = _apply(module, entry)
    assert record["left"]["macs"] <= context_of(module).baseline.macs / 3
    first, last = (step["channels"]["0"][1] for step in record["steps"])
    assert last < first < 16


def test_a_pass_that_cannot_is_named_by_its_key():
    with pytest.raises(
        CompressionError, match=r"recipes\.x\[1\]\.channels\.macs_reduction: expected at most"
    ):
        _apply(_net(), {"recover": RECOVER | {"epochs": 1}}, {"channels": {"macs_reduction": 900.0}})


def test_what_stands_within_a_schedule_is_named_by_its_key():
    shrink = {"channels": {"macs_reduction": 900.0}}
    entry = {"iterate": {"steps": 2, "shrink": shrink, "recover": RECOVER | {"epochs": 1}}}
    with pytest.raises(
        CompressionError, match=r"recipes\.x\[0\]\.iterate\.shrink\.channels\.macs_reduction: "
    ):
        _apply(_net(), entry)


def test_a_misspelt_layer_is_wrong_input_with_what_is_close():
    with pytest.raises(ParamsError, match=r"recipes\.x\[0\]\.weights\.skip: .*got 'hexd'") as caught:
        _apply(_net(), {"weights": {"sparsity": 0.5, "skip": ("hexd",)}})
    assert caught.value.exit_code == 2
    assert "close to it" in caught.value.hint


@pytest.mark.parametrize(
    "entry",
    [{"weights": {"sparsity": 0.5}}, {"channels": {"macs_reduction": 1.2}}, {"low_rank": {"energy": 0.5}}],
)
def test_what_an_earlier_pass_removed_may_be_named_under_skip(entry):
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            return (x + self.conv(x)).relu()

    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        Block(),
        Block(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    (name, options) = next(iter(entry.items()))
    _, records = _apply(module, {"blocks": {"remove": 1}}, {name: options | {"skip": ("1.conv", "2")}})
    [removed] = records[0]["removed"]
    assert removed["name"] in ("1", "2")
    with pytest.raises(ParamsError, match="got '3.conv'"):
        _apply(module, {"blocks": {"remove": 1}}, {name: options | {"skip": ("3.conv",)}})


def test_images_are_not_shifted_out_of_sight():
    with pytest.raises(
        ParamsError, match=r"recipes\.x\[0\]\.recover\.max_shift: expected max_shift below .* got 64"
    ):
        _apply(_net(), {"recover": RECOVER | {"max_shift": 64}})


class _Twice(nn.Module):
    """A layer that is called again and again under three names, and a product that no module makes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.third = self.fourth = self.second
        self.mix = nn.Parameter(torch.randn(32, 32))
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        x = self.first(x).relu()
        for layer in (self.second, self.third, self.fourth):
            x = layer(x).relu()
        return self.head(torch.einsum("nchw,cd->ndhw", x, self.mix).mean((2, 3)))


@pytest.mark.parametrize(
    "entry", [{"low_rank": {"macs_reduction": 3.0}}, {"channels": {"macs_reduction": 2.5}}]
)
def test_a_target_is_met_in_the_file_whatever_counts_twice(entry):
    torch.manual_seed(0)
    module = _Twice()
    _, [record] = _apply(module, entry)
    (options,) = entry.values()
    assert record["left"]["macs"] <= context_of(module).baseline.macs / options["macs_reduction"]


def test_a_target_missed_in_the_file_is_an_error(monkeypatch):
    import pipeline.compress.channels as channels

    monkeypatch.setattr(channels, "meet", lambda target, now, most, cost, attempt, measure: 0 * most)
    with pytest.raises(CompressionError, match=r"x\[0\]\.channels\.macs_reduction: .* in the file, got"):
        _apply(_net(), {"channels": {"macs_reduction": 2.0}})


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"channels": {"macs_reduction": 2.0}, "recover": RECOVER},
        {"channels": {}},
        {"channels": {"macs_reduction": 2.0, "parameters_reduction": 2.0}},
        {"channels": {"macs_reduction": 2.0, "criterion": "best"}},
        {"channels": {"macs_reduction": 2.0, "criteria": "l1"}},
        {"weights": {"sparsity": 0.7, "pattern": "2:4"}},
        {"low_rank": {}},
        {"low_rank": {"energy": 0.9, "macs_reduction": 2.0}},
        {"recover": RECOVER | {"distill": {"features": 1.0}}},
        {"squeeze": {}},
    ],
)
def test_wrong_passes_are_refused(entry):
    with pytest.raises(ValidationError):
        Pass.model_validate(entry)
