# SPDX-License-Identifier: Apache-2.0
"""What operations that move, join and cut positions do to their atoms."""

from __future__ import annotations

import numpy as np

from pipeline.compress.axes import Axis, Value, fixed
from pipeline.compress.channel_walk import Arguments, Walk, first_of, places_of, tensors_of


def reshape(walk: Walk, arguments: Arguments) -> Value:
    """Return the tensor in the shape the operation returned."""
    return walk.atoms.reshape(first_of(arguments), walk.shape, walk.operation)


def permute(_: Walk, arguments: Arguments) -> Value:
    """Reorder dimensions."""
    value = first_of(arguments)
    return Value(tuple(value.axes[place] for place in arguments["dims"]), value.weight)


def transpose(_: Walk, arguments: Arguments) -> Value:
    """Swap two dimensions; without any named, those of a matrix."""
    value = first_of(arguments)
    axes = list(value.axes)
    if len(axes) > 1:
        first, second = (arguments.get(f"dim{n}", arguments.get(f"axis{n}", n)) for n in (0, 1))
        axes[first], axes[second] = axes[second], axes[first]
    return Value(tuple(axes), value.weight)


def unsqueeze(_: Walk, arguments: Arguments) -> Value:
    """Insert a dimension of one."""
    value = first_of(arguments)
    place = arguments["dim"] % (len(value.axes) + 1)
    return Value((*value.axes[:place], fixed(1), *value.axes[place:]), value.weight)


def squeeze(walk: Walk, arguments: Arguments) -> Value:
    """Drop dimensions of one."""
    value = first_of(arguments)
    gone = [place for place in places_of(arguments, len(value.axes)) if len(value.axes[place]) == 1]
    walk.freeze(*(value.axes[place] for place in gone))
    return Value(tuple(axis for place, axis in enumerate(value.axes) if place not in gone), value.weight)


def expand(walk: Walk, arguments: Arguments) -> Value:
    """Repeat a dimension of one; the copies are fixed."""
    value = first_of(arguments)
    axes: list[Axis] = []
    for place, size in zip(range(-len(walk.shape), 0), walk.shape, strict=True):
        axis = value.axes[place] if len(value.axes) >= -place else fixed(1)
        if len(axis) != size:
            walk.freeze(axis)
            axis = fixed(size)
        axes.append(axis)
    return Value(tuple(axes), value.weight)


def repeat(_: Walk, arguments: Arguments) -> Value:
    """Tile every dimension."""
    value = first_of(arguments)
    times = arguments["repeats"]
    axes = [fixed(1)] * (len(times) - len(value.axes)) + list(value.axes)
    return Value(tuple(np.tile(a, n) for a, n in zip(axes, times, strict=True)), value.weight)


def cat(walk: Walk, arguments: Arguments) -> Value:
    """Concatenate along one dimension; the others are joined."""
    values = [value for value in tensors_of(arguments["tensors"]) if value.shape != (0,)]
    place = arguments["dim"] % len(values[0].axes)
    joined = [Value((*value.axes[:place], *value.axes[place + 1 :]), value.weight) for value in values]
    rest = walk.broadcast(joined).axes if joined[0].axes else ()
    axis = np.concatenate([value.axes[place] for value in values])
    return Value((*rest[:place], axis, *rest[place:]), all(value.weight for value in values))


def stack(walk: Walk, arguments: Arguments) -> Value:
    """Join all dimensions under a new one."""
    values = tensors_of(arguments["tensors"])
    made = walk.broadcast(values)
    place = arguments["dim"] % (len(made.axes) + 1)
    return Value((*made.axes[:place], fixed(len(values)), *made.axes[place:]), made.weight)


def _cut(value: Value, place: int, axis: Axis) -> Value:
    return Value((*value.axes[:place], axis, *value.axes[place + 1 :]), value.weight)


def split(walk: Walk, arguments: Arguments) -> tuple[Value, ...]:
    """Cut a dimension: of equal pieces the same offset goes everywhere, so that they stay equal."""
    value = first_of(arguments)
    place = arguments["dim"] % len(value.axes)
    sizes = [shape[place] for shape in walk.shapes]
    axis = value.axes[place]
    if len(set(sizes)) == 1:
        walk.fold(axis, len(sizes))
    pieces = np.split(axis, np.cumsum(sizes)[:-1])
    return tuple(_cut(value, place, piece) for piece in pieces)


def unbind(walk: Walk, arguments: Arguments) -> tuple[Value, ...]:
    """Take every position of a dimension by its number: all of them must stay."""
    value = first_of(arguments)
    place = arguments["dim"] % len(value.axes)
    walk.freeze(value.axes[place])
    made = Value((*value.axes[:place], *value.axes[place + 1 :]), value.weight)
    return (made,) * len(value.axes[place])


def select(walk: Walk, arguments: Arguments) -> Value:
    """Take one position of a dimension by its number: all of them must stay."""
    return unbind(walk, arguments)[0]


def cut_out(walk: Walk, arguments: Arguments) -> Value:
    """Take a slice; its bounds may or may not follow the number of channels, trial by removal finds out."""
    value = first_of(arguments)
    place = (arguments.get("dim") or 0) % len(value.axes)
    if "length" in arguments:
        start = int(arguments["start"])
        bounds = slice(start, start + arguments["length"])
    else:
        bounds = slice(arguments.get("start"), arguments.get("end"), arguments.get("step") or 1)
    axis = value.axes[place]
    piece = axis[bounds]
    if len(piece) != len(axis):
        start = bounds.indices(len(axis))[0] if bounds.step in (None, 1) else -1
        walk.slices.setdefault((walk.source, place), []).append((start, piece))
    return _cut(value, place, piece)


def pad(walk: Walk, arguments: Arguments) -> Value:
    """Add fixed positions around a dimension."""
    value = first_of(arguments)
    constant = arguments.get("mode", "constant") == "constant"
    axes = list(value.axes)
    pads = arguments["pad"]
    for place, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), start=1):
        axis = axes[-place]
        if before == after == 0:
            continue
        if not constant or before < 0 or after < 0:
            walk.freeze(axis)
            axes[-place] = fixed(len(axis) + before + after)
        else:
            axes[-place] = np.concatenate([fixed(before), axis, fixed(after)])
    return Value(tuple(axes), value.weight)


def pixel_shuffle(walk: Walk, arguments: Arguments) -> Value:
    """Make pixels of channels (Shi et al. 2016, arXiv:1609.05158)."""
    value = first_of(arguments)
    times = int(arguments["upscale_factor"]) ** 2
    rows = value.axes[-3].reshape(-1, times)
    for column in rows.T[1:]:
        walk.join(rows[:, 0], column)
    walk.freeze(*value.axes[-2:])
    return Value((*value.axes[:-3], rows[:, 0], *map(fixed, walk.shape[-2:])))


def channel_shuffle(walk: Walk, arguments: Arguments) -> Value:
    """Transpose channels as a matrix of groups (Zhang et al. 2018, arXiv:1707.01083)."""
    value = first_of(arguments)
    groups = int(arguments["groups"])
    return _cut(value, 1, np.repeat(walk.fold(value.axes[1], groups), groups))


def glu(walk: Walk, arguments: Arguments) -> Value:
    """Gate one half of a dimension by the other."""
    value = first_of(arguments)
    place = arguments["dim"] % len(value.axes)
    return _cut(value, place, walk.fold(value.axes[place], 2))
