# SPDX-License-Identifier: Apache-2.0
"""ONNX files as LeanGate writes them: one file, nothing but computation inside, the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import onnx

from checks.errors import ModelError

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "clean_model", "save_onnx"]

INPUT_NAME = "image"
OUTPUT_NAME = "scores"


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
