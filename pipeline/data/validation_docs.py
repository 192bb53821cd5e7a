# SPDX-License-Identifier: Apache-2.0
"""The page of the validation: every check, what was expected, what came, and what the data hold.

The page is one file without scripts and without any request: Great Expectations' own pages load style
sheets and scripts from other hosts, and carry run ids and times. Every text from data is escaped.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline.data.contents import DESCRIPTION, EXAMPLES, MANIFEST, Contents
from pipeline.data.findings import DataFinding, count_of, escape_unprintable
from pipeline.data.splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["render_docs"]

MAX_TABLE_ROWS = 100

CSS = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5a6577;--line:#dfe3ea;
--good:#146c43;--good-soft:#e1f3e8;--bad:#a8202b;--bad-soft:#fbe6e7;--bar:#7d9fe0;--code:#eef1f6}
@media (prefers-color-scheme:dark){:root{
--page:#12161d;--card:#1a202a;--ink:#e6eaf1;--soft:#9aa6b8;--line:#2d3644;
--good:#6fd39b;
--good-soft:#173527;--bad:#ff8f96;--bad-soft:#43191e;--bar:#5277bd;--code:#242c39}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px}
h2{font-size:18px;margin:36px 0 10px}
h3{font-size:14px;margin:0;overflow-wrap:anywhere}
p{margin:0 0 8px}
.soft{color:var(--soft)}
.banner{display:flex;gap:14px;align-items:center;margin:20px 0;padding:14px 18px;border-radius:10px;
border:1px solid currentColor;font-weight:600}
.banner.good{background:var(--good-soft);color:var(--good)}
.banner.bad{background:var(--bad-soft);color:var(--bad)}
.banner b{font-size:20px}
dl{display:flex;flex-wrap:wrap;gap:10px;margin:0}
dl div,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px}
dl div{flex:1 1 150px}
dl div.wide{flex-basis:100%}
dt{color:var(--soft);font-size:12px}
dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.card{border-left:4px solid var(--bad);margin:0 0 10px;padding:12px 16px}
.card p{display:flex;gap:10px;margin:6px 0 0}
.card .key{flex:0 0 82px;color:var(--soft)}
.card .value{min-width:0;overflow-wrap:anywhere}
.scroll{margin-bottom:14px;overflow-x:auto;background:var(--card);border:1px solid var(--line);
border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:7px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--soft);font-size:12px;font-weight:600;white-space:nowrap}
th[scope=colgroup]{background:var(--code);font-size:12px}
td{overflow-wrap:anywhere}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.share{width:19%;min-width:120px}
.share i{display:block;height:3px;margin:3px 0 0 auto;background:var(--bar);border-radius:2px}
.share .soft{display:inline-block;min-width:54px}
.chip{display:inline-block;padding:0 8px;border-radius:99px;font-size:12px;font-weight:700;white-space:nowrap}
.chip.PASS{background:var(--good-soft);color:var(--good)}
.chip.FAIL{background:var(--bad-soft);color:var(--bad)}
code{font:12.5px/1.5 ui-monospace,Consolas,monospace;background:var(--code);border-radius:4px;padding:1px 5px;
unicode-bidi:isolate;overflow-wrap:anywhere}
.check{white-space:nowrap}
.check small{display:block;color:var(--soft);font:11px/1.4 ui-monospace,Consolas,monospace}
footer{margin-top:40px;color:var(--soft);font-size:13px}
@media print{body{background:#fff}.scroll,.card,dl div{break-inside:avoid}}
"""


def _text(value: Any) -> str:
    return html.escape(escape_unprintable(str(value)), quote=True)


def _code(value: Any) -> str:
    return f"<code>{_text(value)}</code>"


def _fact(name: str, value: str, *, wide: bool = False) -> str:
    return f"<div{' class=wide' if wide else ''}><dt>{_text(name)}</dt><dd>{value}</dd></div>"


def _table(head: Sequence[str], rows: Iterable[str], *, numbers: int = 0) -> str:
    """Return a table whose last `numbers` columns hold numbers."""
    kinds = [""] * (len(head) - numbers) + [' class="number"'] * numbers
    cells = "".join(
        f'<th scope="col"{kind}>{_text(name)}</th>' for name, kind in zip(head, kinds, strict=True)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _banner(findings: Sequence[DataFinding]) -> str:
    failed, total = sum(not finding.passed for finding in findings), len(findings)
    if not failed:
        return f'<div class="banner good"><b>PASS</b> All {total} checks hold: the data may be used.</div>'
    return f'<div class="banner bad"><b>FAIL</b> {failed} of {total} checks fail: the data are refused.</div>'


def _facts(contents: Contents) -> str:
    description = contents.description
    facts = []
    if contents.manifest is not None:
        facts.append(_fact("Rows", str(len(contents.manifest))))
    if description is not None:
        channels, height, width = description.shape
        facts += [
            _fact("Classes", str(len(description.classes))),
            _fact("Image", f"{count_of(channels, 'channel')}, {height} &times; {width} pixels"),
            _fact("Pixel range", f"0 to {description.pixel_max}"),
        ]
    digest = contents.data_sha256 or "unknown: a file cannot be read"
    facts.append(_fact("SHA-256 of the data", _code(digest), wide=True))
    return f"<dl>{''.join(facts)}</dl>"


def _line(key: str, value: str) -> str:
    return f'<p><span class="key">{_text(key)}</span><span class="value">{value}</span></p>'


def _card(finding: DataFinding) -> str:
    lines = [_line("expected", _text(finding.expected)), _line("got", _text(finding.came))]
    if finding.rows:
        more = f" and {finding.rows_left_out} more" if finding.rows_left_out else ""
        lines.append(_line("rows", " ".join(map(_code, finding.rows)) + more))
    if finding.hint:
        lines.append(_line("what to do", _text(finding.hint)))
    head = f'<h3>{_text(finding.check)} <span class="soft">{_text(finding.where)}</span></h3>'
    return f'<div class="card">{head}{"".join(lines)}</div>'


def _blocking(findings: Sequence[DataFinding]) -> str:
    failed = [finding for finding in findings if not finding.passed]
    if not failed:
        return ""
    # Causes first: what could not be judged follows from them.
    ordered = sorted(failed, key=lambda finding: not finding.judged)
    return "<h2>What fails</h2>\n" + "\n".join(map(_card, ordered))


def _checks(findings: Sequence[DataFinding]) -> str:
    rows = []
    for file in (DESCRIPTION, MANIFEST, EXAMPLES):
        rows.append(f'<tr><th scope="colgroup" colspan="4">{_text(file)}</th></tr>')
        rows += [
            f'<tr><td><span class="chip {finding.verdict}">{finding.verdict}</span></td>'
            f'<td class="check">{_text(finding.check)}<small>{_text(finding.expectation)}</small></td>'
            f"<td>{_text(finding.expected)}</td><td>{_text(finding.came)}</td></tr>"
            for finding in findings
            if finding.file == file
        ]
    note = (
        '<p class="soft">Where an expectation is named, Great Expectations '
        f"{_text(version('great_expectations'))} judged; elsewhere LeanGate itself.</p>"
    )
    return f"<h2>All checks</h2>\n{note}\n" + _table(("Verdict", "Check", "Expected", "Came"), rows)


def _counts_by_split(name: str, levels: Sequence[str], counts: Mapping[tuple[Any, Any], int]) -> str:
    """Return a table of levels by splits; bars show the share of a level within its split."""
    totals = {split: sum(counts.get((split, level), 0) for level in levels) for split in SPLITS}
    largest = max(
        (counts.get((split, level), 0) / max(1, totals[split]) for split in SPLITS for level in levels),
        default=0,
    )
    rows = []
    for level in levels[:MAX_TABLE_ROWS]:
        cells = []
        for split in SPLITS:
            count = counts.get((split, level), 0)
            share = count / max(1, totals[split])
            width = 100 * share / largest if largest else 0
            cells.append(
                f'<td class="number share">{count} <span class="soft">{100 * share:.1f} %</span>'
                f'<i style="width:{width:.1f}%"></i></td>'
            )
        rows.append(f"<tr><td>{_code(level)}</td>{''.join(cells)}</tr>")
    if len(levels) > MAX_TABLE_ROWS:
        rows.append(f'<tr><td colspan="5" class="soft">and {len(levels) - MAX_TABLE_ROWS} more</td></tr>')
    sums = "".join(f'<td class="number"><b>{totals[split]}</b></td>' for split in SPLITS)
    rows.append(f'<tr><td class="soft">all</td>{sums}</tr>')
    return _table((name, *SPLITS), rows, numbers=len(SPLITS))


def _pairs(manifest: pd.DataFrame, column: str) -> Counter[tuple[Any, Any]]:
    return Counter(zip(manifest["split"], manifest[column], strict=True))


def _holdings(contents: Contents) -> str:
    """Return what the data hold, as far as the manifest can be read."""
    manifest, description = contents.manifest, contents.description
    if manifest is None:
        return ""
    parts = []
    if description is not None and not contents.missing("split", "label"):
        parts.append("<h2>Examples by class and split</h2>")
        parts.append(_counts_by_split("class", description.classes, _pairs(manifest, "label")))
    slices = [
        name for name in (description.slices if description else ()) if not contents.missing(name, "split")
    ]
    if slices:
        parts.append("<h2>Examples by slice and split</h2>")
        for name in slices:
            counts = _pairs(manifest, name)
            levels = sorted({str(level) for _, level in counts if level is not None})
            parts.append(_counts_by_split(name, levels, counts))
    if not contents.missing("source", "license", "consent"):
        sources = Counter(zip(manifest["source"], manifest["license"], manifest["consent"], strict=True))
        ordered = sorted(sources.items(), key=lambda item: (-item[1], str(item[0])))
        rows = [
            f'<tr>{"".join(f"<td>{_code(value)}</td>" for value in key)}<td class="number">{count}</td></tr>'
            for key, count in ordered[:MAX_TABLE_ROWS]
        ]
        parts.append("<h2>Sources, licenses, consent</h2>")
        parts.append(_table(("Source", "License", "Consent", "Rows"), rows, numbers=1))
    return "\n".join(parts)


def render_docs(contents: Contents, findings: Sequence[DataFinding]) -> str:
    """Return the page as HTML that opens offline, the same bytes for the same data.

    Args:
        contents: The prepared data, as far as they could be read.
        findings: Every finding on them.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Data validation</title>
<style>{CSS}</style>
</head>
<body><main>
<h1>Data validation</h1>
<p class="soft">What the prepared data must satisfy before anything is learnt from them.</p>
{_banner(findings)}
{_facts(contents)}
{_blocking(findings)}
{_checks(findings)}
{_holdings(contents)}
<footer>Written by the stage <code>validate</code>; limits are in the section <code>validate</code> of
<code>params.yaml</code>. The same findings for machines: <code>findings.json</code>.</footer>
</main></body>
</html>
"""
