# SPDX-License-Identifier: Apache-2.0
"""What the compression benchmarks share: CIFAR-10, the tuned ResNet-20, recipes, figures of files."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cifar10"))

import numpy as np
import numpy.typing as npt
from net import resnet20
from source import cifar10
from torch import nn

from pipeline.compress.configs import Pass, Recover
from pipeline.compress.context import Context
from pipeline.compress.precisions import Job, quantize_file
from pipeline.compress.trained_int8 import Lesson
from pipeline.data.dataset import Dataset
from pipeline.models.cost import measure_cost
from pipeline.models.export import export_onnx
from pipeline.models.network import Preprocessed, load_weights
from pipeline.models.training import make_deterministic
from pipeline.params import Model
from pipeline.probes.session import create_session, predict
from pipeline.probes.twin import build_twin

__all__ = [
    "SHAPE",
    "Measured",
    "calibration_images",
    "context_of",
    "data_folder",
    "dataset",
    "latency_ratio",
    "measure",
    "passes",
    "quantize",
    "quantize_with_onnxruntime",
    "recover",
]

SHAPE = (3, 32, 32)
MODEL = Model(
    factory="net.py:resnet20",
    code="net.py",
    weights=None,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

Images = npt.NDArray[np.float32]


def data_folder() -> Path | None:
    """Return the folder of the data, or None if nobody named one, which is said."""
    folder = os.environ.get("LEANGATE_BENCH_DATA")
    if folder:
        return Path(folder) / "cifar10"
    print("skipped: LEANGATE_BENCH_DATA is not set", file=sys.stderr)
    return None


@cache
def dataset() -> Dataset:
    """Return CIFAR-10: 44,488 training, 512 calibration, 5,000 validation and 10,000 test images."""
    examples: Any = cifar10()
    columns = {
        "id": np.array(examples.ids),
        "unit": np.array(examples.ids),
        "split": np.array(examples.splits),
        "label": np.array(examples.labels),
    }
    classes = tuple(sorted(set(examples.labels)))
    return Dataset(columns, examples.pixels, 255, classes, (), "")


def baseline() -> nn.Module:
    """Return the tuned ResNet-20 behind its preprocessing."""
    folder = data_folder()
    assert folder is not None
    network = resnet20()
    load_weights(network, folder / "resnet20-tuned.safetensors", "weights")
    return Preprocessed(network, MODEL, 255).eval()


def context_of(seed: int, folder: Path) -> Context:
    """Return what passes may use; writes the baseline's file into `folder`."""
    make_deterministic(seed)
    teacher, path = baseline(), folder / "baseline.onnx"
    if not path.exists():
        export_onnx(teacher, SHAPE, path)
    return Context(dataset(), teacher, measure_cost(path), MODEL, folder, seed)


def recover(epochs: int, learning_rate: float, **options: Any) -> Recover:
    """Return a recovery with the peers' augmentation."""
    values = {
        "epochs": epochs,
        "batch_size": 128,
        "learning_rate": learning_rate,
        "weight_decay": 0.0005,
        "label_smoothing": 0.0,
        "max_shift": 4,
        "flip": True,
        "precision": "bf16",
    }
    return Recover.model_validate(values | options)


def passes(*entries: Mapping[str, Any]) -> list[Pass]:
    """Return the passes of a recipe."""
    return [Pass.model_validate(entry) for entry in entries]


def calibration_images() -> Images:
    """Return the 512 calibration images."""
    return dataset().split("calibration").images


def quantize(source: Path, destination: Path, config: Any, teacher: Path | None = None) -> None:
    """Write the int8 file of `source`; what is trained learns from the file `teacher`, else from `source`."""

    def lesson() -> Lesson:
        return Lesson(dataset(), build_twin(teacher or source), "logits", 0)

    quantize_file(Job(source, destination, config, calibration_images(), "logits", lesson))


def quantize_with_onnxruntime(source: Path, destination: Path, *, unsigned: bool = True) -> None:
    """Write what onnxruntime's own static quantizer makes: its defaults, or uint8 x int8 per channel."""
    import logging

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.split(calibration_images(), 16))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"image": batch}

    options = (
        {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
        if unsigned
        else {}
    )
    logging.disable(logging.WARNING)
    quantize_static(str(source), str(destination), Reader(), quant_format=QuantFormat.QDQ, **options)
    logging.disable(logging.NOTSET)


def latency_ratio(reference: Path, candidate: Path, batch: int, rounds: int, pairs: int = 5) -> float:
    """Return the candidate's time over the reference's: median of medians over fresh pairs of sessions."""
    images = dataset().split("validation").images[:batch]
    medians = []
    for _ in range(pairs):
        sessions = [create_session(path) for path in (reference, candidate)]
        feeds = [{session.get_inputs()[0].name: images} for session in sessions]
        for _ in range(5):
            for session, feed in zip(sessions, feeds, strict=True):
                session.run(None, feed)
        times = np.empty((rounds, 2))
        for index, row in enumerate(times):
            for which in (0, 1) if index % 2 else (1, 0):
                start = time.perf_counter()
                sessions[which].run(None, feeds[which])
                row[which] = time.perf_counter() - start
        medians.append(float(np.median(times[:, 1] / times[:, 0])))
    return float(np.median(medians))


@dataclass(frozen=True)
class Measured:
    """Decisions of one file on a split.

    Attributes:
        accuracy: Share it gets right.
        per_class: `(10,)` the same of each class.
        decided: `(N,)`.
    """

    accuracy: float
    per_class: npt.NDArray[np.float64]
    decided: npt.NDArray[np.int64]


def measure(path: Path, split: str) -> Measured:
    """Return what the file decides on a split."""
    examples = dataset().split(split)
    decided = predict(create_session(path), examples.images, 256).argmax(axis=1)
    right = decided == examples.labels
    per_class = np.array([right[examples.labels == label].mean() for label in range(len(dataset().classes))])
    return Measured(float(right.mean()), per_class, decided)
