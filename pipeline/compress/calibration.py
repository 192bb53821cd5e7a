# SPDX-License-Identifier: Apache-2.0
"""Ranges of activations over calibration images, from streamed histograms; activations are never stored.

ONNX Runtime's own entropy calibrator makes 128 bins and as many levels, so that it returns the min-max range
whatever the data; with more bins it weighs 128 levels against a code that has 256, and clips away classes.
Here a histogram has eight bins for each of the 256 levels of uint8, and every candidate range is judged with
256 levels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from checks.errors import CompressionError, ParamsError
from pipeline.compress.graphs import Graph
from pipeline.compress.precision_configs import LEAST_EXAMPLES, StaticInt8

__all__ = [
    "Histogram",
    "Range",
    "activation_limits",
    "entropy_range",
    "find_ranges",
    "mse_range",
    "observe",
    "percentile_range",
    "run_on",
]

Images = npt.NDArray[np.float32]
Range = tuple[float, float]
"""Lowest and highest value that are told apart; zero lies within."""

_LEVELS = 256
_BINS = 8 * _LEVELS
_CANDIDATES = 128
_CANDIDATES_TWO_SIDED = 48
_MAX_BYTES = 64 * 1024**2
_MAX_BATCH = 32


@dataclass(frozen=True, eq=False)
class Histogram:
    """Values of one tensor.

    Attributes:
        low: Smallest value, or zero if all are positive.
        high: Largest value, or zero if all are negative.
        counts: `(B,)` float64, how many values fell into each of the equal bins of `[low, high]`.
        centers: `(B,)` float64, mean of the values in each bin; its middle where it is empty.
    """

    low: float
    high: float
    counts: npt.NDArray[np.float64]
    centers: npt.NDArray[np.float64]


def run_on(graph: Graph, outputs: Sequence[str], images: Images) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
    """Run the graph on images, batch by batch, and yield the named values of each batch.

    Batches hold at most 32 images and, if one image allows it, 64 MiB of values.

    Args:
        graph: Not changed.
        outputs: Names of values.
        images: `(N, C, H, W)` float32, raw pixels, N >= 1.
    """
    from pipeline.probes.session import create_session

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "observed.onnx"
        path.write_bytes(model.SerializeToString())
        session = create_session(path)
    name = session.get_inputs()[0].name
    first = session.run(None, {name: images[:1]})
    size = max(1, min(_MAX_BATCH, _MAX_BYTES // max(1, sum(value.nbytes for value in first))))
    for start in range(0, len(images), size):
        values = session.run(None, {name: np.ascontiguousarray(images[start : start + size])})
        yield dict(zip(outputs, values, strict=True))


def _activations(graph: Graph) -> list[str]:
    """Return names of every float value that depends on the image."""
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in [*inferred.input, *inferred.value_info, *inferred.output]
    }
    inputs = [value.name for value in graph.model.graph.input if not graph.is_constant(value.name)]
    names = inputs + [name for node in graph.nodes for name in node.output if name]
    return [name for name in names if kinds.get(name, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT]


def _limits(graph: Graph, names: Sequence[str], images: Images) -> dict[str, Range]:
    limits = dict.fromkeys(names, (0.0, 0.0))
    for values in run_on(graph, names, images):
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise CompressionError(
                    "expected finite activations on the calibration split, got NaN or infinity",
                    where=f"quantize, value {name}",
                )
            low, high = limits[name]
            if value.size:
                limits[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return limits


def activation_limits(graph: Graph, images: Images) -> dict[str, Range]:
    """Return the smallest and largest value of every float activation, zero included.

    Args:
        graph: A float32 graph.
        images: `(N, C, H, W)` float32, raw pixels.

    Raises:
        CompressionError: if an activation is NaN or infinite.
    """
    return _limits(graph, _activations(graph), images)


def observe(graph: Graph, images: Images) -> dict[str, Histogram]:
    """Make the histogram of every float activation, in two passes over the images.

    Args:
        graph: A float32 graph.
        images: `(N, C, H, W)` float32, raw pixels.

    Raises:
        CompressionError: if an activation is NaN or infinite.
    """
    names = _activations(graph)
    limits = _limits(graph, names, images)
    counts = {name: np.zeros(_BINS) for name in names}
    sums = {name: np.zeros(_BINS) for name in names}
    for values in run_on(graph, names, images):
        for name, value in values.items():
            low, high = limits[name]
            flat = value.ravel().astype(np.float64)
            width = ((high - low) or 1.0) / _BINS
            bins = np.clip(((flat - low) / width).astype(np.int64), 0, _BINS - 1)
            counts[name] += np.bincount(bins, minlength=_BINS)
            sums[name] += np.bincount(bins, weights=flat, minlength=_BINS)
    found = {}
    for name in names:
        low, high = limits[name]
        middles = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
        full = counts[name] > 0
        centers = np.where(full, sums[name] / np.maximum(counts[name], 1), middles)
        found[name] = Histogram(low, high, counts[name], centers)
    return found


def _ranges(histogram: Histogram) -> npt.NDArray[np.float64]:
    """Return candidate ranges `(R, 2)`: each end at equal steps from zero to the most extreme value."""
    if histogram.low == 0 or histogram.high == 0:
        share = np.arange(1, _CANDIDATES + 1) / _CANDIDATES
        return np.stack([histogram.low * share, histogram.high * share], axis=1)
    share = np.arange(1, _CANDIDATES_TWO_SIDED + 1) / _CANDIDATES_TWO_SIDED
    low, high = np.meshgrid(histogram.low * share, histogram.high * share, indexing="ij")
    return np.stack([low.ravel(), high.ravel()], axis=1)


def _squared_errors(histogram: Histogram, ranges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the summed squared error `(R,)` of uint8 codes over each range."""
    full = histogram.counts > 0
    counts, centers = histogram.counts[full], histogram.centers[full].astype(np.float32)
    scale = ((ranges[:, 1] - ranges[:, 0]) / (_LEVELS - 1)).astype(np.float32)[:, None]
    zero = np.rint(-ranges[:, :1] / scale).astype(np.float32)
    codes = np.rint(centers[None, :] / scale)
    codes += zero
    np.clip(codes, 0, _LEVELS - 1, out=codes)
    codes -= zero
    codes *= scale
    codes -= centers
    codes *= codes
    errors: npt.NDArray[np.float64] = codes.astype(np.float64) @ counts
    return errors


def mse_range(histogram: Histogram) -> Range:
    """Return the range whose uint8 codes have the least mean squared error, clipping included.

    Both ends are searched together, at steps of 1/128 of a one-sided range, or 1/48 of each end of a
    two-sided one.
    """
    if histogram.high == histogram.low:
        return histogram.low, histogram.high
    ranges = _ranges(histogram)
    parts = [_squared_errors(histogram, part) for part in np.array_split(ranges, max(1, len(ranges) // 64))]
    low, high = ranges[int(np.argmin(np.concatenate(parts)))]
    return float(low), float(high)


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """Return the range that holds `percentile` per cent of the values; equal shares lie beyond each end."""
    share = np.cumsum(histogram.counts) / max(1.0, histogram.counts.sum())
    beyond = (1 - percentile / 100) / 2
    edges = np.linspace(histogram.low, histogram.high, len(share) + 1)
    low = edges[int(np.searchsorted(share, beyond, side="right"))] if beyond else histogram.low
    high = edges[min(int(np.searchsorted(share, 1 - beyond - 1e-12)) + 1, len(share))]
    return min(0.0, float(low)), max(0.0, float(high))


def _without_zeros(histogram: Histogram) -> Histogram:
    """Give the bin of zero as many values as its fullest neighbour.

    Every range codes zero exactly, while after a Relu half the values are zero: as part of a distribution
    that is to be matched they would outweigh everything else.
    """
    counts = histogram.counts.copy()
    width = (histogram.high - histogram.low) / len(counts)
    zero = min(int(-histogram.low / width), len(counts) - 1)
    beside = [index for index in (zero - 1, zero + 1) if 0 <= index < len(counts)]
    counts[zero] = min(counts[zero], counts[beside].max())
    return Histogram(histogram.low, histogram.high, counts, histogram.centers)


def _divergence(histogram: Histogram, low: float, high: float) -> float:
    """Return the Kullback-Leibler divergence from values to their uint8 codes over `[low, high]`, in nats.

    What lies outside counts as the nearest code. Within a code the mass is spread evenly over its bins that
    hold any value.
    """
    counts, total = histogram.counts, histogram.counts.sum()
    scale = (high - low) / (_LEVELS - 1)
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(histogram.centers / scale) + zero, 0, _LEVELS - 1).astype(np.int64)
    inside = (histogram.centers >= low - scale / 2) & (histogram.centers <= high + scale / 2)
    full = counts > 0
    # The reconstruction knows only what a range keeps, so that clipped mass costs.
    kept = np.bincount(codes[inside], weights=counts[inside], minlength=_LEVELS)
    bins = np.bincount(codes[inside & full], minlength=_LEVELS)
    truth = np.bincount(codes, weights=counts, minlength=_LEVELS)
    extra = truth - kept
    spread = np.where(full & inside, (kept / np.maximum(bins, 1))[codes], 0)
    clipped = counts.copy()
    clipped[~inside] = 0
    for code, mass in ((0, extra[0]), (_LEVELS - 1, extra[-1])):
        members = np.flatnonzero(inside & (codes == code))
        if mass and len(members):
            clipped[members[0 if code == 0 else -1]] += mass
    p, q = clipped / total, spread / max(1.0, spread.sum())
    used = p > 0
    return float((p[used] * np.log(p[used] / np.maximum(q[used], 1e-12))).sum())


def entropy_range(histogram: Histogram) -> Range:
    """Return the range with the least divergence between values and codes.

    Migacz 2017, 8-bit Inference with TensorRT (GPU Technology Conference), with both ends shrunk together in
    steps of 1/128 of the range, and not below a quarter of it.
    """
    if histogram.high == histogram.low:
        return histogram.low, histogram.high
    histogram = _without_zeros(histogram)
    shares = np.arange(_CANDIDATES // 4, _CANDIDATES + 1) / _CANDIDATES
    costs = [_divergence(histogram, histogram.low * share, histogram.high * share) for share in shares]
    share = shares[int(np.argmin(costs))]
    return float(histogram.low * share), float(histogram.high * share)


def find_ranges(graph: Graph, images: Images, config: StaticInt8) -> dict[str, Range]:
    """Find the range of every float activation of the graph.

    Args:
        graph: A float32 graph; not changed.
        images: `(N, C, H, W)` float32, raw pixels of the calibration split, N >= 32.
        config: Names the calibrator and its percentile.

    Raises:
        ParamsError: if there are too few images.
        CompressionError: if an activation is NaN or infinite.
    """
    if len(images) < LEAST_EXAMPLES:
        raise ParamsError(
            f"expected at least {LEAST_EXAMPLES} calibration images, got {len(images)}",
            where="quantize",
            hint="give the calibration split more examples (prepare.splits), or raise max_examples",
        )
    if config.calibration == "minmax":
        return activation_limits(graph, images)
    choose: dict[str, Callable[[Histogram], Range]] = {
        "entropy": entropy_range,
        "mse": mse_range,
        "percentile": lambda histogram: percentile_range(histogram, config.percentile),
    }
    return {name: choose[config.calibration](entry) for name, entry in observe(graph, images).items()}
