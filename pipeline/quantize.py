# SPDX-License-Identifier: Apache-2.0
"""quantize: one candidate, a shrink variant at one precision."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from checks.errors import CompressionError, ParamsError
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params

if TYPE_CHECKING:
    from pipeline.compress.trained_int8 import Lesson
    from pipeline.data.dataset import Dataset

__all__ = ["run"]


def _lesson(layout: Layout, dataset: Dataset, seed: int) -> Lesson:
    """What int8 is trained with: the baseline's file teaches, so that no code of the user's is run."""
    from pipeline.compress.trained_int8 import Lesson
    from pipeline.models.record import read_record
    from pipeline.probes.twin import build_twin

    output = read_record(layout.baseline)["output"]
    return Lesson(dataset, build_twin(layout.baseline / "model.onnx"), output, seed)


def run(layout: Layout, params: Params, *, variant: str, precision: str) -> None:
    """Write the candidate's `model.onnx` and `model.json`.

    Raises:
        CompressionError: if the file cannot be quantized, or would not run in integers.
        ModelError: if the variant's files are unusable.
    """
    from pipeline.compress.configs import Float32, Rescue, StaticInt8, TrainedInt8
    from pipeline.compress.static_int8 import quantize_static_int8
    from pipeline.data.dataset import read_dataset
    from pipeline.models.record import read_record
    from pipeline.models.recording import record_model

    if precision not in params.quantize.recipes:
        raise ParamsError(f"expected a recipe named {precision!r}", where="params.yaml quantize.recipes")
    config = params.quantize.recipes[precision]
    source = layout.shrunk(variant)
    shrunk = read_record(source)
    passes, output = shrunk["passes"], shrunk["output"]
    dataset = read_dataset(layout.data)
    name = f"{variant}-{precision}"
    with output_dir(layout.candidate(name)) as folder:
        path = folder / "model.onnx"
        if isinstance(config, StaticInt8 | Rescue):
            images = dataset.split("calibration").images
            rng = np.random.default_rng([params.seed, 0xCA11B])
            chosen = np.sort(rng.permutation(len(images))[: config.max_examples])
            if isinstance(config, Rescue):
                from pipeline.compress.rescue import rescue

                lesson = _lesson(layout, dataset, params.seed)
                figures = rescue(source / "model.onnx", path, images[chosen], config, lesson)
            elif isinstance(config, TrainedInt8):
                from pipeline.compress.trained_int8 import quantize_trained_int8

                lesson = _lesson(layout, dataset, params.seed)
                figures = quantize_trained_int8(source / "model.onnx", path, images[chosen], config, lesson)
            else:
                figures = dict(quantize_static_int8(source / "model.onnx", path, images[chosen], config))
            options = config.model_dump(mode="json") | {"examples": len(chosen), "seed": params.seed}
            passes = [*passes, {"pass": "quantize", "options": options | {"precision": precision}, **figures}]
        elif isinstance(config, Float32):
            shutil.copyfile(source / "model.onnx", path)
        else:
            raise CompressionError(f"expected a known method, got {config.method}", where="quantize")
        write_json(folder / "model.json", record_model(path, name, dataset, passes, output=output))
