# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of a torch network, counted while it runs, by the formulas of the ONNX count."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["count_macs"]


def _convolution(args: Any, output: torch.Tensor) -> int:
    image, weight, transposed = args[0], args[1], args[6]
    positions = (image if transposed else output).shape[2:]
    return int(len(image) * weight.numel() * prod(positions))


def _product(left: torch.Tensor, output: torch.Tensor) -> int:
    return left.shape[-1] * output.numel()


def _attention(args: Any, _: Any) -> int:
    query, key, value = args[:3]
    return int(prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


def _recurrent(args: Any, _: Any) -> int:
    """One direction of a fused LSTM: steps and batch, then weights of inputs and of the state."""
    return int(prod(args[0].shape[:2]) * (args[1].numel() + args[2].numel()))


_FORMULAS: dict[str, Callable[[Any, Any], int]] = {
    "convolution": _convolution,
    "mm": lambda args, output: _product(args[0], output),
    "bmm": lambda args, output: _product(args[0], output),
    "addmm": lambda args, output: _product(args[1], output),
    "baddbmm": lambda args, output: _product(args[1], output),
    "mv": lambda args, _: args[0].numel(),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "mkldnn_rnn_layer": _recurrent,
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func.overloadpacket.__name__)
        if formula:
            self.total += formula(args, output)
        return output


def count_macs(module: nn.Module, image: torch.Tensor) -> int:
    """Count multiply-accumulates of convolutions and matrix products on one image `(1, C, H, W)`."""
    counter = _Counter()
    # Fused, a transformer's layer would be one operation that says nothing of the products within.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), counter:
            module(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.total
