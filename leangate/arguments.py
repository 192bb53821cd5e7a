# SPDX-License-Identifier: Apache-2.0
"""Commands of the command line, all described alike."""

from __future__ import annotations

import argparse

__all__ = ["Parsers", "add_command"]

Parsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def add_command(
    commands: Parsers[argparse.ArgumentParser], name: str, what: str, text: str
) -> argparse.ArgumentParser:
    """Add a command, and return its parser.

    Args:
        commands: Of the parser it belongs to.
        name: Of the command.
        what: It does, in a line.
        text: The same at length, printed as it stands.
    """
    return commands.add_parser(
        name, help=what, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
