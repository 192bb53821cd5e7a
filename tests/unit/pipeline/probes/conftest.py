# SPDX-License-Identifier: Apache-2.0
"""Small ONNX files, written node by node or trained and exported, and a project that is ready to be measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from checks.canonical import sha256_file
from pipeline.data.dataset import content_digest
from pipeline.data.test_examples import read_test_digest
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.params import Attack, Evaluate, Params, Time, load_params
from tests.evidence_files import write_attempt

FLOAT = onnx.TensorProto.FLOAT
WriteOnnx = Callable[..., Path]


def write_onnx_file(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, Any] | None = None,
    *,
    image: tuple[Any, ...] = ("batch", 1, 8, 8),
    scores: tuple[Any, ...] = ("batch", None),
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    opset: int = 20,
    domains: tuple[str, ...] = (),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "model",
        inputs or [helper.make_tensor_value_info("image", FLOAT, image)],
        outputs or [helper.make_tensor_value_info("scores", FLOAT, scores)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


@pytest.fixture
def write_onnx(tmp_path: Path) -> WriteOnnx:
    """Write an ONNX file from nodes and weights: `write_onnx("name.onnx", nodes, weights, ...)`."""

    def write(
        name: str, nodes: list[onnx.NodeProto], weights: dict[str, Any] | None = None, **options: Any
    ) -> Path:
        return write_onnx_file(tmp_path / name, nodes, weights, **options)

    return write


@pytest.fixture
def linear_onnx(write_onnx: WriteOnnx) -> Callable[..., Path]:
    """Write `scores = flatten(image) @ weight + bias`."""

    def write(name: str, weight: Any, bias: Any, **options: Any) -> Path:
        nodes = [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"]),
        ]
        weights = {"weight": np.asarray(weight, np.float32), "bias": np.asarray(bias, np.float32)}
        return write_onnx(name, nodes, weights, **options)

    return write


@dataclass(frozen=True)
class Digits:
    """A trained network as ONNX files, and images it never saw, in raw pixel units [0, 16]."""

    fp32: Path
    int8: Path
    images: Any
    labels: Any
    pixel_max: int = 16
    classes: int = 10


def _train(images: Any, labels: Any) -> Any:
    import torch
    from torch import nn

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(8, 16, 3, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(256, 10),
            )

        def forward(self, image: Any) -> Any:
            return self.network((image / 16.0 - 0.3) / 0.38)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Scaled()
        optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        for _ in range(12):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
                optimizer.step()
    torch.set_num_threads(threads)
    return module.eval()


def quantize_file(source: Path, target: Path, images: Any) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.parts: Iterator[dict[str, Any]] = iter([{"image": images[:128]}, {"image": images[128:256]}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.parts, None)

    quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return target


@pytest.fixture(scope="session")
def quantize() -> Callable[[Path, Path, Any], Path]:
    """Quantise an ONNX file to uint8 activations and int8 weights per channel."""
    return quantize_file


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    from sklearn.datasets import load_digits

    from pipeline.models.export import export_onnx

    source = load_digits()
    images = source.images.astype(np.float32)[:, None]
    labels = source.target.astype(np.int64)
    folder = tmp_path_factory.mktemp("digits")
    module = _train(images[:900], labels[:900])
    export_onnx(module, (1, 8, 8), folder / "fp32.onnx")
    quantize_file(folder / "fp32.onnx", folder / "int8.onnx", images[:900])
    return Digits(folder / "fp32.onnx", folder / "int8.onnx", images[900:1400], labels[900:1400])


@dataclass(frozen=True)
class Project:
    """A project as `shortlist` leaves it: 8x8 images, dark or bright, and linear models of their mean."""

    layout: Layout
    params: Params

    @property
    def baseline(self) -> Path:
        return self.layout.baseline

    @property
    def finalist(self) -> Path:
        return self.layout.shortlist / "first"

    def _put(self, folder: Path, name: str, weight: Any, bias: Any, cost: dict[str, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        nodes = [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"]),
        ]
        weights = {"weight": np.asarray(weight, np.float32), "bias": np.asarray(bias, np.float32)}
        write_onnx_file(folder / "model.onnx", nodes, weights)
        record = {"schema": "leangate/model/1", "name": name, "pixel_max": 16, "shape": [1, 8, 8]}
        record |= {"output": "logits"}
        record |= {"classes": ["low", "high"], "sha256": sha256_file(folder / "model.onnx"), **cost}
        write_json(folder / "model.json", record)

    def put_baseline(self, *, weight: Any = None, bias: Any = (8, -8), listed: bool = False) -> None:
        """Write the baseline, which says `high` where the mean pixel is above 8."""
        weight = np.array([[-1, 1]] * 64) / 64 if weight is None else weight
        self._put(self.baseline, "baseline", weight, bias, {"bytes": 1000, "macs": 128, "parameters": 130})
        if listed:
            sha256 = sha256_file(self.baseline / "model.onnx")
            self.edit_entry(baseline_sha256=sha256)

    def put_finalist(self, *, weight: Any = None, bias: Any = (9, -9), listed: bool = False) -> None:
        """Write the candidate, which says `high` where the mean pixel is above 9."""
        weight = np.array([[-1, 1]] * 64) / 64 if weight is None else weight
        self._put(self.finalist, "lean", weight, bias, {"bytes": 500, "macs": 64, "parameters": 65})
        if listed:
            self.list_finalist()

    def list_finalist(self) -> None:
        """Let record and slot name the candidate's file as it is now."""
        sha256 = sha256_file(self.finalist / "model.onnx")
        self.edit_record(self.finalist, sha256=sha256)
        self.edit_entry(sha256=sha256)
        self.enter_attempt()

    def enter_attempt(self) -> None:
        """Write down that the test split is about to be shown the candidate's file as it is now."""
        sha256 = sha256_file(self.finalist / "model.onnx")
        write_attempt(self.layout, "first", read_test_digest(self.layout.data), sha256)

    def edit_record(self, folder: Path, **changes: Any) -> None:
        """Change keys of a `model.json`."""
        path = folder / "model.json"
        write_json(path, json.loads(path.read_text()) | changes)

    def edit_entry(self, **changes: Any) -> None:
        """Change keys of the finalist's `finalist.json`."""
        path = self.finalist / "finalist.json"
        write_json(path, json.loads(path.read_text()) | changes)


def _write_data(folder: Path) -> None:
    import pandas as pd

    random = np.random.default_rng(0)
    split = np.repeat(["train", "calibration", "validation", "test"], [4, 4, 4, 60])
    count = len(split)
    pixels = random.integers(0, 17, (count, 1, 1, 1)) + random.integers(-2, 3, (count, 1, 8, 8))
    pixels = np.clip(pixels, 0, 16).astype(np.uint8)
    ids = [f"id{index:03}" for index in range(count)]
    frame = pd.DataFrame(
        {
            "id": ids,
            "unit": [f"unit{index // 2:03}" for index in range(count)],
            "split": split,
            "label": np.where(pixels.mean(axis=(1, 2, 3)) > 8, "high", "low"),
            "source": "made up",
            "license": "CC0-1.0",
            "consent": "given",
            "light": np.where(np.arange(count) % 3 == 0, "day", "night"),
        }
    )
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "manifest.parquet")
    np.savez(folder / "examples.npz", pixels=pixels, ids=np.array(ids))
    facts = {"schema": "leangate/data/1", "classes": ["low", "high"], "pixel_max": 16, "shape": [1, 8, 8]}
    tested = split == "test"
    facts["test_sha256"] = content_digest(pixels[tested], frame["label"][tested].tolist())
    splits = {name: int((split == name).sum()) for name in dict.fromkeys(split.tolist())}
    write_json(
        folder / "data.json", facts | {"rows": count, "slices": ["light"], "sources": [], "splits": splits}
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    # A fixed digest: the code that runs here may be edited while the tests run.
    monkeypatch.setattr("pipeline.probes.code_digest.code_sha256", lambda: "c" * 64)
    params = load_params(Path(__file__).parents[4] / "params.yaml")
    attack = Attack(epsilon=0.1, examples=40, pgd_steps=3, pgd_restarts=2, square_queries=5)
    params = params.model_copy(
        update={
            "seed": 0,
            "evaluate": Evaluate(batch_size=16, attack=attack),
            "time": Time(batch_sizes=(1, 3), sessions=2, rounds=2, calls=1, warmup=1),
        }
    )
    project = Project(Layout(tmp_path), params)
    _write_data(project.layout.data)
    project.put_baseline()
    project.put_finalist()
    entry = {"schema": "leangate/finalist/1", "slot": "first", "candidate": "lean"}
    entry["sha256"] = sha256_file(project.finalist / "model.onnx")
    entry["baseline_sha256"] = sha256_file(project.baseline / "model.onnx")
    write_json(project.finalist / "finalist.json", entry)
    project.enter_attempt()
    empty = project.layout.finalist("second")
    empty.mkdir()
    write_json(
        empty / "finalist.json", {"schema": "leangate/finalist/1", "slot": "second", "candidate": None}
    )
    return project
