# SPDX-License-Identifier: Apache-2.0
"""A context for passes, made in memory: random images, a teacher, what its file costs."""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from pipeline.compress.context import Context
from pipeline.compress.macs import count_macs
from pipeline.data.dataset import Dataset
from pipeline.models.cost import measure_cost
from pipeline.models.export import export_onnx
from pipeline.params import Model

PIXEL_MAX = 16


class ByMacs:
    """Stands for the stopwatch of a latency target: time is multiply-accumulates and a constant."""

    def __init__(self, baseline: nn.Module, shape: tuple[int, int, int], pixel_max: int, seed: int) -> None:
        self._image = torch.zeros(1, *shape)
        self._baseline = self._time(baseline)

    def _time(self, module: nn.Module) -> int:
        return 20_000 + count_macs(module, self._image)

    def share(self, module: nn.Module) -> float:
        """Return the ratio to the baseline's."""
        return self._time(module) / self._baseline


def dataset_of(shape=(1, 8, 8), classes=4, rows=96, seed=3) -> Dataset:
    """Return random images in every split but test, which no pass may read; labels can be learned."""
    rng = np.random.default_rng(seed)
    names = ("train", "calibration", "validation")
    size = rows * len(names)
    labels = rng.integers(0, classes, size)
    pixels = rng.integers(0, PIXEL_MAX + 1, (size, *shape))
    # A bright band whose place is the class.
    band = shape[1] // classes
    for row, label in enumerate(labels):
        pixels[row, :, label * band : (label + 1) * band] = PIXEL_MAX
    columns = {
        "id": np.array([f"e{row}" for row in range(size)]),
        "unit": np.array([f"e{row}" for row in range(size)]),
        "split": np.repeat(names, rows),
        "label": labels.astype(str),
        "source": np.full(size, "made"),
        "license": np.full(size, "CC0-1.0"),
        "consent": np.full(size, "not-required"),
    }
    return Dataset(
        columns, pixels.astype(np.uint8), PIXEL_MAX, tuple(str(name) for name in range(classes)), (), "0" * 64
    )


def context_of(
    module: nn.Module, dataset: Dataset | None = None, seed: int = 0, root: Path = Path()
) -> Context:
    """Return a context whose baseline is `module`, which maps raw images to scores."""
    dataset = dataset or dataset_of()
    channels = dataset.pixels.shape[1]
    model = Model(
        factory="net.py:build", code="net.py", weights=None, mean=(0.5,) * channels, std=(0.5,) * channels
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "baseline.onnx"
        export_onnx(copy.deepcopy(module), dataset.pixels.shape[1:], path)
        cost = measure_cost(path)
    return Context(dataset, copy.deepcopy(module).eval(), cost, model, root, seed)
