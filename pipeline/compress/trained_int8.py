# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training: the int8 file itself is trained through its rounding.

The static int8 file is read as a torch module with float weights behind the same rounding, learns from the
training split and from the baseline, and gets its integers back. So the file that is trained has the very
structure that ONNX Runtime runs in integers, and no other exporter is asked for one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from checks.errors import CompressionError
from checks.evidence import Output
from pipeline.compress.precision_configs import StaticInt8, TrainedInt8
from pipeline.compress.recovery import retrain
from pipeline.compress.static_int8 import integer_share, quantize_static_int8
from pipeline.compress.trainable_twin import TrainableTwin
from pipeline.data.dataset import Dataset
from pipeline.models.onnx_file import save_onnx
from pipeline.models.recording import measure_on_validation
from pipeline.probes.session import open_session, predict
from pipeline.probes.twin import read_graph

__all__ = ["Lesson", "quantize_trained_int8", "write_integers"]

_BATCH = 256
_LEAST_AGREEMENT = 0.98
"""Rounding in another order flips a rare near-tie; a weight in the wrong place flips far more."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a quantized file may learn from.

    Attributes:
        dataset: Of which the training split is learned, and the validation split measured.
        teacher: The baseline; maps raw images to scores, in eval mode.
        output: What teacher and file answer.
        seed: Of order and augmentation.
    """

    dataset: Dataset
    teacher: nn.Module
    output: Output
    seed: int


def _zeros(source: Path, static: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Return where weights are zero in the float file: pruned weights stay so.

    Files do not say which weight was made of which. One of the same shape that is zero wherever another
    is zero is taken for it; were it not, rounding would have made these zeros, and they may stay.
    """
    floats = [numpy_helper.to_array(tensor) for tensor in onnx.load(source).graph.initializer]
    masks = [value == 0 for value in floats if value.dtype == np.float32 and value.ndim > 1]
    found = {}
    for tensor in static.graph.initializer:
        if tensor.data_type != onnx.TensorProto.INT8:
            continue
        codes = numpy_helper.to_array(tensor)
        fitting = [mask for mask in masks if mask.shape == codes.shape and not codes[mask].any()]
        if fitting:
            found[tensor.name] = torch.from_numpy(max(fitting, key=np.count_nonzero))
    return found


def write_integers(model: onnx.ModelProto, twin: TrainableTwin, path: Path) -> None:
    """Put what was trained back into its places, and write the file.

    Args:
        model: What the twin was built from; changed.
        twin: What was trained.
        path: Where the file goes.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    names = {*tensors, *(name for node in model.graph.node for name in (*node.input, *node.output))}
    integers = twin.integers()
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.output[0] not in integers:
            continue
        trained = integers[node.output[0]]
        if readers[node.input[1]] > 1:
            # A scale that happened to equal another's may be stored once; it need not any longer.
            scale = model.graph.initializer.add()
            scale.CopyFrom(tensors[node.input[1]])
            scale.name = node.input[1] = _unused(f"{node.input[0]}.scale", names)
            tensors[scale.name] = scale
        for name, value in zip(node.input[:2], (trained.codes, trained.scale), strict=True):
            _replace(tensors[name], value)
    for name, value in twin.floats().items():
        _replace(tensors[name], value)
    save_onnx(model, path)


def _unused(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    names.add(name)
    return name


def _replace(tensor: onnx.TensorProto, value: npt.NDArray[np.generic]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value.reshape(tuple(tensor.dims)), tensor.name))


def _agreement(twin: nn.Module, path: Path, images: npt.NDArray[np.float32]) -> float:
    """Share of images on which what was trained and what ONNX Runtime runs decide alike."""
    with torch.no_grad():
        twins = np.concatenate(
            [twin(part).argmax(dim=1).numpy() for part in torch.split(torch.from_numpy(images), _BATCH)]
        )
    return float(np.mean(predict(open_session(path), images, _BATCH).argmax(axis=1) == twins))


def _start(config: TrainedInt8) -> StaticInt8:
    names = [name for name in StaticInt8.model_fields if name != "method"]
    return StaticInt8(**{name: getattr(config, name) for name in names})


def quantize_trained_int8(
    source: Path,
    destination: Path,
    images: npt.NDArray[np.float32],
    config: TrainedInt8,
    lesson: Lesson,
) -> dict[str, Any]:
    """Quantize the ONNX file `source`, train it through the rounding, and write `destination`.

    Args:
        source: A float32 file with weights inside.
        destination: Where the int8 file goes; no metadata, same bytes every time.
        images: `(N, C, H, W)` raw pixels of the calibration split, N >= 1.
        config: How to calibrate, and how to train.
        lesson: What to learn from.

    Returns:
        What static quantization says of its file, under `untrained` what that file achieved on the
        validation split, and `agreement`, the share of validation images on which what was trained and
        the file in ONNX Runtime decide alike.

    Raises:
        CompressionError: if the file cannot be quantized, training makes a weight NaN or infinite, or the
            trained file does not answer, or does not run in integers, as the one it came from.
        ProbeError: if the file uses an operation that cannot be trained, which is named.
    """
    with tempfile.TemporaryDirectory() as folder:
        static, trained = Path(folder) / "static.onnx", Path(folder) / "trained.onnx"
        figures: dict[str, Any] = dict(
            # With the scale of pixels in them, weights of the first layer would be too small for the steps of
            # the optimizer, which are of one size for all.
            quantize_static_int8(source, static, images, _start(config), output=lesson.output, fold=False)
        )
        model = onnx.load(static)
        accuracy, loss = measure_on_validation(static, lesson.dataset, output=lesson.output)
        figures["untrained"] = {"validation_accuracy": accuracy, "validation_loss": loss}
        twin = TrainableTwin(read_graph(static), _zeros(source, model), portable=config.portable)
        retrain(
            twin,
            config.recover,
            dataset=lesson.dataset,
            teacher=lesson.teacher,
            output=lesson.output,
            seed=lesson.seed,
            label="quantization-aware training",
        )
        write_integers(model, twin, trained)
        if integer_share(trained) != integer_share(static):
            raise CompressionError(
                f"expected {integer_share(static)} convolutions in integers after training, "
                f"got {integer_share(trained)}",
                where="quantize",
            )
        figures["agreement"] = _agreement(twin, trained, lesson.dataset.split("validation").images)
        if figures["agreement"] < _LEAST_AGREEMENT:
            raise CompressionError(
                f"expected the int8 file to decide as what was trained, got {figures['agreement']:.1%}",
                where="quantize",
                hint="use method static for this variant",
            )
        shutil.copyfile(trained, destination)
    return figures
