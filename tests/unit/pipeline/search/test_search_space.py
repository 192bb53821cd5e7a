# SPDX-License-Identifier: Apache-2.0
"""Drawn recipes stay within the ranges, and could stand in params.yaml; a wrong space is named."""

import random

import pytest
from pydantic import ValidationError

from checks.errors import ParamsError
from pipeline.compress.configs import Pass
from pipeline.params import load_params
from pipeline.search.space import draw, expect_space, same_passes
from tests.search_bench import params_of


class _Random:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def suggest_categorical(self, name, choices):
        return self.random.choice(choices)

    def suggest_float(self, name, low, high, *, log=False):
        return self.random.uniform(low, high)

    def suggest_int(self, name, low, high):
        return self.random.randint(low, high)


SPACE = {
    "blocks": {"remove": (0, 2)},
    "channels": {"macs_reduction": (1.5, 3.0), "criteria": ("l1", "taylor"), "optional": True},
    "low_rank": {"macs_reduction": (1.1, 2.0)},
    "recover": {"epochs": (5, 12), "learning_rate": (0.0003, 0.003), "distill": (0.0, 0.7)},
    "precisions": ("fp32", "int8"),
}


def test_draws_are_within_the_ranges_and_read_back():
    params = params_of(space=SPACE)
    drawn = [draw(_Random(seed), params, 2 + seed) for seed in range(60)]
    kinds = {entry.method for recipe in drawn for entry in recipe.shrink}
    assert kinds == {"blocks", "channels", "low_rank"}
    assert any(not recipe.passes for recipe in drawn)
    for recipe in drawn:
        written = recipe.to_json()
        assert same_passes(written["passes"], recipe.passes)
        assert [Pass.model_validate(entry).method for entry in written["passes"]] == [
            entry.method for entry in recipe.passes
        ]
        assert bool(recipe.shrink) == (sum(recipe.epochs) in (5, 12))
        for entry in recipe.shrink:
            if entry.channels:
                assert 1.5 <= entry.channels.macs_reduction <= 3.0
        for rung in filter(None, recipe.recover):
            assert 0.0003 <= rung.learning_rate <= 0.003
            assert rung.max_shift == params.train.max_shift
            assert rung.distill is None or rung.distill.soft == 0.7


def test_the_baseline_is_tried_at_precisions_of_its_own():
    space = SPACE | {"baseline_precisions": ("fp32", "taught", "edge")}
    params = params_of(space=space)
    drawn = [draw(_Random(slot), params, slot) for slot in range(40)]
    assert [(recipe.passes, recipe.precision) for recipe in drawn[:3]] == [
        ((), "fp32"),
        ((), "taught"),
        ((), "edge"),
    ]
    assert {recipe.precision for recipe in drawn[3:]} == {"fp32", "int8"}
    only = {"channels": None, "precisions": ("int8",), "baseline_precisions": ("int8", "taught")}
    expect_space(params_of(space=only))


def test_what_is_named_once_stands_in_every_recipe():
    space = {
        "blocks": {"remove": (1, 2), "skip": ("a",)},
        "channels": {"macs_reduction": (1.5, 3.0), "skip": ("b",)},
        "low_rank": {"kinds": ("spatial",), "skip": ("c",), "optional": False},
        "recover": {"epochs": (8,), "distill": (1.0,), "features": 50.0, "layers": ("d",)},
    }
    recipe = draw(_Random(0), params_of(space=space), 5)
    assert same_passes(recipe.to_json()["passes"], recipe.passes)
    assert not same_passes(recipe.to_json()["passes"], recipe.passes[:-1])
    blocks, channels, low_rank = (entry.config for entry in recipe.shrink)
    assert (blocks.skip, channels.skip, low_rank.skip, low_rank.kinds) == (
        ("a",),
        ("b",),
        ("c",),
        ("spatial",),
    )
    for rung in filter(None, recipe.recover):
        assert (rung.distill.features, rung.distill.layers) == (50.0, ("d",))
        # Nothing but the baseline's answers counts then, and they are not smoothed.
        assert rung.label_smoothing == 0
    assert "skip" not in str(draw(_Random(0), params_of(space=SPACE), 5).to_json())


def test_epochs_are_divided_among_the_rungs():
    space = {"recover": {"epochs": (9,)}}
    recipe = draw(_Random(0), params_of(space=space), 5)
    assert recipe.epochs == (3, 2, 4)
    assert recipe.lengths == (2, 3, 4)
    recipe = draw(_Random(0), params_of(space={"recover": {"epochs": (1,)}}), 5)
    assert recipe.epochs == (1, 0, 0)
    assert len(recipe.passes) == 2


def test_the_first_recipes_are_the_baseline_at_each_precision():
    params = params_of()
    first = [draw(_Random(0), params, slot).to_json() for slot in range(2)]
    assert first == [{"passes": [], "precision": name} for name in ("fp32", "int8")]
    assert draw(_Random(0), params, 2).shrink


@pytest.mark.parametrize(
    ("space", "what"),
    [
        ({"channels": None, "precisions": ("int8",)}, "empty space"),
        ({"channels": None, "blocks": {"remove": (0, 0)}, "precisions": ("int8",)}, "empty space|got blocks"),
    ],
)
def test_an_empty_space_is_refused(space, what):
    with pytest.raises(ParamsError, match=what):
        expect_space(params_of(space=space))


def test_a_pass_this_version_has_not_is_named(monkeypatch):
    monkeypatch.setattr("pipeline.compress.recipe.FUNCTIONS", {"channels": ("", ""), "recover": ("", "")})
    expect_space(params_of())
    with pytest.raises(
        ParamsError, match=r"search\.space\.low_rank: expected one of .*channels.*, got low_rank"
    ):
        expect_space(params_of(space={"low_rank": {}}))


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": 0},
        {"objectives": ()},
        {"objectives": ("bytes", "bytes")},
        {"objectives": ("speed",)},
        {"rungs": (0.5, 0.25, 1.0)},
        {"rungs": (0.25, 0.5)},
        {"space": {"channels": {"macs_reduction": (3.0, 2.0)}}},
        {"space": {"recover": {"learning_rate": (0.1, 0.01)}}},
        {"space": {"recover": {"features": 1.0}}},
        {"space": {"low_rank": {"kinds": ("cubic",)}}},
        {"budget": {"minutes": 0.0}},
        {"nonsense": 1},
    ],
)
def test_a_wrong_section_is_refused(changes):
    with pytest.raises(ValidationError):
        params_of(**changes)


def test_an_unknown_precision_is_named(project):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("    precisions: [fp32, int8]", "    precisions: [int4]"))
    with pytest.raises(ParamsError, match=r"search\.space\.precisions: expected .*int8.*got 'int4'"):
        load_params(path)
