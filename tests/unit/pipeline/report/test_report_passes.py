# SPDX-License-Identifier: Apache-2.0
"""How a model was made, in words: what was asked, what changed, what was left, for passes of any name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from checks.errors import EvidenceError
from pipeline.compress.configs import Pass
from pipeline.fields import Fields
from pipeline.report.pass_options import describe_options
from pipeline.report.passes import pass_columns, pass_rows, passes_in

LEFT = {
    "macs": 892_128, "parameters": 27_172, "sparsity": 0.0, "bytes": 110_485, "gzip_bytes": 101_931,
    "validation_accuracy": 0.993, "validation_loss": 0.1,
}  # fmt: skip
TRAINING = {
    "epochs": 12, "batch_size": 32, "learning_rate": 0.002, "weight_decay": 0.0, "label_smoothing": 0.0,
    "max_shift": 0,
}  # fmt: skip


def _changed(**figures: Any) -> tuple[str, ...]:
    entry = {"pass": figures.pop("name", "channels"), "options": {}, "left": LEFT, **figures}
    return passes_in(Fields({"passes": [entry]}, "compression.json"))[0].changed


def _resolved(recipe: dict[str, Any]) -> str:
    entry = Pass.model_validate_json(json.dumps(recipe))
    return describe_options(entry.method, entry.config.model_dump(mode="json", exclude_none=True))


def test_options_are_those_that_differ_from_the_defaults() -> None:
    assert _resolved({"channels": {"macs_reduction": 2.0}}) == "macs_reduction 2"
    assert _resolved(
        {"channels": {"bytes_reduction": 1.5, "criterion": "l1", "round_to": 8, "skip": ["fc"]}}
    ) == ("bytes_reduction 1.5, criterion l1, round_to 8, skip fc")
    assert _resolved({"blocks": {"remove": 3}}) == "remove 3"
    distilled = _resolved({"recover": TRAINING | {"flip": True, "distill": {"soft": 0.5}}})
    assert distilled.startswith("batch_size 32, distill (soft 0.5), epochs 12, flip, ")
    assert "temperature" not in distilled
    nested = _resolved(
        {"iterate": {"steps": 2, "shrink": {"weights": {"sparsity": 0.7}}, "recover": TRAINING}}
    )
    assert "shrink (weights (sparsity 0.7))" in nested
    options = {
        "method": "static",
        "calibration": "mse",
        "percentile": 99.99,
        "equalize": True,
        "keep_float": 0,
    }
    assert describe_options("quantize", options) == "method static, calibration mse, equalize"


def test_what_is_no_default_of_this_method_is_shown_though_another_has_it() -> None:
    assert describe_options(
        "plugin/prune", {"criterion": "taylor", "max_ratio": 0.9, "off": False, "none": []}
    ) == ("criterion taylor, max_ratio 0.9")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"channels": {"a": [32, 27], "b": [10, 10]}}, ("channels: a 32 → 27",)),
        ({"channels": {"a": [3, 3]}}, ("channels: none changed",)),
        (
            {"channels": {f"n{i}": [9, 8] for i in range(6)}},
            ("channels: n0 9 → 8; n1 9 → 8; n2 9 → 8; n3 9 → 8 and 2 more",),
        ),
        ({"channels": {}, "kept": {"fc": "an output"}}, ("channels: none changed", "kept whole: fc (an output)")),
        ({"removed": ["b1", "b2"], "kept": ["b3"]}, ("blocks removed: b1; b2", "kept whole: b3")),
        ({"zeros": {"a": [200, 100]}}, ("zeros: a 50 %",)),
        ({"ranks": {"a": [64, 12]}, "energy": 0.93}, ("ranks: a 64 → 12", "energy kept 93.0 %")),
        (
            {"convolutions": 3, "integer_convolutions": 2, "products": 0, "integer_products": 0},
            ("2 of 3 convolutions in integers",),
        ),
        ({"equalized_pairs": 1, "folded_norms": 4}, ("4 norms folded", "1 pair of layers equalized")),
        (
            {"steps": [{"channels": {"a": [32, 20]}}, {"channels": {"a": [20, 9]}}]},
            ("2 steps", "channels: a 32 → 9"),
        ),
        (
            {"events": [{"step": 3, "zeros": {"a": [10, 4]}}, {"step": 9, "zeros": {"a": [10, 7]}}]},
            ("2 steps", "zeros: a 70 %"),
        ),
        ({"rung": "mse", "rungs": [{}, {}]}, ("2 rungs climbed", "rung mse")),
        ({"sensitivity": [{"layer": "a", "divergence": 1.0}], "kept_float": ["a"]}, ("left in floats: a",)),
        ({"untrained": {"validation_accuracy": 0.98}, "agreement": 1.0},
         ("before training right on 98.0 %", "the file decides as what was trained on 100.0 %")),
        ({"name": "plugin", "found": 3, "where": {"x": [1]}, "why": "because"},
         ("found 3", "where 1 entry", "why because")),
        ({"name": "plugin", "channels": "all", "steps": 3}, ("channels all", "steps 3")),
    ],
)  # fmt: skip
def test_what_changed_is_told_in_words(figures: dict[str, Any], words: tuple[str, ...]) -> None:
    assert _changed(**figures) == words


def test_rows_have_a_cell_a_column_and_zeros_only_where_a_pass_left_many() -> None:
    def made(sparsity: float) -> tuple[Any, Any]:
        entries = [
            {"pass": "weights", "left": LEFT},
            {"pass": "weights", "left": LEFT | {"sparsity": sparsity}},
        ]
        passes = passes_in(Fields({"passes": entries}, "compression.json"))
        return pass_columns(passes), list(pass_rows(passes))

    columns, rows = made(0.5)
    assert dict(zip(columns, rows[1], strict=True)) == {
        "#": ("2",), "Pass": ("weights",), "Options": ("–",), "What changed": ("–",), "MACs": ("892 k",),
        "Parameters": ("27.17 k",), "Zeros": ("50.0 %",), "Size": ("110.5 KB", "(101.9 KB)"),
        "Validation accuracy": ("99.3 %",),
    }  # fmt: skip
    columns, rows = made(0.01)
    assert "Zeros" not in columns
    assert [len(row) for row in rows] == [len(columns)] * 2


@pytest.mark.parametrize("passes", [[], [{"pass": "train"}], [{"left": LEFT}], [{"pass": "x", "left": {}}]])
def test_a_pass_that_does_not_say_what_it_left_is_refused(passes: Any) -> None:
    with pytest.raises(EvidenceError):
        passes_in(Fields({"passes": passes}, "compression.json"))


def test_deep_and_long_values_stay_short() -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"steps": [deep], "events": [deep]} if len(str(deep)) < 2000 else {"steps": [deep]}
    words = _changed(name="p" * 999, note="n" * 9999, **deep)
    assert max(map(len, words)) <= 500
    nested: dict[str, Any] = {"x": 1}
    for _ in range(400):
        nested = {"y": nested}
    assert describe_options("p", nested).endswith("y 1 entry))))")
