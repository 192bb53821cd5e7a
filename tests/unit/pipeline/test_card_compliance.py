# SPDX-License-Identifier: Apache-2.0
"""The crosswalk: catalogues pinned and whole, every row answered or open, and no word of having met anything."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from collections import Counter

import pytest

from checks.canonical import sha256_file
from checks.errors import EvidenceError
from pipeline.card.compliance import ANNEX, CATALOGUES, crosswalk, crosswalk_value, read_catalogue
from pipeline.card.contents import DOCUMENTS, GOVERNANCE, read_contents, read_manifest
from pipeline.card.documents import documents
from pipeline.governance import KEYS, Governance, Organisation, Oversight, Provider, Risk, Risks, Use
from tests.bundle_project import build_project, judge_project, project_params

stage = importlib.import_module("pipeline.bundle")

PINNED = {
    "eu-ai-act": "0d068c8d846dd196aa9a380ac23b1ce898adac01ccf2cbf21e96ed55fa365eaa",
    "eu-ai-act-annex-iv": "7d4f4df02adbe6fd57d2619677464757c876a3897954c256ead183da97a6eddb",
    "nist-ai-rmf": "6f429198e23d935777f44b7fbd42e9a89fe9cd0cdd1917a8937e86c9f89a658b",
    "iso-iec-42001": "63dcee4796cad4a5e5184c62deed42ae9f13fc5ada817f8fe27dcd7b0cbff261",
}
"""SHA-256 of the catalogues: whoever changes one says so here."""

ISO = {2: (2, 3, 4), 3: (2, 3), 4: (2, 3, 4, 5, 6), 5: (2, 3, 4, 5), 7: (2, 3, 4, 5, 6), 8: (2, 3, 4, 5)}
ISO |= {9: (2, 3, 4), 10: (2, 3, 4)}
NIST = {
    "GOVERN": (7, 3, 2, 3, 2, 2),
    "MAP": (6, 3, 5, 2, 2),
    "MEASURE": (3, 13, 3, 3),
    "MANAGE": (4, 4, 2, 3),
}

CLAIMS = re.compile(
    r"\b(compl(y|ies|ied|iant)|conform(s|ed|ant|ing)?|certified|certifies|fulfil(s|led)?)\b", re.IGNORECASE
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    layout = build_project(tmp_path_factory.mktemp("compliance"))
    judge_project(layout)
    stage.run(layout, project_params())
    return layout.bundle


def written(bundle, governance=None):
    contents = read_contents(bundle)
    if governance is not None:
        contents = dataclasses.replace(contents, governance=governance)
    return documents(contents, read_manifest(bundle).inner("environment"))


@pytest.mark.parametrize("name", CATALOGUES)
def test_catalogues_are_pinned(repository, name):
    path = repository / "pipeline" / "card" / "catalogue" / f"{name}.json"
    assert sha256_file(path) == PINNED[name] == read_catalogue(name).sha256


def test_no_catalogue_lies_there_unread(repository):
    found = {path.stem for path in (repository / "pipeline" / "card" / "catalogue").iterdir()}
    assert found == set(CATALOGUES) == set(PINNED)


def test_nist_has_its_72_subcategories():
    catalogue = read_catalogue("nist-ai-rmf")
    ids = [entry.id for entry in catalogue.entries]
    want = [
        f"{function} {category}.{number}"
        for function, counts in NIST.items()
        for category, count in enumerate(counts, start=1)
        for number in range(1, count + 1)
    ]
    assert ids == want
    assert len(ids) == 72
    assert Counter(name.partition(" ")[0] for name in ids) == {
        "GOVERN": 19,
        "MAP": 18,
        "MEASURE": 22,
        "MANAGE": 13,
    }
    assert catalogue.version == "1.0"


def test_iso_has_its_38_controls():
    catalogue = read_catalogue("iso-iec-42001")
    ids = [entry.id for entry in catalogue.entries]
    want = [f"A.{group}.{number}" for group, numbers in ISO.items() for number in numbers]
    want += ["A.6.1.2", "A.6.1.3", *(f"A.6.2.{number}" for number in range(2, 9))]
    assert sorted(ids) == sorted(want)
    assert len(ids) == 38
    assert catalogue.version == "2023"


def test_the_act_is_as_amended_and_covers_articles_9_to_15_and_points_1_to_9():
    act, annex = read_catalogue("eu-ai-act"), read_catalogue(ANNEX)
    assert act.version == annex.version == "Regulation (EU) 2024/1689 as amended by Regulation (EU) 2026/1744"
    assert {int(entry.id.partition("(")[0]) for entry in act.entries} == set(range(9, 16))
    assert {int(entry.id.partition("(")[0]) for entry in annex.entries} == set(range(1, 10))
    assert [entry.id for entry in annex.entries if entry.id[0] in "12"] == [
        *(f"1({letter})" for letter in "abcdefgh"),
        *(f"2({letter})" for letter in "abcdefgh"),
    ]


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_entry_is_unique_and_has_something_to_answer_it(bundle, name):
    entries = read_catalogue(name).entries
    assert len({entry.id for entry in entries}) == len(entries)
    held = set(read_contents(bundle).digests)
    for entry in entries:
        assert entry.title.strip()
        assert entry.files or entry.declared or entry.missing, entry.id
        assert bool(entry.here) == bool(entry.files), entry.id
        assert set(entry.files) <= held, entry.id
        assert set(entry.declared) <= set(KEYS), entry.id
        assert entry.by in ({"provider", "deployer", "provider and deployer"} if entry.missing else {""}), (
            entry.id
        )


def test_every_key_but_the_title_belongs_to_some_entry():
    named = {key for name in CATALOGUES for entry in read_catalogue(name).entries for key in entry.declared}
    assert set(KEYS) - named == {"title", "license"}


def test_each_row_is_evidence_by_digest_declared_input_or_open(bundle):
    lines = [
        line for line in written(bundle)["compliance/crosswalk.md"].splitlines() if line.startswith("| **")
    ]
    assert len(lines) == sum(len(read_catalogue(name).entries) for name in CATALOGUES)
    for line in lines:
        assert re.search(
            r"\(`[0-9a-f]{12}`\)|declared input `|to be completed by the (provider|deployer)", line
        ), line
        for name, digest in re.findall(r"`([a-z/_.-]+\.[a-z]+)` \(`([0-9a-f]{12})`\)", line):
            assert sha256_file(bundle / name).startswith(digest)


def test_both_forms_of_the_crosswalk_say_the_same(bundle):
    texts = written(bundle)
    value = json.loads(texts["compliance/crosswalk.json"])
    assert value["about"] == {name: sha256_file(bundle / name) for name in value["about"]}
    assert value["about"].keys() >= {"model.onnx", GOVERNANCE}
    rows = [row for catalogue in value["catalogues"] for row in catalogue["rows"]]
    cells = re.findall(r"^\| \*\*([^*]+)\*\* \|.*\|$", texts["compliance/crosswalk.md"], re.MULTILINE)
    assert cells == [row["id"] for row in rows]
    for row in rows:
        assert row["evidence"] or row["declared"] or row["open"]
        for path, digest in (row["evidence"] or {"files": {}})["files"].items():
            assert sha256_file(bundle / path) == digest


def test_an_answer_moves_from_open_to_declared(bundle):
    contents = read_contents(bundle)
    filled = Governance(provider=Provider(name="N", contact="C"), oversight=Oversight(responsible="R"))

    def row(governance, name):
        value = json.loads(crosswalk_value(dataclasses.replace(contents, governance=governance)))
        rows = {row["id"]: row for catalogue in value["catalogues"] for row in catalogue["rows"]}
        return rows[name]

    assert row(Governance(), "13(3)(a)")["declared"] == []
    assert row(filled, "13(3)(a)")["declared"] == ["provider.name", "provider.contact"]
    assert row(filled, "13(3)(a)")["open"] == []
    assert {"what": "oversight.responsible", "by": "deployer"} in row(Governance(), "MAP 3.5")["open"]
    assert "oversight.responsible" in row(filled, "MAP 3.5")["declared"]


def test_a_catalogue_that_names_a_file_that_is_not_there_is_refused(bundle):
    contents = read_contents(bundle)
    less = {name: digest for name, digest in contents.digests.items() if name != "policy.yaml"}
    with pytest.raises(EvidenceError, match="entry 9"):
        crosswalk(dataclasses.replace(contents, digests=less))


def test_annex_iv_has_every_point_with_figures_declarations_and_what_is_open(bundle):
    told = written(bundle, Governance(use=Use(purpose="Sorting letters.", instructions="See the manual.")))
    annex = told["compliance/annex-iv.md"]
    for entry in read_catalogue(ANNEX).entries:
        assert re.search(rf"^##+ {re.escape(entry.id)} ", annex, re.MULTILINE), entry.id
    assert "Declared, `use.purpose`: Sorting letters." in annex
    point = annex.partition("### 1(h)")[2].partition("\n## ")[0]
    assert "Declared, `use.instructions`: See the manual." in point
    assert "Open:" not in point
    assert "- `provider.name`: *to be completed by the provider*" in annex
    assert "to be completed by the deployer" not in annex.partition("### 2(e)")[0]
    for title in (
        "Overall and by slice",
        "By class",
        "Adversarial robustness",
        "Disparity added by compression",
    ):
        assert re.search(rf"^####+ {title}$", annex, re.MULTILINE), title
    levels = [len(line.split(" ", 1)[0]) for line in annex.splitlines() if re.match(r"#+ ", line)]
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def _blocks(document):
    """The text between headings."""
    return re.split(r"^#+ .*$", document.split("\n---\n", 1)[-1], flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "compliance/annex-iv.md"])
def test_every_table_of_figures_names_its_file_by_digest(bundle, name):
    tables = 0
    for block in _blocks(written(bundle)[name]):
        for table, after in re.findall(r"((?:^\|.*\|\n)+)(.*?)(?=^\||\Z)", block, re.MULTILINE | re.DOTALL):
            rows = table.splitlines()[2:]
            if not any(re.search(r"\d", row) for row in rows):
                continue
            tables += 1
            rest = block.partition(table)[2]
            cited = re.findall(r"`([a-z/_.-]+\.[a-z]+)` \(`([0-9a-f]{12})`\)", rest)
            assert cited, (table, after)
            for path, digest in cited:
                assert sha256_file(bundle / path).startswith(digest)
    assert tables > 10


@pytest.mark.parametrize(
    ("path", "was", "now"),
    [
        ("decision.json", '"n": ', '"n": 1'),
        ("policy.yaml", "name:", "name: other "),
        ("records/model.json", '"sha256": "', '"sha256": "0'),
        ("evidence/cost.json", '"macs": ', '"macs": 1'),
    ],
)
def test_a_number_that_was_changed_is_never_written(bundle, tmp_path, path, was, now):
    import shutil

    copied = shutil.copytree(bundle, tmp_path / "bundle")
    text = (copied / path).read_text(encoding="utf-8")
    assert was in text
    (copied / path).write_text(text.replace(was, now, 1), encoding="utf-8")
    with pytest.raises(EvidenceError):
        read_contents(copied)


FILLED = Governance(
    title="Title",
    use=Use(purpose="Purpose.", out_of_scope=("This.", "That.")),
    risks=Risks(known=(Risk(risk="A risk.", measure="A measure."), Risk(risk="Another."))),
    organisation=Organisation(declaration="In the file."),
)


@pytest.mark.parametrize("governance", [Governance(), FILLED], ids=["empty", "filled"])
def test_no_sentence_claims_that_anything_is_met(bundle, governance):
    texts = written(bundle, governance)
    assert set(texts) == set(DOCUMENTS)
    for name, said in texts.items():
        # The name of a document of the Act, and of licences and files, is no claim.
        found = {match[0] for match in CLAIMS.finditer(said)}
        assert not found, (name, found)
    assert "never that a requirement is met" in texts["compliance/crosswalk.md"]
    assert "never that a requirement is met" in texts["compliance/annex-iv.md"]


def test_text_of_people_does_nothing_but_show(bundle):
    from markdown_it import MarkdownIt

    hostile = (
        "a|b <script>alert(1)</script> <img src=x onerror=alert(2)> `x` [y](javascript:z)\n\n# top\n| c |"
    )
    governance = Governance(
        title=hostile[:190],
        use=Use(purpose=hostile, limitations=(hostile, hostile), out_of_scope=(hostile,)),
        provider=Provider(name=hostile[:190]),
        risks=Risks(known=(Risk(risk=hostile, measure=hostile),)),
        organisation=Organisation(standards=hostile),
    )
    texts = written(bundle, governance)
    reader = MarkdownIt("gfm-like", {"linkify": False, "html": True})
    for name in ("MODEL_CARD.md", "compliance/annex-iv.md", "compliance/crosswalk.md"):
        page = reader.render(texts[name].split("\n---\n", 1)[-1])
        assert "<script" not in page
        assert "<img" not in page
        assert "<a " not in page
        assert page.count("<h1>") == 1
    page = texts["MODEL_CARD.html"]
    assert "<script" not in page
    assert "<img" not in page
    assert "javascript:z" in page
    assert 'href="javascript' not in page
    assert json.loads(texts["bom.cdx.json"])["metadata"]["component"]["manufacturer"]["name"].startswith(
        "a|b <script>"
    )
