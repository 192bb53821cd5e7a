# SPDX-License-Identifier: Apache-2.0
"""ONNX export: one file, no metadata, the same bytes every time."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from checks.errors import ModelError

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "clean_model", "export_onnx", "save_onnx"]

INPUT_NAME = "image"
OUTPUT_NAME = "scores"
OPSET = 20


def clean_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` without anything that is not computation: metadata, docs, stale shapes.

    Exporters leave stack traces with absolute paths in every node, which makes files larger, different
    from machine to machine, and tells strangers about the machine.
    """
    cleaned = onnx.ModelProto()
    cleaned.CopyFrom(model)
    cleaned.producer_name = cleaned.producer_version = cleaned.domain = cleaned.doc_string = ""
    del cleaned.metadata_props[:]
    graph = cleaned.graph
    del graph.metadata_props[:]
    graph.name, graph.doc_string = "model", ""
    del graph.value_info[:]
    for entry in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
        entry.doc_string = ""
        del entry.metadata_props[:]
    return cleaned


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Check `model` and write it, cleaned, as one deterministic file.

    Raises:
        ModelError: if the checker refuses the model.
    """
    cleaned = clean_model(model)
    try:
        onnx.checker.check_model(cleaned, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"expected a valid ONNX model, got {error}", where=path.name) from error
    path.write_bytes(cleaned.SerializeToString(deterministic=True))


def _dynamo_export(module: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                external_data=False,
                verbose=False,
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return program.model_proto


def export_onnx(module: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
    """Export `module` to one ONNX file with a dynamic batch.

    Args:
        module: Maps raw images `(N, C, H, W)` to scores `(N, K)`; exported in eval mode.
        shape: `(C, H, W)`.
        path: Where the file goes; input `image`, output `scores`, weights inside, no metadata.

    Raises:
        ModelError: if the module cannot be exported.
    """
    module.eval()
    # A batch of two: with one, the exporter would take the batch for a constant.
    example = torch.zeros(2, *shape)
    try:
        proto = _dynamo_export(module, example)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"expected a network that exports to ONNX, got {type(error).__name__}: {first}",
            where="params.yaml model.factory",
            hint="torch.onnx.export(network, ..., dynamo=True) must work on it",
        ) from error
    save_onnx(proto, path)
