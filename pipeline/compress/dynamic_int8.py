# SPDX-License-Identifier: Apache-2.0
"""Dynamic int8: matrix products in integers with ranges found at run time; convolutions compute in floats.

ONNX Runtime's dynamic convolution (`ConvInteger`) is seven times slower than its float one, so the weights of
convolutions are stored as int8 and computed with as floats.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx

from checks.errors import CompressionError
from pipeline.compress.folding import fold_batch_norms
from pipeline.compress.graphs import Graph, read_graph
from pipeline.compress.integers import expect_integers
from pipeline.compress.weights_int8 import store_weights_int8
from pipeline.models.onnx_file import clean_model, compact_model, save_onnx

__all__ = ["quantize_dynamic_int8"]

_PRODUCTS = ("MatMul", "Gemm")


def _quantize(path: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = path.with_name("dynamic.onnx")
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(
                str(path),
                str(made),
                op_types_to_quantize=list(_PRODUCTS),
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        return onnx.load(made)
    except Exception as error:
        raise CompressionError(
            f"expected the file to quantize, got {type(error).__name__}: {error}",
            where="quantize",
            hint="use precision fp32 for this variant",
        ) from error
    finally:
        logging.disable(previous)


def quantize_dynamic_int8(source: Path, destination: Path) -> dict[str, Any]:
    """Write `destination`, the file `source` with integer matrix products and int8 weights throughout.

    Args:
        source: A float32 ONNX file.
        destination: Where the result goes.

    Returns:
        How many `products` there are, how many of them run as `integer_products`, and how many
        `weights_only` layers store int8 and compute in floats.

    Raises:
        CompressionError: if there is no matrix product with constant weights, or one stays float.
    """
    graph = read_graph(source)
    fold_batch_norms(graph)
    names = [layer.name for layer in graph.layers(_PRODUCTS)]
    if not names:
        raise CompressionError(
            "expected matrix products with constant weights, got none",
            where="quantize",
            hint="use method static, or weights for size alone",
        )
    free = sum(node.op_type in _PRODUCTS and node.name not in names for node in graph.nodes)
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in graph.nodes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        graph.save(path)
        made = Graph(clean_model(_quantize(path)))
        stored = store_weights_int8(made, ("Conv", "ConvTranspose"))
        save_onnx(compact_model(made.model), path)
        found = expect_integers(path, float_convolutions=convolutions, float_products=free)
        destination.write_bytes(path.read_bytes())
    return {
        "products": found.products,
        "integer_products": found.integer_products,
        "weights_only": stored,
    }
