# SPDX-License-Identifier: Apache-2.0
"""ONNX operators that slide a window: convolution and pooling, in torch.

Imports torch at its top; import it inside functions.
"""

# ruff: noqa: TID253 - this module defines torch functions, and stages import it inside `run`

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from checks.errors import ProbeError
from pipeline.probes.call import Call

__all__ = ["average_pool", "convolve", "max_pool"]


def _same_pads(call: Call, kernel: list[int], strides: list[int]) -> list[int]:
    """Return pads that make the output the input's size, divided by the stride and rounded up."""
    sizes = call.tensor(0).shape[2:]
    totals = [
        max((-(-size // stride) - 1) * stride + width - size, 0)
        for size, width, stride in zip(sizes, kernel, strides, strict=True)
    ]
    low = [total // 2 if call.get("auto_pad") == "SAME_UPPER" else total - total // 2 for total in totals]
    return low + [total - before for total, before in zip(totals, low, strict=True)]


@dataclass(frozen=True)
class _Window:
    """Kernel geometry of a convolution or pooling; `pads` are all low ends, then all high ends."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]

    @property
    def symmetric(self) -> bool:
        return self.pads[: len(self.kernel)] == self.pads[len(self.kernel) :]

    @property
    def torch_pads(self) -> list[int]:
        """Low and high end of each dimension, the last dimension first."""
        rank = len(self.kernel)
        return [pad for axis in reversed(range(rank)) for pad in (self.pads[axis], self.pads[axis + rank])]


def _window(call: Call, kernel: list[int]) -> _Window:
    call.refuse("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    rank = len(kernel)
    if rank not in (1, 2, 3):
        raise ProbeError(f"expected {call.op} over 1 to 3 dimensions, got {rank}")
    strides = list(call.get("strides", [1] * rank))
    dilations = list(call.get("dilations", [1] * rank))
    pads = list(call.get("pads", [0] * 2 * rank))
    if call.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        if any(dilation != 1 for dilation in dilations):  # ONNX Runtime refuses or ignores these, too
            raise ProbeError(f"expected {call.op} with auto_pad to have no dilations, got {dilations}")
        pads = _same_pads(call, kernel, strides)
    return _Window(kernel, strides, dilations, pads)


def convolve(call: Call) -> Tensor:
    """Conv: 1, 2 or 3 dimensions, groups, strides, dilations, any padding."""
    value, weight = call.tensor(0), call.tensor(1)
    window = _window(call, list(weight.shape[2:]))
    padding = window.pads[: len(window.kernel)]
    if not window.symmetric:
        value, padding = functional.pad(value, window.torch_pads), [0] * len(padding)
    function = getattr(functional, f"conv{len(window.kernel)}d")
    result: Tensor = function(
        value, weight, call.optional(2), window.strides, padding, window.dilations, call.get("group", 1)
    )
    return result


def _pool_window(call: Call) -> tuple[_Window, bool, bool]:
    """Return the window, whether torch can pad it itself, and whether sizes are rounded up."""
    window = _window(call, list(call.get("kernel_shape")))
    half = all(2 * pad <= width for pad, width in zip(window.pads, window.kernel * 2, strict=True))
    native, ceil = window.symmetric and half, bool(call.get("ceil_mode", 0))
    if ceil and not native:
        raise ProbeError(f"expected {call.op} with ceil_mode to have small symmetric pads, got {window.pads}")
    return window, native, ceil


def max_pool(call: Call) -> Tensor:
    """MaxPool: as `convolve`, without indices."""
    call.refuse("storage_order", 0)
    window, native, ceil = _pool_window(call)
    value, padding = call.tensor(0), window.pads[: len(window.kernel)]
    if not native:
        value, padding = functional.pad(value, window.torch_pads, value=float("-inf")), [0] * len(padding)
    function = getattr(functional, f"max_pool{len(window.kernel)}d")
    result: Tensor = function(value, window.kernel, window.strides, padding, window.dilations, ceil)
    return result


def average_pool(call: Call) -> Tensor:
    """AveragePool: with or without the padding counted."""
    window, native, ceil = _pool_window(call)
    if any(dilation != 1 for dilation in window.dilations):
        raise ProbeError(f"expected {call.op} without dilations, got {window.dilations}")
    function = getattr(functional, f"avg_pool{len(window.kernel)}d")
    padding, whole = window.pads[: len(window.kernel)], bool(call.get("count_include_pad", 0))
    value, zeros = call.tensor(0), [0] * len(padding)
    if native:
        native_result: Tensor = function(value, window.kernel, window.strides, padding, ceil, whole)
        return native_result
    total = function(functional.pad(value, window.torch_pads), window.kernel, window.strides, zeros)
    inside = functional.pad(torch.ones_like(value), window.torch_pads, value=1.0 if whole else 0.0)
    result: Tensor = total / function(inside, window.kernel, window.strides, zeros)
    return result
