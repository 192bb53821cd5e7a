# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of RFC 6962, section 2.1, whose root stands for all leaves before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["EMPTY", "Frontier", "leaf_hash", "root_of"]

EMPTY = hashlib.sha256(b"").hexdigest()
"""Root of a tree without leaves."""


def leaf_hash(data: bytes) -> str:
    """Return SHA-256(0x00 || data) in hexadecimal."""
    return hashlib.sha256(b"\x00" + data).hexdigest()


def _node_hash(left: str, right: str) -> str:
    return hashlib.sha256(b"\x01" + bytes.fromhex(left) + bytes.fromhex(right)).hexdigest()


@dataclass(frozen=True)
class Frontier:
    """Roots of the full subtrees on the right edge, from which the next root follows without older leaves.

    Attributes:
        size: Number of leaves.
        hashes: Of the subtrees, largest first: one for every bit of `size` that is set.
    """

    size: int = 0
    hashes: tuple[str, ...] = ()

    def add(self, leaf: str) -> Frontier:
        """Return the frontier with one more leaf, given by its hash."""
        hashes, rest, node = list(self.hashes), self.size, leaf
        while rest & 1:
            node = _node_hash(hashes.pop(), node)
            rest >>= 1
        return Frontier(self.size + 1, (*hashes, node))

    @property
    def root(self) -> str:
        """Of the tree of all leaves so far."""
        if not self.hashes:
            return EMPTY
        node = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            node = _node_hash(left, node)
        return node


def root_of(leaves: Iterable[str]) -> str:
    """Return the root of a tree, given the hashes of its leaves in order."""
    frontier = Frontier()
    for leaf in leaves:
        frontier = frontier.add(leaf)
    return frontier.root
