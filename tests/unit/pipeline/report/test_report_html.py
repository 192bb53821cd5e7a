# SPDX-License-Identifier: Apache-2.0
"""report.html: read as a browser reads it, never compared with a stored text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from checks.canonical import sha256_file
from pipeline.report import write_report
from pipeline.report.style import DARK, LIGHT, style_sheet

HOSTILE = '<script>alert("1")</script>&amp;\u202e\x1b[31m'


def test_passed_run_names_the_model_that_ships_first(make: Any, page_of: Any) -> None:
    page = page_of(make("passed", "blocked"))
    assert [heading.text for heading in page.all("h1")] == ["half-int8 ships"]
    header = page.all("header")[0]
    assert "look-pass" in (header.attributes["class"] or "")
    tiles = {item.all("dt")[0].text: item.all("dd")[0].text for item in header.all("dl")[0].all("div")}
    assert tiles["Size"] == "28.3 KB 5.7× smaller"
    assert tiles["MACs"] == "607 k 2.0× fewer"
    assert tiles["Latency, batch 64"] == "0.39× 0.38–0.40"
    assert tiles["Accuracy on test"] == "97.2 % baseline 97.7 %"
    assert list(tiles)[2:4] == ["Latency, batch 1", "Latency, batch 64"]


@pytest.mark.parametrize(
    ("first", "second", "title", "look"),
    [
        ("blocked", "blocked", "Nothing ships", "look-fail"),
        ("inconclusive", "blocked", "Nothing ships yet", "look-open"),
        ("error", "absent", "Nothing ships: could not judge", "look-error"),
        ("absent", "absent", "Nothing ships", "look-fail"),
    ],
)
def test_closed_run_says_that_nothing_ships(
    make: Any, page_of: Any, first: str, second: str, title: str, look: str
) -> None:
    page = page_of(make(first, second))
    assert page.all("h1")[0].text == title
    assert look in (page.all("header")[0].attributes["class"] or "")
    assert "ships" not in page.all("header")[0].text.replace("Nothing ships", "")


def test_blocked_decision_names_rule_slice_value_bound_limit_and_distance(make: Any, page_of: Any) -> None:
    page = page_of(make("passed", "blocked"))
    cards = [card for card in page.one("section", id="why").all("article") if "FAIL" in card.text]
    assert len(cards) == 1
    facts = {item.all("dt")[0].text: item.all("dd")[0].text for item in cards[0].all("dl")[0].all("div")}
    assert cards[0].all("h4")[0].text == "FAIL accuracy-slices on stroke_weight=light"
    assert facts["Measured"] == "−9.36 pp 90 % interval −12.64 to −6.41 pp"
    assert facts["Deciding bound"] == "−13.01 pp p 0.01"
    assert facts["Limit"] == "above −5.00 pp"
    assert facts["Distance"] == "measured 4.36 pp beyond the limit, the bound 8.01 pp beyond it"
    assert "compress less" in facts["What to do"]
    assert facts["The rule"] == "accuracy-slices has its reasons."


def test_inconclusive_decision_says_how_many_examples_of_what_would_settle_it(
    make: Any, page_of: Any
) -> None:
    page = page_of(make("inconclusive", "absent"))
    card = page.one("section", id="why").all("article")[0]
    assert card.all("span", "chip")[0].text == "INCONCLUSIVE"
    assert "214 more test examples of stroke_weight=light" in card.text
    assert "measured 1.99 pp inside the limit, the bound 1.04 pp beyond it" in card.text


def test_finding_that_blocks_nothing_is_shown_as_advisory(make: Any, page_of: Any) -> None:
    page = page_of(make("passed", "absent"))
    cards = page.one("section", id="why").all("article")
    assert [card.all("code")[0].text for card in cards] == ["single-image-latency"]
    assert "advisory, blocks nothing" in cards[0].text


def test_advisory_error_is_not_called_harmless(make: Any, page_of: Any) -> None:
    case = make("error", "absent")
    for finding in case.decision()["findings"]:
        finding["blocking"] = finding["verdict"] != "ERROR"
    card = page_of(case).one("section", id="why").all("article")[0]
    assert card.all("span", "chip")[0].text == "ERROR"
    assert "advisory" not in card.text


def test_every_finding_of_every_decision_is_on_the_page(make: Any, page_of: Any) -> None:
    case = make("blocked", "error")
    page = page_of(case)
    for slot in ("first", "second"):
        findings = case.decision(slot)["findings"]
        rows = [
            row for row in page.one("article", id=f"finalist-{slot}").all("tr") if row.all("span", "chip")
        ]
        told = sorted((row.all("span", "chip")[0].text, row.all("small")[0].text) for row in rows)
        assert told == sorted((finding["verdict"], finding["message"]) for finding in findings)


def test_unknown_verdict_never_looks_like_a_pass(make: Any, page_of: Any) -> None:
    case = make("blocked", "absent")
    case.decision()["findings"][1]["verdict"] = "PASS-ISH"
    chips = [item for item in page_of(case).all("span", "chip") if item.text == "PASS-ISH"]
    assert chips
    assert all(item.attributes["class"] == "chip error" for item in chips)


def test_table_has_a_row_for_the_baseline_and_each_candidate(make: Any, page_of: Any) -> None:
    case = make("passed", "blocked")
    table = page_of(case).one("section", id="candidates").all("table")[0]
    rows = {row.all("th")[0].text: [cell.text for cell in row.all("td")] for row in table.all("tr")[1:]}
    names = [row["name"] for row in case.files["shortlist/shortlist.json"]["candidates"]]
    assert list(rows) == ["baseline", *names]
    assert rows["half-int8"][0] == "passed, chosen"
    assert rows["third-int8"][0] == "blocked"
    assert rows["third-int8"][5] == "−12.6 pp stroke_weight=light"
    assert rows["half-fp32"][0].startswith("not a finalist half-int8 is smaller")
    assert rows["half-fp32"][4] == "97.2 % val"
    assert rows["half-fp32"][5:] == ["–", "–"]
    assert rows["baseline"][4:] == ["97.7 % 96.8–98.6", "–", "84.2 % 81.5–86.9"]


def test_tables_name_their_columns_rows_and_subject(make: Any, page_of: Any) -> None:
    for table in page_of(make("passed", "blocked")).all("table"):
        assert table.all("caption")[0].text
        assert all(head.attributes.get("scope") in ("col", "row", "rowgroup") for head in table.all("th"))
        assert all(row.all("th") for row in table.all("tr"))
        columns = len(table.all("thead")[0].all("th"))
        cells = [row.all("th") + row.all("td") for row in table.all("tr")]
        assert all(sum(int(c.attributes.get("colspan") or 1) for c in row) == columns for row in cells)


def test_pictures_say_what_they_show(make: Any, page_of: Any) -> None:
    page = page_of(make("passed", "blocked"))
    pictures = [item for item in page.all("svg") if item.attributes.get("role") == "img"]
    assert [item.all("title")[0].text for item in pictures] == [
        "Size against accuracy",
        "Change in accuracy by slice, half-int8",
        "Change in accuracy by slice, third-int8",
    ]
    for item in pictures:
        names = (item.attributes["aria-labelledby"] or "").split()
        assert [item.one(id=name).name for name in names] == ["title", "desc"]
    assert "half-int8 passed, chosen, third-int8 blocked" in pictures[0].all("desc")[0].text
    assert "20 slices; verdicts: 19 PASS, 1 FAIL" in pictures[2].all("desc")[0].text
    others = [item for item in page.all("svg") if item not in pictures]
    assert all(item.attributes.get("aria-hidden") == "true" for item in others)


def test_ids_are_unique_and_every_link_leads_somewhere(make: Any, page_of: Any) -> None:
    page = page_of(make("passed", "blocked"))
    ids = [item.attributes["id"] for item in page.all() if "id" in item.attributes]
    assert len(ids) == len(set(ids))
    links = [item.attributes["href"] for item in page.all() if "href" in item.attributes]
    assert {link for link in links if link} <= {f"#{name}" for name in ids}


def test_page_needs_nothing_and_runs_nothing(make: Any, page_of: Any) -> None:
    case = make("passed", "blocked")
    page = page_of(case)
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "nav", "main", "footer", "section"}
    allowed |= {"article", "figure", "figcaption", "details", "summary", "h1", "h2", "h3", "h4", "p", "div"}
    allowed |= {"span", "small", "b", "a", "code", "ul", "ol", "li", "dl", "dt", "dd", "table", "caption"}
    allowed |= {"thead", "tbody", "tr", "th", "td", "svg", "defs", "g", "use", "circle", "path", "line"}
    allowed |= {"text", "tspan", "desc"}
    assert {item.name for item in page.all()} <= allowed
    assert not [key for item in page.all() for key in item.attributes if key.startswith("on") or key == "src"]
    text = (case.root / "out" / "report.html").read_text(encoding="utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"url\(|@import", text)
    policy = next(item for item in page.all("meta") if item.attributes.get("http-equiv"))
    assert "default-src 'none'" in (policy.attributes["content"] or "")


def _hostile(case: Any) -> Any:
    case.files["data/data.json"]["sources"][0] |= {"source": HOSTILE, "license": HOSTILE, "consent": HOSTILE}
    case.files["validation/findings.json"]["findings"][0] |= {
        "check": HOSTILE, "expected": HOSTILE, "came": HOSTILE, "rows": [HOSTILE], "row_count": 1,
    }  # fmt: skip
    for row in case.files["shortlist/shortlist.json"]["candidates"]:
        row["reason"] = HOSTILE
    decision = case.decision()
    decision["policy"]["name"] = HOSTILE
    for finding in decision["findings"]:
        finding |= {
            "message": HOSTILE,
            "rule": HOSTILE,
            "verdict": HOSTILE,
            "kind": HOSTILE,
            "rule_reason": HOSTILE,
        }
    case.selection["preference"] = [HOSTILE]
    made = case.files["shortlist/first/compression.json"]["passes"]
    made[0] |= {"pass": HOSTILE, "options": {HOSTILE: HOSTILE}, HOSTILE: [HOSTILE]}
    made[1] |= {"channels": {HOSTILE: [3, 2]}, "kept": {HOSTILE: HOSTILE}}
    return case


def test_text_from_data_stays_text(make: Any, page_of: Any) -> None:
    levels = {"slant": (HOSTILE, '"><img src=x onerror=alert(1)>')}
    case = _hostile(make("blocked", "passed", classes=(HOSTILE, "b"), levels=levels))
    page = page_of(case)
    assert not page.all("script")
    assert not page.all("img")
    assert '<script>alert("1")</script>&amp;' in page.text
    text = (case.root / "out" / "report.html").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_same_files_give_the_same_bytes_wherever_they_lie(make: Any, page_of: Any) -> None:
    case = make("blocked", "inconclusive")
    page_of(case)
    case.root = case.root.parent / "elsewhere"
    page_of(case)
    folders = [case.root.parent / name / "out" for name in ("project", "elsewhere")]
    for name in ("report.html", "report.md"):
        first, second = (folder / name for folder in folders)
        assert sha256_file(first) == sha256_file(second)
        assert str(case.root.parent) not in first.read_text(encoding="utf-8")


def test_no_number_is_nan_or_infinite(make: Any, page_of: Any) -> None:
    case = make("error", "blocked")
    for row in case.files["shortlist/shortlist.json"]["candidates"]:
        row |= {"macs": 0, "validation_accuracy": 0.9, "bytes": 1000}
    text = page_of(case).text
    assert not re.search(r"\b(nan|inf|infinity)\b", text, re.IGNORECASE)
    assert "−0.0 " not in text


def test_lineage_gives_the_digest_of_every_file_read(make: Any, page_of: Any) -> None:
    case = make("passed", "absent")
    page = page_of(case)
    rows = page.one("section", id="lineage").all("table", "digests")[0].all("tr")[1:]
    told = {row.all("th")[0].text: row.all("td")[0].text for row in rows}
    artifacts = case.root / "artifacts"
    for name in case.files:
        if not name.startswith("shortlist/second"):
            assert told[f"read: artifacts/{name}"] == sha256_file(artifacts / name)
    assert told["slot first: policy vision-default"] == case.decision()["policy"]["sha256"]


def test_large_run_stays_below_three_megabytes(make: Any, page_of: Any) -> None:
    levels = {f"attribute_{index}": tuple(f"level_{number}" for number in range(10)) for index in range(5)}
    case = make("blocked", "inconclusive", levels=levels)
    rows = case.files["shortlist/shortlist.json"]["candidates"]
    slots = case.files["shortlist/shortlist.json"]["slots"]
    for index, row in enumerate(row for row in rows if row["slot"] is None):
        slot = f"more{index}"
        row["slot"] = slots[slot] = None
        row["slot"], slots[slot] = slot, row["name"]
        case.files[f"decisions/{slot}.json"] = case.judged(slot, row["name"], "blocked")
        for name in ("model.json", "compression.json"):
            case.files[f"shortlist/{slot}/{name}"] = case.files[f"shortlist/first/{name}"]
    for slot in slots:
        decision = case.decision(slot)
        template = next(item for item in decision["findings"] if item["versus"])
        decision["findings"] += [
            template | {"slice": f"{name}={one}", "versus": f"{name}={other}"}
            for name, all_levels in levels.items()
            for one in all_levels
            for other in all_levels
            if one != other
        ]
    page = page_of(case)
    assert len(slots) == 6
    assert len([item for item in page.all("svg") if item.attributes.get("class") == "forest"]) == 6
    assert (case.root / "out" / "report.html").stat().st_size <= 3_000_000


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_that_of_wcag_aa(colours: dict[str, str]) -> None:
    looks = ("pass", "fail", "open", "error", "calm", "base")
    texts = [("ink", "bg"), ("ink", "soft"), ("muted", "bg"), ("muted", "soft"), ("link", "bg")]
    texts += [(look, f"{look}-bg") for look in looks] + [(look, "bg") for look in looks]
    texts += [(word, f"{look}-bg") for look in looks for word in ("ink", "muted")]
    for one, other in texts:
        assert _contrast(colours[one], colours[other]) >= 4.5, (one, other)
    assert _contrast(colours["strong"], colours["bg"]) >= 3


def test_style_serves_dark_screens_phones_and_paper() -> None:
    style = style_sheet()
    assert "@media screen and (prefers-color-scheme:dark)" in style
    assert "@media (max-width:" in style
    assert "@media print" in style
    assert set(re.findall(r"var\(--([a-z-]+)\)", style)) <= {*LIGHT, "tone", "tint", "glyph"}
    assert LIGHT.keys() == DARK.keys()
    assert style.count("{") == style.count("}")


def test_report_is_two_files(make: Callable[..., Any]) -> None:
    case = make("passed", "blocked")
    layout, folder = case.write(), case.root / "out"
    folder.mkdir()
    write_report(folder, layout, case.selection)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.md"]
