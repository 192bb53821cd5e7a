# SPDX-License-Identifier: Apache-2.0
"""The card says what decision and evidence say, names its sources, and invents nothing."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.canonical import read_json, sha256_file
from checks.errors import ParamsError
from pipeline.card.contents import DOCUMENTS, Contents, read_contents
from pipeline.card.model_card import MAX_SUMMARY, model_card, summary
from pipeline.governance import Governance, Provider, Use
from pipeline.layout import Layout
from pipeline.params import load_yaml
from tests.bundle_project import Names, build_project, project_params

bundle = importlib.import_module("pipeline.bundle")

HOSTILE = "a|b <script>alert(1)</script> `x` [y](http://z) \n# top"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = build_project(tmp_path_factory.mktemp("card"))
    bundle.run(layout, project_params())
    return layout


@pytest.fixture(scope="module")
def card(built: Layout) -> str:
    return (built.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


def front_of(card: str, tmp_path: Path) -> dict[str, object]:
    head, fence, _ = card.removeprefix("---\n").partition("\n---\n")
    assert fence
    path = tmp_path / "front.yaml"
    path.write_text(head, encoding="utf-8")
    return load_yaml(path, ParamsError)


def declaring(built: Layout, **answers: object) -> Contents:
    """The bundle as it would read with other declarations; none of those that stand there stay."""
    return dataclasses.replace(read_contents(built.bundle), governance=Governance(**answers))


def section(card: str, title: str) -> str:
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match[1]


def rows_of(part: str) -> list[list[str]]:
    lines = [line for line in part.splitlines() if line.startswith("| ") and ":---" not in line][1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def row(card: str, start: str) -> list[str]:
    [line] = [line for line in card.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_front_matter_is_what_hubs_expect(card: str, tmp_path: Path) -> None:
    front = front_of(card, tmp_path)
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "onnx"
    assert front["pipeline_tag"] == "image-classification"
    assert "leangate" in front["tags"]
    [entry] = front["model-index"]
    [result] = entry["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["name"] == Names().source
    assert {metric["name"]: metric["value"] for metric in result["metrics"]}["Accuracy"] == 0.9911


def test_figures_stand_beside_the_baseline_s(card: str) -> None:
    assert row(section(card, "Compression"), "File, bytes")[1:4] == ["227,120", "22,104", "0.097×"]
    assert row(card.partition("## Decision")[0], "File, bytes")[1] == "227,120 → 22,104"
    assert row(section(card, "Compression"), "Parameters") == [
        "Parameters",
        "56,000",
        "14,000",
        "0.250×",
        "–",
    ]
    made = section(card, "Compression")
    assert row(made, "batch 64: time of a call, candidate over baseline")[3:] == ["0.31×", "0.29 to 0.33×"]
    assert row(made, "batch 64: 99 of 100 calls, baseline")[1:4] == ["0.8120 ms", "–", "–"]
    assert row(made, "batch 64: 99 of 100 calls, candidate")[1:4] == ["–", "0.3410 ms", "–"]
    assert row(made, "batch 64: processor time, candidate over baseline; a proxy for energy, never judged")[
        3
    ] == ("0.35× (proxy)")
    assert row(made, "1")[1:4] == ["`train`", "epochs 24, learning\\_rate 0.004", "–"]
    assert row(made, "2")[1:] == [
        "`channels`",
        "macs\\_reduction 2, seed 0",
        "channels: network.0 32 → 27<br>zeros: layer0 33 %; layer1 33 %; layer2 33 %; layer3 33 % and 26 more",
        "320 k",
        "14.00 k",
        "25.0 %",
        "110.5 KB (101.9 KB)",
        "99.0 %",
    ]
    assert row(made, "3")[2:4] == [
        "method static, equalize, precision int8",
        "3 of 3 convolutions in integers<br>0 of 1 matrix products in integers",
    ]


def test_each_slice_shows_count_value_interval_bound_limit_and_verdict(card: str) -> None:
    assert row(section(card, "Accuracy on the test split"), "all examples") == [
        "all examples", "899", "99.11 %", "99.11 %", "0.00 pp", "−0.60 to +0.60 pp", "−0.80 pp, p 0.003",
        "above −2.00 pp", "2.10 pp", "**PASS**",
    ]  # fmt: skip
    assert row(card, "label=3")[1] == "90"
    for name in ("stroke\\_weight=light", "slant=upright"):
        assert row(card, name)[-1] == "**PASS**"


def test_slices_come_in_the_order_of_their_levels(card: str) -> None:
    lines = [
        line for line in card.splitlines() if re.match(r"\| stroke\\_weight=(light|medium|bold) \|", line)
    ]
    assert [line.split()[1].partition("=")[2] for line in lines] == ["light", "medium", "bold"]


def test_disparity_and_robustness_show_their_limits_and_their_proviso(card: str) -> None:
    disparity = section(card, "Disparity added by compression")
    [gap] = [line for line in disparity.splitlines() if " against " in line]
    assert "=medium against stroke\\_weight=bold" in gap  # the judge's pair, not that of the measurement
    assert "+0.10 pp" in gap
    assert "at most +8.00 pp" in gap
    robust = section(card, "Adversarial robustness")
    for words in ("`pgd_on_candidate`", "0.05 of the pixel range", "85.40 %", "84.20 %", "81.50 to 86.90 %"):
        assert words in robust
    assert "against this pool of attacks" in robust
    assert "upper bound on robustness" in robust
    assert "99.6 % (candidate)" in robust


def test_searches_stand_apart_and_promise_nothing(card: str) -> None:
    searches = section(card, "Searches")
    assert "promises nothing about what it did not find" in searches
    found = row(searches, "`flips-into-one-class`")
    assert found[2:5] == ["all examples for 3", "60", "25.00 %"]
    assert found[5:] == ["p 0.4", "alarm at p 0.01, shared", "–", "**NO-FINDING**"]
    assert row(searches, "`losses-in-one-place`")[-1] == "**NOT-RUN** (advisory)"
    assert "`flips-into-one-class`" not in section(card, "Policy").partition("Findings that no table")[2]


def test_cells_that_are_only_listed_are_told_apart_from_what_was_judged(card: str) -> None:
    told = section(card, "Policy").partition("Listed only.")[2]
    assert "their parents are" in told
    assert "stroke\\_weight\\*slant=bold\\*upright (n = 5)" in told
    assert "stroke\\_weight\\*slant" not in section(card, "Accuracy on the test split")
    assert "1 listed only" in section(card, "Decision")
    assert "bold" not in row(card.partition("## Decision")[0], "Change on the worst slice")[1]


def test_examples_that_changed_most_are_named(card: str) -> None:
    flips = section(card, "Flip exemplars")
    assert row(flips, "digit-bold") == ["digit-bold", "label=3", "3", "5", "−3.25"]
    assert row(flips, "digit-0099") == ["digit-0099", "label=1", "2", "–", "–"]


def test_data_come_with_source_terms_splits_and_meaning(card: str) -> None:
    data = section(card, "Data")
    assert "CC-BY-4.0" in data
    assert "not-required" in data
    assert row(data, "`test`") == ["`test`", "60"]
    assert "share of the image that is ink" in row(data, "`stroke_weight`")[1]
    assert "cut at 0.27, 0.33" in row(data, "`stroke_weight`")[1]
    assert "to be completed by the provider" in row(data, "`slant`")[1]


def test_every_table_names_the_file_it_comes_from(built: Layout, card: str) -> None:
    cited = re.findall(r"`([a-z/_.-]+\.(?:json|npz|yaml|onnx))` \(`([0-9a-f]{12})`\)", card)
    assert len(cited) > 20
    for name, digest in cited:
        assert sha256_file(built.bundle / name).startswith(digest)
    for title in ("Compression", "Accuracy on the test split", "Adversarial robustness", "Policy", "Data"):
        assert "*From `" in section(card, title)


def test_every_file_of_the_bundle_is_listed_with_its_full_digest(built: Layout, card: str) -> None:
    listed = dict(
        reversed(line.split("  ")) for line in re.findall(r"^[0-9a-f]{64}  \S+$", card, re.MULTILINE)
    )
    manifest = read_json(built.bundle / "bundle.json")["files"]
    assert listed == {name: entry["sha256"] for name, entry in manifest.items() if name not in DOCUMENTS}


def test_unknown_answers_are_left_to_the_provider(built: Layout, tmp_path: Path) -> None:
    card = model_card(declaring(built, license=" "))
    for name in ("Purpose", "Licence", "Contact", "Provider", "Intended users", "Measures", "Monitoring"):
        assert f"- **{name}:** *to be completed by the provider*" in card
    assert "Declared by the provider:\n\n- *to be completed by the provider*" in card
    assert "- **Who watches and may stop it:** *to be completed by the deployer*" in card
    assert "\n# half-int8\n" in card  # without a title, the candidate's name
    assert front_of(card, tmp_path)["license"] == "unknown"


def test_a_licence_no_hub_knows_is_named_as_other(built: Layout, tmp_path: Path) -> None:
    front = front_of(model_card(declaring(built, license="My Own: Terms v2")), tmp_path)
    assert (front["license"], front["license_name"]) == ("other", "my-own-terms-v2")


@pytest.mark.parametrize(
    "title", ["no", "1:30", "0123", "a: b # c", "'quoted' \"twice\"", "--- x", "{x}", "é\u202ey"]
)
def test_front_matter_keeps_any_title_a_string(built: Layout, tmp_path: Path, title: str) -> None:
    import yaml

    card = model_card(declaring(built, title=title))
    want = title.replace("\u202e", " ")
    assert front_of(card, tmp_path)["model-index"][0]["name"] == want
    # Hubs read YAML 1.1, where a bare `no` is false.
    assert yaml.safe_load(card.split("\n---\n")[0])["model-index"][0]["name"] == want


def test_the_index_counts_what_is_answered_and_claims_nothing(built: Layout, card: str) -> None:
    index = section(card, "Index for assessments")
    counts = {cells[0].partition(" (")[0]: cells[2:] for cells in rows_of(index)}
    assert counts["NIST AI Risk Management Framework"][0] == "72"
    assert counts["ISO/IEC 42001 Annex A reference controls"][0] == "38"
    assert all(int(count) <= int(cells[0]) for cells in counts.values() for count in cells)
    for name in ("compliance/crosswalk.md", "compliance/annex-iv.md", "bom.cdx.json"):
        assert f"`{name}`" in index
        assert (built.bundle / name).is_file()


def test_a_hub_reads_the_head_of_the_card(built: Layout) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard((built.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")).data
    assert (data.license, data.model_name) == ("apache-2.0", "Handwritten digit recognition, compressed")
    accuracy = next(one for one in data.eval_results if one.metric_name == "Accuracy")
    assert (accuracy.task_type, accuracy.dataset_split) == ("image-classification", "test")
    assert accuracy.metric_value == 0.9911


@pytest.mark.parametrize("make", [model_card, summary])
def test_text_from_data_and_from_people_is_escaped_everywhere(
    tmp_path: Path, make: Callable[..., str]
) -> None:
    from markdown_it import MarkdownIt

    names = Names(
        classes=tuple(f"{HOSTILE}{index}" for index in range(10)),
        source=HOSTILE,
        license=HOSTILE,
        bold=HOSTILE,
        option=HOSTILE,
        policy=HOSTILE,
    )
    layout = build_project(tmp_path, names)
    bundle.run(layout, project_params())
    use = Use(purpose=HOSTILE, users=HOSTILE, limitations=(HOSTILE,), out_of_scope=(HOSTILE, HOSTILE))
    provider = Provider(name=HOSTILE, contact=HOSTILE)
    made = make(declaring(layout, title=HOSTILE, license=HOSTILE, use=use, provider=provider))
    body = made.split("\n---\n", 1)[-1]
    rendered = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(body)
    assert "<script" not in rendered
    assert "<a " not in rendered
    assert rendered.count("<h1>") == (1 if make is model_card else 0)
    assert "alert(1)" in rendered
    if make is model_card:
        assert front_of(made, tmp_path)["model-index"][0]["name"] == " ".join(HOSTILE.split())


def test_the_short_card_fits_a_registry_whatever_the_names(built: Layout, tmp_path: Path) -> None:
    contents = read_contents(built.bundle)
    short = summary(contents)
    assert contents.digest("model.onnx") in short
    assert "−0.30 pp (label=0)" in short
    signs = Names(
        bold="&" * 300, classes=tuple("&" * 300 + str(index) for index in range(10)), policy="&" * 300
    )
    layout = build_project(tmp_path, signs)
    bundle.run(layout, project_params())
    longest = summary(declaring(layout, title="&" * 200, use=Use(purpose="&" * 2000)))
    assert len(longest) <= MAX_SUMMARY
    assert longest.endswith("the full card is `MODEL_CARD.md`.")


def test_the_card_says_not_measured_where_nothing_was(built: Layout) -> None:
    contents = read_contents(built.bundle)
    contents.decision.value["measurements"][:] = [
        entry
        for entry in contents.decision.value["measurements"]
        if entry["metric"] != "baseline_robust_accuracy"
    ]
    card = model_card(contents)
    assert row(card, "**all of them, the worst of each example**")[2] == "not measured"
