# SPDX-License-Identifier: Apache-2.0
"""Which layers of a file ONNX Runtime runs in integers: what a file is called is not what it does."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from checks.errors import CompressionError

__all__ = ["IntegerLayers", "count_integer_layers", "expect_integers"]

_INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
_FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose")
_INTEGER_PRODUCTS = (
    "QGemm",
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
)
_FLOAT_PRODUCTS = ("Gemm", "FusedGemm", "MatMul", "FusedMatMul")


@dataclass(frozen=True)
class IntegerLayers:
    """Layers of the graph as ONNX Runtime rewrote it.

    Attributes:
        convolutions: How many there are.
        integer_convolutions: How many of them run in integers.
        products: How many matrix products there are.
        integer_products: How many of them run in integers.
    """

    convolutions: int
    integer_convolutions: int
    products: int
    integer_products: int


def count_integer_layers(path: Path) -> IntegerLayers:
    """Count the layers that ONNX Runtime runs in integers, on its optimised graph.

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
            # Where the attempt stood differs from run to run, and may end up in a record.
            said = str(error).replace(str(path), path.name).replace(folder, "")
            raise CompressionError(
                f"expected ONNX Runtime to load the int8 file, got {said}", where="quantize"
            ) from error
        counts = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    convolutions, products = (
        sum(counts[kind] for kind in kinds) for kinds in (_INTEGER_CONVOLUTIONS, _INTEGER_PRODUCTS)
    )
    return IntegerLayers(
        convolutions + sum(counts[kind] for kind in _FLOAT_CONVOLUTIONS),
        convolutions,
        products + sum(counts[kind] for kind in _FLOAT_PRODUCTS),
        products,
    )


def expect_integers(path: Path, *, float_convolutions: int = 0, float_products: int = 0) -> IntegerLayers:
    """Check that all layers of a file run in integers but those declared to stay float, and these do not.

    ONNX Runtime quantizes float convolutions between quantized neighbours at load time, unasked.

    Args:
        path: The int8 file.
        float_convolutions: How many convolutions were left float on purpose.
        float_products: How many matrix products were.

    Raises:
        CompressionError: if more convolutions or products run in floats than were declared, or fewer
            convolutions.
    """
    found = count_integer_layers(path)
    for what, integer, total, declared in (
        ("convolution", found.integer_convolutions, found.convolutions, float_convolutions),
        ("matrix product", found.integer_products, found.products, float_products),
    ):
        if integer + declared < total:
            but = f" but {declared} kept float" if declared else ""
            raise CompressionError(
                f"expected every {what}{but} to run in integers, got {integer} of {total}",
                where="quantize",
                hint="such a file would be slower than float; use precision fp32 for this variant",
            )
    if found.integer_convolutions + float_convolutions > found.convolutions:
        raise CompressionError(
            f"expected {float_convolutions} convolutions to stay float, got "
            f"{found.convolutions - found.integer_convolutions}",
            where="quantize",
        )
    return found
