# SPDX-License-Identifier: Apache-2.0
"""Atoms: which positions along the dimensions of tensors can only be removed together.

Every position along every dimension carries one atom, or none if it is fixed. Operations join the atoms of
positions that must stay or go together, and freeze those that must stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

__all__ = ["Atoms", "Axis", "Value"]

Axis = npt.NDArray[np.int64]
"""Atoms of the positions along one dimension `(size,)`; -1 is a fixed position."""


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of a graph.

    Attributes:
        axes: One a dimension.
        weight: Whether it is made of parameters alone, not of images.
    """

    axes: tuple[Axis, ...]
    weight: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(len(axis) for axis in self.axes)


def fixed(size: int) -> Axis:
    """Return an axis without atoms."""
    return np.full(size, -1, dtype=np.int64)


class Atoms:
    """Union-find over atoms, with the reason why an atom must stay."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, dtype=np.int64)
        self._reasons: list[tuple[int, str]] = []

    def fresh(self, size: int) -> Axis:
        """Return an axis of `size` new atoms; a lone position can never be removed, so it gets none."""
        if size == 1:
            return fixed(1)
        start = len(self._parent)
        made = np.arange(start, start + size, dtype=np.int64)
        self._parent = np.concatenate([self._parent, made])
        return made

    def find(self, axis: Axis) -> Axis:
        """Return the representatives of the atoms of an axis."""
        roots = axis.copy()
        live = roots >= 0
        found = roots[live]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parent[axis[live]] = found
        roots[live] = found
        return roots

    def freeze(self, axis: Axis, reason: str) -> None:
        """Keep every position of an axis."""
        self._reasons += [(int(atom), reason) for atom in np.unique(self.find(axis)) if atom >= 0]

    def reasons(self) -> dict[int, str]:
        """Return the first reason by representative, of all that must stay."""
        found: dict[int, str] = {}
        if self._reasons:
            atoms = np.array([atom for atom, _ in self._reasons], dtype=np.int64)
            for root, (_, reason) in zip(self.find(atoms), self._reasons, strict=True):
                found.setdefault(int(root), reason)
        return found

    def join(self, first: Axis, second: Axis, reason: str) -> None:
        """Let two axes of one size stay or go position by position; beside a fixed position all stays."""
        left, right = self.find(first), self.find(second)
        differ = left != right
        if not differ.any():
            return
        pairs = np.unique(np.stack([left[differ], right[differ]], axis=1), axis=0)
        for one, other in pairs:
            if one < 0 or other < 0:
                self._reasons.append((int(max(one, other)), reason))
                continue
            roots = self.find(np.array([one, other]))
            self._parent[roots.max()] = roots.min()

    def fold(self, axis: Axis, parts: int, reason: str) -> Axis:
        """Let the same offset of all equal parts of an axis stay or go together; return the first part."""
        first, *others = axis.reshape(parts, -1)
        for row in others:
            self.join(first, row, reason)
        return first

    def _classes(self, rows: Axis) -> int:
        """Count what would be left apart if every row of a matrix were joined."""
        parent: dict[int, int] = {}

        def find(atom: int) -> int:
            while parent.setdefault(atom, atom) != atom:
                atom = parent[atom]
            return atom

        for row in rows:
            first = find(int(row[0]))
            for atom in np.unique(row):
                parent[find(int(atom))] = first
        return len({find(int(atom)) for atom in np.unique(rows)} - {find(-1)})

    def merge(self, axes: list[Axis], reason: str) -> Axis:
        """Return the axis of several dimensions flattened into one."""
        carrying = [place for place, axis in enumerate(axes) if (axis >= 0).any()]
        shape = [len(axis) for axis in axes]
        if len(carrying) > 1:
            for axis in axes:
                self.freeze(axis, reason)
        if len(carrying) != 1:
            return fixed(prod(shape))
        [place] = carrying
        view = [1] * len(axes)
        view[place] = -1
        merged: Axis = np.broadcast_to(axes[place].reshape(view), shape).reshape(-1)
        return merged

    def split(self, axis: Axis, sizes: list[int], reason: str) -> list[Axis]:
        """Return the axes of one dimension cut into several: one of them carries the atoms.

        The one that leaves most positions apart, because that is most often the one whose size the network
        computes from the number of channels; trial by removal finds out if it is not.
        """
        made = [fixed(size) for size in sizes]
        if not (axis >= 0).any():
            return made
        roots = self.find(axis).reshape(sizes)
        best, most = 0, -1
        for place, size in enumerate(sizes):
            classes = self._classes(np.moveaxis(roots, place, 0).reshape(size, -1)) if size > 1 else -1
            if classes >= most:
                best, most = place, classes
        rows = np.moveaxis(axis.reshape(sizes), best, 0).reshape(sizes[best], -1)
        for column in rows.T[1:]:
            self.join(rows[:, 0], column, reason)
        made[best] = rows[:, 0].copy()
        return made

    def reshape(self, value: Value, shape: tuple[int, ...], reason: str) -> Value:
        """Return `value` in another shape of the same size, dimension by dimension where it can be told."""
        axes: list[Axis] = []
        old, new = 0, 0
        while old < len(value.axes) or new < len(shape):
            start_old, start_new = old, new
            before = after = 1
            while True:
                if before <= after and old < len(value.axes):
                    before *= len(value.axes[old])
                    old += 1
                elif new < len(shape):
                    after *= shape[new]
                    new += 1
                else:
                    break
                if before == after and new > start_new and old > start_old:
                    break
            merged = list(value.axes[start_old:old])
            sizes = list(shape[start_new:new])
            if not sizes:  # trailing dimensions of size 1 that vanish
                for axis in merged:
                    self.freeze(axis, reason)
            elif len(merged) == len(sizes) == 1:
                axes.append(merged[0])
            else:
                axes += self.split(self.merge(merged, reason), sizes, reason) if merged else map(fixed, sizes)
        return Value(tuple(axes), value.weight)
