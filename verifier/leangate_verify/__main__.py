# SPDX-License-Identifier: Apache-2.0
"""`leangate-verify`, and `python -m leangate_verify`: runs the copies of LeanGate's modules in `_sources`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]

_SOURCES = Path(__file__).resolve().parent / "_sources"
_NAMES = ("checks", "leangate", "pipeline")


def _load_sources() -> None:
    """Let the names of LeanGate's packages mean the copies, whatever else is installed under them.

    Raises:
        ImportError: if one of the names is taken in this process: a stranger's checks would judge.
    """
    taken = [name for name in _NAMES if name in sys.modules]
    if taken:
        raise ImportError(f"expected a process of its own, got one that has loaded {', '.join(taken)}")
    sys.path.insert(0, str(_SOURCES))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _load_sources()
    from leangate.verifier import main as verify

    return verify(arguments)


if __name__ == "__main__":
    sys.exit(main())
