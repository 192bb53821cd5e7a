# SPDX-License-Identifier: Apache-2.0
"""ONNX files as LeanGate writes them: one file, nothing but computation inside, the same bytes every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
from onnx import numpy_helper

from checks.errors import ModelError

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "clean_model", "compact_model", "save_onnx"]

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


def _quantizer_constants(graph: onnx.GraphProto) -> set[str]:
    """Names of scales and zero points, and of nothing that anybody reads as data."""
    readers = ("QuantizeLinear", "DequantizeLinear")
    parameters = {name for node in graph.node if node.op_type in readers for name in node.input[1:]}
    data = {
        name
        for node in graph.node
        for index, name in enumerate(node.input)
        if node.op_type not in readers or index == 0
    }
    return parameters - data


def _merge_equal_constants(graph: onnx.GraphProto) -> dict[str, str]:
    """Drop every scale and zero point that equals an earlier one; return what stands for it.

    Weights are left alone even where two are equal: they count as parameters of two layers.
    """
    mergeable = _quantizer_constants(graph)
    first: dict[tuple[object, ...], str] = {}
    stands_for, kept = {}, []
    for tensor in graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if tensor.name in mergeable and first.setdefault(key, tensor.name) != tensor.name:
            stands_for[tensor.name] = first[key]
        else:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return stands_for


def _short_name(index: int) -> str:
    digits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    name = ""
    while True:
        index, digit = divmod(index, len(digits))
        name = digits[digit] + name
        if index == 0:
            return name
        index -= 1


def compact_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with the same computation in fewer bytes.

    Values get short names (input and output keep theirs), nodes none; tensors are stored as raw bytes;
    equal scales and zero points are stored once, unread initializers not at all. A model with graphs within
    nodes is returned as it is: names there may refer to values outside.
    """
    compact = onnx.ModelProto()
    compact.CopyFrom(model)
    graph = compact.graph
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    if any(entry.type in kinds for node in graph.node for entry in node.attribute):
        return compact
    for tensor in graph.initializer:
        # Fields of their own store an int8 below zero in ten bytes.
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    del graph.value_info[:]
    stands_for = _merge_equal_constants(graph)
    fixed = {entry.name for entry in [*graph.input, *graph.output]}
    for node in graph.node:
        node.name = ""
        node.input[:] = [stands_for.get(name, name) for name in node.input]
    read = {name for node in graph.node for name in node.input} | fixed
    for tensor in [entry for entry in graph.initializer if entry.name not in read]:
        graph.initializer.remove(tensor)
    uses = Counter(name for node in graph.node for name in [*node.input, *node.output] if name)
    # The names used most are the shortest; ties keep the order of the graph.
    order = [name for name, _ in uses.most_common() if name not in fixed]
    fresh = (name for name in map(_short_name, range(len(order) + len(fixed))) if name not in fixed)
    names = dict(zip(order, fresh, strict=False)) | {name: name for name in fixed} | {"": ""}
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    return compact


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
