# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime sessions: every model that is measured is run through here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from checks.errors import ModelError, ProbeError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

__all__ = [
    "MAX_MODEL_BYTES",
    "PROVIDERS",
    "UNDECIDED",
    "Optimization",
    "create_session",
    "decide",
    "open_session",
    "predict",
]

Optimization = Literal["disabled", "basic", "extended", "all"]
"""How far ONNX Runtime may rewrite a graph before it runs it."""

MAX_MODEL_BYTES = 2 * 1024**3
"""Largest serialised protocol buffer, and so the largest ONNX file that holds its own weights."""

PROVIDERS = ("CPUExecutionProvider",)

UNDECIDED = -1
"""The decision on an example whose scores are not all finite; equal to no label."""


def _refuse(path: Path, expected: str, came: str, hint: str = "") -> ModelError:
    return ModelError(f"expected {expected}, got {came}", where=str(path), hint=hint)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _refuse(path, "a readable ONNX file", error.strerror or type(error).__name__) from error
    if not path.is_file():
        raise _refuse(path, "an ONNX file", "something that is no file")
    if size == 0:
        raise _refuse(path, "an ONNX file", "an empty file")
    if size > MAX_MODEL_BYTES:
        raise _refuse(path, f"an ONNX file of at most {MAX_MODEL_BYTES} bytes", f"{size}")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor a graph holds, those of nodes and of graphs within nodes included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors(graph)


def _check_content(path: Path) -> None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise _refuse(
            path,
            "an ONNX file",
            _first_line(error),
            "the file is truncated or corrupt; make or fetch it again",
        ) from error
    tensors = [
        *_tensors(model.graph),
        *(t for function in model.functions for t in _node_tensors(function.node)),
    ]
    outside = [tensor.name for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise _refuse(
            path,
            "an ONNX file that holds its own weights",
            f"{len(outside)} tensors in other files, the first {outside[0]!r}",
            "save it with onnx.save(model, path, save_as_external_data=False)",
        )


def _signature(entries: list[Any]) -> str:
    return ", ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in entries) or "none"


def _check_signature(session: onnxruntime.InferenceSession, path: Path) -> None:
    for entries, what, rank in (
        (session.get_inputs(), "input (batch, C, H, W)", 4),
        (session.get_outputs(), "output (batch, classes)", 2),
    ):
        fits = len(entries) == 1 and entries[0].type == "tensor(float)" and len(entries[0].shape) == rank
        if not fits:
            raise _refuse(path, f"exactly one float32 {what}", _signature(entries))
        if isinstance(entries[0].shape[0], int):
            raise _refuse(
                path,
                f"a {what} with a dynamic batch",
                _signature(entries),
                "export it with a dynamic first dimension",
            )


def create_session(
    path: Path, *, threads: int = 1, optimization: Optimization = "all"
) -> onnxruntime.InferenceSession:
    """Create a session as users of the file would, with no more checks than ONNX Runtime's own.

    Args:
        path: The ONNX file.
        threads: Threads within one operator, >= 1.
        optimization: Not at all, without other operators (`basic`), with fused ones (`extended`), or also
            with other memory layouts (`all`), as users have it.

    Raises:
        ModelError: if ONNX Runtime refuses the file.
    """
    # Since 1.31 it reports to its maker on import, and keeps an id in the user's home, unless told before.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    level = "ORT_DISABLE_ALL" if optimization == "disabled" else f"ORT_ENABLE_{optimization.upper()}"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(PROVIDERS))
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise _refuse(path, "a model that ONNX Runtime can run", _first_line(error)) from error


def open_session(path: Path, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open an ONNX classifier on the CPU with full graph optimisation.

    Args:
        path: One file of at most 2 GiB with its weights inside; one float32 input `(batch, C, H, W)` and
            one float32 output `(batch, classes)`, both with a dynamic batch.
        threads: Threads within one operator, >= 1.

    Raises:
        ModelError: if the file is missing, corrupt, truncated, too large, keeps weights in other files,
            or has another signature.
    """
    _check_size(path)
    _check_content(path)
    session = create_session(path, threads=threads)
    _check_signature(session, path)
    return session


def _run(session: onnxruntime.InferenceSession, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    name = session.get_inputs()[0].name
    try:
        outputs = session.run(None, {name: np.ascontiguousarray(images)})
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ProbeError(f"expected the model to run on {images.shape}, got {_first_line(error)}") from error
    scores = np.asarray(outputs[0])
    if scores.ndim != 2 or scores.shape[0] != len(images) or scores.dtype != np.float32:
        raise ProbeError(
            f"expected scores ({len(images)}, classes) of float32, got {scores.dtype} {scores.shape}"
        )
    return scores


def predict(
    session: onnxruntime.InferenceSession, images: npt.NDArray[np.float32], batch_size: int
) -> npt.NDArray[np.float32]:
    """Return the model's scores.

    Args:
        session: From `open_session`.
        images: `(N, C, H, W)` float32 in raw pixel units, N >= 1.
        batch_size: Images a call, >= 1.

    Returns:
        `(N, K)` float32; what the model computed, NaN included.

    Raises:
        ProbeError: if images or scores are of another shape or type, or the model fails on them.
    """
    if images.ndim != 4 or images.dtype != np.float32 or len(images) == 0:
        raise ProbeError(f"expected images (N >= 1, C, H, W) of float32, got {images.dtype} {images.shape}")
    if batch_size < 1:
        raise ProbeError(f"expected a batch size >= 1, got {batch_size}")
    parts = [_run(session, images[start : start + batch_size]) for start in range(0, len(images), batch_size)]
    if len({part.shape[1] for part in parts}) != 1:
        raise ProbeError(f"expected the same classes in every batch, got {[part.shape[1] for part in parts]}")
    return np.concatenate(parts)


def decide(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the class of the largest score of each example, `UNDECIDED` where any score is not finite.

    Args:
        scores: `(N, K)`.

    Returns:
        `(N,)` int64.
    """
    return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), UNDECIDED).astype(np.int64)
