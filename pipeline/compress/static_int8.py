# SPDX-License-Identifier: Apache-2.0
"""Static int8 quantization of an ONNX file: uint8 activations, int8 weights with one scale a channel.

The result is a QDQ graph. Signed activations would leave most convolutions in float on CPUs, so activations
are uint8; and a file whose convolutions do not run in integers is refused rather than called int8.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from checks.errors import CompressionError
from pipeline.compress.configs import StaticInt8
from pipeline.models.onnx_file import INPUT_NAME, clean_model, save_onnx

__all__ = ["integer_share", "quantize_static_int8"]

_BATCH = 32


def _reader(images: npt.NDArray[np.float32]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter([images[start : start + _BATCH] for start in range(0, len(images), _BATCH)])

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT_NAME: batch}

    return Reader()


def _quantize(source: Path, destination: Path, images: npt.NDArray[np.float32], config: StaticInt8) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(
                str(source),
                str(destination),
                _reader(images),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                calibrate_method=methods[config.calibration],
            )
    finally:
        logging.disable(previous)


def integer_share(path: Path) -> tuple[int, int]:
    """Return how many convolutions of the file ONNX Runtime runs in integers, and how many there are.

    Raises:
        CompressionError: if ONNX Runtime cannot load the file.
    """
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # Level "extended" fuses to integer kernels without tying the written graph to one CPU's layout.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise CompressionError(
                f"expected ONNX Runtime to load the int8 file, got {error}", where="quantize"
            ) from error
        counts = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    integer = counts["QLinearConv"] + counts["ConvInteger"]
    return integer, integer + counts["Conv"] + counts["FusedConv"]


def quantize_static_int8(
    source: Path, destination: Path, images: npt.NDArray[np.float32], config: StaticInt8
) -> dict[str, int]:
    """Quantize the ONNX file `source` and write the int8 file `destination`.

    Args:
        source: A float32 file with weights inside.
        destination: Where the int8 file goes; no metadata, same bytes every time.
        images: `(N, C, H, W)` raw pixels of the calibration split, N >= 1.
        config: How to calibrate.

    Returns:
        `convolutions` and how many of them run as `integer_convolutions`.

    Raises:
        CompressionError: if there is nothing to calibrate on, quantization fails, or convolutions stay float.
    """
    if len(images) == 0:
        raise CompressionError("expected at least one calibration image, got none", where="quantize")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "int8.onnx"
        clean_source = Path(folder) / "source.onnx"
        clean_source.write_bytes(clean_model(onnx.load(source)).SerializeToString(deterministic=True))
        try:
            _quantize(clean_source, raw, images, config)
        except Exception as error:
            raise CompressionError(
                f"expected the file to quantize, got {type(error).__name__}: {error}",
                where="quantize",
                hint="use precision fp32 for this variant",
            ) from error
        save_onnx(onnx.load(raw), destination)
    integer, total = integer_share(destination)
    if integer < total:
        raise CompressionError(
            f"expected every convolution to run in integers, got {integer} of {total}",
            where="quantize",
            hint="such a file would be slower than float; use precision fp32 for this variant",
        )
    return {"convolutions": total, "integer_convolutions": integer}
