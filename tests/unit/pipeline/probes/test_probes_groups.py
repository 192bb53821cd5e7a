# SPDX-License-Identifier: Apache-2.0
"""The group table against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from checks.errors import ProbeError
from pipeline.probes.groups import tabulate_groups

CLASSES = ("cat", "dog")
LABELS = np.array([0, 0, 1, 1, 1])
BASELINE = np.array([0, 1, 1, 1, 0])
CANDIDATE = np.array([0, 0, 1, -1, 0])
LIGHT = np.array(["day", "night", "day", "night", "night"])


def test_the_table_is_the_one_worked_out_by_hand():
    table = tabulate_groups(LABELS, BASELINE, CANDIDATE, {"light": LIGHT}, CLASSES)
    assert table == {
        "light": {
            "day": {"n": 2, "baseline_accuracy": 1.0, "candidate_accuracy": 1.0},
            "night": {"n": 3, "baseline_accuracy": 1 / 3, "candidate_accuracy": 1 / 3},
        },
        "label": {
            "cat": {"n": 2, "baseline_accuracy": 0.5, "candidate_accuracy": 1.0},
            "dog": {"n": 3, "baseline_accuracy": 2 / 3, "candidate_accuracy": 1 / 3},
        },
    }


def test_levels_may_be_any_text():
    levels = np.array(["", "nan", "None", "<b>", "1"])
    table = tabulate_groups(LABELS, BASELINE, CANDIDATE, {"odd": levels}, CLASSES)
    assert {level: row["n"] for level, row in table["odd"].items()} == dict.fromkeys(levels.tolist(), 1)
    right = {level: row["baseline_accuracy"] for level, row in table["odd"].items()}
    assert right == {"": 1.0, "nan": 0.0, "None": 1.0, "<b>": 1.0, "1": 0.0}


def test_one_level_is_enough():
    table = tabulate_groups(LABELS, BASELINE, CANDIDATE, {"light": np.full(5, "day")}, CLASSES)
    assert table["light"]["day"]["n"] == 5


def test_a_slice_column_may_not_be_called_label():
    with pytest.raises(ProbeError, match="label"):
        tabulate_groups(LABELS, BASELINE, CANDIDATE, {"label": LIGHT}, CLASSES)


def test_no_examples_make_no_table():
    with pytest.raises(ProbeError):
        tabulate_groups(LABELS[:0], BASELINE[:0], CANDIDATE[:0], {}, CLASSES)
