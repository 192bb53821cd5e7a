# SPDX-License-Identifier: Apache-2.0
"""The command `leangate-verify`: `leangate verify` alone, as the distribution of that name has it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from leangate.command import run_command
from leangate.verify import HELP, add_arguments, verify
from pipeline.version import VERSION

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leangate-verify", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"leangate-verify {VERSION}")
    add_arguments(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)

    def work() -> int:
        text, code = verify(
            options.bundle,
            options.trust,
            as_json=options.json,
            at=options.at,
            restricted=options.restricted,
        )
        sys.stdout.write(text)
        sys.stdout.flush()
        return code

    return run_command(work)
