# SPDX-License-Identifier: Apache-2.0
"""quantize: one candidate, a shrink variant at one precision."""

from __future__ import annotations

import shutil

import numpy as np

from checks.errors import CompressionError, ParamsError
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params

__all__ = ["run"]


def run(layout: Layout, params: Params, *, variant: str, precision: str) -> None:
    """Write the candidate's `model.onnx` and `model.json`.

    Raises:
        CompressionError: if the file cannot be quantized, or would not run in integers.
        ModelError: if the variant's files are unusable.
    """
    from pipeline.compress.configs import Float32, StaticInt8
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
        if isinstance(config, StaticInt8):
            images = dataset.split("calibration").images
            rng = np.random.default_rng([params.seed, 0xCA11B])
            chosen = np.sort(rng.permutation(len(images))[: config.max_examples])
            figures = quantize_static_int8(source / "model.onnx", path, images[chosen], config)
            options = config.model_dump(mode="json") | {"examples": len(chosen), "seed": params.seed}
            passes = [*passes, {"pass": "quantize", "options": options | {"precision": precision}, **figures}]
        elif isinstance(config, Float32):
            shutil.copyfile(source / "model.onnx", path)
        else:
            raise CompressionError(f"expected a known method, got {config.method}", where="quantize")
        write_json(folder / "model.json", record_model(path, name, dataset, passes, output=output))
