# SPDX-License-Identifier: Apache-2.0
"""The forest plot, the picture of size against accuracy, and the scales behind both."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.forest import draw_forest, forest_of
from pipeline.report.front import draw_front
from pipeline.report.picture import render_picture
from pipeline.report.summary import gather_comparison
from pipeline.report.svg import Scale, nice_ticks


def _decision(case: Any) -> Any:
    return gather_comparison(case.write(), case.selection).decisions[0]


def _share(value: str | None) -> float:
    assert value is not None
    assert value.endswith("%")
    return float(value[:-1])


def test_rows_are_the_whole_split_then_levels_then_classes(make: Any) -> None:
    rows = forest_of(_decision(make("passed", "absent"))).rows
    assert rows[0].slice == "overall"
    assert [row.group for row in rows[1:]] == ["stroke_weight"] * 3 + ["slant"] * 3 + ["size"] * 3 + [
        "label"
    ] * 10
    assert [row.label for row in rows[1:4]] == ["light", "medium", "bold"]


def test_row_carries_value_interval_bound_margin_and_verdict(make: Any) -> None:
    row = forest_of(_decision(make("inconclusive", "absent"))).rows[1]
    assert (row.slice, row.verdict, row.look) == ("stroke_weight=light", "INCONCLUSIVE", "open")
    assert (row.value, row.interval, row.bound, row.limit) == (-0.0301, (-0.0569, -0.0087), -0.0604, -0.05)


def test_slice_that_was_not_measured_keeps_a_row(make: Any, page_of: Any) -> None:
    case = make("error", "absent")
    rows = [row for row in forest_of(_decision(case)).rows if row.verdict == "ERROR"]
    assert [(row.slice, row.value, row.look) for row in rows] == [("rule accuracy-slices", None, "error")]
    plot = page_of(case).all("svg", "forest")[0]
    assert "not measured" in plot.text


def test_gravest_verdict_of_several_rules_is_drawn(make: Any) -> None:
    case = make("passed", "absent")
    first = case.decision()["findings"][0]
    case.decision()["findings"].append(first | {"rule": "stricter", "verdict": "FAIL", "limit": -0.001})
    row = forest_of(_decision(case)).rows[0]
    assert (row.verdict, row.limit) == ("FAIL", -0.001)


def test_measured_slice_without_a_rule_is_drawn_as_such(make: Any) -> None:
    case = make("passed", "absent")
    case.decision()["findings"] = [item for item in case.decision()["findings"] if item["slice"] != "label=7"]
    row = next(row for row in forest_of(_decision(case)).rows if row.slice == "label=7")
    assert (row.verdict, row.look, row.limit) == ("", "calm", None)


def test_marks_stand_in_the_order_of_their_numbers(make: Any, page_of: Any) -> None:
    page = page_of(make("blocked", "absent"))
    plot = page.all("svg", "forest")[0]
    row = next(item for item in plot.all("g") if "stroke_weight=light" in item.text and item.all("use"))
    margin = _share(row.all("line", "margin")[0].attributes["x1"])
    value = _share(row.all("use")[0].attributes["x"])
    bar = row.all("line", "bar")[0].attributes
    tick = _share(row.all("line", "tick")[0].attributes["x1"])
    zero = _share(plot.all("line", "zero")[0].attributes["x1"])
    assert 0 <= tick < _share(bar["x1"]) < value < _share(bar["x2"]) < margin < zero <= 100
    assert row.all("use")[0].attributes["href"] == "#m-fail"


def test_verdicts_differ_in_shape_and_not_in_colour_alone(make: Any, page_of: Any) -> None:
    page = page_of(make("blocked", "inconclusive"))
    shapes = {item.attributes["id"]: item.children[0].attributes for item in page.all("defs")[0].all("g")}
    looks = [tuple(sorted((k, v) for k, v in shape.items() if k != "class")) for shape in shapes.values()]
    assert len(set(looks)) == len(looks)
    used = {item.attributes["href"] for item in page.all("use")}
    assert used <= {f"#{name}" for name in shapes}
    assert {"#m-pass", "#m-fail", "#m-open"} <= used


def test_very_wide_interval_does_not_squash_the_others(make: Any, page_of: Any) -> None:
    case = make("passed", "absent")
    for entry in case.decision()["measurements"]:
        if (entry["metric"], entry["slice"]) == ("accuracy_change", "label=3"):
            entry["interval"] = [-1.0, 1.0]
    plot = page_of(case).all("svg", "forest")[0]
    margins = [_share(item.attributes["x1"]) for item in plot.all("line", "margin")]
    assert max(margins) - min(margins) > 10


def test_plot_as_a_file_of_its_own_needs_nothing_and_stays_text(make: Any) -> None:
    import xml.etree.ElementTree as ET

    hostile = "<script>alert(1)</script>]]>"
    case = make("blocked", "absent", levels={"slant": (hostile, "b")})
    text = render_picture(_decision(case))
    assert text is not None
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert not list(root.iter(f"{space}script"))
    assert hostile[:11] in "".join(root.itertext())
    shapes = {item.get("id") for item in root.iter(f"{space}g")}
    assert {item.get("href", "")[1:] for item in root.iter(f"{space}use")} <= shapes
    # A ground of its own, so that it reads on any page; no colour depends on a style that is not here.
    assert root.find(f"{space}rect").get("fill") == "#ffffff"  # type: ignore[union-attr]
    assert "url(" not in text
    style = root.find(f"{space}style").text or ""  # type: ignore[union-attr]
    assert set(re.findall(r"var\(--([a-z-]+)\)", style)) <= set(re.findall(r"--([a-z-]+):", style))


def test_nothing_measured_gives_no_file(make: Any) -> None:
    case = make("error", "absent")
    case.decision().update(findings=[], measurements=[])
    assert render_picture(_decision(case)) is None


def _boxes(plot: Any, width: float) -> list[tuple[str, float, float, float, float]]:
    """Where each name stands on a plot of this width, by 6.6 pixels a letter."""
    boxes = []
    for item in plot.all("text", "d"):
        at = item.attributes
        x = _share(at["x"]) / 100 * width + float(at["dx"] or 0)
        y, length = float(at["y"] or 0) + float(at["dy"] or 0), 6.6 * len(item.text)
        left = x - {"start": 0.0, "middle": length / 2, "end": length}[at["text-anchor"] or ""]
        boxes.append((item.text, left, y - 11, left + length, y + 3))
    return boxes


@pytest.mark.parametrize("width", [270, 520, 980])
def test_every_model_is_named_and_no_name_covers_another(make: Any, page_of: Any, width: float) -> None:
    case = make("passed", "blocked")
    rows = case.files["shortlist/shortlist.json"]["candidates"]
    for row in rows:  # as on digits: many tie on validation, at the upper edge of the plot
        row["validation_accuracy"] = 0.9792 if row["name"] != "third-int8" else 0.9514
    boxes = _boxes(page_of(case).all("svg", "front")[0], width)
    assert {box[0] for box in boxes} == {"baseline", *(row["name"] for row in rows)}
    for index, (name, left, top, right, bottom) in enumerate(boxes):
        assert left >= -9, name
        assert right <= width + 9, name
        for other, *box in boxes[:index]:
            assert right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top, (name, other)


def test_no_change_measured_gives_no_plot(make: Any) -> None:
    case = make("error", "absent")
    case.decision().update(findings=[], measurements=[])
    assert draw_forest(_decision(case)) is None


def test_every_model_is_a_dot_and_finalists_are_named(make: Any, page_of: Any) -> None:
    plot = page_of(make("passed", "blocked")).all("svg", "front")[0]
    dots = [item for item in plot.all("use") if "ring" not in (item.attributes["class"] or "")]
    assert len(dots) == 7
    assert len(plot.all("use", "ring")) == 3
    assert {"baseline", "half-int8", "third-int8"} <= {item.text for item in plot.all("text", "named")}
    half = next(item for item in dots if item.all("title")[0].text.startswith("half-int8: 28.3 KB, 97.2 %"))
    assert half.attributes["href"] == "#m-pass"


def test_smaller_is_left_and_more_accurate_is_up(make: Any, page_of: Any) -> None:
    plot = page_of(make("passed", "blocked")).all("svg", "front")[0]
    dots = {
        item.all("title")[0].text.partition(":")[0]: item.attributes
        for item in plot.all("use")
        if item.all("title")
    }
    assert _share(dots["third-int8"]["x"]) < _share(dots["half-int8"]["x"]) < _share(dots["dense-int8"]["x"])
    assert (
        float(dots["third-int8"]["y"] or 0)
        > float(dots["half-int8"]["y"] or 0)
        > float(dots["dense-int8"]["y"] or 0)
    )


def test_equal_models_still_make_a_picture(make: Any) -> None:
    case = make("passed", "absent")
    rows = [
        *case.files["shortlist/shortlist.json"]["candidates"],
        case.files["shortlist/shortlist.json"]["baseline"],
    ]
    for row in rows:
        row |= {"bytes": 1000, "validation_accuracy": 1.0}
    assert "nan" not in draw_front(gather_comparison(case.write(), case.selection))


finite = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


@given(finite, st.floats(min_value=1e-6, max_value=1e9), finite)
def test_scale_keeps_order_and_never_leaves_the_picture(low: float, width: float, number: float) -> None:
    if low + width == low:
        return
    scale = Scale(low, low + width)
    assert 0 <= scale.place(number) <= 1
    assert (scale.place(low), scale.place(low + width)) == (0, 1)
    assert scale.place(number) <= scale.place(number + width)


def test_logarithmic_scale_gives_equal_ratios_equal_distances() -> None:
    scale = Scale(10, 1000, logarithmic=True)
    assert scale.place(100) == pytest.approx(0.5)


@given(st.floats(min_value=-100, max_value=100), st.floats(min_value=1e-3, max_value=1e6))
def test_ticks_are_few_even_and_inside(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    assert len(ticks) <= 7
    assert all(low - 1e-3 * width <= tick <= low + width + 1e-3 * width for tick in ticks)
    gaps = {round((b - a) / width, 6) for a, b in zip(ticks, ticks[1:], strict=False)}
    assert len(gaps) <= 1
