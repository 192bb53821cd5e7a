# SPDX-License-Identifier: Apache-2.0
"""prepare: real slices, disjoint splits, and a named row for every wrong input."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from checks.errors import DataError, EvidenceError
from pipeline import prepare
from pipeline.data.dataset import read_dataset
from pipeline.data.slices import measure_slices
from pipeline.layout import Layout
from pipeline.params import load_params


def _run(project, **changes):
    params = load_params(project / "params.yaml")
    params = params.model_copy(update={"prepare": params.prepare.model_copy(update=changes)})
    layout = Layout(project)
    prepare.run(layout, params)
    return layout


def _image(mode="L", size=(6, 6), value=100, form="PNG"):
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(buffer, form)
    return buffer.getvalue()


def _table(n=40, **columns):
    rng = np.random.default_rng(0)
    images = []
    for _ in range(n):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (6, 6), dtype=np.uint8)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    frame = {
        "id": [f"r{i}" for i in range(n)],
        "image": images,
        "label": [["cat", "dog"][i % 2] for i in range(n)],
    }
    frame.update(columns)
    return pd.DataFrame(frame)


def _run_parquet(project, table, **changes):
    table.to_parquet(project / "data.parquet")
    return _run(project, **{"source": "data.parquet", "classes": None, "slices": ("size",), **changes})


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    import shutil
    from pathlib import Path

    root = Path(__file__).resolve().parents[3]
    folder = tmp_path_factory.mktemp("digits")
    shutil.copy(root / "params.yaml", folder)
    shutil.copytree(root / "examples", folder / "examples")
    return _run(folder)


def test_digits_are_split_disjoint_stratified_half_for_test(digits):
    dataset = read_dataset(digits.data)
    manifest = dataset.manifest
    assert len(manifest) == 1797
    assert abs((manifest["split"] == "test").mean() - 0.5) < 0.001
    assert (manifest.groupby("unit")["split"].nunique() == 1).all()
    share = manifest.groupby("split")["label"].value_counts(normalize=True)
    assert share.between(0.08, 0.12).all()
    assert set(manifest["license"]) == {"CC-BY-4.0"}


def test_slices_are_terciles_of_documented_formulas(digits):
    dataset = read_dataset(digits.data)
    facts = json.loads((digits.data / "data.json").read_text())
    assert set(dataset.slices) == {"stroke_weight", "slant", "size"}
    outside = dataset.manifest[dataset.manifest["split"] != "test"]
    for name in dataset.slices:
        assert outside[name].value_counts(normalize=True).between(0.31, 0.36).all()
        low, high = facts["slice_origins"][name]["edges"]
        values = measure_slices(dataset.pixels, 16)[name]
        levels = facts["slice_origins"][name]["levels"]
        assert (dataset.manifest[name].to_numpy()[values > high] == levels[2]).all()
        assert (dataset.manifest[name].to_numpy()[values <= low] == levels[0]).all()


def test_slice_formulas_say_what_they_name():
    upright = np.zeros((8, 8), np.uint8)
    upright[1:7, 3] = 16
    forward = np.zeros((8, 8), np.uint8)
    for row in range(1, 7):
        forward[row, 7 - row] = 16  # a slash: its top leans right
    bold = np.full((8, 8), 16, np.uint8)
    blank = np.zeros((8, 8), np.uint8)
    measured = measure_slices(np.stack([upright, forward, bold, blank])[:, None], 16)
    assert measured["slant"] == pytest.approx([0, 1, 0, 0], abs=1e-12)
    assert measured["stroke_weight"] == pytest.approx([6 / 64, 6 / 64, 1, 0])
    assert measured["size"][0] == pytest.approx(
        np.sqrt(35 / 12)
    )  # six dots in a line: variance (6^2 - 1) / 12
    assert measured["size"][2] == pytest.approx(np.sqrt(2 * 63 / 12))


def test_same_seed_same_bytes_other_seed_other_splits(project):
    first = {path.name: path.read_bytes() for path in _run(project).data.iterdir()}
    assert {path.name: path.read_bytes() for path in _run(project).data.iterdir()} == first
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("seed: 0", "seed: 1", 1))
    assert (_run(project).data / "manifest.parquet").read_bytes() != first["manifest.parquet"]


def test_identical_images_go_to_one_split(project):
    table = _table(60)
    table.loc[30:, "image"] = table.loc[: 60 - 31, "image"].to_numpy()
    dataset = read_dataset(_run_parquet(project, table).data)
    assert (dataset.manifest.groupby("unit")["split"].nunique() == 1).all()
    assert dataset.manifest["unit"].nunique() == 30


def test_units_that_share_an_image_are_one_unit_throughout(project):
    """Person b shares an image with person a: whatever else b has must follow."""
    table = _table(60, unit=[f"u{i}" for i in range(60)])
    table.loc[1, "image"] = table.loc[0, "image"]
    table.loc[2, "unit"] = "u1"
    manifest = read_dataset(_run_parquet(project, table).data).manifest
    assert manifest["unit"][:3].nunique() == 1
    assert manifest["split"][:3].nunique() == 1
    assert manifest["unit"].nunique() == 58


def test_a_null_is_no_value(project):
    (project / "source.py").write_text(
        "import numpy as np\n"
        "from pipeline.data.source import SourceExamples\n"
        "def source():\n"
        "    pixels = np.arange(640, dtype=np.uint8).reshape(40, 1, 4, 4) % 200\n"
        "    return SourceExamples([f'r{i}' for i in range(40)], pixels, 255, ['a', 'b'] * 20, 's', 'MIT', 'given',"
        " columns={'camera': ['x'] * 39 + [None]})\n"
    )
    with pytest.raises(DataError, match="row 39.*camera"):
        _run(project, source="source.py:source", classes=None, slices=("camera",))


def test_parquet_columns_are_kept(project):
    table = _table(
        camera=[["a", "b"][i // 20] for i in range(40)],
        license="CC0-1.0",
        unit=[f"u{i // 2}" for i in range(40)],
    )
    dataset = read_dataset(_run_parquet(project, table, slices=("camera", "size")).data)
    assert dataset.classes == ("cat", "dog")
    assert dataset.pixels.shape == (40, 1, 6, 6)
    assert set(dataset.manifest["camera"]) == {"a", "b"}
    assert set(dataset.manifest["license"]) == {"CC0-1.0"}


def test_splits_of_the_source_are_kept(project):
    names = ["train", "calibration", "validation", "test"]
    table = _table(split=[names[i % 4] for i in range(40)])
    dataset = read_dataset(_run_parquet(project, table, splits=None).data)
    assert dataset.manifest["split"].tolist() == table["split"].tolist()


def _with(column, row, value):
    table = _table()
    table[column] = table[column].astype(object)
    table.at[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: _table().drop(columns="label"), "'label'"),
        (lambda: _table().drop(columns="image"), "'image'"),
        (lambda: _with("id", 1, "r0"), "r0"),
        (lambda: _with("label", 3, None), "label"),
        (lambda: _with("image", 7, b"not an image"), "row r7"),
        (lambda: _with("image", 7, _table()["image"][7][:50]), "row r7"),
        (lambda: _with("image", 7, b""), "row r7"),
        (lambda: _with("image", 7, _image(size=(6, 7))), "row r7"),
        (lambda: _with("image", 7, _image("RGB")), "row r7"),
        (lambda: _with("image", 7, _image("RGB", form="GIF")), "row r7"),
        (lambda: _table().iloc[:0], "got none"),
    ],
)
def test_wrong_rows_are_named(project, table, message):
    with pytest.raises(DataError, match=message):
        _run_parquet(project, table())
    assert not (project / "artifacts" / "data").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("cat", "cow")}, "dog"),
        ({"slices": ("colour",)}, "colour"),
        ({"splits": None}, "no splits"),
        ({"max_examples": 39}, "at most 39"),
        ({"max_pixels": 35}, "at most 35 pixels"),
    ],
)
def test_what_does_not_fit_the_params_is_refused(project, changes, message):
    with pytest.raises(DataError, match=message):
        _run_parquet(project, _table(), **changes)


def test_unknown_split_names_are_refused(project):
    with pytest.raises(DataError, match="dev"):
        _run_parquet(project, _table(split=["dev"] * 40), splits=None)


def test_a_truncated_parquet_file_is_refused(project):
    _table().to_parquet(project / "data.parquet")
    data = (project / "data.parquet").read_bytes()
    (project / "data.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="Parquet"):
        _run(project, source="data.parquet", classes=None, slices=("size",))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def digits(): return 3", "SourceExamples"),
        ("def digits(): raise KeyError('x')", "KeyError"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def other(): pass", "'digits'"),
        ("def digits(:", "SyntaxError"),
    ],
)
def test_a_broken_source_function_is_named(project, code, message):
    (project / "source.py").write_text(code)
    with pytest.raises(DataError, match=message):
        _run(project, source="source.py:digits")


@pytest.mark.parametrize("name", ["examples.npz", "manifest.parquet", "data.json"])
@pytest.mark.parametrize("damage", ["truncate", "empty", "remove"])
def test_damaged_outputs_are_refused_when_read(project, name, damage):
    layout = _run_parquet(project, _table())
    path = layout.data / name
    data = path.read_bytes()
    path.unlink()
    if damage != "remove":
        path.write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
    with pytest.raises((DataError, EvidenceError)) as caught:
        read_dataset(layout.data)
    assert name in str(caught.value)
