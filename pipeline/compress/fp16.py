# SPDX-License-Identifier: Apache-2.0
"""Float16: weights and arithmetic in half the bits; image and scores stay float32.

ONNX Runtime's CPU provider has no float16 convolutions on most processors and computes them in float32: this
halves the file, and speeds up only where the hardware computes in float16.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from checks.errors import CompressionError
from pipeline.compress.calibration import activation_limits, run_on
from pipeline.compress.folding import fold_batch_norms
from pipeline.compress.graphs import Graph, read_graph
from pipeline.models.onnx_file import compact_model, save_onnx

__all__ = ["convert_float16"]

LARGEST = float(np.finfo(np.float16).max)


def _refuse(what: str, value: float) -> CompressionError:
    return CompressionError(
        f"expected values within {LARGEST:g}, the largest float16, got {value:g}",
        where=f"quantize, {what}",
        hint="use another precision for this variant",
    )


def _largest_activation(graph: Graph, images: npt.NDArray[np.float32]) -> float:
    """Return the largest magnitude, once weights and activations are known to fit."""
    for tensor in graph.model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 0:
            largest = float(np.abs(graph.constant(tensor.name).astype(np.float64)).max())
            if not largest <= LARGEST:
                raise _refuse(f"constant {tensor.name}", largest)
    limits = activation_limits(graph, images)
    for name, (low, high) in limits.items():
        if max(-low, high) > LARGEST:
            raise _refuse(f"value {name}", max(-low, high))
    return max(max(-low, high) for low, high in limits.values())


def convert_float16(source: Path, destination: Path, images: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Write `destination`, the file `source` in float16 between float32 input and output.

    Args:
        source: A float32 ONNX file.
        destination: Where the result goes.
        images: `(N, C, H, W)` raw pixels of the calibration split, on which no activation may overflow.

    Returns:
        `largest_activation`: the largest magnitude on those images, of 65504 that fit.

    Raises:
        CompressionError: if a weight or an activation does not fit, or the converter fails.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    if not len(images):
        raise CompressionError("expected at least one calibration image, got none", where="quantize")
    graph = read_graph(source)
    fold_batch_norms(graph)
    largest = _largest_activation(graph, images)
    try:
        with warnings.catch_warnings():
            # It warns of every value it rounds to zero.
            warnings.simplefilter("ignore")
            model = convert_float_to_float16(graph.model, keep_io_types=True)
    except Exception as error:
        raise CompressionError(
            f"expected the file to convert, got {type(error).__name__}: {error}", where="quantize"
        ) from error
    made = Graph(model)
    made.sort()
    output = next(iter(made.output_names))
    if not all(np.isfinite(values[output]).all() for values in run_on(made, [output], images)):
        raise CompressionError("expected finite scores in float16, got NaN or infinity", where="quantize")
    save_onnx(compact_model(made.model), destination)
    return {"largest_activation": largest}
