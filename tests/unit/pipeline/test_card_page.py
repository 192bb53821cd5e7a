# SPDX-License-Identifier: Apache-2.0
"""`MODEL_CARD.html` shows what the Markdown says, alone and with nothing to fetch or run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pipeline.card.page import render_page

CARD = """---
license: mit
---
# Title

- **Purpose:** reading &lt;b&gt;digits&lt;/b&gt;

## Accuracy

| Slice | n | Verdict |
| :--- | ---: | :--- |
| a\\|b | 1,000 | **PASS** |
| two<br>lines | 3 | **FAIL** |

*From `decision.json` (`0123456789ab`).*

## How to verify

```text
0123  model.onnx
```
"""


class _Tree(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.words = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data


@pytest.fixture(scope="module")
def tree():
    tree = _Tree()
    tree.feed(render_page(CARD, "T <1>"))
    tree.close()
    assert tree.open == []
    return tree


def test_the_page_shows_the_card_and_leaves_out_what_hubs_read(tree):
    for words in ("Title", "reading <b>digits</b>", "a|b", "1,000", "0123  model.onnx", "T <1> - model card"):
        assert words in tree.words
    assert "license: mit" not in tree.words


def test_it_needs_no_other_file_and_no_script(tree):
    names = {tag for tag, _ in tree.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not [
        value
        for _, attrs in tree.tags
        for name, value in attrs.items()
        if name == "style" or name.startswith("on")
    ]
    assert all(attrs["href"].startswith("#") for tag, attrs in tree.tags if tag == "a")
    policy = next(attrs["content"] for tag, attrs in tree.tags if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"url\(|@import|https?:", render_page(CARD, "t"))


def test_parts_can_be_gone_to(tree):
    places = {attrs["id"] for tag, attrs in tree.tags if tag == "h2"}
    assert {attrs["href"][1:] for tag, attrs in tree.tags if tag == "a"} == places
    assert len(places) == 2


def test_verdicts_numbers_and_sources_are_told_apart(tree):
    looks = [(tag, attrs.get("class")) for tag, attrs in tree.tags if attrs.get("class")]
    assert ("strong", "verdict pass") in looks
    assert ("strong", "verdict fail") in looks
    assert ("td", "number") in looks
    assert ("p", "source") in looks
    assert [attrs["tabindex"] for tag, attrs in tree.tags if attrs.get("role") == "region"] == ["0"]


def test_it_suits_phones_the_dark_and_paper(tree):
    page = render_page(CARD, "t")
    assert any(attrs.get("name") == "viewport" for _, attrs in tree.tags)
    for words in ("prefers-color-scheme:dark", "@media print", "max-width:50rem"):
        assert words in page


@pytest.mark.parametrize(
    "foreign", ["<script>alert(1)</script>", "x <img src=x onerror=alert(1)> y", "<br onclick=x>"]
)
def test_html_that_came_through_is_shown_and_does_nothing(foreign):
    tree = _Tree()
    tree.feed(render_page(f"---\n---\n# t\n\n{foreign}\n", foreign))
    assert not {tag for tag, _ in tree.tags} & {"script", "img"}
    assert not [name for _, attrs in tree.tags for name in attrs if name.startswith("on")]
