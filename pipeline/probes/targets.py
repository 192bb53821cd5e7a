# SPDX-License-Identifier: Apache-2.0
"""Whether other runtimes than the one a file is measured on load it, and answer alike."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from checks.errors import ModelError, ProbeError
from pipeline.probes.session import UNDECIDED, decide, open_session, predict

__all__ = ["RUNTIMES", "Runtime", "Target", "check_targets"]

Images = npt.NDArray[np.float32]
State = Literal["runs", "differs", "refused", "absent"]

_BATCH = 64
_LEAST_AGREEMENT = 0.98


@dataclass(frozen=True)
class Runtime:
    """A runtime that reads ONNX files.

    Attributes:
        name: What people call it.
        provider: ONNX Runtime's name of it; none for a runtime of its own.
        package: The Python package it is, if it is one of its own.
        get: How to get it.
    """

    name: str
    provider: str | None = None
    package: str | None = None
    get: str = ""


RUNTIMES = (
    Runtime("TensorRT", "TensorrtExecutionProvider", get="onnxruntime-gpu and TensorRT"),
    Runtime("CUDA", "CUDAExecutionProvider", get="onnxruntime-gpu"),
    Runtime("OpenVINO", package="openvino", get="pip install openvino"),
    Runtime("OpenVINO in ONNX Runtime", "OpenVINOExecutionProvider", get="onnxruntime-openvino"),
    Runtime("CoreML", "CoreMLExecutionProvider", get="onnxruntime on macOS"),
    Runtime("NNAPI", "NnapiExecutionProvider", get="onnxruntime on Android"),
    Runtime("QNN", "QNNExecutionProvider", get="onnxruntime-qnn"),
    Runtime("DirectML", "DmlExecutionProvider", get="onnxruntime-directml on Windows"),
)


@dataclass(frozen=True)
class Target:
    """What one runtime made of the file.

    Attributes:
        runtime: Its name.
        state: `runs`, `differs` on more than 2 % of the decisions, `refused` the file, or is `absent` here.
        agreement: Share of the images it decides as ONNX Runtime on the CPU does.
        difference: Largest difference of any score.
        own: Share of the time that it ran itself; the rest fell back to the CPU. None where unknown.
        reason: Why it refused, or how to get it.
    """

    runtime: str
    state: State
    agreement: float | None = None
    difference: float | None = None
    own: float | None = None
    reason: str = ""


def _share_of(profile: Path, provider: str) -> float:
    """Share of the time of all kernels in ONNX Runtime's profile that a provider took.

    Time, since a provider that compiles many nodes into one leaves one entry for all of them.
    """
    spent: dict[str, float] = {}
    for event in json.loads(profile.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            by = event["args"].get("provider")
            spent[by] = spent.get(by, 0.0) + event["dur"]
    total = sum(spent.values())
    return spent.get(provider, 0.0) / total if total else 0.0


def _run_provider(path: Path, provider: str, images: Images) -> tuple[Images, float]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        wanted = [provider, *(name for name in ["CPUExecutionProvider"] if name != provider)]
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        # Without this a provider that fails is replaced by the CPU, and nobody is told.
        session.disable_fallback()
        if session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} did not start")
        scores = predict(session, images, _BATCH)
        return scores, _share_of(Path(session.end_profiling()), provider)


def _run_openvino(path: Path, images: Images) -> Images:
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU")
    parts = [compiled(images[start : start + _BATCH])[0] for start in range(0, len(images), _BATCH)]
    return np.concatenate(parts)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()[:200]}" if lines else type(error).__name__


def _is_here(runtime: Runtime) -> bool:
    import onnxruntime

    if runtime.package is not None:
        return importlib.util.find_spec(runtime.package) is not None
    return runtime.provider in onnxruntime.get_available_providers()


def _try(runtime: Runtime, path: Path, images: Images, want: Images) -> Target:
    if not _is_here(runtime):
        return Target(runtime.name, "absent", reason=runtime.get)
    try:
        own: float | None = None
        if runtime.provider is not None:
            scores, own = _run_provider(path, runtime.provider, images)
        else:
            scores = _run_openvino(path, images)
    except Exception as error:  # a runtime of other people raises what it likes
        return Target(runtime.name, "refused", reason=_last_line(error))
    if scores.shape != want.shape:
        return Target(runtime.name, "refused", reason=f"answers {scores.shape} in place of {want.shape}")
    came, decided = decide(scores), decide(want)
    # Two that cannot decide do not agree.
    agreement = float(np.mean((came == decided) & (decided != UNDECIDED)))
    state: State = "runs" if agreement >= _LEAST_AGREEMENT else "differs"
    difference = float(np.abs(scores - want).max())
    return Target(runtime.name, state, agreement, difference if np.isfinite(difference) else None, own)


def check_targets(path: Path, images: Images, runtimes: Sequence[Runtime] = RUNTIMES) -> list[Target]:
    """Load the file with every runtime that is installed, and compare answers with ONNX Runtime on the CPU.

    Args:
        path: An ONNX classifier, as `open_session` takes it.
        images: `(N, C, H, W)` raw pixels, N >= 1.
        runtimes: Which ones to try.

    Raises:
        ModelError: if the file is none that ONNX Runtime can run on the CPU.
    """
    try:
        want = predict(open_session(path), images, _BATCH)
    except ProbeError as error:
        raise ModelError(error.what, where=str(path), hint="its input takes no such images") from error
    return [_try(runtime, path, images, want) for runtime in runtimes]
