# SPDX-License-Identifier: Apache-2.0
"""How much each layer suffers from quantization when it alone is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from checks.evidence import Output
from pipeline.compress.calibration import Range, run_on
from pipeline.compress.graphs import Graph
from pipeline.compress.qdq import to_qdq

__all__ = ["Sensitivity", "divergence", "rank_layers"]

_MOST = 128
"""Images a layer; ranks need fewer than ranges, and every layer is one more pass over them."""


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one layer alone does to the answers.

    Attributes:
        layer: Name of its weights.
        node: Name of its node.
        divergence: Mean Kullback-Leibler divergence from the float answers, in nats.
    """

    layer: str
    node: str
    divergence: float


def _log_shares(scores: npt.NDArray[np.floating], output: Output) -> npt.NDArray[np.float64]:
    values = scores.astype(np.float64)
    if output == "probabilities":
        values = np.log(np.maximum(values, 1e-12))
    values = values - values.max(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return shares


def divergence(
    scores: npt.NDArray[np.floating], others: npt.NDArray[np.floating], output: Output = "logits"
) -> float:
    """Return the mean Kullback-Leibler divergence from `scores` to `others`, in nats.

    Args:
        scores: `(N, K)`, what the float file answers.
        others: `(N, K)`, what the other answers.
        output: Whether both are logits or probabilities.
    """
    one, two = _log_shares(scores, output), _log_shares(others, output)
    return float((np.exp(one) * (one - two)).sum(axis=1).mean())


def _answers(graph: Graph, images: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    name = next(iter(graph.output_names))
    return np.concatenate([values[name] for values in run_on(graph, [name], images)])


def rank_layers(
    graph: Graph,
    ranges: Mapping[str, Range],
    images: npt.NDArray[np.float32],
    *,
    output: Output = "logits",
) -> list[Sensitivity]:
    """Quantize each layer alone and rank them by what that does, the worst first.

    Args:
        graph: A float32 graph; not changed.
        ranges: Of its activations.
        images: `(N, C, H, W)` raw pixels of the calibration split; the first 128 are used, and they are a
            random draw already.
        output: What the graph answers.

    Returns:
        One entry a layer; equal ones in the graph's order.
    """
    few = images[:_MOST]
    want = _answers(graph, few)
    found = []
    for layer in graph.layers():
        came = _answers(to_qdq(graph, ranges, only=[layer.name]), few)
        found.append(Sensitivity(layer.weight, layer.name, divergence(want, came, output)))
    return sorted(found, key=lambda entry: -entry.divergence)
