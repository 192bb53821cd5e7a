# SPDX-License-Identifier: Apache-2.0
"""ONNX export of a torch network."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from checks.errors import ModelError
from pipeline.models.cost import Cost, measure_cost
from pipeline.models.onnx_file import INPUT_NAME, OUTPUT_NAME, save_onnx

__all__ = ["cost_of", "export_onnx"]

OPSET = 20


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


def cost_of(module: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Return what the ONNX file of `module` costs; the arguments are those of `export_onnx`.

    Raises:
        ModelError: if the module cannot be exported, or its file not be counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(module, shape, path)
        return measure_cost(path)
