# SPDX-License-Identifier: Apache-2.0
"""The stage `validate`: each defect is found, named, reported and refused; its clean twin passes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks.canonical import sha256_file
from checks.errors import DataError
from pipeline import validate
from pipeline.data.agreement import judge_agreement
from pipeline.data.contents import Contents, read_contents
from pipeline.data.dataset import read_dataset
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.params import Params, Validate, load_params

ROOT = Path(__file__).parents[3]
SPLITS = ("train", "calibration", "validation", "test")
ROWS = 12  # a split
LIMITS = Validate(
    allowed_licenses=("CC0-1.0", "CC-BY-4.0"),
    allowed_consent=("given",),
    min_class_share=0.2,
    min_split_rows=5,
)


@dataclass
class Prepared:
    """What `prepare` would write, open to every wrong turn."""

    columns: dict[str, list[Any]]
    pixels: Any
    ids: Any
    facts: dict[str, Any]
    truths: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the three files, with right digests unless `facts` holds others."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder.mkdir(parents=True)
        np.savez_compressed(folder / "examples.npz", pixels=self.pixels, ids=self.ids)
        pq.write_table(pa.table(self.columns), folder / "manifest.parquet")
        truths = {
            "examples_sha256": sha256_file(folder / "examples.npz"),
            "manifest_sha256": sha256_file(folder / "manifest.parquet"),
        }
        write_json(folder / "data.json", truths | self.facts)

    def describe(self) -> None:
        """Let `data.json` say what the columns hold now."""
        count = len(self.columns["id"])
        keys = list(zip(*(self.columns[name] for name in ("source", "license", "consent")), strict=True))
        self.facts["rows"] = count
        self.facts["splits"] = {name: self.columns["split"].count(name) for name in SPLITS}
        self.facts["sources"] = [
            {"source": key[0], "license": key[1], "consent": key[2], "rows": keys.count(key)}
            for key in sorted(set(keys), key=str)
        ]


def clean() -> Prepared:
    """Two classes, two rows a unit, every image another."""
    count = ROWS * len(SPLITS)
    ids = [f"digit-{row:04d}" for row in range(count)]
    rng = np.random.default_rng(7)
    prepared = Prepared(
        columns={
            "id": list(ids),
            "unit": [f"writer-{row // 2}" for row in range(count)],
            "split": [SPLITS[row // ROWS] for row in range(count)],
            "label": [("zero", "one")[row % 2] for row in range(count)],
            "source": ["scans"] * count,
            "license": ["CC0-1.0"] * count,
            "consent": ["given"] * count,
            "slant": [("left", "right")[row % 3 == 0] for row in range(count)],
        },
        pixels=rng.integers(0, 17, size=(count, 1, 4, 4)).astype(np.uint8),
        ids=np.array(ids),
        facts={
            "schema": "leangate/data/1",
            "classes": ["zero", "one"],
            "pixel_max": 16,
            "shape": [1, 4, 4],
            "slices": ["slant"],
        },
    )
    prepared.describe()
    return prepared


def params(limits: Validate = LIMITS) -> Params:
    """Return the project's own parameters with other limits."""
    return load_params(ROOT / "params.yaml").model_copy(update={"validate_": limits})


def findings_of(layout: Layout) -> dict[str, dict[str, Any]]:
    """Return the findings by check."""
    value = json.loads((layout.validation / "findings.json").read_text(encoding="utf-8"))
    assert value["schema"] == "leangate/data-findings/1"
    assert value["open"] == all(finding["verdict"] == "PASS" for finding in value["findings"])
    assert all(len(finding["rows"]) <= 20 for finding in value["findings"])
    return {finding["check"]: finding for finding in value["findings"]}


def refused(layout: Layout, limits: Validate = LIMITS) -> tuple[DataError, dict[str, dict[str, Any]]]:
    """Run the stage on bad data; return the error and the findings that were written all the same."""
    with pytest.raises(DataError) as caught:
        validate.run(layout, params(limits))
    findings = findings_of(layout)
    page = (layout.validation / "docs" / "index.html").read_text(encoding="utf-8")
    assert any(finding["verdict"] == "FAIL" for finding in findings.values())
    assert "What fails" in page
    assert caught.value.hint
    return caught.value, findings


def failing(findings: dict[str, dict[str, Any]]) -> set[str]:
    """Return the checks that looked and failed, without those that could not look."""
    return {
        name
        for name, finding in findings.items()
        if finding["verdict"] == "FAIL" and not finding["came"].startswith("not judged")
    }


def unjudged(findings: dict[str, dict[str, Any]]) -> set[str]:
    """Return the checks that could not look."""
    return {name for name, finding in findings.items() if finding["came"].startswith("not judged")}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Return an empty project."""
    return Layout(tmp_path)


def test_clean_data_pass_and_every_check_looked(layout: Layout) -> None:
    clean().write(layout.data)

    validate.run(layout, params())

    findings = findings_of(layout)
    assert len(findings) >= 25
    assert all(finding["verdict"] == "PASS" for finding in findings.values())
    assert all(finding["rows"] == [] and finding["row_count"] == 0 for finding in findings.values())
    assert unjudged(findings) == set()
    value = json.loads((layout.validation / "findings.json").read_text(encoding="utf-8"))
    assert value["open"] is True
    assert value["data_sha256"] == read_dataset(layout.data).sha256


def set_cells(column: str, values: dict[int, Any]) -> Callable[[Prepared], None]:
    """Return a defect: other values in some rows of a column, described as if they were meant."""

    def spoil(prepared: Prepared) -> None:
        for row, value in values.items():
            prepared.columns[column][row] = value
        if column == "id":
            prepared.ids = np.array([str(name) for name in prepared.columns["id"]])
        prepared.describe()

    return spoil


def drop_split(name: str) -> Callable[[Prepared], None]:
    """Return a defect: no example is left in one split."""

    def spoil(prepared: Prepared) -> None:
        kept = [row for row, split in enumerate(prepared.columns["split"]) if split != name]
        for column, values in prepared.columns.items():
            prepared.columns[column] = [values[row] for row in kept]
        prepared.pixels, prepared.ids = prepared.pixels[kept], prepared.ids[kept]
        prepared.describe()

    return spoil


def spoil_columns(
    change: Callable[[dict[str, list[Any]]], dict[str, list[Any]]],
) -> Callable[[Prepared], None]:
    """Return a defect: other columns."""

    def spoil(prepared: Prepared) -> None:
        prepared.columns = change(prepared.columns)

    return spoil


def copy_image(source: int, target: int) -> Callable[[Prepared], None]:
    """Return a defect: one image twice."""

    def spoil(prepared: Prepared) -> None:
        prepared.pixels[target] = prepared.pixels[source]

    return spoil


def set_attributes(**values: Any) -> Callable[[Prepared], None]:
    """Return a defect: other arrays in `examples.npz`."""

    def spoil(prepared: Prepared) -> None:
        for name, value in values.items():
            setattr(prepared, name, value(prepared))

    return spoil


def set_facts(**values: Any) -> Callable[[Prepared], None]:
    """Return a defect: `data.json` says something else."""

    def spoil(prepared: Prepared) -> None:
        prepared.facts.update(values)

    return spoil


def bright(prepared: Prepared) -> Any:
    """Return pixels of which one is above `pixel_max`."""
    pixels = prepared.pixels.copy()
    pixels[3, 0, 1, 1] = 17
    return pixels


DEFECTS: dict[str, tuple[Callable[[Prepared], None], set[str], list[str], list[str]]] = {
    # name: (defect, checks that must fail, rows that must be named, words of the error)
    "missing column": (
        spoil_columns(lambda old: {name: values for name, values in old.items() if name != "consent"}),
        {"manifest-columns"},
        [],
        ["manifest.parquet", "no 'consent'"],
    ),
    "further column": (
        spoil_columns(lambda old: old | {"age": ["9"] * len(old["id"])}),
        {"manifest-columns"},
        [],
        ["also 'age'"],
    ),
    "other order of columns": (
        spoil_columns(lambda old: {name: old[name] for name in sorted(old)}),
        {"manifest-columns"},
        [],
        ["in this order", "got 'consent', 'id', 'label'"],
    ),
    "numbers for text": (
        spoil_columns(lambda old: old | {"label": list(range(len(old["id"])))}),
        {"manifest-text"},
        [],
        ["column 'label' of int64"],
    ),
    "duplicate id": (
        set_cells("id", {1: "digit-0000"}),
        {"id-unique"},
        ["digit-0000"],
        [
            "manifest.parquet id",
            "expected unique ids, got 2 rows with id 'digit-0000' [id-unique; rows 'digit-0000']",
        ],
    ),
    "id in two splits": (
        set_cells("id", {47: "digit-0000"}),
        {"id-unique", "id-in-one-split"},
        ["digit-0000"],
        ["id 'digit-0000' in 'test' and 'train'"],
    ),
    "null id": (
        spoil_columns(lambda old: old | {"id": [None, *old["id"][1:]]}),
        {"id-present", "examples-ids"},
        ["row 0"],
        ["1 null or blank value in 48 rows"],
    ),
    "unknown label": (
        set_cells("label", {4: "eleven"}),
        {"label-known"},
        ["digit-0004"],
        ["manifest.parquet label", "'zero', 'one'", "1 row with label 'eleven'"],
    ),
    "null label": (
        set_cells("label", {5: None}),
        {"label-present"},
        ["digit-0005"],
        ["no null or blank label"],
    ),
    "unknown split": (
        set_cells("split", {0: "holdout", 1: "holdout"}),
        {"split-known"},
        ["digit-0000", "digit-0001"],
        ["2 rows with split 'holdout'", "'calibration'"],
    ),
    "unit in two splits": (
        set_cells("unit", {47: "writer-0"}),
        {"unit-in-one-split"},
        ["digit-0000", "digit-0001", "digit-0047"],
        ["manifest.parquet unit", "unit 'writer-0' in 'test' and 'train'"],
    ),
    "empty split": (
        drop_split("calibration"),
        {"split-rows", "class-share"},
        [],
        ["0 rows in calibration", "validate.min_split_rows"],
    ),
    "class missing in a split": (
        set_cells("label", dict.fromkeys(range(12, 24), "one")),
        {"class-share"},
        [],
        ["0.0000 of calibration for 'zero' (0 rows)", "validate.min_class_share"],
    ),
    "null consent": (
        set_cells("consent", {9: None}),
        {"consent-present"},
        ["digit-0009"],
        ["manifest.parquet consent", "no null or blank consent", "got 1 null"],
    ),
    "blank consent": (
        set_cells("consent", {9: "  "}),
        {"consent-present"},
        ["digit-0009"],
        ["got 1 null or blank"],
    ),
    "consent withdrawn": (
        set_cells("consent", {9: "withdrawn"}),
        {"consent-allowed"},
        ["digit-0009"],
        ["validate.allowed_consent of params.yaml ('given')", "1 row with consent 'withdrawn'"],
    ),
    "forbidden license": (
        set_cells("license", {2: "proprietary", 7: "proprietary"}),
        {"license-allowed"},
        ["digit-0002", "digit-0007"],
        ["manifest.parquet license", "validate.allowed_licenses", "2 rows with license 'proprietary'"],
    ),
    "null slice": (
        set_cells("slant", {1: None}),
        {"slant-present"},
        ["digit-0001"],
        ["no null or blank slant"],
    ),
    "image in two splits": (
        copy_image(0, 40),
        {"images-in-one-split"},
        ["digit-0000", "digit-0040"],
        ["examples.npz", "1 image in more than one: 'digit-0000' (train) = 'digit-0040' (test)"],
    ),
    "other number of rows": (
        set_facts(rows=47),
        {"manifest-rows", "examples-pixels"},
        [],
        ["expected 47 rows"],
    ),
}


DISAGREEMENTS: dict[str, tuple[Callable[[Prepared], None], str, list[str], list[str]]] = {
    # name: (defect, check that must fail, rows that must be named, words of its sentence)
    "images in another order": (
        set_attributes(ids=lambda prepared: prepared.ids[::-1].copy()),
        "examples-ids",
        ["digit-0000", "digit-0001"],
        ["the same ids in another order"],
    ),
    "images of others": (
        set_attributes(ids=lambda prepared: np.array(["stranger", *prepared.ids[1:]])),
        "examples-ids",
        ["stranger", "digit-0000"],
        ["ids that the manifest lacks: 'stranger'", "no images of 'digit-0000'"],
    ),
    "pixel above the range": (
        set_attributes(pixels=bright),
        "examples-pixels",
        ["digit-0003"],
        ["within [0, 16], got uint8 (48, 1, 4, 4) within [0, 17]"],
    ),
    "pixels of another type": (
        set_attributes(pixels=lambda prepared: prepared.pixels.astype(np.float32)),
        "examples-pixels",
        [],
        ["expected uint8 pixels", "got float32"],
    ),
    "pixels of another shape": (
        set_attributes(pixels=lambda prepared: prepared.pixels[:, :, :3]),
        "examples-pixels",
        [],
        ["(48, 1, 4, 4)", "got uint8 (48, 1, 3, 4)"],
    ),
    "other digest": (
        set_facts(manifest_sha256="0" * 64),
        "manifest-unchanged",
        [],
        ["manifest_sha256", "dvc repro prepare"],
    ),
    "other digest of images": (
        set_facts(examples_sha256=None),
        "examples-unchanged",
        [],
        ["examples_sha256"],
    ),
    "other sources": (
        set_facts(sources=[{"source": "scans", "license": "CC0-1.0", "consent": "given", "rows": 3}]),
        "description-agrees",
        [],
        ["other sources, licenses, consents"],
    ),
    "no sources": (set_facts(sources=None), "description-agrees", [], ["other sources"]),
    "other splits": (set_facts(splits={"train": 48}), "description-agrees", [], ["{'train': 48}"]),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_is_named_and_refused_for_that_reason(layout: Layout, name: str) -> None:
    spoil, checks, rows, words = DEFECTS[name]
    prepared = clean()
    spoil(prepared)
    prepared.write(layout.data)

    error, findings = refused(layout)

    assert failing(findings) == checks
    named = [row for check in checks for row in findings[check]["rows"]]
    assert set(rows) <= set(named)
    assert bool(rows) == bool(named)
    text = f"{error} {error.hint}"
    for word in (*words, *checks):
        assert word in text
    assert "\n" not in str(error) or len(checks) > 1


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_files_that_disagree_are_told_apart(layout: Layout, name: str) -> None:
    spoil, check, rows, words = DISAGREEMENTS[name]
    prepared = clean()
    spoil(prepared)
    prepared.write(layout.data)

    failed = [finding for finding in judge_agreement(read_contents(layout.data)) if not finding.passed]

    assert [finding.check for finding in failed] == [check]
    assert set(rows) <= set(failed[0].rows)
    assert bool(rows) == bool(failed[0].rows)
    for word in words:
        assert word in f"{failed[0].sentence} {failed[0].hint}"


def test_what_needs_a_missing_column_is_no_pass(layout: Layout) -> None:
    prepared = clean()
    for name in ("split", "consent"):
        del prepared.columns[name]
    prepared.write(layout.data)

    _, findings = refused(layout)

    assert unjudged(findings) == {
        "split-present",
        "split-known",
        "split-rows",
        "class-share",
        "id-in-one-split",
        "unit-in-one-split",
        "consent-present",
        "consent-allowed",
        "description-agrees",
        "images-in-one-split",
    }


def test_all_failures_are_told_at_once(layout: Layout) -> None:
    prepared = clean()
    set_cells("license", {2: "proprietary"})(prepared)
    set_cells("consent", {9: None})(prepared)
    set_cells("label", {4: "eleven"})(prepared)
    copy_image(0, 40)(prepared)
    prepared.write(layout.data)

    error, findings = refused(layout)

    assert failing(findings) == {"license-allowed", "consent-present", "label-known", "images-in-one-split"}
    assert "got 4 that fail" in str(error)
    for word in ("'proprietary'", "digit-0009", "'eleven'", "'digit-0040' (test)"):
        assert word in str(error)


def test_many_offending_rows_are_counted_and_few_are_named(layout: Layout) -> None:
    prepared = clean()
    set_cells("license", dict.fromkeys(range(30), "proprietary"))(prepared)
    prepared.write(layout.data)

    error, findings = refused(layout)

    assert findings["license-allowed"]["row_count"] == 30
    assert findings["license-allowed"]["rows"] == [f"digit-{row:04d}" for row in range(20)]
    assert "and 25 more" in str(error)


def test_no_rows_at_all_pass_nothing(layout: Layout) -> None:
    prepared = clean()
    prepared.columns = {name: [] for name in prepared.columns}
    prepared.pixels, prepared.ids = prepared.pixels[:0], prepared.ids[:0]
    prepared.write(layout.data)

    _, findings = refused(layout)

    passed = {name for name, finding in findings.items() if finding["verdict"] == "PASS"}
    about_files = {"description-readable", "manifest-readable", "manifest-text", "manifest-unchanged"}
    about_files |= {"examples-readable", "examples-unchanged", "manifest-columns"}
    assert passed == about_files


def test_a_column_of_nulls_alone_is_no_pass(layout: Layout) -> None:
    prepared = clean()
    set_cells("license", dict.fromkeys(range(48)))(prepared)
    prepared.write(layout.data)

    _, findings = refused(layout)

    assert findings["license-present"]["row_count"] == 48
    assert findings["license-allowed"]["verdict"] == "FAIL"


def test_limits_decide(layout: Layout) -> None:
    clean().write(layout.data)
    stricter = Validate(
        allowed_licenses=("MIT",), allowed_consent=("not-required",), min_class_share=0.6, min_split_rows=13
    )

    _, findings = refused(layout, stricter)

    assert failing(findings) == {"split-rows", "class-share", "license-allowed", "consent-allowed"}


def test_limits_hold_at_their_bound(layout: Layout) -> None:
    clean().write(layout.data)
    validate.run(layout, params(LIMITS.model_copy(update={"min_split_rows": 12, "min_class_share": 0.5})))


def test_same_image_within_one_split_is_told_and_passes(layout: Layout) -> None:
    prepared = clean()
    copy_image(0, 1)(prepared)
    prepared.write(layout.data)

    validate.run(layout, params())

    came = findings_of(layout)["images-in-one-split"]["came"]
    assert "1 image more than once within a split (2 rows), 1 of them under different labels" in came


def truncate(path: Path) -> None:
    """Cut a file in half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def garble(path: Path) -> None:
    """Overwrite the middle of a file."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    """Leave a file of no bytes."""
    path.write_bytes(b"")


def remove(path: Path) -> None:
    """Leave no file."""
    path.unlink()


FILES = {
    "manifest.parquet": "manifest-readable",
    "examples.npz": "examples-readable",
    "data.json": "description-readable",
}


def unreadable(contents: Contents) -> dict[str, str]:
    """Return the checks on the files themselves that fail, with what came."""
    return {finding.check: finding.came for finding in contents.findings if not finding.passed}


@pytest.mark.parametrize("damage", [truncate, garble, empty, remove])
@pytest.mark.parametrize("name", FILES)
def test_unreadable_file_is_a_finding(layout: Layout, name: str, damage: Callable[[Path], None]) -> None:
    clean().write(layout.data)
    damage(layout.data / name)

    contents = read_contents(layout.data)

    assert set(unreadable(contents)) == {FILES[name]}
    missing = {
        "data.json": contents.description,
        "manifest.parquet": contents.manifest,
        "examples.npz": contents.ids,
    }
    assert [file for file, value in missing.items() if value is None] == [name]


@pytest.mark.parametrize(
    ("name", "judged"),
    [
        ("manifest.parquet", set()),
        ("examples.npz", {"license-allowed", "unit-in-one-split"}),
        ("data.json", {"license-allowed", "unit-in-one-split", "images-in-one-split"}),
    ],
)
def test_unreadable_file_is_named_and_the_others_are_judged(
    layout: Layout, name: str, judged: set[str]
) -> None:
    prepared = clean()
    set_cells("license", {2: "proprietary"})(prepared)
    set_cells("unit", {47: "writer-0"})(prepared)
    copy_image(0, 40)(prepared)
    prepared.write(layout.data)
    truncate(layout.data / name)

    error, findings = refused(layout)

    unchanged = {f"{FILES[name].removesuffix('-readable')}-unchanged"} & set(findings)
    assert failing(findings) == {FILES[name], *judged} | (unchanged - unjudged(findings))
    assert f"artifacts/data/{name}" in str(error) or f"\n  {name}: " in str(error)
    assert unjudged(findings)
    assert f"{len(unjudged(findings))} more could not be judged" in str(error)


def test_missing_folder_is_refused(layout: Layout) -> None:
    error, findings = refused(layout)

    assert failing(findings) == {"description-readable", "manifest-readable", "examples-readable"}
    assert "No such file" in str(error)
    assert (
        json.loads((layout.validation / "findings.json").read_text(encoding="utf-8"))["data_sha256"] is None
    )


class Bomb:
    """Runs code if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_refused_and_not_loaded(layout: Layout, tmp_path: Path) -> None:
    prepared = clean()
    prepared.ids = np.array([Bomb(tmp_path / "ran")] * 48, dtype=object)
    prepared.write(layout.data)

    error, findings = refused(layout)

    assert not (tmp_path / "ran").exists()
    assert "examples-readable" in failing(findings)
    assert "allow_pickle=False" in str(error)


def test_an_array_that_is_not_there_is_named(layout: Layout) -> None:
    clean().write(layout.data)
    np.savez_compressed(layout.data / "examples.npz", ids=clean().ids)

    assert "no array named 'pixels'" in unreadable(read_contents(layout.data))["examples-readable"]


def test_ids_that_no_report_could_show_are_refused(layout: Layout) -> None:
    prepared = clean()
    prepared.ids = np.array(["\ud800", *prepared.ids[1:]])
    prepared.write(layout.data)

    assert "surrogates" in unreadable(read_contents(layout.data))["examples-readable"]


def test_archive_that_would_unpack_to_too_much_is_not_unpacked(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean().write(layout.data)
    monkeypatch.setattr("pipeline.data.contents.MAX_EXAMPLES_BYTES", 1000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))

    assert "too large" in unreadable(read_contents(layout.data))["examples-readable"]


def test_shape_that_no_memory_holds_is_refused(layout: Layout) -> None:
    clean().write(layout.data)
    header, ids = io.BytesIO(), io.BytesIO()
    shape = (2**45, 1, 8, 8)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    np.save(ids, clean().ids)
    with zipfile.ZipFile(layout.data / "examples.npz", "w") as archive:
        archive.writestr("pixels.npy", header.getvalue() + b"\0" * 64)
        archive.writestr("ids.npy", ids.getvalue())

    assert set(unreadable(read_contents(layout.data))) == {"examples-readable"}


def test_manifest_of_too_many_rows_is_not_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    clean().write(layout.data)
    monkeypatch.setattr("pipeline.data.contents.MAX_MANIFEST_ROWS", 47)

    contents = read_contents(layout.data)

    assert contents.manifest is None
    assert "48 rows" in unreadable(contents)["manifest-readable"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"schema": "leangate/data/2"}, "leangate/data/1"),
        ({"classes": ["zero"]}, "at least two"),
        ({"classes": ["zero", "zero"]}, "distinct"),
        ({"classes": "zero"}, "classes: expected a list"),
        ({"classes": ["zero", " "]}, "classes: expected a list"),
        ({"classes": ["zero", "\ud800"]}, "surrogates"),
        ({"slices": ["label"]}, "slices: expected names other than"),
        ({"slices": None}, "slices: expected a list"),
        ({"shape": [1, 4]}, "shape: expected [C, H, W]"),
        ({"shape": [1, 4, 0]}, "shape: expected a whole number"),
        ({"pixel_max": 256}, "pixel_max: expected a whole number from 1 to 255"),
        ({"pixel_max": True}, "pixel_max"),
        ({"rows": 0}, "rows: expected a whole number"),
        ({"rows": "48"}, "rows: expected a whole number"),
    ],
)
def test_description_that_describes_nothing_is_refused(
    layout: Layout, facts: dict[str, Any], words: str
) -> None:
    clean().write(layout.data)
    value = json.loads((layout.data / "data.json").read_text(encoding="utf-8")) | facts
    (layout.data / "data.json").write_text(json.dumps(value), encoding="utf-8")

    assert words in unreadable(read_contents(layout.data))["description-readable"]


def test_rules_that_need_the_description_are_no_pass_without_it(layout: Layout) -> None:
    prepared = clean()
    prepared.facts["classes"] = ["zero"]
    prepared.write(layout.data)

    error, findings = refused(layout)

    assert failing(findings) == {"description-readable"}
    assert (
        "artifacts/data/data.json: expected a description of the data, got classes: expected at least two"
        in str(error)
    )
    assert {"label-known", "class-share", "manifest-columns", "manifest-rows"} <= unjudged(findings)


def test_text_that_is_no_text_is_refused(layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    prepared = clean()
    prepared.write(layout.data)
    offsets = pa.py_buffer(np.arange(49, dtype=np.int32))
    broken = pa.Array.from_buffers(pa.string(), 48, [None, offsets, pa.py_buffer(b"\xff" * 48)])
    pq.write_table(pa.table(prepared.columns | {"source": broken}), layout.data / "manifest.parquet")

    contents = read_contents(layout.data)

    assert "column 'source' of 'utf-8' codec" in unreadable(contents)["manifest-text"]
    assert set(contents.unreadable_columns) == {"source"}


def test_long_text_is_refused(layout: Layout) -> None:
    prepared = clean()
    set_cells("source", {0: "x" * 5000})(prepared)
    prepared.write(layout.data)

    assert unreadable(read_contents(layout.data)) == {
        "manifest-text": "column 'source' of text of 5000 characters"
    }


def test_column_that_is_there_twice_is_refused(layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    prepared = clean()
    prepared.write(layout.data)
    names = ["label" if name == "slant" else name for name in prepared.columns]
    pq.write_table(pa.table(list(prepared.columns.values()), names=names), layout.data / "manifest.parquet")

    assert "a column name twice" in unreadable(read_contents(layout.data))["manifest-readable"]


def test_manifest_as_pandas_writes_it_is_read_alike(layout: Layout) -> None:
    import pandas as pd

    prepared = clean()
    prepared.write(layout.data)
    frame = pd.DataFrame(prepared.columns)
    frame["split"] = frame["split"].astype("category")
    frame.to_parquet(layout.data / "manifest.parquet", index=False)
    write_json(
        layout.data / "data.json",
        json.loads((layout.data / "data.json").read_text(encoding="utf-8"))
        | {"manifest_sha256": sha256_file(layout.data / "manifest.parquet")},
    )

    validate.run(layout, params())


class Page(HTMLParser):
    """Collects what a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


HOSTILE = "<script>alert(1)</script>"
QUOTED = "\"'><img src=x onerror=alert(2)>"


def test_text_from_data_is_escaped(layout: Layout) -> None:
    prepared = clean()
    marks = {0: HOSTILE, 1: QUOTED + "\x1b[2J\u202e"}
    for column in prepared.columns:
        set_cells(column, {row: f"{text} {column}" for row, text in marks.items()})(prepared)
    set_cells("unit", {47: prepared.columns["unit"][1]})(prepared)
    prepared.facts["classes"] = ["zero", "one", HOSTILE + " class"]
    prepared.columns[HOSTILE] = ["x"] * 48
    prepared.write(layout.data)

    error, findings = refused(layout)

    text = (layout.validation / "docs" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    page = Page(text)
    assert page.tags.isdisjoint({"script", "img"})
    assert not {name for name in page.attributes if name.startswith("on")}
    shown = "".join(page.text)
    for column in ("id", "label", "split", "license", "consent", "slant", "source"):
        assert f"{HOSTILE} {column}" in shown
    assert f"{HOSTILE} class" in shown
    assert f"{HOSTILE} id" in findings["label-known"]["rows"]
    for mark in ("\x1b", "\u202e"):
        assert mark not in text
        assert mark not in str(error)


def test_page_asks_for_nothing_from_outside(layout: Layout) -> None:
    prepared = clean()
    set_cells("source", {0: "https://example.org/a.css"})(prepared)
    prepared.write(layout.data)
    validate.run(layout, params())

    text = (layout.validation / "docs" / "index.html").read_text(encoding="utf-8")

    page = Page(text)
    assert page.open == []
    assert page.tags <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "h1",
            "h2",
            "h3",
            "p",
            "div",
            "dl",
            "dt",
            "dd",
        ),
        *("table", "thead", "tbody", "tr", "th", "td", "span", "code", "small", "b", "i", "footer"),
    }
    assert page.attributes.isdisjoint({"src", "href", "srcset", "action", "background"})
    assert "url(" not in text
    assert "@import" not in text
    assert text.count("https://") == 1  # the name of a source, as text
    assert "default-src 'none'" in text
    assert "id-unique" in text
    assert "expect_column_values_to_be_unique" in text


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_process_writes_the_same_bytes_and_leaves_nothing_behind(
    layout: Layout, tmp_path: Path
) -> None:
    prepared = clean()
    set_cells("license", {2: "proprietary"})(prepared)
    copy_image(0, 40)(prepared)
    set_cells("unit", {47: "writer-0"})(prepared)
    prepared.write(layout.data)
    refused(layout)
    first = contents_of(layout.validation)
    refused(layout)
    assert contents_of(layout.validation) == first

    other, home = Layout(tmp_path / "elsewhere"), tmp_path / "home"
    prepared.write(other.data)
    home.mkdir()
    program = (
        "import sys; from pathlib import Path; from pipeline import validate\n"
        "from pipeline.layout import Layout; from pipeline.params import Validate\n"
        "class P: validate_ = Validate.model_validate_json(sys.argv[2])\n"
        "try: validate.run(Layout(Path(sys.argv[1])), P)\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-W", "error", "-c", program, str(other.root), LIMITS.model_dump_json()],
        cwd=home,
        env=os.environ
        | {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "11", "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("DataError\n", "")
    assert contents_of(other.validation) == first
    assert set(first) == {"findings.json", str(Path("docs") / "index.html")}
    assert list(home.rglob("*")) == []


def test_importing_the_stage_loads_nothing_heavy() -> None:
    program = (
        "import sys; import pipeline.validate\n"
        "print(sorted({'great_expectations', 'pandas', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter and program
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
