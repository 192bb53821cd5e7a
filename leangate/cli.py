# SPDX-License-Identifier: Apache-2.0
"""The command `leangate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import leangate

__all__ = ["build_parser", "main"]

_EXIT_CODES = """exit codes:
  0  passed
  1  blocked: harm was proven, or nothing was good enough to be judged
  2  wrong use or input
  3  inconclusive: more data is needed
  4  could not judge
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    from pipeline.stages import add_stage_parsers

    parser = argparse.ArgumentParser(
        prog="leangate",
        description="Make a vision model small, prove it did no harm, let only proven ones through.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"leangate {leangate.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run `dvc repro`, then print the table of candidates")
    run.add_argument("targets", nargs="*", help="stages to reproduce; all of them by default")
    run.add_argument("--force", action="store_true", help="run every stage, changed or not")
    commands.add_parser("table", help="print the table of candidates of the last run")
    add_stage_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    from checks.errors import LeanGateError
    from pipeline.stages import STAGES, report_error, run_stage

    root = Path()
    if options.command in STAGES:
        matrix = {key: getattr(options, key) for key in STAGES[options.command]}
        return run_stage(options.command, matrix, root)
    from leangate import reproduce

    try:
        if options.command == "table":
            print(reproduce.describe_outcome(root))
            return 0
        return reproduce.reproduce(root, options.targets, force=options.force)
    except LeanGateError as error:
        return report_error(error)
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` goes on where it stopped", file=sys.stderr)
        return 130
