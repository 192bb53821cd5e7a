# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: a bar with the time left on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

__all__ = ["track"]

Item = TypeVar("Item")


def track(items: Iterable[Item], label: str) -> Iterator[Item]:
    """Yield `items`, drawing a progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=len(items) if isinstance(items, Sized) else None)
        for item in items:
            yield item
            progress.advance(task)
