# SPDX-License-Identifier: Apache-2.0
"""The trainable twin of an int8 file: float weights behind the very rounding that the file does.

Weights are rounded with a scale a channel, recomputed from the largest weight in each step; rounding is
straight-through (Bengio, Leonard and Courville 2013, https://arxiv.org/abs/1308.3432). Ranges of activations
are those of the file, and so is the graph: what was trained goes back into the same places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from checks.errors import CompressionError
from pipeline.probes.twin import Graph, Node, compute

__all__ = ["Integers", "TrainableTwin"]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operations whose second input is a weight, and third a bias."""

_LOW, _HIGH = -128, 127
_RANGES = {torch.uint8: (0, 255), torch.int8: (_LOW, _HIGH)}
_BIAS_LIMIT = 2**31 - 1
_SMALLEST_SCALE = 1e-12
_PORTABLE_PAIR = 127
"""Two weights of one sign that sum to at most 128 cannot saturate 16 bits; each may round up by a half."""


@dataclass
class _Weight:
    """An int8 weight: where it stands in the file, and how it is rounded.

    `floors` are pairs of a bias and its input's scale: so large a scale it takes for the bias to fit int32.
    """

    codes: str
    value: str
    axis: int
    per_channel: bool
    floors: list[tuple[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Bias:
    """An int32 bias: its scale is that of the input times that of the weight."""

    value: str
    weight: str
    input_scale: float


@dataclass(frozen=True, eq=False)
class Integers:
    """A weight or bias in integers.

    Attributes:
        codes: int8 or int32, in the shape of the weight or bias.
        scale: float32, `(C,)` or one number.
    """

    codes: npt.NDArray[np.generic]
    scale: npt.NDArray[np.float32]


def _as_weight(node: Node, constants: Mapping[str, Tensor]) -> _Weight | None:
    codes, scale = constants.get(node.inputs[0]), constants.get(node.inputs[1])
    if codes is None or scale is None or codes.dtype != torch.int8 or codes.ndim < 2:
        return None
    if len(node.inputs) > 2 and bool((constants[node.inputs[2]] != 0).any()):
        return None
    axis = int(node.attributes.get("axis", 1)) % codes.ndim
    return _Weight(node.inputs[0], node.outputs[0], axis, scale.numel() > 1)


def _fuse(nodes: list[Node], constants: Mapping[str, Tensor]) -> list[Node]:
    """Make one operation of each pair that quantizes and dequantizes with one scale."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    pairs: dict[str, Node] = {}
    for node in nodes:
        after = readers.get(node.outputs[0], [])
        zero = constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if (
            node.op == "QuantizeLinear"
            and after
            and all(entry.op == "DequantizeLinear" and entry.inputs[1:] == node.inputs[1:] for entry in after)
            and zero is not None
            and zero.dtype in _RANGES
            and zero.numel() == 1
        ):
            low, high = _RANGES[zero.dtype]
            scale = float(constants[node.inputs[1]])
            numbers = {"scale": scale, "zero": int(zero), "low": low, "high": high}
            pairs[node.outputs[0]] = Node("FakeQuantize", node.inputs[:1], node.outputs, numbers)
    fused = []
    for node in nodes:
        if node.outputs[0] in pairs:
            fused.append(pairs[node.outputs[0]])
        elif node.op == "DequantizeLinear" and node.inputs[0] in pairs:
            fused.append(Node("Identity", node.inputs[:1], node.outputs, {}))
        else:
            fused.append(node)
    return fused


class _RoundTrip(torch.autograd.Function):
    """Quantize and dequantize, as ONNX defines it; no gradient where the value is out of range.

    torch's own fused operation takes twice as long, and rounds after it added the zero point.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, numbers: Mapping[str, Any]) -> Tensor:
        codes = (value / numbers["scale"]).round_()
        inside: Tensor = codes.clamp(numbers["low"] - numbers["zero"], numbers["high"] - numbers["zero"])
        ctx.save_for_backward(inside == codes)
        inside.mul_(numbers["scale"])
        return inside

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        inside: Tensor = ctx.saved_tensors[0]
        return gradient * inside, None


def _run(node: Node, values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if node.op != "FakeQuantize":
        return compute(node, values)
    rounded = _RoundTrip.apply(values[node.inputs[0]], node.attributes)  # type: ignore[no-untyped-call]
    return {node.outputs[0]: rounded}


class TrainableTwin(nn.Module):
    """Computes what a QDQ graph computes, with float weights and biases that can be trained."""

    def __init__(self, graph: Graph, zeros: Mapping[str, Tensor], *, portable: bool = False) -> None:
        """Read weights from the file.

        Args:
            graph: Of an int8 file.
            zeros: Name of an int8 weight to where it is zero and must stay so, booleans of its shape.
            portable: Whether scales are such that no sum of two products leaves 16 bits.

        Raises:
            CompressionError: if no weight can be trained.
        """
        super().__init__()
        self._image, self._scores, self._portable = graph.image, graph.scores, portable
        self._weights: dict[str, _Weight] = {}
        self._biases: dict[str, _Bias] = {}
        self._plain: set[str] = set()
        self._parameter_of: dict[str, str] = {}
        self._find(graph)
        if not self._weights:
            raise CompressionError("expected a file with int8 weights, got none", where="quantize")
        with torch.no_grad():
            self._adopt(graph, zeros)
            self._fold(graph)

    def _find(self, graph: Graph) -> None:
        constants = graph.constants
        dequantized = {node.outputs[0]: node for node in graph.nodes if node.op == "DequantizeLinear"}
        for node in graph.nodes:
            if node.op not in WEIGHTED:
                continue
            for name in node.inputs[1:3]:
                if name in constants and constants[name].is_floating_point():
                    self._plain.add(name)
            source = dequantized.get(node.inputs[1])
            weight = None if source is None else _as_weight(source, constants)
            if weight is None:
                continue
            weight = self._weights.setdefault(weight.value, weight)
            self._find_bias(node, weight, dequantized, constants)

    def _find_bias(
        self,
        node: Node,
        weight: _Weight,
        dequantized: Mapping[str, Node],
        constants: Mapping[str, Tensor],
    ) -> None:
        source = dequantized.get(node.inputs[2]) if len(node.inputs) > 2 else None
        image = dequantized.get(node.inputs[0])
        if source is None or image is None or constants[source.inputs[0]].dtype != torch.int32:
            return
        input_scale = float(constants[image.inputs[1]])
        bias = _Bias(source.outputs[0], weight.value, input_scale)
        known = self._biases.setdefault(bias.value, bias)
        if known != bias:
            raise CompressionError(
                f"expected each bias to belong to one layer, got {bias.value!r} in two", where="quantize"
            )
        weight.floors.append((bias.value, input_scale))

    def _adopt(self, graph: Graph, zeros: Mapping[str, Tensor]) -> None:
        """Make parameters of what is trained."""
        values = dict(graph.constants)
        trained = [*self._weights, *self._biases]
        for node in graph.nodes:
            if node.outputs[0] in trained:
                values |= compute(node, graph.constants)
        for index, name in enumerate(sorted({*trained, *self._plain})):
            # Graphs name values freely, parameters may not be named so.
            self._parameter_of[name] = f"trained_{index}"
            self.register_parameter(f"trained_{index}", nn.Parameter(values[name].clone()))
            weight = self._weights.get(name)
            mask = None if weight is None else zeros.get(weight.codes)
            if mask is not None and mask.shape == values[name].shape and bool(mask.any()):
                self.register_buffer(f"kept_{index}", (~mask).float())

    def _fold(self, graph: Graph) -> None:
        """Compute once what does not depend on the image or on what is trained."""
        known = {name: value for name, value in graph.constants.items() if name not in self._parameter_of}
        waiting = []
        for node in graph.nodes:
            if node.outputs[0] in self._parameter_of:
                continue
            if all(name in known for name in node.inputs if name):
                known |= compute(node, known)
            else:
                waiting.append(node)
        self._nodes = _fuse(waiting, known)
        read = {graph.scores, *(name for node in self._nodes for name in node.inputs)}
        self._buffer_of = {name: f"constant_{index}" for index, name in enumerate(sorted(read & set(known)))}
        for name, buffer in self._buffer_of.items():
            self.register_buffer(buffer, known[name])

    def _value(self, name: str) -> Tensor:
        """The float parameter behind a value, with its zeros."""
        parameter: Tensor = getattr(self, self._parameter_of[name])
        kept = getattr(self, self._parameter_of[name].replace("trained", "kept"), None)
        return parameter if kept is None else parameter * kept

    def _scale(self, weight: _Weight) -> Tensor:
        """Return the scale of a weight: `(C,)`, or one number if the file has one."""
        with torch.no_grad():
            rows = self._value(weight.value).movedim(weight.axis, 0).flatten(1)
            scale = rows.abs().amax(dim=1) / _HIGH
            if self._portable and rows.shape[1] > 1:
                pairs = torch.stack(
                    [side.topk(2, dim=1).values.clamp_min(0).sum(1) for side in (rows, -rows)]
                )
                scale = torch.maximum(scale, pairs.amax(dim=0) / _PORTABLE_PAIR)
            for bias, input_scale in weight.floors:
                scale = torch.maximum(scale, self._value(bias).abs() / (input_scale * _BIAS_LIMIT))
            scale = scale.clamp_min(_SMALLEST_SCALE)
            return scale if weight.per_channel else scale.amax()

    def _rounded(self, weight: _Weight) -> Tensor:
        value, scale = self._value(weight.value), self._scale(weight)
        if not weight.per_channel:
            zero = torch.zeros((), dtype=torch.int32)
            return torch.fake_quantize_per_tensor_affine(value, scale, zero, _LOW, _HIGH)
        zeros = torch.zeros(len(scale), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(value, scale, zeros, weight.axis, _LOW, _HIGH)

    def _rounded_bias(self, bias: _Bias) -> Tensor:
        value = self._value(bias.value)
        scale = self._bias_scale(bias)
        with torch.no_grad():
            codes = (value.double() / scale.double()).round().clamp(-_BIAS_LIMIT, _BIAS_LIMIT)
            gap = codes.float() * scale - value
        return value + gap

    def _bias_scale(self, bias: _Bias) -> Tensor:
        return self._scale(self._weights[bias.weight]) * bias.input_scale

    def forward(self, images: Tensor) -> Tensor:
        """Return scores `(N, K)` of `images` `(N, C, H, W)`, float32 in raw pixel units."""
        values: dict[str, Tensor] = {name: getattr(self, buffer) for name, buffer in self._buffer_of.items()}
        values |= {name: self._value(name) for name in sorted(self._plain)}
        values |= {name: self._rounded_bias(bias) for name, bias in self._biases.items()}
        values |= {name: self._rounded(weight) for name, weight in self._weights.items()}
        values[self._image] = images
        for node in self._nodes:
            values |= _run(node, values)
        return values[self._scores]

    @torch.no_grad()
    def integers(self) -> dict[str, Integers]:
        """Return what was trained as the file holds it: each by the name of what is dequantized from it.

        Raises:
            CompressionError: if a weight is NaN or infinite.
        """
        for name in self._parameter_of:
            if not torch.isfinite(self._value(name)).all():
                raise CompressionError(
                    "expected finite weights after training, got NaN or infinity",
                    where="recover.learning_rate",
                    hint="lower it",
                )
        trained = {}
        for name, weight in self._weights.items():
            scale = self._scale(weight)
            shape = [1] * self._value(name).ndim
            if weight.per_channel:
                shape[weight.axis] = -1
            codes = (self._rounded(weight) / scale.reshape(shape)).round()
            trained[name] = Integers(codes.to(torch.int8).numpy(), scale.numpy())
        for name, bias in self._biases.items():
            scale = self._bias_scale(bias)
            codes = (self._value(name).double() / scale.double()).round().clamp(-_BIAS_LIMIT, _BIAS_LIMIT)
            trained[name] = Integers(codes.to(torch.int32).numpy(), scale.numpy())
        return trained

    @torch.no_grad()
    def floats(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return weights and biases of layers that the file keeps in float, by name."""
        return {name: self._value(name).numpy() for name in sorted(self._plain)}
