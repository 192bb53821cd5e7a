# SPDX-License-Identifier: Apache-2.0
"""`MODEL_CARD.html`: the card's Markdown as one page that needs no script, no network and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline.report.markup import Markup, head, look, tag
from pipeline.report.style import DARK, LIGHT, variables

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["render_page"]

_VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "ERROR", "NO-FINDING", "NOT-RUN")

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
main,nav,footer{max-width:78rem;margin:0 auto;padding:0 1.25rem}
h1,h2,h3{line-height:1.2;text-wrap:balance}
h1{font-size:clamp(1.7rem,5vw,2.6rem);letter-spacing:-.015em;margin:2.25rem 0 1rem}
h2{font-size:1.4rem;margin:3rem 0 .75rem;padding-top:.9rem;border-top:1px solid var(--rule);
scroll-margin-top:1rem}
h3{font-size:1.1rem;margin:1.9rem 0 .6rem}
p,ul,ol{max-width:52rem;margin:.6rem 0}li{margin:.15rem 0}ul{padding-left:1.25rem}
a{color:var(--link)}em{color:var(--muted)}
code{font:.9em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
unicode-bidi:isolate;overflow-wrap:anywhere}
pre{overflow-x:auto;border:1px solid var(--rule);border-radius:.6rem;background:var(--soft);
padding:.75rem .9rem}
pre code{font-size:.8rem;white-space:pre}
.source{font-size:.84rem;color:var(--muted);max-width:none}
nav details{border:1px solid var(--rule);border-radius:.6rem;background:var(--soft);padding:.5rem .9rem;
margin-top:1rem}
summary{cursor:pointer;font-weight:600}
nav ol{columns:3 14rem;column-gap:1.5rem;margin:.6rem 0 .3rem;padding-left:1.5rem;max-width:none}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:.6rem;margin:.75rem 0}
.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.88rem}
th,td{text-align:left;vertical-align:top;padding:.42rem .65rem;border-bottom:1px solid var(--rule)}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:.8rem;font-weight:600;color:var(--muted);background:var(--soft);vertical-align:bottom}
td{min-width:4.2rem}td:first-child:not(.number){min-width:8.5rem}
.number{text-align:right;white-space:nowrap}th.number{white-space:normal}
.long{min-width:17rem}td code{overflow-wrap:break-word}.long code{overflow-wrap:anywhere}
.verdict{white-space:nowrap;font-size:.8rem;letter-spacing:.01em}
.verdict.pass{color:var(--pass)}.verdict.fail{color:var(--fail)}.verdict.open{color:var(--open)}
.verdict.error{color:var(--error)}.verdict.calm{color:var(--calm)}
footer{padding-block:2rem 3rem;margin-top:3rem;border-top:1px solid var(--rule);color:var(--muted);
font-size:.875rem}
@media (max-width:50rem){
body{font-size:15px}main,nav,footer{padding:0 .9rem}h2{margin-top:2.25rem}
th,td{padding:.4rem .55rem}
td:first-child:not(.number){min-width:7rem;position:sticky;left:0;
background:var(--bg);box-shadow:1px 0 0 var(--rule);max-width:10rem}
td:first-child code{font-size:.82em}.long{min-width:14rem}td.long:first-child{min-width:9rem}
}
@media print{
:root{color-scheme:light}nav{display:none}
body{font-size:9.5pt}main,footer{max-width:none;padding:0}
.scroll{overflow:visible;border:0}table{font-size:7.5pt}th,td{padding:.2rem .3rem;min-width:0!important}
thead{display:table-header-group}tr{break-inside:avoid}h1,h2,h3{break-after:avoid}
pre code{white-space:pre-wrap;font-size:7pt}.number{white-space:normal}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""


def _style_sheet() -> str:
    return (
        f":root{{color-scheme:light dark;{variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}{_RULES}"
    )


_LONG = 60
"""A cell of more characters than this gets room."""


def _words(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _mark_cells(tokens: list[Token]) -> None:
    """Say by classes what the style sheet has to know; an inline style would need a weaker policy."""
    for token, after in pairwise(tokens):
        if token.type in ("th_open", "td_open"):
            align = str(token.attrs.pop("style", ""))
            looks = [
                *(["number"] if "right" in align else []),
                *(["long"] if len(_words(after)) > _LONG else []),
            ]
            if looks:
                token.attrSet("class", " ".join(looks))
        elif (
            token.type == "paragraph_open"
            and _words(after).startswith("From ")
            and after.content.endswith("*")
        ):
            token.attrSet("class", "source")
        elif token.type == "inline":
            _mark_verdicts(token)


def _mark_verdicts(inline: Token) -> None:
    children = inline.children or []
    for opening, word in pairwise(children):
        if opening.type == "strong_open" and word.content in _VERDICTS:
            opening.attrSet("class", f"verdict {look(word.content) if word.content != 'NOT-RUN' else 'calm'}")


def _link_headings(tokens: list[Token]) -> list[Markup]:
    """Give every heading of the second level a place to go to, and return the links there."""
    links: list[Markup] = []
    for token, after in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            place = f"part-{len(links) + 1}"
            token.attrSet("id", place)
            links.append(tag("li", tag("a", _words(after), href=f"#{place}")))
    return links


def _shown(_: object, tokens: Sequence[Token], index: int, *__: Any) -> str:
    """The card writes no HTML but line breaks in cells; whatever else came as HTML is shown, not run."""
    return "<br>" if tokens[index].content == "<br>" else tag("span", tokens[index].content)


def _table_start(*_: Any) -> str:
    return '<div class="scroll" tabindex="0" role="region" aria-label="Table">\n<table>\n'


def _table_end(*_: Any) -> str:
    return "</table>\n</div>\n"


def render_page(card: str, title: str) -> str:
    """Return the page.

    Args:
        card: `MODEL_CARD.md`; the block at its head that hubs read is left out.
        title: Of the model, for the browser's tab.
    """
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    for kind in ("html_inline", "html_block"):
        reader.add_render_rule(kind, _shown)
    reader.add_render_rule("table_open", _table_start)
    reader.add_render_rule("table_close", _table_end)
    environment: dict[str, object] = {}
    tokens = reader.parse(card.split("\n---\n", 1)[-1], environment)
    links = _link_headings(tokens)
    _mark_cells(tokens)
    body = Markup(reader.renderer.render(tokens, reader.options, environment))
    parts = tag("details", tag("summary", "Parts of this card"), tag("ol", *links))
    page = tag(
        "body",
        tag("nav", parts, aria_label="Parts of this card"),
        tag("main", body),
        tag("footer", "Written by LeanGate from MODEL_CARD.md; the same files give the same bytes."),
    )
    page_head = head(f"{title} - model card", _style_sheet())
    return f"<!doctype html>\n{tag('html', page_head, page, lang='en')}\n"
