# SPDX-License-Identifier: Apache-2.0
"""`compression.json`: every pass says what it left, of the file beside it and no other, the same each time."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from checks.errors import EvidenceError, ModelError
from pipeline import prepare, prune, quantize, shortlist, train
from pipeline.compress.weights_int8 import quantize_weights_int8
from pipeline.layout import Layout
from pipeline.models.compression import LEFT, read_passes, write_passes
from pipeline.models.export import export_onnx
from pipeline.models.record import read_record
from pipeline.models.sparsity import measure_sparsity
from pipeline.params import load_params

ROOT = Path(__file__).resolve().parents[3]
RECIPES = {"dense": [], "sparse": [{"weights": {"sparsity": 0.5}}]}


def _params():
    params = load_params(ROOT / "params.yaml")
    prune = params.prune.model_validate({"variants": list(RECIPES), "recipes": RECIPES}, strict=False)
    quantize = params.quantize.model_copy(update={"precisions": ("int8",)})
    training = params.train.model_copy(update={"epochs": 3, "batch_size": 128})
    return params.model_copy(update={"prune": prune, "quantize": quantize, "train": training})


def _run(root):
    """Everything from data to shortlist, in a folder of its own."""
    layout, params = Layout(root), _params()
    shutil.copytree(ROOT / "examples", root / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    prepare.run(layout, params)
    train.run(layout, params)
    for variant in RECIPES:
        prune.run(layout, params, variant=variant)
        for precision in params.quantize.precisions:
            quantize.run(layout, params, variant=variant, precision=precision)
    shortlist.run(layout, params)
    return layout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tuple(_run(tmp_path_factory.mktemp(name) / "project") for name in ("one", "two"))


def _folders(layout):
    found = {path.parent for path in layout.artifacts.rglob("model.onnx")}
    assert len(found) >= 1 + 2 + 2 + 1
    return sorted(found)


@pytest.mark.integration
def test_every_file_has_its_passes_and_every_pass_says_what_it_left(runs):
    wanted = {"dense-int8": ["train", "quantize"], "sparse": ["train", "weights"]}
    wanted |= {"sparse-int8": ["train", "weights", "quantize"], "baseline": ["train"], "dense": ["train"]}
    for folder in _folders(runs[0]):
        passes, record = read_passes(folder), read_record(folder)
        made = json.loads((folder / "compression.json").read_text())
        assert (made["name"], made["sha256"]) == (record["name"], record["sha256"])
        assert "passes" not in record
        assert [done["pass"] for done in passes] == wanted[record["name"]]
        assert all(set(done["left"]) == set(LEFT) for done in passes)
        assert all("seed" in done["options"] for done in passes)
        assert passes[-1]["left"] == {key: record[key] for key in LEFT}


@pytest.mark.integration
def test_zeros_survive_the_rounding_to_int8_and_are_counted(runs):
    left = {done["pass"]: done["left"] for done in read_passes(runs[0].candidate("sparse-int8"))}
    assert left["train"]["sparsity"] < 0.01
    assert left["weights"]["sparsity"] == pytest.approx(0.5, abs=0.001)
    # Small weights round to zero too.
    assert left["weights"]["sparsity"] <= left["quantize"]["sparsity"] < 0.6


@pytest.mark.integration
def test_two_runs_differ_in_seconds_alone(runs):
    def contents(layout):
        return {
            path.relative_to(layout.artifacts).as_posix(): path.read_bytes()
            for path in layout.artifacts.rglob("*")
            if path.is_file()
        }

    one, two = (contents(layout) for layout in runs)
    assert one.keys() == two.keys()
    apart = {name for name in one if name.startswith("seconds/")}
    assert {name for name in one if one[name] != two[name]} <= apart
    timed = {name: [entry["pass"] for entry in json.loads(one[name])["passes"]] for name in apart}
    assert timed == {
        "seconds/train-baseline.json": ["train"],
        "seconds/prune-dense.json": [],
        "seconds/prune-sparse.json": ["weights"],
        "seconds/quantize-dense-int8.json": ["quantize"],
        "seconds/quantize-sparse-int8.json": ["quantize"],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"a model")
    write_passes(tmp_path, {"name": "m", "sha256": "0" * 64}, [{"pass": "train"}])
    return tmp_path


def test_passes_of_other_bytes_are_refused(folder):
    with pytest.raises(ModelError, match=r"expected the passes of model\.onnx with SHA-256") as caught:
        read_passes(folder)
    assert caught.value.where == str(folder / "compression.json")


@pytest.mark.parametrize("passes", [None, {}, "train", [1]])
def test_what_is_no_list_of_passes_is_refused(folder, passes):
    value = {"schema": "leangate/compression/1", "name": "m", "passes": passes}
    value["sha256"] = hashlib.sha256(b"a model").hexdigest()
    (folder / "compression.json").write_text(json.dumps(value))
    with pytest.raises(ModelError, match="expected a list of passes"):
        read_passes(folder)
    (folder / "compression.json").write_text(json.dumps(value | {"schema": "leangate/compression/2"}))
    with pytest.raises(ModelError, match="expected schema"):
        read_passes(folder)
    (folder / "compression.json").unlink()
    with pytest.raises(EvidenceError):
        read_passes(folder)


@pytest.mark.integration
def test_stages_refuse_a_file_whose_passes_are_another_s(runs, tmp_path):
    layout, params = Layout(tmp_path / "copy"), _params()
    shutil.copytree(runs[0].root, layout.root)
    quantize.run(layout, params, variant="sparse", precision="fp32")
    assert read_passes(layout.candidate("sparse-fp32")) == read_passes(layout.shrunk("sparse"))
    assert json.loads(layout.seconds("quantize", "sparse-fp32").read_text())["passes"] == []
    stages = {
        layout.candidate("sparse-int8"): lambda: shortlist.run(layout, params),
        layout.shrunk("sparse"): lambda: quantize.run(layout, params, variant="sparse", precision="fp32"),
        layout.baseline: lambda: prune.run(layout, params, variant="sparse"),
    }
    for folder, run in stages.items():
        shutil.copy(layout.candidate("dense-int8") / "compression.json", folder)
        with pytest.raises(ModelError, match="expected the passes") as caught:
            run()
        assert caught.value.where == str(folder / "compression.json")
    with pytest.raises(ModelError, match="expected the passes"):
        prune.run(layout, params, variant="dense")


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first, self.last = nn.Linear(8 * 16, 16), nn.Linear(16, 4)

    def forward(self, image):
        hidden = torch.relu(self.norm(self.conv(image * 0.1))).flatten(1)
        return self.last(torch.relu(self.first(hidden)))


@pytest.fixture
def sparse(tmp_path):
    """A network with a known share of zeros, as torch counts them, and its file."""
    net = _Net().eval()
    weights = [value for value in net.parameters() if value.ndim > 1]
    with torch.no_grad():
        for value in weights:
            value[torch.rand_like(value) < 0.3] = 0
            value[value.abs() < 0.01] = 0.02  # so that rounding to int8 makes no further zero
    zeros = sum(int((value == 0).sum()) for value in weights)
    export_onnx(net, (2, 4, 4), tmp_path / "net.onnx")
    return tmp_path / "net.onnx", zeros / sum(value.numel() for value in weights)


def test_sparsity_is_that_of_the_network_in_floats_and_in_codes(sparse, tmp_path):
    path, share = sparse
    assert measure_sparsity(path) == pytest.approx(share, abs=1e-12)
    quantize_weights_int8(path, tmp_path / "codes.onnx")
    assert measure_sparsity(tmp_path / "codes.onnx") == pytest.approx(share, abs=1e-12)


def test_codes_with_a_zero_point_are_counted_against_it(sparse, tmp_path):
    """ONNX Runtime's own dynamic quantization: unsigned codes whose zero is not 0."""
    path, share = sparse
    quantize_dynamic(
        path, tmp_path / "codes.onnx", weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul", "Gemm"]
    )
    assert measure_sparsity(tmp_path / "codes.onnx") == pytest.approx(share, abs=0.02)


def test_zero_points_of_each_channel_are_counted_channel_by_channel(tmp_path):
    codes, zeros = np.array([[1, 2, 3], [1, 2, 2]], np.int8), np.array([1, 2, 3], np.int8)
    constants = {"codes": codes, "scale": np.ones(3, np.float32), "zero": zeros}
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["weight"], axis=1),
            helper.make_node("MatMul", ["image", "weight"], ["scores"]),
        ],
        "model",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert measure_sparsity(tmp_path / "m.onnx") == 5 / 6


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\xff")
    with pytest.raises(ModelError, match="expected an ONNX model"):
        measure_sparsity(tmp_path / "m.onnx")
