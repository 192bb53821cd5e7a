# SPDX-License-Identifier: Apache-2.0
"""For each finding a reader can tell what was measured, how sure it is, and what to do: in every medium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from checks.protocol import built_in_checks, metrics_of
from pipeline.decision_file import parse_decision
from pipeline.fields import Fields
from pipeline.report import render_table
from pipeline.report.forest import forest_metrics, forest_of
from pipeline.report.glossary import explain
from pipeline.report.markdown import render_markdown
from pipeline.report.summary import gather_comparison, gather_report
from pipeline.report.wording import (
    describe_detectable,
    describe_interval,
    describe_limit,
    describe_remedy,
    describe_value,
)

HOSTILE = "<script>alert(1)</script>|\u202ex"


def measured(
    metric: str, where: str, value: float, n: int = 100, unit: str = "proportion", **more: Any
) -> Any:
    base = {"metric": metric, "slice": where, "versus": None, "target": None, "levels": [], "value": value}
    base |= {"interval": [value - 0.02, value + 0.02], "n": n, "unit": unit, "method": "paired_exact"}
    return base | {"statistics": {}} | more


def judged(rule: str, about: Any, verdict: str = "PASS", **more: Any) -> Any:
    keys = ("metric", "slice", "versus", "target", "value", "interval", "n", "unit", "method")
    base = {key: about[key] for key in keys}
    base |= {"rule": rule, "kind": "bounded", "blocking": True, "listed": False, "verdict": verdict}
    base |= {"reason": "", "bound": about["value"] - 0.03, "limit": -0.1, "limit_kind": "margin", "p": 0.02}
    base |= {"detectable": 0.034, "message": f"{rule} says so", "further_examples": None}
    return base | {"further_if_equal": None, "rule_reason": "as agreed"} | more


def add(case: Any, *pairs: Any, slot: str = "first") -> Any:
    for about, finding in pairs:
        if about is not None:
            case.decision(slot)["measurements"].append(about)
        if finding is not None:
            case.decision(slot)["findings"].append(finding)
    return case


def screen(about: Any, verdict: str, **more: Any) -> Any:
    alarm = {"kind": "screen", "bound": None, "limit": 0.01, "limit_kind": "alarm", "detectable": None}
    return judged("losses-in-one-place", about, verdict, **(alarm | more))


@pytest.fixture
def full(make: Any) -> Any:
    """A run that passed and has one of everything that is no PASS and stops nothing."""
    case = make("passed", "absent")
    recall = [measured("recall_change", "overall", -0.01 * index, target=str(index)) for index in range(3)]
    cells = [measured("accuracy_change", f"slant*size=forward*{size}", -0.4, 4) for size in "abc"]
    listed = {"verdict": "INCONCLUSIVE", "reason": "too_small", "listed": True, "blocking": False}
    found = measured("loss_concentration", "slant=forward", 1.3, unit="ratio", method="exact_test")
    skipped = screen(found, "NOT-RUN") | dict.fromkeys(("slice", "value", "interval", "n", "p"))
    add(
        case,
        *((one, judged("recall", one)) for one in recall),
        *((one, judged("cells", one) | listed) for one in cells),
        (found, screen(found, "NO-FINDING", p=0.4)),
        (None, skipped | {"rule": "flips-to-one-class", "blocking": False, "message": "it did not run"}),
        (measured("candidate_p99_ms_b64", "overall", 0.41, unit="ms"), None),
        (measured("baseline_p99_ms_b64", "overall", 0.93, unit="ms"), None),
        (measured("energy_proxy_ratio_b64", "overall", 0.44, unit="proxy"), None),
        (measured("energy_ratio_b64", "overall", 0.52, unit="ratio"), None),
    )
    case.decision()["most_changed"] = [
        {"id": "digit-7", "label": "3", "baseline": "3", "candidate": "5", "margin_change": -4.5},
        {"id": "digit-9", "label": "1", "baseline": "2", "candidate": None, "margin_change": None},
    ]
    return case


def rows_of(page: Any, caption: str) -> list[list[str]]:
    [table] = [item for item in page.all("table") if caption in item.all("caption")[0].text]
    return [[cell.text for cell in row.all("th") + row.all("td")] for row in table.all("tr")[1:]]


def test_target_stands_beside_the_slice_and_harm_that_would_be_seen_beside_the_bound(
    full: Any, page_of: Any
) -> None:
    page = page_of(full)
    [row] = [
        row for row in rows_of(page, "Every finding on half-int8") if row[0].startswith("overall for 2 ")
    ]
    assert row == [
        "overall for 2 recall says so", "PASS", "−2.00 pp −4.00 to 0.00 pp", "−5.00 pp p 0.02", "above −10.00 pp",
        "3.40 pp", "100",
    ]  # fmt: skip


def test_search_stands_apart_and_says_what_it_promises(full: Any, page_of: Any) -> None:
    page = page_of(full)
    [part] = page.one("article", id="finalist-first").all("div", "searches")
    assert "promises nothing about what it did not find" in part.text
    rows = [row for row in rows_of(page, "What was searched") if len(row) > 1]
    assert rows == [
        ["not measured it did not run", "NOT-RUN", "–", "–", "alarm at p 0.01, shared", "–"],
        ["slant=forward losses-in-one-place says so", "NO-FINDING", "1.30× 1.28 to 1.32×", "0.4", "alarm at p 0.01, shared",
         "100"],
    ]  # fmt: skip
    assert not any("losses-in-one-place" in " ".join(row) for row in rows_of(page, "Every finding on"))


def test_search_that_found_something_is_a_concern_with_a_remedy(make: Any, page_of: Any) -> None:
    case = make("blocked", "absent")
    found = measured("loss_concentration", "slant=forward", 6.5, unit="ratio", method="exact_test")
    add(case, (found, screen(found, "FAIL", p=0.0002)))
    [card] = [
        item for item in page_of(case).one("section", id="why").all("article") if "losses-in" in item.text
    ]
    facts = {item.all("dt")[0].text: item.all("dd")[0].text for item in card.all("dl")[0].all("div")}
    assert facts["Decides"] == "p 0.0002"
    assert facts["Limit"] == "alarm at p 0.01, shared"
    assert "flip exemplars" in facts["What to do"]
    assert "Distance" not in facts
    assert "look at its flip exemplars" in " ".join(render_table(case.write()).split())


def test_cells_only_listed_are_quiet_and_in_a_list_of_their_own(full: Any, page_of: Any) -> None:
    page = page_of(full)
    assert "slant*size" not in page.one("section", id="why").text
    rows = rows_of(page, "Listed only, on half-int8")
    assert [row[0] for row in rows] == [f"slant*size=forward*{size} cells says so" for size in "abc"]
    assert all("slant*size" not in item.text for item in page.all("svg", "forest"))
    assert not any("slant*size" in row[0] for row in rows_of(page, "Every finding on"))
    worst = gather_comparison(full.write(), full.selection).candidates[3].worst_slice
    assert worst is not None
    assert worst.slice == "label=1"


def test_run_with_nothing_but_listed_cells_left_is_settled(make: Any, page_of: Any) -> None:
    case = make("passed", "absent")
    findings = case.decision()["findings"]
    case.decision()["findings"] = [item for item in findings if item["rule"] != "single-image-latency"]
    cell = measured("accuracy_change", "slant*size=forward*a", -0.4, 4)
    add(case, (cell, judged("cells", cell, "INCONCLUSIVE", listed=True, blocking=False)))
    told = page_of(case).one("section", id="why").text
    assert "All 25 findings are settled. 1 further one only listed. Too small to be judged alone" in told


def test_failure_that_claims_to_be_only_listed_is_still_a_concern(full: Any) -> None:
    findings = full.decision()["findings"]
    next(item for item in findings if item["listed"])["verdict"] = "FAIL"
    decision = parse_decision(Fields(full.decision(), "first.json"))
    assert len(decision.listed) == 2
    assert [item.verdict for item in decision.unsettled if item.rule == "cells"] == ["FAIL"]


def test_examples_that_changed_most_are_named_in_every_medium(full: Any, page_of: Any) -> None:
    page = page_of(full)
    assert rows_of(page, "Flip exemplars") == [
        ["digit-7", "label=3", "3", "5", "−4.5"],
        ["digit-9", "label=1", "2", "–", "–"],
    ]
    layout = full.write()
    assert "digit-7 (label=3: 3 → 5), digit-9 (label=1: 2 → –)" in render_markdown(
        gather_report(layout, full.selection)
    )
    assert "changed most: digit-7 (label=3: 3 → 5)" in " ".join(render_table(layout).split())


def test_times_are_told_with_their_units_and_a_proxy_says_so(full: Any, page_of: Any) -> None:
    rows = {row[0]: row[1:] for row in rows_of(page_of(full), "Time, energy and memory")}
    assert rows["batch 64: 99 of 100 calls, candidate"] == ["0.4100 ms", "0.3900 to 0.4300 ms"]
    assert rows["batch 64: energy, candidate over baseline"] == ["0.52×", "0.50 to 0.54×"]
    [proxy] = [(name, row) for name, row in rows.items() if "processor time" in name]
    assert "a proxy for energy, never judged" in proxy[0]
    assert proxy[1] == ["0.44× (proxy)", "0.42 to 0.46× (proxy)"]
    layout = full.write()
    for text in (render_table(layout), render_markdown(gather_report(layout, full.selection))):
        told = " ".join(text.replace("\\", "").split())
        assert "b64 p99 0.4100 ms (baseline 0.9300 ms), energy 0.52×, processor time 0.44× (proxy)" in told


def test_report_md_keeps_quiet_findings_short(full: Any) -> None:
    text = render_markdown(gather_report(full.write(), full.selection))
    assert "2 searches: 1 did not run. A search promises nothing" in text
    assert r"Listed only: slant\*size=forward\*a (n 4)" in text
    assert "their parents are" in text
    assert text.count("slant") == 3
    assert "NOT-RUN, advisory" in text


def test_terminal_names_searches_and_listed_cells_in_a_line_each(full: Any) -> None:
    lines = render_table(full.write()).splitlines()
    told = " ".join(" ".join(lines).split())
    assert "2 searches: 1 did not run. A search promises nothing about what it did not find" in told
    assert "3 combinations listed only. Too small to be judged alone; their parents are." in told
    assert max(len(line) for line in lines) <= 110


@pytest.mark.parametrize(
    ("seen", "equal", "words"),
    [
        (214, 80, ("Collect about 214 more test examples of slant=forward; they would settle it if what was seen "
         "holds; about 80 if the models are in truth equal.")),
        (214, None, ("Collect about 214 more test examples of slant=forward; they would settle it if what was seen "
         "holds.")),
        (None, 1, ("If what was seen holds, more examples will not settle it: compress less, or recover for longer. "
         "If the models are in truth equal, about 1 more test example of slant=forward would.")),
        (None, None, "Collect more test examples of slant=forward, or compress less, or recover for longer."),
    ],
)  # fmt: skip
def test_open_question_says_how_many_examples_would_settle_it_either_way(
    make: Any, seen: int | None, equal: int | None, words: str
) -> None:
    about = measured("accuracy_change", "slant=forward", -0.03)
    more = {"further_examples": seen, "further_if_equal": equal, "reason": "underpowered"}
    case = add(make("inconclusive", "absent"), (None, judged("x", about, "INCONCLUSIVE", **more)))
    finding = parse_decision(Fields(case.decision(), "first.json")).findings[-1]
    assert describe_remedy(finding) == words
    assert describe_detectable(finding) == "3.40 pp"
    assert words in render_markdown(gather_report(case.write(), case.selection)).replace("\\", "")


@pytest.mark.parametrize(
    ("method", "reason", "words"),
    [
        ("hodges_lehmann", "noisy_host", "quieter machine"),
        ("hodges_lehmann", "borderline", "time.sessions"),
        ("order_statistic", "too_small", "time.calls"),
    ],
)
def test_open_question_about_time_asks_for_no_examples(
    make: Any, method: str, reason: str, words: str
) -> None:
    about = measured("latency_ratio_b64", "overall", 0.99, unit="ratio", method=method)
    case = add(make("inconclusive", "absent"), (None, judged("x", about, "INCONCLUSIVE", reason=reason)))
    remedy = describe_remedy(parse_decision(Fields(case.decision(), "first.json")).findings[-1])
    assert words in remedy
    assert "examples" not in remedy


@pytest.mark.parametrize("metric", sorted(metrics_of(built_in_checks())))
def test_every_metric_has_a_meaning_and_a_remedy(metric: str) -> None:
    entry = explain(metric.replace("*", "64"))
    assert entry.meaning
    assert entry.remedy or not metrics_of(built_in_checks())[metric].gateable


def test_metric_of_another_distribution_has_a_remedy_too() -> None:
    assert explain("worst_class_accuracy_of_somebody").remedy


@pytest.mark.parametrize(
    ("number", "metric", "unit", "words"),
    [
        (0.0412, "candidate_p99_ms_b1", "ms", "0.0412 ms"),
        (21.07, "candidate_p99_ms_b1", "ms", "21.1 ms"),
        (1234.5, "candidate_p99_ms_b1", "ms", "1,234 ms"),
        (0.5, "energy_proxy_ratio_b1", "proxy", "0.50× (proxy)"),
        (0.0123, "brier_change", "1", "+0.0123"),
        (-0.5, "recall_change", "proportion", "−50.00 pp"),
        (0.02, "flip_rate", "proportion", "2.00 %"),
        (0.02, "true_positive_rate_gap", "proportion", "+2.00 pp"),
    ],
)
def test_new_units_are_printed_as_people_write_them(
    number: float, metric: str, unit: str, words: str
) -> None:
    assert describe_value(number, metric, unit) == words


@pytest.mark.parametrize(
    ("interval", "unit", "words"),
    [
        ((0.04, 1e9), "ms", "at least 0.0400 ms"),
        ((0.5, 1000.0), "ratio", "at least 0.50×"),
        ((0.5, 4.85e8), "ratio", "at least 0.50×"),
        ((0.5, 2.0), "ratio", "0.50 to 2.00×"),
        ((0.0, 1.0), "proportion", "0.00 to 100.00 %"),
    ],
)
def test_end_that_stands_for_infinity_is_not_printed(
    interval: tuple[float, float], unit: str, words: str
) -> None:
    assert describe_interval(interval, "some_metric", unit) == words


def test_rate_that_must_not_rise_has_a_ceiling_and_a_plot_whose_right_is_worse(
    make: Any, page_of: Any
) -> None:
    ceiling = {"limit": 0.02, "limit_kind": "max", "bound": 0.03}
    rates = [measured("false_positive_rate_change", "overall", 0.01, target=str(index)) for index in range(2)]
    case = add(
        make("passed", "absent"), *((one, judged("fpr", one, "INCONCLUSIVE", **ceiling)) for one in rates)
    )
    decision = parse_decision(Fields(case.decision(), "first.json"))
    assert describe_limit(decision.findings[-1]) == "at most +2.00 pp"
    page = page_of(case)
    [plot] = [item for item in page.all("svg", "forest") if "false positive rate" in item.text]
    assert "← better" in plot.text
    assert "worse →" in plot.text
    margin = float((plot.all("line", "margin")[0].attributes["x1"] or "")[:-1])
    zero = float((plot.all("line", "zero")[0].attributes["x1"] or "")[:-1])
    assert margin > zero


def test_each_paired_metric_with_rules_on_slices_has_a_plot_of_its_own(full: Any, page_of: Any) -> None:
    decision = parse_decision(Fields(full.decision(), "first.json"))
    # One rule on one slice is no plot: it stands in the table.
    assert forest_metrics(decision) == ("accuracy_change", "recall_change")
    forest = forest_of(decision, "recall_change")
    assert forest is not None
    assert [(row.group, row.label) for row in forest.rows] == [
        ("overall, for", str(index)) for index in range(3)
    ]
    plots = page_of(full).all("svg", "forest")
    assert [item.all("title")[0].text for item in plots] == [
        "Change in accuracy by slice, half-int8", "Change in recall by slice, half-int8",
    ]  # fmt: skip
    assert len({item.all("title")[0].attributes["id"] for item in plots}) == 2


def test_rows_of_a_plot_carry_their_n(make: Any, page_of: Any) -> None:
    plot = page_of(make("passed", "absent")).all("svg", "forest")[0]
    assert [item.text for item in plot.all("tspan", "n")][:2] == ["n 898", "n 299"]


def test_plot_of_many_slices_keeps_the_gravest_and_counts_the_others(make: Any, page_of: Any) -> None:
    case = make("blocked", "absent")
    many = [measured("accuracy_change", f"site={index:03d}", 0.0) for index in range(100)]
    add(case, *((one, judged("sites", one)) for one in many))
    bad = measured("accuracy_change", "site=bad", -0.3)
    add(case, (bad, judged("sites", bad, "FAIL")))
    forest = forest_of(parse_decision(Fields(case.decision(), "first.json")))
    assert forest is not None
    assert {"overall", "site=bad", "stroke_weight=light"} <= {row.slice for row in forest.rows}
    assert (len(forest.rows), forest.left_out) == (60, 61)
    assert "61 further rows in the table of findings" in page_of(case).text


def test_slices_of_a_metric_are_single_slices_and_about_no_class(make: Any) -> None:
    about = [
        measured("sensitivity_change", "overall", 0.0),
        measured("sensitivity_change", "slant=forward", 0.0, target="stop"),
        measured("sensitivity_change", "slant=backward", 0.0),
        measured("sensitivity_change", "slant", 0.0, levels=["forward", "backward"]),
        measured("sensitivity_change", "slant*size=forward*a", 0.0),
    ]
    case = add(make("passed", "absent"), *((one, None) for one in about))
    decision = parse_decision(Fields(case.decision(), "first.json"))
    assert [item.slice for item in decision.slices_of("sensitivity_change")] == ["slant=backward"]


def test_pair_of_the_judge_may_differ_from_that_of_the_measurement(make: Any) -> None:
    case = make("passed", "absent")
    [found] = [item for item in case.decision()["findings"] if item["rule"] == "disparity"]
    found |= {"slice": "size=large", "versus": "size=medium", "value": 0.004, "interval": None}
    decision = parse_decision(Fields(case.decision(), "first.json"))
    [gap] = decision.readings_of("accuracy_change_gap")
    assert [item.subject for item in decision.findings_on(gap)] == ["size=large against size=medium"]


def test_ids_and_names_out_of_data_stay_text(full: Any, page_of: Any) -> None:
    decision = full.decision()
    decision["most_changed"][0] |= {
        "id": HOSTILE,
        "label": HOSTILE,
        "baseline": HOSTILE,
        "candidate": HOSTILE,
    }
    for entry in (*decision["findings"], *decision["measurements"]):
        entry["target"] = entry["target"] and HOSTILE + entry["target"]
        if "*" in (entry["slice"] or ""):
            entry["slice"] += HOSTILE
    page = page_of(full)
    assert not page.all("script")
    written = (full.root / "out" / "report.md").read_text(encoding="utf-8")
    for text in (written, render_table(full.write())):
        assert "\u202e" not in text
    assert "<script" not in written
    assert not re.search(r"(?<!\\)\|\ufffdx", written)


@pytest.mark.parametrize("key", ["listed", "limit_kind", "limit"])
def test_finding_that_lacks_what_the_judge_always_writes_is_refused(make: Any, key: str) -> None:
    from checks.errors import EvidenceError

    case = make("passed", "absent")
    del case.decision()["findings"][0][key]
    with pytest.raises(EvidenceError, match=key):
        gather_comparison(case.write(), case.selection)
