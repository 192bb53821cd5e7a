# SPDX-License-Identifier: Apache-2.0
"""The parts of the page on the run: decision, reasons, candidates, data, lineage."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.decision_entries import Finding
from pipeline.decision_file import Decision
from pipeline.plain import shorten
from pipeline.report.figures import Candidate, Comparison, Model, Report
from pipeline.report.front import draw_front
from pipeline.report.glossary import explain
from pipeline.report.markup import Markup, chip, code, join, look, table, tag
from pipeline.report.passes import NUMBERS, PASSES, pass_columns, pass_rows
from pipeline.report.rows import COLUMNS, DECISION, Row, footnotes, table_rows
from pipeline.report.wording import (
    LISTED,
    SEARCH,
    count_of,
    describe_bytes,
    describe_certainty,
    describe_detectable,
    describe_distance,
    describe_interval,
    describe_limit,
    describe_macs,
    describe_outcome,
    describe_p,
    describe_range,
    describe_reading,
    describe_reason,
    describe_remedy,
    describe_saving,
    describe_value,
    describe_waiver,
    headline,
)

__all__ = ["candidates", "data", "decision", "legend_of", "lineage", "reasons"]


def decision(comparison: Comparison) -> Markup:
    """Draw what ships, or that nothing does, as the first thing on the page."""
    title, why = headline(comparison)
    winner = comparison.winner
    tone = look(comparison.outcome)
    return tag(
        "header",
        tag(
            "div",
            tag("p", "LeanGate: decision", class_="eyebrow"),
            tag("h1", title),
            tag("p", why, class_="why"),
            _tiles(comparison, winner) if winner else "",
            tag("ul", *(_standing(comparison, item) for item in comparison.decisions), class_="standings"),
        ),
        class_=f"hero look-{tone}",
    )


def _tiles(comparison: Comparison, winner: Candidate) -> Markup:
    base, size = comparison.baseline, winner.size
    tiles = [
        ("Size", describe_bytes(size.bytes), describe_saving(base.bytes, size.bytes, "smaller", "larger")),
        ("MACs", describe_macs(size.macs), describe_saving(base.macs, size.macs, "fewer", "more")),
    ]
    for batch, reading in winner.latency:
        spread = describe_range(reading.interval, reading.metric, reading.unit, 2)
        tiles.append((f"Latency, batch {batch}", describe_reading(reading), spread))
    pairs = (
        ("Accuracy on test", winner.test_accuracy, comparison.baseline_accuracy),
        ("Robust accuracy", winner.robust_accuracy, comparison.baseline_robust_accuracy),
    )
    for name, reading_or_none, other in pairs:
        if reading_or_none:
            tiles.append((name, describe_reading(reading_or_none), f"baseline {describe_reading(other)}"))
    worst = winner.worst_slice
    if worst is not None and worst.interval is not None:
        low = describe_value(worst.interval[0], worst.metric, worst.unit, 1)
        tiles.append(("Worst slice", low, f"{shorten(worst.slice, 60)}, low end"))
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", figure, tag("small", more))) for name, figure, more in tiles),
        class_="tiles",
    )


def _standing(comparison: Comparison, item: Decision) -> Markup:
    if item.candidate is None:
        return tag(
            "li", chip("absent", "empty slot"), f" Slot {item.slot}: the shortlist found nothing for it."
        )
    picked = comparison.chosen is not None and comparison.chosen.slot == item.slot
    standing = item.standing
    words = "chosen" if picked else describe_outcome(standing)
    if picked and standing == "waived":
        words = "waived, chosen"
    stops = [concern for concern in item.concerns if concern[0].stops]
    parts: list[str] = [chip("chosen" if words == "chosen" else standing, words), " "]
    parts.append(tag("a", tag("b", item.candidate), href=f"#finalist-{item.slot}"))
    if stops:
        first, more = stops[0][0], sum(len(concern) for concern in stops[1:])
        parts += [": ", *_place(stops[0])]
        parts.append(f", {distance}" if (distance := describe_distance(first)) else f", {first.message}")
        parts += [f"; {count_of(more, 'more finding')} against it"] if more else []
        parts.append(".")
    elif item.open:
        parts.append(f": {count_of(len(item.findings), 'finding')}, none against it that blocks.")
    elif standing == "waived":
        parts.append(f": it did not pass, {count_of(len(item.waived), 'finding')} waived.")
    else:
        parts.append(": the gate did not open.")
    return tag("li", *parts)


def _place(concern: Sequence[Finding]) -> list[str]:
    finding, more = concern[0], len(concern) - 1
    if finding.subject:
        return [code(finding.rule), " on ", code(finding.subject)]
    return [code(finding.rule), f" and {count_of(more, 'more rule')}" if more else ""]


def reasons(comparison: Comparison) -> Markup:
    """Draw every finding that is not settled, and what a decision that opened is worth."""
    parts: list[str] = []
    for item in comparison.judged:
        wanting = item.concerns
        name = tag("h3", item.candidate or "", chip(item.standing, describe_outcome(item.standing)))
        if wanting:
            parts += [name, tag("div", *(_card(concern) for concern in wanting), class_="cards")]
        elif item.open:
            text = f"All {count_of(len(item.findings) - len(item.listed), 'finding')} are settled."
            more = (
                f" {count_of(len(item.listed), 'further one')} only listed. {LISTED}" if item.listed else ""
            )
            parts += [name, tag("p", text + more)]
        else:
            parts += [name, tag("p", "The gate did not open, and no finding says why; do not ship this.")]
    parts += [tag("p", sentence, class_="note") for sentence in describe_certainty(comparison)]
    if any(finding.kind == "screen" for item in comparison.judged for finding in item.findings):
        parts.append(tag("p", f"Screens are searches. {SEARCH}", class_="note"))
    title = "Why, and what is open" if comparison.chosen else "Why nothing ships"
    return tag(
        "section", tag("h2", title), *(parts or [tag("p", "There was no finalist to judge.")]), id="why"
    )


def _card(concern: tuple[Finding, ...]) -> Markup:
    finding = concern[0]
    sentences = [
        ("Waived", describe_waiver(finding)),
        ("Distance", describe_distance(finding)),
        ("Means", explain(finding.metric).meaning if len(concern) == 1 else ""),
        ("Reason", describe_reason(finding)),
        ("What to do", describe_remedy(finding)),
    ]
    if len(concern) > 1:
        told, rules = [], join(part for one in concern for part in (", ", code(one.rule)))
        sentences.append(("The rules", Markup(rules.removeprefix(", "))))
    else:
        told = _figures(finding)
        sentences.append(("The rule", finding.rule_reason))
    told += [
        tag("div", tag("dt", name), tag("dd", words), class_="wide") for name, words in sentences if words
    ]
    return tag(
        "article",
        tag(
            "h4",
            chip(finding.verdict),
            tag("span", *_place(concern)),
            "" if finding.stops else tag("span", _aside(finding), class_="tag"),
        ),
        tag("p", finding.message),
        tag("dl", *told),
        class_=f"card look-{look(finding.verdict)}" + ("" if finding.stops else " advisory"),
    )


def _aside(finding: Finding) -> str:
    waiver = finding.waiver
    return "advisory, blocks nothing" if waiver is None else f"WAIVED until {waiver.until}"


def _figures(finding: Finding) -> list[Markup]:
    value = describe_value(finding.value, finding.metric, finding.unit)
    spread = describe_interval(finding.interval, finding.metric, finding.unit)
    range_below = tag("small", f"90 % interval {spread}") if spread else ""
    bound = describe_value(finding.bound, finding.metric, finding.unit)
    p, detectable = describe_p(finding.p), describe_detectable(finding)
    below = tag("small", p) if p and finding.bound is not None else ""
    figures = [
        ("Measured", [value, range_below], finding.value is not None),
        ("Deciding bound", [bound, below], finding.bound not in (None, finding.value)),
        ("Decides", [p], bool(p) and finding.bound is None),
        ("Limit", [describe_limit(finding)], True),
        ("Smallest harm that would be seen", [detectable], bool(detectable)),
        ("Units (n)", [f"{finding.n or 0:,}"], finding.n is not None),
    ]
    return [tag("div", tag("dt", name), tag("dd", *words)) for name, words, known in figures if known]


def candidates(comparison: Comparison) -> Markup:
    """Draw the table of candidates and the picture of size against accuracy."""
    text = "The baseline and every candidate the shortlist looked at."
    drawn = table(text, COLUMNS, [_candidate(row) for row in table_rows(comparison)], look="candidates")
    legend = [
        ("ring", "on the Pareto front"),
        ("base", "baseline"),
        ("pass", "passed"),
        ("fail", "blocked"),
        ("open", "inconclusive, or waived"),
    ]
    legend += [("error", "could not judge"), ("calm", "not a finalist")]
    caption = (
        "Size against accuracy on the validation split, which alone chose the finalists. Ringed: on the "
        "Pareto front, where no other is as good in cross-entropy on validation, bytes and "
        "multiply-accumulates and better in one. The stepped line is the best accuracy of the front for each "
        "size. The axis of accuracy does not start at zero."
    )
    return tag(
        "section",
        tag("h2", "Candidates"),
        drawn,
        *(tag("p", note, class_="note") for note in footnotes(comparison)),
        tag(
            "figure",
            tag("div", draw_front(comparison), class_="frame of-front"),
            legend_of(legend),
            tag("figcaption", caption),
        ),
        id="candidates",
    )


def legend_of(entries: list[tuple[str, str]]) -> Markup:
    """Draw which shape means what."""
    shapes = [tag("use", href=f"#m-{name}", x=11, y=11, class_=f"k {name}") for name, _ in entries]
    items = [
        tag("li", tag("svg", shape, width=22, height=22, aria_hidden="true"), words)
        for shape, (_, words) in zip(shapes, entries, strict=True)
    ]
    return tag("ul", *items, class_="legend")


def _candidate(row: Row) -> Markup:
    cells = []
    for index, lines in enumerate(row.cells):
        first, more = lines[0], [tag("small", line) for line in lines[1:]]
        if index == 0:
            cells.append(tag("th", first, *more, scope="row"))
        elif index == DECISION and row.standing not in ("baseline", "not a finalist"):
            cells.append(tag("td", chip(row.standing, first), *more))
        elif COLUMNS[index] == "Latency":
            cells.append(tag("td", *(tag("div", line) for line in lines)))
        else:
            cells.append(tag("td", first, *more))
    return tag("tr", *cells, class_={"chosen": "picked", "not a finalist": "apart"}.get(row.standing))


def data(report: Report) -> Markup:
    """Draw where the data came from, on what terms, how it was split and what its validation found."""
    held = report.data
    shape = "\u00d7".join(str(size) for size in held.shape)
    summary = f"{held.rows:,} images of shape {shape} in {count_of(len(held.classes), 'class', 'classes')}."
    splits = [tag("tr", tag("th", name, scope="row"), tag("td", f"{rows:,}")) for name, rows in held.splits]
    sources = [
        tag("tr", tag("th", item.source, scope="row"), tag("td", item.license), tag("td", item.consent),
            tag("td", f"{item.rows:,}"))
        for item in held.sources
    ]  # fmt: skip
    found = [
        tag("tr", tag("th", item.check, scope="row"), tag("td", chip(item.verdict)), tag("td", item.expected),
            tag("td", item.came, *_rows(item.rows, item.row_count)))
        for item in held.findings
    ]  # fmt: skip
    columns = [
        tag(
            "tr",
            tag("th", code(item.name), scope="row"),
            tag("td", ", ".join(item.levels)),
            tag("td", item.origin),
        )
        for item in held.columns
    ]
    slices = join(part for name in held.slices for part in (", ", code(name))).removeprefix(", ")
    return tag(
        "section",
        tag("h2", "Data"),
        tag("p", summary, " Slice columns: ", Markup(slices) if held.slices else "none", "."),
        ""
        if held.open
        else tag("p", chip("FAIL", "validation did not open"), " The data is not fit to be used."),
        table("Sources and their terms.", ("Source", "Licence", "Consent", "Rows"), sources),
        table("Slice columns.", ("Column", "Levels", "Origin"), columns, look="slim") if columns else "",
        table("Splits.", ("Split", "Rows"), splits, look="slim"),
        table("What the validation of the data found.", ("Check", "Verdict", "Expected", "Came"), found),
        id="data",
    )


def _rows(rows: tuple[str, ...], count: int) -> list[str]:
    if not count:
        return []
    more = f" and {count - len(rows):,} more" if count > len(rows) else ""
    return [tag("small", f"{count_of(count, 'row')}: ", code(", ".join(rows)), more)]


def _made(model: Model) -> Markup:
    columns = pass_columns(model.passes)
    rows = []
    for cells in pass_rows(model.passes):
        drawn = []
        for column, lines in zip(columns, cells, strict=True):
            first, more = lines[0], [tag("div", line) for line in lines[1:]]
            if column == "Pass":
                drawn.append(tag("th", first, scope="row"))
            else:
                drawn.append(tag("td", first, *more, class_="num" if column in NUMBERS else None))
        rows.append(tag("tr", *drawn))
    return table(f"How {model.name} was made.", columns, rows, look="passes")


def lineage(report: Report) -> Markup:
    """Draw how each model was made and the SHA-256 of everything a figure came from."""
    made = [_made(model) for model in report.models]
    rows = [
        tag("tr", tag("th", entry.what, scope="row"), tag("td", code(entry.sha256)))
        for entry in report.digests
    ]
    return tag(
        "section",
        tag("h2", "Lineage"),
        tag("p", "How each model was made, and what the figures on this page were read from."),
        tag("p", PASSES, class_="note") if made else "",
        *made,
        table(
            "SHA-256 of models, policy, evidence and files read.", ("What", "SHA-256"), rows, look="digests"
        ),
        id="lineage",
    )
